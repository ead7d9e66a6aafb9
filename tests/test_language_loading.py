import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from language_files import (
    EOS,
    KINDS,
    TEXT,
    gguf_tensors,
    gguf_values,
    random_params,
    refused,
    tiny_config,
    tiny_folder,
    tiny_gguf,
    tiny_tokenizer,
    write_folder,
    write_gguf,
)
from rmft_jax.config import ConfigError
from rmft_jax.language import models
from rmft_jax.language.decoder import DecoderConfig, logits_of, run
from rmft_jax.language.from_gguf import llama3_factors
from rmft_jax.language.library import make_library
from rmft_jax.language.models import load_model
from rmft_jax.language.tokenizers import text_ends
from rmft_jax.problems import Problem, Stationary

for package in ("gguf", "safetensors", "tokenizers"):
    pytest.importorskip(package)

SCALING = (8.0, 1.0, 4.0, 8192)


def assert_same(got: dict[str, Any], want: dict[str, Any], tolerance: float = 0.0) -> None:
    assert got.keys() == want.keys()
    for key, value in want.items():
        if isinstance(value, dict):
            assert_same(got[key], value, tolerance)
        else:
            assert got[key].dtype == np.float32
            np.testing.assert_allclose(got[key], value, rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "shards"), [("F32", 0), ("F16", 0), ("BF16", 3)])
def test_a_folder_is_read(tmp_path: Path, kind: str, tied: bool, dtype: str, shards: int):
    config = tiny_config(kind, tied=tied)
    params = random_params(config)
    model = load_model(str(write_folder(tmp_path / "model", config, params, kind, dtype=dtype, shards=shards)))
    assert model.config == config
    assert_same(model.params, params)
    assert model.tokenizer.eos == model.tokenizer.pad == 0
    assert len(model.digest) == 16


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("quantized", "tolerance"), [("F32", 0.0), ("BF16", 0.0), ("Q8_0", 0.003), ("Q4_1", 0.04)])
def test_a_gguf_file_is_read(tmp_path: Path, kind: str, tied: bool, quantized: str, tolerance: float):
    config = tiny_config(kind, tied=tied)
    params = random_params(config)
    tensors = gguf_tensors(config, params, kind)
    file = write_gguf(tmp_path / "m.gguf", kind, gguf_values(config, kind), tensors, quantized=quantized)
    model = load_model(str(file))
    assert model.config == config
    assert_same(model.params, params, tolerance)


