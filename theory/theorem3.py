"""Theorem 3: stopped in time, the policy has no regret in a ball, against oblivious and adaptive opponents.

With rewards of norm at most G and `n* = rho / (G sqrt(T) eta_0)` iterations, the population's policy `eta I` has
regret at most `rho G sqrt(T)` on every sequence. A trained one has sampling errors, and the bound of the corollary; an
opponent that turns against them takes more than `rho G sqrt(T)`. Trained on, it follows the leader, and loses on the
alternating sequence.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.problems import Adaptive, Alternating, Ball, Sinusoidal, Stationary
from rmft_jax.statistics.certificate import euclidean_bound
from theory.play import HORIZONS, Opponent, Played, draw_shares, play, power
from theory.statement import Effort, Row, Statement, at_most, closed_form, equal, exact, structural_error
from theory.theorem1 import step_per_iteration
from theory.walks import STRONG, walk

RADIUS = 1.0
NUM_ITERATIONS = 72
TRAINING = STRONG
ARMS = TRAINING.environment.num_arms
_STATIONARY = Stationary(num_arms=ARMS, feedback="full")
OPPONENTS = {
    "arms": Opponent(_STATIONARY, math.sqrt(3)),
    "coins": Opponent(dataclasses.replace(_STATIONARY, prior="constant", prior_mean=0.5), math.sqrt(3)),
    "sines": Opponent(Sinusoidal(num_arms=ARMS, feedback="full"), math.sqrt(3)),
    "alternating": Opponent(Alternating(num_arms=ARMS, feedback="full", centred=True), math.sqrt(0.5)),
    "favourite": Opponent(Adaptive(num_arms=ARMS, feedback="full"), math.sqrt(2)),
    "orthogonal": Opponent(Adaptive(num_arms=ARMS, feedback="full", adversary="orthogonal"), 1.0),
    "turning": Opponent(Adaptive(num_arms=ARMS, feedback="full", adversary="turning"), 1.0),
}
"""Oblivious: Bernoulli arms with uniform means, fair coins, drifting sines, the alternating sequence. Adaptive: the
favourite earns nothing; rewards at a right angle to the point that is played; a sum that turns in a circle."""
_half = structural_error("one_term", "bounds forget all but the first of their terms")


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


def corollary(matrix: Float[np.ndarray, "K K"], horizon: int, norm: float) -> float:
    """The bound for a W that is no multiple of the identity, at its best step."""
    if _half():
        return RADIUS**2 * len(matrix) / (2 * float(np.trace(matrix)))
    return euclidean_bound(matrix, "linear", RADIUS, norm, horizon)


class Measured(NamedTuple):
    """What was played, and the policies that played.

    played: regret of the trained policies.
    policies: `[S, H, K, K]` by opponent, those that stopped for each of `HORIZONS`.
    perfect: `[H]` regret of `eta I` under `orthogonal`, at the step for each horizon.
    """

    played: Played
    policies: dict[str, Float[np.ndarray, "S H K K"]]
    perfect: Float[np.ndarray, "H"]


_walked: dict[tuple[int, bool], Float[np.ndarray, "S n K K"]] = {}


def trained(effort: Effort) -> Float[np.ndarray, "S n K K"]:
    """One walk per seed, which theorem A3 shares."""
    if (key := (effort.seed, effort.full)) not in _walked:
        _walked[key] = walk(TRAINING, NUM_ITERATIONS, effort.times(4), effort, stream="theorem 3")
    return _walked[key]


def measure(effort: Effort) -> Measured:
    """The iteration at which a walk stops is the step size, so that one walk serves all horizons."""
    paths = trained(effort)
    stopped = {
        name: np.stack([paths[:, stopping_time(horizon, norm)] for horizon in HORIZONS], axis=1)
        for name, (_, norm) in OPPONENTS.items()
    }
    played = play(stopped, paths[:, -1], Ball(0.0, RADIUS), OPPONENTS, effort, "theorem 3, play", 16)
    steps = np.stack([RADIUS / math.sqrt(horizon) * np.eye(ARMS) for horizon in HORIZONS])[None]
    orthogonal = {"orthogonal": OPPONENTS["orthogonal"]}
    perfect = play({"orthogonal": steps}, steps[:, -1], Ball(0.0, RADIUS), orthogonal, effort, "perfect", 1)
    return Measured(played, stopped, perfect.stopped["orthogonal"][0, :, 0])


def rows(measured: Measured) -> list[Row]:
    """The bound, that it is attained, what an opponent of the step size takes, and the failure of training too long."""
    table = [
        exact("Theorem 3", f"step rho/(G sqrt(T)) I, orthogonal, T={T}: regret, all of the bound", bound, regret)
        for T, bound, regret in zip(
            HORIZONS, (no_regret_bound(T, 1.0) for T in HORIZONS), measured.perfect, strict=True
        )
    ]
    for name, (_, norm) in OPPONENTS.items():
        largest = measured.played.stopped[name].max(axis=2)
        bounds = np.asarray(
            [[corollary(W, T, norm) for W, T in zip(run, HORIZONS, strict=True)] for run in measured.policies[name]]
        )
        quantity = f"trained, {name}: largest regret as a share of the corollary's bound"
        table.append(at_most("Theorem 3", quantity, 1.0, float(np.max(largest / bounds))))
    # The one opponent whose regret shows the step size itself.
    norm, eta = OPPONENTS["alternating"].norm, step_per_iteration(TRAINING)
    predicted = np.asarray([alternating_regret(stopping_time(T, norm) * eta, T) for T in HORIZONS])
    regret = measured.played.stopped["alternating"].mean(axis=2)
    quantity = "trained, alternating: regret as a share of the closed form, mean over T"
    table.append(equal("Theorem 3", quantity, 1.0, np.mean(regret / predicted, axis=1)))
    quantity = "trained, alternating: exponent of regret in T, minus that of the closed form"
    table.append(equal("Theorem 3", quantity, 0.0, power(regret) - power(predicted)))
    late = measured.played.overtrained["alternating"].mean(axis=2)
    for h in (2, 5):
        predicted_late = alternating_regret(NUM_ITERATIONS * eta, HORIZONS[h])
        quantity = f"alternating, T={HORIZONS[h]}, trained for {NUM_ITERATIONS} iterations: regret"
        table.append(equal("Theorem 3", quantity, predicted_late, late[:, h]))
    return table


def draw(measured: Measured) -> Figure:
    """Largest regret of every opponent as a share of the bound of a policy without sampling errors."""
    bounds = {name: np.asarray([no_regret_bound(T, norm) for T in HORIZONS]) for name, (_, norm) in OPPONENTS.items()}
    return draw_shares(measured.played, bounds, "largest regret / (ρ G √T)")


STATEMENT = Statement("theorem3", measure, rows, draw)
