"""Softmax play without regret: stopped at Hedge's rate, the trained policy has Hedge's bound.

At rate `sqrt(8 ln K / T)` regret is at most `sqrt(T ln K / 2)` on every sequence of rewards in [0, 1] (Cesa-Bianchi and
Lugosi 2006, Theorem 2.2). Trained on, the policy follows the leader.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import special

from rmft_jax.problems import Adaptive, Alternating, Sinusoidal, Softmax, Stationary
from theory.hedge import ARMS, CENTRING, SETTING_SOFTMAX, rate
from theory.play import HORIZONS, Opponent, Played, draw_shares, play
from theory.statement import Effort, Row, Statement, at_most, closed_form, equal, structural_error
from theory.walks import walk

NUM_ITERATIONS = 60
TRAINING = SETTING_SOFTMAX.replace(exploration_std=0.3, num_scenarios=1024)
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
_fixed = structural_error("hedge_bound_fixed", "Hedge's bound does not grow with the horizon")


def hedge_bound(horizon: int) -> float:
    """`sqrt(T ln K / 2)`."""
    return math.sqrt(horizon * math.log(ARMS) / 2)


def best_rate(horizon: int) -> float:
    """`sqrt(8 ln K / T)`, at which the bound holds."""
    return math.sqrt(8 * math.log(ARMS) / horizon)


@closed_form
def hedge_alternating_regret(rate: float, horizon: int) -> float:
    """Of Hedge on the centred alternating sequence, `s`, `-2s`, `2s`, ...: `max s + 2 (T-1) <softmax(eta s), s>`."""
    s = np.asarray([0.25, -0.25, 0.0])
    return float(s.max() + 2 * (horizon - 1) * special.softmax(rate * s) @ s)


class Measured(NamedTuple):
    """What was played, and by whom.

    played: regret of the trained policies.
    policies: `[S, H, K, K]` those that stopped for each of `HORIZONS`.
    last: `[S, K, K]` those that were trained on.
    perfect: `[H, N]` by opponent, regret of `eta P` at the best rate for each horizon.
    """

    played: Played
    policies: Float[np.ndarray, "S H K K"]
    last: Float[np.ndarray, "S K K"]
    perfect: dict[str, Float[np.ndarray, "H N"]]


def stop(paths: Float[np.ndarray, "S n K K"]) -> Float[np.ndarray, "S H K K"]:
    """For every horizon, the policy of each walk whose rate is nearest to the best."""
    best = np.asarray([best_rate(horizon) for horizon in HORIZONS])
    at = np.abs(rate(paths)[:, None, :] - best[:, None]).argmin(axis=-1)
    return np.take_along_axis(paths, at[:, :, None, None], axis=1)


def measure(effort: Effort) -> Measured:
    """One walk per seed serves all horizons."""
    paths = walk(TRAINING, NUM_ITERATIONS, effort.times(4, 2), effort, stream="hedge regret")
    stopped, last = stop(paths), paths[:, -1]
    play_all = functools.partial(play, decision_map=Softmax(0.0), opponents=OPPONENTS, effort=effort, num_scenarios=16)
    played = play_all(dict.fromkeys(OPPONENTS, stopped), last, stream="hedge regret, play")
    steps = np.stack([best_rate(horizon) * CENTRING for horizon in HORIZONS])[None]
    perfect = play_all(dict.fromkeys(OPPONENTS, steps), steps[:, -1], stream="hedge, perfect")
    return Measured(played, stopped, last, {name: regret[0] for name, regret in perfect.stopped.items()})


def rows(measured: Measured) -> list[Row]:
    """Hedge against every opponent, and what trained policies lose to the alternating sequence, stopped and not."""
    lengths = HORIZONS[:1] * len(HORIZONS) if _fixed() else HORIZONS
    bounds = np.asarray([hedge_bound(horizon) for horizon in lengths])
    table = []
    for name, regret in measured.perfect.items():
        largest, quantity = float(np.max(regret.max(axis=1) / bounds)), f"W = eta P, {name}: largest share of the bound"
        table.append(at_most("Hedge", quantity, 1.0, largest))

    def shares(
        regret: Float[np.ndarray, "S H"], policies: Float[np.ndarray, "S H K K"], horizons: Sequence[int]
    ) -> Float[np.ndarray, "S"]:
        predicted = [
            [hedge_alternating_regret(r, T) for r, T in zip(run, horizons, strict=True)] for run in rate(policies)
        ]
        return np.mean(regret / np.asarray(predicted), axis=1)

    stopped, late = (
        regret["alternating"].mean(axis=2) for regret in (measured.played.stopped, measured.played.overtrained)
    )
    quantity = "alternating: regret of trained policies as a share of the closed form at W's rate, mean over T"
    table.append(equal("Hedge", quantity, 1.0, shares(stopped, measured.policies, HORIZONS)))
    quantity = f"alternating, trained for {NUM_ITERATIONS} iterations: the same at T={HORIZONS[-1]}"
    table.append(equal("Hedge", quantity, 1.0, shares(late[:, -1:], measured.last[:, None], HORIZONS[-1:])))
    return table


def draw(measured: Measured) -> Figure:
    """Largest regret of every opponent as a share of the bound."""
    bound = np.asarray([hedge_bound(horizon) for horizon in HORIZONS])
    return draw_shares(measured.played, dict.fromkeys(OPPONENTS, bound), "largest regret / √(T ln K / 2)")


STATEMENT = Statement("hedge_regret", measure, rows, draw)
