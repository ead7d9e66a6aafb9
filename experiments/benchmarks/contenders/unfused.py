"""The package's own rollout, selection and update, each compiled for itself, with the host in between.

Trajectories come to the host after the rollout, and the kept ones after the selection, as in projects whose iteration
is a loop in Python over separate parts. On CPU the host sees JAX's arrays without a copy, so that the round trips cost
next to nothing there.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.benchmarks.contenders import steps
from experiments.benchmarks.contenders.steps import Draws
from rmft_jax import rmft
from rmft_jax.config import RMFTConfig
from rmft_jax.config.checks import require
from rmft_jax.environments import make_environment
from rmft_jax.fine_tuning import gradient_steps
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.types import IterationMetrics, KeptBatch, TrainState, Trajectory


@jax.jit
def play(state: TrainState) -> Trajectory:
    """The rollouts `[M, L]` of the coming iteration."""
    config, draws = state.config, Draws.of(state)
    return rollout_scenarios(
        rmft.make_agent(state, explore=True),
        make_environment(config.environment),
        RolloutKeys.create(draws.play),
        horizon=config.horizon,
        num_scenarios=config.num_scenarios,
        num_rollouts=config.num_rollouts,
        branch_rounds=draws.branch_rounds,
        shared_reward_noise=config.shared_reward_noise,
        block=config.rollout_block,
    )


@jax.jit
def choose(state: TrainState, played: Trajectory) -> steps.Choice:
    """Which of them are kept, and the metrics of all."""
    return steps.choose(state, played, Draws.of(state))


@jax.jit
def update(state: TrainState, data: KeptBatch) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """Fine-tunes on the kept ones; the new state, and the mean loss and gradient norm."""
    return gradient_steps(state, data, Draws.of(state).update)


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
    played = _to_host(programs.play(state))
    choice = _to_host(programs.choose(state, played))
    state, loss, grad_norm = programs.update(state, choice.data)
    return state, choice.metrics(loss, grad_norm)


class Unfused:
    """Iterations whose parts are compiled ahead of time.

    Attributes:
      compile_seconds: seconds to trace and compile the three programs.
    """

    compile_seconds: float

    def __init__(self, config: RMFTConfig, *, seed: int = 0):
        """Starts from the weights of `rmft.init`.

        Raises:
          ConfigError: if the configuration cannot work, or does not fine-tune by gradient steps on arms drawn.
        """
        require(
            not config.plays_points, f"decision_map={config.decision_map!r}", "play of arms", "decision_map='softmax'"
        )
        require(config.update == "gradient", f"update={config.update!r}", "gradient steps", "update='gradient'")
        self.state = rmft.init(config, jax.random.key(seed))
        started = time.perf_counter()
        played = jax.eval_shape(play, self.state)
        choice = jax.eval_shape(choose, self.state, played)
        self._programs = Programs(
            play.lower(self.state).compile(),
            choose.lower(self.state, played).compile(),
            update.lower(self.state, choice.data).compile(),
        )
        self.compile_seconds = time.perf_counter() - started

    def iteration(self) -> None:
        """One iteration."""
        self.state, _ = jax.block_until_ready(iterate(self.state, self._programs))


def _to_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)
