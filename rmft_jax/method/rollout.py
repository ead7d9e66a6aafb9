"""Agent x environment -> Trajectory: a scan over rounds, vmapped over rollouts and scenarios."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from rmft_jax.agents.base import Agent, GrowingAgent, segment_ends, state_bytes
from rmft_jax.config import ConfigError, ScalarKey, pytree
from rmft_jax.config.checks import block_of, require_shape
from rmft_jax.config.platforms import platform
from rmft_jax.problems import Feedback, Problem
from rmft_jax.problems.base import Environment
from rmft_jax.problems.types import Context, Trajectory

# Rounds that are played before a growing state grows, at least.
_SEGMENT_ROUNDS = 25
# A core's share of the last level of cache, about.
_CACHE_BYTES = 8_000_000


@pytree
class NoiseStreams:
    """Where the randomness of one rollout comes from, round by round: that of the policy, then that of the rewards.

    Before its `split_round` each is the stream that all rollouts of the scenario share, from there on the rollout's
    own. Keys are indexed by scenario, rollout and round, never by the shape of a batch. Both streams are derived in
    one call, because every call of the generator takes a compiler long.

    shared: `[2]` keys of the scenario's shared streams.
    own: `[2]` keys of the rollout's own streams.
    split_rounds: `[2]` first rounds that draw from the own streams.
    """

    shared: Key[Array, "2"]
    own: Key[Array, "2"]
    split_rounds: Int[Array, "2"]

    @classmethod
    def create(
        cls, scenario_keys: Key[Array, "2"], rollout: Int[Array, ""], split_rounds: Int[Array, "2"]
    ) -> "NoiseStreams":
        """The streams of one rollout. Rollout 0 lends its own as the shared ones."""
        keys = fold_each(jnp.tile(scenario_keys, 2), jnp.repeat(jnp.stack([jnp.zeros_like(rollout), rollout]), 2))
        return cls(keys[:2], keys[2:], split_rounds)

    def keys(self, round: Int[Array, ""]) -> Key[Array, "2"]:
        """The policy's and the rewards' key of one round."""
        return fold_each(jnp.where(round < self.split_rounds, self.shared, self.own), jnp.full(2, round))


def fold_each(keys: Key[Array, "n"], data: Int[Array, "n"]) -> Key[Array, "n"]:
    """`jax.random.fold_in`, pair by pair."""
    return jax.vmap(jax.random.fold_in)(keys, data)


@pytree
class RolloutKeys:
    """One key per purpose: the problems, the agent's own draws, and the reward noise."""

    scenario: ScalarKey
    policy: ScalarKey
    reward: ScalarKey

    @classmethod
    def create(cls, key: ScalarKey) -> "RolloutKeys":
        """Three independent keys."""
        return cls(*jax.random.split(key, 3))


def require_feedback(agent: Agent, feedback: Feedback) -> None:
    """Raises `ConfigError` if the agent cannot play under this feedback."""
    if feedback not in agent.feedback:
        raise ConfigError(
            f"got {type(agent).__name__} under {feedback!r} feedback, need {' or '.join(map(repr, agent.feedback))}; "
            "try another agent, or the other feedback"
        )


def rollout(
    agent: Agent,
    environment: Environment,
    scenario: Any,
    noise: NoiseStreams,
    arm_mask: Bool[Array, "K"],
    round_mask: Bool[Array, "T"],
) -> Trajectory:
    """One agent plays one scenario once.

    Args:
      agent: who plays.
      environment: the world.
      scenario: a state of the environment, fresh from its `reset`.
      noise: randomness of the agent and of the rewards.
      arm_mask: `[K]` true where the arm exists.
      round_mask: `[T]` true where the round is played, the first ones. The others are gone through too, so that
        trajectories of several lengths have one shape; they change nothing of what came before.

    Raises:
      ConfigError: if the agent or the environment returns arrays of other shapes than their protocols say.
    """
    num_rounds, horizon = round_mask.shape[0], jnp.sum(round_mask)

    def play_round(carry: tuple[Any, Any], round: Int[Array, ""]) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        agent_state, world = carry
        context = Context(round, horizon, arm_mask, environment.mean_rewards(world, round))
        policy_key, reward_key = noise.keys(round)
        decision, agent_state = agent.act(policy_key, agent_state, context)
        world, outcome = environment.step(reward_key, world, decision, round)
        _require_shapes(agent, decision, action=(), probabilities=arm_mask.shape)
        _require_shapes(environment, outcome, mean_rewards=arm_mask.shape, rewards=arm_mask.shape)
        means, rewards = (jnp.where(arm_mask, table, 0.0) for table in (outcome.mean_rewards, outcome.rewards))
        reward = rewards[decision.action]
        seen = rewards if environment.feedback == "full" else reward
        agent_state = agent.observe(agent_state, decision.action, seen, context)
        record = (decision.action, reward, decision.probabilities, means, rewards, decision.scores)
        return (agent_state, world), record

    ends = segment_ends(num_rounds, _SEGMENT_ROUNDS) if isinstance(agent, GrowingAgent) else [num_rounds]
    state, world, records = agent.init(environment.num_arms, ends[0]), scenario, []
    for begin, end in itertools.pairwise([0, *ends]):
        if begin and isinstance(agent, GrowingAgent):
            state = agent.grow(state, end)
        (state, world), record = jax.lax.scan(play_round, (state, world), jnp.arange(begin, end))
        records.append(record)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *records)
    return Trajectory(*joined, arm_mask=arm_mask, round_mask=round_mask)


