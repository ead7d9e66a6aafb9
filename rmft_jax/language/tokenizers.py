"""From text to numbers and back: what a tokenizer offers, and one whose tokens are whole words."""

import functools
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from rmft_jax.config.checks import require

# A line break, a word, one digit, or one mark. All other white space only separates.
_PIECE = re.compile(r"\n|[A-Za-z]+|[0-9]|[^A-Za-z0-9\s]")


def split_words(text: str) -> list[str]:
    """The line breaks, words, single digits and marks of a text, in order; spaces are left out."""
    return _PIECE.findall(text)


@runtime_checkable
class Tokenizer(Protocol):
    """What turns text into token ids and back.

    Attributes:
      vocab_size: how many ids there are; all are below it.
      pad: id that fills up short texts.
      eos: id that ends a text.
      start: ids that stand before every text.
      ends: further ids that end one.
    """

    vocab_size: int
    pad: int
    eos: int
    start: tuple[int, ...]
    ends: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids."""
        ...


@functools.lru_cache(maxsize=4)
def text_ends(tokenizer: Tokenizer, size: int) -> Bool[np.ndarray, "V"]:
    """Which of the tokens that a model may write end a line or the text.

    In a byte-level vocabulary a line break may stand in one token with what is before it, such as the end of a
    sentence.

    Args:
      tokenizer: of the model.
      size: rows of its embedding; those beyond the tokenizer's tokens say nothing, and end as well.
    """
    found = np.ones(size, bool)
    known = range(tokenizer.vocab_size)
    found[: tokenizer.vocab_size] = ["\n" in tokenizer.decode([token]) for token in known]
    found[[tokenizer.eos, tokenizer.pad, *tokenizer.ends]] = True
    found.flags.writeable = False  # Of all who ask.
    return found


class WordTokenizer:
    """One token for each word, digit, mark and line break.

    Spaces are no tokens: a word or a number has one before it, unless the text or a line starts there. Marks have none.
    The digits of a number stand together, also around a point between digits. So `decode` of `encode` returns a text
    that is written by these rules, but for a space at its start. Pieces of text can be encoded apart and joined,
    as a token does not depend on those around it.

    Attributes:
      vocab_size: how many ids there are, with the three special ones.
      pad: 0, decoded to nothing.
      eos: 1, decoded to nothing.
      unknown: 2, for what is not in the vocabulary; decoded to a question mark.
    """

    def __init__(self, vocabulary: Sequence[str]):
        """Numbers the vocabulary from 3 on, in its order.

        Args:
          vocabulary: words, digits, marks and the line break, each once.

        Raises:
          ConfigError: an entry is not a single word, digit, mark or line break, or is there twice.
        """
        wrong = [entry for entry in vocabulary if split_words(entry) != [entry]]
        require(not wrong, f"vocabulary with {wrong[:1]}", "single words, digits and marks", "split_words(text)")
        different = len(set(vocabulary))
        require(
            different == len(vocabulary),
            f"vocabulary of {len(vocabulary)} entries, {different} of them different",
            "each entry once",
            "sorted(set(vocabulary))",
        )
        self.pad, self.eos, self.unknown = 0, 1, 2
        self.start = self.ends = ()
        self._texts = ["", "", "?", *vocabulary]
        self._ids = {text: index + 3 for index, text in enumerate(vocabulary)}
        self.vocab_size = len(self._texts)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token but `unknown`."""
        return [self._ids.get(piece, self.unknown) for piece in split_words(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids.

        Args:
          ids: any numbers from 0 to `vocab_size - 1`.

        Raises:
          ConfigError: an id is not in that range.
        """
        wrong = [index for index in ids if not 0 <= index < self.vocab_size]
        require(not wrong, f"token id {wrong[:1]}", f"ids from 0 to {self.vocab_size - 1}", "ids of this tokenizer")
        parts, end = [], ""
        for piece in filter(None, (self._texts[index] for index in ids)):
            parts.append(f" {piece}" if _apart(end, piece) else piece)
            end = f"{end}{piece}"[-2:]
        return "".join(parts)


def _apart(end: str, piece: str) -> bool:
    """Whether a space stands between the last two characters of a text and the piece that comes next."""
    if not piece.isalnum() or not end or end[-1] == "\n":
        return False
    return not (piece.isdigit() and (end[-1].isdigit() or (end[-1] == "." and end[0].isdigit())))
