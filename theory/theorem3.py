"""Theorem 3: stopped in time, the trained policy has no regret in a ball, against oblivious and adaptive opponents.

With rewards of norm at most G and `n* = rho / (G sqrt(T) eta_0)` iterations, regret is at most `rho G sqrt(T)` on every
sequence. Trained on, it follows the leader, and loses on the alternating sequence.
"""

import dataclasses
import math

import numpy as np
from matplotlib.figure import Figure

from rmft_jax.problems import Adaptive, Alternating, Ball, Sinusoidal, Stationary
from theory.play import HORIZONS, Opponent, Played, draw_shares, exponent, play
from theory.statement import Effort, Row, Statement, at_most, close, closed_form, standard_error
from theory.theorem1 import step_per_iteration
from theory.walks import SETTING, walk

RADIUS = 1.0
NUM_ITERATIONS = 100
TRAINING = SETTING.replace(prior_std=1.0, noise_std=0.3, horizon=10, exploration_std=0.1, num_scenarios=2048)
"""Short horizons and a strong signal train cheaply; what is learned plays any horizon."""
_ARMS = Stationary(num_arms=3, feedback="full")
OPPONENTS = {
    "arms": Opponent(_ARMS, math.sqrt(3)),
    "coins": Opponent(dataclasses.replace(_ARMS, prior="constant", prior_mean=0.5), math.sqrt(3)),
    "sines": Opponent(Sinusoidal(num_arms=3, feedback="full"), math.sqrt(3)),
    "alternating": Opponent(Alternating(num_arms=3, feedback="full", centred=True), math.sqrt(0.5)),
    "favourite": Opponent(Adaptive(num_arms=3, feedback="full"), math.sqrt(2)),
    "orthogonal": Opponent(Adaptive(num_arms=3, feedback="full", adversary="orthogonal"), 1.0),
}
"""Oblivious: Bernoulli arms with uniform means, fair coins, drifting sines, the alternating sequence. Adaptive: the
favourite earns nothing, and rewards at a right angle to the point that is played."""


@closed_form
def no_regret_bound(horizon: int, norm: float) -> float:
    """`rho G sqrt(T)`, FTRL's bound at its best step `rho / (G sqrt(T))`."""
    return RADIUS * norm * math.sqrt(horizon)


@closed_form
def alternating_regret(step: float, horizon: int) -> float:
    """Of FTRL on the centred alternating sequence: `rho |s| + 2 (T-1) |s| min(eta |s|, rho)`, `|s| = sqrt(1/8)`."""
    size = math.sqrt(1 / 8)
    return RADIUS * size + 2 * (horizon - 1) * size * min(step * size, RADIUS)


def stopping_time(horizon: int, norm: float) -> int:
    """`n*`, rounded."""
    return round(RADIUS / (norm * math.sqrt(horizon) * step_per_iteration(TRAINING)))


def measure(effort: Effort) -> Played:
    """One walk per seed serves all horizons: the iteration at which it stops is the step size."""
    paths = walk(TRAINING, NUM_ITERATIONS, effort.times(3, 2), effort)
    stopped = {
        name: np.stack([paths[:, stopping_time(horizon, norm)] for horizon in HORIZONS], axis=1)
        for name, (_, norm) in OPPONENTS.items()
    }
    return play(stopped, paths[:, -1], Ball(0.0, RADIUS), OPPONENTS, effort)


def rows(measured: Played) -> list[Row]:
    """Every opponent on every horizon, growth, and the failure of the policy that was trained too long."""
    table = []
    for name, (_, norm) in OPPONENTS.items():
        regret = measured.stopped[name]
        for h, horizon in enumerate(HORIZONS):
            bound, largest, quantity = no_regret_bound(horizon, norm), regret[:, h].max(), f"{name}, T={horizon}"
            if name == "orthogonal":  # Here FTRL attains its bound, so that only sampling errors of W are left.
                error = float(standard_error(regret[:, h].max(axis=1)))
                quantity = f"{quantity}: regret, which is all of the bound"
                table.append(close("Theorem 3", quantity, bound, largest, error, relative=0.03))
            else:
                table.append(at_most("Theorem 3", f"{quantity}: largest regret", bound, largest))
            if name == "alternating":  # The one opponent whose regret shows the step size itself.
                regret_h = regret[:, h].mean(axis=1)
                predicted = alternating_regret(stopping_time(horizon, norm) * step_per_iteration(TRAINING), horizon)
                label, error = f"{name}, T={horizon}: mean regret", float(standard_error(regret_h))
                table.append(close("Theorem 3", label, predicted, regret_h.mean(), error, relative=0.03))
        estimate, error = exponent(regret)
        table.append(at_most("Theorem 3", f"{name}: exponent of regret in T", 0.5, estimate, error, tolerance=0.05))
    late = measured.overtrained["alternating"]
    predicted = alternating_regret(NUM_ITERATIONS * step_per_iteration(TRAINING), HORIZONS[-1])
    error = float(standard_error(late[:, -1].mean(axis=1)))
    quantity = f"alternating, T={HORIZONS[-1]}, trained for {NUM_ITERATIONS} iterations: regret"
    table.append(close("Theorem 3", quantity, predicted, late[:, -1].mean(), error, relative=0.03))
    estimate, error = exponent(late)
    quantity = f"alternating, trained for {NUM_ITERATIONS} iterations: exponent"
    table.append(close("Theorem 3", quantity, 1.0, estimate, error, relative=0.05))
    return table


def draw(measured: Played) -> Figure:
    """Largest regret of every opponent as a share of the bound."""
    bounds = {name: np.asarray([no_regret_bound(T, norm) for T in HORIZONS]) for name, (_, norm) in OPPONENTS.items()}
    return draw_shares(measured, bounds, "largest regret / (ρ G √T)")


STATEMENT = Statement("theorem3", measure, rows, draw)