def rollout_scenarios(
    agent: Agent,
    problem: Problem,
    keys: RolloutKeys,
    *,
    num_scenarios: int,
    first_scenario: Int[Array, ""] | int = 0,
    num_rollouts: int = 1,
    branch_rounds: Int[Array, "M"] | None = None,
    shared_reward_noise: bool = False,
    block: int = 0,
) -> Trajectory:
    """Draws `num_scenarios` scenarios and plays each of them `num_rollouts` times.

    Args:
      agent: who plays.
      problem: the distribution over scenarios, and how long it is played. What is played in its arms and rounds does
        not depend on how many more there are that are not in use, beyond rounding.
      keys: one key per purpose. The same keys give the same scenarios and the same rewards to any agent, unless
        the environment reacts to play.
      num_scenarios: M.
      first_scenario: number of the first of them, where others of the same keys are played elsewhere.
      num_rollouts: L.
      branch_rounds: `[M]` per scenario, the first round from which its rollouts draw their own noise; before it they
        share policy and reward noise, so their histories are identical. None: they are independent throughout.
      shared_reward_noise: whether the rollouts of a scenario see the same reward noise in every round.
      block: trajectories stepped together, which bounds memory; the result does not depend on it beyond rounding.
        0 chooses up to 256 on CPU, so that what they carry from round to round stays in the processor's cache, and
        everything at once elsewhere.

    Returns:
      Trajectories with batch axes `[M, L]`.

    Raises:
      ConfigError: if the agent cannot use the problem's feedback, or if it or the environment returns arrays of other
        shapes than their protocols say.
    """
    require_feedback(agent, problem.feedback)
    environment, horizon, mask, rounds = problem.environment, problem.horizon, problem.arm_mask, problem.round_mask
    branches = jnp.zeros(num_scenarios, jnp.int32) if branch_rounds is None else branch_rounds

    def play(number: Int[Array, ""]) -> Trajectory:
        row, rollout_index = number // num_rollouts, number % num_rollouts
        own_keys = fold_each(jnp.stack([keys.scenario, keys.policy, keys.reward]), jnp.full(3, first_scenario + row))
        scenario = environment.reset(own_keys[0], mask, rounds)
        reward_split = jnp.full_like(branches[row], horizon) if shared_reward_noise else branches[row]
        noise = NoiseStreams.create(own_keys[1:], rollout_index, jnp.stack([branches[row], reward_split]))
        return rollout(agent, environment, scenario, noise, mask, rounds)

    total = num_scenarios * num_rollouts
    block = block or rollout_block(agent, environment.num_arms, horizon) or total
    # One axis for all rollouts: beside an axis of length 1, XLA copies what a scan carries. A remainder would be
    # compiled as a program of its own.
    played = jax.lax.map(play, jnp.arange(total), batch_size=block_of(total, block))
    return jax.tree.map(lambda leaf: leaf.reshape(num_scenarios, num_rollouts, *leaf.shape[1:]), played)


def _require_shapes(maker: Any, made: Any, **expected: tuple[int, ...]) -> None:
    """Raises `ConfigError` if fields of what an agent or an environment made have other shapes."""
    for name, shape in expected.items():
        need = "one entry per arm" if shape else "a number"
        require_shape(getattr(made, name), f"{name} from {type(maker).__name__}", shape, need, f"returning {need}")


def rollout_block(agent: Agent, num_arms: int, horizon: int) -> int:
    """Trajectories whose states fit into a core's share of the cache; 0, for all, where there is no such cache."""
    if platform() != "cpu":
        return 0
    return min(max(_CACHE_BYTES // max(state_bytes(agent, num_arms, horizon), 1), 8), 256)
