"""The numerical Transformer as an agent, under bandit feedback and under full information."""

import abc
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.agents.base import TrainedAgent
from rmft_jax.agents.network import NetworkSettings, NumericalTransformer, empty_cache, graph_definition
from rmft_jax.agents.policy import require_built_for, resized
from rmft_jax.config import Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.checks import require
from rmft_jax.problems import DecisionMap, Feedback, Problem, Softmax
from rmft_jax.problems.types import Context, Decision, Reward, Trajectory

_A = TypeVar("_A", bound="TransformerAgent")


@pytree
class TokenState:
    """What a network that reads a token per round carries from round to round.

    memory: any pytree; of a Transformer, per layer the keys and values of the rounds played.
    token: `[I]` input of the coming round; `[K, I]` where arms have tokens of their own.
    """

    memory: Any
    token: Float[Array, "*K I"]


@pytree
class TransformerAgent(abc.ABC):
    """What both Transformers share: the network, its tokens and its cache.

    A token holds what was seen in the round before, of all arms or of its own, and a last number that is 1 only in the
    first round, before which nothing was.

    config, num_arms, trained_horizon: fix the network's shapes. With `config.arms == "token"` the arm count does not:
      it is the one trained with, and any other can be played.
    params: its parameters, as plain nested dicts.
    """

    feedback: ClassVar[tuple[Feedback, ...]]

    config: NetworkSettings = static_field()
    num_arms: int = static_field()
    trained_horizon: int = static_field()
    params: Params

    @classmethod
    def create(cls: type[_A], key: ScalarKey, config: NetworkSettings, num_arms: int, horizon: int) -> _A:
        """An agent with random weights."""
        network = NumericalTransformer(config, cls._token_size(config, num_arms), num_arms, horizon, rngs=nnx.Rngs(key))
        return cls(config, num_arms, horizon, nnx.to_pure_dict(nnx.split(network)[1]))

    @classmethod
    def _token_size(cls, config: NetworkSettings, num_arms: int) -> int:
        return num_told(cls.feedback[0]) * (1 if config.arms == "token" else num_arms) + 1

    @property
    def _network(self) -> NumericalTransformer:
        size = self._token_size(self.config, self.num_arms)
        return nnx.merge(graph_definition(self.config, size, self.num_arms, self.trained_horizon), self.params)

    def _token(self, seen: Float[Array, "F K"], first: float) -> Float[Array, "*K I"]:
        if self.config.arms == "token":
            return jnp.concatenate([seen, jnp.full((1, seen.shape[1]), first)]).T
        return jnp.append(seen, first)

    def _start_token(self, num_arms: int) -> Float[Array, "*K I"]:
        return self._token(jnp.zeros((num_told(self.feedback[0]), num_arms)), 1.0)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        horizon, num_arms = trajectory.probabilities.shape
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards
        seen = told(trajectory.actions[:-1], rewards[:-1], num_arms, self.feedback[0])
        past = jax.vmap(self._token, in_axes=(0, None))(seen, 0.0)
        tokens = jnp.concatenate([self._start_token(num_arms)[None], past])
        # Rounds stand beside what they hold: [T, I] or [K, T, I].
        tokens = jnp.moveaxis(tokens, 0, -2)
        caches = empty_cache(self.config, num_arms, horizon)
        outputs, _ = self._network(tokens, caches, 0, trajectory.arm_mask)
        return jnp.where(trajectory.arm_mask[None, :], outputs, -jnp.inf)

    def init(self, num_arms: int, horizon: int) -> TokenState:
        """An empty cache and the start token.

        Raises:
          ConfigError: if the arm count is not the network's, and it is not made for any; or if a learned position
            encoding is too short.
        """
        if self.config.arms == "one_hot":
            suggestion = "masking absent arms, or training with arms='token', which plays any number"
            require_built_for(self.num_arms, num_arms, suggestion)
        self._require_horizon(horizon)
        return TokenState(empty_cache(self.config, num_arms, horizon), self._start_token(num_arms))

    def grow(self, state: TokenState, horizon: int) -> TokenState:
        """The same caches with room for `horizon` rounds.

        Raises:
          ConfigError: if a learned position encoding is too short.
        """
        self._require_horizon(horizon)
        caches = jax.tree.map(lambda rows: resized(rows, (*rows.shape[:-2], horizon, rows.shape[-1])), state.memory)
        return TokenState(caches, state.token)

    def _require_horizon(self, horizon: int) -> None:
        known = self.config.position != "learned" or horizon <= self.trained_horizon
        need = f"horizon <= {self.trained_horizon}, the rounds that the learned position encoding knows"
        require(known, f"horizon={horizon}", need, "training with position='none', 'sinusoidal' or 'alibi'")

    def act(self, key: ScalarKey, state: TokenState, context: Context) -> tuple[Decision, TokenState]:
        """Feeds the pending token through the network and decides."""
        tokens = jnp.expand_dims(state.token, -2)
        outputs, caches = self._network(tokens, state.memory, context.round, context.arm_mask)
        outputs = jnp.where(context.arm_mask, outputs[0], -jnp.inf)
        return self._decide(key, outputs, context.arm_mask), TokenState(caches, state.token)

    @abc.abstractmethod
    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        """From the network's outputs of one round, -inf for absent arms, to a decision."""

    def observe(self, state: TokenState, action: Int[Array, ""], reward: Reward, context: Context) -> TokenState:
        """Makes what was seen the token of the next round."""
        seen = told(action, reward, context.arm_mask.shape[0], self.feedback[0])
        return TokenState(state.memory, self._token(seen, 0.0))


