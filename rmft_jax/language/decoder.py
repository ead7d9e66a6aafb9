"""A decoder of the Llama family (Touvron et al. 2023): SmolLM2, Llama 3, Qwen 2.5 and Qwen 3, as plain functions.

Inside this file array names end in their axes: `N` tokens of one call, `S` slots of the cache, `D` width, `H` query
heads, `G` key-value heads, `h` head size, `F` width of the MLP, `V` vocabulary, `L` layers. Everything is written for
one dialogue. A slot of the cache holds one token, or nothing: a mask says which slots are visible, and positions count
the tokens before.
"""

import dataclasses
import math
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import Params, ScalarKey

Cache = Any
"""Keys and values of all layers: for each a pair `[G, S, h]`; of deep decoders one pair `[L, G, S, h]`."""
# Up to so many layers are compiled one by one; beyond them a block is compiled once, and takes its layer of the cache.
_UNROLLED = 8


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shapes and constants of a decoder.

    vocab_size: rows of the embedding.
    num_layers, width, mlp_width: blocks, the residual stream, the inside of the gated MLP.
    num_heads, num_kv_heads, head_size: queries, keys and values (several heads may share them), and numbers of each.
    rope_theta: base of the rotary position encoding (Su et al. 2021).
    rope_scaling: of Llama 3: factor, low and high frequency factors, and the length first trained on; None: none.
    norm_eps: of the root mean square.
    tied: whether the embedding is the output matrix too.
    qkv_bias: whether queries, keys and values have biases (Qwen 2.5).
    qk_norm: whether queries and keys are normalized head by head (Qwen 3).
    max_positions: tokens of the longest text it was made for.
    """

    vocab_size: int
    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    rope_theta: float = 10_000.0
    rope_scaling: tuple[float, float, float, float] | None = None
    norm_eps: float = 1e-5
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 2048


def layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The arrays of a block, without the axis of layers; matrices map the first axis to the second."""
    D, F, h = config.width, config.mlp_width, config.head_size
    queries, keys = config.num_heads * h, config.num_kv_heads * h
    shapes: dict[str, tuple[int, ...]] = {"attention_norm": (D,), "q": (D, queries), "k": (D, keys), "v": (D, keys)}
    shapes |= {"o": (queries, D), "mlp_norm": (D,), "gate": (D, F), "up": (D, F), "down": (F, D)}
    if config.qkv_bias:
        shapes |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.qk_norm:
        shapes |= {"q_norm": (h,), "k_norm": (h,)}
    return shapes


def param_shapes(config: DecoderConfig) -> dict[str, Any]:
    """The shapes of all parameters, as nested dicts; arrays of the blocks are stacked along a first axis."""
    layers = {name: (config.num_layers, *shape) for name, shape in layer_shapes(config).items()}
    shapes: dict[str, Any] = {"embed": (config.vocab_size, config.width), "layers": layers, "norm": (config.width,)}
    if not config.tied:
        shapes["head"] = (config.width, config.vocab_size)
    return shapes


def random_params(config: DecoderConfig, key: ScalarKey, std: float = 0.02) -> Params:
    """Random weights: matrices N(0, std^2), those that end a branch smaller with depth; norms 1, biases 0."""

    def draw(path: Any, shape: tuple[int, ...]) -> Array:
        name = path[-1].key
        if "norm" in name:
            return jnp.ones(shape)
        if "bias" in name:
            return jnp.zeros(shape)
        own = jax.random.fold_in(key, sum(ord(letter) << 4 * i for i, letter in enumerate(name)) % 2**31)
        scale = std / math.sqrt(2 * config.num_layers) if name in ("o", "down") else std
        return scale * jax.random.normal(own, shape)

    return jax.tree_util.tree_map_with_path(draw, param_shapes(config), is_leaf=lambda x: isinstance(x, tuple))


def empty_cache(config: DecoderConfig, num_slots: int, dtype: Any = jnp.float32) -> Cache:
    """A cache of empty slots."""
    shape = (config.num_kv_heads, num_slots, config.head_size)
    if config.num_layers <= _UNROLLED:
        return [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers)]
    return jnp.zeros((config.num_layers, *shape), dtype), jnp.zeros((config.num_layers, *shape), dtype)


