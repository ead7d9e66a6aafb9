"""Models in folders, as they are published: `config.json`, `tokenizer.json` and safetensors."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - gives NumPy bfloat16
import numpy as np
from jaxtyping import Float

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.bpe import ByteBPETokenizer
from rmft_jax.language.decoder import DecoderConfig
from rmft_jax.language.packages import first_line, optional
from rmft_jax.language.weights import Weights, assemble

MODEL_TYPES = ("llama", "qwen2", "qwen3")
_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
_NAMES = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
_NAMES |= {key: "model.layers.{layer}." + name for key, name in _LAYER.items()}
_TYPES = ("F32", "F16", "BF16")
_PLAIN: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Settings that a decoder has only in this way, which is also what is meant where they are not given."""


def load_folder(path: Path) -> tuple[DecoderConfig, dict[str, Any], ByteBPETokenizer]:
    """Reads the settings, the parameters and the tokenizer of a model.

    Raises:
      ConfigError: if something is missing, damaged, or of an unknown architecture.
    """
    described = _read_json(path / "config.json")
    config = _config(described, str(path / "config.json"))
    tokenizer = _tokenizer(path, described)
    return config, _params(path, config), tokenizer


def weights_files(path: Path) -> list[Path]:
    """The files with the weights of a model: those in the index if there is one, else all safetensors.

    Raises:
      ConfigError: if there are none.
    """
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        files = sorted(path.glob("*.safetensors"))
        require(bool(files), f"{path} without *.safetensors", "the weights of a model", "to get the whole folder")
        return files
    places = _read_json(index).get("weight_map")
    ok = isinstance(places, dict) and bool(places) and all(isinstance(name, str) for name in places.values())
    require(ok, f"{index} without weight_map", "the file of each tensor", "to get it again")
    files = [path / name for name in sorted(set((places or {}).values()))]
    for file in files:
        require(file.is_file(), f"{index} that names {file.name}", "a file beside it", "to get the whole folder")
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"got {path}, need a JSON file that can be read ({first_line(error)}); try to get the whole folder"
        raise ConfigError(message) from error
    require(isinstance(found, dict), f"{path} that holds a {type(found).__name__}", "settings", "to get it again")
    return found


