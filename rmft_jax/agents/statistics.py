"""The base of the agents that turn what they have seen of each arm into an index and play its maximizer."""

import abc
from typing import ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.config import ScalarKey, pytree
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context, Decision, Reward


@pytree
class ArmStatistics:
    """What has been seen of each arm.

    pulls: `[K]` times that its reward was seen; a discounted count where the agent forgets.
    sums: `[K]` sum of those rewards, discounted alike.
    """

    pulls: Float[Array, "K"]
    sums: Float[Array, "K"]

    @property
    def means(self) -> Float[Array, "K"]:
        """Empirical mean rewards, 0 where an arm was never seen."""
        seen = self.pulls > 0
        return jnp.where(seen, self.sums / jnp.where(seen, self.pulls, 1.0), 0.0)


S = TypeVar("S")


class IndexAgent(abc.ABC, Generic[S]):
    """Plays an existing arm with the highest `_index`, drawn uniformly among ties.

    Absent arms never win: their index is -inf. Ties broken by position would favour low-numbered arms.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    def act(self, key: ScalarKey, state: S, context: Context) -> tuple[Decision, S]:
        """The policy is uniform over the ties, given whatever the index drew."""
        index_key, tie_key = jax.random.split(key)
        index = jnp.where(context.arm_mask, self._index(index_key, state, context), -jnp.inf)
        # Never nobody: what a compiler computes twice may round twice, and then nothing equals the maximum.
        best = (index == jnp.max(index)) | (jnp.arange(index.shape[0]) == jnp.argmax(index))
        action = jnp.argmax(jnp.where(best, jax.random.uniform(tie_key, index.shape), -1.0))
        return Decision(action=action, probabilities=best / jnp.sum(best)), state

    @abc.abstractmethod
    def _index(self, key: ScalarKey, state: S, context: Context) -> Float[Array, "K"]:
        """Scores the arms for one round."""


class StatisticsAgent(IndexAgent[ArmStatistics]):
    """An `IndexAgent` whose state is `ArmStatistics`."""

    def init(self, num_arms: int, horizon: int) -> ArmStatistics:
        """Nothing seen yet."""
        return ArmStatistics(pulls=jnp.zeros(num_arms), sums=jnp.zeros(num_arms))

    def observe(self, state: ArmStatistics, action: Int[Array, ""], reward: Reward, context: Context) -> ArmStatistics:
        """Counts the arms whose reward was seen, and adds the rewards: the played arm's, or everyone's."""
        seen = jnp.ones_like(state.pulls) if jnp.ndim(reward) else jax.nn.one_hot(action, state.pulls.shape[0])
        state = self._forget(state, context)
        return ArmStatistics(pulls=state.pulls + seen, sums=state.sums + reward * seen)

    def _forget(self, state: ArmStatistics, context: Context) -> ArmStatistics:
        """What remains of the past when a round is added to it; by default all of it."""
        return state


def untried_first(state: ArmStatistics, index: Float[Array, "K"]) -> Float[Array, "K"]:
    """The index, or infinity where an arm has not been seen."""
    return jnp.where(state.pulls > 0, index, jnp.inf)


def num_existing(context: Context) -> Float[Array, ""]:
    """How many arms exist: the K of every formula."""
    return jnp.sum(context.arm_mask, dtype=jnp.float32)
