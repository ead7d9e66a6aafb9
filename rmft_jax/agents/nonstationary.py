"""Agents that forget, for means that change: a window or a discount on the statistics of the stationary ones.

`num_changes` is the number of times that the means change, Upsilon_T in the papers; below 1 it counts as 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.agents.posterior import BetaIndex, BetaThompson, GaussianIndex
from rmft_jax.agents.statistics import ArmStatistics, IndexAgent, StatisticsAgent, untried_first
from rmft_jax.config import Number, ScalarKey, pytree
from rmft_jax.problems.types import Context


@pytree
class WindowStatistics(ArmStatistics):
    """`ArmStatistics` of the last rounds, and the rounds themselves.

    actions: `[T]` arms played.
    rewards: `[T]` rewards received.
    """

    actions: Int[Array, "T"]
    rewards: Float[Array, "T"]


@pytree
class SlidingWindowUCB(IndexAgent[WindowStatistics]):
    """SW-UCB (Garivier and Moulines 2011): upper confidence bounds from the last w rounds.

    The index is the mean of the arm's n rewards among the last w rounds + `bound sqrt(xi ln min(t, w) / n)`, and
    infinite where n is 0; t rounds have been played. With `w = 2 sqrt(T ln T / Upsilon_T)` dynamic regret is
    `O(sqrt(Upsilon_T T ln T))`, which hides the gaps.

    num_changes: Upsilon_T.
    window: w, rounded down and at least 1; None takes the formula.
    bound: B, the largest reward; rewards lie in [0, B]. It scales the bonus alone (the paper's w grows with it too),
      so that rescaled rewards change nothing (ours).
    xi: the paper's theorems ask for more than 1/2; 1/2 itself is ours.
    """

    num_changes: Number = 1.0
    window: Number | None = None
    bound: Number = 1.0
    xi: Number = 0.5

    def init(self, num_arms: int, horizon: int) -> WindowStatistics:
        """Nothing seen yet."""
        zeros = jnp.zeros(num_arms)
        return WindowStatistics(zeros, zeros, jnp.zeros(horizon, jnp.int32), jnp.zeros(horizon))

    def observe(
        self, state: WindowStatistics, action: Int[Array, ""], reward: Float[Array, ""], context: Context
    ) -> WindowStatistics:
        """Adds the round, and takes the one that leaves the window away."""
        leaving = context.round - self._window(context)
        left, num_arms = jnp.maximum(leaving, 0), state.pulls.shape[0]
        gone = jnp.where(leaving >= 0, jax.nn.one_hot(state.actions[left], num_arms), 0.0)
        seen = jax.nn.one_hot(action, num_arms)
        return WindowStatistics(
            pulls=state.pulls + seen - gone,
            sums=state.sums + reward * seen - state.rewards[left] * gone,
            actions=state.actions.at[context.round].set(action),
            rewards=state.rewards.at[context.round].set(reward),
        )

    def _window(self, context: Context) -> Int[Array, ""]:
        horizon = context.horizon.astype(jnp.float32)
        window = 2.0 * jnp.sqrt(horizon * jnp.log(horizon) / jnp.maximum(self.num_changes, 1.0))
        window = window if self.window is None else self.window
        return jnp.clip(window, 1.0, horizon).astype(jnp.int32)

    def _index(self, key: ScalarKey, state: WindowStatistics, context: Context) -> Float[Array, "K"]:
        rounds = jnp.maximum(jnp.minimum(context.round, self._window(context)), 1).astype(jnp.float32)
        bonus = self.bound * jnp.sqrt(self.xi * jnp.log(rounds) / jnp.maximum(state.pulls, 1.0))
        return untried_first(state, state.means + bonus)


@pytree
class _Discounted(StatisticsAgent):
    """Multiplies the statistics by a discount before a round is added.

    The discount is `1 - sqrt(Upsilon_T / T) / 4` unless given, at least 0.
    """

    num_changes: Number = 1.0
    discount: Number | None = None

    def _forget(self, state: ArmStatistics, context: Context) -> ArmStatistics:
        discount = 1.0 - jnp.sqrt(jnp.maximum(self.num_changes, 1.0) / context.horizon) / 4.0
        discount = jnp.maximum(discount, 0.0) if self.discount is None else self.discount
        return ArmStatistics(pulls=discount * state.pulls, sums=discount * state.sums)


@pytree
class DiscountedUCB(_Discounted):
    """D-UCB (Garivier and Moulines 2011): upper confidence bounds from discounted statistics, every arm once first.

    A reward that is s rounds old counts `discount^s`; the arm's counts sum to `n_a`, those of all arms to n. The index
    is the discounted mean + `2 bound sqrt(xi ln n / n_a)`. With `discount = 1 - sqrt(Upsilon_T / T) / 4` dynamic
    regret is `O(sqrt(Upsilon_T T) ln T)`, which hides the gaps.

    num_changes: Upsilon_T.
    discount: None takes the formula.
    bound: B, the largest reward; rewards lie in [0, B]. It scales the bonus alone (the paper's discount depends on it
      too), so that rescaled rewards change nothing (ours).
    xi: the paper's theorems ask for more than 1/2; 1/2 itself is ours.
    """

    bound: Number = 1.0
    xi: Number = 0.5

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        log_count = jnp.log(jnp.maximum(jnp.sum(state.pulls), 1.0))
        pulls = jnp.where(state.pulls > 0, state.pulls, 1.0)
        return untried_first(state, state.means + 2.0 * self.bound * jnp.sqrt(self.xi * log_count / pulls))


@pytree
class DiscountedThompson(BetaThompson, _Discounted):
    """Thompson sampling with discounted successes and failures (Raj and Kalyani 2017), for rewards in [0, 1].

    The posterior is `Beta(alpha + s, beta + f)`, and s and f of every arm are discounted in every round. The paper
    gives no schedule for the discount: the default is that of `DiscountedUCB` (ours).

    num_changes: Upsilon_T.
    discount: None takes the formula.
    alpha, beta: the prior, to which an arm that is not played returns; 1, 1 is uniform.
    """


@pytree
class DiscountedIndex(BetaIndex, _Discounted):
    """`BetaIndex` with discounted successes and failures: the strongest of these that need not know the law (ours).

    num_changes: Upsilon_T.
    discount: None takes the formula of `DiscountedUCB`.
    constant: deviations added to the mean.
    alpha, beta: the prior, to which an arm that is not played returns; 1, 1 is uniform. Rewards must lie in [0, 1].
    """


@pytree
class DiscountedGaussianIndex(GaussianIndex, _Discounted):
    """`GaussianIndex` with discounted counts and sums (ours).

    num_changes: Upsilon_T.
    discount: None takes the formula of `DiscountedUCB`.
    constant: deviations added to the mean.
    prior_mean, prior_std: the prior of every mean reward, to which an arm that is not played returns.
    noise_std: standard deviation (not variance) of a reward.
    """
