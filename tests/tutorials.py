"""What tests of the pages and the tutorials share: commands at tiny sizes, imports that are forgotten again."""

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmft_jax.language.policy  # noqa: F401  # What registers itself within `as_before` would be forgotten.
from own import registers_restored
from rmft_jax import Problem, import_code, make_baselines
from rmft_jax.agents import reference_agent
from rmft_jax.cli import main
from rmft_jax.config import plugins
from rmft_jax.running import training

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Begins without users' code, as a process does, and forgets afterwards what was imported and registered."""
    before = dict(plugins._imported)
    plugins._imported.clear()
    modules = {name: sys.modules.pop(name) for name in _imported_modules()}
    with registers_restored():
        try:
            yield
        finally:
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


TRAINING = [
    "--num-iterations", "2", "--chunk-size", "1", "--num-scenarios", "8", "--num-rollouts", "4", "--horizon", "5",
    "--num-minibatches", "2", "--num-validation-scenarios", "8", "--num-test-scenarios", "16",
]  # fmt: skip
TRANSFORMER = ["--width", "8", "--num-layers", "1"]
PLAY = ["--num-scenarios", "16", "--horizon", "5"]
# What makes a sweep's file small.
OVERRIDE = (
    "num_iterations = 2\nnum_scenarios = 8\nnum_test_scenarios = 16\nnum_validation_scenarios = 8\nhorizon = 5\n"
    "num_rollouts = 4\nnum_minibatches = 2\nwidth = 8\nnum_layers = 1\n"
)


def rmft(*words: Any) -> int:
    """A command, which knows nothing of what those before it imported."""
    with as_before():
        return main([str(word) for word in words])


@contextlib.contextmanager
def quick(*agents: str) -> Iterator[list[str]]:
    """Trains beside few classical agents, and only names the figures of a run, whose making takes most of the time."""
    drawn: list[str] = []

    def few(problem: Problem, among: Any = None, *, size: int | None = None) -> dict[str, Any]:
        del among
        return make_baselines(problem, agents or (reference_agent(problem),), size=size)

    def note(figure: Any, path: Path) -> list[Path]:
        del figure
        drawn.append(path.name)
        return [path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_baselines", few)
        patch.setattr("rmft_jax.plotting.figures.save_figure", note)
        yield drawn


def small(words: list[str]) -> list[str]:
    """A command of a docstring at a tiny size."""
    match words:
        case ["train", first, *rest] if "--resume" not in rest or not first.startswith("-"):
            return [*words, *TRAINING, *([] if {"--policy", "single-layer"} & set(words) else TRANSFORMER)]
        case ["bench-agents", *rest]:
            return [*words, *PLAY, *([] if "--agents" in rest else ["--agents", "thompson", "uniform"])]
    return words


def laid_out(path: Path) -> Path:
    """A folder with a copy of the tutorials' files, whose sweep is tiny, and nothing else of the repository."""
    shutil.copytree(TUTORIALS, path / "docs" / "tutorials", ignore=shutil.ignore_patterns("__pycache__", "figures"))
    toml = path / "docs" / "tutorials" / "own_environment.toml"
    text, changed = re.subn(r"num_\w+ = \d+\n", "", toml.read_text())
    assert changed == 3
    toml.write_text(text.replace("[0, 1, 2]", "[0, 1]").replace('"discounted_ucb", ', "") + OVERRIDE)
    return path
