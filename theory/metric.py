"""Theorems A3 and A4: a regret bound that a trained W can be held to, and what Euclidean play loses without it.

A learned W is no multiple of I. Played by the projection onto the ball, its antisymmetric part costs regret linear in
the horizon: the opponent `turning` takes it. Played by the norm that W sets, it has a bound on every sequence, computed
from its eigenvalues.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Adaptive, Ball
from rmft_jax.statistics.certificate import metric_bound
from theory.play import EUCLIDEAN, METRIC, Opponent, horizon_axis, play
from theory.statement import Effort, Row, Statement, at_most, closed_form, exact, structural_error
from theory.theorem3 import OPPONENTS, RADIUS, corollary, stopping_time, trained

HORIZONS = (50, 100, 200, 400, 800, 1600, 3200)
DEVIATIONS = (0.01, 0.03, 0.1)
TURN = np.asarray([[0.0, 1.0], [-1.0, 0.0]])
_half = structural_error("metric_term", "the certificate forgets the second of its terms")


@closed_form
def turning_regret(deviation: float, horizon: int) -> float:
    """Of `eta (I + delta J)` at `eta = rho / (G sqrt(T))`, G = 1, played by projection against `turning`, K = 2.

    The sum goes outwards for r rounds: until play reached the sphere, and one round on. Then it turns, and a round
    loses `rho sin(arctan(delta) + psi/2)`, where a unit step turns it by `psi`, `sin(psi/2) = 1 / (2 r)`.
    """
    step, angle = RADIUS / math.sqrt(horizon), math.atan(deviation)
    reached = math.ceil(RADIUS * math.cos(angle) / step - 1e-6)
    radius = reached + 1
    earned = step * reached * (reached - 1) / 2 + RADIUS * math.cos(angle)
    lost = (horizon - radius) * RADIUS * math.sin(angle + math.asin(1 / (2 * radius)))
    return RADIUS * radius - earned + lost


def bound(matrix: Float[np.ndarray, "K K"], horizon: int, norm: float) -> float:
    """A3's: `rho^2 / (2 l_min) + l_max G^2 T / 2`."""
    if _half():
        return RADIUS**2 / (2 * float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0]))
    return metric_bound(matrix, "linear", RADIUS, norm, horizon)


class Measured(NamedTuple):
    """Regret, largest over scenarios, and who played.

    planes: `[2, D, H]` of K = 2 and known deviations under `turning`: Euclidean play, and by the norm.
    policies: `[S, H, K, K]` by opponent, those whose training stopped for each of `HORIZONS`.
    euclidean, metric: `[S, H]` by opponent.
    """

    planes: Float[np.ndarray, "2 D H"]
    policies: dict[str, Float[np.ndarray, "S H K K"]]
    euclidean: dict[str, Float[np.ndarray, "S H"]]
    metric: dict[str, Float[np.ndarray, "S H"]]


def measure(effort: Effort) -> Measured:
    """Plays known deviations and trained policies, both ways."""
    ball, both = Ball(0.0, RADIUS), (EUCLIDEAN, METRIC)
    turning = {"turning": Opponent(Adaptive(num_arms=2, feedback="full", adversary="turning"), 1.0)}
    known = np.asarray(
        [[RADIUS / math.sqrt(T) * (np.eye(2) + deviation * TURN) for T in HORIZONS] for deviation in DEVIATIONS]
    )
    planes = [
        play({"turning": known}, known[:, -1], ball, turning, effort, "planes", 1, style, HORIZONS).stopped["turning"]
        for style in both
    ]
    paths = trained(effort)
    stopped = {
        name: np.stack([paths[:, stopping_time(T, norm)] for T in HORIZONS], axis=1)
        for name, (_, norm) in OPPONENTS.items()
    }
    regrets = [
        play(stopped, paths[:, -1], ball, OPPONENTS, effort, "metric, play", 4, style, HORIZONS).stopped
        for style in both
    ]
    largest = [{name: regret.max(axis=2) for name, regret in played.items()} for played in regrets]
    return Measured(np.stack(planes)[..., 0], stopped, *largest)


def rows(measured: Measured) -> list[Row]:
    """The price of a known deviation, exactly, and the bounds of trained policies under both kinds of play."""
    table = []
    for d, deviation in enumerate(DEVIATIONS):
        for h in (3, 5):
            regret, T = measured.planes[0, d, h], HORIZONS[h]
            quantity = f"A4: deviation {deviation}, T={T}, turning, projected: regret"
            table.append(exact("Theorem A", quantity, turning_regret(deviation, T), regret))
    known = np.asarray([bound(RADIUS / math.sqrt(T) * np.eye(2), T, 1.0) for T in HORIZONS])
    share = float(np.max(measured.planes[1] / known))
    table.append(
        at_most("Theorem A", "A3: known deviations, turning, by the norm: largest share of the bound", 1.0, share)
    )
    for name, (_, norm) in OPPONENTS.items():
        by_norm = _bounds(measured.policies[name], norm)
        share = float(np.max(measured.metric[name] / by_norm))
        table.append(at_most("Theorem A", f"A3: trained, {name}, by the norm: largest share of the bound", 1.0, share))
    return table


def _bounds(policies: Float[np.ndarray, "S H K K"], norm: float) -> Float[np.ndarray, "S H"]:
    return np.asarray([[bound(W, T, norm) for W, T in zip(run, HORIZONS, strict=True)] for run in policies])


def draw(measured: Measured) -> Figure:
    """Regret of trained policies under `turning`, both ways of play, beside what is guaranteed."""
    with column_figure() as (figure, axes):
        unit = RADIUS * np.sqrt(HORIZONS)
        policies = measured.policies["turning"]
        guaranteed = [[corollary(W, T, 1.0) for W, T in zip(run, HORIZONS, strict=True)] for run in policies]
        kinds = (
            ("projected", measured.euclidean["turning"], np.asarray(guaranteed), "o", COLORS[5]),
            ("by the norm of W", measured.metric["turning"], _bounds(policies, 1.0), "s", COLORS[4]),
        )
        for label, regret, bounds, marker, color in kinds:
            axes.plot(HORIZONS, (regret / unit).T, marker, ms=2.5, color=color, alpha=0.7)
            axes.plot([], [], marker, ms=2.5, color=color, label=f"{label}: regret of {len(regret)} runs")
            axes.plot(
                HORIZONS, (bounds / unit).mean(axis=0), "--", lw=1, color=color, label=f"{label}: guarantee, mean"
            )
        axes.axhline(1, color="black", lw=0.8, ls=":")
        horizon_axis(axes, HORIZONS)
        axes.set_ylabel("regret under turning / (ρ G √T)")
        axes.legend()
        return figure


STATEMENT = Statement("metric", measure, rows, draw)
