"""Agent x environment -> Trajectory: a scan over rounds, vmapped over rollouts and scenarios."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rmft_jax.agents.base import Agent
from rmft_jax.config import ConfigError
from rmft_jax.environments.base import Environment
from rmft_jax.types import Context, Feedback, ScalarKey, Trajectory, pytree


@pytree
class NoiseStream:
    """Where the randomness of one rollout comes from, round by round.

    Before `split_round` it is the stream that all rollouts of the scenario share, from there on the rollout's own.
    Keys are indexed by scenario, rollout and round, never by the shape of a batch.

    shared: `[]` key of the scenario's shared stream.
    own: `[]` key of the rollout's own stream.
    split_round: `[]` first round that draws from the own stream.
    """

    shared: ScalarKey
    own: ScalarKey
    split_round: Int[Array, ""]

    @classmethod
    def create(cls, scenario_key: ScalarKey, rollout: Int[Array, ""], split_round: Int[Array, ""]) -> "NoiseStream":
        """The stream of one rollout. Rollout 0 lends its own stream as the shared one."""
        return cls(jax.random.fold_in(scenario_key, 0), jax.random.fold_in(scenario_key, rollout), split_round)

    def key(self, round: Int[Array, ""]) -> ScalarKey:
        """The key of one round."""
        return jax.random.fold_in(jnp.where(round < self.split_round, self.shared, self.own), round)


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
    policy_noise: NoiseStream,
    reward_noise: NoiseStream,
    arm_mask: Bool[Array, "K"],
    horizon: int,
    feedback: Feedback = "bandit",
) -> Trajectory:
    """One agent plays one scenario once.

    Args:
      agent: who plays.
      environment: the world.
      scenario: a state of the environment, fresh from its `reset`.
      policy_noise: randomness of the agent.
      reward_noise: randomness of the rewards.
      arm_mask: `[K]` true where the arm exists.
      horizon: rounds T.
      feedback: what the agent sees after a round, `R_t(a_t)` or the vector `R_t`.

    Raises:
      AssertionError: if the agent or the environment returns arrays of other shapes than their protocols say.
    """

    def play_round(carry: tuple[Any, Any], round: Int[Array, ""]) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        agent_state, world = carry
        context = Context(round, jnp.asarray(horizon), arm_mask, environment.mean_rewards(world, round))
        decision, agent_state = agent.act(policy_noise.key(round), agent_state, context)
        world, outcome = environment.step(reward_noise.key(round), world, decision, round)
        chex.assert_shape([decision.probabilities, outcome.mean_rewards, outcome.rewards], arm_mask.shape)
        chex.assert_shape(decision.action, ())
        means, rewards = (jnp.where(arm_mask, table, 0.0) for table in (outcome.mean_rewards, outcome.rewards))
        reward = rewards[decision.action]
        seen = rewards if feedback == "full" else reward
        agent_state = agent.observe(agent_state, decision.action, seen, context)
        record = (decision.action, reward, decision.probabilities, means, rewards, decision.scores)
        return (agent_state, world), record

    start = (agent.init(environment.num_arms, horizon), scenario)
    _, records = jax.lax.scan(play_round, start, jnp.arange(horizon))
    return Trajectory(*records, arm_mask=arm_mask)


def rollout_scenarios(
    agent: Agent,
    environment: Environment,
    keys: RolloutKeys,
    *,
    horizon: int,
    num_scenarios: int,
    num_rollouts: int = 1,
    branch_rounds: Int[Array, "M"] | None = None,
    shared_reward_noise: bool = False,
    arm_mask: Bool[Array, "K"] | None = None,
    feedback: Feedback = "bandit",
    block: int = 0,
) -> Trajectory:
    """Draws `num_scenarios` scenarios and plays each of them `num_rollouts` times.

    Args:
      agent: who plays.
      environment: the distribution over problems.
      keys: one key per purpose. The same keys give the same problems and the same rewards to any agent.
      horizon: rounds T.
      num_scenarios: M.
      num_rollouts: L.
      branch_rounds: `[M]` per scenario, the first round from which its rollouts draw their own noise; before it they
        share policy and reward noise, so their histories are identical. None: they are independent throughout.
      shared_reward_noise: whether the rollouts of a scenario see the same reward noise in every round.
      arm_mask: `[K]` true where the arm exists. None: all do.
      feedback: what the agent sees after a round, `R_t(a_t)` or the vector `R_t`.
      block: trajectories stepped together, which bounds memory; the result does not depend on it beyond rounding.
        0 chooses 256 on CPU, where a block stays in cache, and everything at once elsewhere.

    Returns:
      Trajectories with batch axes `[M, L]`.

    Raises:
      ConfigError: if the agent cannot use the feedback.
    """
    require_feedback(agent, feedback)
    mask = jnp.ones(environment.num_arms, bool) if arm_mask is None else arm_mask
    branches = jnp.zeros(num_scenarios, jnp.int32) if branch_rounds is None else branch_rounds

    def play_scenario(inputs: tuple[Int[Array, ""], Int[Array, ""]]) -> Trajectory:
        index, branch_round = inputs
        scenario = environment.reset(jax.random.fold_in(keys.scenario, index), mask, horizon)
        policy_key = jax.random.fold_in(keys.policy, index)
        reward_key = jax.random.fold_in(keys.reward, index)
        reward_split = jnp.asarray(horizon) if shared_reward_noise else branch_round

        def play(rollout_index: Int[Array, ""]) -> Trajectory:
            policy_noise = NoiseStream.create(policy_key, rollout_index, branch_round)
            reward_noise = NoiseStream.create(reward_key, rollout_index, reward_split)
            return rollout(agent, environment, scenario, policy_noise, reward_noise, mask, horizon, feedback)

        return jax.vmap(play)(jnp.arange(num_rollouts))

    if block == 0:
        block = 256 if jax.default_backend() == "cpu" else num_scenarios * num_rollouts
    scenarios_per_block = min(num_scenarios, max(1, block // num_rollouts))
    return jax.lax.map(play_scenario, (jnp.arange(num_scenarios), branches), batch_size=scenarios_per_block)
