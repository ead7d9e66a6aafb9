"""The network of the numerical Transformer: numbers in, one number per arm out.

Inside this file array names end in their axes: `T` all rounds of the cache, `W` the rounds of one call, `D` width,
`H` heads, `h` head size, `K` arms, `I` numbers of a token. `*H` is there where there are several heads, `*K` where
every arm has a stream of tokens of its own (`arms="token"`). Everything is written for one trajectory.
"""

import functools
import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.agents.base import segment_ends
from rmft_jax.agents.policy import Policy
from rmft_jax.config.checks import largest_divisor, require, require_count

# Keys and values of one layer, each [heads, T, head], of every stream: with this layout the batched dots of a vmapped
# rollout read memory in order. A single head has no axis: with one of length 1, XLA copies the caches every round.
LayerCache = tuple[Float[Array, "*KH T h"], Float[Array, "*KH T h"]]
# Rounds of a part of a long window, at least: shorter ones saved nothing.
_PART_ROUNDS = 100


class NetworkSettings(Policy):
    """The settings of the numerical Transformer: pre-norm, causal, numbers in and one number per arm out."""

    num_layers: int = 2
    """Number of blocks."""
    width: int = 32
    """Width of the residual stream."""
    num_heads: int = 2
    """Attention heads; must divide the width."""
    mlp_ratio: int = 4
    """Hidden width of the MLP, as a multiple of the width."""
    position: Literal["none", "learned", "sinusoidal", "alibi"] = "none"
    """Position encoding: none; a table or sine waves, added to the input; or `alibi`, a bias on attention scores that
    falls linearly with age. With `learned`, no horizon beyond the trained one can be played."""
    arms: Literal["one_hot", "token"] = "one_hot"
    """How a round is told: as one token that lists the arms, or as a token per arm, with weights that all arms share.
    With `token` the policy treats all arms alike and plays any number of them, at K times the cost."""
    cache_dtype: Literal["float32", "bfloat16"] = "float32"
    """What keys and values are rounded to, in play and in training alike. All arithmetic is in float32; `bfloat16`
    halves what an accelerator reads in every round, and saves nothing on CPU."""

    def validate(self) -> None:
        super().validate()
        require_count(self.num_layers, "num_layers", 1, 2)
        require_count(self.width, "width", 2, 32)
        require_count(self.num_heads, "num_heads", 1, 2)
        require_count(self.mlp_ratio, "mlp_ratio", 1, 4)
        require(
            self.width % self.num_heads == 0,
            f"width={self.width} with num_heads={self.num_heads}",
            "a width that the heads divide",
            f"num_heads={largest_divisor(self.width, self.num_heads)}",
        )
        require(
            self.position != "sinusoidal" or self.width % 2 == 0,
            f"position='sinusoidal' with width={self.width}",
            "an even width for sine and cosine pairs",
            f"width={self.width + 1}",
        )


