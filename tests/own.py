"""What tests of users' own choices share."""

import contextlib
from collections.abc import Iterator

from rmft_jax.agents.register import AGENTS
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.plotting import FIGURES


@contextlib.contextmanager
def registers_restored() -> Iterator[None]:
    """Begins with what is built in, whatever else was imported, and forgets afterwards what was registered."""
    every = [*ChoiceRegister.kinds.values(), AGENTS, FIGURES]
    before = [(dict(register._entries), dict(register._makers)) for register in every]
    for register in every:
        for name in register.of_users():
            del register._entries[name], register._makers[name]
    try:
        yield
    finally:
        for register, (entries, makers) in zip(every, before, strict=True):
            # What is of the package stays, for it may have been imported, and so registered, in between.
            new = set(register._entries) - set(entries) - set(register.of_users())
            entries |= {name: register._entries[name] for name in new}
            makers |= {name: register._makers[name] for name in new}
            register._entries, register._makers = entries, makers
