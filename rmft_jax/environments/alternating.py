"""The sequence that fools the leader."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import AlternatingConfig
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.types import ScalarKey, pytree


@pytree
class Alternating(ObliviousEnvironment[AlternatingConfig]):
    """Two arms earn 1 in turn, always the trailing one; law and variation budget in `AlternatingConfig`."""

    config: AlternatingConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        scores = jnp.where(arm_mask, jax.random.uniform(key, (self.num_arms,)), jnp.inf)
        rank = jnp.argsort(jnp.argsort(scores))[None]
        round = jnp.arange(round_mask.shape[0])[:, None]
        means = jnp.where(round == 0, 0.5 * (rank == 0), 1.0 * (rank == round % 2))
        if self.config.centred:
            means -= jnp.where(rank < 2, jnp.sum(means, axis=-1, keepdims=True) / 2, 0.0)
        return means
