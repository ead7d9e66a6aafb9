"""Low-rank adapters (LoRA, Hu et al. 2021): beside every linear map of the blocks a product of thin matrices learns."""

from typing import Any

import jax
import jax.numpy as jnp

from rmft_jax.config import Number, Params, ScalarKey
from rmft_jax.language.decoder import DecoderConfig, layer_shapes

_ADAPTED = ("q", "k", "v", "o", "gate", "up", "down")


def init_adapters(config: DecoderConfig, rank: int, key: ScalarKey) -> Params:
    """Adapters that change nothing yet: the first matrix is random with variance 1 / inputs, the second is zero."""
    shapes, keys = layer_shapes(config), jax.random.split(key, len(_ADAPTED))

    def pair(name: str, own: ScalarKey) -> tuple[Any, Any]:
        inputs, outputs = shapes[name]
        first = jax.random.normal(own, (config.num_layers, inputs, rank)) / jnp.sqrt(inputs)
        return first, jnp.zeros((config.num_layers, rank, outputs))

    return {name: pair(name, own) for name, own in zip(_ADAPTED, keys, strict=True)}


def with_adapters(params: Any, adapters: Any, scale: Number) -> Any:
    """The weights of a decoder, in whose blocks the adapters stand beside the maps that they change.

    `scale`: by which their product is multiplied, alpha / rank in the paper.
    """
    scaled = {name: (first, scale * second) for name, (first, second) in adapters.items()}
    return {**params, "layers": {**params["layers"], "lora": scaled}}
