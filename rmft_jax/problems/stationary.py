"""Stationary expected rewards."""

import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require_number
from rmft_jax.problems.base import Environment, RegretKind
from rmft_jax.problems.oblivious import ObliviousEnvironment


@Environment.register("stationary")
class Stationary(ObliviousEnvironment):
    """Stationary expected rewards, drawn once per scenario. V_T = 0.

    Under full information: i.i.d. reward vectors around a drawn mean.
    """

    prior: Literal["uniform", "gaussian", "fixed_gap", "constant"] = "uniform"
    """Law of the expected rewards: uniform on [0, 1]; Gaussian; one best arm 1/2 + gap/2, drawn uniformly, among arms
    1/2 - gap/2 (Krishnamurthy et al. 2024); or prior_mean for every arm."""
    prior_mean: float = 0.0
    """Mean of the Gaussian prior, value of the constant one."""
    prior_std: float = 1.0
    """Standard deviation of the Gaussian prior."""
    gap: float = 0.2
    """Gap between the best arm and every other one under the fixed_gap prior."""

    bandit_regret: ClassVar[RegretKind] = "pseudo"

    def validate_law(self, horizon: int) -> None:
        require_number(self.prior_mean, "prior_mean", "", True, 0.0)
        require_number(self.prior_std, "prior_std", "above 0", self.prior_std > 0, 1.0)
        require_number(self.gap, "gap", "in (0, 1]", 0 < self.gap <= 1, 0.2)

    @property
    def mean_range(self) -> tuple[float, float]:
        ranges = {
            "uniform": (0.0, 1.0),
            "gaussian": (-math.inf, math.inf),
            "fixed_gap": (0.5 - self.gap / 2, 0.5 + self.gap / 2),
            "constant": (self.prior_mean, self.prior_mean),
        }
        return ranges[self.prior]

    @property
    def nominal_mean_range(self) -> tuple[float, float]:
        if self.prior == "gaussian":
            return self.prior_mean - 2 * self.prior_std, self.prior_mean + 2 * self.prior_std
        return self.mean_range

    def prior_moments(self) -> tuple[float, float]:
        chance = 1 / self.num_arms
        moments = {
            "uniform": (0.5, math.sqrt(1 / 12)),
            "gaussian": (self.prior_mean, self.prior_std),
            "fixed_gap": (0.5 + self.gap * (chance - 0.5), self.gap * math.sqrt(chance * (1 - chance))),
            "constant": (self.prior_mean, 0.0),
        }
        return moments[self.prior]

    def variation_budget(self, horizon: int) -> float:
        return 0.0

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "1 K"]:
        match self.prior:
            case "uniform":
                means = jax.random.uniform(key, (self.num_arms,))
            case "gaussian":
                means = self.prior_mean + self.prior_std * jax.random.normal(key, (self.num_arms,))
            case "fixed_gap":
                best = jax.random.categorical(key, jnp.where(arm_mask, 0.0, -jnp.inf))
                side = jnp.where(jnp.arange(self.num_arms) == best, 0.5, -0.5)
                means = 0.5 + self.gap * side
            case "constant":
                means = jnp.full(self.num_arms, self.prior_mean, jnp.float32)
        return means[None]