def _config(described: Mapping[str, Any], source: str) -> DecoderConfig:
    kind = described.get("model_type")
    need = f"one of {', '.join(MODEL_TYPES)}"
    require(kind in MODEL_TYPES, f"model_type={kind!r} in {source}", need, "another model")
    for key, plain in _PLAIN.items():
        value = described.get(key, plain)
        ok = value == plain or value is None
        require(ok, f"{key}={value!r} in {source}", f"{key}={plain!r} or none given", "another model")
    layers = described.get("layer_types") or []
    ok = isinstance(layers, list) and all(layer == "full_attention" for layer in layers)
    require(ok, f"layer_types={layers!r} in {source}", "full attention in every layer", "another model")

    def number(key: str, kinds: tuple[type, ...], default: float | None = None) -> Any:
        value: Any = described.get(key)
        value = default if value is None else value
        good = isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf
        wanted = "a positive whole number" if kinds == (int,) else "a positive number"
        require(good, f"{key}={value!r} in {source}", wanted, "another file")
        return value

    def whole(key: str, default: int | None = None) -> int:
        return number(key, (int,), default)

    width, heads = whole("hidden_size"), whole("num_attention_heads")
    tied = described.get("tie_word_embeddings") or False
    require(isinstance(tied, bool), f"tie_word_embeddings={tied!r} in {source}", "true or false", "another file")
    theta, scaling = _rope(described, source)
    return DecoderConfig(
        vocab_size=whole("vocab_size"),
        num_layers=whole("num_hidden_layers"),
        width=width,
        mlp_width=whole("intermediate_size"),
        num_heads=heads,
        num_kv_heads=whole("num_key_value_heads", heads),
        head_size=whole("head_dim", 128 if kind == "qwen3" else max(1, width // heads)),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=number("rms_norm_eps", (int, float), 1e-6),
        tied=tied,
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        max_positions=whole("max_position_embeddings", 2048),
    )


def _rope(described: Mapping[str, Any], source: str) -> tuple[float, tuple[float, float, float, int] | None]:
    """The base of rotary frequencies and how they are stretched; newer files keep both in `rope_parameters`."""
    given = described.get("rope_parameters") or described.get("rope_scaling") or {}
    flat = isinstance(given, dict) and not any(isinstance(value, dict) for value in given.values())
    require(flat, f"RoPE settings {given!r} in {source}", "one set of names and values", "another model")

    def number(key: str, value: Any) -> float:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        require(ok, f"{key}={value!r} for RoPE in {source}", "a positive number", "another file")
        return float(value)

    # Without a base the value of the model's family is meant, which is the same for all three.
    theta = number("rope_theta", given.get("rope_theta") or described.get("rope_theta") or 10000.0)
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return theta, None
    require(kind == "llama3", f"RoPE type {kind!r} in {source}", "default or llama3", "another model")
    factor, low, high, length = (
        number(key, given.get(key))
        for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    require(low < high, f"low_freq_factor={low} for RoPE in {source}", f"one below {high}", "another file")
    return theta, (factor, low, high, int(length))


def _tokenizer(path: Path, described: Mapping[str, Any]) -> ByteBPETokenizer:
    """Its special tokens stand in `tokenizer_config.json` as they are written, or in `config.json` as numbers."""
    config = path / "tokenizer_config.json"
    written = _read_json(config) if config.is_file() else {}

    def token(name: str) -> int | str | None:
        value: Any = written.get(f"{name}_token")
        value = value.get("content") if isinstance(value, dict) else value
        value = described.get(f"{name}_token_id") if value is None else value
        value = value[0] if isinstance(value, list) and value else value
        ok = value is None or (isinstance(value, int | str) and not isinstance(value, bool))
        require(ok, f"{name}={value!r} in {path}", "a token or its number", "another file")
        return value

    eos = token("eos")
    if eos is None:
        raise ConfigError(f"got {path} without an eos token, need one in its settings; try a folder of a whole model")
    more = described.get("eos_token_id")
    generation = path / "generation_config.json"
    again = _read_json(generation).get("eos_token_id") if generation.is_file() else None
    ends = [end for one in (more, again) for end in (one if isinstance(one, list) else [one]) if isinstance(end, int)]
    return ByteBPETokenizer.from_json(path / "tokenizer.json", eos=eos, pad=token("pad"), ends=ends)


def _params(path: Path, config: DecoderConfig) -> dict[str, Any]:
    safetensors = optional("safetensors", str(path))
    with contextlib.ExitStack() as stack:
        files, shapes = {}, {}
        for file in weights_files(path):
            try:
                handle = stack.enter_context(safetensors.safe_open(file, framework="numpy"))
                slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - it is no mapping
            except (OSError, safetensors.SafetensorError) as error:
                message = f"got {file}, need whole safetensors ({first_line(error)}); try to get it again"
                raise ConfigError(message) from error
            for name, tensor in slices.items():
                require(
                    name not in files, f"{name} in two files of {path}", "each tensor once", "the weights of one model"
                )
                kind = tensor.get_dtype()
                require(
                    kind in _TYPES, f"{name} of type {kind} in {file}", f"one of {', '.join(_TYPES)}", "other weights"
                )
                files[name], shapes[name] = handle, tuple(tensor.get_shape())

        def read(name: str) -> Float[np.ndarray, "..."]:
            return files[name].get_tensor(name).astype(np.float32, copy=False)

        def ignored(name: str) -> bool:
            return name.endswith("rotary_emb.inv_freq") or (config.tied and name == _NAMES["head"])

        return assemble(config, Weights(str(path), shapes, read, _NAMES, ignored))