def run(
    config: DecoderConfig,
    params: Any,
    tokens: Int[Array, "N"],
    positions: Int[Array, "N"],
    visible: Bool[Array, "N S"],
    cache: Cache | None = None,
    start: Int[Array, ""] | int = 0,
) -> tuple[Float[Array, "N D"], Cache]:
    """Feeds tokens through the decoder.

    Args:
      config: its shapes.
      params: its weights; where `layers` has `lora`, those adapters are added (`lora.with_adapters`).
      tokens: `[N]`.
      positions: `[N]` places of the tokens in the text, from 0.
      visible: `[N, S]` which slots each token reads, itself included.
      cache: keys and values of all slots, into which those of the tokens are written; None: the tokens are all slots.
      start: slot of the first token.

    Returns:
      `[N, D]` what is mapped to logits (`logits_of`), and the cache.
    """
    dtype = params["embed"].dtype
    x_NxD = params["embed"][tokens].astype(dtype)
    rotary = rotary_table(config, positions)
    if cache is not None:
        visible = _apart(visible, start)
    penalty_NxM = jnp.where(visible, 0.0, -jnp.inf).astype(jnp.float32)

    def block(x_NxD: Array, weights: Any, past: Any) -> tuple[Array, tuple[Array, Array]]:
        mixed, new = _attend(config, weights, x_NxD, rotary, penalty_NxM, past)
        x_NxD = x_NxD + mixed
        return x_NxD + _mlp(config, weights, x_NxD), new

    def numbered(x_NxD: Array, layer: Any) -> tuple[Array, tuple[Array, Array]]:
        weights, number = layer
        # Scanned over, a cache of many dialogues would be turned about for every call.
        past = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, keepdims=False), cache)
        return block(x_NxD, weights, past)

    if config.num_layers <= _UNROLLED:
        new = []
        for layer in range(config.num_layers):
            weights = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"])
            x_NxD, kept = block(x_NxD, weights, None if cache is None else cache[layer])
            new.append(kept)
    else:
        x_NxD, new = jax.lax.scan(numbered, x_NxD, (params["layers"], jnp.arange(config.num_layers)))
    if cache is not None:
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=-2)
        new = jax.tree.map(lambda old, new: write(old, new.astype(old.dtype)), cache, new)
    return rms_norm(x_NxD, params["norm"], config.norm_eps), new


def logits_of(config: DecoderConfig, params: Any, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
    """Logits of the next token, in float32."""
    matrix = params["embed"].T if config.tied else params["head"]
    return jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)


def token_log_probs(
    config: DecoderConfig, params: Any, hidden: Float[Array, "N D"], targets: Int[Array, "N"]
) -> Float[Array, "N"]:
    """Log-probabilities of the tokens that come next."""
    logits = logits_of(config, params, hidden)
    picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def rms_norm(x: Float[Array, "*batch D"], scale: Float[Array, "D"], eps: float) -> Float[Array, "*batch D"]:
    """Division by the root mean square (Zhang and Sennrich 2019), computed in float32."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (wide * jnp.expand_dims(scale, range(x.ndim - 1))).astype(x.dtype)


def rotary_table(config: DecoderConfig, positions: Int[Array, "N"]) -> tuple[Float[Array, "N h"], Float[Array, "N h"]]:
    """Cosines and sines of the angles by which pairs (i, i + h/2) of queries and keys are rotated."""
    half = config.head_size // 2
    frequency = config.rope_theta ** (-np.arange(half) / half)
    if config.rope_scaling is not None:
        frequency = _scaled(frequency, *config.rope_scaling)
    angle = positions[:, None].astype(jnp.float32) * jnp.asarray(np.tile(frequency, 2), jnp.float32)[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _scaled(frequency: np.ndarray, factor: float, low: float, high: float, original: float) -> np.ndarray:
    """Llama 3's stretching of slow rotations to longer texts: fast ones stay, slow ones are divided by `factor`."""
    turns = original * frequency / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequency * (kept + (1 - kept) / factor)


