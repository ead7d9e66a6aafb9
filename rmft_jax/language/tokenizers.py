"""What turns text into tokens and back."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens and back."""

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def pad(self) -> int:
        """The token that fills up."""
        ...

    @property
    def eos(self) -> int:
        """The token that ends a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        ...
