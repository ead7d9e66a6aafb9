"""Policies that training passed through, played on long horizons against sequences that they never saw."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft_jax.agents import SingleLayer
from rmft_jax.config import ScalarKey
from rmft_jax.method.evaluation import in_threads, play_scenarios
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Ball, DecisionMap, Environment, Problem
from rmft_jax.statistics.bootstrap import resample
from rmft_jax.statistics.growth import slopes
from theory.statement import Effort, standard_error
from theory.walks import QUICK

HORIZONS = (50, 100, 200, 400, 800, 1600)
EUCLIDEAN, METRIC = SingleLayer(key_size=1), SingleLayer(key_size=1, play="metric")


class Opponent(NamedTuple):
    """A sequence to play against, and the largest Euclidean norm of its reward vectors."""

    environment: Environment
    norm: float


class Played(NamedTuple):
    """Regret at each horizon, by opponent, over training seeds and scenarios.

    stopped: of the policies whose training stopped when it was right for that horizon.
    overtrained: of the one policy whose training went on.
    """

    stopped: dict[str, Float[np.ndarray, "S H N"]]
    overtrained: dict[str, Float[np.ndarray, "S H N"]]


@functools.partial(jax.jit, static_argnums=(0, 5, 6), compiler_options=QUICK)
def regrets_of(
    policy: SingleLayer,
    values: Float[Array, "P K K"],
    decision_map: DecisionMap,
    problem: Problem,
    key: ScalarKey,
    num_scenarios: int,
    horizons: tuple[int, ...],
) -> Float[Array, "P N H"]:
    """Regret of the policies of these value matrices at each horizon, on the same scenarios of one problem."""
    params = policy.init_params(jax.random.key(0), problem)

    def play_one(value: Float[Array, "K K"]) -> Float[Array, "N H"]:
        agent = policy.make_agent({**params, "V": value}, problem, decision_map)
        played = play_scenarios(agent, problem, key, num_scenarios)
        return problem.regret(played)[:, np.asarray(horizons) - 1]

    return jax.lax.map(play_one, values, batch_size=7)


def play(
    stopped: Mapping[str, Float[np.ndarray, "S H K K"]],
    overtrained: Float[np.ndarray, "S K K"],
    decision_map: DecisionMap,
    opponents: Mapping[str, Opponent],
    effort: Effort,
    stream: str = "",
    num_scenarios: int = 128,
    policy: SingleLayer = EUCLIDEAN,
    horizons: tuple[int, ...] = HORIZONS,
) -> Played:
    """Plays all policies on the longest horizon, and reads the regret of each at the horizon it is meant for.

    Every opponent has a random stream of its own, named after `stream`; without it all share one, for comparisons.
    """
    count = effort.times(num_scenarios)
    radius = decision_map.radius if isinstance(decision_map, Ball) else None
    effort.note(f"playing {', '.join(opponents)}")

    def play_one(name: str) -> Float[np.ndarray, "S P N H"]:
        every = np.concatenate([stopped[name], overtrained[:, None]], axis=1)
        values = jnp.asarray(every.reshape(-1, *overtrained.shape[1:]), jnp.float32)
        problem = Problem(opponents[name].environment, horizons[-1], radius=radius)
        key = effort.key(f"{stream}, {name}") if stream else jax.random.key(effort.seed + 1)
        regret = regrets_of(policy, values, decision_map, problem, key, count, horizons)
        return np.asarray(regret, np.float64).reshape(*every.shape[:2], *regret.shape[1:])

    results = Played({}, {})
    for name, regret in zip(opponents, in_threads(play_one, opponents), strict=True):
        results.stopped[name] = np.stack([regret[:, h, :, h] for h in range(len(horizons))], axis=1)
        results.overtrained[name] = regret[:, -1].swapaxes(1, 2)
    return results


def power(regret: Float[np.ndarray, "*S H"]) -> Float[np.ndarray, "*S"]:
    """The slope of log regret on log T."""
    return np.asarray(slopes(regret, np.asarray(HORIZONS)))


class Exponent(NamedTuple):
    """The estimate with its standard error, over scenarios and training seeds."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {2 * self.standard_error:.3f}"


def exponent(regret: Float[np.ndarray, "S H N"]) -> Exponent:
    """Exponent of the mean regret in the horizon, `regret ~ T^p`, by least squares on logarithms.

    Its variance is that of a bootstrap over scenarios, each with all seeds, plus that between the seeds' own exponents.
    """
    rounds, curves = np.asarray(HORIZONS), regret.mean(axis=0).T
    scenarios = resample(lambda weights: slopes(weights @ curves, rounds), len(curves)).std()
    seeds = standard_error(slopes(regret.mean(axis=-1), rounds))
    return Exponent(float(slopes(curves.mean(axis=0), rounds)), float(np.hypot(scenarios, seeds)))


def horizon_axis(axes: Axes, horizons: Sequence[int]) -> None:
    """Horizons on a logarithmic axis, each with its number."""
    axes.set_xscale("log")
    axes.set_xticks(horizons, [str(horizon) for horizon in horizons])
    axes.minorticks_off()
    axes.set_xlabel("horizon T (rounds)")


def draw_shares(played: Played, bounds: Mapping[str, Float[np.ndarray, "H"]], label: str) -> Figure:
    """Largest regret over horizons as a share of its bound, with the exponents of the mean regret."""
    with column_figure(3.4) as (figure, axes):
        for color, (name, regret) in zip(COLORS, played.stopped.items(), strict=False):
            shares = regret.max(axis=(0, 2)) / bounds[name]
            axes.plot(HORIZONS, shares, "o-", ms=3, color=color, label=f"{name}: {exponent(regret)}")
        late = played.overtrained["alternating"]
        text = f"alternating, trained on: {exponent(late)}"
        axes.plot(HORIZONS, late.max(axis=(0, 2)) / bounds["alternating"], "s--", ms=3, color="black", label=text)
        axes.axhline(1, color="black", lw=0.8, ls=":")
        axes.set_yscale("log")
        horizon_axis(axes, HORIZONS)
        axes.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        axes.set_ylabel(label)
        title = "opponent: exponent of mean regret in T, ± 2 SE"
        figure.legend(loc="outside upper center", fontsize=6, title=title, title_fontsize=6.5, ncols=2)
        return figure
