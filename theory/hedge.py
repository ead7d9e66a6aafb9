"""Softmax play: RMFT walks along `P = I - 11'/K`, which is Hedge with a growing rate.

Where noise and scores are small, `softmax(z + sigma eps)` earns `sigma sum_t <eps_t, J R_t>` beside what all rollouts
of a scenario share, with `J = P / K` at uniform play. So `W_n = n eta_0 P`, with `eta_0 = sigma c_{L,k} beta / alpha`
and beta that of reward vectors of dimension `K - 1`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, closed_form, equal, standard_error, structural_error, zeros
from theory.theorem1 import alpha, beta
from theory.walks import SETTING, increments, walk


def centring(num_arms: int) -> Float[np.ndarray, "K K"]:
    """`P = I - 11'/K`."""
    return np.eye(num_arms) - 1 / num_arms


NUM_ITERATIONS = 10
_all_arms = structural_error("dimension", "of centred rewards K dimensions count, not K - 1")
_sideways = structural_error("sideways", "beside I - 11'/K a twentieth of the step goes elsewhere")
ARMS = 3
CENTRING = centring(ARMS)
# An orthonormal basis of the range of P, and the direction of ones.
_BASIS = np.linalg.qr(np.column_stack([np.ones(ARMS), np.eye(ARMS)[:, :-1]]))[0].T
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
    dimension = environment.num_arms - (0 if _all_arms() else 1)
    ratio = beta(dimension, config.horizon, tau, nu) / alpha(config.horizon, tau, nu)
    c = order_statistic_mean(config.num_rollouts, config.selection.k)
    return config.decision_map.exploration_std * c * ratio


def rate(values: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """The coefficient of W along P."""
    direction = centring(values.shape[-1])
    return np.sum(values * direction, axis=(-2, -1)) / np.sum(direction**2)


def measure(effort: Effort) -> Float[np.ndarray, "S n K K"]:
    """Paths of W."""
    return walk(SETTING_SOFTMAX, NUM_ITERATIONS, effort.times(10), effort, stream="hedge")


def rows(paths: Float[np.ndarray, "S n K K"]) -> list[Row]:
    """The steps of W along P, and in the directions that the symmetry leaves out, kind by kind."""
    name, step, steps = "Hedge", hedge_step(SETTING_SOFTMAX), increments(paths)
    turned = _BASIS @ steps @ _BASIS.T
    block, off = turned[:, 1:, 1:], step / 20 if _sideways() else 0.0
    traceless = np.stack([block[:, 0, 0] - block[:, 1, 1], block[:, 0, 1] + block[:, 1, 0]], axis=1) / np.sqrt(2)
    half = NUM_ITERATIONS // 2
    rates = rate(np.diff(paths, axis=1))
    slower = (rates[:, half:] - rates[:, :half]).mean(axis=1)
    return [
        equal(name, "step along I - 11'/K", step, rate(steps)),
        equal(name, "later steps minus earlier ones", off, slower),
        equal(name, "antisymmetric steps", off, (block[:, 0, 1] - block[:, 1, 0]) / np.sqrt(2)),
        zeros(name, "symmetric steps without a trace", traceless, off),
        zeros(name, "steps of 1'W: what scores have in common", turned[:, 0, 1:], off),
        equal(name, "step of 1'W1", off, turned[:, 0, 0]),
        zeros(name, "steps of P W 1: a drift where rewards have a common part", turned[:, 1:, 0], off),
    ]


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
