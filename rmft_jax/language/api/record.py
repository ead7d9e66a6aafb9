"""What a piece of work was begun with, and whether it goes on with the same."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.words import Telling
from rmft_jax.problems import Problem

# What may be another when work goes on: how requests are sent, not what they say.
_FREE = ("timeout", "max_retries", "requests_per_minute", "concurrency", "stream", "first_rest")


def made_for(
    client: ChatClient, problem: Problem, tellings: Sequence[Telling], settings: Mapping[str, Any]
) -> dict[str, str]:
    """What work that goes on must be the same in, by name; long things as digests.

    Raises:
      ConfigError: if there are no tellings.
    """
    require(bool(tellings), "no tellings", "one or more", "make_tellings(1, ...)")
    asked = {f"client.{name}": value for name, value in dataclasses.asdict(client).items() if name not in _FREE}
    long = {"problem": problem, "tellings": list(tellings)}
    digests = {name: hashlib.sha256(repr(value).encode()).hexdigest()[:16] for name, value in long.items()}
    return {name: str(value) for name, value in (asked | dict(settings) | digests).items()}


def require_same(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises `ConfigError` if what work goes on with is not what it was begun with."""
    for name, value in now.items():
        if was.get(name) != value:
            got, need = f"{name}={value}", f"{name}={was.get(name)}, with which it was begun"
            raise ConfigError(f"got {got}, need {need}; try that, or another folder")
