"""What tests of runs share: tiny ones that are watched, stopped, damaged and compared."""

import contextlib
import functools
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from rmft_jax.agents import make_baselines
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import TrainState, abstract_state
from rmft_jax.running import trainer, training, weights
from rmft_jax.running.checkpoints import Checkpoints, stored
from rmft_jax.running.history import History
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.storage import RunDirectory


class Reporter(ProgressReporter):
    def __init__(self):
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))


def last(config, path):
    """State and history of the newest checkpoint, which must be whole."""
    restored = Checkpoints(path / "checkpoints", config.flat(), pytest.fail).restore(abstract_state(config.rmft))
    assert restored is not None
    return restored


def content(config, path):
    """Every array that a run depends on, by name; not how long it took."""
    state, past = last(config, path)
    arrays = weights.named(stored(state), "state.") | weights.named(past.best, "best.") | dict(past.metrics)
    for name in ("iterations", "validation", "validation_sem", "best_iteration"):
        arrays[name] = getattr(past, name)
    return arrays


def assert_same_run(config, first, second):
    """Parameters, optimizer state, metrics and evaluation, bit for bit."""
    arrays = [content(config, path) for path in (first, second)]
    assert arrays[0].keys() == arrays[1].keys()
    for name in arrays[0]:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name], err_msg=name)
    for name in ("metrics.nc", "evaluation.nc"):
        xr.testing.assert_identical(*(RunDirectory(path).read_dataset(name) for path in (first, second)))


@contextlib.contextmanager
def few_baselines(*names: str) -> Iterator[None]:
    """Evaluations with few rivals: most of their time is compilation. `test_cli.py` has all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_baselines", functools.partial(make_baselines, among=names))
        yield


def interrupt_after(monkeypatch, chunks: int, number: int = signal.SIGINT):
    """Sends this process a signal while chunk number `chunks` runs."""
    wait, count = trainer.wait, 0

    def sending(result):
        nonlocal count
        if isinstance(result, jax.Array):  # And not the regrets of a validation.
            count += 1
            if count == chunks:
                os.kill(os.getpid(), number)
        wait(result)

    monkeypatch.setattr(trainer, "wait", sending)


def damage(path: Path, how: str) -> None:
    """Damages a file, or all files of a folder."""
    for file in [path] if path.is_file() else path.iterdir():
        content = bytearray(file.read_bytes())
        if how == "truncate":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 2] ^= 0xFF
        file.write_bytes(bytes(content))


def files_of(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


