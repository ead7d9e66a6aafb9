"""Runs the cells of a sweep that are not finished yet, and writes each as it comes."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import jax

from rmft_jax.config.checks import either, require_count
from rmft_jax.config.platforms import platform
from rmft_jax.method.contract import require_agents_of_users, require_contract
from rmft_jax.method.numerics import pinned
from rmft_jax.method.settings import RunConfig
from rmft_jax.running.files import RunError, remove
from rmft_jax.running.interruption import InterruptedRunError
from rmft_jax.running.progress import Bar, ProgressReporter
from rmft_jax.running.provenance import provenance
from rmft_jax.sweeps.batches import Result, Task, Watch, make_tasks, run_task
from rmft_jax.sweeps.plan import Group, plan, require_filled_up
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.results import baselines_of
from rmft_jax.sweeps.spec import Cell, Sweep
from rmft_jax.sweeps.store import SweepDirectory

# Part of an accelerator's memory that the trajectories of a batch may fill; their copies need the rest.
_MEMORY_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    failures: messages by the label of the cell.
    """

    finished: int
    failures: dict[str, str]
    missing: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Jobs:
    """What an executor is handed.

    tasks: in the order in which they should be begun; those of a group in a row.
    unfinished: folder for the state of tasks in training, which may be taken up there.
    watch: called with words that say where work stands.
    note: called with a line for whoever looks on.
    """

    tasks: Sequence[Task]
    unfinished: Path
    watch: Callable[[str], None]
    note: Callable[[str], None]


Executor = Callable[[Jobs], Generator[Result, None, None]]


def run_locally(jobs: Jobs) -> Generator[Result, None, None]:
    """One task after the other in this process."""
    group, programs = None, None
    for task in jobs.tasks:
        if programs is None or task.group is not group:
            group, programs = task.group, Programs(task.group, on_compile=jobs.note)
        yield from run_task(task, programs, jobs.unfinished, _words(jobs, task))


def _words(jobs: Jobs, task: Task) -> Watch:
    total = task.group.config.rmft.num_iterations

    def say(done: int, regret: float) -> None:
        jobs.watch(f"{task.label} · iteration {done}/{total} · validation regret {regret:.2f}")

    return say


@pinned()
def run_sweep(
    sweep: Sweep,
    directory: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor = run_locally,
    max_failures: int | None = None,
    cells_per_batch: int = 0,
    pad: bool = True,
    keep_weights: bool = False,
    reporter: ProgressReporter | None = None,
) -> Outcome:
    """Trains and evaluates every cell of a sweep.

    Args:
      sweep: what varies.
      directory: where its files go; `load_sweep` reads them, at any time.
      resume: run what is missing or failed in `directory`; begin there if it is empty. The sweep may have grown: cells
        that `directory` does not know yet are run too, and those that it holds keep their results.
      overwrite: replace a sweep in `directory`.
      executor: who runs the tasks.
      max_failures: stop when so many cells have failed in this call. None: never.
      cells_per_batch: cells that are trained at once. 0 chooses: 1 on CPU, else as many as fit into memory.
      pad: whether cells of different horizons or arm counts may share a program.
      keep_weights: whether the policy of every cell that finishes is kept, for `load_policy`.
      reporter: where progress is shown. None: standard error.

    Raises:
      ConfigError: if the sweep cannot work.
      RunError: if the directory cannot be used as asked.
      InterruptedRunError: on Ctrl-C; everything that was finished is kept.
    """
    started, reporter = time.perf_counter(), reporter or ProgressReporter()
    if resume and overwrite:
        raise RunError(f"got both {either('--resume and --overwrite', 'resume and overwrite')}; try one of them")
    for name, value, minimum in (("max_failures", max_failures, 1), ("cells_per_batch", cells_per_batch, 0)):
        if value is not None:
            require_count(value, name, minimum, minimum)
    checked_plan(sweep.expand(), sweep.baselines, pad)
    files = SweepDirectory(Path(directory))
    with files.held(resume, overwrite) as resumed:
        if not resumed:
            SweepDirectory.create(files.path, sweep, provenance(), overwrite)
        files = SweepDirectory.open(files.path).grown(sweep, provenance())
        groups = plan(files.cells, pad=pad)
        done = files.finished(reporter.note)
        bare = sum(not files.weights_path(index).is_file() for index in done) if keep_weights else 0
        if bare:
            anew = either("--overwrite", "overwrite=True")
            reporter.note(f"{bare} finished cells keep no weights, since they ran without; {anew} runs all cells anew")
        tasks = [
            task
            for group in groups
            for task in make_tasks(
                [group], cells_per_batch or batch_size(group.config), done, sweep.baselines, keep_weights
            )
        ]
        total = len(files.cells)
        with reporter.bar("cell", total, len(done)) as bar:
            try:
                results = executor(Jobs(tasks, files.unfinished, bar.figures, reporter.note))
                failed = _collect(results, files, bar, max_failures)
            except KeyboardInterrupt:
                same = either("command and --resume", "call and resume=True")
                hint = f"{files.path} keeps what is finished; continue with the same {same}"
                raise InterruptedRunError(signal.SIGINT, f"stopped; {hint}") from None
        files.write_assembled(reporter.note)
        finished = len(files.finished(reporter.note))
        if finished == total:
            remove(files.unfinished)  # Of batches that were cut anew when the sweep grew.
    return Outcome(finished, failed, total - finished - len(failed), time.perf_counter() - started)


def checked_plan(cells: Sequence[Cell], baselines: Sequence[str] | None, pad: bool = True) -> list[Group]:
    """The groups of a sweep's cells, after a look at all that could be wrong with it.

    Raises:
      ConfigError: if a cell cannot work, or one of the baselines does not fit it.
    """
    groups, seen = plan(cells, pad=pad), set()
    for group in groups:
        require_contract(group.config.rmft)
        require_filled_up(group)
        require_agents_of_users(group.cells[0].config.rmft.problem(), baselines)
        for cell in group.cells:
            problem = (cell.config.rmft.environment, cell.config.rmft.horizon)
            if problem not in seen:
                seen.add(problem)
                baselines_of(cell, group, baselines)
    return groups


def batch_size(config: RunConfig) -> int:
    """Cells that are trained at once.

    On CPU one: its cores are busy with the rollouts of a single cell. Elsewhere as many as fit, by the memory that
    their trajectories take.
    """
    if platform() == "cpu":
        return 1
    rmft = config.rmft
    numbers = rmft.num_scenarios * rmft.num_rollouts * rmft.horizon * (3 * rmft.environment.num_arms + 3)
    memory = (jax.local_devices(backend=platform())[0].memory_stats() or {}).get("bytes_limit", 8e9)
    return max(1, int(_MEMORY_SHARE * memory / (4 * numbers)))


def _collect(
    results: Generator[Result, None, None], files: SweepDirectory, bar: Bar, max_failures: int | None
) -> dict[str, str]:
    """Writes results as they come; returns the messages of the failures."""
    failed: dict[str, str] = {}
    with contextlib.closing(results):  # Whatever ends this ends what still runs elsewhere.
        for result in results:
            if result.dataset is not None:
                if result.params is not None:  # Before the results, which say that the cell is finished.
                    files.write_weights(result.cell, result.params)
                files.write_cell(result.cell, result.dataset)
                bar.add(result.cell.label, float(result.dataset["final_regret"]))
                continue
            failed[result.cell.label] = str(result.failure)
            files.write_failure(result.cell, str(result.failure))
            bar.fail(result.cell.label, str(result.failure))
            if len(failed) == max_failures:
                break
    return failed
