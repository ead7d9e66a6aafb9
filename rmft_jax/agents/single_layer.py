"""The theory's model: one layer of self-attention with a constant query over the past reward vectors.

Its scores are `z_t = sum_{i<t} w_i (V R_i + v)`, where round i scores `s_i = (K R_i + kappa)'(Q c + q)`. Linear
attention weighs it by `w_i = s_i`, softmax attention by `w_i = exp(s_i) / sum_{j<t} exp(s_j)`. Because the query is
constant, a weight never changes but for its normalization: both forms need a memory of fixed size, at any horizon.

With `K = 0`, `v = 0` and `b = kappa'(Q c + q)`, linear attention is `z_t = b V S_{t-1}`, `S_t = sum_{i<=t} R_i`: the
state of follow-the-regularized-leader (see theory/README.md).
"""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from rmft_jax.agents.base import Number
from rmft_jax.agents.scores import ScoreMap
from rmft_jax.config import ConfigError, Feedback, SingleLayerConfig
from rmft_jax.types import Context, Decision, Params, ScalarKey, Trajectory, pytree, static_field

_A = TypeVar("_A", bound="SingleLayerAgent")


class SingleLayerAttention(nnx.Module):
    """The parameters, by their names in the formula: V, v, K, kappa, Q, q and the constant token c."""

    def __init__(self, num_arms: int, key_size: int):
        first = jax.nn.one_hot(0, key_size)
        self.V = nnx.Param(jnp.zeros((num_arms, num_arms)))
        self.v = nnx.Param(jnp.zeros(num_arms))
        self.K = nnx.Param(jnp.zeros((key_size, num_arms)))
        self.kappa = nnx.Param(first)
        self.Q = nnx.Param(jnp.eye(key_size))
        self.q = nnx.Param(jnp.zeros(key_size))
        self.c = nnx.Param(first)

    def __call__(self, seen: Float[Array, "K"]) -> tuple[Float[Array, ""], Float[Array, "K"]]:
        """Score and value of one past round."""
        score = jnp.dot(self.K[...] @ seen + self.kappa[...], self.Q[...] @ self.c[...] + self.q[...])
        return score, self.V[...] @ seen + self.v[...]


@functools.cache
def _graph_definition(num_arms: int, key_size: int) -> Any:
    return nnx.split(nnx.eval_shape(lambda: SingleLayerAttention(num_arms, key_size)))[0]


@pytree
class AttentionMemory:
    """All that the past is to a constant query.

    total: `[K]` sum of the weighted values; under softmax attention relative to the largest score.
    weight: `[]` sum of the weights, likewise; 0 before the first round.
    largest: `[]` largest score so far. Linear attention uses neither of the last two.
    probabilities: `[K]` the policy of the pending round, which bandit feedback is weighted with.
    """

    total: Float[Array, "K"]
    weight: Float[Array, ""]
    largest: Float[Array, ""]
    probabilities: Float[Array, "K"]