def empty_cache(config: NetworkSettings, num_arms: int, horizon: int) -> list[LayerCache]:
    """A cache for `horizon` rounds, none of them played."""
    heads = (config.num_heads,) if config.num_heads > 1 else ()
    streams = (num_arms,) if config.arms == "token" else ()
    shape = (*streams, *heads, horizon, config.width // config.num_heads)
    return [
        (jnp.zeros(shape, config.cache_dtype), jnp.zeros(shape, config.cache_dtype)) for _ in range(config.num_layers)
    ]


class SelfAttention(nnx.Module):
    """What both kinds of multi-head self-attention share."""

    def __init__(self, config: NetworkSettings, *, rngs: nnx.Rngs):
        out_init = nnx.initializers.variance_scaling(0.5 / config.num_layers, "fan_in", "normal")
        self.num_heads, self.position = config.num_heads, config.position
        self.query_key_value = nnx.Linear(config.width, 3 * config.width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, use_bias=False, kernel_init=out_init, rngs=rngs)

    def _heads(self, x_NxD: Float[Array, "N D"]) -> list[Float[Array, "*H N h"]]:
        """Queries, keys and values."""
        qkv_NxD = jnp.split(self.query_key_value(x_NxD), 3, axis=-1)
        if self.num_heads == 1:
            return qkv_NxD
        return [rows.reshape(len(rows), self.num_heads, -1).swapaxes(0, 1) for rows in qkv_NxD]

    def _gather(
        self,
        scores_HxNxS: Float[Array, "*H N S"],
        visible_NxS: Bool[Array, "#N S"],
        v_HxSxh: Float[Array, "*H S h"],
    ) -> Float[Array, "*H N h"]:
        visible_HxNxS = jnp.broadcast_to(visible_NxS, scores_HxNxS.shape)
        weights_HxNxS = jax.nn.softmax(jnp.where(visible_HxNxS, scores_HxNxS, -jnp.inf))
        return jnp.einsum("...NS,...Sh->...Nh", weights_HxNxS, v_HxSxh)

    def _joined(self, mixed_HxNxh: Float[Array, "*H N h"]) -> Float[Array, "N D"]:
        if self.num_heads > 1:
            mixed_HxNxh = mixed_HxNxh.swapaxes(0, 1).reshape(mixed_HxNxh.shape[1], -1)
        return self.out(mixed_HxNxh)


class CausalSelfAttention(SelfAttention):
    """Attention over a cache, to all rounds up to each."""

    def __call__(
        self, x_WxD: Float[Array, "W D"], cache: LayerCache, start: Int[Array, ""] | int
    ) -> tuple[Float[Array, "W D"], LayerCache]:
        """Writes the window into the cache at `start` and attends to everything up to each round.

        Where the compiler knows `start`, a long window is cut into parts that read the cache only up to their own ends.
        """
        q_HxWxh, k_HxWxh, v_HxWxh = self._heads(x_WxD)
        k_HxTxh, v_HxTxh = (
            jax.lax.dynamic_update_slice_in_dim(past, window.astype(past.dtype), start, axis=-2)
            for past, window in zip(cache, (k_HxWxh, v_HxWxh), strict=True)
        )
        if not isinstance(start, int):
            mixed_HxWxh = self._attend(q_HxWxh, k_HxTxh, v_HxTxh, start)
        else:
            ends = segment_ends(q_HxWxh.shape[-2], _PART_ROUNDS)
            parts = [
                self._attend(
                    q_HxWxh[..., a:b, :], k_HxTxh[..., : start + b, :], v_HxTxh[..., : start + b, :], start + a
                )
                for a, b in itertools.pairwise([0, *ends])
            ]
            mixed_HxWxh = jnp.concatenate(parts, axis=-2)
        return self._joined(mixed_HxWxh), (k_HxTxh, v_HxTxh)

    def _attend(
        self,
        q_HxWxh: Float[Array, "*H W h"],
        k_HxTxh: Float[Array, "*H T h"],
        v_HxTxh: Float[Array, "*H T h"],
        start: Int[Array, ""] | int,
    ) -> Float[Array, "*H W h"]:
        k_HxTxh, v_HxTxh = k_HxTxh.astype(jnp.float32), v_HxTxh.astype(jnp.float32)
        scores_HxWxT = jnp.einsum("...Wh,...Th->...WT", q_HxWxh, k_HxTxh) / math.sqrt(q_HxWxh.shape[-1])
        age_WxT = start + jnp.arange(q_HxWxh.shape[-2])[:, None] - jnp.arange(k_HxTxh.shape[-2])[None, :]
        if self.position == "alibi":
            slopes_Hx1x1 = alibi_slopes(self.num_heads).reshape(*scores_HxWxT.shape[:-2], 1, 1)
            scores_HxWxT = scores_HxWxT - slopes_Hx1x1 * jnp.broadcast_to(age_WxT, scores_HxWxT.shape)
        return self._gather(scores_HxWxT, age_WxT >= 0, v_HxTxh)


class ArmAttention(SelfAttention):
    """Attention of every arm to the existing ones, in one round."""

    def __call__(self, x_KxD: Float[Array, "K D"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K D"]:
        """What each arm gathers from the others."""
        q_HxKxh, k_HxKxh, v_HxKxh = self._heads(x_KxD)
        scores_HxKxK = jnp.einsum("...Kh,...Sh->...KS", q_HxKxh, k_HxKxh) / math.sqrt(q_HxKxh.shape[-1])
        return self._joined(self._gather(scores_HxKxK, arm_mask[None], v_HxKxh))


class Block(nnx.Module):
    """Pre-norm attention and MLP, each added to the residual stream; between them, streams of arms attend to others."""

    def __init__(self, config: NetworkSettings, *, rngs: nnx.Rngs):
        hidden = config.mlp_ratio * config.width
        out_init = nnx.initializers.variance_scaling(0.5 / config.num_layers, "fan_in", "normal")
        self.attention_norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.attention = CausalSelfAttention(config, rngs=rngs)
        self.arms = config.arms
        if self.arms == "token":
            self.arm_norm = nnx.LayerNorm(config.width, rngs=rngs)
            self.arm_attention = ArmAttention(config, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.mlp_in = nnx.Linear(config.width, hidden, rngs=rngs)
        self.mlp_out = nnx.Linear(hidden, config.width, kernel_init=out_init, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*K W D"], cache: LayerCache, start: Int[Array, ""] | int, arm_mask: Bool[Array, "K"]
    ) -> tuple[Float[Array, "*K W D"], LayerCache]:
        """Transforms a window that begins at round `start`; returns it with the extended cache."""
        attend = jax.vmap(self.attention, in_axes=(0, 0, None)) if self.arms == "token" else self.attention
        attended, cache = attend(self.attention_norm(x), cache, start)
        x = x + attended
        if self.arms == "token":
            x = x + jax.vmap(self.arm_attention, in_axes=(1, None), out_axes=1)(self.arm_norm(x), arm_mask)
        return x + self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x)))), cache


