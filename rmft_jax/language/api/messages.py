"""What a dialogue says: a decision problem as chat messages, and an answer as an arm."""

import re
from collections.abc import Sequence

from rmft_jax.language.api.client import Message
from rmft_jax.language.words import Telling

_PLAIN = "Answer with one name alone: {names}."
_REASONED = "Think in a few words, then end your answer with the one name that you choose: {names}."
_UNNAMED = "That named none of them, so one was taken at random."


def opening(telling: Telling, *, reasoning: bool) -> list[Message]:
    """The messages before the first answer: what the problem is, how to answer it, and the first question."""
    how = (_REASONED if reasoning else _PLAIN).format(names=", ".join(telling.names))
    return [{"role": "system", "content": f"{telling.intro}\n{how}"}, {"role": "user", "content": question(telling)}]


def question(telling: Telling) -> str:
    """What every round asks."""
    return telling.ask.strip()


def following(telling: Telling, arm: int, rewards: Sequence[float], *, full: bool, named: bool) -> Message:
    """The message after an answer: what happened, and the next question.

    Args:
      telling: the words.
      arm: that was played.
      rewards: of all arms.
      full: whether all of them are told, or that of the arm alone.
      named: whether the answer named an arm.
    """
    if full:
        told = telling.revealed + "".join(telling.listed(other, value) for other, value in enumerate(rewards))
    else:
        told = telling.told(arm, rewards[arm], named=True)
    sentence = told.strip(" ,.:;\n") + "."
    lines = ([] if named else [_UNNAMED]) + [sentence, question(telling)]
    return {"role": "user", "content": "\n".join(lines)}


def said(answer: str) -> Message:
    """The model's own words as a message. Some servers refuse empty ones."""
    return {"role": "assistant", "content": answer or "..."}


def named_arm(answer: str, names: Sequence[str]) -> int | None:
    """The arm that an answer names last, or None if it names none; small and capital letters are alike.

    Args:
      answer: a model's words.
      names: of the arms.
    """
    # The longest first: a name may hold another one.
    order = sorted(range(len(names)), key=lambda arm: -len(names[arm]))
    wordings = "|".join(f"({r'\s+'.join(map(re.escape, names[arm].split()))})" for arm in order)
    found = None
    for found in re.finditer(rf"(?<![^\W_])(?:{wordings})(?![^\W_])", answer, re.IGNORECASE):
        pass
    return None if found is None or found.lastindex is None else order[found.lastindex - 1]
