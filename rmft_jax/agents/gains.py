"""The base of the agents that map cumulative gains of the arms to a distribution and draw from it."""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rmft_jax.config import ScalarKey, pytree
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context, Decision, PerArm, Reward


@pytree
class Gains:
    """What a policy is made from.

    totals: `[K]` cumulative gains of the arms. Only their differences matter, so the largest of an existing arm is
      kept at 0, where float32 is finest; absent arms stay at 0.
    probabilities: `[K]` the policy of the round, which gains are estimated with.
    """

    totals: PerArm
    probabilities: PerArm


class PolicyAgent(abc.ABC):
    """Draws the arm from `_policy` of the gains, then adds `_gain` to them."""

    feedback: ClassVar[tuple[Feedback, ...]]

    def init(self, num_arms: int, horizon: int) -> Gains:
        """No gains yet."""
        return Gains(totals=jnp.zeros(num_arms), probabilities=jnp.zeros(num_arms))

    def act(self, key: ScalarKey, state: Gains, context: Context) -> tuple[Decision, Gains]:
        """Draws an arm; absent ones have probability 0."""
        weights = jnp.where(context.arm_mask, self._policy(state.totals, context), 0.0)
        probabilities = weights / jnp.sum(weights)
        action = jax.random.categorical(key, jnp.log(probabilities))
        return Decision(action, probabilities), dataclasses.replace(state, probabilities=probabilities)

    def observe(self, state: Gains, action: Int[Array, ""], reward: Reward, context: Context) -> Gains:
        """Adds the gains of the round."""
        totals = state.totals + self._gain(state.probabilities, action, reward, context)
        best = jnp.max(jnp.where(context.arm_mask, totals, -jnp.inf))
        return dataclasses.replace(state, totals=jnp.where(context.arm_mask, totals - best, 0.0))

    @abc.abstractmethod
    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        """The policy, up to its normalization and to absent arms, which need not be 0."""

    @abc.abstractmethod
    def _gain(self, probabilities: PerArm, action: Int[Array, ""], reward: Reward, context: Context) -> PerArm:
        """What each arm is taken to have earned in the round."""


def exponential_weights(logits: PerArm, context: Context) -> PerArm:
    """Softmax over the existing arms."""
    return jax.nn.softmax(jnp.where(context.arm_mask, logits, -jnp.inf))
