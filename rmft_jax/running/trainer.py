"""One trainer for runs and for the cells of sweeps: chunks of iterations, each followed by a validation."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt32

from rmft_jax.config import Params, ScalarKey, pytree
from rmft_jax.method import evaluation, rmft
from rmft_jax.method.devices import program_options, replicated
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import TrainState, make_agent
from rmft_jax.running.history import History
from rmft_jax.running.interruption import wait

Regrets = Float[Array, "B N"] | Float[np.ndarray, "B N"]


class TrainingDivergedError(Exception):
    """Loss, gradient or parameters are no longer finite. The last good checkpoint is untouched."""


@pytree
class RunKeys:
    """One root key per purpose, all from the run's seed."""

    train: ScalarKey
    validation: ScalarKey
    test: ScalarKey

    @classmethod
    def create(cls, seed: UInt32[Array, ""] | int) -> "RunKeys":
        """The keys of a run."""
        return cls(*jax.random.split(jax.random.key(seed), 3))


@runtime_checkable
class Stepper(Protocol):
    """What advances the training of one run, or of `B` in step.

    state: where training stands; stacked over runs, if there are several.
    compile_seconds: spent on compilation so far.
    """

    @property
    def state(self) -> TrainState:
        """See the class."""
        ...

    @property
    def compile_seconds(self) -> float:
        """See the class."""
        ...

    def advance(self, run: bool) -> tuple[IterationMetrics | None, Regrets, Bool[np.ndarray, "B"]]:
        """Runs one chunk of iterations, or none if `run` is false, and validates what came out.

        Returns:
          The metrics `[B, n]` of the chunk, if there was one; the regrets of the validation scenarios; and which runs
          have finite parameters only.
        """
        ...


class RunStepper:
    """A run by itself, whose scenarios the devices of a mesh share.

    Args:
      config: of the run.
      state: where it stands; every process has it.
      mesh: of devices; None: one.
    """

    def __init__(self, config: RunConfig, state: TrainState, mesh: Mesh | None):
        started, options = time.perf_counter(), program_options(mesh)
        self._config, self._mesh = config, mesh
        self._validation_key = RunKeys.create(config.seed).validation
        self.state = replicated(state, mesh)
        self._run_chunk = rmft.iterate_chunk.lower(self.state, config.chunk_size, None, mesh).compile(options)
        validation = evaluation.final_regret.lower(*self._played(), config.num_validation_scenarios, mesh=mesh)
        self._validate = validation.compile(options)
        self.compile_seconds = time.perf_counter() - started

    @property
    def memory(self) -> int | None:
        """Bytes that a chunk holds on every device, arguments included; None where the compiler does not say."""
        told: Any = self._run_chunk.memory_analysis()
        if told is None:
            return None
        held = told.argument_size_in_bytes + told.output_size_in_bytes + told.temp_size_in_bytes
        return int(held - told.alias_size_in_bytes)

    def advance(self, run: bool) -> tuple[IterationMetrics | None, Regrets, Bool[np.ndarray, "1"]]:
        """See `Stepper`."""
        metrics = None
        if run:
            self.state, chunk = self._run_chunk(self.state, None)
            wait(chunk.regret)
            metrics = jax.tree.map(lambda values: np.asarray(values)[None], chunk)
        finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(self.state.params))
        return metrics, np.asarray(self._validate(*self._played()))[None], np.asarray([finite])

    def _played(self) -> tuple[object, ...]:
        """Agent, problem and key of a validation."""
        state = self.state
        return replicated((make_agent(state), state.config.problem(), self._validation_key), self._mesh)


def training(
    stepper: Stepper,
    history: History,
    config: RunConfig,
    per_run: Callable[[Params], Params] = lambda params: params,
) -> Iterator[None]:
    """Trains to the end, and stops after every chunk and its validation for whoever watches, saves or breaks off.

    Args:
      stepper: what trains.
      history: what there was before; it is added to.
      config: how many iterations there are, and how many to a chunk.
      per_run: from the parameters of the stepper's state to parameters with an axis of runs.
    """
    while not history.validated or history.done < config.rmft.num_iterations:
        started, compiled = time.perf_counter(), stepper.compile_seconds
        chunk = config.chunk_size if history.validated else 0
        done = history.done + chunk
        metrics, regret, finite = stepper.advance(chunk > 0)
        wait(regret)
        if chunk and metrics is not None:
            history.add_chunk(metrics, np.asarray(finite))
        history.add_validation(done, np.asarray(regret), per_run(jax.device_get(stepper.state.params)))
        compiling = stepper.compile_seconds - compiled
        history.seconds += time.perf_counter() - started - compiling
        history.compile_seconds += compiling
        yield
