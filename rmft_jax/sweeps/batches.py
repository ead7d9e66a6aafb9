"""Trains and evaluates one batch of cells, from wherever it was left, and yields a result for each of them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from rmft_jax.config import Params
from rmft_jax.running.checkpoints import Checkpoints
from rmft_jax.running.files import RunError, UnreadableError, remove
from rmft_jax.running.history import History
from rmft_jax.running.trainer import training
from rmft_jax.running.weights import founded
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.programs import Batch, BatchStepper, Programs, own_problem, padded_config
from rmft_jax.sweeps.results import baselines_of, cell_dataset
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
    keep_weights: whether results have the parameters of the policies.
    """

    group: Group
    cells: tuple[Cell, ...]
    wanted: tuple[int, ...]
    baselines: tuple[str, ...] | None
    keep_weights: bool = False

    @property
    def label(self) -> str:
        """Its first cell, and how many more there are."""
        more = len(self.wanted) - 1
        return self.cells[self.wanted[0]].label + (f" and {more} more" if more else "")


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a cell: its dataset, with its policy's parameters where they are kept, or why there is none."""

    cell: Cell
    dataset: xr.Dataset | None = None
    params: Params | None = None
    failure: str | None = None


def make_tasks(
    groups: Sequence[Group],
    width: int,
    finished: Collection[int],
    baselines: Sequence[str] | None,
    keep_weights: bool = False,
) -> list[Task]:
    """The batches, of at most `width` cells, in which something is left to do.

    Which cells share a batch does not depend on what is finished, so that a resumed sweep computes the same bits.
    """
    names = None if baselines is None else tuple(baselines)
    tasks = []
    for group in groups:
        size = 1 if group.config.rmft.policy.has_fixed else min(width, len(group.cells))
        for start in range(0, len(group.cells), size):
            cells = group.cells[start : start + size]
            wanted = tuple(slot for slot, cell in enumerate(cells) if cell.index not in finished)
            if wanted:
                filled = cells + cells[:1] * (size - len(cells))
                tasks.append(Task(group, filled, wanted, names, keep_weights))
    return tasks


def run_task(task: Task, programs: Programs, folder: Path | None, watch: Watch) -> Iterator[Result]:
    """Trains the batch, then evaluates cell by cell. What does not fit into memory has failed; other errors are raised.

    Args:
      task: the batch.
      programs: those of its group.
      folder: of unfinished work, which is taken up where it was left; None keeps none.
      watch: called after every chunk with the iterations done and the mean validation regret.
    """
    path = folder / f"{task.cells[0].index:05d}" if folder is not None else None
    missing = {slot: task.cells[slot] for slot in task.wanted}
    try:
        for slot, result in _run(task, programs, path, watch):
            del missing[slot]
            yield result
    except jax.errors.JaxRuntimeError as error:
        message = f"{str(error).splitlines()[0]}; try fewer num_scenarios, a rollout_block, or fewer cells per batch"
        yield from (Result(cell, failure=message) for cell in missing.values())
    if path is not None:
        remove(path)
        with contextlib.suppress(OSError):  # Others are still in it.
            path.parent.rmdir()


def _run(task: Task, programs: Programs, path: Path | None, watch: Watch) -> Iterator[tuple[int, Result]]:
    batch, history = _train(task, programs, path, watch)
    for slot in task.wanted:
        cell = task.cells[slot]
        if slot in history.failures:
            yield slot, Result(cell, failure=history.failures[slot])
            continue
        started, compiled = time.perf_counter(), programs.compile_seconds
        padded, best = padded_config(cell, task.group), history.best_of(slot)
        agent = jax.device_put(jax.tree.map(np.float32, padded)).agent(best)
        agents = {"rmft": agent, **baselines_of(cell, task.group, task.baselines)}
        plays = programs.evaluate(agents, cell, np.asarray(batch.test_key)[slot])
        seconds = time.perf_counter() - started - (programs.compile_seconds - compiled)
        dataset = cell_dataset(cell, plays, history, slot, seconds + history.seconds / len(task.cells))
        params = None
        if task.keep_weights:
            own = own_problem(padded, cell.config.rmft.environment.num_arms, cell.config.rmft.horizon)
            params = padded.policy.cut(best, own, padded.problem())
        yield slot, Result(cell, dataset, params)


def _train(task: Task, programs: Programs, path: Path | None, watch: Watch) -> tuple[Batch, History]:
    config, batch, history = task.group.config, programs.start(task.cells), History.fresh(len(task.cells))
    checkpoints = None
    if path is not None:
        identity = [config.flat(), *(cell.config.flat() for cell in task.cells), *founded(config).values()]
        checkpoints = Checkpoints(path, identity, warn=lambda line: None)
        try:
            restored = checkpoints.restore(batch.state)
        except UnreadableError:
            raise
        except RunError:  # Damaged, or of another batch: begun anew, with nothing of it beside what will be saved.
            restored = None
            remove(path)
        with contextlib.suppress(OSError):  # Others are still in it.
            path.parent.rmdir()
        if restored is not None:
            batch, history = dataclasses.replace(batch, state=restored[0]), restored[1]
    stepper, saved = BatchStepper(programs, batch), time.perf_counter()
    for _ in training(stepper, history, config):
        watch(history.done, history.live_regret)
        if not set(task.wanted) - history.failures.keys():
            break  # Nobody is left who could still learn.
        if checkpoints is not None and time.perf_counter() - saved > _SAVE_SECONDS:
            checkpoints.save(stepper.state, history)
            saved = time.perf_counter()
    return stepper.batch, history
