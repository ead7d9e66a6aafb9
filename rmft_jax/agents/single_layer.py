"""The theory's model: one layer of self-attention with a constant query over the past reward vectors.

Its scores are `z_t = sum_{i<t} w_i (V R_i + v)`, where round i scores `s_i = (K R_i + kappa)'(Q c + q)`. Linear
attention weighs it by `w_i = s_i`, softmax attention by `w_i = exp(s_i) / sum_{j<t} exp(s_j)`, and anytime attention by
`w_i = s_i / sqrt(t)`, which needs no horizon to have no regret. Because the query is constant, a weight never changes
but for its normalization: all forms need a memory of fixed size, at any horizon.

With `K = 0`, `v = 0` and `b = kappa'(Q c + q)`, linear attention is `z_t = b V S_{t-1}`, `S_t = sum_{i<=t} R_i`: the
state of follow-the-regularized-leader (see theory/README.md).
"""

import abc
import dataclasses
from typing import ClassVar, Literal, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rmft_jax.agents.base import TrainedAgent
from rmft_jax.agents.policy import Policy, require_built_for
from rmft_jax.config import Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.checks import require, require_count, require_number
from rmft_jax.problems import Ball, DecisionMap, Feedback, Problem, Softmax
from rmft_jax.problems.projections import project_ball_metric
from rmft_jax.problems.types import Context, Decision, Reward, Trajectory

_A = TypeVar("_A", bound="SingleLayerAgent")
Attention = Literal["linear", "softmax", "anytime"]


