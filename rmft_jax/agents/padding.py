"""Parameters of one arm count and horizon in the layout of a larger one.

What is new is zero: rows for tokens that never hold anything, outputs that the arm mask hides, positions that are not
reached. Their gradients are zero too, so a padded policy plays and learns as the small one does, but for rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents.trained import init_params
from rmft_jax.config import RMFTConfig
from rmft_jax.types import Params


def pad_params(params: Params, config: RMFTConfig, larger: RMFTConfig) -> Params:
    """The parameters of `config` in the layout of `larger`, which has at least as many arms and rounds."""

    def pad(path: Any, leaf: Float[Array, "..."], new: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        if _holds_tokens(path) and leaf.shape != new.shape:
            features, start = _split(leaf, config)
            more = larger.environment.num_arms - config.environment.num_arms
            features = jnp.pad(features, [(0, 0), (0, more), (0, 0)])
            return jnp.concatenate([features.reshape(-1, leaf.shape[1]), start])
        return jnp.pad(leaf, [(0, after - before) for before, after in zip(leaf.shape, new.shape, strict=True)])

    return jax.tree_util.tree_map_with_path(pad, params, _shapes(larger))


def _shapes(config: RMFTConfig) -> Params:
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def _holds_tokens(path: Any) -> bool:
    """Whether a leaf has a row for every number of a token, and not for every arm."""
    return jax.tree_util.keystr(path) == "['embed']['kernel']"


def _split(leaf: Float[Array, "I D"], config: RMFTConfig) -> tuple[Float[Array, "F K D"], Float[Array, "1 D"]]:
    """The rows of the features of every arm, and that of the start marker (see `TransformerAgent`)."""
    return leaf[:-1].reshape(-1, config.environment.num_arms, leaf.shape[1]), leaf[-1:]
