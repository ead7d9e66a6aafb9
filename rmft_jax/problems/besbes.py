"""The two non-stationary examples of Besbes, Gur and Zeevi (2014)."""

import itertools
import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require, require_number
from rmft_jax.problems.base import Environment
from rmft_jax.problems.oblivious import ObliviousEnvironment, random_ranks

BESBES_AMPLITUDE = 0.3


@Environment.register("besbes")
class Besbes(ObliviousEnvironment):
    """Two sines in opposite phase that spend a given budget (after the examples of Besbes, Gur, Zeevi 2014).

    r_t = 1/2 +- 0.3 sin(5 pi variation t / (3 T)): evenly over the horizon, or three times as fast over the first
    third of it and constant after that. Every second arm, in random order, has the opposite sign: the paper has two
    arms, and more are ours, as is the value held after the first third. V_T is `variation` where that makes whole
    quarters of a period (multiples of 0.3) and rounds are many, and at most 0.064 more elsewhere; `variation_budget`
    is exact.
    """

    num_arms: int = 2
    """Number of arms K."""
    variation: float = 3.0
    """The budget that is spent, at most 0.3 T: a quarter of a period per round."""
    spending: Literal["even", "first_third"] = "even"
    """When it is spent; over the first third it can be at most 0.1 T."""

    def validate_law(self, horizon: int) -> None:
        limit = (0.3 if self.spending == "even" else 0.1) * horizon
        require_number(self.variation, "variation", "of at least 0", self.variation >= 0, 3.0)
        require(
            self.variation <= limit * (1 + 1e-5),  # As it is printed, which may round upwards.
            f"variation={self.variation} with spending={self.spending!r} and horizon={horizon}",
            f"a budget that can be spent, at most {limit:g}",
            f"variation={min(3.0, limit):g}",
        )

    @property
    def mean_range(self) -> tuple[float, float]:
        return 0.5 - BESBES_AMPLITUDE, 0.5 + BESBES_AMPLITUDE

    def variation_budget(self, horizon: int) -> float:
        """What the sine spends between the rounds, exactly."""
        pace = 1 if self.spending == "even" else 3
        elapsed = (min(1.0, pace * t / horizon) for t in range(1, horizon + 1))
        heights = [math.sin(5 * math.pi / 3 * self.variation * fraction) for fraction in elapsed]
        return BESBES_AMPLITUDE * math.fsum(abs(b - a) for a, b in itertools.pairwise(heights))

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        sign = 1.0 - 2.0 * (random_ranks(key, arm_mask) % 2)
        elapsed = jnp.arange(1.0, round_mask.shape[0] + 1) / jnp.sum(round_mask)
        if self.spending == "first_third":
            elapsed = 3 * jnp.minimum(elapsed, 1 / 3)
        wave = jnp.sin(5 * math.pi / 3 * self.variation * elapsed)
        return 0.5 + BESBES_AMPLITUDE * wave[:, None] * sign[None]