class NumericalTransformer(nnx.Module):
    """Maps the tokens of `W` consecutive rounds, behind a cache of the rounds before them, to one number per arm.

    One code path serves both uses: the whole trajectory at once (`W = T`, empty cache), and one round at a time
    (`W = 1`). A round is one token, from which all outputs are read; or it is a token per arm, each in a stream of its
    own with the arm's output at its end, and parameters, shared by all streams, know of no arm count.
    """

    def __init__(self, config: NetworkSettings, token_size: int, num_arms: int, horizon: int, *, rngs: nnx.Rngs):
        self.position, self.arms = config.position, config.arms
        self.embed = nnx.Linear(token_size, config.width, rngs=rngs)
        if config.position == "learned":
            self.position_table = nnx.Embed(horizon, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_layers)])
        self.out_norm = nnx.LayerNorm(config.width, rngs=rngs)
        outputs = 1 if config.arms == "token" else num_arms
        # A small last layer starts the policy near uniform, so that the first rollouts explore.
        self.out = nnx.Linear(config.width, outputs, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "*K W I"],
        caches: list[LayerCache],
        start: Int[Array, ""] | int,
        arm_mask: Bool[Array, "K"],
    ) -> tuple[Float[Array, "W K"], list[LayerCache]]:
        """Outputs of the window that begins at round `start`, and the caches extended by it.

        Streams of absent arms influence no other; without streams, `arm_mask` plays no part.
        """
        x = self.embed(tokens)
        rounds_W = start + jnp.arange(tokens.shape[-2])
        if self.position == "learned":
            x = x + jnp.broadcast_to(self.position_table(rounds_W), x.shape)
        elif self.position == "sinusoidal":
            x = x + jnp.broadcast_to(sinusoids(rounds_W, x.shape[-1]), x.shape)
        extended = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, new_cache = block(x, cache, start, arm_mask)
            extended.append(new_cache)
        outputs = self.out(self.out_norm(x))
        return outputs[..., 0].T if self.arms == "token" else outputs, extended


def sinusoids(rounds: Int[Array, "W"], width: int) -> Float[Array, "W D"]:
    """Sine and cosine position encoding (Vaswani et al. 2017, section 3.5); defined for any round."""
    frequencies = jnp.exp(-math.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angles = rounds[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def alibi_slopes(num_heads: int) -> Float[Array, "H"]:
    """By how much each head lowers a score per round of age: `2^(-8 h / H)`, `h = 1..H` (Press, Smith, Lewis 2022)."""
    return 2.0 ** (-8.0 * jnp.arange(1, num_heads + 1) / num_heads)


@functools.cache
def graph_definition(config: NetworkSettings, token_size: int, num_arms: int, horizon: int) -> Any:
    """The static half of `nnx.split`, built without computing a single weight."""
    abstract = nnx.eval_shape(lambda: NumericalTransformer(config, token_size, num_arms, horizon, rngs=nnx.Rngs(0)))
    return nnx.split(abstract)[0]
