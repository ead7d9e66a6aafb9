"""Mixtures of laws, of which each scenario has one: what a policy trains on that is to play all of them."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax import ObliviousEnvironment, register_environment
from rmft_jax.config import ScalarKey
from rmft_jax.problems import Abrupt, RegretKind, Sinusoidal, Stationary
from rmft_jax.problems.base import Noise


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
        return one_of(laws, key, arm_mask, round_mask)


@register_environment("online_mixture")
class Online(ObliviousEnvironment):
    """Means drawn once from N(0, 0.7^2), or sines around 1/2, equally likely, with Gaussian noise."""

    noise: Noise = "gaussian"
    """Law of a reward given its expectation."""
    noise_std: float = 0.5
    """Standard deviation of Gaussian reward noise."""

    bandit_regret: ClassVar[RegretKind] = "static"

    @property
    def mean_range(self) -> tuple[float, float]:
        """Three standard deviations of the prior, beyond which a mean seldom lies."""
        return -2.1, 2.1

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        """That of one of them."""
        laws = (
            Stationary(num_arms=self.num_arms, prior="gaussian", prior_std=0.7),
            Sinusoidal(num_arms=self.num_arms),
        )
        return one_of(laws, key, arm_mask, round_mask)


def one_of(
    laws: Sequence[ObliviousEnvironment], key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]
) -> Float[Array, "T K"]:
    """The expected rewards of a scenario of one of these laws, all equally likely."""
    law_key, path_key = jax.random.split(key)
    shape = (len(round_mask), len(arm_mask))
    paths = [jnp.broadcast_to(law.path(path_key, arm_mask, round_mask), shape) for law in laws]
    return jnp.stack(paths)[jax.random.randint(law_key, (), 0, len(laws))]
