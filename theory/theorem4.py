"""Theorem 4: gradient training of the regret-loss (Park et al. 2024) arrives at FTRL as well.

For i.i.d. zero-mean isotropic rewards and a convex phi, a minimizer of `E[phi(rho |S_T| - sum_t <W S_{t-1}, R_t>)]` is
`w* I`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import optimize, special, stats

from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Stationary
from theory.statement import Effort, Row, Statement, closed_form, structural_error
from theory.walks import SETTING, diagonal, multiple_of_identity, off_diagonal, walk

NUM_ITERATIONS = 240
RADIUS = 1.0
_square = structural_error("square", "the loss counts negative regret like positive regret")


class Setting(NamedTuple):
    """Dimension, horizon, and standard deviation of the rewards."""

    num_arms: int
    horizon: int
    noise_std: float

    @property
    def config(self) -> RMFTConfig:
        """Training as the package does it: one rollout of each scenario, of which nothing is selected."""
        environment = Stationary(
            num_arms=self.num_arms, feedback="full", prior="constant", noise="gaussian", noise_std=self.noise_std
        )
        steps = {"update": "gradient", "num_minibatches": 1, "step_size": 0.008, "update_block": 2048}
        return SETTING.replace(
            environment=environment, horizon=self.horizon, num_scenarios=2048, num_rollouts=1, k=1,
            num_iterations=NUM_ITERATIONS, objective="regret_loss", **steps,
        )  # fmt: skip


SETTINGS = (Setting(3, 6, 1.0), Setting(2, 12, 0.5))


@closed_form
def regret_loss_minimizer(num_arms: int, horizon: int, noise_std: float) -> float:
    """`w*` of the package's loss `max(Reg, 0)^2`: the root of `E[max(rho |S_T| - w q, 0) q]`, by quadrature.

    `q = sum_t <S_{t-1}, R_t> = (|S_T|^2 - |R|_F^2) / 2 = ((T-1) X - Y) / 2`, with `|S_T|^2 = T X` and the independent
    `X ~ nu^2 chi^2_K`, `Y ~ nu^2 chi^2_{K(T-1)}` of theorem 1.
    """
    minimizer = square_minimizer if _square() else positive_part_minimizer
    return minimizer(num_arms, horizon, noise_std)


@functools.cache
def positive_part_minimizer(num_arms: int, horizon: int, noise_std: float) -> float:
    """The root, by the midpoint rule in the quantiles of X and of Y."""
    T, levels = horizon, (np.arange(1000) + 0.5) / 1000
    X, Y = (noise_std**2 * stats.chi2.ppf(levels, degrees) for degrees in (num_arms, num_arms * (T - 1)))
    size, q = RADIUS * np.sqrt(T * X)[:, None], ((T - 1) * X[:, None] - Y[None]) / 2
    start = square_minimizer(num_arms, horizon, noise_std)

    def slope(w: float) -> float:
        return float(np.mean(np.maximum(size - w * q, 0) * q))

    return float(optimize.root_scalar(slope, bracket=(start / 4, 4 * start)).root)


def square_minimizer(num_arms: int, horizon: int, noise_std: float) -> float:
    """Of the square: `rho E[|S_T| q] / E[q^2] = rho E[chi_K] / (nu K sqrt(T))`."""
    K = num_arms
    mean_chi = math.sqrt(2) * math.exp(special.gammaln((K + 1) / 2) - special.gammaln(K / 2))
    return RADIUS * mean_chi / (noise_std * K * math.sqrt(horizon))


class Measured(NamedTuple):
    """W over gradient steps, by setting and seed."""

    paths: dict[Setting, Float[np.ndarray, "S n K K"]]


def measure(effort: Effort) -> Measured:
    """The package's iteration with the objective `regret_loss`, in both settings."""
    seeds = effort.times(8)
    return Measured({s: walk(s.config, NUM_ITERATIONS, seeds, effort, stream=f"theorem 4, {s}") for s in SETTINGS})


def rows(measured: Measured) -> list[Row]:
    """The W that training ends with."""
    table = []
    for setting, paths in measured.paths.items():
        name, minimum = f"K={setting.num_arms}, T={setting.horizon}: W", regret_loss_minimizer(*setting)
        table += multiple_of_identity("Theorem 4", name, minimum, paths[:, -1])
    return table


def draw(measured: Measured) -> Figure:
    """Entries of W over gradient steps."""
    with column_figure() as (figure, axes):
        for color, (setting, paths) in zip(COLORS[4:], measured.paths.items(), strict=False):
            minimum = regret_loss_minimizer(*setting)
            label = f"K = {setting.num_arms}, T = {setting.horizon}: w* = {minimum:.4f}"
            axes.axhline(minimum, color=color, lw=0.8, ls="--")
            axes.plot(diagonal(paths).T, color=color, lw=0.6)
            axes.plot([], [], color=color, lw=1, label=label)
            axes.plot(off_diagonal(paths).mean(axis=0), color=color, lw=0.4, alpha=0.6)
        axes.plot([], [], color="grey", lw=0.4, label="off-diagonal entries")
        axes.set_xlabel("gradient step on the regret-loss")
        axes.set_ylabel("entries of W")
        axes.set_ylim(top=0.52)  # Room for the legend.
        axes.legend(loc="upper right")
        return figure


STATEMENT = Statement("theorem4", measure, rows, draw)
