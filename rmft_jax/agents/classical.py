"""Classical bandit agents and references.

All keep the same statistics, pulls and reward sums per arm, and differ in the rule that turns them into an arm.
Absent arms never win: their index is -inf. Ties are broken uniformly at random.
"""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.types import Context, Decision, Feedback, ScalarKey, pytree


@pytree
class ArmStatistics:
    """What has been seen of each arm.

    pulls: `[K]` times it was played.
    sums: `[K]` sum of its rewards.
    """

    pulls: Float[Array, "K"]
    sums: Float[Array, "K"]

    @property
    def means(self) -> Float[Array, "K"]:
        """Empirical mean rewards, 0 where an arm was never played."""
        return self.sums / jnp.maximum(self.pulls, 1.0)


class StatisticsAgent(abc.ABC):
    """Base of the agents below: `ArmStatistics` as the state, and an `_index` whose maximizer is played."""

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    def init(self, num_arms: int, horizon: int) -> ArmStatistics:
        """Nothing seen yet."""
        del horizon
        return ArmStatistics(pulls=jnp.zeros(num_arms), sums=jnp.zeros(num_arms))

    def act(self, key: ScalarKey, state: ArmStatistics, context: Context) -> tuple[Decision, ArmStatistics]:
        """Plays an existing arm with the highest index, drawn uniformly among ties.

        Ties broken by position would favour low-numbered arms.
        """
        index_key, tie_key = jax.random.split(key)
        index = jnp.where(context.arm_mask, self._index(index_key, state, context), -jnp.inf)
        best = index == jnp.max(index)
        action = jnp.argmax(jnp.where(best, jax.random.uniform(tie_key, index.shape), -1.0))
        return Decision(action=action, probabilities=best / jnp.sum(best)), state

    def observe(
        self, state: ArmStatistics, action: Int[Array, ""], reward: Float[Array, ""], context: Context
    ) -> ArmStatistics:
        """Counts the pull and adds its reward."""
        del context
        played = jax.nn.one_hot(action, state.pulls.shape[0])
        return ArmStatistics(pulls=state.pulls + played, sums=state.sums + reward * played)

    @abc.abstractmethod
    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        """Scores the arms for one round."""


def _untried_first(state: ArmStatistics, index: Float[Array, "K"]) -> Float[Array, "K"]:
    return jnp.where(state.pulls == 0, jnp.inf, index)


@pytree
class UCB1(StatisticsAgent):
    """UCB1 (Auer, Cesa-Bianchi, Fischer 2002): empirical mean + scale * sqrt(2 ln t / n), every arm once first.

    scale: width of the reward range; 1 in the paper, whose rewards lie in [0, 1]. For Gaussian rewards 2 * std gives
      the same bonus in units of the sub-Gaussian constant, since [0, 1] is 1/2-sub-Gaussian (ours).
    """

    scale: Float[Array, ""] | float = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del key
        rounds_played = jnp.maximum(context.round, 1).astype(jnp.float32)
        bonus = self.scale * jnp.sqrt(2.0 * jnp.log(rounds_played) / jnp.maximum(state.pulls, 1.0))
        return _untried_first(state, state.means + bonus)


@pytree
class Greedy(StatisticsAgent):
    """Highest empirical mean, every arm once first."""

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del key, context
        return _untried_first(state, state.means)


@pytree
class BetaThompson(StatisticsAgent):
    """Thompson sampling for Bernoulli rewards: the arm with the largest draw from its Beta posterior.

    alpha, beta: the prior; 1, 1 is uniform (Thompson 1933; Chapelle and Li 2011). Rewards must lie in [0, 1].
    """

    alpha: Float[Array, ""] | float = 1.0
    beta: Float[Array, ""] | float = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del context
        return jax.random.beta(key, self.alpha + state.sums, self.beta + state.pulls - state.sums)


@pytree
class GaussianThompson(StatisticsAgent):
    """Thompson sampling with a Gaussian prior and Gaussian rewards of known variance.

    prior_mean, prior_std: the prior of every mean reward.
    noise_std: standard deviation (not variance) of a reward.
    """

    prior_mean: Float[Array, ""] | float = 0.0
    prior_std: Float[Array, ""] | float = 1.0
    noise_std: Float[Array, ""] | float = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del context
        # Written with the variance ratio, so that rewards without noise need no division by zero.
        ratio = jnp.square(self.noise_std / self.prior_std)
        shrink = jnp.maximum(state.pulls + ratio, jnp.finfo(jnp.float32).tiny)
        mean = jnp.where(state.pulls + ratio > 0, (state.sums + ratio * self.prior_mean) / shrink, self.prior_mean)
        std = jnp.where(state.pulls > 0, self.noise_std / jnp.sqrt(shrink), self.prior_std)
        return mean + std * jax.random.normal(key, state.pulls.shape)


@pytree
class EpsilonGreedy(StatisticsAgent):
    """With probability epsilon a uniformly drawn arm, else `Greedy` (Sutton and Barto 2018, section 2.4)."""

    epsilon: Float[Array, ""] | float = 0.1

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del context
        explore = jax.random.bernoulli(key, self.epsilon)
        return jnp.where(explore, 0.0, _untried_first(state, state.means))


@pytree
class Uniform(StatisticsAgent):
    """A uniformly drawn arm in every round."""

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del key, context
        return jnp.zeros_like(state.pulls)


@pytree
class BestArm(StatisticsAgent):
    """Reference: the arm with the highest expected reward of the round. Its pseudo-regret is zero."""

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        del key, state
        return context.mean_rewards
