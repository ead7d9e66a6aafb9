"""How the annotations of the package are checked wherever one of its functions is called (see conftest.py)."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks types and shapes of what goes in and comes out, but for constructors.

    The settings of a choice are plain numbers to a user, and traced ones inside a program that sweeps over them.
    """
    return function if function.__name__ == "__init__" else beartype(function)
