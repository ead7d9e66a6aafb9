"""Any network that reads a token per round and carries a memory, as a policy: what users' networks derive from."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rmft_jax.agents.base import TrainedAgent
from rmft_jax.agents.policy import Policy
from rmft_jax.agents.transformer import told
from rmft_jax.config import ConfigError, Number, Params, ScalarKey, pytree, static_field
from rmft_jax.problems import Context, Decision, DecisionMap, Feedback, Problem, Trajectory


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

    def with_params(self, params: Params, num_arms: int, feedback: Feedback) -> Any:
        """The network with these parameters."""
        network = self._built(nnx.Rngs(0), num_arms, feedback)
        nnx.update(network, params)
        return network

    def _built(self, rngs: nnx.Rngs, num_arms: int, feedback: Feedback) -> nnx.Module:
        return self.network(len(_token(None, None, num_arms, feedback)), num_arms, rngs)


@pytree
class RecurrentState:
    """What is carried from round to round: the network's memory, and the token `[I]` of the coming round."""

    memory: Any
    token: Float[Array, "I"]


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

    def init(self, num_arms: int, horizon: int) -> RecurrentState:
        """The memory and the start token.

        Raises:
          ConfigError: if the arm count is not the network's.
        """
        del horizon
        if num_arms != self.num_arms:
            raise ConfigError(
                f"got num_arms={num_arms}, need num_arms={self.num_arms}, for which the network was built; "
                "try masking absent arms instead"
            )
        return RecurrentState(self.policy.memory(), _token(None, None, num_arms, self.feedback[0]))

    def act(self, key: ScalarKey, state: RecurrentState, context: Context) -> tuple[Decision, RecurrentState]:
        """Feeds the pending token through the network and decides."""
        memory, outputs = self._step(state)
        if self.feedback == ("full",):
            decision = self.decision_map.decide(key, outputs, context.arm_mask)
        else:
            logits = jnp.where(context.arm_mask, outputs, -jnp.inf) / self.temperature
            decision = Decision(jax.random.categorical(key, logits), jax.nn.softmax(logits))
        return decision, RecurrentState(memory, state.token)

    def observe(
        self,
        state: RecurrentState,
        action: Int[Array, ""],
        reward: Float[Array, ""] | Float[Array, "K"],
        context: Context,
    ) -> RecurrentState:
        """Makes what was seen the token of the next round."""
        del context
        return RecurrentState(state.memory, _token(action, reward, self.num_arms, self.feedback[0]))

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """The network's outputs in every round of a given trajectory; -inf for absent arms."""
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards

        def step(state: RecurrentState, seen: Any) -> tuple[RecurrentState, Float[Array, "K"]]:
            memory, outputs = self._step(state)
            action, reward = seen
            return RecurrentState(memory, _token(action, reward, self.num_arms, self.feedback[0])), outputs

        start = self.init(self.num_arms, trajectory.actions.shape[0])
        outputs = jax.lax.scan(step, start, (trajectory.actions, rewards))[1]
        return jnp.where(trajectory.arm_mask[None, :], outputs, -jnp.inf)

    def _step(self, state: RecurrentState) -> tuple[Any, Float[Array, "K"]]:
        network = self.policy.with_params(self.params, self.num_arms, self.feedback[0])
        memory, outputs = network(state.memory, state.token)
        if jnp.shape(outputs) != (self.num_arms,):
            raise ConfigError(
                f"got outputs of shape {jnp.shape(outputs)} from the network of {type(self.policy).__name__}, "
                f"need one per arm, ({self.num_arms},); try a last layer of num_arms outputs"
            )
        return memory, outputs


def _token(action: Any, reward: Any, num_arms: int, feedback: Feedback) -> Float[Array, "I"]:
    """What was seen in a round; before the first, where nothing was, zeros and a 1."""
    if action is None:
        features = num_arms if feedback == "full" else 2 * num_arms
        return jnp.append(jnp.zeros(features), 1.0)
    return jnp.append(told(action, reward, num_arms, feedback), 0.0)