@Policy.register("single_layer")
class SingleLayer(Policy):
    """The theory's model: one layer of self-attention with a constant query over the past reward vectors.

    It starts as `z_t = V S_{t-1}` with V = 0 under linear attention, as V times the mean reward under softmax
    attention, and as `V S_{t-1} / sqrt(t)` under anytime attention: K = 0, v = 0, and all scores equal to 1.
    """

    attention: Attention = "linear"
    """Weights of past rounds before round t: the scores themselves, their softmax, or (`anytime`) scores / sqrt(t)."""
    key_size: int = 8
    """Size of keys and queries."""
    trained: Literal["value", "all"] = "value"
    """What gradient steps change: the value matrix V alone, as in the theorems, or every parameter."""
    init_std: float = 0.0
    """Standard deviation of Gaussian noise added to every parameter at the start; 0 is the theorems' start."""
    play: Literal["euclidean", "metric"] = "euclidean"
    """How the trained policy plays in a ball: the point nearest to the scores, or (`metric`) the nearest one in the
    norm that V sets, which has a regret bound on every sequence, whatever the sampling errors of V."""

    paddable: ClassVar[bool] = True

    def validate(self) -> None:
        super().validate()
        require_count(self.key_size, "key_size", 1, 8)
        require_number(self.init_std, "init_std", "of at least 0", self.init_std >= 0, 0.0)
        ok = self.play == "euclidean" or (self.trained == "value" and self.init_std == 0)
        got = f"play='metric' with trained={self.trained!r} and init_std={self.init_std}"
        require(ok, got, "scores that are V times the attended sum", "trained='value' and init_std=0")

    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """Those of the theory, the same under either feedback."""
        return FullInformationSingleLayer.create(key, self, problem.num_arms).params

    def make_agent(
        self, params: Params, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TrainedAgent:
        kind = FullInformationSingleLayer if problem.feedback == "full" else BanditSingleLayer
        agent = kind(self, problem.num_arms, params, decision_map)
        return agent.with_value((agent.value + agent.value.T) / 2) if agent.plays_metric else agent

    def validate_decision_map(self, decision_map: DecisionMap) -> None:
        require(
            self.play == "euclidean" or decision_map.name == "identity",
            f"play='metric' with decision_map={decision_map.name!r}",
            "rollouts that play the scores, and a trained policy that plays in a ball",
            "decision_map='identity'",
        )

    def has_scores(self, feedback: Feedback) -> bool:
        """Always."""
        return True

    def round_flops(self, problem: Problem) -> float:
        """A product with the value matrix, and a sum."""
        return 4.0 * problem.num_arms**2


@pytree
class AttentionMemory:
    """All that the past is to a constant query.

    total: `[K]` sum of the weighted values; under softmax attention relative to the largest score.
    weight: `[]` sum of the weights, likewise, or under anytime attention the number of rounds; 0 before the first one.
    largest: `[]` largest score so far; of softmax attention alone. Linear attention uses neither of the last two.
    probabilities: `[K]` the policy of the pending round, which bandit feedback is weighted with.
    """

    total: Float[Array, "K"]
    weight: Float[Array, ""]
    largest: Float[Array, ""]
    probabilities: Float[Array, "K"]


@pytree
class SingleLayerAgent(abc.ABC):
    """Single-layer self-attention with a constant query that emits scores `z_t`.

    config, num_arms: fix the parameters' shapes. Its noise at the start is a number, and so no part of the structure.
    params: by their names in the formula, for keys of size d: V `[K, K]`, v `[K]`, K `[d, K]`, kappa `[d]`, Q `[d, d]`,
      q `[d]`, and the constant token c `[d]`.
    score_map: what it plays at given scores.
    """

    feedback: ClassVar[tuple[Feedback, ...]]

    config: SingleLayer
    num_arms: int = static_field()
    params: Params
    score_map: DecisionMap = Softmax(0.0)

    @classmethod
    def create(cls: type[_A], key: ScalarKey, config: SingleLayer, num_arms: int) -> _A:
        """The agent at its start; `key` matters only where `init_std` is above 0."""
        first = jax.nn.one_hot(0, config.key_size)
        start = {
            "V": jnp.zeros((num_arms, num_arms)),
            "v": jnp.zeros(num_arms),
            "K": jnp.zeros((config.key_size, num_arms)),
            "kappa": first,
            "Q": jnp.eye(config.key_size),
            "q": jnp.zeros(config.key_size),
            "c": first,
        }
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

    @property
    def plays_metric(self) -> bool:
        """Whether it plays in a ball by the norm of V, which is then symmetric."""
        return self.config.play == "metric" and type(self.score_map) is Ball

    def with_value(self: _A, value: Float[Array, "K K"]) -> _A:
        """The agent with another value matrix V."""
        return dataclasses.replace(self, params={**self.params, "V": value})

    def features(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """The attention-weighted sums of what was seen, `F_t`, before each round: `z_t = V F_t` where `v = 0`."""
        params = {**self.params, "v": jnp.zeros(self.num_arms)}
        return dataclasses.replace(self, params=params).with_value(jnp.eye(self.num_arms))._scores(trajectory)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
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
        require_built_for(self.num_arms, num_arms)
        zeros = jnp.zeros(num_arms)
        return AttentionMemory(zeros, jnp.zeros(()), jnp.full((), -jnp.inf), zeros)

    def act(self, key: ScalarKey, state: AttentionMemory, context: Context) -> tuple[Decision, AttentionMemory]:
        """Decides by the scores that the memory holds."""
        scores, mask = self._read(state), context.arm_mask
        decision = self.score_map.decide(key, scores, mask)
        if self.plays_metric:
            assert isinstance(self.score_map, Ball)
            existing = jnp.where(jnp.outer(mask, mask), self.value, 0.0)
            point = project_ball_metric(jnp.where(mask, scores, 0.0), existing, self.score_map.radius)
            decision = dataclasses.replace(decision, probabilities=point)
        return decision, dataclasses.replace(state, probabilities=decision.probabilities)

    def observe(
        self, state: AttentionMemory, action: Int[Array, ""], reward: Reward, context: Context
    ) -> AttentionMemory:
        """Adds the rewards of all arms, or their importance-weighted estimate, to the memory."""
        return self._absorb(state, self._seen(action, reward, state.probabilities))

    def _scores(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        def step(state: AttentionMemory, seen: Float[Array, "K"]) -> tuple[AttentionMemory, Float[Array, "K"]]:
            return self._absorb(state, seen), self._read(state)

        start = self.init(self.num_arms, trajectory.actions.shape[-1])
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards
        return jax.lax.scan(step, start, self._seen(trajectory.actions, rewards, trajectory.probabilities))[1]

    def _read(self, state: AttentionMemory) -> Float[Array, "K"]:
        match self.config.attention:
            case "linear":
                return state.total
            case "softmax":
                return state.total / jnp.where(state.weight > 0, state.weight, 1.0)
            case "anytime":
                return state.total / jnp.sqrt(state.weight + 1)

    def _absorb(self, state: AttentionMemory, seen: Float[Array, "K"]) -> AttentionMemory:
        p = self.params
        score, value = jnp.dot(p["K"] @ seen + p["kappa"], p["Q"] @ p["c"] + p["q"]), p["V"] @ seen + p["v"]
        if self.config.attention != "softmax":
            counted = state.weight + (self.config.attention == "anytime")
            return dataclasses.replace(state, total=state.total + score * value, weight=counted)
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
    def ftrl(cls, num_arms: int, step: Number, score_map: DecisionMap) -> "FullInformationSingleLayer":
        """`z_t = step S_{t-1}`: follow-the-regularized-leader with `|x|^2 / (2 step)`, or Hedge under softmax."""
        agent = cls.create(jax.random.key(0), SingleLayer(key_size=1), num_arms)
        return dataclasses.replace(agent.with_value(step * jnp.eye(num_arms)), score_map=score_map)

    @staticmethod
    def _seen(
        action: Int[Array, "*T"], reward: Float[Array, "*T K"], probabilities: Float[Array, "*T K"]
    ) -> Float[Array, "*T K"]:
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
