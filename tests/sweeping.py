"""Tiny sweeps, and an executor that keeps its compiled programs from one sweep to the next."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from rich.console import Console

from rmft_jax import Sweep, load_sweep
from rmft_jax.running.interruption import InterruptedRunError
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.sweeps.batches import Result, Task, run_task
from rmft_jax.sweeps.plan import structure
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.run import Jobs, Outcome, run_sweep

# Makes of `quickstart` what `worlds.TINY_RUN` is.
TINY_OVERRIDE: dict[str, Any] = {
    "num_layers": 1, "width": 8, "num_iterations": 6, "chunk_size": 2, "num_scenarios": 8, "num_rollouts": 4, "k": 2,
    "num_minibatches": 2, "num_validation_scenarios": 16, "num_test_scenarios": 32,
}  # fmt: skip
CHUNKS = 1 + 3
"""Of a batch of tiny cells; the first one only validates."""
GRID = {"horizon": [6, 8], "num_arms": [3, 4], "seed": [0, 1]}
SWEEP = Sweep("quickstart", grid=GRID, override=TINY_OVERRIDE, baselines=["ucb1", "thompson"])


class Quiet(ProgressReporter):
    def __init__(self):
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))


class CountedPrograms(Programs):
    """Programs that count the chunks that they run."""

    chunks = 0

    def advance(self, batch: Any, run: bool) -> Any:
        self.chunks += 1
        return super().advance(batch, run)


class KeptPrograms:
    """An executor as `run_locally`, whose programs serve every sweep of cells that fit the shapes of its first one."""

    def __init__(self):
        self._programs: dict[Any, CountedPrograms] = {}
        self.interrupt_after = 0

    def __call__(self, jobs: Jobs) -> Iterator[Result]:
        for task in jobs.tasks:
            yield from run_task(task, self.of(task), jobs.unfinished, self._watch)

    def of(self, task: Task) -> CountedPrograms:
        shapes = tuple(structure(task.group.config).items())
        if shapes not in self._programs:
            self._programs[shapes] = CountedPrograms(task.group)
        return self._programs[shapes]

    @property
    def chunks(self) -> int:
        """Chunks run so far, those that only validate included."""
        return sum(programs.chunks for programs in self._programs.values())

    @property
    def compiled(self) -> int:
        """Programs compiled so far."""
        return sum(programs.num_compiled for programs in self._programs.values())

    def _watch(self, done: int, regret: float) -> None:
        self.interrupt_after -= 1
        if self.interrupt_after == 0:
            raise KeyboardInterrupt


def run(sweep: Sweep, path: Path, **options: Any) -> tuple[xr.Dataset, Outcome]:
    outcome = run_sweep(sweep, path, reporter=Quiet(), **options)
    return load_sweep(path, warn=_refuse), outcome


def _refuse(line: str) -> None:
    raise AssertionError(line)


def assert_equal(first: xr.Dataset, second: xr.Dataset) -> None:
    """Bit for bit, but for when it was and how long it took."""
    xr.testing.assert_equal(first.drop_vars("wall_seconds"), second.drop_vars("wall_seconds"))
    assert {**first.attrs, "created": ""} == {**second.attrs, "created": ""}


def cell_times(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in sorted((path / "cells").iterdir())}


def interrupted(path: Path, programs: KeptPrograms, after: int, sweep: Sweep, **options: Any) -> None:
    """Runs a sweep in batches of three until so many chunks are done."""
    programs.interrupt_after = after
    with pytest.raises(InterruptedRunError, match="is finished; continue with the same call and resume=True"):
        run(sweep, path, cells_per_batch=3, executor=programs, **options)
