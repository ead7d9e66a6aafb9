"""Packages that only language models need, and that a user may not have."""

import importlib
from typing import Any

from rmft_jax.config.checks import ConfigError


def optional(package: str, got: str) -> Any:
    """The package, imported.

    Args:
      package: its name, which is also the name of what is imported.
      got: what it is needed for, as the message is to begin.

    Raises:
      ConfigError: if it is not installed; it says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        message = f"got {got}, need the package {package}; try .venv/bin/pip install '.[language]' in the clone"
        raise ConfigError(message) from error


def first_line(error: BaseException) -> str:
    """What an error of somebody's package says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
