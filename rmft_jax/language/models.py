"""Language models by their names, or by the paths of their files."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmft_jax.config.checks import ConfigError
from rmft_jax.language.decoder import DecoderConfig
from rmft_jax.language.loading import find_smollm2, load_path
from rmft_jax.language.tokenizers import Tokenizer
from rmft_jax.language.toy import read_toy, toy_config, toy_tokenizer, untrained_params


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder, its weights, and the tokenizer that it was trained with."""

    name: str
    config: DecoderConfig
    params: dict[str, Any]
    """NumPy arrays in float32, inputs first; see `decoder`."""
    tokenizer: Tokenizer
    digest: str
    """Which weights these are: the start of the SHA-256 of their files."""


def _smollm2() -> LanguageModel:
    return LanguageModel("smollm2", *load_path(find_smollm2()))


def _toy() -> LanguageModel:
    return LanguageModel("toy", *read_toy())


def _untrained_toy() -> LanguageModel:
    return LanguageModel("toy-untrained", toy_config(), untrained_params(), toy_tokenizer(), "untrained")


MAKERS: dict[str, Callable[[], LanguageModel]] = {
    "toy": _toy,
    "toy-untrained": _untrained_toy,
    "smollm2": _smollm2,
}
"""What makes the models that have names."""


def load_model(name: str) -> LanguageModel:
    """The model of this name, made once in a process.

    Args:
      name: a key of `MAKERS`, or the path of a `.gguf` file or of a folder with `config.json`, `tokenizer.json` and
        safetensors.

    Raises:
      ConfigError: if there is none, its files are damaged or do not fit together, or a package is missing.
    """
    if name in MAKERS:
        return _make(name)
    path = Path(name).expanduser()
    if not name or not path.exists():
        need = f"one of {', '.join(sorted(MAKERS))}, or the path of a .gguf file or of a folder with config.json"
        raise ConfigError(f"got language model {name!r}, need {need}; try smollm2")
    return _read(name, path.resolve())


@functools.cache
def _make(name: str) -> LanguageModel:
    return MAKERS[name]()


@functools.cache
def _read(name: str, path: Path) -> LanguageModel:
    return LanguageModel(name, *load_path(path))
