"""Tuning by maximum likelihood of parts of texts, given what stands before them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rmft_jax.config import Params
from rmft_jax.config.checks import require, require_count, require_number, require_seed
from rmft_jax.language.decoder import DecoderConfig, run, token_log_probs

_SHORTEST = 64


@dataclasses.dataclass(frozen=True)
class TuneSettings:
    """How a model is tuned.

    epochs: how often each example is seen.
    step_size: of Adam.
    batch_size: examples of an update.
    max_grad_norm: longer gradients are shortened.
    seed: of the order of the examples.

    Raises:
      ConfigError: if it cannot work.
    """

    epochs: int = 3
    step_size: float = 1e-3
    batch_size: int = 8
    max_grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self):
        require_count(self.epochs, "epochs", 1, 3)
        require_count(self.batch_size, "batch_size", 1, 8)
        require_number(self.step_size, "step_size", "above 0", self.step_size > 0, 1e-3)
        require_number(self.max_grad_norm, "max_grad_norm", "above 0", self.max_grad_norm > 0, 1.0)
        require_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class Example:
    """A text.

    tokens: of it.
    learned: which of them are made likelier; the first one has nothing before it, and is not.
    """

    tokens: Sequence[int]
    learned: Sequence[bool]


def log_likelihood(
    shapes: DecoderConfig, weights: Any, tokens: Array, learned: Array
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Log-likelihood of the learned tokens of a text, and how many they are.

    Args:
      shapes: of the model.
      weights: of it.
      tokens: `[N]`, filled up at the end with any.
      learned: `[N]` 1 where they count.
    """
    places = jnp.arange(len(tokens))
    hidden, _ = run(shapes, weights, tokens, places, places[None, :] <= places[:, None])
    log_probs = token_log_probs(shapes, weights, hidden[:-1], tokens[1:])
    return jnp.sum(log_probs * learned[1:]), jnp.sum(learned[1:])


def tuned(
    shapes: DecoderConfig,
    weights: Callable[[Params], Any],
    params: Params,
    examples: Sequence[Example],
    settings: TuneSettings,
) -> Params:
    """Parameters under which the learned tokens are likelier.

    Args:
      shapes: of the model.
      weights: those of the decoder, from the parameters.
      params: to start with.
      examples: what is learned.
      settings: how.

    Raises:
      ConfigError: if nothing is to be learned.
    """
    require(any(any(one.learned[1:]) for one in examples), "no words to learn", "one or more", "other examples")
    tokens, learned = _padded(examples)
    adam = optax.chain(optax.clip_by_global_norm(settings.max_grad_norm), optax.adam(settings.step_size))

    def loss(params: Params, tokens: Array, learned: Array) -> Array:
        full = weights(params)
        sums, counts = jax.vmap(lambda row, own: log_likelihood(shapes, full, row, own))(tokens, learned)
        return -jnp.sum(sums) / jnp.maximum(jnp.sum(counts), 1.0)

    @jax.jit
    def step(params: Params, state: Any, tokens: Array, learned: Array) -> tuple[Params, Any]:
        gradient = jax.grad(loss)(params, tokens, learned)
        change, state = adam.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    params = jax.tree.map(jnp.asarray, params)
    state, order = adam.init(params), np.random.default_rng(settings.seed)
    size = settings.batch_size
    for _ in range(settings.epochs):
        rows = order.permutation(len(tokens))
        for first in range(0, len(rows), size):
            # The last batch is filled up with rows of which nothing is learned.
            chosen = np.resize(rows[first : first + size], size)
            counts = np.arange(size) < len(rows) - first
            params, state = step(params, state, tokens[chosen], learned[chosen] * counts[:, None])
    return params


def _padded(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(len(one.tokens) for one in examples)
    width = max(_SHORTEST, 1 << (longest - 1).bit_length())
    tokens, learned = np.zeros((len(examples), width), np.int32), np.zeros((len(examples), width), np.float32)
    for row, one in enumerate(examples):
        tokens[row, : len(one.tokens)] = one.tokens
        learned[row, : len(one.learned)] = one.learned
    return tokens, learned
