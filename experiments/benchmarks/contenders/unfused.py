"""The package's own rollout, selection and update, each compiled for itself, with the host in between.

Trajectories come to the host after the rollout, and the kept ones after the selection, as in projects whose iteration
is a loop in Python over separate parts. On CPU the host sees JAX's arrays without a copy, so that the round trips cost
next to nothing there.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rmft_jax.method import rmft
from rmft_jax.method.fine_tuning import Fit
from rmft_jax.method.judging import KeptBatch, judge, training_data
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, TrainState, init
from rmft_jax.problems import Trajectory


@jax.jit
def play(state: TrainState) -> tuple[Trajectory, Bool[Array, "M T"]]:
    """The rollouts `[M, L]` of the coming iteration, and in which rounds they are on their own."""
    return rmft.play_rollouts(state, state.config.problem(), IterationKeys.of(state))


@jax.jit
def choose(state: TrainState, played: Trajectory, own_rounds: Bool[Array, "M T"]) -> tuple[KeptBatch, IterationMetrics]:
    """What is learned from, and the metrics of the iteration, but for those of the fit."""
    config, problem = state.config, state.config.problem()
    judged = judge(config, problem, played)
    kept = config.selection.keep(IterationKeys.of(state).selection, judged)
    metrics = rmft.measured(problem, judged, kept, Fit(jnp.zeros(()), jnp.zeros(())))
    return training_data(config, judged, kept, own_rounds), metrics


@jax.jit
def update(state: TrainState, data: KeptBatch) -> tuple[TrainState, Fit]:
    """Fine-tunes on the kept ones."""
    return state.config.update.fine_tune(state, data, IterationKeys.of(state).update)


class Programs(NamedTuple):
    """The three parts of an iteration, ready to be called."""

    play: Callable[..., Any]
    choose: Callable[..., Any]
    update: Callable[..., Any]


ON_DEMAND = Programs(play, choose, update)


def iterate(state: TrainState, programs: Programs = ON_DEMAND) -> tuple[TrainState, IterationMetrics]:
    """One iteration, as `rmft.iterate`; the given state stays usable.

    Args:
      state: where training stands.
      programs: the parts, if they are compiled already.
    """
    played, own_rounds = _to_host(programs.play(state))
    data, metrics = _to_host(programs.choose(state, played, own_rounds))
    state, fit = programs.update(state, data)
    return state, dataclasses.replace(metrics, loss=fit.loss, grad_norm=fit.grad_norm)


class Unfused:
    """Iterations whose parts are compiled ahead of time.

    Attributes:
      compile_seconds: seconds to trace and compile the three programs.
    """

    compile_seconds: float

    def __init__(self, config: RMFTConfig, *, seed: int = 0):
        """Starts from the weights of `init`.

        Raises:
          ConfigError: if the configuration cannot work.
        """
        self.state = init(config, jax.random.key(seed))
        started = time.perf_counter()
        played = jax.eval_shape(play, self.state)
        data, _ = jax.eval_shape(choose, self.state, *played)
        self._programs = Programs(
            play.lower(self.state).compile(),
            choose.lower(self.state, *played).compile(),
            update.lower(self.state, data).compile(),
        )
        self.compile_seconds = time.perf_counter() - started

    def iteration(self) -> None:
        """One iteration."""
        self.state, _ = jax.block_until_ready(iterate(self.state, self._programs))


def _to_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)
