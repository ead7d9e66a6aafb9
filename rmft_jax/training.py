"""The outer loop: compiled chunks, evaluation, checkpoints, metrics, resumption."""

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from rmft_jax import evaluation, processes, rmft
from rmft_jax.agents import make_ball_baselines, make_baselines, reference_agent
from rmft_jax.checkpoints import Checkpoints, Progress, from_arrays, to_arrays
from rmft_jax.config import RunConfig, differing_fields
from rmft_jax.devices import device_name, local, make_mesh, program_options, replicated, use_cores
from rmft_jax.environments import make_environment
from rmft_jax.interruption import StopSignals, wait
from rmft_jax.progress import ProgressReporter
from rmft_jax.report import summarize
from rmft_jax.storage import RunDirectory, RunError
from rmft_jax.types import IterationMetrics, ScalarKey, TrainState

METRICS = tuple(field.name for field in dataclasses.fields(IterationMetrics))


class TrainingDivergedError(Exception):
    """Loss, gradient or parameters are no longer finite. The last good checkpoint is untouched."""


@dataclasses.dataclass(frozen=True)
class RunKeys:
    """One root key per purpose, all from the run's seed."""

    train: ScalarKey
    validation: ScalarKey
    test: ScalarKey

    @classmethod
    def create(cls, seed: UInt32[Array, ""] | int) -> "RunKeys":
        """The keys of a run."""
        return cls(*jax.random.split(jax.random.key(seed), 3))


