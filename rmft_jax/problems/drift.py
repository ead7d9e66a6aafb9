"""Expected rewards that drift: sines, reflected walks, straight lines."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require_number
from rmft_jax.problems.base import Environment
from rmft_jax.problems.oblivious import ObliviousEnvironment


@Environment.register("sinusoidal")
class Sinusoidal(ObliviousEnvironment):
    """Sinusoidal drift: r_t(a) = 1/2 + A_a sin(2 pi t / P_a + phi_a).

    Per arm, A is uniform on [amplitude/2, amplitude], P on [period, 2 period], the phase on the circle.
    V_T <= 2 (T - 1) amplitude sin(pi / period), since |sin(x + d) - sin(x)| <= 2 |sin(d/2)|.
    """

    amplitude: float = 0.5
    """Largest amplitude of an arm."""
    period: float = 50.0
    """Shortest period of an arm, in rounds; at least 2."""

    def validate_law(self, horizon: int) -> None:
        require_number(self.amplitude, "amplitude", "of at least 0", self.amplitude >= 0, 0.5)
        require_number(self.period, "period", "of at least 2", self.period >= 2, 50.0)

    @property
    def mean_range(self) -> tuple[float, float]:
        return 0.5 - self.amplitude, 0.5 + self.amplitude

    def variation_budget(self, horizon: int) -> float:
        return 2 * (horizon - 1) * self.amplitude * math.sin(math.pi / self.period)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        draws = [jax.random.uniform(k, (self.num_arms,)) for k in jax.random.split(key, 3)]
        amplitude = self.amplitude * (1 + draws[0]) / 2
        period = self.period * (1 + draws[1])
        # In turns, reduced before the sine: float32 angles of late rounds would lose their digits.
        turns = (jnp.arange(1.0, round_mask.shape[0] + 1)[:, None] / period[None] + draws[2][None]) % 1.0
        return 0.5 + amplitude[None] * jnp.sin(2 * jnp.pi * turns)


def _reflected_walk(key: ScalarKey, num_arms: int, bounds: Float[Array, "T_1"]) -> Float[Array, "T K"]:
    """From a uniform start, steps uniform on `[-bounds[t], bounds[t]]`, folded into [0, 1].

    Folding is the map of period 2 with `x -> |x|` on [-1, 1]; it never lengthens a step.
    """
    start_key, step_key = jax.random.split(key)
    start = jax.random.uniform(start_key, (1, num_arms))

    def step(round: Int[Array, ""]) -> Float[Array, "K"]:
        return jax.random.uniform(jax.random.fold_in(step_key, round), (num_arms,), minval=-1.0)

    steps = bounds[:, None] * jax.vmap(step)(jnp.arange(bounds.shape[0]))
    walk = start + jnp.concatenate([jnp.zeros((1, num_arms)), jnp.cumsum(steps, axis=0)])
    return jnp.abs((walk + 1) % 2 - 1)


@Environment.register("random_walk")
class RandomWalk(ObliviousEnvironment):
    """A random walk per arm, reflected at 0 and 1: uniform start, steps uniform on [-walk_step, walk_step].

    Reflection is a contraction, so V_T <= (T - 1) walk_step.
    """

    walk_step: float = 0.05
    """Largest step per round."""

    def validate_law(self, horizon: int) -> None:
        require_number(self.walk_step, "walk_step", "in [0, 1]", 0 <= self.walk_step <= 1, 0.05)

    def variation_budget(self, horizon: int) -> float:
        return (horizon - 1) * self.walk_step

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        return _reflected_walk(key, self.num_arms, jnp.full(round_mask.shape[0] - 1, self.walk_step, jnp.float32))


@Environment.register("gradual")
class Gradual(ObliviousEnvironment):
    """Gradual drift (Park et al. 2024): |r_{t+1}(a) - r_t(a)| <= drift_scale / sqrt(t), reflected at 0 and 1.

    Uniform start, steps uniform within the bound. V_T <= sum_{t < T} min(1, drift_scale / sqrt(t)) <= 2 drift_scale
    sqrt(T).
    """

    drift_scale: float = 1.0
    """Largest step after round t, times sqrt(t)."""

    def validate_law(self, horizon: int) -> None:
        require_number(self.drift_scale, "drift_scale", "of at least 0", self.drift_scale >= 0, 1.0)

    def variation_budget(self, horizon: int) -> float:
        return math.fsum(min(1.0, self.drift_scale / math.sqrt(t)) for t in range(1, horizon))

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        bounds = self.drift_scale / jnp.sqrt(jnp.arange(1.0, round_mask.shape[0]))
        return _reflected_walk(key, self.num_arms, bounds)


@Environment.register("linear_trend")
class LinearTrend(ObliviousEnvironment):
    """Every arm goes in a straight line from one uniform draw in round 1 to another in round T. V_T <= 1."""

    def variation_budget(self, horizon: int) -> float:
        return min(1.0, horizon - 1.0)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        start, end = (jax.random.uniform(k, (1, self.num_arms)) for k in jax.random.split(key))
        fraction = jnp.arange(round_mask.shape[0])[:, None] / jnp.maximum(jnp.sum(round_mask) - 1, 1)
        return (1 - fraction) * start + fraction * end
