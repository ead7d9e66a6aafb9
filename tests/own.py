"""What tests of users' own choices share."""

import contextlib
from collections.abc import Iterator

from rmft_jax.agents.register import AGENTS
from rmft_jax.config.choices import ChoiceRegister


@contextlib.contextmanager
def registers_restored() -> Iterator[None]:
    """Forgets afterwards what was registered."""
    every = [*ChoiceRegister.kinds.values(), AGENTS]
    before = [(dict(register._entries), dict(register._makers)) for register in every]
    try:
        yield
    finally:
        for register, (entries, makers) in zip(every, before, strict=True):
            register._entries, register._makers = entries, makers
