"""The outer loop: compiled chunks, evaluation, checkpoints, metrics, resumption."""

import contextlib
import dataclasses
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, UInt32

from rmft_jax import evaluation, rmft
from rmft_jax.agents import make_ball_baselines, make_baselines, reference_agent
from rmft_jax.checkpoints import Checkpoints, Progress
from rmft_jax.config import RunConfig, differing_fields
from rmft_jax.environments import make_environment
from rmft_jax.progress import ProgressReporter
from rmft_jax.report import summarize
from rmft_jax.storage import RunDirectory, RunError
from rmft_jax.types import IterationMetrics, ScalarKey, TrainState

METRICS = tuple(field.name for field in dataclasses.fields(IterationMetrics))


class TrainingDivergedError(Exception):
    """Loss, gradient or parameters are no longer finite. The last good checkpoint is untouched."""


class InterruptedRunError(KeyboardInterrupt):
    """The run was asked to stop and can be resumed.

    Not an `Exception`: no handler of errors may take it for one.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number


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
    reporter: ProgressReporter | None = None,
) -> dict[str, Any]:
    """Trains to the end, evaluates, and leaves a complete run directory.

    Args:
      config: the run.
      directory: where its files go.
      preset: the name of the configuration, for the record.
      resume: continue the run in `directory`, bit for bit as if it had never stopped; start it if there is none.
      overwrite: replace a run in `directory`.
      reporter: where progress is shown. None: standard error.

    Returns:
      The contents of `summary.json`.

    Raises:
      ConfigError: if the configuration cannot work.
      RunError: if the directory cannot be used as asked, or was made with another configuration.
      TrainingDivergedError: on NaN or infinity; the last good checkpoint stays.
      InterruptedRunError: after SIGINT or SIGTERM, once the run can be resumed.
    """
    config.validate()
    if resume and overwrite:
        raise RunError("got both --resume and --overwrite; try one of them")
    reporter = reporter or ProgressReporter()
    if resume and RunDirectory(directory).exists():
        run = RunDirectory.open(directory)
        _require_same_config(run, config)
    else:
        run = RunDirectory.create(directory, config, preset, overwrite)
    with run.lock(), _StopSignals(run, reporter.note) as stop:
        return _Session(config, preset, run, reporter, stop).run()


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


class _Session:
    """One process's share of a run, from the last checkpoint to the end or to a stop signal."""

    def __init__(
        self,
        config: RunConfig,
        preset: str,
        run: RunDirectory,
        reporter: ProgressReporter,
        stop: "_StopSignals",
    ):
        self._config, self._preset, self._run, self._reporter, self._stop = config, preset, run, reporter, stop
        self._keys = RunKeys.create(config.seed)
        self._started = time.perf_counter()
        self._checkpoints = Checkpoints(run.checkpoints, reporter.note)

    def run(self) -> dict[str, Any]:
        total = self._config.rmft.num_iterations
        restored = self._checkpoints.resume(rmft.abstract_state(self._config.rmft))
        if restored is None:
            state = rmft.init(self._config.rmft, self._keys.train)
            progress = Progress(float("inf"), float("inf"), 0.0, 0.0)
        else:
            state, progress = restored
            if state.iteration == total and (summary := self._finished_summary()):
                self._reporter.note(f"{self._run.path} is complete: nothing to resume; --overwrite trains it again")
                return summary
            self._reporter.note(f"resuming {self._run.path} at iteration {state.iteration} of {total}")
        if state.iteration < total:
            progress = self._train(state, progress, resumed=restored is not None)
        return self._finish(progress)

    def _train(self, state: TrainState, before: Progress, resumed: bool) -> Progress:
        chunk, total, done = self._config.chunk_size, self._config.rmft.num_iterations, int(state.iteration)
        history = _History(self._run, self._config)
        if resumed:
            history.load(done)
        compile_started = time.perf_counter()
        with self._reporter.status("compiling the training step"):
            run_chunk = rmft.iterate_chunk.lower(state, chunk).compile()
            validate = self._compile_validation(state)
        seconds = time.perf_counter() - compile_started
        self._reporter.note(f"compiled in {seconds:.1f} s")
        progress = dataclasses.replace(before, compile_seconds=before.compile_seconds + seconds)

        def watch_and_save() -> None:
            nonlocal progress
            regret = history.add_validation(done, np.asarray(validate(state)))
            progress = Progress(
                validation_regret=regret,
                best_validation_regret=min(regret, progress.best_validation_regret),
                wall_seconds=before.wall_seconds + time.perf_counter() - self._started,
                compile_seconds=progress.compile_seconds,
            )
            # Metrics first: whatever the checkpoint knows, the metrics then know too.
            history.save()
            self._checkpoints.save(state, progress)

        if not resumed:
            watch_and_save()
        with self._reporter.iterations(total, done) as bar, self._stop.deferred():
            while done < total:
                state, metrics = run_chunk(state)
                wait(metrics.regret)
                _require_finite(state, metrics, done)
                done += chunk
                history.add_chunk(metrics)
                watch_and_save()
                bar.update(done, progress.validation_regret, float(metrics.regret[-1]), float(metrics.entropy[-1]))
                self._stop.check(f"stopped at iteration {done}")
        return progress

    def _compile_validation(self, state: TrainState) -> Callable[[TrainState], jax.Array]:
        def arguments(state: TrainState) -> tuple[Any, ...]:
            config = state.config
            environment, regret = make_environment(config.environment), rmft.setting_regret(config)
            return rmft.make_agent(state), environment, regret, self._keys.validation

        shapes = (self._config.rmft.horizon, self._config.num_validation_scenarios)
        compiled = evaluation.final_regret.lower(*arguments(state), *shapes).compile()
        return lambda state: compiled(*arguments(state))

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
            dataset = evaluate_run(config, rmft.make_agent(state), self._keys.test)
        self._run.write_dataset("evaluation.nc", dataset)
        rollouts = algorithm.num_iterations * algorithm.num_scenarios * algorithm.num_rollouts
        summary = {
            "preset": self._preset,
            "seed": config.seed,
            "device": device_name(),
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

    def __init__(self, run: RunDirectory, config: RunConfig):
        self._run, self._config = run, config
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
        for name in METRICS:
            self._metrics[name] = saved[name].values[:done].tolist()
        names = ("validation_iteration", "validation_regret", "validation_regret_sem")
        rows = zip(*(saved[name].values.tolist() for name in names), strict=True)
        self._validation = [row for row in rows if row[0] <= done]

    def add_chunk(self, metrics: IterationMetrics) -> None:
        for name in METRICS:
            self._metrics[name] += np.asarray(getattr(metrics, name)).tolist()

    def add_validation(self, iteration: int, regret: np.ndarray) -> float:
        mean = float(regret.mean(dtype=np.float64))
        self._validation.append((iteration, mean, float(regret.std(ddof=1, dtype=np.float64) / len(regret) ** 0.5)))
        return mean

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
                attrs={"seed": self._config.seed, "horizon": self._config.rmft.horizon, "device": device_name()},
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
    finite_params = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.params))
    if bad.any() or not finite_params:
        where = f"at iteration {done + int(bad.argmax()) + 1}" if bad.any() else f"by iteration {int(state.iteration)}"
        raise TrainingDivergedError(
            f"loss or parameters became NaN or infinite {where}; the checkpoint of iteration {done} is kept; "
            "try a smaller --step-size, --max-grad-norm or --exploration-std in a new run"
        )


