"""Settings: frozen dataclasses whose fields are known by name everywhere, without a prefix.

A field is a number, a truth value or a name. Choices (`choices.py`) are settings among several kinds of which one is
taken by its name; they may stand in a field of other settings. All fields together are one flat table, and that is how
the command line, `config.json`, TOML, sweeps and `replace` speak of them.
"""

import dataclasses
import functools
import inspect
import numbers
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax.core import Tracer

from rmft_jax.config.checks import ConfigError, fits_float32, require
from rmft_jax.config.pytrees import register_pytree
from rmft_jax.config.words import Docstring, brief, field_texts, html_table, named_briefly

Value = int | float | str | bool
KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a name"}


@typing.dataclass_transform(frozen_default=True)
class Settings:
    """The base of all settings. A subclass is a frozen dataclass and a pytree without a decorator.

    Fields of type `float` and settings inside settings are the pytree's leaves and children, which can be traced and
    vmapped over; all others are static, because they fix shapes or choose code.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _make_dataclass(cls)
        hints = hints_of(cls)
        data = [name for name, hint in hints.items() if hint is float or is_settings(hint)]
        register_pytree(cls, data, [name for name in hints if name not in data])

    def __post_init__(self) -> None:
        """Takes numbers of NumPy and JAX for Python's, and whole numbers for fractions where a fraction is meant."""
        for name, hint in hints_of(type(self)).items():
            value = getattr(self, name)
            plain = _plain(value)
            if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
                plain = float(plain)
            if plain is not value:
                object.__setattr__(self, name, plain)

    def values(self) -> dict[str, Value]:
        """Its own settings by name, without those of settings inside it."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if not isinstance(getattr(self, name), Settings)}

    def __repr__(self) -> str:
        """Those that are not as by default, as Python would write them."""
        return brief(self)

    def _repr_html_(self) -> str:
        """All settings, those of settings inside it too, with what they mean, as a notebook shows them."""
        rows = [(name, named_briefly(value), text) for name, value, text in self.explained()]
        return html_table(rows, ("setting", "value", "meaning"))

    def explained(self) -> Iterator[tuple[str, Any, str]]:
        """Name, value and meaning of every setting, those of settings inside it too; choices by their names."""
        texts = field_texts(type(self))
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if not isinstance(value, Settings):
                yield name, value, texts.get(name, "")
                continue
            if getattr(value, "kind", ""):
                yield name, getattr(value, "name", "") or type(value).__name__, texts.get(name, "")
            yield from value.explained()

    def require_types(self) -> None:
        """Raises `ConfigError` for the first setting whose value is of the wrong type, or none of the names."""
        for field in dataclasses.fields(self):
            hint = hints_of(type(self))[field.name]
            if not is_settings(hint):
                checked(field.name, getattr(self, field.name), hint, field.default)


def _make_dataclass(cls: type) -> None:
    """Makes a class a frozen dataclass; a docstring it has only if it was written.

    Raises:
      ConfigError: if one of its settings has no type or no default that can be one.
    """
    known: Any = cls
    inherited = [field.name for field in dataclasses.fields(known)] if dataclasses.is_dataclass(known) else ()
    own, doc = inspect.get_annotations(cls), cls.__doc__
    for name in vars(cls):
        typed = name not in inherited or name in own
        require(typed, f"{name} of {cls.__name__} without a type", "one for every setting", f"{name}: int = ...")
    try:
        dataclasses.dataclass(frozen=True, repr=False)(cls)
    except (TypeError, ValueError) as error:
        got = f"got {cls.__name__} ({error})"
        raise ConfigError(f"{got}, need a plain default for every setting; try adding it") from None
    type.__setattr__(cls, "__doc__", Docstring(doc))


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The type of every field."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def is_settings(hint: Any) -> bool:
    """Whether a field of this type holds settings, and not a value."""
    return isinstance(hint, type) and issubclass(hint, Settings)


def checked(name: str, value: Any, hint: Any, default: Any, where: str = "") -> Any:
    """The value as one of a setting of this type.

    Args:
      name: of the setting.
      value: whatever was given.
      hint: the setting's type.
      default: a value that works, to suggest.
      where: added to the message after the value.

    Raises:
      ConfigError: if it is none.
    """
    got, value = f"{name}={shown(value)}{where}", _plain(value)
    equals = " = " if where else "="  # In code, and in what is called.
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        require(value in choices, got, f"one of {', '.join(choices)}", f"{name}{equals}{choices[0]!r}")
        return value
    if hint is float and isinstance(value, Tracer):  # One of several that are vmapped over.
        return value
    # The abstract types know the numbers of NumPy.
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) < 2**63
    fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    fits = whole or (fraction and fits_float32(float(value)))
    kinds = {bool: isinstance(value, bool | np.bool_), int: whole, float: fits, str: isinstance(value, str)}
    in_float32 = " in float32" if hint is float and fraction else ""
    suggestion = repr(default) if where and hint is str else default
    require(kinds[hint], got, KINDS[hint] + in_float32, f"{name}{equals}{suggestion}")
    return hint(value)


def _plain(value: Any) -> Any:
    """A number of NumPy or JAX as Python's; not one that is traced, or one of several."""
    known = isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, Tracer)
    return value.item() if known and value.ndim == 0 else value


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
