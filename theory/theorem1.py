"""Theorem 1: RMFT walks the path of FTRL, `W_n = n eta_0 I`, with `eta_0 = sigma c_{L,k} beta / alpha`."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import integrate

from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, closed_form, equal, standard_error, structural_error
from theory.walks import STRONG, diagonal, increments, multiple_of_identity, off_diagonal, walk

NUM_ITERATIONS = 10
_noise_counts = structural_error("signal", "beta takes what rewards have by chance for a signal")


@closed_form
def alpha(horizon: int, prior_std: float, noise_std: float) -> float:
    """`A = sum_t E[S_{t-1} S_{t-1}'] = alpha I` for `R_t = mu + xi_t` with zero means.

    Arms have variance `tau^2 = prior_std^2` of mu and `nu^2 = noise_std^2` of xi, so `S_s` has `s nu^2 + s^2 tau^2`,
    and the sum over `s < T` is `nu^2 T(T-1)/2 + tau^2 (T-1)T(2T-1)/6`. The laws need not be Gaussian.
    """
    T = horizon
    return noise_std**2 * T * (T - 1) / 2 + prior_std**2 * (T - 1) * T * (2 * T - 1) / 6


@closed_form
def beta(dimension: int, horizon: int, prior_std: float, noise_std: float) -> float:
    """`B = sum_t E[R_t S_{t-1}' / |R|_F] = beta I` for Gaussian `mu` and `xi_t`, by one quadrature.

    `sum_t <R_t, S_{t-1}> = (|S_T|^2 - |R|_F^2) / 2`. Turned so that one axis is that of equal rounds, R has
    `|S_T|^2 = T X` and `|R|_F^2 = X + Y` with independent `X ~ l chi^2_d`, `l = nu^2 + T tau^2`, and
    `Y ~ nu^2 chi^2_{d(T-1)}`. With `(X+Y)^{-1/2} = 2/sqrt(pi) int_0^inf exp(-u^2 (X+Y)) du`, d times beta becomes the
    integral of Laplace transforms

    `beta = (T-1)/sqrt(pi) int_0^inf (l/a - nu^2/b) a^{-d/2} b^{-d(T-1)/2} du`, `a = 1+2u^2 l`, `b = 1+2u^2 nu^2`.

    Args:
      dimension: d, of the reward vectors.
      horizon: T.
      prior_std: tau.
      noise_std: nu.
    """
    d, T, noise = dimension, horizon, noise_std**2
    common = noise + T * prior_std**2

    def integrand(u: float) -> float:
        a, b = 1 + 2 * u**2 * common, 1 + 2 * u**2 * noise
        return (common / a - (0 if _noise_counts() else noise / b)) * np.exp(-d / 2 * (np.log(a) + (T - 1) * np.log(b)))

    # In units of the integrand's width, which 1/|R|_F sets.
    width = 1 / np.sqrt(d * (common + (T - 1) * noise))
    integral = integrate.quad(lambda x: integrand(x * width), 0, np.inf, epsabs=1e-12)[0] * width
    return (T - 1) / np.sqrt(np.pi) * integral


def step_per_iteration(config: RMFTConfig) -> float:
    """`eta_0 = sigma c_{L,k} beta / alpha` of a Gaussian setting."""
    tau, nu = config.environment.prior_moments()[1], config.environment.noise_std
    c = order_statistic_mean(config.num_rollouts, config.selection.k)
    ratio = beta(config.environment.num_arms, config.horizon, tau, nu) / alpha(config.horizon, tau, nu)
    return config.decision_map.exploration_std * c * ratio


SETTINGS: dict[str, RMFTConfig] = {
    "K=3, T=10, L=8, k=2": STRONG,
    "K=2, T=12, L=4, k=1": STRONG.replace(
        num_arms=2, prior_std=0.5, noise_std=0.2,
        horizon=12, num_rollouts=4, k=1, exploration_std=1.0, num_scenarios=4096,
    ),
    "K=5, T=10, L=16, k=8": STRONG.replace(
        num_arms=5, prior_std=1.5, noise_std=1.0,
        num_rollouts=16, k=8, exploration_std=0.2, num_scenarios=1024,
    ),
}  # fmt: skip
"""Gaussian settings with different K, T, L, k, sigma and priors, all with a signal that makes W precise."""
NO_SIGNAL = STRONG.replace(prior="constant", prior_mean=0.0)
"""I.i.d. zero-mean rewards: nothing to learn."""


class Measured(NamedTuple):
    """Paths `[S, n, K, K]` of the value matrix, by setting, and without a signal."""

    paths: dict[str, Float[np.ndarray, "S n K K"]]
    no_signal: Float[np.ndarray, "S n K K"]


def measure(effort: Effort) -> Measured:
    """Runs the package's iteration in every setting."""
    seeds = effort.times(10)
    paths = {
        name: walk(config, NUM_ITERATIONS, seeds, effort, stream=f"theorem 1, {name}")
        for name, config in SETTINGS.items()
    }
    return Measured(paths, walk(NO_SIGNAL, NUM_ITERATIONS, effort.times(4), effort, stream="no signal"))


def rows(measured: Measured) -> list[Row]:
    """The steps of W: on the diagonal, and beside it what is and what is not the same on both sides."""
    table = []
    for name, paths in measured.paths.items():
        eta = step_per_iteration(SETTINGS[name])
        table += multiple_of_identity("Theorem 1", f"{name}: step of W", eta, increments(paths))
    drift = diagonal(increments(measured.no_signal))
    predicted = step_per_iteration(NO_SIGNAL)
    table.append(equal("Theorem 1", "i.i.d. zero-mean rewards: step of the diagonal", predicted, drift))
    return table


def draw(measured: Measured) -> Figure:
    """Diagonal and off-diagonal entries over iterations, in units of the predicted step."""
    with column_figure(2.7) as (figure, axes):
        counts = np.arange(NUM_ITERATIONS + 1)
        axes.plot(counts, counts, color="black", lw=0.8, ls="--", label="predicted: n η₀ I")
        markers = ("o", "s", "^")
        shifts = (-0.15, 0.0, 0.15)  # So that the settings do not hide each other.
        for color, marker, shift, (name, paths) in zip(COLORS, markers, shifts, measured.paths.items(), strict=False):
            eta = step_per_iteration(SETTINGS[name])
            values = diagonal(paths) / eta
            bars: Any = {"fmt": marker, "ms": 3, "color": color, "capsize": 1.5, "label": name}
            axes.errorbar(counts + shift, values.mean(0), 4 * standard_error(values), **bars)
            rest = off_diagonal(paths).mean(0) / eta
            axes.plot(counts, rest, color=color, lw=0.5, alpha=0.7)
        axes.plot([], [], color="grey", lw=0.5, label="off-diagonal entries")
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("entries of W, in units of η₀")
        axes.legend()
        return figure


STATEMENT = Statement("theorem1", measure, rows, draw)