def wait(result: Any) -> None:
    """Until the array is computed. Polling instead of blocking lets signal handlers run, so Ctrl-C acts at once."""
    while not result.is_ready():
        time.sleep(0.005)


class _StopSignals:
    """SIGINT and SIGTERM: at once, or, inside `deferred`, at the next `check`; a second one is always at once."""

    def __init__(self, run: RunDirectory, note: Callable[[str], None]):
        self._resume = f"continue with: rmft train --resume --out {run.path}"
        self._note = note
        self._deferred = False
        self._pending: int | None = None

    def __enter__(self) -> "_StopSignals":
        numbers = (signal.SIGINT, signal.SIGTERM)
        # Only the main thread receives signals, and only there may handlers be set.
        in_main = threading.current_thread() is threading.main_thread()
        self._previous = {number: signal.signal(number, self._handle) for number in numbers} if in_main else {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds the first signal back until `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self, message: str) -> None:
        """Stops here if a signal came."""
        if self._pending is not None:
            raise InterruptedRunError(self._pending, f"{message}; {self._resume}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._pending is not None or not self._deferred:
            raise InterruptedRunError(number, f"stopped at once; {self._resume}")
        self._pending = number
        self._note("stopping when this chunk is saved; once more to stop at once")


def device_name() -> str:
    """The device that computes, in words."""
    device = jax.devices()[0]
    return f"cpu ({os.cpu_count()} cores)" if device.platform == "cpu" else f"{device.platform} ({device.device_kind})"


def versions() -> dict[str, str]:
    """Versions of everything that may change a number."""
    packages = ("rmft-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
