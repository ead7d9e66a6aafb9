"""The numerical Transformer: numbers in, arm logits out.

Inside this file array names end in their axes: `T` all rounds of the cache, `W` the rounds of one call, `D` width,
`H` heads, `h` head size, `K` arms. Everything is written for one trajectory.
"""

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import ConfigError, TransformerConfig
from rmft_jax.types import Context, Decision, Feedback, Params, ScalarKey, pytree, static_field

# Keys and values of one layer, each [heads, T, head]: with this layout the batched dots of a vmapped rollout read
# memory in order.
LayerCache = tuple[Float[Array, "H T h"], Float[Array, "H T h"]]


def empty_cache(config: TransformerConfig, horizon: int) -> list[LayerCache]:
    """A cache for `horizon` rounds, none of them played."""
    shape = (config.num_heads, horizon, config.width // config.num_heads)
    return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(config.num_layers)]


class CausalSelfAttention(nnx.Module):
    """Multi-head causal self-attention over a cache."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        out_init = nnx.initializers.variance_scaling(0.5 / config.num_layers, "fan_in", "normal")
        self.num_heads = config.num_heads
        self.query_key_value = nnx.Linear(config.width, 3 * config.width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, use_bias=False, kernel_init=out_init, rngs=rngs)

    def __call__(
        self, x_WxD: Float[Array, "W D"], cache: LayerCache, start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "W D"], LayerCache]:
        """Writes the window into the cache at `start` and attends to everything up to each round."""
        window, width = x_WxD.shape
        qkv_Wx3Hxh = self.query_key_value(x_WxD).reshape(window, 3 * self.num_heads, -1)
        q_HxWxh, k_HxWxh, v_HxWxh = jnp.split(qkv_Wx3Hxh.swapaxes(0, 1), 3)
        k_HxTxh = jax.lax.dynamic_update_slice_in_dim(cache[0], k_HxWxh, start, axis=1)
        v_HxTxh = jax.lax.dynamic_update_slice_in_dim(cache[1], v_HxWxh, start, axis=1)
        scores_HxWxT = jnp.einsum("HWh,HTh->HWT", q_HxWxh, k_HxTxh) / math.sqrt(q_HxWxh.shape[-1])
        past_WxT = jnp.arange(k_HxTxh.shape[1])[None, :] <= start + jnp.arange(window)[:, None]
        weights_HxWxT = jax.nn.softmax(jnp.where(past_WxT[None], scores_HxWxT, -jnp.inf))
        mixed_HxWxh = jnp.einsum("HWT,HTh->HWh", weights_HxWxT, v_HxTxh)
        return self.out(mixed_HxWxh.swapaxes(0, 1).reshape(window, width)), (k_HxTxh, v_HxTxh)


class Block(nnx.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        hidden = config.mlp_ratio * config.width
        out_init = nnx.initializers.variance_scaling(0.5 / config.num_layers, "fan_in", "normal")
        self.attention_norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.attention = CausalSelfAttention(config, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.mlp_in = nnx.Linear(config.width, hidden, rngs=rngs)
        self.mlp_out = nnx.Linear(hidden, config.width, kernel_init=out_init, rngs=rngs)

    def __call__(
        self, x_WxD: Float[Array, "W D"], cache: LayerCache, start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "W D"], LayerCache]:
        """Transforms a window that begins at round `start`; returns it with the extended cache."""
        attended_WxD, cache = self.attention(self.attention_norm(x_WxD), cache, start)
        x_WxD = x_WxD + attended_WxD
        return x_WxD + self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x_WxD)))), cache


class NumericalTransformer(nnx.Module):
    """Maps the tokens of `W` consecutive rounds, behind a cache of the rounds before them, to arm logits.

    One code path serves both uses: the whole trajectory at once (`W = T`, empty cache), and one round at a time
    (`W = 1`).
    """

    def __init__(self, config: TransformerConfig, num_arms: int, horizon: int, *, rngs: nnx.Rngs):
        self.position = config.position
        self.embed = nnx.Linear(token_size(num_arms), config.width, rngs=rngs)
        if config.position == "learned":
            self.position_table = nnx.Embed(horizon, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_layers)])
        self.out_norm = nnx.LayerNorm(config.width, rngs=rngs)
        # A small last layer starts the policy near uniform, so that the first rollouts explore.
        self.out = nnx.Linear(config.width, num_arms, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)

    def __call__(
        self, tokens_WxI: Float[Array, "W I"], caches: list[LayerCache], start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "W K"], list[LayerCache]]:
        """Logits of the window that begins at round `start`, and the caches extended by it."""
        x_WxD = self.embed(tokens_WxI)
        rounds_W = start + jnp.arange(tokens_WxI.shape[0])
        if self.position == "learned":
            x_WxD = x_WxD + self.position_table(rounds_W)
        elif self.position == "sinusoidal":
            x_WxD = x_WxD + sinusoids(rounds_W, x_WxD.shape[1])
        extended = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x_WxD, new_cache = block(x_WxD, cache, start)
            extended.append(new_cache)
        return self.out(self.out_norm(x_WxD)), extended


def sinusoids(rounds: Int[Array, "W"], width: int) -> Float[Array, "W D"]:
    """Sine and cosine position encoding (Vaswani et al. 2017, section 3.5); defined for any round."""
    frequencies = jnp.exp(-math.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angles = rounds[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def token_size(num_arms: int) -> int:
    """Numbers per token: the played arm, the reward at the played arm, and the start marker."""
    return 2 * num_arms + 1


def start_token(num_arms: int) -> Float[Array, "I"]:
    """The token of the first round, before which nothing was played."""
    return jax.nn.one_hot(2 * num_arms, token_size(num_arms))


def history_token(action: Int[Array, "*W"], reward: Float[Array, "*W"], num_arms: int) -> Float[Array, "*W I"]:
    """The token of a round: last action (one-hot), last reward (placed at that arm), no start marker."""
    played = jax.nn.one_hot(action, num_arms)
    rewarded = played * reward[..., None]
    return jnp.concatenate([played, rewarded, jnp.zeros_like(played[..., :1])], axis=-1)


@functools.cache
def graph_definition(config: TransformerConfig, num_arms: int, horizon: int) -> Any:
    """The static half of `nnx.split`, built without computing a single weight."""
    abstract = nnx.eval_shape(lambda: NumericalTransformer(config, num_arms, horizon, rngs=nnx.Rngs(0)))
    return nnx.split(abstract)[0]


@pytree
class TransformerState:
    """What a Transformer carries from round to round.

    caches: per layer, keys and values of the rounds played.
    token: `[I]` input of the coming round.
    """

    caches: list[LayerCache]
    token: Float[Array, "I"]


@pytree
class TransformerAgent:
    """A numerical Transformer as an agent.

    config, num_arms, trained_horizon: fix the network's shapes.
    params: its parameters, as plain nested dicts.
    temperature: actions are drawn from softmax(logits / temperature).
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    config: TransformerConfig = static_field()
    num_arms: int = static_field()
    trained_horizon: int = static_field()
    params: Params
    temperature: Float[Array, ""] | float = 1.0

    @classmethod
    def create(cls, key: ScalarKey, config: TransformerConfig, num_arms: int, horizon: int) -> "TransformerAgent":
        """An agent with random weights."""
        network = NumericalTransformer(config, num_arms, horizon, rngs=nnx.Rngs(key))
        params = nnx.to_pure_dict(nnx.split(network)[1])
        return cls(config, num_arms, horizon, params)

    @property
    def _network(self) -> NumericalTransformer:
        return nnx.merge(graph_definition(self.config, self.num_arms, self.trained_horizon), self.params)

    def logits(
        self, actions: Int[Array, "T"], rewards: Float[Array, "T"], arm_mask: Bool[Array, "K"]
    ) -> Float[Array, "T K"]:
        """Logits of every round of a given trajectory, teacher-forced; absent arms get -inf.

        Row t depends on the actions and rewards of rounds before t only.
        """
        past = history_token(actions[:-1], rewards[:-1], self.num_arms)
        tokens = jnp.concatenate([start_token(self.num_arms)[None], past])
        logits, _ = self._network(tokens, empty_cache(self.config, tokens.shape[0]), 0)
        return jnp.where(arm_mask[None, :], logits, -jnp.inf)

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
        return TransformerState(caches=empty_cache(self.config, horizon), token=start_token(num_arms))

    def act(self, key: ScalarKey, state: TransformerState, context: Context) -> tuple[Decision, TransformerState]:
        """Feeds the pending token through the network and draws an arm."""
        logits, caches = self._network(state.token[None], state.caches, context.round)
        logits = jnp.where(context.arm_mask, logits[0], -jnp.inf) / self.temperature
        decision = Decision(action=jax.random.categorical(key, logits), probabilities=jax.nn.softmax(logits))
        return decision, TransformerState(caches=caches, token=state.token)

    def observe(
        self, state: TransformerState, action: Int[Array, ""], reward: Float[Array, ""], context: Context
    ) -> TransformerState:
        """Makes action and reward the token of the next round."""
        del context
        return TransformerState(caches=state.caches, token=history_token(action, reward, self.num_arms))
