"""Softmax play without regret: stopped at Hedge's rate, the trained policy has Hedge's bound.

At rate `sqrt(8 ln K / T)` regret is at most `sqrt(T ln K / 2)` on every sequence of rewards in [0, 1] (Cesa-Bianchi and
Lugosi 2006, Theorem 2.2). Trained on, the policy follows the leader.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.problems import Adaptive, Alternating, Sinusoidal, Softmax, Stationary
from theory.hedge import ARMS, SETTING_SOFTMAX, rate
from theory.play import HORIZONS, Opponent, Played, draw_shares, exponent, play
from theory.statement import Effort, Row, Statement, at_most, close, closed_form, standard_error
from theory.walks import walk

NUM_ITERATIONS = 100
TRAINING = SETTING_SOFTMAX.replace(exploration_std=0.3)
"""More noise moves faster: how fast does not matter where training is stopped by the rate that it has reached."""
_ARMS = Stationary(num_arms=ARMS, feedback="full")
OPPONENTS = {
    "arms": Opponent(_ARMS, 1.0),
    "coins": Opponent(dataclasses.replace(_ARMS, prior="constant", prior_mean=0.5), 1.0),
    "sines": Opponent(Sinusoidal(num_arms=ARMS, feedback="full"), 1.0),
    "alternating": Opponent(Alternating(num_arms=ARMS, feedback="full", centred=True), 1.0),
    "favourite": Opponent(Adaptive(num_arms=ARMS, feedback="full"), 1.0),
}
"""Rewards in an interval of length 1."""


@closed_form
def hedge_bound(horizon: int) -> float:
    """`sqrt(T ln K / 2)`."""
    return math.sqrt(horizon * math.log(ARMS) / 2)


@closed_form
def best_rate(horizon: int) -> float:
    """`sqrt(8 ln K / T)`, at which the bound holds."""
    return math.sqrt(8 * math.log(ARMS) / horizon)


class Measured(NamedTuple):
    """Regret, and the rates `[S, H]` of the policies that were stopped."""

    played: Played
    rates: Float[np.ndarray, "S H"]


def stop(paths: Float[np.ndarray, "S n K K"]) -> Float[np.ndarray, "S H K K"]:
    """For every horizon, the policy of each walk whose rate is nearest to the best."""
    best = np.asarray([best_rate(horizon) for horizon in HORIZONS])
    at = np.abs(rate(paths)[:, None, :] - best[:, None]).argmin(axis=-1)
    return np.take_along_axis(paths, at[:, :, None, None], axis=1)


def measure(effort: Effort) -> Measured:
    """One walk per seed serves all horizons."""
    paths = walk(TRAINING, NUM_ITERATIONS, effort.times(3, 2), effort)
    stopped = stop(paths)
    played = play(dict.fromkeys(OPPONENTS, stopped), paths[:, -1], Softmax(0.0), OPPONENTS, effort)
    return Measured(played, rate(stopped))


def rows(measured: Measured) -> list[Row]:
    """Every opponent on every horizon, growth, and the failure of the policy that was trained too long."""
    table = []
    for h, horizon in enumerate(HORIZONS):
        rates = measured.rates[:, h]
        quantity, error = f"T={horizon}: rate where training stops", float(standard_error(rates))
        # One iteration moves the rate by up to a seventh of the lowest.
        table.append(close("Hedge", quantity, best_rate(horizon), rates.mean(), error, relative=0.1))
    for name, regret in measured.played.stopped.items():
        for h, horizon in enumerate(HORIZONS):
            quantity = f"{name}, T={horizon}: largest regret"
            table.append(at_most("Hedge", quantity, hedge_bound(horizon), regret[:, h].max()))
        estimate, error = exponent(regret)
        table.append(at_most("Hedge", f"{name}: exponent of regret in T", 0.5, estimate, error, tolerance=0.05))
    estimate, error = exponent(measured.played.overtrained["alternating"])
    quantity = f"alternating, trained for {NUM_ITERATIONS} iterations: exponent"
    table.append(close("Hedge", quantity, 1.0, estimate, error, relative=0.05))
    return table


def draw(measured: Measured) -> Figure:
    """Largest regret of every opponent as a share of the bound."""
    bound = np.asarray([hedge_bound(horizon) for horizon in HORIZONS])
    return draw_shares(measured.played, dict.fromkeys(OPPONENTS, bound), "largest regret / √(T ln K / 2)")


STATEMENT = Statement("hedge_regret", measure, rows, draw)
