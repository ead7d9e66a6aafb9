"""Index policies for stochastic bandits, and the references beside them."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Float, Shaped

from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent, num_existing, untried_first
from rmft_jax.config import Number, ScalarKey, pytree
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context

_BISECTIONS, _ALMOST_0 = 17, 2.0**-24


@pytree
class UCB(StatisticsAgent):
    """Upper confidence bounds: empirical mean + scale * constant * sqrt(ln t / n), every arm once first.

    `t` rounds have been played, `n` of them the arm. With the default constant this is UCB1 (Auer, Cesa-Bianchi,
    Fischer 2002), whose pseudo-regret for rewards in [0, 1] is at most
    `8 sum_a ln T / gap_a + (1 + pi^2 / 3) sum_a gap_a` over the arms with a gap (their Theorem 1).

    constant: sqrt(2) in the paper.
    scale: width of the reward range; 1 in the paper, whose rewards lie in [0, 1]. For Gaussian rewards 2 * std gives
      the same bonus in units of the sub-Gaussian constant, since [0, 1] is 1/2-sub-Gaussian (ours).
    """

    constant: Number = math.sqrt(2.0)
    scale: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        log_rounds = jnp.log(jnp.maximum(context.round, 1).astype(jnp.float32))
        bonus = self.scale * self.constant * jnp.sqrt(log_rounds / jnp.maximum(state.pulls, 1.0))
        return untried_first(state, state.means + bonus)


@pytree
class KLUCB(StatisticsAgent):
    """KL-UCB (Garivier and Cappe 2011): the largest mean that the past does not rule out, every arm once first.

    The index is `max {q in [0, 1]: n kl(mean, q) <= ln t + c ln ln t}`, where `kl` is the divergence between Bernoulli
    laws and `t` counts this round. Its regret for Bernoulli rewards is asymptotically
    `sum_a gap_a ln T / kl(mean_a, best mean)`, the lower bound of Lai and Robbins, with c = 3 (their Theorem 1).
    Rewards must lie in [0, 1]; means outside are clipped.

    The maximum is found by 17 bisections, so within 1e-5; `ln ln t` is taken as 0 while t < e (both ours).

    c: 0 is what the paper recommends in practice.
    """

    c: Number = 0.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        log_round = jnp.log(context.round + 1.0)
        budget = (log_round + self.c * jnp.log(jnp.maximum(log_round, 1.0))) / jnp.maximum(state.pulls, 1.0)
        mean = jnp.clip(state.means, 0.0, 1.0)
        budget -= xlogy(mean, mean) + xlog1py(1.0 - mean, -mean)
        low, high = mean, jnp.ones_like(mean)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            inside = -mean * jnp.log(middle) - (1.0 - mean) * jnp.log(jnp.maximum(1.0 - middle, _ALMOST_0)) <= budget
            low, high = jnp.where(inside, middle, low), jnp.where(inside, high, middle)
        return untried_first(state, low)


@pytree
class MOSS(StatisticsAgent):
    """MOSS (Audibert and Bubeck 2009): mean + scale * sqrt(max(0, ln(T / (K n))) / n), every arm once first.

    Its regret is at most `49 sqrt(K T)` for rewards in [0, 1], whatever the gaps.

    scale: width of the reward range, 1 in the paper; another value is also a free constant of the bonus.
    """

    scale: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        pulls = jnp.maximum(state.pulls, 1.0)
        excess = jnp.maximum(jnp.log(context.horizon / (num_existing(context) * pulls)), 0.0)
        return untried_first(state, state.means + self.scale * jnp.sqrt(excess / pulls))


@pytree
class Greedy(StatisticsAgent):
    """Highest empirical mean, every arm once first."""

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        return untried_first(state, state.means)


@pytree
class EpsilonGreedy(StatisticsAgent):
    """With probability epsilon a uniformly drawn arm, else `Greedy` (Sutton and Barto 2018, section 2.4)."""

    epsilon: Number = 0.1

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        explore = jax.random.bernoulli(key, self.epsilon)
        return jnp.where(explore, 0.0, untried_first(state, state.means))


@pytree
class ExploreThenCommit(StatisticsAgent):
    """Plays every arm m times, the least played first, then for good the one with the best mean of those m rewards.

    By default `m = scale (T / K)^(2/3) (ln T)^(1/3)`, at most T / K and at least 1, rounded down, with which regret is
    at most `T^(2/3) O(K ln T)^(1/3)` for rewards in [0, 1] (Slivkins 2019, Theorem 1.5). Ties between means are broken
    once. The arm of the commitment is the one that was played most, so nothing needs to be stored for it.

    pulls: m, rounded up; None takes the formula.
    scale: the constant of the formula, which the source leaves open; 1 is ours.
    """

    pulls: Number | None = None
    scale: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        goal = self._goal(context)
        fewest = jnp.min(jnp.where(context.arm_mask, state.pulls, jnp.inf))
        committed = jnp.max(state.pulls) > goal
        return jnp.where(fewest < goal, -state.pulls, jnp.where(committed, state.pulls, state.means))

    def _goal(self, context: Context) -> Shaped[Array, ""]:
        if self.pulls is not None:
            return jnp.ceil(self.pulls)
        share = context.horizon / num_existing(context)
        goal = self.scale * share ** (2 / 3) * jnp.log(context.horizon.astype(jnp.float32)) ** (1 / 3)
        return jnp.floor(jnp.maximum(jnp.minimum(goal, share), 1.0))


@pytree
class Uniform(StatisticsAgent):
    """A uniformly drawn arm in every round."""

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        return jnp.zeros_like(state.pulls)


@pytree
class BestArm(StatisticsAgent):
    """Reference: the arm with the highest expected reward of the round. Its pseudo-regret is zero."""

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        return context.mean_rewards


@pytree
class BestFixedArm(Uniform):
    """Reference: the arm with the highest sum of realized rewards over the whole trajectory. Its static regret is 0.

    Only hindsight knows it: during a rollout it plays uniformly, and `rmft_jax.method.evaluation` replays the rewards
    that it met with the best arm in every round. Against an adversary that reacts to play it therefore means nothing.
    """
