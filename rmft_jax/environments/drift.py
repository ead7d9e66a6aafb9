"""Expected rewards that drift: sines, reflected walks, straight lines."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import GradualConfig, LinearTrendConfig, RandomWalkConfig, SinusoidalConfig
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.types import ScalarKey, pytree


@pytree
class Sinusoidal(ObliviousEnvironment[SinusoidalConfig]):
    """Sines of random amplitude, period and phase per arm; law and variation budget in `SinusoidalConfig`."""

    config: SinusoidalConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        del arm_mask
        draws = [jax.random.uniform(k, (self.num_arms,)) for k in jax.random.split(key, 3)]
        amplitude = self.config.amplitude * (1 + draws[0]) / 2
        period = self.config.period * (1 + draws[1])
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


@pytree
class RandomWalk(ObliviousEnvironment[RandomWalkConfig]):
    """Reflected random walks; law and variation budget in `RandomWalkConfig`."""

    config: RandomWalkConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        del arm_mask
        bounds = jnp.full(round_mask.shape[0] - 1, self.config.walk_step, jnp.float32)
        return _reflected_walk(key, self.num_arms, bounds)


@pytree
class Gradual(ObliviousEnvironment[GradualConfig]):
    """Reflected walks whose steps shrink as 1/sqrt(t); law and variation budget in `GradualConfig`."""

    config: GradualConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        del arm_mask
        bounds = self.config.drift_scale / jnp.sqrt(jnp.arange(1.0, round_mask.shape[0]))
        return _reflected_walk(key, self.num_arms, bounds)


@pytree
class LinearTrend(ObliviousEnvironment[LinearTrendConfig]):
    """Straight lines between two uniform draws per arm; variation budget in `LinearTrendConfig`."""

    config: LinearTrendConfig

    def _path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        del arm_mask
        start, end = (jax.random.uniform(k, (1, self.num_arms)) for k in jax.random.split(key))
        fraction = jnp.arange(round_mask.shape[0])[:, None] / jnp.maximum(jnp.sum(round_mask) - 1, 1)
        return (1 - fraction) * start + fraction * end
