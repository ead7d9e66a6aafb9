"""Play against means that all change at once, by the posterior over when they last did."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.agents.statistics import IndexAgent
from rmft_jax.config import Number, ScalarKey, pytree, static_field
from rmft_jax.problems.types import Context


@pytree
class SinceChange:
    """What is known after some rounds.

    weights: `[m + 1, T]` posterior of the changes so far, and of the round since which the means are what they are.
    pulls: `[T, K]` pulls of every arm since each round.
    sums: `[T, K]` the rewards of these.
    """

    weights: Float[Array, "M T"]
    pulls: Float[Array, "T K"]
    sums: Float[Array, "T K"]


@pytree
class ChangePointIndex(IndexAgent[SinceChange]):
    """Posterior mean + constant * posterior standard deviation, where m changes at unknown rounds redraw all means.

    The change points are distinct and uniform among rounds 2, ..., T, as `Abrupt` draws them, so that after j changes
    the next of r remaining rounds changes the means with probability `(m - j) / r`. Given the round of the last change
    the arms have Beta posteriors from what was seen since; the filter mixes them (Adams and MacKay 2007, with a hazard
    that depends on j; Mellor and Shapiro 2013 sample from such a mixture). The index is ours. Rewards must be 0 or 1.

    num_changes: m.
    constant: deviations of the mixture added to its mean.
    alpha, beta: the prior of every mean; 1, 1 is uniform.
    """

    num_changes: int = static_field(default=1)
    constant: Number = 1.0
    alpha: Number = 1.0
    beta: Number = 1.0

    def init(self, num_arms: int, horizon: int) -> SinceChange:
        """Nothing seen, and nothing changed yet."""
        weights = jnp.zeros((self.num_changes + 1, horizon)).at[0, 0].set(1.0)
        return SinceChange(weights, jnp.zeros((horizon, num_arms)), jnp.zeros((horizon, num_arms)))

    def observe(
        self, state: SinceChange, action: Int[Array, ""], reward: Float[Array, ""], context: Context
    ) -> SinceChange:
        """Weighs every possible last change by how well it foresaw the reward, and lets the next round change."""
        a, b = self.alpha + state.sums[:, action], self.beta + (state.pulls - state.sums)[:, action]
        weights = state.weights * (jnp.where(reward > 0.5, a, b) / (a + b))[None]
        changes, start = jnp.arange(self.num_changes + 1), context.round + 1
        hazard = (self.num_changes - changes) / jnp.maximum(context.horizon - start, 1)
        hazard = jnp.clip(hazard, 0.0, 1.0)[:, None]
        changed = jnp.sum(weights * hazard, axis=1)[:-1]
        weights = (weights * (1.0 - hazard)).at[1:, start].add(changed, mode="drop")
        since = (jnp.arange(state.pulls.shape[0]) <= context.round)[:, None]
        seen = jnp.where(since, jax.nn.one_hot(action, state.pulls.shape[1])[None], 0.0)
        return dataclasses.replace(
            state,
            weights=weights / jnp.sum(weights),
            pulls=state.pulls + seen,
            sums=state.sums + reward * seen,
        )

    def _index(self, key: ScalarKey, state: SinceChange, context: Context) -> Float[Array, "K"]:
        weights = jnp.sum(state.weights, axis=0)
        a, b = self.alpha + state.sums, self.beta + state.pulls - state.sums
        means = a / (a + b)
        squares = means * (a + 1.0) / (a + b + 1.0)
        mean = weights @ means
        return mean + self.constant * jnp.sqrt(jnp.maximum(weights @ squares - jnp.square(mean), 0.0))
