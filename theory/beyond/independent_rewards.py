"""What if every rollout draws its own rewards, so that selection keeps the lucky as well as the good?

The theorems give the L rollouts of a scenario the same rewards. Here they share the expected rewards only. Regret then
differs between rollouts by their noise eps, as in the lemma, but also by luck: by the comparator `rho |S_T|`, which is
no longer common, and by what the policy makes of its own rewards, `sum_t <W S_{t-1}, R_t>`. Luck says nothing about
eps, so it can only dilute selection. The radius rho sets how much of it the comparator brings in.

The two kinds of luck have opposite signs. For `W = w I` they are `rho |S_T| - w (|S_T|^2 - |R|_F^2) / 2`, which hardly
varies with `|S_T|` where `w |S_T|` is near rho: selection should be nearest to the theorem's there.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmft_jax.plotting.style import COLORS, column_figure
from theory.beyond.exploration import Exploration, Finding, band, beside, over_seeds
from theory.statement import Effort
from theory.theorem1 import step_per_iteration
from theory.walks import SETTING, diagonal, walk

NAME = "independent_rewards"
CONFIG = SETTING.replace(shared_reward_noise=False, num_scenarios=512)
RADII = (1e-3, 1.0)
NUM_ITERATIONS = 20
LAST = 5


class Measured(NamedTuple):
    """paths: `[P, S, n, K, K]` of the value matrix, by radius."""

    paths: Float[np.ndarray, "P S n K K"]


def measure(effort: Effort) -> Measured:
    """Runs the package's iteration with and without a comparator of weight."""
    walks = []
    for radius in RADII:
        effort.note(f"independent rewards, radius {radius:g}")
        walks.append(walk(CONFIG.replace(radius=radius), NUM_ITERATIONS, effort.times(4), effort))
    return Measured(np.stack(walks))


def findings(measured: Measured) -> list[Finding]:
    """Steps along I, first and last, in units of the theorem's, and the rest of the matrix."""
    found = []
    for radius, paths in zip(RADII, measured.paths, strict=True):
        steps = np.diff(diagonal(paths) / step_per_iteration(CONFIG), axis=1)
        name = f"radius {radius:g}"
        found += [
            over_seeds(NAME, f"{name}: step of iterations 1 and 2, in units of eta_0", steps[:, :2].mean(1), 1.0),
            over_seeds(NAME, f"{name}: step of iterations 9 to 12, in units of eta_0", steps[:, 8:12].mean(1), 1.0),
            over_seeds(NAME, f"{name}: step of the last {LAST}, in units of eta_0", steps[:, -LAST:].mean(1), 1.0),
            beside(NAME, f"{name}: off-diagonal of W_{NUM_ITERATIONS} relative to its diagonal", paths),
        ]
    return found


def draw(measured: Measured) -> Figure:
    """Diagonals over iterations, in units of the theorem's step."""
    counts = np.arange(NUM_ITERATIONS + 1)
    with column_figure() as (figure, axes):
        axes.plot(counts, counts, color="black", lw=0.8, ls="--", label="theorem 1, shared rewards")
        for radius, paths, color, ls in zip(RADII, measured.paths, COLORS[4:], ("-", "-."), strict=False):
            values = diagonal(paths) / step_per_iteration(CONFIG)
            band(axes, counts, values, color, ls=ls, label=rf"own rewards, $\rho$ = {radius:g}")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("diagonal of W, in units of η₀")
        axes.legend()
        return figure


EXPLORATION = Exploration(NAME, "Rewards drawn by every rollout for itself", measure, findings, draw)
