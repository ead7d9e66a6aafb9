"""Theorem 2: with an L2 penalty RMFT converges to `W* = sigma c_{L,k} B / lambda`, at rate `alpha / (alpha + lambda)`.

The penalty sets FTRL's step size.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.plotting.style import COLORS, column_figure
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, closed_form, equal, standard_error
from theory.theorem1 import alpha, beta
from theory.walks import STRONG, diagonal, walk

NUM_ITERATIONS = 10
PENALTIES = (72.0, 144.0)
"""A quarter of alpha, and half of it: slow and fast contraction."""


@closed_form
def fixed_point(penalty: float) -> float:
    """`W* = sigma c_{L,k} beta / lambda`, times I, in the setting of the check with this lambda."""
    environment, c = STRONG.environment, order_statistic_mean(STRONG.num_rollouts, STRONG.selection.k)
    signal = beta(environment.num_arms, STRONG.horizon, environment.prior_moments()[1], environment.noise_std)
    return STRONG.decision_map.exploration_std * c * signal / penalty


@closed_form
def contraction(penalty: float) -> float:
    """`alpha / (alpha + lambda)`: what is left of the distance to the fixed point after an iteration."""
    a = alpha(STRONG.horizon, STRONG.environment.prior_moments()[1], STRONG.environment.noise_std)
    return a / (a + penalty)


class Measured(NamedTuple):
    """By penalty, the diagonal over iterations `[S, n]` of runs from 0 and of runs from above."""

    from_zero: dict[float, Float[np.ndarray, "S n"]]
    from_above: dict[float, Float[np.ndarray, "S n"]]


def measure(effort: Effort) -> Measured:
    """Runs the iteration from both sides; the upper start is a round number near four times the last value from 0."""
    from_zero, from_above = {}, {}
    for penalty in PENALTIES:
        config, seeds, name = (
            STRONG.replace(l2_penalty=penalty, num_scenarios=2048),
            effort.times(6),
            f"penalty {penalty}",
        )
        from_zero[penalty] = diagonal(walk(config, NUM_ITERATIONS, seeds, effort, stream=name))
        start = np.round(4 * from_zero[penalty][:, -1].mean(), 3) * np.eye(3)
        from_above[penalty] = diagonal(walk(config, NUM_ITERATIONS, seeds, effort, start, stream=f"{name}, from above"))
    return Measured(from_zero, from_above)


def recursion(paths: Float[np.ndarray, "R n"]) -> tuple[float, float]:
    """Least-squares fit of `w_{n+1} = w* + r (w_n - w*)` to some runs: `(w*, r)`."""
    before, after = paths[:, :-1].ravel(), paths[:, 1:].ravel()
    rate, constant = np.polyfit(before, after, 1)
    return constant / (1 - rate), rate


def rows(measured: Measured) -> list[Row]:
    """Fixed point and rate of the recursion that fits the runs, with standard errors over pairs of runs."""
    table = []
    for penalty in PENALTIES:
        pairs = np.stack([measured.from_zero[penalty], measured.from_above[penalty]], axis=1)
        fitted = np.asarray([recursion(pair) for pair in pairs])
        name = f"lambda={penalty:g}"
        table.append(equal("Theorem 2", f"{name}: fixed point", fixed_point(penalty), fitted[:, 0]))
        table.append(equal("Theorem 2", f"{name}: contraction rate", contraction(penalty), fitted[:, 1]))
    return table


def draw(measured: Measured) -> Figure:
    """Runs from both sides against the predicted recursion."""
    with column_figure() as (figure, axes):
        counts = np.arange(NUM_ITERATIONS + 1)
        for color, marker, penalty in zip(COLORS[3:], ("o", "s"), PENALTIES, strict=False):
            target, rate = fixed_point(penalty), contraction(penalty)
            for paths in (measured.from_zero[penalty], measured.from_above[penalty]):
                axes.plot(counts, target + (paths[0, 0] - target) * rate**counts, color=color, lw=1)
                errors = 4 * standard_error(paths)
                axes.errorbar(counts, paths.mean(0), errors, fmt=marker, ms=2.5, color=color, capsize=1.5, lw=0.8)
            label = f"λ = {penalty:g}: W* = {target:.4f}, rate {rate:.2f}"
            axes.plot([], [], color=color, marker=marker, ms=2.5, lw=1, label=label)
            axes.axhline(target, color=color, lw=0.8, ls=":")
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("diagonal of W")
        axes.legend()
        return figure


STATEMENT = Statement("theorem2", measure, rows, draw)
