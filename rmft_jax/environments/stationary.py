"""Stationary expected rewards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import BanditConfig
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.types import ScalarKey, pytree


@pytree
class Stationary(ObliviousEnvironment[BanditConfig]):
    """Expected rewards drawn once per scenario; law and variation budget in `BanditConfig`. A path of one row."""

    config: BanditConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "1 K"]:
        del round_mask
        config = self.config
        match config.prior:
            case "uniform":
                means = jax.random.uniform(key, (self.num_arms,))
            case "gaussian":
                means = config.prior_mean + config.prior_std * jax.random.normal(key, (self.num_arms,))
            case "fixed_gap":
                best = jax.random.categorical(key, jnp.where(arm_mask, 0.0, -jnp.inf))
                side = jnp.where(jnp.arange(self.num_arms) == best, 0.5, -0.5)
                means = 0.5 + config.gap * side
            case "constant":
                means = jnp.full(self.num_arms, config.prior_mean, jnp.float32)
        return means[None]
