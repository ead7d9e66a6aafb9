"""What the explorations share: their form, numbers with errors over training seeds, and bands in figures."""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.config import ScalarKey
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.problems import Ball, Problem, Trajectory
from theory.statement import Effort, pooled_error, standard_error
from theory.walks import QUICK, diagonal, off_diagonal

M = TypeVar("M")


class Finding(NamedTuple):
    """A measured number.

    exploration: its name.
    value, standard_error: mean over training seeds, and the standard error of it.
    reference: what the theorem says, where it says anything; not a claim about this setting.
    """

    exploration: str
    quantity: str
    value: float
    standard_error: float
    reference: float | None


class Exploration(NamedTuple, Generic[M]):
    """A question beyond the theorems.

    name: as the figure is called.
    title: the question in a line.
    measure: the experiment.
    findings: the numbers; nothing is passed or failed.
    draw: the figure.
    """

    name: str
    title: str
    measure: Callable[[Effort], M]
    findings: Callable[[M], list[Finding]]
    draw: Callable[[M], Figure]


AnyExploration = Exploration[Any]


def over_seeds(
    exploration: str, quantity: str, values: Float[np.ndarray, "S"], reference: float | None = None
) -> Finding:
    """The mean over training seeds with its standard error."""
    return Finding(exploration, quantity, float(np.mean(values)), float(standard_error(values)), reference)


def beside(exploration: str, quantity: str, paths: Float[np.ndarray, "S n K K"]) -> Finding:
    """Entries of the last matrix beside the diagonal: root mean square of their means over seeds.

    Relative to the diagonal. Its standard error is that of one entry's mean, pooled over entries and likewise relative:
    where the entries are 0 but for sampling, the value is about as large as its standard error.
    """
    entries = off_diagonal(paths)[:, -1]
    scale = float(np.abs(diagonal(paths)[:, -1].mean()))
    value = float(np.sqrt(np.mean(entries.mean(0) ** 2)))
    return Finding(exploration, quantity, value / scale, pooled_error(entries) / scale, 0.0)


def best_of(
    regret: Float[np.ndarray, "S G R"],
) -> tuple[Int[np.ndarray, "R"], Float[np.ndarray, "S R"]]:
    """Which of G has the least mean regret over seeds, for every horizon, and its regret of each seed.

    One choice for all seeds, because the least of noisy numbers, chosen for every seed anew, is too good to be true.
    """
    best = regret.mean(axis=0).argmin(axis=0)
    return best, regret[:, best, np.arange(regret.shape[-1])]


def exponents(rounds: Float[np.ndarray, "R"], regret: Float[np.ndarray, "S R"]) -> Float[np.ndarray, "S"]:
    """Per seed, the slope of log regret on log T."""
    return np.polyfit(np.log(rounds), np.log(regret).T, 1)[0]


@functools.partial(jax.jit, static_argnames="num_scenarios", compiler_options=QUICK)
def scenarios(problem: Problem, key: ScalarKey, num_scenarios: int) -> Trajectory:
    """Scenarios under full information on which nothing is played yet: their rewards do not depend on play."""
    idle = FullInformationSingleLayer.ftrl(problem.num_arms, 0.0, Ball(0.0))
    return play_scenarios(idle, problem, key, num_scenarios)


def band(axes: Axes, x: Float[np.ndarray, "n"], values: Float[np.ndarray, "S n"], color: str, **line: Any) -> None:
    """The mean over training seeds within two standard errors."""
    mean, width = values.mean(0), 2 * standard_error(values)
    axes.plot(x, mean, color=color, **line)
    axes.fill_between(x, mean - width, mean + width, color=color, alpha=0.25, linewidth=0)
