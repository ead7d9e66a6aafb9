"""A run from start to end: training, checkpoints, metrics, evaluation, resumption."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh

from rmft_jax.agents import Agent, make_baselines
from rmft_jax.agents.base import RefittedAgent
from rmft_jax.config import Params, ScalarKey
from rmft_jax.config.checks import either, require
from rmft_jax.config.names import TRAINED
from rmft_jax.method import evaluation
from rmft_jax.method.contract import require_agents_of_users, require_contract
from rmft_jax.method.devices import device_name, local, make_mesh, use_cores
from rmft_jax.method.numerics import pinned
from rmft_jax.method.settings import RunConfig, differing_settings
from rmft_jax.method.state import TrainState, abstract_state, init, starting_from
from rmft_jax.problems import Problem
from rmft_jax.running import processes
from rmft_jax.running.checkpoints import Checkpoints, revived, stored
from rmft_jax.running.files import RunError, unless_damaged
from rmft_jax.running.history import History
from rmft_jax.running.interruption import StopSignals
from rmft_jax.running.logs import Callback, Log, Row, append_line, opened, require_logs, restore_lines
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.provenance import versions
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys, RunStepper, TrainingDivergedError, training
from rmft_jax.running.weights import (
    TrainedPolicy,
    fitted,
    founded,
    named,
    policy_of,
    read_policy,
    require_same_foundation,
    write_policy,
)
from rmft_jax.statistics.report import summarize


@pinned()
def train(
    config: RunConfig,
    directory: str | Path,
    *,
    preset: str = "custom",
    start: TrainedPolicy | None = None,
    resume: bool = False,
    overwrite: bool = False,
    num_devices: int | None = None,
    on_chunk: Callback | None = None,
    log: Sequence[str] = (),
    reporter: ProgressReporter | None = None,
) -> dict[str, Any]:
    """Trains to the end, evaluates, and leaves a complete run directory.

    After every chunk of iterations its metrics stand in `metrics.nc`, and as a line in `metrics.jsonl`.

    Of several processes (`processes.join`), which all call this with the same arguments, the first has the directory.

    Args:
      config: the run.
      directory: where its files go.
      preset: the name of the configuration, for the record.
      start: a trained policy whose weights are the first ones, instead of random ones; the optimizer begins anew.
      resume: continue the run in `directory`, bit for bit as if it had never stopped on as many devices, else but for
        rounding; start it if there is none.
      overwrite: replace a run in `directory`.
      num_devices: how many share the scenarios. None: as many as there are and share them evenly; on CPU there is one
        per core, unless JAX has started before with less.
      on_chunk: called in the first process after every chunk, once that is saved, with its line in `metrics.jsonl` as a
        dictionary and the state: `def on_chunk(row, state)`. What it raises ends the run, which can be resumed. A
        resumed run does not tell again what it told before.
      log: further logs to keep, some of `tensorboard` and `wandb`, each with the package of an extra of its name.
      reporter: where progress is shown. None: standard error.

    Returns:
      The contents of `summary.json`; nothing in other processes than the first.

    Raises:
      ConfigError: if the configuration cannot work, or the scenarios cannot be shared by that many devices.
      RunError: if the directory cannot be used as asked, or was made with another configuration.
      TrainingDivergedError: on NaN or infinity; the last good checkpoint stays.
      InterruptedRunError: after SIGINT or SIGTERM, once the run can be resumed.
    """
    config.validate()
    if resume and overwrite:
        raise RunError(f"got both {either('--resume and --overwrite', 'resume and overwrite')}; try one of them")
    require(isinstance(preset, str), f"preset={preset!r}", "a name", "preset='custom'")
    policy = start is None or isinstance(start, TrainedPolicy)
    require(policy, f"start={start!r}", "a policy", "start=rmft_jax.load_policy(...)")
    require(on_chunk is None or callable(on_chunk), f"on_chunk={on_chunk!r}", "a function", "leaving it out")
    require_logs(log)
    use_cores(num_devices)
    mesh, directory = make_mesh(num_devices, config.rmft.num_scenarios), Path(directory)
    require_contract(config.rmft)
    require_agents_of_users(config.rmft.problem())
    beginning = beginning_of(config, start)
    reporter = reporter or ProgressReporter()
    if not processes.is_first():
        _follow(config, directory, beginning, mesh)
        processes.meet()
        return {}
    run = RunDirectory(directory)
    with run.held(resume, overwrite) as resumed, StopSignals(directory, reporter.note) as stop:
        if resumed:
            _require_same_config(run, config)
            _require_same_start(run, start)
        else:
            write_start = None if start is None else functools.partial(_write_start, start, config, preset)
            RunDirectory.create(directory, config, preset, overwrite, write_start)
        if run.start.is_file():
            beginning = beginning_of(config, read_policy(run.start))
        summary = _Session(config, preset, run, reporter, stop, mesh, on_chunk, log).run(beginning)
    processes.meet()  # Who left before the evaluation would be taken for dead.
    return summary


@pinned()
def load_run(directory: str | Path, which: str = "best", warn: Callable[[str], None] = print) -> TrainedPolicy:
    """The trained policy of a run.

    Args:
      directory: of the run.
      which: `best` by validation regret, or `last`.
      warn: called with a line for every damaged checkpoint that is passed over.

    Raises:
      ConfigError: for another `which`.
      RunError: if there is no run, or it has no usable checkpoint.
    """
    require(which in ("best", "last"), f"which={which!r}", "best or last", "which='best'")
    run = RunDirectory.open(Path(directory))
    config, preset = run.read_config()
    restored = Checkpoints(run.checkpoints, run.identity(), warn).restore(abstract_state(config.rmft))
    if restored is None:
        raise RunError(f"{run.path} has no checkpoint yet; try {run.further}")
    state, history = restored
    params = history.best_of() if which == "best" else state.params
    iteration = int(history.best_iteration[0]) if which == "best" else history.done
    return policy_of(config, preset, {"iteration": iteration}, lambda like: fitted(named(params), like))


def beginning_of(config: RunConfig, start: TrainedPolicy | None) -> TrainState:
    """The state before the first iteration, with random weights or those of a trained policy."""
    key = RunKeys.create(config.seed).train
    if start is None:
        return init(config.rmft, key)
    require_same_foundation(founded(start.config), config)
    return starting_from(config.rmft, key, start.agent.params)


def _follow(config: RunConfig, directory: Path, beginning: TrainState, mesh: Mesh | None) -> None:
    """What the other processes do: their share of the work, silently."""
    state, resumed = _agreed(beginning, None)
    history = History.fresh(1)
    if resumed:
        nothing = np.full((1, 1), np.inf)
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], state.params)
        done = np.asarray([int(state.iteration)])
        history = dataclasses.replace(
            history, iterations=done, validation=nothing, validation_sem=nothing, best=params, best_iteration=done
        )
    if history.done == config.rmft.num_iterations:
        return
    stepper = RunStepper(config, state, mesh)
    with StopSignals(directory, lambda message: None) as stop, stop.deferred():
        for _ in training(stepper, history, config, _one):
            _require_finite(history)
            stop.check(f"stopped at iteration {history.done}")


def _require_finite(history: History) -> None:
    if history.failures:
        raise TrainingDivergedError(f"{history.failures[0]} in a new run; the checkpoint before it is kept")


def _agreed(state: TrainState, restored: TrainState | None) -> tuple[TrainState, bool]:
    """Where training goes on, and whether from a checkpoint: as the first process, which has the directory, says."""
    resumed = processes.highest(int(restored is not None)) == 1
    start = state if restored is None else restored
    plain = jax.tree.map(np.asarray, stored(start))
    return revived(processes.from_first(plain), start), resumed


def _one(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf[None], params)


class _Session:
    """The first process's share of a run, from the last checkpoint to the end or to a stop signal."""

    def __init__(
        self,
        config: RunConfig,
        preset: str,
        run: RunDirectory,
        reporter: ProgressReporter,
        stop: StopSignals,
        mesh: Mesh | None,
        on_chunk: Callback | None,
        log: Sequence[str],
    ):
        self._config, self._preset, self._run, self._reporter, self._stop = config, preset, run, reporter, stop
        self._mesh, self._on_chunk, self._log = mesh, on_chunk, log
        self._checkpoints = Checkpoints(run.checkpoints, run.identity(), reporter.note)

    def run(self, beginning: TrainState) -> dict[str, Any]:
        config, total = self._config, self._config.rmft.num_iterations
        restored = self._checkpoints.restore(abstract_state(config.rmft))
        history = History.fresh(1) if restored is None else restored[1]
        state, resumed = _agreed(beginning, restored and restored[0])
        rows = restore_lines(self._run, history)
        if resumed:
            self._restore_metrics(history)
            if history.done == total and (summary := self._finished_summary()):
                again = either("--overwrite", "overwrite=True")
                self._reporter.note(f"{self._run.path} is complete: nothing to resume; {again} trains it again")
                return summary
            self._reporter.note(f"resuming {self._run.path} at iteration {history.done} of {total}")
        if history.done < total or not history.validated:
            with opened(self._log, self._run, rows) as logs:
                self._train(state, history, logs)
        return self._finish(history)

    def _train(self, state: TrainState, history: History, logs: Sequence[Log]) -> None:
        config, device = self._config, device_name(self._mesh)
        self._note_other_device(device)
        with self._reporter.status("compiling the training step"):
            stepper = RunStepper(config, state, self._mesh)
        history.compile_seconds += stepper.compile_seconds
        self._reporter.note(f"compiled in {stepper.compile_seconds:.1f} s for {device}")
        with self._reporter.bar("iteration", config.rmft.num_iterations, history.done) as bar, self._stop.deferred():
            for _ in training(stepper, history, config, _one):
                _require_finite(history)
                newest = local(stepper.state)
                self._save(newest, history, device)
                self._tell(newest, history, logs)
                if history.done:
                    latest = (history.metrics[name][0, -1] for name in ("regret", "entropy"))
                    bar.update(history.done, history.live_regret, *map(float, latest))
                self._stop.check(f"stopped at iteration {history.done}")

    def _save(self, state: TrainState, history: History, device: str) -> None:
        # Metrics first: whatever the checkpoint knows, the metrics then know too.
        self._write_metrics(history, device)
        self._checkpoints.save(state, history)

    def _write_metrics(self, history: History, device: str) -> None:
        attrs = {"seed": self._config.seed, "horizon": self._config.rmft.horizon, "device": device}
        self._run.write_dataset("metrics.nc", history.dataset().assign_attrs(attrs))

    def _restore_metrics(self, history: History) -> None:
        """Makes `metrics.nc` again from the checkpoint, where it is missing or damaged."""
        with unless_damaged():
            self._run.read_dataset("metrics.nc")
            return
        device = device_name(self._mesh)
        with unless_damaged():
            device = str(self._run.read_summary().get("device", device))
        self._write_metrics(history, device)

    def _tell(self, state: TrainState, history: History, logs: Sequence[Log]) -> None:
        row: Row = history.row() | {"seconds": round(history.seconds, 3)}
        append_line(self._run, row)
        for log in logs:
            log(row)
        if self._on_chunk is not None:
            self._on_chunk(row, state)

    def _note_other_device(self, device: str) -> None:
        with unless_damaged():
            if (before := self._run.read_dataset("metrics.nc").attrs["device"]) != device:
                self._reporter.note(f"begun on {before}, goes on on {device}: the same but for rounding")

    def _finished_summary(self) -> dict[str, Any] | None:
        """The summary of a run whose evaluation is whole too; else None, and both are made again."""
        with unless_damaged():
            self._run.read_dataset("evaluation.nc")
            return self._run.read_summary()
        return None

    def _finish(self, history: History) -> dict[str, Any]:
        config, algorithm = self._config, self._config.rmft
        best = f"iteration {history.best_iteration[0]}, of the lowest validation regret,"
        self._reporter.note(f"evaluating {best} on {config.num_test_scenarios} test scenarios")
        agent = algorithm.agent(jax.tree.map(jnp.asarray, history.best_of()))
        dataset = evaluate_run(config, agent, RunKeys.create(config.seed).test, reporter=self._reporter)
        self._run.write_dataset("evaluation.nc", dataset)
        rollouts = algorithm.num_iterations * algorithm.num_scenarios * algorithm.num_rollouts
        summary = {
            "preset": self._preset,
            "seed": config.seed,
            "device": device_name(self._mesh),
            "versions": versions(),
            "wall_seconds": history.seconds + history.compile_seconds,
            "compile_seconds": history.compile_seconds,
            "env_steps": rollouts * algorithm.horizon,
            "checkpoint_iteration": int(history.best_iteration[0]),
            "evaluation": summarize(dataset),
        }
        self._run.write_summary(summary)
        return self._run.read_summary()  # As it is on file, where what cannot be computed is null.