def train(
    config: RunConfig,
    directory: Path,
    *,
    preset: str = "custom",
    resume: bool = False,
    overwrite: bool = False,
    num_devices: int | None = None,
    reporter: ProgressReporter | None = None,
) -> dict[str, Any]:
    """Trains to the end, evaluates, and leaves a complete run directory.

    Of several processes (`processes.join`), which all call this with the same arguments, the first has the directory.

    Args:
      config: the run.
      directory: where its files go.
      preset: the name of the configuration, for the record.
      resume: continue the run in `directory`, bit for bit as if it had never stopped on as many devices, else but for
        rounding; start it if there is none.
      overwrite: replace a run in `directory`.
      num_devices: how many share the scenarios. None: as many as there are and share them evenly; on CPU there is one
        per core, unless JAX has started before with less.
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
        raise RunError("got both --resume and --overwrite; try one of them")
    use_cores(num_devices)
    mesh = make_mesh(num_devices, config.rmft.num_scenarios)
    reporter = reporter or ProgressReporter()
    if not processes.is_first():
        _follow(config, directory, mesh)
        processes.meet()
        return {}
    if resume and RunDirectory(directory).exists():
        run = RunDirectory.open(directory)
        _require_same_config(run, config)
    else:
        run = RunDirectory.create(directory, config, preset, overwrite)
    with run.lock(), StopSignals(directory, reporter.note) as stop:
        summary = _Session(config, preset, run, reporter, stop, mesh).run()
    processes.meet()  # Who left before the evaluation would be taken for dead.
    return summary


def load_agent(run: RunDirectory, which: str = "best", warn: Callable[[str], None] = print) -> tuple[Any, int]:
    """The trained policy of a run, and the iteration it is from.

    Args:
      run: where the checkpoints are.
      which: `best` by validation regret, or `last`.
      warn: called with a line for every damaged checkpoint that is passed over.

    Raises:
      RunError: if the run has no usable checkpoint.
    """
    config, _ = run.read_config()
    restored = None
    if run.checkpoints.is_dir():
        checkpoints = Checkpoints(run.checkpoints, warn, read_only=True)
        restore = checkpoints.restore_best if which == "best" else checkpoints.restore_last
        restored = restore(rmft.abstract_state(config.rmft))
        checkpoints.close()
    if restored is None:
        raise RunError(f"{run.path} has no checkpoint yet; try `rmft train --resume --out {run.path}`")
    return rmft.make_agent(restored[0]), int(restored[0].iteration)


class _Trainer:
    """What all processes of a run do in step: run chunks of iterations, and validate, on every device of a mesh.

    state: where training stands, on every device. A checkpoint's, of the first process, or the start.
    resumed: whether it is a checkpoint's. done: iterations so far. total: iterations of the run.
    """

    def __init__(self, config: RunConfig, mesh: Mesh | None, restored: TrainState | None = None):
        keys = RunKeys.create(config.seed)
        start = rmft.init(config.rmft, keys.train) if restored is None else restored
        shared = from_arrays(processes.from_first(to_arrays(start)), start)
        self._config, self._mesh, self._validation_key = config, mesh, keys.validation
        self.state, self.resumed = replicated(shared, mesh), processes.highest(int(restored is not None)) == 1
        self.done, self.total = int(shared.iteration), config.rmft.num_iterations

    def compile(self) -> None:
        """Compiles the chunk and the validation."""
        config, state, options = self._config, self.state, program_options(self._mesh)
        chunk = rmft.iterate_chunk.lower(state, config.chunk_size, None, self._mesh)
        self._run_chunk = chunk.compile(options)
        shapes = (config.rmft.horizon, config.num_validation_scenarios)
        validation = evaluation.final_regret.lower(*self._played(), *shapes, mesh=self._mesh)
        self._validate = validation.compile(options)

    def advance(self, stop: StopSignals) -> Iterator[tuple[IterationMetrics | None, np.ndarray]]:
        """Yields the metrics of every chunk, and the regrets of the validation scenarios after it; those at the start
        of a new run come first, without metrics.
        """
        if not self.resumed:
            yield None, np.asarray(self._validate(*self._played()))
            stop.check("stopped at iteration 0")
        while self.done < self.total:
            self.state, metrics = self._run_chunk(self.state, None)
            wait(metrics.regret)
            metrics = jax.tree.map(np.asarray, metrics)
            _require_finite(self.state, metrics, self.done)
            self.done += self._config.chunk_size
            yield metrics, np.asarray(self._validate(*self._played()))
            stop.check(f"stopped at iteration {self.done}")

    def _played(self) -> tuple[Any, ...]:
        """Agent, environment, regret and key of a validation."""
        config = self.state.config
        environment, regret = make_environment(config.environment), rmft.setting_regret(config)
        return replicated((rmft.make_agent(self.state), environment, regret, self._validation_key), self._mesh)


def _follow(config: RunConfig, directory: Path, mesh: Mesh | None) -> None:
    """What the other processes do: their share of the work, silently."""
    trainer = _Trainer(config, mesh)
    if trainer.done == trainer.total:
        return
    trainer.compile()
    with StopSignals(directory, lambda message: None) as stop, stop.deferred():
        for _ in trainer.advance(stop):
            pass


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
    ):
        self._config, self._preset, self._run, self._reporter, self._stop = config, preset, run, reporter, stop
        self._mesh = mesh
        self._started = time.perf_counter()
        self._checkpoints = Checkpoints(run.checkpoints, reporter.note)

    def run(self) -> dict[str, Any]:
        restored = self._checkpoints.resume(rmft.abstract_state(self._config.rmft))
        state, progress = restored or (None, Progress(float("inf"), float("inf"), 0.0, 0.0))
        trainer = _Trainer(self._config, self._mesh, state)
        if trainer.resumed:
            if trainer.done == trainer.total and (summary := self._finished_summary()):
                self._reporter.note(f"{self._run.path} is complete: nothing to resume; --overwrite trains it again")
                return summary
            self._reporter.note(f"resuming {self._run.path} at iteration {trainer.done} of {trainer.total}")
        if trainer.done < trainer.total:
            progress = self._train(trainer, progress)
        return self._finish(progress)

    def _train(self, trainer: _Trainer, before: Progress) -> Progress:
        history = _History(self._run, self._config, device_name(self._mesh), self._reporter.note)
        if trainer.resumed:
            history.load(trainer.done)
        compile_started = time.perf_counter()
        with self._reporter.status("compiling the training step"):
            trainer.compile()
        seconds = time.perf_counter() - compile_started
        self._reporter.note(f"compiled in {seconds:.1f} s for {device_name(self._mesh)}")
        progress = dataclasses.replace(before, compile_seconds=before.compile_seconds + seconds)
        with self._reporter.iterations(trainer.total, trainer.done) as bar, self._stop.deferred():
            for metrics, regrets in trainer.advance(self._stop):
                history.add(trainer.done, metrics, regrets)
                regret = history.validation_regret
                progress = Progress(
                    validation_regret=regret,
                    best_validation_regret=min(regret, progress.best_validation_regret),
                    wall_seconds=before.wall_seconds + time.perf_counter() - self._started,
                    compile_seconds=progress.compile_seconds,
                )
                # Metrics first: whatever the checkpoint knows, the metrics then know too.
                history.save()
                self._checkpoints.save(local(trainer.state), progress)
                if metrics is not None:
                    bar.update(trainer.done, regret, float(metrics.regret[-1]), float(metrics.entropy[-1]))
        return progress

    def _finished_summary(self) -> dict[str, Any] | None:
        """The summary of a run whose evaluation is whole too; else None, and both are made again."""
        with contextlib.suppress(RunError):
            self._run.read_dataset("evaluation.nc")
            return self._run.read_summary()
        return None

    def _finish(self, progress: Progress) -> dict[str, Any]:
        config, algorithm = self._config, self._config.rmft
        restored = self._checkpoints.restore_best(rmft.abstract_state(algorithm))
        self._checkpoints.close()
        if restored is None:
            raise RunError(f"the checkpoints of {self._run.path} are gone; try --overwrite")
        state, _ = restored
        with self._reporter.status(f"evaluating on {config.num_test_scenarios} held-out scenarios"):
            dataset = evaluate_run(config, rmft.make_agent(state), RunKeys.create(config.seed).test)
        self._run.write_dataset("evaluation.nc", dataset)
        rollouts = algorithm.num_iterations * algorithm.num_scenarios * algorithm.num_rollouts
        summary = {
            "preset": self._preset,
            "seed": config.seed,
            "device": device_name(self._mesh),
            "versions": versions(),
            "wall_seconds": progress.wall_seconds,
            "compile_seconds": progress.compile_seconds,
            "env_steps": rollouts * algorithm.horizon,
            "checkpoint_iteration": int(state.iteration),
            "evaluation": summarize(dataset),
        }
        self._run.write_summary(summary)
        return self._run.read_summary()  # As it is on file, where what cannot be computed is null.


def evaluate_run(config: RunConfig, agent: Any, key: ScalarKey, *, num_arms: int | None = None) -> xr.Dataset:
    """The trained policy, named `rmft`, and the classical agents on the scenarios of `key`."""
    environment, horizon = config.rmft.environment, config.rmft.horizon
    regret = rmft.setting_regret(config.rmft)
    points = config.rmft.plays_points
    baselines = make_ball_baselines(environment, horizon, config.rmft.radius) if points else None
    dataset = evaluation.evaluate(
        {"rmft": agent, **(baselines or make_baselines(environment, horizon))},
        make_environment(environment),
        horizon=horizon,
        num_scenarios=config.num_test_scenarios,
        key=key,
        num_arms=num_arms,
        regret=regret,
    )
    dataset.attrs["reference"] = "ftrl" if points else reference_agent(environment, horizon)
    return dataset


class _History:
    """The metrics of all iterations so far, as written to `metrics.nc`."""

    def __init__(self, run: RunDirectory, config: RunConfig, device: str, note: Callable[[str], None]):
        self._run, self._config, self._device, self._note = run, config, device, note
        self._metrics: dict[str, list[float]] = {name: [] for name in METRICS}
        self._validation: list[tuple[int, float, float]] = []

    def load(self, done: int) -> None:
        """Takes over what was saved up to iteration `done`; what a lost chunk added beyond it is dropped."""
        try:
            saved = self._run.read_dataset("metrics.nc")
        except RunError as error:
            raise RunError(f"cannot resume {self._run.path} without its metrics.nc; try --overwrite") from error
        if saved.sizes["iteration"] < done:
            raise RunError(f"{self._run.path}/metrics.nc ends before its checkpoint {done}; try --overwrite")
        if (before := saved.attrs["device"]) != self._device:
            self._note(f"begun on {before}, goes on on {self._device}: the same but for rounding")
        for name in METRICS:
            self._metrics[name] = saved[name].values[:done].tolist()
        names = ("validation_iteration", "validation_regret", "validation_regret_sem")
        rows = zip(*(saved[name].values.tolist() for name in names), strict=True)
        self._validation = [row for row in rows if row[0] <= done]

    @property
    def validation_regret(self) -> float:
        """The mean of the last validation."""
        return self._validation[-1][1]

    def add(self, iteration: int, metrics: IterationMetrics | None, regrets: np.ndarray) -> None:
        """What was seen up to this iteration: a chunk, if there was one, and a validation."""
        if metrics is not None:
            for name in METRICS:
                self._metrics[name] += getattr(metrics, name).tolist()
        sem = float(regrets.std(ddof=1, dtype=np.float64) / len(regrets) ** 0.5)
        self._validation.append((iteration, float(regrets.mean(dtype=np.float64)), sem))

    def save(self) -> None:
        iterations, means, sems = (list(column) for column in zip(*self._validation, strict=True))
        per_validation = ("validation_iteration",)
        self._run.write_dataset(
            "metrics.nc",
            xr.Dataset(
                {name: (("iteration",), np.asarray(values, np.float32)) for name, values in self._metrics.items()}
                | {
                    "validation_regret": (per_validation, np.asarray(means)),
                    "validation_regret_sem": (per_validation, np.asarray(sems)),
                },
                coords={
                    "iteration": np.arange(1, len(self._metrics["loss"]) + 1),
                    "validation_iteration": np.asarray(iterations),
                },
                attrs={"seed": self._config.seed, "horizon": self._config.rmft.horizon, "device": self._device},
            ),
        )


def _require_same_config(run: RunDirectory, config: RunConfig) -> None:
    saved, _ = run.read_config()
    changes = [f"{name}: the run has {old!r}, got {new!r}" for name, old, new in differing_fields(saved, config)]
    if changes:
        raise RunError(
            f"cannot resume {run.path} with a changed configuration ({'; '.join(changes)}); "
            f"try `rmft train --resume --out {run.path}` without them, or another --out"
        )


def _require_finite(state: TrainState, metrics: IterationMetrics, done: int) -> None:
    bad = ~(np.isfinite(metrics.loss) & np.isfinite(metrics.grad_norm))
    finite_params = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params))
    if bad.any() or not finite_params:
        where = f"at iteration {done + int(bad.argmax()) + 1}" if bad.any() else f"by iteration {int(state.iteration)}"
        raise TrainingDivergedError(
            f"loss or parameters became NaN or infinite {where}; the checkpoint of iteration {done} is kept; "
            "try a smaller --step-size, --max-grad-norm or --exploration-std in a new run"
        )


def versions() -> dict[str, str]:
    """Versions of everything that may change a number."""
    packages = ("rmft-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
