import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.language.decoder import DecoderConfig, empty_cache, logits_of, param_shapes, random_params, run
from rmft_jax.language.lora import init_adapters, with_adapters

LLAMA = DecoderConfig(
    vocab_size=19, num_layers=2, width=16, mlp_width=24, num_heads=4, num_kv_heads=2, head_size=6, rope_theta=100.0
)
KINDS = {
    "llama": LLAMA,
    "untied": dataclasses.replace(LLAMA, tied=False),
    "qwen2": dataclasses.replace(LLAMA, qkv_bias=True, num_kv_heads=4),
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True, num_kv_heads=1, norm_eps=1e-2),
    "llama3": dataclasses.replace(LLAMA, rope_scaling=(8.0, 1.0, 4.0, 64.0)),
    "deep": dataclasses.replace(LLAMA, num_layers=9),
}
TOKENS = np.asarray([3, 1, 4, 1, 5, 9, 2, 6])
EVERYTHING = np.tril(np.ones((8, 8), bool))


def weights(config):
    """Random ones, in which nothing is 0 or 1."""
    params = random_params(config, jax.random.key(0), std=0.5)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)


def forward(config, params, tokens=TOKENS, visible=EVERYTHING, positions=None):
    places = np.arange(len(tokens)) if positions is None else positions
    hidden, _ = run(config, params, jnp.asarray(tokens), jnp.asarray(places), jnp.asarray(visible))
    return np.asarray(logits_of(config, params, hidden))


def slow_norm(config, x, scale):
    return x / np.sqrt(np.mean(x**2) + config.norm_eps) * scale


def slow_frequency(config, i):
    rate = config.rope_theta ** (-2 * i / config.head_size)
    if config.rope_scaling is None:
        return rate
    factor, low, high, original = config.rope_scaling
    wavelength = 2 * np.pi / rate
    if wavelength < original / high:
        return rate
    if wavelength > original / low:
        return rate / factor
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * rate / factor + smooth * rate


def slow_rotation(config, x, position):
    y, half = x.copy(), config.head_size // 2
    for i in range(half):
        angle = position * slow_frequency(config, i)
        a, b = x[i], x[i + half]
        y[i], y[i + half] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
    return y


def slow_forward(config, params, tokens):
    """The same, written down token by token and head by head."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    h, group = config.head_size, config.num_heads // config.num_kv_heads
    stream = [params["embed"][token] for token in tokens]
    for number in range(config.num_layers):
        layer = {name: leaf[number] for name, leaf in params["layers"].items()}
        keys, values, after = [], [], []
        for position, x in enumerate(stream):
            x_in = slow_norm(config, x, layer["attention_norm"])
            q, k, v = ((x_in @ layer[n] + layer.get(f"{n}_bias", 0.0)).reshape(-1, h) for n in "qkv")
            if config.qk_norm:
                q = [slow_norm(config, row, layer["q_norm"]) for row in q]
                k = [slow_norm(config, row, layer["k_norm"]) for row in k]
            keys.append([slow_rotation(config, row, position) for row in k])
            values.append(v)
            heads = []
            for head, row in enumerate(q):
                turned = slow_rotation(config, row, position)
                scores = np.asarray([turned @ past[head // group] for past in keys]) / np.sqrt(h)
                attention = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                heads.append(sum(a * past[head // group] for a, past in zip(attention, values, strict=True)))
            y = x + np.concatenate(heads) @ layer["o"]
            inner = slow_norm(config, y, layer["mlp_norm"])
            gate = inner @ layer["gate"]
            after.append(y + (gate / (1 + np.exp(-gate)) * (inner @ layer["up"])) @ layer["down"])
        stream = after
    out = params["embed"].T if config.tied else params["head"]
    return np.stack([slow_norm(config, x, params["norm"]) @ out for x in stream])


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_equals_its_slow_twin(kind):
    params = weights(KINDS[kind])
    np.testing.assert_allclose(
        forward(KINDS[kind], params), slow_forward(KINDS[kind], params, TOKENS), rtol=2e-3, atol=2e-4
    )


@pytest.mark.parametrize("kind", ["llama", "deep"])
def test_cached_equals_uncached(kind):
    config, params = KINDS[kind], weights(KINDS[kind])
    cache, found, slots = empty_cache(config, 10), [], jnp.arange(10)
    for start, end in ((0, 3), (3, 4), (4, 8)):
        own = jnp.arange(start, end)
        hidden, cache = run(
            config, params, jnp.asarray(TOKENS[start:end]), own, slots[None] <= own[:, None], cache, jnp.asarray(start)
        )
        found.append(np.asarray(logits_of(config, params, hidden)))
    np.testing.assert_allclose(np.concatenate(found), forward(config, params), rtol=1e-4, atol=1e-4)


def test_what_is_not_visible_changes_nothing():
    config, params = LLAMA, weights(LLAMA)
    gaps = np.asarray([3, 0, 1, 4, 0, 0, 1, 5])
    real = np.asarray([1, 0, 1, 1, 0, 0, 1, 1], bool)
    visible = (real[None, :] & EVERYTHING) | np.eye(8, dtype=bool)
    positions = np.maximum(np.cumsum(real) - 1, 0)
    dense = forward(config, params, gaps[real], np.tril(np.ones((5, 5), bool)))
    np.testing.assert_allclose(forward(config, params, gaps, visible, positions)[real], dense, rtol=1e-4, atol=1e-5)


def test_no_token_sees_later_ones():
    params = weights(LLAMA)
    later = forward(LLAMA, params, np.append(TOKENS[:5], [7, 7, 7]))
    np.testing.assert_allclose(later[:5], forward(LLAMA, params)[:5], rtol=1e-5, atol=1e-5)
    assert np.abs(later[5:] - forward(LLAMA, params)[5:]).max() > 0.01


def test_adapters_change_nothing_at_first_and_then_add_their_product():
    config, params = LLAMA, weights(LLAMA)
    adapters = init_adapters(config, 3, jax.random.key(2))
    np.testing.assert_array_equal(forward(config, with_adapters(params, adapters, 2.0)), forward(config, params))
    adapters = {name: (first, second + 0.3) for name, (first, second) in adapters.items()}
    added = {name: params["layers"][name] + 2.0 * first @ second for name, (first, second) in adapters.items()}
    merged = {**params, "layers": {**params["layers"], **added}}
    np.testing.assert_allclose(
        forward(config, with_adapters(params, adapters, 2.0)), forward(config, merged), rtol=1e-3, atol=1e-3
    )
    assert np.abs(forward(config, merged) - forward(config, params)).max() > 0.1


def test_random_weights_have_the_stated_shapes():
    params = random_params(KINDS["untied"], jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == param_shapes(KINDS["untied"])
    assert len({float(leaf.ravel()[0]) for leaf in jax.tree.leaves(params)}) == 10  # Norms share their 1.