@pytree
class SingleLayerAgent(abc.ABC):
    """Single-layer self-attention with a constant query, linear or softmax, that emits scores `z_t`.

    config, num_arms: fix the parameters' shapes. Its noise at the start is a number, and so no part of the structure.
    params: as plain dict: V `[K, K]`, v `[K]`, K `[d, K]`, kappa `[d]`, Q `[d, d]`, q `[d]`, c `[d]`, d the key size.
    score_map: what it plays at given scores.
    """

    feedback: ClassVar[tuple[Feedback, ...]]

    config: SingleLayerConfig
    num_arms: int = static_field()
    params: Params
    score_map: ScoreMap = ScoreMap()

    @classmethod
    def create(cls: type[_A], key: ScalarKey, config: SingleLayerConfig, num_arms: int) -> _A:
        """The agent at its start; `key` matters only where `init_std` is above 0."""
        start = nnx.to_pure_dict(nnx.split(SingleLayerAttention(num_arms, config.key_size))[1])
        noise = optax.tree.random_like(key, start)
        return cls(config, num_arms, jax.tree.map(lambda x, n: x + config.init_std * n, start, noise))

    @staticmethod
    @abc.abstractmethod
    def _seen(
        action: Int[Array, "*T"], reward: Float[Array, "..."], probabilities: Float[Array, "*T K"]
    ) -> Float[Array, "*T K"]:
        """The reward vectors that are attended to."""

    @property
    def value(self) -> Float[Array, "K K"]:
        """The value matrix V."""
        return self.params["V"]

    def with_value(self: _A, value: Float[Array, "K K"]) -> _A:
        """The agent with another value matrix V."""
        return dataclasses.replace(self, params={**self.params, "V": value})

    def features(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """The attention-weighted sums of what was seen, `F_t`, before each round: `z_t = V F_t` where `v = 0`."""
        params = {**self.params, "v": jnp.zeros(self.num_arms)}
        return dataclasses.replace(self, params=params).with_value(jnp.eye(self.num_arms))._scores(trajectory)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """The scores in every round of a given trajectory, teacher-forced; -inf for absent arms.

        Row t depends on what was seen in rounds before t only.
        """
        agent = self
        if self.config.trained == "value":
            frozen = jax.tree.map(jax.lax.stop_gradient, self.params)
            agent = dataclasses.replace(self, params={**frozen, "V": self.value})
        return jnp.where(trajectory.arm_mask[None, :], agent._scores(trajectory), -jnp.inf)

    def init(self, num_arms: int, horizon: int) -> AttentionMemory:
        """An empty memory; its size does not depend on the horizon.

        Raises:
          ConfigError: if the arm count is not the model's.
        """
        del horizon
        if num_arms != self.num_arms:
            raise ConfigError(
                f"got num_arms={num_arms}, need num_arms={self.num_arms}, for which the model was built; "
                "try masking absent arms instead"
            )
        zeros = jnp.zeros(num_arms)
        return AttentionMemory(zeros, jnp.zeros(()), jnp.full((), -jnp.inf), zeros)

    def act(self, key: ScalarKey, state: AttentionMemory, context: Context) -> tuple[Decision, AttentionMemory]:
        """Decides by the scores that the memory holds."""
        decision = self.score_map.decide(key, self._read(state), context.arm_mask)
        return decision, dataclasses.replace(state, probabilities=decision.probabilities)

    def observe(
        self,
        state: AttentionMemory,
        action: Int[Array, ""],
        reward: Float[Array, ""] | Float[Array, "K"],
        context: Context,
    ) -> AttentionMemory:
        """Adds the rewards of all arms, or their importance-weighted estimate, to the memory."""
        del context
        return self._absorb(state, self._seen(action, reward, state.probabilities))

    def _scores(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        def step(state: AttentionMemory, seen: Float[Array, "K"]) -> tuple[AttentionMemory, Float[Array, "K"]]:
            return self._absorb(state, seen), self._read(state)

        start = self.init(self.num_arms, trajectory.actions.shape[-1])
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards
        return jax.lax.scan(step, start, self._seen(trajectory.actions, rewards, trajectory.probabilities))[1]

    def _read(self, state: AttentionMemory) -> Float[Array, "K"]:
        if self.config.attention == "linear":
            return state.total
        return state.total / jnp.where(state.weight > 0, state.weight, 1.0)

    def _absorb(self, state: AttentionMemory, seen: Float[Array, "K"]) -> AttentionMemory:
        score, value = nnx.merge(_graph_definition(self.num_arms, self.config.key_size), self.params)(seen)
        if self.config.attention == "linear":
            return dataclasses.replace(state, total=state.total + score * value)
        # Relative to the largest score, no exponential overflows and the newest or the largest weight is 1.
        largest = jnp.maximum(state.largest, jax.lax.stop_gradient(score))
        kept, added = jnp.exp(state.largest - largest), jnp.exp(score - largest)
        total, weight = kept * state.total + added * value, kept * state.weight + added
        return dataclasses.replace(state, total=total, weight=weight, largest=largest)


@pytree
class FullInformationSingleLayer(SingleLayerAgent):
    """Attends to the reward vectors."""

    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)

    @classmethod
    def ftrl(cls, num_arms: int, step: Number, score_map: ScoreMap) -> "FullInformationSingleLayer":
        """`z_t = step S_{t-1}`: follow-the-regularized-leader with `|x|^2 / (2 step)`, or Hedge under softmax."""
        agent = cls.create(jax.random.key(0), SingleLayerConfig(key_size=1), num_arms)
        return dataclasses.replace(agent.with_value(step * jnp.eye(num_arms)), score_map=score_map)

    @staticmethod
    def _seen(
        action: Int[Array, "*T"], reward: Float[Array, "*T K"], probabilities: Float[Array, "*T K"]
    ) -> Float[Array, "*T K"]:
        del action, probabilities
        return reward


@pytree
class BanditSingleLayer(SingleLayerAgent):
    """Attends to importance-weighted estimates of the reward vectors.

    They are `R_t(a_t) / pi_t(a_t)` at the arm that was played and 0 elsewhere, and unbiased (Auer et al. 2002).
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    @staticmethod
    def _seen(
        action: Int[Array, "*T"], reward: Float[Array, "*T"], probabilities: Float[Array, "*T K"]
    ) -> Float[Array, "*T K"]:
        played = jax.nn.one_hot(action, probabilities.shape[-1])
        return played * reward[..., None] / jnp.where(played > 0, probabilities, 1.0)
