"""Any network that reads a token per round and carries a memory, as a policy: what users' networks derive from."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rmft_jax.agents.base import TrainedAgent
from rmft_jax.agents.policy import Policy, require_built_for
from rmft_jax.agents.transformer import TokenState, num_told, told
from rmft_jax.config import Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.checks import require
from rmft_jax.problems import DecisionMap, Feedback, Problem
from rmft_jax.problems.types import Context, Decision, Reward, Trajectory


class RecurrentPolicy(Policy):
    """A Flax NNX module that maps a memory and a token to the next memory and an output per arm.

    The token `[I]` holds what was seen in the round before: under bandit feedback the last action as a one-hot vector
    and the last reward at its place, under full information the last reward vector; and a last number that is 1 only
    in the first round.
    """

    @abc.abstractmethod
    def network(self, token_size: int, num_arms: int, rngs: nnx.Rngs) -> nnx.Module:
        """The network, called as `network(memory, token) -> (memory, outputs)` with `outputs` of shape `[K]`."""

    @abc.abstractmethod
    def memory(self) -> Any:
        """The memory before the first round, any pytree of arrays."""

    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """The network's parameters, as plain nested dicts."""
        return nnx.to_pure_dict(nnx.state(self._built(nnx.Rngs(key), problem.num_arms, problem.feedback), nnx.Param))

    def make_agent(
        self, params: Params, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TrainedAgent:
        agent: Any = RecurrentAgent(self, problem.num_arms, (problem.feedback,), params, decision_map, temperature)
        return agent

    def _built(self, rngs: nnx.Rngs, num_arms: int, feedback: Feedback) -> Any:
        return self.network(len(_start_token(num_arms, feedback)), num_arms, rngs)


@pytree
class RecurrentAgent:
    """A `RecurrentPolicy` with its parameters.

    policy, num_arms, feedback: fix the network's shapes.
    params: as plain nested dicts.
    decision_map: what it plays at given scores, under full information.
    temperature: `[]` under bandit feedback, actions are drawn from softmax(logits / temperature).
    """

    policy: RecurrentPolicy
    num_arms: int = static_field()
    feedback: tuple[Feedback, ...] = static_field()
    params: Params
    decision_map: DecisionMap
    temperature: Number = 1.0

    def init(self, num_arms: int, horizon: int) -> TokenState:
        """The memory and the start token.

        Raises:
          ConfigError: if the arm count is not the network's.
        """
        require_built_for(self.num_arms, num_arms)
        return TokenState(self.policy.memory(), _start_token(num_arms, self.feedback[0]))

    def act(self, key: ScalarKey, state: TokenState, context: Context) -> tuple[Decision, TokenState]:
        """Feeds the pending token through the network and decides."""
        memory, outputs = self._step(state)
        if self.feedback == ("full",):
            decision = self.decision_map.decide(key, outputs, context.arm_mask)
        else:
            logits = jnp.where(context.arm_mask, outputs, -jnp.inf) / self.temperature
            decision = Decision(jax.random.categorical(key, logits), jax.nn.softmax(logits))
        return decision, TokenState(memory, state.token)

    def observe(self, state: TokenState, action: Int[Array, ""], reward: Reward, context: Context) -> TokenState:
        """Makes what was seen the token of the next round."""
        return TokenState(state.memory, self._token(action, reward))

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards

        def step(state: TokenState, seen: Any) -> tuple[TokenState, Float[Array, "K"]]:
            memory, outputs = self._step(state)
            action, reward = seen
            return TokenState(memory, self._token(action, reward)), outputs

        start = self.init(self.num_arms, trajectory.actions.shape[0])
        outputs = jax.lax.scan(step, start, (trajectory.actions, rewards))[1]
        return jnp.where(trajectory.arm_mask[None, :], outputs, -jnp.inf)

    def _step(self, state: TokenState) -> tuple[Any, Float[Array, "K"]]:
        network = self.policy._built(nnx.Rngs(0), self.num_arms, self.feedback[0])
        nnx.update(network, self.params)
        memory, outputs = network(state.memory, state.token)
        shape, expected = jnp.shape(outputs), (self.num_arms,)
        got = f"outputs of shape {shape} from the network of {type(self.policy).__name__}"
        require(shape == expected, got, f"one per arm, {expected}", "a last layer of num_arms outputs")
        return memory, outputs

    def _token(self, action: Int[Array, ""], reward: Reward) -> Float[Array, "I"]:
        return jnp.append(told(action, reward, self.num_arms, self.feedback[0]), 0.0)


def _start_token(num_arms: int, feedback: Feedback) -> Float[Array, "I"]:
    return jnp.append(jnp.zeros(num_told(feedback) * num_arms), 1.0)
