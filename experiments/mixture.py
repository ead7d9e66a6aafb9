"""A mixture of laws, of which each scenario has one: what a policy trains on that is to play all of them."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax import ObliviousEnvironment, register_environment
from rmft_jax.config import ScalarKey
from rmft_jax.problems import Abrupt, RegretKind, Stationary


@register_environment("mixture")
class Mixture(ObliviousEnvironment):
    """Uniform means, one arm better by 0.2 or by 0.5, or uniform means that change three times; equally likely.

    Dynamic regret, which on stationary arms is pseudo-regret. V_T is at most 3.
    """

    bandit_regret: ClassVar[RegretKind] = "dynamic"

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        """That of one of them."""
        laws = (
            Stationary(num_arms=self.num_arms),
            Stationary(num_arms=self.num_arms, prior="fixed_gap", gap=0.2),
            Stationary(num_arms=self.num_arms, prior="fixed_gap", gap=0.5),
            Abrupt(num_arms=self.num_arms),
        )
        law_key, path_key = jax.random.split(key)
        paths = [
            jnp.broadcast_to(law.path(path_key, arm_mask, round_mask), (len(round_mask), self.num_arms)) for law in laws
        ]
        return jnp.stack(paths)[jax.random.randint(law_key, (), 0, len(laws))]
