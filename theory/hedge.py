"""Softmax play: RMFT walks along `P = I - 11'/K`, which is Hedge with a growing rate.

Where noise and scores are small, `softmax(z + sigma eps)` earns `sigma sum_t <eps_t, J R_t>` beside what all rollouts
of a scenario share, with `J = P / K` at uniform play. So `W_n = n eta_0 P`, with `eta_0 = sigma c_{L,k} beta / alpha`
and beta that of reward vectors of dimension `K - 1`.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, close, closed_form, standard_error
from theory.theorem1 import alpha, beta
from theory.walks import SETTING, walk


def centring(num_arms: int) -> Float[np.ndarray, "K K"]:
    """`P = I - 11'/K`."""
    return np.eye(num_arms) - 1 / num_arms


NUM_ITERATIONS = 10
ARMS = 3
CENTRING = centring(ARMS)
SETTING_SOFTMAX = SETTING.replace(
    prior_mean=10.0,
    prior_std=1.0,
    noise_std=0.3,
    horizon=10,
    exploration_std=0.03,
    num_scenarios=2048,
    decision_map="softmax",
)
"""All rewards share a mean of 10. Play does not see it, but the fit does: it pins `W 1` to 0, which sampling errors
would otherwise turn into a drift of the scores wherever rewards have a common part."""


@closed_form
def hedge_step(config: RMFTConfig) -> float:
    """`eta_0` per iteration along P, to first order in the scores."""
    environment = config.environment
    tau, nu = environment.prior_moments()[1], environment.noise_std
    ratio = beta(environment.num_arms - 1, config.horizon, tau, nu) / alpha(config.horizon, tau, nu)
    c = order_statistic_mean(config.num_rollouts, config.selection.k)
    return config.decision_map.exploration_std * c * ratio


def rate(values: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """The coefficient of W along P."""
    direction = centring(values.shape[-1])
    return np.sum(values * direction, axis=(-2, -1)) / np.sum(direction**2)


def measure(effort: Effort) -> Float[np.ndarray, "S n K K"]:
    """Paths of W."""
    return walk(SETTING_SOFTMAX, NUM_ITERATIONS, effort.times(8), effort)


def rows(paths: Float[np.ndarray, "S n K K"]) -> list[Row]:
    """Speed, linearity and direction of the walk."""
    name, step, rates = "Hedge", hedge_step(SETTING_SOFTMAX), rate(paths)
    errors, counts = standard_error(rates), np.arange(NUM_ITERATIONS + 1)
    table = [
        close(name, f"rate of W_{n}", n * step, rates.mean(0)[n], errors[n], relative=0.03) for n in (1, NUM_ITERATIONS)
    ]
    # Of the power law rate ~ n^p, fitted to each run.
    powers = np.asarray([np.polyfit(np.log(counts[1:]), np.log(path[1:]), 1)[0] for path in rates])
    error = float(standard_error(powers))
    table.append(close(name, "power of n in the rate", 1.0, powers.mean(), error, relative=0.03))
    angle, error = _angle(paths[:, -1])
    table.append(close(name, f"angle of W_{NUM_ITERATIONS} to I - 11'/K (degrees)", 0.0, angle, error))
    return table


def _angle(values: Float[np.ndarray, "S K K"]) -> tuple[float, float]:
    """Angle of the mean W to P, and the angle that sampling noise alone makes, in degrees."""
    mean = values.mean(axis=0)
    along = rate(mean) * CENTRING
    beside = values - rate(values)[:, None, None] * CENTRING
    noise = math.sqrt(np.sum(standard_error(beside) ** 2))
    angle = math.atan2(float(np.linalg.norm(mean - along)), float(np.linalg.norm(along)))
    return math.degrees(angle), math.degrees(math.atan2(noise, float(np.linalg.norm(along))))


def draw(paths: Float[np.ndarray, "S n K K"]) -> Figure:
    """Entries of W over iterations, with those that P predicts."""
    with column_figure(2.7) as (figure, axes):
        step, counts = hedge_step(SETTING_SOFTMAX), np.arange(NUM_ITERATIONS + 1)
        for row in range(ARMS):
            for column in range(ARMS):
                values = paths[:, :, row, column] / step
                place = ARMS * row + column
                bars: Any = {"fmt": "o", "ms": 2, "lw": 0.7, "color": COLORS[4 if row == column else 5]}
                bars["label"] = {0: "on the diagonal", 1: "beside it"}.get(place)
                shift = 0.06 * (place - 4)  # So that the entries do not hide each other.
                axes.errorbar(counts + shift, values.mean(0), 4 * standard_error(values), **bars)
        for size in (1 - 1 / ARMS, -1 / ARMS):
            axes.plot(counts, size * counts, color="black", lw=0.8, ls="--")
        axes.plot([], [], color="black", lw=0.8, ls="--", label="predicted: n η₀ (I − 11ᵀ/K)")
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("entries of W, in units of η₀")
        axes.legend()
        return figure


STATEMENT = Statement("hedge", measure, rows, draw)
