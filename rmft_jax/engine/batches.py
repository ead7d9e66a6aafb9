"""Trains and evaluates one batch of cells, from wherever it was left, and yields a result for each of them."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from rmft_jax.agents import trained_agent
from rmft_jax.engine import unfinished
from rmft_jax.engine.programs import Batch, Programs, padded_config
from rmft_jax.engine.results import baselines_of, cell_dataset
from rmft_jax.engine.unfinished import Progress
from rmft_jax.interruption import wait
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.spec import Cell

_SAVE_SECONDS = 30.0

Watch = Callable[[int, float], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """Cells that are trained together: what an executor hands out.

    group: whose programs they need.
    cells: one per slot of the batch. All batches of a group have as many, so that one program serves them; where cells
      run short, the first one fills up.
    wanted: slots whose results are still missing.
    baselines: names of the classical agents to play beside; None for the default.
    """

    group: Group
    cells: tuple[Cell, ...]
    wanted: tuple[int, ...]
    baselines: tuple[str, ...] | None

    @property
    def label(self) -> str:
        """Its first cell, and how many more there are."""
        more = len(self.wanted) - 1
        return self.cells[self.wanted[0]].label + (f" and {more} more" if more else "")


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a cell: its dataset, or why there is none."""

    cell: Cell
    dataset: xr.Dataset | None = None
    failure: str | None = None


def make_tasks(
    groups: Sequence[Group], width: int, finished: Collection[int], baselines: Sequence[str] | None
) -> list[Task]:
    """The batches, of at most `width` cells, in which something is left to do.

    Which cells share a batch does not depend on what is finished, so that a resumed sweep computes the same bits.
    """
    names = None if baselines is None else tuple(baselines)
    tasks = []
    for group in groups:
        size = min(width, len(group.cells))
        for start in range(0, len(group.cells), size):
            cells = group.cells[start : start + size]
            wanted = tuple(slot for slot, cell in enumerate(cells) if cell.index not in finished)
            if wanted:
                tasks.append(Task(group, cells + cells[:1] * (size - len(cells)), wanted, names))
    return tasks


def run_task(task: Task, programs: Programs, folder: Path | None, watch: Watch) -> Iterator[Result]:
    """Trains the batch, then evaluates cell by cell. What does not fit into memory has failed; other errors are raised.

    Args:
      task: the batch.
      programs: those of its group.
      folder: of unfinished work, which is taken up where it was left; None keeps none.
      watch: called after every chunk with the iterations done and the mean validation regret.
    """
    path = folder / f"{task.cells[0].index:05d}.npz" if folder is not None else None
    missing = {slot: task.cells[slot] for slot in task.wanted}
    try:
        for slot, result in _run(task, programs, path, watch):
            del missing[slot]
            yield result
    except jax.errors.JaxRuntimeError as error:
        message = f"{str(error).splitlines()[0]}; try fewer num_scenarios, a rollout_block, or fewer cells per batch"
        yield from (Result(cell, failure=message) for cell in missing.values())
    if path is not None:
        path.unlink(missing_ok=True)


def _run(task: Task, programs: Programs, path: Path | None, watch: Watch) -> Iterator[tuple[int, Result]]:
    batch, progress = _train(task, programs, path, watch)
    for slot in task.wanted:
        cell = task.cells[slot]
        if slot in progress.failures:
            yield slot, Result(cell, failure=progress.failures[slot])
            continue
        started, compiled = time.perf_counter(), programs.compile_seconds
        padded = jax.tree.map(np.float32, padded_config(cell, task.group))
        best = jax.tree.map(lambda leaf, slot=slot: leaf[slot], progress.best)
        agents = {"rmft": trained_agent(padded, best), **baselines_of(cell, task.group, task.baselines)}
        plays = programs.evaluate(agents, cell, np.asarray(batch.test_key)[slot])
        seconds = time.perf_counter() - started - (programs.compile_seconds - compiled)
        seconds += progress.seconds / len(task.cells)
        yield slot, Result(cell, cell_dataset(cell, plays, progress, slot, seconds))


def _train(task: Task, programs: Programs, path: Path | None, watch: Watch) -> tuple[Batch, Progress]:
    config = task.group.config
    batch, progress = programs.start(task.cells), Progress.fresh(len(task.cells))
    identity = repr((config, [cell.config for cell in task.cells]))
    if path is not None:
        batch, progress = unfinished.load(path, identity, batch) or (batch, progress)
    saved = time.perf_counter()
    while not progress.validated or progress.done < config.rmft.num_iterations:
        if not set(task.wanted) - progress.failures.keys():
            break  # Nobody is left who could still learn.
        started, compiled = time.perf_counter(), programs.compile_seconds
        chunk = config.chunk_size if progress.validated else 0
        done = progress.done + chunk
        batch, metrics, regret, finite = programs.advance(batch, chunk > 0)
        wait(regret)
        if chunk:
            progress.add_chunk(metrics, np.asarray(finite))
        progress.add_validation(done, np.asarray(regret), jax.device_get(batch.state.evaluated_params))
        progress.seconds += time.perf_counter() - started - (programs.compile_seconds - compiled)
        watch(progress.done, progress.live_regret)
        if path is not None and time.perf_counter() - saved > _SAVE_SECONDS:
            unfinished.save(path, identity, batch, progress)
            saved = time.perf_counter()
    return batch, progress
