"""Dialogues that are kept: which ones, and how services that tune models take them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rmft_jax.config.checks import require, require_count
from rmft_jax.language.api.client import Message
from rmft_jax.running.files import not_written, replacing


def lowest_regret(
    regret: Float[Any, "N"],
    num_rollouts: int,
    k: int,
    *,
    invalid: Int[np.ndarray, "N"] | None = None,
    max_invalid: int | None = None,
) -> list[int]:
    """The k dialogues of lowest regret of every scenario; the first ones among equals.

    Args:
      regret: of each dialogue at the horizon, those of a scenario side by side.
      num_rollouts: L dialogues of each scenario.
      k: how many of them are kept, at most.
      invalid: answers of each that named no arm.
      max_invalid: dialogues with more of them are not kept; None: however many there are.

    Returns:
      Their numbers, in order.

    Raises:
      ConfigError: if k is not among 1 to L, or there are no whole scenarios.
    """
    require_count(num_rollouts, "num_rollouts", 1, 4)
    require(1 <= k <= num_rollouts, f"k={k}", f"1 to num_rollouts={num_rollouts}", "k=1")
    values = np.asarray(regret, np.float64)
    ok = len(values) % num_rollouts == 0
    require(
        ok, f"{len(values)} dialogues", f"{num_rollouts} of every scenario", "the num_rollouts they were played with"
    )
    fit = np.ones(len(values), bool)
    if invalid is not None and max_invalid is not None:
        fit = np.asarray(invalid) <= max_invalid
    kept = []
    for first in range(0, len(values), num_rollouts):
        order = first + np.argsort(values[first : first + num_rollouts], kind="stable")
        kept += sorted(int(number) for number in order[fit[order]][:k])
    return kept


def write_examples(
    path: Path | str, dialogues: Sequence[Sequence[Message]], indices: Iterable[int] | None = None
) -> int:
    """Writes dialogues as chat JSONL, one line of `messages` each, whole or not at all.

    Args:
      path: of the file.
      dialogues: each of which ends with an answer.
      indices: of those to be written; None: all.

    Returns:
      How many were written.

    Raises:
      ConfigError: if there are none, or not of those numbers, or one does not end with an answer.
      RunError: if the file cannot be written.
    """
    path = Path(path)
    chosen = range(len(dialogues)) if indices is None else list(indices)
    require(len(chosen) > 0, "no dialogues", "one or more", "another choice of them")
    lines = []
    for number in chosen:
        there = 0 <= number < len(dialogues)
        require(there, f"dialogue {number}", f"0 to {len(dialogues) - 1}", "the numbers of a selection")
        messages = list(dialogues[number])
        whole = bool(messages) and messages[-1]["role"] == "assistant"
        require(whole, f"dialogue {number} without a last answer", "whole dialogues", "those of a finished play")
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    try:
        with replacing(path) as temporary:
            temporary.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise not_written(path, error) from error
    return len(lines)
