"""What do sampling errors of the fit cost, and what can training do about it?

A learned W is not exactly `eta P`. Rewards in [0, 1] have a common part, which makes the sums grow along the vector of
ones; where `P W 1` is not quite 0, that becomes a drift of the scores, and regret linear in T (the corollary of theorem
3). More scenarios make W more precise. So do training rewards that share a large mean: play does not see it, but the
fit does.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Softmax
from theory.beyond.exploration import Exploration, Finding, over_seeds
from theory.hedge import CENTRING, rate
from theory.hedge_regret import OPPONENTS, TRAINING, hedge_bound, stop
from theory.play import HORIZONS, horizon_axis, play
from theory.statement import Effort, standard_error
from theory.walks import walk

NAME = "sampling_errors"
NUM_ITERATIONS = 26
LONG = HORIZONS[3:]
COUNTS, MEANS = (512, 2048), (0.0, 10.0)
CASES = [(count, mean) for count in COUNTS for mean in MEANS]


class Measured(NamedTuple):
    """By number of scenarios and common mean of the training rewards.

    drift: `[C, S]` norm of `P W 1` over the rate, of the policy for the longest horizon.
    regret: `[C, S, H]` largest regret against fair coins over that bound of Hedge, on the long horizons.
    """

    drift: Float[np.ndarray, "C S"]
    regret: Float[np.ndarray, "C S H"]


def measure(effort: Effort) -> Measured:
    """Trains with few and many scenarios, without and with a common mean, and plays fair coins."""
    drifts, regrets = [], []
    coins = {"coins": OPPONENTS["coins"]}
    for count, mean in CASES:
        config = TRAINING.replace(prior_mean=mean, num_scenarios=count)
        paths = walk(config, NUM_ITERATIONS, effort.times(3), effort)
        stopped = stop(paths)
        last = stopped[:, -1]
        drifts.append(np.linalg.norm((CENTRING @ last).sum(axis=-1), axis=-1) / rate(last))
        played = play({"coins": stopped}, paths[:, -1], Softmax(0.0), coins, effort).stopped["coins"]
        bounds = np.asarray([hedge_bound(T) for T in LONG])
        regrets.append(played[:, -len(LONG) :].max(axis=-1) / bounds)
    return Measured(np.stack(drifts), np.stack(regrets))


def findings(measured: Measured) -> list[Finding]:
    """How far `P W 1` is from 0, and what that does at the longest horizon."""
    found = []
    for (count, mean), drift, regret in zip(CASES, measured.drift, measured.regret, strict=True):
        name = f"{count} scenarios, common mean {mean:g}"
        found += [
            over_seeds(NAME, f"{name}: |P W 1| over the rate", drift, 0.0),
            over_seeds(NAME, f"{name}: largest regret over Hedge's bound, T={LONG[-1]}", regret[:, -1], 1.0),
        ]
    return found


def draw(measured: Measured) -> Figure:
    """Largest regret over the bound on long horizons."""
    with column_figure() as (figure, axes):
        for (count, mean), regret in zip(CASES, measured.regret, strict=True):
            color, line = COLORS[4 if mean else 5], "o-" if count == COUNTS[-1] else "s--"
            label = f"{count} scenarios, mean {mean:g}"
            errors = 2 * standard_error(regret)
            axes.errorbar(LONG, regret.mean(axis=0), errors, fmt=line, ms=3, color=color, capsize=2, label=label)
        axes.axhline(1, color="black", lw=0.8, ls=":")
        horizon_axis(axes, LONG)
        axes.set_ylabel("largest regret / √(T ln K / 2)")
        title = "training: scenarios, common mean; bars: ±2 SE"
        figure.legend(loc="outside upper center", ncols=2, fontsize=6, title=title, title_fontsize=6.5)
        return figure


EXPLORATION = Exploration(NAME, "What do sampling errors cost?", measure, findings, draw)