def _rotated(
    x: Float[Array, "N H h"], rotary: tuple[Float[Array, "N h"], Float[Array, "N h"]]
) -> Float[Array, "N H h"]:
    cos, sin = (table[:, None, :] for table in rotary)
    first, second = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-second, first], axis=-1) * sin).astype(x.dtype)


def linear(weights: Any, name: str, x: Float[Array, "N a"]) -> Float[Array, "N b"]:
    """`x @ W`, with the bias and the low-rank adapter that stand under the same name, if there are any."""
    y = x @ weights[name]
    if f"{name}_bias" in weights:
        y = y + weights[f"{name}_bias"][None, :]
    if name in weights.get("lora", {}):
        first, second = weights["lora"][name]
        y = y + ((x @ first) @ second).astype(y.dtype)
    return y


def _apart(visible: Bool[Array, "N S"], start: Int[Array, ""] | int) -> Bool[Array, "N S+N"]:
    """Which slots each token reads of those that were filled before, and then which of the new tokens."""
    num_new, slots = len(visible), jnp.arange(visible.shape[1])
    earlier = visible & ((slots < start) | (slots >= start + num_new))[None, :]
    return jnp.concatenate([earlier, jax.lax.dynamic_slice_in_dim(visible, start, num_new, axis=1)], axis=1)


def _attend(
    config: DecoderConfig, weights: Any, x_NxD: Array, rotary: Any, penalty_NxM: Array, past: Any
) -> tuple[Array, tuple[Array, Array]]:
    """What the tokens read from the past, if there is one, and from each other; and their keys and values.

    Both are attended to apart: tokens that were first written into the cache would have all of it copied in each layer.
    """
    N, h, G = len(x_NxD), config.head_size, config.num_kv_heads
    normed = rms_norm(x_NxD, weights["attention_norm"], config.norm_eps)
    q_NxHxh, k_NxGxh, v_NxGxh = (linear(weights, name, normed).reshape(N, -1, h) for name in "qkv")
    if config.qk_norm:
        q_NxHxh = rms_norm(q_NxHxh, weights["q_norm"], config.norm_eps)
        k_NxGxh = rms_norm(k_NxGxh, weights["k_norm"], config.norm_eps)
    q_NxHxh, k_NxGxh = _rotated(q_NxHxh, rotary), _rotated(k_NxGxh, rotary)
    new = k_NxGxh.swapaxes(0, 1), v_NxGxh.swapaxes(0, 1)
    parts = [new] if past is None else [past, new]
    # J query heads in a row share a key-value head. Heads lead, so that the products read memory in order.
    q_GxJNxh = q_NxHxh.reshape(N, G, -1, h).transpose(1, 2, 0, 3).reshape(G, -1, h) / math.sqrt(h)
    product = partial(jnp.einsum, "gmh,gsh->gms", preferred_element_type=jnp.float32)
    scores = jnp.concatenate([product(q_GxJNxh, keys) for keys, _ in parts], axis=-1)
    attention = jax.nn.softmax(scores.reshape(G, -1, *penalty_NxM.shape) + penalty_NxM[None, None], axis=-1)
    attention = attention.astype(x_NxD.dtype).reshape(scores.shape)
    shares = jnp.split(attention, [attention.shape[-1] - N] * (len(parts) - 1), axis=-1)
    mixed = [jnp.einsum("gms,gsh->gmh", share, values) for share, (_, values) in zip(shares, parts, strict=True)]
    mixed = reduce(jnp.add, mixed)
    return linear(weights, "o", mixed.reshape(G, -1, N, h).transpose(2, 0, 1, 3).reshape(N, -1)), new


def _mlp(config: DecoderConfig, weights: Any, x_NxD: Array) -> Array:
    normed = rms_norm(x_NxD, weights["mlp_norm"], config.norm_eps)
    return linear(weights, "down", jax.nn.silu(linear(weights, "gate", normed)) * linear(weights, "up", normed))
