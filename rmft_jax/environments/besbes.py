"""The two non-stationary examples of Besbes, Gur and Zeevi (2014)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import BesbesConfig
from rmft_jax.config.environments import BESBES_AMPLITUDE
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.types import ScalarKey, pytree


@pytree
class Besbes(ObliviousEnvironment[BesbesConfig]):
    """Sines in opposite phase that spend a given budget; law in `BesbesConfig`."""

    config: BesbesConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        # The existing arms in random order: ranks 0, 1, 2, ... have signs +, -, +, ...
        scores = jnp.where(arm_mask, jax.random.uniform(key, (self.num_arms,)), jnp.inf)
        sign = 1.0 - 2.0 * (jnp.argsort(jnp.argsort(scores)) % 2)
        elapsed = jnp.arange(1.0, round_mask.shape[0] + 1) / jnp.sum(round_mask)
        if self.config.spending == "first_third":
            elapsed = 3 * jnp.minimum(elapsed, 1 / 3)
        wave = jnp.sin(5 * math.pi / 3 * self.config.variation * elapsed)
        return 0.5 + BESBES_AMPLITUDE * wave[:, None] * sign[None]
