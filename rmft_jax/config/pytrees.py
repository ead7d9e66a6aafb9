"""Frozen dataclasses that are pytrees: what every other room makes its nouns from."""

import dataclasses
import typing
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from rmft_jax.config.words import brief

_T = TypeVar("_T")

Params = PyTree[Float[Array | np.ndarray | jax.ShapeDtypeStruct, "..."]]
Fixed = PyTree[Shaped[Array | np.ndarray | jax.ShapeDtypeStruct, "..."]]
"""Arrays of any type that a policy plays with, and that are not trained."""
ScalarKey = Key[Array, ""]
Number = Float[Array, ""] | float
"""A parameter that is a leaf: it may be traced, and vmapped over."""


def static_field(default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of a pytree's structure (shapes, choices of code), not one of its arrays."""
    return dataclasses.field(default=default, metadata={"static": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static_field,))
def pytree(cls: type[_T]) -> type[_T]:
    """Makes a class a frozen dataclass and a pytree."""
    frozen: Any = dataclasses.dataclass(frozen=True, repr=False)(cls)
    if "__repr__" not in vars(cls):
        frozen.__repr__ = brief  # Arrays have no place in a line.
    fields = dataclasses.fields(frozen)
    static = [field.name for field in fields if field.metadata.get("static")]
    return register_pytree(frozen, [field.name for field in fields if field.name not in static], static)


def register_pytree(cls: Any, data: list[str], static: list[str]) -> Any:
    """Registers a dataclass as a pytree.

    Not with `jax.tree_util.register_dataclass`: as of JAX 0.10, two dataclasses with equal static fields have equal
    structures whatever their types, so `jit` may hand a call with one agent the program compiled for another.
    """

    def flatten_with_keys(node: Any) -> tuple[list[Any], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in data]
        return children, tuple(getattr(node, name) for name in static)

    def unflatten(meta: tuple[Any, ...], children: Any) -> Any:
        node = object.__new__(cls)  # Not by the constructor, whose checks are for people.
        for name, value in (*zip(static, meta, strict=True), *zip(data, children, strict=True)):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls
