"""The network of the numerical Transformer: numbers in, one number per arm out.

Inside this file array names end in their axes: `T` all rounds of the cache, `W` the rounds of one call, `D` width,
`H` heads, `h` head size, `K` arms. Everything is written for one trajectory.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rmft_jax.config import TransformerConfig

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
    """Maps the tokens of `W` consecutive rounds, behind a cache of the rounds before them, to one number per arm.

    One code path serves both uses: the whole trajectory at once (`W = T`, empty cache), and one round at a time
    (`W = 1`).
    """

    def __init__(self, config: TransformerConfig, token_size: int, num_arms: int, horizon: int, *, rngs: nnx.Rngs):
        self.position = config.position
        self.embed = nnx.Linear(token_size, config.width, rngs=rngs)
        if config.position == "learned":
            self.position_table = nnx.Embed(horizon, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_layers)])
        self.out_norm = nnx.LayerNorm(config.width, rngs=rngs)
        # A small last layer starts the policy near uniform, so that the first rollouts explore.
        self.out = nnx.Linear(config.width, num_arms, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)

    def __call__(
        self, tokens_WxI: Float[Array, "W I"], caches: list[LayerCache], start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "W K"], list[LayerCache]]:
        """Outputs of the window that begins at round `start`, and the caches extended by it."""
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


@functools.cache
def graph_definition(config: TransformerConfig, token_size: int, num_arms: int, horizon: int) -> Any:
    """The static half of `nnx.split`, built without computing a single weight."""
    abstract = nnx.eval_shape(lambda: NumericalTransformer(config, token_size, num_arms, horizon, rngs=nnx.Rngs(0)))
    return nnx.split(abstract)[0]
