"""Files of tiny language models for tests, written from parameters in the layout of the decoder."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.language.decoder import DecoderConfig, param_shapes
from rmft_jax.language.models import load_model

TEXT = "The red button gave 1 point. You press the blue button: 0 points.\nSo far: red 3 times, 0.67 on average."
EOS = "<|end|>"
KINDS = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}
DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
GGUF_LAYER = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
}
HF_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    **{key: f"self_attn.{key}_proj.weight" for key in "qkvo"},
    **{f"{key}_bias": f"self_attn.{key}_proj.bias" for key in "qkv"},
    **{key: f"mlp.{key}_proj.weight" for key in ("gate", "up", "down")},
    **{key: f"self_attn.{key}.weight" for key in ("q_norm", "k_norm")},
}


def tiny_config(kind: str, **settings: Any) -> DecoderConfig:
    """Shapes that all differ, so that none can be taken for another; the width is a block of Q8_0."""
    sizes = {"vocab_size": 320, "num_layers": 2, "width": 32, "mlp_width": 64, "num_heads": 4, "num_kv_heads": 2}
    rest = {"head_size": 8, "rope_theta": 5000.0, "norm_eps": 2.0**-17, "max_positions": 128}
    return DecoderConfig(**sizes | rest | KINDS[kind] | settings)


def random_params(config: DecoderConfig) -> dict[str, Any]:
    """Weights that no dtype of files rounds: small whole numbers over 32, around 0 or, for norms, around 1."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return (rng.integers(-15, 16, shape) / 32 + ("norm" in name)).astype(np.float32)

    shapes = param_shapes(config)
    layers = {name: draw(name, shape) for name, shape in shapes.pop("layers").items()}
    return {name: draw(name, shape) for name, shape in shapes.items()} | {"layers": layers}


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with an end of text; 300 tokens at most."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def hf_tensors(config: DecoderConfig, params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Parameters under the names, and with the axes, of published models."""
    tensors = {"model.embed_tokens.weight": params["embed"], "model.norm.weight": params["norm"]}
    if not config.tied:
        tensors["lm_head.weight"] = params["head"].T
    for key, stack in params["layers"].items():
        tensors |= {f"model.layers.{i}.{HF_LAYER[key]}": array.T for i, array in enumerate(stack)}
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def hf_config(config: DecoderConfig, kind: str) -> dict[str, Any]:
    described = {
        "model_type": kind,
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        "hidden_act": "silu",
        "eos_token_id": 0,
    }
    if config.rope_scaling is not None:
        keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        described["rope_scaling"] = {"rope_type": "llama3"} | dict(zip(keys, config.rope_scaling, strict=True))
    return described


def write_folder(
    path: Path, config: DecoderConfig, params: dict[str, Any], kind: str, *, dtype: str = "F32", shards: int = 0
) -> Path:
    """Writes a model as it is published, in one file or in several with an index."""
    from safetensors.numpy import save_file

    path.mkdir()
    tensors = {name: tensor.astype(DTYPES[dtype]) for name, tensor in hf_tensors(config, params).items()}
    (path / "config.json").write_text(json.dumps(hf_config(config, kind)))
    tiny_tokenizer().save(str(path / "tokenizer.json"))
    if not shards:
        save_file(tensors, path / "model.safetensors")
        return path
    places = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


def gguf_tensors(config: DecoderConfig, params: dict[str, Any], kind: str) -> dict[str, np.ndarray]:
    """Parameters under the names of GGUF; q and k of Llama models with pairs of neighbours."""
    tensors = {"token_embd.weight": params["embed"], "output_norm.weight": params["norm"]}
    if not config.tied:
        tensors["output.weight"] = params["head"].T
    heads = {"q": config.num_heads, "k": config.num_kv_heads} if kind == "llama" else {}
    for key, stack in params["layers"].items():
        for i, array in enumerate(stack):
            rows = array.T
            if key in heads:
                rows = rows.reshape(heads[key], 2, -1, config.width).swapaxes(1, 2).reshape(rows.shape)
            tensors[f"blk.{i}.{GGUF_LAYER[key]}"] = rows
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def gguf_values(config: DecoderConfig, kind: str) -> dict[str, Any]:
    """What stands in the header of a GGUF file, the tokenizer included."""
    described = json.loads(tiny_tokenizer().to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].get)
    return {
        f"{kind}.embedding_length": config.width,
        f"{kind}.block_count": config.num_layers,
        f"{kind}.feed_forward_length": config.mlp_width,
        f"{kind}.attention.head_count": config.num_heads,
        f"{kind}.attention.head_count_kv": config.num_kv_heads,
        f"{kind}.attention.key_length": config.head_size,
        f"{kind}.attention.value_length": config.head_size,
        f"{kind}.attention.layer_norm_rms_epsilon": config.norm_eps,
        f"{kind}.rope.freq_base": config.rope_theta,
        f"{kind}.context_length": config.max_positions,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token == EOS else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in described["merges"]],
        "tokenizer.ggml.eos_token_id": 0,
    }


def write_gguf(
    path: Path, kind: str, values: dict[str, Any], tensors: dict[str, np.ndarray], *, quantized: str = "F32"
) -> Path:
    """Writes a GGUF file; matrices are quantized, vectors are float32. Values that are None are left out."""
    import gguf

    writer = gguf.GGUFWriter(path, kind)
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for name, tensor in tensors.items():
        type_ = gguf.GGMLQuantizationType["F32" if tensor.ndim == 1 else quantized]
        writer.add_tensor(name, gguf.quants.quantize(tensor, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refused(name: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_model(str(name))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("got ")
    assert ", need " in message
    assert "; try " in message
    return message


def tiny_gguf(
    path: Path,
    kind: str = "llama",
    values: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    config = tiny_config(kind, **settings)
    all_tensors = gguf_tensors(config, random_params(config), kind) | (tensors or {})
    kept = {name: tensor for name, tensor in all_tensors.items() if tensor is not None}
    return write_gguf(path / "tiny.gguf", kind, gguf_values(config, kind) | (values or {}), kept)


def tiny_folder(path: Path, kind: str = "llama", settings: dict[str, Any] | None = None) -> Path:
    config = tiny_config(kind)
    folder = write_folder(path / "tiny", config, random_params(config), kind)
    described = hf_config(config, kind) | (settings or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v != "absent"}))
    return folder