@pinned()
def evaluate_run(
    config: RunConfig,
    agent: Agent,
    key: ScalarKey,
    *,
    num_arms: int | None = None,
    reporter: ProgressReporter | None = None,
) -> xr.Dataset:
    """The trained policy, named `rmft`, and the classical agents on the scenarios of `key`.

    Args:
      config: of the run.
      agent: the policy.
      key: determines scenarios and rewards.
      num_arms: of the arms, only the first ones exist. None: all do. An agent that is made anew for every size, as one
        that is told of problems in words, plays as many; and more than in training, whoever plays any number.
      reporter: where progress is shown. None: nowhere.
    """
    more = num_arms is not None and num_arms > config.rmft.environment.num_arms and config.rmft.policy.any_num_arms
    if num_arms is not None and (more or isinstance(agent, RefittedAgent)):
        config, num_arms = config.replace(num_arms=num_arms), None
        Problem.checked(config.rmft.environment, config.rmft.horizon)
    problem = config.rmft.problem()
    if num_arms is not None:
        extent = Problem.checked(problem.environment, problem.horizon, num_arms).extent
        problem = dataclasses.replace(problem, extent=extent)
    agents = {TRAINED: agent, **make_baselines(problem)}
    with (reporter or ProgressReporter.silent()).bar("agent", len(agents), 0) as bar:
        return evaluation.evaluate(agents, problem, num_scenarios=config.num_test_scenarios, key=key, watch=bar.add)


def _require_same_config(run: RunDirectory, config: RunConfig) -> None:
    saved, _ = run.read_config()
    changes = [f"{name}: the run has {old!r}, got {new!r}" for name, old, new in differing_settings(saved, config)]
    if changes:
        raise RunError(
            f"cannot resume {run.path} with a changed configuration ({'; '.join(changes)}); "
            f"try {run.further} without them, or another {either('--out', 'directory')}"
        )


def _write_start(start: TrainedPolicy, config: RunConfig, preset: str, path: Path) -> None:
    write_policy(path, start.agent.params, config, preset, {"from": dict(start.provenance)})


def _require_same_start(run: RunDirectory, start: TrainedPolicy | None) -> None:
    if start is None:
        return
    given = named(start.agent.params)
    own = named(read_policy(run.start).agent.params) if run.start.is_file() else {}
    if given.keys() != own.keys() or not all(np.array_equal(own[name], given[name]) for name in given):
        raise RunError(
            f"cannot resume {run.path} from other weights than those it started from; "
            f"try {run.further} without {either('--from', 'start')}, or another "
            f"{either('--out', 'directory')}"
        )
