"""What a dialogue says: a decision problem as chat messages, and an answer as an arm."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from rmft_jax.language.api.client import Message
from rmft_jax.language.words import Telling

Wording = Literal["chat", "bare"]
"""`chat`: whole sentences, and how to answer. `bare`: the pieces of the telling and not a word more."""
_PLAIN = "Answer with one name alone: {names}."
_REASONED = "Think in a few words, then end your answer with the one name that you choose: {names}."
_UNNAMED = "That named none of them, so one was taken at random."


@dataclasses.dataclass(frozen=True)
class Script:
    """How a problem is told to a chat model.

    telling: the words.
    full: whether the rewards of all arms are told after a round, or that of the arm that was played.
    reasoning: whether the model thinks before it answers; in `bare` wording a message of its own is the thought.
    wording: `chat` for models that follow instructions; `bare` for models that know the text of a telling, see
      `bare_text`.
    """

    telling: Telling
    full: bool = False
    reasoning: bool = False
    wording: Wording = "chat"

    def opening(self) -> list[Message]:
        """The messages before the first answer: what the problem is, and the first question."""
        intro = self.telling.intro
        if self.wording == "chat":
            how = (_REASONED if self.reasoning else _PLAIN).format(names=", ".join(self.telling.names))
            intro = f"{intro}\n\n{how}"
        return [{"role": "system", "content": intro}, {"role": "user", "content": self._question}]

    def after_thought(self) -> Message | None:
        """The message that asks for the answer once the model has thought; None where it is asked for both at once."""
        if self.wording == "chat" or not self.reasoning:
            return None
        return {"role": "user", "content": self.telling.ask}

    def following(self, arm: int, rewards: Sequence[float], *, named: bool) -> Message:
        """The message after an answer: what happened, and the next question.

        Args:
          arm: that was played.
          rewards: of all arms.
          named: whether the answer named it; else it was drawn.
        """
        telling, chat = self.telling, self.wording == "chat"
        if self.full:
            told = telling.revealed + "".join(telling.listed(other, value) for other, value in enumerate(rewards))
        else:
            told = telling.told(arm, rewards[arm], named=chat or not named)
        if chat:
            sentence = told.strip(" ,.:;\n")
            told = f"{'' if named else f'{_UNNAMED} '}{sentence[:1].upper()}{sentence[1:]}.\n"
        return {"role": "user", "content": told + self._question}

    @property
    def _question(self) -> str:
        if self.wording == "bare":
            return self.telling.think if self.reasoning else self.telling.ask
        return self.telling.ask.strip()


def said(answer: str) -> Message:
    """The model's own words as a message. Some servers refuse empty ones."""
    return {"role": "assistant", "content": answer or "..."}


def bare_text(messages: Sequence[Message]) -> str:
    """The text of a dialogue of `bare` wording: what was said, with a space before what the model says."""
    return "".join((" " if message["role"] == "assistant" else "") + message["content"] for message in messages)


def named_arm(answer: str, names: Sequence[str]) -> int | None:
    """The arm that an answer names last, or None if it names none; small and capital letters are alike.

    Args:
      answer: a model's words.
      names: of the arms.
    """
    # The longest first: a name may hold another one.
    order = sorted(range(len(names)), key=lambda arm: -len(names[arm]))
    wordings = "|".join("(" + r"\s+".join(map(re.escape, names[arm].split())) + ")" for arm in order)
    found = None
    for match in re.finditer(rf"(?<![^\W_])(?:{wordings})(?![^\W_])", answer, re.IGNORECASE):
        found = match
    return None if found is None or found.lastindex is None else order[found.lastindex - 1]
