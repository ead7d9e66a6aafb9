"""A toy language model of our own, whose tokens are the words of `words.py`.

It is pretrained on dialogues of players with habits, none of them an expert, with thoughts drawn at random
(`experiments/language/pretrain.py`), so that it writes like them, and RMFT has something to select from.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmft_jax.language.decoder import DecoderConfig, param_shapes, random_params
from rmft_jax.language.tokenizers import WordTokenizer
from rmft_jax.language.words import vocabulary
from rmft_jax.running.weights import fitted, named, read_arrays, write_arrays

WEIGHTS = Path(__file__).parent / "toy.npz"
"""The pretrained weights, in half precision."""


def toy_tokenizer() -> WordTokenizer:
    """Whole words."""
    return WordTokenizer(vocabulary())


def toy_config() -> DecoderConfig:
    """Three blocks of width 96."""
    return DecoderConfig(
        vocab_size=toy_tokenizer().vocab_size,
        num_layers=3,
        width=96,
        mlp_width=256,
        num_heads=4,
        num_kv_heads=2,
        head_size=24,
        max_positions=8192,
    )


def untrained_params() -> Any:
    """Random weights, always the same."""
    return jax.tree.map(np.asarray, random_params(toy_config(), jax.random.key(0), std=0.05))


def read_toy(path: Path = WEIGHTS) -> tuple[DecoderConfig, Any, WordTokenizer, str]:
    """The toy of a file, by default the one that comes with the package: shapes, weights, tokenizer, and its digest.

    Raises:
      DamagedFileError: if its file is damaged, or of another vocabulary.
    """
    config = toy_config()
    arrays, _ = read_arrays(path)
    shapes = param_shapes(config)
    like = jax.tree.map(lambda shape: np.empty(shape, np.float16), shapes, is_leaf=lambda x: isinstance(x, tuple))
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), fitted(arrays, like))
    return config, params, toy_tokenizer(), hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_toy(params: Any, about: dict[str, Any], path: Path = WEIGHTS) -> None:
    """Writes pretrained weights in half precision, and where they come from."""
    write_arrays(path, named(jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)), about)
