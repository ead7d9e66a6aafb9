"""From the tensors of a file to the parameters of a decoder."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.decoder import DecoderConfig, layer_shapes, param_shapes

Reader = Callable[[str], Float[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Tensors of a model, wherever they lie. Matrices are [outputs, inputs] there."""

    source: str
    """Of which file or folder they are, for messages."""
    shapes: Mapping[str, tuple[int, ...]]
    read: Reader
    """A tensor in float32 by its name, with q and k in the order of heads whose rotary pairs are (i, i + h/2)."""
    names: Mapping[str, str]
    """From the keys of parameters to names of tensors; names of a layer's hold `{layer}`."""
    ignored: Callable[[str], bool]
    """Whether a tensor is nothing that a decoder needs, though it is there."""


def assemble(config: DecoderConfig, weights: Weights) -> dict[str, Any]:
    """The parameters of a decoder, each tensor read once into its place.

    Raises:
      ConfigError: if a tensor is missing, is one more than the decoder has, has another shape than the settings say,
        or holds numbers that are not finite.
    """
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
    got = f"{heads} heads of {size} numbers with {kv_heads} heads of keys in {weights.source}"
    fits = heads % kv_heads == 0 and size % 2 == 0
    require(fits, got, "as many heads for each head of keys, of pairs of numbers", "the settings of a whole model")
    whole = {key: shape for key, shape in param_shapes(config).items() if key != "layers"}
    layer = layer_shapes(config)
    _require_all(config, weights, whole, layer)
    params: dict[str, Any] = {}
    for key, shape in whole.items():
        # Rows of the embedding are tokens, both in files and in a decoder.
        params[key] = np.empty(shape, np.float32)
        _fill(params[key], weights, weights.names[key], turned=key == "head")
    params["layers"] = {key: np.empty((config.num_layers, *shape), np.float32) for key, shape in layer.items()}
    for key, array in params["layers"].items():
        for i in range(config.num_layers):
            _fill(array[i], weights, weights.names[key].format(layer=i), turned=array[i].ndim == 2)
    return params


def _require_all(config: DecoderConfig, weights: Weights, whole: dict[str, Any], layer: dict[str, Any]) -> None:
    """Every tensor is there and has its shape, which is checked before any of them is read."""
    known = set()

    def check(key: str, name: str, shape: tuple[int, ...]) -> None:
        need = shape[::-1] if len(shape) == 2 and key != "embed" else shape
        require(name in weights.shapes, f"{weights.source} without {name}", "all tensors of its model", "another file")
        got = weights.shapes[name]
        fits = f"{need} as its settings say"
        require(got == need, f"{name} of shape {got} in {weights.source}", fits, "settings and weights of one model")
        known.add(name)

    for key, shape in whole.items():
        check(key, weights.names[key], shape)
    for i in range(config.num_layers):
        for key, shape in layer.items():
            check(key, weights.names[key].format(layer=i), shape)
    more = sorted(name for name in weights.shapes if name not in known and not weights.ignored(name))
    if more:
        got = f"{len(more)} tensors that the decoder does not know in {weights.source}, {more[0]!r} first"
        raise ConfigError(f"got {got}, need a model of the Llama or Qwen family; try another model")


def _fill(place: np.ndarray, weights: Weights, name: str, *, turned: bool) -> None:
    tensor = weights.read(name)
    finite = bool(np.isfinite(tensor).all())
    require(finite, f"numbers in {name} of {weights.source} that are not finite", "finite weights", "to get it again")
    place[...] = tensor.T if turned else tensor
