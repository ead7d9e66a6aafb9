"""What tests of the tutorials share: imports that are forgotten again."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from own import registers_restored
from rmft_jax import import_code
from rmft_jax.config import plugins
from rmft_jax.plotting import FIGURES

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Begins without users' code, as a process does, and forgets afterwards what was imported and registered."""
    figures, before = (dict(FIGURES._entries), dict(FIGURES._makers)), dict(plugins._imported)
    plugins._imported.clear()
    modules = {name: sys.modules.pop(name) for name in _imported_modules()}
    with registers_restored():
        try:
            yield
        finally:
            FIGURES._entries, FIGURES._makers = figures
            plugins._imported.clear()
            plugins._imported.update(before)
            for name in _imported_modules():
                del sys.modules[name]
            sys.modules.update(modules)


def _imported_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("rmft_import_")]


@contextlib.contextmanager
def imported(*names: str) -> Iterator[Any]:
    """Some tutorials' modules."""
    with as_before():
        for name in names:
            import_code(TUTORIALS / name)
        modules = [sys.modules[name] for name in _imported_modules()]
        yield modules[0] if len(names) == 1 else modules


def world(switch_rate: float, num_arms: int = 5, horizon: int = 40, count: int = 500) -> np.ndarray:
    """Expected rewards of some scenarios, `[count, T, K]`."""
    with imported("own_environment.py") as module:
        markov = module.Markov(num_arms=num_arms, switch_rate=switch_rate)
        masks = jnp.ones(num_arms, bool), jnp.ones(horizon, bool)
        return np.asarray(jax.vmap(lambda key: markov.reset(key, *masks))(jax.random.split(jax.random.key(0), count)))
