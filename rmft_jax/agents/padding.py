"""Parameters of one arm count and horizon in the layout of a larger one, and back.

What is new is zero: rows for tokens that never hold anything, outputs that the arm mask hides, positions that are not
reached. Their gradients are zero too, so a padded policy plays and learns as the small one does, but for rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmft_jax.agents.trained import init_params
from rmft_jax.agents.transformer import BanditTransformer, FullInformationTransformer
from rmft_jax.config import RMFTConfig
from rmft_jax.types import Params


def pad_params(params: Params, config: RMFTConfig, larger: RMFTConfig) -> Params:
    """The parameters of `config` in the layout of `larger`, which has at least as many arms and rounds."""

    def pad(path: Any, leaf: Float[Array, "..."], new: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        return jnp.zeros(new.shape, new.dtype).at[_places(path, leaf.shape, config, larger)].set(leaf)

    return jax.tree_util.tree_map_with_path(pad, params, _shapes(larger))


def unpad_params(params: Params, config: RMFTConfig, larger: RMFTConfig) -> Params:
    """The inverse of `pad_params`; nothing is compiled where the parameters are arrays of NumPy."""

    def unpad(path: Any, old: jax.ShapeDtypeStruct, leaf: Float[Array, "..."]) -> Float[Array, "..."]:
        return leaf[_places(path, old.shape, config, larger)]

    return jax.tree_util.tree_map_with_path(unpad, _shapes(config), params)


def _shapes(config: RMFTConfig) -> Params:
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def _places(path: Any, shape: tuple[int, ...], config: RMFTConfig, larger: RMFTConfig) -> tuple[np.ndarray, ...]:
    """Where the entries of a leaf stand in the larger one: first along each axis, but for the parts of a token."""
    places = [np.arange(size) for size in shape]
    small, large = config.environment.num_arms, larger.environment.num_arms
    if jax.tree_util.keystr(path) == "['embed']['kernel']":
        kind = FullInformationTransformer if config.environment.feedback == "full" else BanditTransformer
        if shape[0] == kind.token_size(small):
            places[0] = kind.token_places(small, large)
    return np.ix_(*places)
