from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.language.decoder import logits_of, run
from rmft_jax.language.from_gguf import unpermuted
from rmft_jax.language.loading import find_smollm2
from rmft_jax.language.models import LanguageModel, load_model

for package in ("gguf", "tokenizers"):
    pytest.importorskip(package)

pytestmark = pytest.mark.slow

TEXT = (
    "The sun rises in the east and sets in the west. There are seven days in a week and twelve months in a year. "
    "Water freezes at zero degrees Celsius and boils at one hundred degrees. The Earth moves around the Sun, and the "
    "Moon moves around the Earth. Plants need light, water and air to grow. Paris is the capital of France, and Rome "
    "is the capital of Italy. Two plus two is four. Once upon a time there was a little girl who lived with her mother "
    "in a small house at the edge of the forest."
)


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    try:
        find_smollm2()
    except ConfigError as error:
        pytest.skip(str(error))
    return load_model("smollm2")


def logits(model: LanguageModel, ids: list[int], params: Any = None) -> np.ndarray:
    params = jax.tree.map(jnp.asarray, params or model.params)
    visible = jnp.tril(jnp.ones((len(ids), len(ids)), bool))
    with jax.numpy_rank_promotion("allow"):
        hidden, _ = run(model.config, params, jnp.asarray(ids), jnp.arange(len(ids)), visible)
        return np.asarray(logits_of(model.config, params, hidden))


def mean_nll(model: LanguageModel, ids: list[int], params: Any = None) -> float:
    logs = np.asarray(jax.nn.log_softmax(logits(model, ids, params)))
    return -float(logs[np.arange(len(ids) - 1), ids[1:]].mean())


def test_its_sizes(smollm2: LanguageModel):
    config, tokenizer = smollm2.config, smollm2.tokenizer
    assert (config.num_layers, config.width, config.mlp_width) == (30, 576, 1536)
    assert (config.num_heads, config.num_kv_heads, config.head_size) == (9, 3, 64)
    assert (config.vocab_size, config.rope_theta, config.tied, config.max_positions) == (49152, 100000.0, True, 8192)
    assert (tokenizer.vocab_size, tokenizer.pad, tokenizer.eos) == (49152, 2, 2)
    assert sum(leaf.size for leaf in jax.tree.leaves(smollm2.params)) == 134_515_008
    # Digits are split, and what looks like a special token is text.
    assert [tokenizer.decode([token]) for token in tokenizer.encode(" 123")] == [" ", "1", "2", "3"]
    assert 2 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_it_knows_the_capital_of_france(smollm2: LanguageModel):
    ids = smollm2.tokenizer.encode("The capital of France is")
    assert smollm2.tokenizer.decode([int(logits(smollm2, ids)[-1].argmax())]) == " Paris"


def test_it_reads_english(smollm2: LanguageModel):
    ids = smollm2.tokenizer.encode(TEXT)
    right = mean_nll(smollm2, ids)
    assert 1.75 < right < 1.9
    # With other rotary pairs than it was trained with it reads much worse.
    layers = dict(smollm2.params["layers"])
    for name, heads in (("q", smollm2.config.num_heads), ("k", smollm2.config.num_kv_heads)):
        layers[name] = np.stack([unpermuted(matrix.T, heads).T for matrix in layers[name]])
    assert mean_nll(smollm2, ids, smollm2.params | {"layers": layers}) > right + 0.5


@pytest.mark.filterwarnings("ignore")  # theirs are not ours
def test_tokens_and_logits_are_those_of_transformers(smollm2: LanguageModel):
    torch, transformers, _ = (pytest.importorskip(package) for package in ("torch", "transformers", "accelerate"))
    file = find_smollm2()
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    texts = [TEXT, "\n\nSo far: 12 points, 0.67 on average.", "Ångström, naïve: 東京", " it's\tits ", "a  b   c\n \n"]
    for text in texts:
        assert smollm2.tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    ids = smollm2.tokenizer.encode(TEXT)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        want = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    got = logits(smollm2, ids)
    # As measured: 1.2e-4, of logits up to 32.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)
