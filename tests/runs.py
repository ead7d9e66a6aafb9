"""What tests of runs share: tiny ones that are watched, stopped, damaged and compared."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from rmft_jax import cli
from rmft_jax.agents import make_baselines
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import TrainState, abstract_state, init
from rmft_jax.running import trainer, training, weights
from rmft_jax.running.checkpoints import Checkpoints, stored
from rmft_jax.running.history import METRICS, History
from rmft_jax.running.interruption import InterruptedRunError
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.storage import RunDirectory

# Makes of `rmft train quickstart` what `worlds.TINY_RUN` is.
TINY_WORDS = [
    "--horizon", "6", "--num-layers", "1", "--width", "8", "--num-iterations", "6", "--chunk-size", "2",
    "--num-scenarios", "8", "--num-rollouts", "4", "--k", "2", "--num-minibatches", "2",
    "--num-validation-scenarios", "16", "--num-test-scenarios", "32",
]  # fmt: skip


class Reporter(ProgressReporter):
    def __init__(self):
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))


def last(config: RunConfig, path: Path) -> tuple[TrainState, History]:
    """State and history of the newest checkpoint, which must be whole."""
    store = Checkpoints(path / "checkpoints", RunDirectory(path).identity(), pytest.fail)
    restored = store.restore(abstract_state(config.rmft))
    assert restored is not None
    return restored


def content(config: RunConfig, path: Path) -> dict[str, np.ndarray]:
    """Every array that a run depends on, by name; not how long it took."""
    state, past = last(config, path)
    arrays = weights.named(stored(state), "state.") | weights.named(past.best, "best.") | dict(past.metrics)
    for name in ("iterations", "validation", "validation_sem", "best_iteration"):
        arrays[name] = getattr(past, name)
    return arrays


def assert_same_run(config: RunConfig, first: Path, second: Path) -> None:
    """Parameters, optimizer state, metrics and evaluation, bit for bit."""
    arrays = [content(config, path) for path in (first, second)]
    assert arrays[0].keys() == arrays[1].keys()
    for name in arrays[0]:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name], err_msg=name)
    for name in ("metrics.nc", "evaluation.nc"):
        xr.testing.assert_identical(*(RunDirectory(path).read_dataset(name) for path in (first, second)))


@contextlib.contextmanager
def few_baselines(*names: str) -> Iterator[None]:
    """Runs end with few rivals and without figures, which take most of their time; `test_cli.py` has them all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_baselines", functools.partial(make_baselines, among=names))
        patch.setattr("rmft_jax.sweeps.results._DEFAULT", names)
        patch.setattr("rmft_jax.cli.train.plot", lambda words: 0)
        yield


@contextlib.contextmanager
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Calls a function in another thread, for which a lock is what it is for another process."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield lambda function, *args, **options: pool.submit(function, *args, **options).result()


def interrupt_after(monkeypatch: pytest.MonkeyPatch, chunks: int, number: int = signal.SIGINT) -> None:
    """Sends this process a signal while chunk number `chunks` runs."""
    wait, count = trainer.wait, 0

    def sending(result: Any) -> None:
        nonlocal count
        if isinstance(result, jax.Array):  # And not the regrets of a validation.
            count += 1
            if count == chunks:
                os.kill(os.getpid(), number)
        wait(result)

    monkeypatch.setattr(trainer, "wait", sending)


def train_until(chunks: int, config: RunConfig, path: Path, **options: Any) -> Path:
    """A run that is stopped after so many chunks; returns its directory."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, chunks)
        with pytest.raises(InterruptedRunError):
            training.train(config, path, preset="tiny", reporter=Reporter(), **options)
    return path


def make_run(path: Path, config: RunConfig, chunks: int = 2) -> tuple[RunDirectory, TrainState, History]:
    """A run directory, with checkpoints after every two iterations, whose numbers are made up."""
    run, past = RunDirectory.create(path, config, "tiny"), History.fresh(1)
    state, store = init(config.rmft, jax.random.key(3)), Checkpoints(run.checkpoints, run.identity(), pytest.fail)
    rng = np.random.default_rng(0)
    for chunk in range(chunks + 1):
        params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype(np.float32), state.params)
        state = dataclasses.replace(state, params=params, iteration=np.int32(2 * chunk))
        if chunk:
            metrics = IterationMetrics(*rng.spawn(1)[0].normal(size=(len(METRICS), 1, 2)).astype(np.float32))
            past.add_chunk(metrics, np.asarray([True]))
        past.add_validation(2 * chunk, rng.random((1, 8)), jax.tree.map(lambda leaf: np.asarray(leaf)[None], params))
        past.seconds += 1.5
        store.save(state, past)
    return run, state, past


def damage(path: Path, how: str) -> None:
    """Cuts a file of weights, or all those of a folder, in half, or flips a byte in its largest array."""
    for file in [path] if path.is_file() else list(path.iterdir()):
        content = bytearray(file.read_bytes())
        if how == "truncate":
            content = content[: len(content) // 2]
        else:
            with zipfile.ZipFile(file) as archive:
                largest = max(archive.infolist(), key=lambda entry: entry.file_size)
            content[largest.header_offset + largest.file_size] ^= 0xFF
        file.write_bytes(content)


def refused(capsys: Any, *words: object) -> str:
    """Runs a command that must be refused, and returns its one line."""
    assert cli.main([*map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rmft: error: ")
    assert err.count("\n") == 1
    assert "; try " in err
    return err


def files_of(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
