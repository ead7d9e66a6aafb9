"""Models in GGUF files, the format of llama.cpp."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.bpe import ByteBPETokenizer
from rmft_jax.language.decoder import DecoderConfig
from rmft_jax.language.gguf_file import GGUFFile
from rmft_jax.language.weights import Weights, assemble

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_LAYER = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
}
_NAMES = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
_NAMES |= {key: "blk.{layer}." + name for key, name in _LAYER.items()}
_ROPE = "rope_freqs.weight"
_LLAMA3_RANGE = (1.0, 4.0, 8192)
"""Of the frequencies that Llama 3 stretches; in GGUF files stands only by how much each one is stretched."""


def load_gguf(path: Path) -> tuple[DecoderConfig, dict[str, Any], ByteBPETokenizer]:
    """Reads the settings, the parameters and the tokenizer of a model.

    Raises:
      ConfigError: if the file is damaged, holds no model of a known architecture, or misses something.
    """
    file = GGUFFile(path)
    config = _config(file)
    tokenizer = ByteBPETokenizer.from_gguf(file.metadata, str(path))
    heads = {"attn_q.weight": config.num_heads, "attn_k.weight": config.num_kv_heads}
    interleaved = file.metadata["general.architecture"] == "llama"

    def read(name: str) -> Float[np.ndarray, "..."]:
        tensor = file.read(name)
        kind = name.split(".", 2)[-1]
        return unpermuted(tensor, heads[kind]) if interleaved and kind in heads else tensor

    weights = Weights(str(path), file.shapes, read, _NAMES, lambda name: name == _ROPE)
    return config, assemble(config, weights), tokenizer


def unpermuted(rows: Float[np.ndarray, "H_h D"], heads: int) -> Float[np.ndarray, "H_h D"]:
    """Rows of q or k whose rotary pairs are (i, i + h/2), from rows whose pairs are (2i, 2i + 1).

    Files of the Llama architecture have the latter, because llama.cpp rotates neighbours there.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _config(file: GGUFFile) -> DecoderConfig:
    source = str(file.path)
    architecture = file.metadata.get("general.architecture")
    need = f"one of {', '.join(ARCHITECTURES)}"
    require(architecture in ARCHITECTURES, f"{source} of architecture {architecture!r}", need, "another model")
    parts = file.metadata.get("split.count", 0)
    require(parts in (0, 1), f"{source}, one of {parts} parts", "the whole model", "to merge them")
    metadata = {str(key).removeprefix(f"{architecture}."): value for key, value in file.metadata.items()}

    def number(key: str, kinds: tuple[type, ...], default: float | None = None) -> Any:
        value = metadata.get(key, default)
        ok = isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf
        wanted = "a positive whole number" if kinds == (int,) else "a positive number"
        require(ok, f"{architecture}.{key}={value!r} in {source}", wanted, "another file")
        return value

    def whole(key: str, default: int | None = None) -> int:
        return number(key, (int,), default)

    width, heads = whole("embedding_length"), whole("attention.head_count")
    head_size = whole("attention.key_length", max(1, width // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        got = f"{architecture}.{key}={metadata.get(key)} in {source}"
        require(whole(key, head_size) == head_size, got, f"the size of a head, {head_size}", "another model")
    embedding = file.shapes.get(_NAMES["embed"], ())
    require(len(embedding) == 2, f"{source} without a matrix {_NAMES['embed']}", "a whole model", "another file")
    return DecoderConfig(
        vocab_size=embedding[0],
        num_layers=whole("block_count"),
        width=width,
        mlp_width=whole("feed_forward_length"),
        num_heads=heads,
        num_kv_heads=whole("attention.head_count_kv", heads),
        head_size=head_size,
        rope_theta=number("rope.freq_base", (int, float), 10000.0),
        rope_scaling=_scaling(file, metadata, head_size, number("rope.freq_base", (int, float), 10000.0)),
        norm_eps=number("attention.layer_norm_rms_epsilon", (int, float)),
        tied=_NAMES["head"] not in file.shapes,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        max_positions=whole("context_length", 2048),
    )


def _scaling(
    file: GGUFFile, metadata: dict[str, Any], head_size: int, theta: float
) -> tuple[float, float, float, int] | None:
    """How rotary frequencies are stretched, found again from the factor of each."""
    kind = metadata.get("rope.scaling.type", "none")
    plain = kind == "none" and metadata.get("rope.scale_linear", 1.0) == 1.0
    require(plain, f"{file.path} with RoPE scaling {kind!r}", "none, or that of Llama 3", "another model")
    if _ROPE not in file.shapes:
        return None
    factors = file.read(_ROPE)
    if factors.size and (factors == 1).all():
        return None
    scaling = (float(factors.max()), *_LLAMA3_RANGE)
    frequencies = theta ** (-np.arange(0, head_size, 2) / head_size)
    known = factors.shape == frequencies.shape and scaling[0] > 1
    if not known or not np.allclose(factors, llama3_factors(frequencies, scaling), rtol=1e-3, atol=0):
        raise ConfigError(f"got {file.path} with unknown factors of RoPE, need those of Llama 3; try another model")
    return scaling


def llama3_factors(
    frequencies: Float[np.ndarray, "P"], scaling: tuple[float, float, float, int]
) -> Float[np.ndarray, "P"]:
    """By how much Llama 3 stretches each wave: the longest ones in full, the shortest ones not at all."""
    factor, low, high, length = scaling
    turns = length * frequencies / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - share) / factor + share)
