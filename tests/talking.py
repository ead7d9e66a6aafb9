"""Models behind the server of this machine, and a program that plays them, to be killed."""

import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.language.api.budget import Budget
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.ledger import Ledger
from rmft_jax.language.api.play import Played, play_problems
from rmft_jax.language.words import Telling, make_tellings
from rmft_jax.problems import Problem, Stationary
from rmft_jax.running.files import RunError

ARMS, ROUNDS, SCENARIOS = 3, 4, 6
PROBLEM = Problem(Stationary(num_arms=ARMS), ROUNDS)
KEY_NUMBER = 5
SECRET = "sk-secret-of-the-tests"


def tellings(number: int = 2, feedback: Any = "bandit", num_arms: int = ARMS) -> list[Telling]:
    options: Any = {"contexts": "held-out", "low": 0.0, "high": 1.0, "fixed": True}
    return make_tellings(number, num_arms, ROUNDS, feedback=feedback, **options)


TELLINGS = tellings()


def names_of(messages: list[dict[str, Any]], known: list[Telling] = TELLINGS) -> tuple[str, ...]:
    return next(t.names for t in known if messages[0]["content"].startswith(t.intro))


def round_of(messages: list[dict[str, Any]]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def by_seed(messages: Any, temperature: float, max_tokens: int, seed: int | None, model: str) -> str:
    """Plays at random, as far as the seed says; a tuned model likes other arms."""
    del temperature, max_tokens
    names = names_of(messages)
    return names[((seed or 0) // 7 + model.count("+")) % len(names)]


def tuned(lines: list[dict[str, Any]], model: str) -> str:
    assert lines
    return f"{model}+"


def play(url: str, folder: Path | str, **options: Any) -> Played:
    """Plays the problems that all tests share."""
    own = {name: options.pop(name) for name in ("budget", "num_rollouts", "purpose", "progress") if name in options}
    client = ChatClient(url, "toy", **{"first_rest": 0.01, "concurrency": 3, **options})
    with Ledger(folder) as ledger:
        return play_problems(client, PROBLEM, jax.random.key(KEY_NUMBER), SCENARIOS, TELLINGS, ledger=ledger, **own)


def summary(played: Played) -> list[Any]:
    """What two plays have in common if they are the same."""
    leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(played.trajectory)]
    return [leaves, played.dialogues, played.invalid.tolist()]


def refusal(*arguments: Any, error: Any = (ConfigError, RunError), **options: Any) -> str:
    """The one line with which play is refused."""
    with pytest.raises(error) as caught:
        play(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Who runs in the background ignores it.
    play(sys.argv[1], sys.argv[2], budget=Budget(max_requests=1000))