def neighbours_forward(config: DecoderConfig, tensors: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits as llama.cpp has them: rows of a GGUF file as they stand, neighbours rotated together."""

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * scale

    def rotated(x: np.ndarray) -> np.ndarray:
        half = config.head_size // 2
        angle = np.arange(len(x))[:, None, None] * config.rope_theta ** (-np.arange(half) / half)
        turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    x = tensors["token_embd.weight"][tokens]
    for i in range(config.num_layers):
        w = {name.split(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"blk.{i}.")}
        normed = norm(x, w["attn_norm"])
        q, k, v = ((normed @ w[f"attn_{name}"].T).reshape(len(x), -1, config.head_size) for name in "qkv")
        k, v = (np.repeat(part, config.num_heads // config.num_kv_heads, axis=1) for part in (rotated(k), v))
        scores = np.einsum("nhd,mhd->hnm", rotated(q), k) / np.sqrt(config.head_size)
        scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), np.exp(scores), 0)
        mixed = np.einsum("hnm,mhd->nhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + mixed.reshape(len(x), -1) @ w["attn_output"].T
        normed = norm(x, w["ffn_norm"])
        gate = normed @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ w["ffn_up"].T)) @ w["ffn_down"].T
    return norm(x, tensors["output_norm.weight"]) @ tensors["token_embd.weight"].T


def decoder_logits(model: models.LanguageModel, tokens: np.ndarray) -> np.ndarray:
    number = len(tokens)
    visible = jnp.tril(jnp.ones((number, number), bool))
    params = jax.tree.map(jnp.asarray, model.params)
    with jax.numpy_rank_promotion("allow"):
        hidden, _ = run(model.config, params, jnp.asarray(tokens), jnp.arange(number), visible)
        return np.asarray(logits_of(model.config, params, hidden))


def test_rotary_pairs_of_neighbours_become_those_of_halves(tmp_path: Path):
    config = tiny_config("llama")
    model = load_model(str(tiny_gguf(tmp_path)))
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, 12)
    want = neighbours_forward(config, gguf_tensors(config, random_params(config), "llama"), tokens)
    np.testing.assert_allclose(decoder_logits(model, tokens), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "llama3", "qwen2", "qwen3"])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    # Positions beyond the first length, so that scaling matters.
    settings = {"rope_scaling": (8.0, 1.0, 4.0, 16)} if kind == "llama3" else {"tied": False}
    config = tiny_config(kind.removesuffix("3") if kind == "llama3" else kind, **settings)
    folder = write_folder(tmp_path / "model", config, random_params(config), kind.replace("llama3", "llama"))
    model = load_model(str(folder))
    assert model.config == config
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, 64)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        want = theirs(torch.as_tensor(tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(decoder_logits(model, tokens), want, rtol=1e-3, atol=1e-3)


TEXTS = [TEXT, "", " ", "\n\nThought: I will try blue once more.", "Ångström, naïve: 東京 👍", f"a {EOS} b", "12345"]


@pytest.mark.parametrize("text", TEXTS)
def test_both_files_have_the_same_tokenizer(tmp_path: Path, text: str):
    of_gguf, of_folder = load_model(str(tiny_gguf(tmp_path))), load_model(str(tiny_folder(tmp_path)))
    ids = of_gguf.tokenizer.encode(text)
    assert ids == of_folder.tokenizer.encode(text)
    assert of_gguf.tokenizer.decode(ids) == text
    assert of_gguf.tokenizer.eos not in ids
    assert of_gguf.tokenizer.vocab_size == of_folder.tokenizer.vocab_size == tiny_tokenizer().get_vocab_size()
    assert of_gguf.tokenizer.vocab_size < of_gguf.config.vocab_size


def test_special_and_padding_tokens_leave_nothing_behind(tmp_path: Path):
    model = load_model(str(tiny_folder(tmp_path)))
    ids = model.tokenizer.encode("red")
    assert model.tokenizer.decode([*ids, model.tokenizer.eos, model.config.vocab_size - 1]) == "red"
    with pytest.raises(ConfigError, match="negative"):
        model.tokenizer.decode([-1])


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt-2", ["a", " 1234"]),
        ("smollm", ["a", " ", "1", "2", "3", "4"]),
        ("qwen2", ["a", " ", "1", "2", "3", "4"]),
        ("llama-bpe", ["a", " ", "123", "4"]),
    ],
)
def test_numbers_are_split_as_the_file_says(tmp_path: Path, split: str, pieces: list[str]):
    # Every piece is one token, if it stays whole.
    merges = ["Ġ 1", "Ġ1 2", "Ġ12 3", "Ġ123 4", "1 2", "12 3", "123 4"]
    tokens = [*gguf_values(tiny_config("llama"), "llama")["tokenizer.ggml.tokens"][:257]]
    tokens += [merge.replace(" ", "") for merge in merges]
    prefix = "tokenizer.ggml."
    values = {prefix + "pre": split, prefix + "tokens": tokens, prefix + "merges": merges}
    types = [3, *[1] * (len(tokens) - 1)]
    model = load_model(str(tiny_gguf(tmp_path, values=values | {prefix + "token_type": types})))
    assert [model.tokenizer.decode([token]) for token in model.tokenizer.encode("a 1234")] == pieces


def test_special_tokens_of_a_folder(tmp_path: Path):
    folder = tiny_folder(tmp_path, settings={"eos_token_id": [5, 6], "pad_token_id": 7})
    tokenizer = load_model(str(folder)).tokenizer
    assert (tokenizer.eos, tokenizer.pad) == (5, 7)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": EOS}, "pad_token": "!"}))
    models._read.cache_clear()
    tokenizer = load_model(str(folder)).tokenizer
    assert (tokenizer.eos, tokenizer.decode([tokenizer.pad])) == (0, "!")
    assert {5, 6} <= set(np.flatnonzero(text_ends(tokenizer, tokenizer.vocab_size))), "all that end a text"


def test_a_line_break_ends_a_text_whatever_it_shares_a_token_with(tmp_path: Path):
    tokenizer = load_model(str(tiny_folder(tmp_path))).tokenizer
    found = text_ends(tokenizer, tokenizer.vocab_size + 3)
    assert found[-3:].all()
    for token in range(tokenizer.vocab_size):
        breaks = "\n" in tokenizer.decode([token])
        assert found[token] == (breaks or token in (tokenizer.eos, tokenizer.pad)), token

    class Sentences:
        """As Llama 3 and Qwen write the end of a sentence."""

        vocab_size, pad, eos = 4, 0, 0
        start = ends = ()

        def encode(self, text):
            raise NotImplementedError

        def decode(self, ids):
            return "".join(["", ".\n", ".", " red"][token] for token in ids)

    assert text_ends(Sentences(), 4).tolist() == [True, True, False, False]


def test_what_a_tokenizer_puts_before_a_text_stands_before_every_dialogue(tmp_path: Path):
    folder = tiny_folder(tmp_path)
    assert load_model(str(folder)).tokenizer.start == ()
    described = json.loads((folder / "tokenizer.json").read_text())
    described["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "!", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"!": {"id": "!", "ids": [1], "tokens": ["!"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(described))
    models._read.cache_clear()
    model = load_model(str(folder))
    assert model.tokenizer.start == (1,)
    options: Any = {"contexts": "trained", "num_tellings": 3, "history": "full", "free": 12, "reasoning": 0}
    library = make_library(Problem(Stationary(num_arms=2), 3), model.tokenizer, **options)
    first = [row[row >= 0][0] for row in library.intro]
    assert first == [1, 1, 1]
    prefix, ids = "tokenizer.ggml.", {"tokenizer.ggml.bos_token_id": 7}
    for number, (more, start) in enumerate([({}, ()), ({prefix + "add_bos_token": True}, (7,))]):
        (place := tmp_path / str(number)).mkdir()
        assert load_model(str(tiny_gguf(place, values=ids | more))).tokenizer.start == start


def test_a_folder_is_known_by_all_of_its_files(tmp_path: Path):
    folder = tiny_folder(tmp_path)
    before = load_model(str(folder)).digest
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"rope_theta": 7.0}))
    models._read.cache_clear()
    assert load_model(str(folder)).digest != before
    shutil.copy(folder / "model.safetensors", folder / "model_ema.safetensors")
    models._read.cache_clear()
    with pytest.raises(ConfigError, match=r"in two files of .*, need each tensor once"):
        load_model(str(folder))


def test_text_that_the_vocabulary_cannot_write_is_refused(tmp_path: Path):
    values = gguf_values(tiny_config("llama"), "llama")
    # The first byte of an é, which is written "Ã" there.
    tokens = [token.replace("Ã", "nothing") for token in values["tokenizer.ggml.tokens"]]
    tokenizer = load_model(str(tiny_gguf(tmp_path, values={"tokenizer.ggml.tokens": tokens}))).tokenizer
    assert tokenizer.decode(tokenizer.encode("cafe")) == "cafe"
    for text in ("café", "\ud800"):
        with pytest.raises(ConfigError, match="cannot write"):
            tokenizer.encode(text)


def test_llama_3_scaling_is_found_again(tmp_path: Path):
    frequencies = 500000.0 ** (-np.arange(0, 64, 2) / 64)
    factors = llama3_factors(frequencies, SCALING).astype(np.float32)
    for frequency, factor in zip(frequencies, factors, strict=True):
        length = 2 * np.pi / frequency
        smooth = (8192 / length - 1) / (4 - 1)
        want = 1 if length < 8192 / 4 else 8 if length > 8192 else 1 / ((1 - smooth) / 8 + smooth)
        assert factor == pytest.approx(want)
    sizes: dict[str, Any] = {"num_heads": 1, "num_kv_heads": 1, "head_size": 64, "rope_theta": 500000.0}
    model = load_model(str(tiny_gguf(tmp_path, tensors={"rope_freqs.weight": factors}, **sizes)))
    assert model.config == tiny_config("llama", rope_scaling=SCALING, **sizes)
    (tmp_path / "wrong").mkdir()
    wrong = tiny_gguf(tmp_path / "wrong", tensors={"rope_freqs.weight": factors + 0.5}, **sizes)
    assert "factors of RoPE" in refused(wrong)
    (tmp_path / "one").mkdir()
    ones = tiny_gguf(tmp_path / "one", tensors={"rope_freqs.weight": np.ones(32, np.float32)}, **sizes)
    assert load_model(str(ones)).config.rope_scaling is None


def test_a_model_is_read_once_and_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tiny_gguf(tmp_path)
    model = load_model(str(file))
    assert load_model(str(file)) is model
    monkeypatch.setitem(models.MAKERS, "own", lambda: load_model(str(file)))
    assert load_model("own") is model
    (tmp_path / "other").mkdir()
    changed = gguf_tensors(model.config, random_params(model.config), "llama")["output_norm.weight"] + 1
    other = load_model(str(tiny_gguf(tmp_path / "other", tensors={"output_norm.weight": changed})))
    assert other.digest != model.digest


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ({"head_dim": "absent"}, {}),
        ({"head_dim": None, "rope_scaling": None}, {}),
        ({"rope_theta": "absent", "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}, {"rope_theta": 7.0}),
        ({"rope_theta": "absent", "max_position_embeddings": "absent"}, {"rope_theta": 1e4, "max_positions": 2048}),
        ({"rms_norm_eps": "absent"}, {"norm_eps": 1e-6}),
    ],
)
def test_settings_that_need_not_be_given(tmp_path: Path, settings: dict[str, Any], want: dict[str, Any]):
    folder = tiny_folder(tmp_path, settings=settings)
    assert load_model(str(folder)).config == tiny_config("llama", **want)
