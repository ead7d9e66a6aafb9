"""How settings and pytrees are shown to people: in `help`, in a line, in a notebook."""

import ast
import contextlib
import dataclasses
import functools
import html
import inspect
import itertools
import textwrap
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_WIDTH = 100
_INDENTS: Any = {"initial_indent": "  ", "subsequent_indent": "    "}


@functools.cache
def field_texts(cls: type) -> dict[str, str]:
    """The string below every field in the source of a class and of those it derives from, where there is a source."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        with contextlib.suppress(OSError, TypeError, SyntaxError, IndexError):
            body = getattr(ast.parse(textwrap.dedent(inspect.getsource(one))).body[0], "body", [])
            for field, text in itertools.pairwise(body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        found[name] = " ".join(words.split())
    return found


class Docstring:
    """A docstring that ends with what every field means, which is read from the source when somebody asks.

    Args:
      own: what is written in the class; None: nothing is.
    """

    def __init__(self, own: str | None):
        self.own = own

    def __get__(self, instance: Any, owner: type) -> str | None:
        """The whole text."""
        known: Any = owner
        texts = field_texts(owner)
        lines = [
            textwrap.fill(f"{field.name} ({shown_briefly(field.default)}): {texts[field.name]}", _WIDTH, **_INDENTS)
            for field in dataclasses.fields(known)
            if field.name in texts
        ]
        own = inspect.cleandoc(self.own or owner.__name__)
        return "\n".join([own, "", "Attributes:", *lines]) if lines else self.own


def plain_doc(cls: type) -> str:
    """What is written in a class, without the meaning of its fields; empty if nothing is."""
    doc = vars(cls).get("__doc__")
    return (doc.own if isinstance(doc, Docstring) else doc) or ""


def shown_briefly(value: Any) -> str:
    """A value in a line: of arrays the type and the shape, of pytrees that hold arrays how many numbers."""
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return _array(value)
    if isinstance(value, dict | list | tuple) or type(value).__module__.startswith(("flax", "optax")):
        leaves = jax.tree.leaves(value)
        if any(hasattr(leaf, "shape") for leaf in leaves):
            return f"<{len(leaves)} arrays, {sum(int(np.size(leaf)) for leaf in leaves):,} numbers>"
    return repr(value)


def named_briefly(value: Any) -> str:
    """The same, a text without marks."""
    return value if isinstance(value, str) else shown_briefly(value)


def _array(value: Any) -> str:
    if value.ndim == 0 and isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer):
        with contextlib.suppress(TypeError, AttributeError, RuntimeError):  # Keys are no numbers, others are deleted.
            return f"{value.item():.7g}" if np.issubdtype(value.dtype, np.floating) else str(value.item())
    return f"{value.dtype}{list(value.shape)}"


def brief(self: Any) -> str:
    """A dataclass in a line: the fields that are not as by default, each in brief."""
    said = []
    for field in dataclasses.fields(self):
        value = getattr(self, field.name, None)
        if not _is_default(value, field):
            said.append(f"{field.name}={shown_briefly(value)}")
    return f"{type(self).__name__}({', '.join(said)})"


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    if field.default is dataclasses.MISSING or np.ndim(value) != 0:
        return False
    try:
        return bool(value == field.default)
    except (TypeError, ValueError, jax.errors.JAXTypeError):
        return False


def html_table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...]) -> str:
    """Rows of text as a table of HTML."""

    def line(tag: str, cells: tuple[str, ...]) -> str:
        style = ' style="text-align: left"'
        return f"<tr>{''.join(f'<{tag}{style}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line('th', heads)}{''.join(line('td', row) for row in rows)}</table>"
