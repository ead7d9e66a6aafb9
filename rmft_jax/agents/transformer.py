"""The numerical Transformer as an agent, under bandit feedback and under full information."""

import abc
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.agents.network import LayerCache, NumericalTransformer, empty_cache, graph_definition
from rmft_jax.agents.scores import ScoreMap
from rmft_jax.config import ConfigError, Feedback, TransformerConfig
from rmft_jax.types import Context, Decision, Params, ScalarKey, Trajectory, pytree, static_field

_A = TypeVar("_A", bound="TransformerAgent")


@pytree
class TransformerState:
    """What a Transformer carries from round to round.

    caches: per layer, keys and values of the rounds played.
    token: `[I]` input of the coming round.
    """

    caches: list[LayerCache]
    token: Float[Array, "I"]


@pytree
class TransformerAgent(abc.ABC):
    """What both Transformers share: the network, its tokens and its cache.

    A token holds what was seen in the round before, and a last number that is 1 only in the first round, before which
    nothing was.

    config, num_arms, trained_horizon: fix the network's shapes.
    params: its parameters, as plain nested dicts.
    """

    feedback: ClassVar[tuple[Feedback, ...]]

    config: TransformerConfig = static_field()
    num_arms: int = static_field()
    trained_horizon: int = static_field()
    params: Params

    @classmethod
    def create(cls: type[_A], key: ScalarKey, config: TransformerConfig, num_arms: int, horizon: int) -> _A:
        """An agent with random weights."""
        network = NumericalTransformer(config, cls.token_size(num_arms), num_arms, horizon, rngs=nnx.Rngs(key))
        return cls(config, num_arms, horizon, nnx.to_pure_dict(nnx.split(network)[1]))

    @staticmethod
    @abc.abstractmethod
    def token_size(num_arms: int) -> int:
        """Numbers per token."""

    @staticmethod
    @abc.abstractmethod
    def token_places(num_arms: int, larger: int) -> Int[np.ndarray, "I"]:
        """Where the numbers of a token stand in that of a network for more arms."""

    @abc.abstractmethod
    def _seen(self, action: Int[Array, "*W"], reward: Float[Array, "..."]) -> Float[Array, "*W I_1"]:
        """The token of what was seen in a round, without its last number."""

    @property
    def _network(self) -> NumericalTransformer:
        size = self.token_size(self.num_arms)
        return nnx.merge(graph_definition(self.config, size, self.num_arms, self.trained_horizon), self.params)

    @property
    def _start_token(self) -> Float[Array, "I"]:
        size = self.token_size(self.num_arms)
        return jax.nn.one_hot(size - 1, size)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """The network's outputs in every round of a given trajectory, teacher-forced; -inf for absent arms.

        Row t depends on what was seen in rounds before t only.
        """
        rewards = trajectory.reward_table if self.feedback == ("full",) else trajectory.rewards
        seen = self._seen(trajectory.actions[:-1], rewards[:-1])
        past = jnp.concatenate([seen, jnp.zeros_like(seen[:, :1])], axis=-1)
        tokens = jnp.concatenate([self._start_token[None], past])
        outputs, _ = self._network(tokens, empty_cache(self.config, tokens.shape[0]), 0)
        return jnp.where(trajectory.arm_mask[None, :], outputs, -jnp.inf)

    def init(self, num_arms: int, horizon: int) -> TransformerState:
        """An empty cache and the start token.

        Raises:
          ConfigError: if the arm count is not the network's, or a learned position encoding is too short.
        """
        if num_arms != self.num_arms:
            raise ConfigError(
                f"got num_arms={num_arms}, need num_arms={self.num_arms}, for which the network was built; "
                "try masking absent arms instead"
            )
        if self.config.position == "learned" and horizon > self.trained_horizon:
            raise ConfigError(
                f"got horizon={horizon}, need horizon <= {self.trained_horizon}, the rounds that the learned "
                "position encoding knows; try training with position='none' or 'sinusoidal'"
            )
        return TransformerState(caches=empty_cache(self.config, horizon), token=self._start_token)

    def act(self, key: ScalarKey, state: TransformerState, context: Context) -> tuple[Decision, TransformerState]:
        """Feeds the pending token through the network and decides."""
        outputs, caches = self._network(state.token[None], state.caches, context.round)
        outputs = jnp.where(context.arm_mask, outputs[0], -jnp.inf)
        return self._decide(key, outputs, context.arm_mask), TransformerState(caches=caches, token=state.token)

    @abc.abstractmethod
    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        """From the network's outputs of one round, -inf for absent arms, to a decision."""

    def observe(
        self,
        state: TransformerState,
        action: Int[Array, ""],
        reward: Float[Array, ""] | Float[Array, "K"],
        context: Context,
    ) -> TransformerState:
        """Makes what was seen the token of the next round."""
        del context
        token = jnp.append(self._seen(action, reward), 0.0)
        return TransformerState(caches=state.caches, token=token)


@pytree
class BanditTransformer(TransformerAgent):
    """A Transformer under bandit feedback: it sees its last action and reward, and emits logits.

    temperature: actions are drawn from softmax(logits / temperature).
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    temperature: Float[Array, ""] | float = 1.0

    @staticmethod
    def token_size(num_arms: int) -> int:
        """Numbers per token."""
        return 2 * num_arms + 1

    @staticmethod
    def token_places(num_arms: int, larger: int) -> Int[np.ndarray, "I"]:
        """Where the numbers of a token stand in that of a network for more arms."""
        return np.r_[:num_arms, larger : larger + num_arms, 2 * larger]

    def _seen(self, action: Int[Array, "*W"], reward: Float[Array, "*W"]) -> Float[Array, "*W I_1"]:
        # The last action as a one-hot vector, then the last reward at the place of that arm.
        played = jax.nn.one_hot(action, self.num_arms)
        return jnp.concatenate([played, played * reward[..., None]], axis=-1)

    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        del arm_mask
        logits = outputs / self.temperature
        return Decision(action=jax.random.categorical(key, logits), probabilities=jax.nn.softmax(logits))


@pytree
class FullInformationTransformer(TransformerAgent):
    """A Transformer under full information: it sees the last reward vector, and emits scores `z_t`.

    score_map: what it plays at given scores.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)

    score_map: ScoreMap = ScoreMap()

    @staticmethod
    def token_size(num_arms: int) -> int:
        """Numbers per token."""
        return num_arms + 1

    @staticmethod
    def token_places(num_arms: int, larger: int) -> Int[np.ndarray, "I"]:
        """Where the numbers of a token stand in that of a network for more arms."""
        return np.r_[:num_arms, larger]

    def _seen(self, action: Int[Array, "*W"], reward: Float[Array, "*W K"]) -> Float[Array, "*W I_1"]:
        del action
        return reward

    def _decide(self, key: ScalarKey, outputs: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        return self.score_map.decide(key, outputs, arm_mask)
