"""Environments stepped round by round on the host, with the keys that rollouts in one program use."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from rmft_jax.config import pytree
from rmft_jax.method.noise import NoiseStreams, RolloutKeys, fold_each
from rmft_jax.method.rollout import Rollout, Standing
from rmft_jax.problems import Feedback, Problem
from rmft_jax.problems.types import Context, Decision, Trajectory


@pytree
class Heard:
    """What is noted of a round.

    invalid: `[]` whether what was said named no arm.
    """

    invalid: Bool[Array, "*T"]


@pytree
class Told:
    """Plays the arm that it is told, whatever it sees, or one at random.

    arm: `[]` to play.
    named: `[]` whether it is played; else one is drawn, each equally likely.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    arm: Int[Array, ""] | Int[np.ndarray, ""]
    named: Bool[Array, ""] | Bool[np.ndarray, ""]

    def init(self, num_arms: int, horizon: int) -> Any:
        """Nothing is kept from round to round."""
        del num_arms, horizon
        return ()

    def act(self, key: Any, state: Any, context: Context) -> tuple[Decision, Any]:
        """The arm, or a random one."""
        mask = context.arm_mask
        drawn = jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))
        arm = jnp.where(self.named, self.arm, drawn).astype(jnp.int32)
        policy = jnp.where(self.named, jax.nn.one_hot(arm, len(mask)), mask / jnp.sum(mask))
        return Decision(arm, policy, notes=Heard(~jnp.asarray(self.named))), state

    def observe(self, state: Any, action: Any, reward: Any, context: Context) -> Any:
        """Nothing is learned."""
        del action, reward, context
        return state


class Play:
    """One trajectory, played round by round.

    Args:
      problem: the distribution over scenarios.
      keys: one key per purpose.
      scenario: its number.
      rollout: its number among those of the scenario.
      shared_reward_noise: whether the rollouts of a scenario see the same reward noise.
    """

    def __init__(
        self, problem: Problem, keys: RolloutKeys, scenario: int, rollout: int = 0, *, shared_reward_noise: bool = False
    ):
        shared = np.asarray(shared_reward_noise)
        self._rollout, self._standing, seeds = _seat(problem, keys, np.int32(scenario), np.int32(rollout), shared)
        self.seeds: list[int] = np.asarray(seeds).tolist()
        """One per round, from the stream of the policy, for whoever decides."""

    def step(self, round: int, arm: int | None) -> tuple[int, list[float]]:
        """Plays a round.

        Args:
          round: counted from 0.
          arm: None: a random one.

        Returns:
          The arm that was played, and the rewards of all arms.
        """
        told = Told(np.asarray(arm or 0, np.int32), np.asarray(arm is not None))
        self._standing, action, rewards = _step(self._rollout, told, self._standing, np.int32(round))
        return int(action), np.asarray(rewards).tolist()

    @property
    def trajectory(self) -> Trajectory:
        """What was played."""
        return self._rollout.trajectory(self._standing)


@jax.jit
def _seat(problem: Problem, keys: RolloutKeys, scenario: Any, rollout: Any, shared: Any) -> Any:
    """As `method.rollout.rollout_scenarios` does it, where rollouts do not branch."""
    mask, rounds = problem.arm_mask, problem.round_mask
    own = fold_each(jnp.stack([keys.scenario, keys.policy, keys.reward]), jnp.full(3, scenario))
    world = problem.environment.reset(own[0], mask, rounds)
    splits = jnp.stack([jnp.zeros((), jnp.int32), jnp.where(shared, problem.horizon, 0).astype(jnp.int32)])
    noise = NoiseStreams.create(own[1:], jnp.asarray(rollout), splits)
    nobody = Told(jnp.int32(0), jnp.asarray(True))
    played = Rollout(nobody, problem.environment, noise, mask, rounds, keys.telling)

    def seed(round: Any) -> Any:
        # Apart from the draw of a random arm, which has the key itself.
        return jax.random.bits(jax.random.fold_in(noise.keys(round)[0], 1), dtype=jnp.uint32) >> 1

    return played, played.fresh(world), jax.vmap(seed)(jnp.arange(problem.horizon))


@jax.jit
def _step(rollout: Rollout, told: Told, standing: Standing, round: Any) -> Any:
    played = dataclasses.replace(rollout, agent=told)
    after = played.play(standing, round, round + 1)
    actions, _, _, _, rewards, *_ = after.record
    return after, actions[round], rewards[round]


def stacked(plays: list[Play]) -> Trajectory:
    """The trajectories, with a batch axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(play.trajectory for play in plays))
