"""Players with habits, whose dialogues the toy language model is pretrained on.

None of them is an expert: some have no plan, some follow the last reward or the best mean in a rough way, and some run
from what paid. So a model that has read them knows how rewards are told, and writes dialogues of every kind: RMFT has
something to choose from.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.config import ScalarKey, pytree, static_field
from rmft_jax.language.words import thoughts
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context, Decision, Reward

MIXED = (0.13, 0.05, 0.05, 0.12, 0.25, 0.10, 0.20, 0.10)
"""How often each habit is met, in the order of `Habits._habits`."""
HEEDING = (0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.5, 0.0)
"""Those alone that stay with what pays: from them it learns soonest what a reward is."""


@pytree
class HabitState:
    """What a player remembers.

    habit: `[]` which one it has.
    last, reward: `[]` the last arm, and its reward.
    pulls, sums: `[K]`.
    """

    habit: Int[Array, ""]
    last: Int[Array, ""]
    reward: Float[Array, ""]
    pulls: Int[Array, "K"]
    sums: Float[Array, "K"]


@pytree
class Habits:
    """One habit for a whole dialogue, drawn in its first round, and thoughts drawn at random.

    shares: how often each habit is met.
    middle: a reward above it counts as a success.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    shares: tuple[float, ...] = static_field(default=MIXED)
    middle: Float[Array, ""] | float = 0.5

    def init(self, num_arms: int, horizon: int) -> HabitState:
        """Before the first round."""
        del horizon
        nothing = jnp.zeros(num_arms, jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        return HabitState(zero, zero, jnp.zeros(()), nothing, nothing.astype(jnp.float32))

    def act(self, key: ScalarKey, state: HabitState, context: Context) -> tuple[Decision, HabitState]:
        """Follows the habit; the thought, whose arm is mostly the one that is then played, has no part in it."""
        keys = jax.random.split(key, 6)
        first = context.round == 0
        habit = jnp.where(first, jax.random.choice(keys[0], len(self.shares), p=jnp.asarray(self.shares)), state.habit)
        size = len(context.arm_mask)
        any_arm = jax.random.randint(keys[1], (), 0, size)
        last = jnp.where(first, any_arm, state.last)
        action = self._habits(keys[2], any_arm, last, first, state)[habit]
        number = jax.random.randint(keys[3], (), 0, len(thoughts()))
        told = jnp.where(jax.random.bernoulli(keys[4], 0.8), action, jax.random.randint(keys[5], (), 0, size))
        state = HabitState(habit, action, state.reward, state.pulls, state.sums)
        return Decision(action, jax.nn.one_hot(action, size), notes=(number, told)), state

    def _habits(
        self, key: ScalarKey, any_arm: Int[Array, ""], last: Int[Array, ""], first: Int[Array, ""], state: HabitState
    ) -> Int[Array, "H"]:
        """The arm of each habit."""
        size, chance = len(state.pulls), jax.random.uniform(key)
        means = jnp.where(state.pulls > 0, state.sums / jnp.maximum(state.pulls, 1), self.middle)
        after = jnp.where(first, last, (last + 1) % size)
        other = (last + jax.random.randint(jax.random.fold_in(key, 1), (), 1, size)) % size
        arms = (
            any_arm,  # no plan at all
            last,  # the first arm for ever
            after,  # all in turn
            jnp.where(chance < 0.7, last, any_arm),  # sticks for a while
            jnp.where(first | (state.reward > self.middle), last, other),  # leaves what has just failed
            jnp.where(first | (state.reward <= self.middle), last, other),  # leaves what has just paid
            jnp.where(chance < 0.7, jnp.argmax(means), any_arm),  # what looks best, often
            jnp.where(chance < 0.7, jnp.argmin(means), any_arm),  # what looks worst, often
        )
        return jnp.stack(arms)

    def observe(self, state: HabitState, action: Int[Array, ""], reward: Reward, context: Context) -> HabitState:
        """Counts."""
        size = len(context.arm_mask)
        seen = jnp.ones(size, jnp.int32) if reward.ndim else jax.nn.one_hot(action, size, dtype=int)
        own = reward[action] if reward.ndim else reward
        return HabitState(state.habit, state.last, own, state.pulls + seen, state.sums + seen * reward)
