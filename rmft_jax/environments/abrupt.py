"""Expected rewards that change at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import AbruptConfig
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.types import ScalarKey, pytree


@pytree
class Abrupt(ObliviousEnvironment[AbruptConfig]):
    """Piecewise constant expected rewards; law and variation budget in `AbruptConfig`."""

    config: AbruptConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        del arm_mask
        num_changes = self.config.num_changes
        change_key, mean_key = jax.random.split(key)
        # The m highest of T - 1 scores: distinct change points, all sets equally likely.
        scores = jnp.where(round_mask[1:], jax.random.uniform(change_key, (round_mask.shape[0] - 1,)), -1.0)
        _, changes = jax.lax.top_k(scores, num_changes)
        segment = jnp.cumsum(jnp.zeros(round_mask.shape[0], jnp.int32).at[changes + 1].set(1))
        index = jnp.arange(num_changes + 1)
        match self.config.change:
            case "fresh":
                means = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(mean_key, i), (self.num_arms,)))(index)
            case "mirrored":
                first = jax.random.uniform(jax.random.fold_in(mean_key, 0), (self.num_arms,))
                means = jnp.where(index[:, None] % 2 == 0, first[None], 1 - first[None])
        return means[segment]