@pytree
class BanditTransformer(TransformerAgent):
    """A Transformer under bandit feedback: it sees its last action and reward, and emits logits.

    temperature: actions are drawn from softmax(logits / temperature).
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    temperature: Number = 1.0

    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        logits = outputs / self.temperature
        return Decision(action=jax.random.categorical(key, logits), probabilities=jax.nn.softmax(logits))


@pytree
class FullInformationTransformer(TransformerAgent):
    """A Transformer under full information: it sees the last reward vector, and emits scores `z_t`.

    score_map: what it plays at given scores.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)

    score_map: DecisionMap = Softmax(0.0)

    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        return self.score_map.decide(key, outputs, arm_mask)


def num_told(feedback: Feedback) -> int:
    """Numbers that a round tells of an arm."""
    return 1 if feedback == "full" else 2


def told(
    action: Int[Array, "*W"], reward: Float[Array, "..."], num_arms: int, feedback: Feedback
) -> Float[Array, "*W F K"]:
    """What a round tells of each arm: the last action as a one-hot vector and its reward, or the reward vector."""
    if feedback == "full":
        return reward[..., None, :]
    played = jax.nn.one_hot(action, num_arms)
    return jnp.stack([played, played * reward[..., None]], axis=-2)


@NetworkSettings.register("transformer")
class Transformer(NetworkSettings):
    """The numerical Transformer: pre-norm, causal, numbers in and one number per arm out."""

    paddable: ClassVar[bool] = True

    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """Random weights."""
        kind = FullInformationTransformer if problem.feedback == "full" else BanditTransformer
        return kind.create(key, self, problem.num_arms, problem.horizon).params

    def make_agent(
        self, params: Params, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TrainedAgent:
        if problem.feedback == "full":
            return FullInformationTransformer(self, problem.num_arms, problem.horizon, params, decision_map)
        return BanditTransformer(self, problem.num_arms, problem.horizon, params, temperature)

    @property
    def any_num_arms(self) -> bool:
        """With a token per arm."""
        return self.arms == "token"

    @property
    def any_horizon(self) -> bool:
        """Unless positions are learned."""
        return self.position != "learned"

    def _laid_out(self, params: Params, before: Problem, after: Problem) -> Params:
        """See `Policy`. A token lists the features arm by arm, so its new rows stand in between."""

        def fit(path: Any, leaf: Float[Any, "..."], new: jax.ShapeDtypeStruct) -> Float[Any, "..."]:
            if jax.tree_util.keystr(path) == "['embed']['kernel']" and leaf.shape != new.shape:
                features = leaf[:-1].reshape(-1, before.num_arms, leaf.shape[1])
                features = resized(features, (len(features), after.num_arms, leaf.shape[1]))
                return jnp.concatenate([features.reshape(-1, leaf.shape[1]), leaf[-1:]])  # The start marker's row.
            return resized(leaf, new.shape)

        shapes = jax.eval_shape(lambda: self.init_params(jax.random.key(0), after))
        return jax.tree_util.tree_map_with_path(fit, params, shapes)

    def round_flops(self, problem: Problem) -> float:
        """A multiplication and an addition count as two; attention reads the whole cache."""
        num_arms, width = problem.num_arms, self.width
        block = 2 * (4 + 2 * self.mlp_ratio) * width**2 + 4 * width * problem.horizon
        if self.arms == "token":
            return num_arms * self.num_layers * (block + 8 * width**2 + 4.0 * width * num_arms)
        return self.num_layers * block + 6.0 * num_arms * width
