"""Theorems A1 and A2: with finitely many scenarios W still takes independent steps of one law, of known spread.

Selection sees the noise and the rewards, and the features see the rewards, so that the step of an iteration does not
depend on W. Its mean is a multiple of I for every number of scenarios; its variance is known to leading order.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import integrate, stats

from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, equal, exact, structural_error
from theory.theorem1 import alpha, beta, step_per_iteration
from theory.walks import STRONG, increments, multiple_of_identity, walk

ARMS = STRONG.environment.num_arms
COUNTS = (64, 256, 1024)
"""Scenarios M of an iteration."""
NUM_ITERATIONS = {64: 256, 256: 64, 1024: 16}
FEW = 16
"""Scenarios of iterations that are many."""
_fixed_features = structural_error("features", "the spread of W forgets that the features are those of few scenarios")
_dependent = structural_error("dependent", "a step is said to have a twentieth of the one before in it")
_no_bias = structural_error("bias", "with few scenarios W is said to take the same steps as with many")


def precision(num_kept: float, config: RMFTConfig) -> float:
    """`E |W_n / (n eta) - I|_F^2`, about `K^2 alpha / (c^2 beta^2 N)`, of N kept trajectories in all."""
    tau, nu = config.environment.prior_moments()[1], config.environment.noise_std
    a, b = alpha(config.horizon, tau, nu), beta(config.environment.num_arms, config.horizon, tau, nu)
    c = order_statistic_mean(config.num_rollouts, config.selection.k)
    return config.environment.num_arms**2 * a / (c**2 * b**2 * num_kept)


def top_mean_variance(num_rollouts: int, k: int) -> float:
    """Variance of the mean of the k largest of L standard normals, by the law of one and of two of them.

    With all L sorted by size, it is the mean over pairs of the k largest of their covariances.
    """
    grid = np.linspace(-8, 8, 1601)
    width = grid[1] - grid[0]
    density, below = stats.norm.pdf(grid), stats.norm.cdf(grid)
    # One is among the k largest if at most k - 1 of the others exceed it.
    second = integrate.quad(
        lambda z: z**2 * stats.norm.pdf(z) * stats.binom.cdf(k - 1, num_rollouts - 1, stats.norm.sf(z)), -8, 8
    )[0]
    total = num_rollouts * second
    if k > 1:  # Two are, if at most k - 2 of the others exceed the lower of them.
        lower = np.minimum(below[:, None], below[None])
        both = stats.binom.cdf(k - 2, num_rollouts - 2, 1 - lower)
        weight = np.outer(grid * density, grid * density) * both
        total += num_rollouts * (num_rollouts - 1) * float(weight.sum()) * width**2
    return total / k**2 - order_statistic_mean(num_rollouts, k) ** 2


class Moments(NamedTuple):
    """What scenarios do to a step, to leading order in 1/M.

    spread: `M E |step - E step|_F^2`.
    bias: `M (eta_M / eta_0 - 1)`.
    """

    spread: float
    bias: float


def moments(config: RMFTConfig, generator: np.random.Generator, count: int = 100_000) -> Moments:
    """The closed forms of A1 and A2, with the second moments of one scenario by simulation."""
    environment, (L, k) = config.environment, (config.num_rollouts, config.selection.k)
    K, T, tau, nu = environment.num_arms, config.horizon, environment.prior_moments()[1], environment.noise_std
    a, b, c = alpha(T, tau, nu), beta(K, T, tau, nu), order_statistic_mean(L, k)
    shape = (count, T, K)
    rewards = tau * generator.normal(size=(count, 1, K)) + nu * generator.normal(size=shape)
    sums = np.cumsum(rewards, axis=1) - rewards
    unit = rewards / np.linalg.norm(rewards, axis=(1, 2), keepdims=True)
    signal, features = (np.einsum("nti,ntj->nij", left, sums) for left in (unit, sums))
    of_features = (0 if _fixed_features() else b / a) * features
    size = np.mean(np.sum(signal**2, axis=(1, 2)))
    uneven = np.mean(np.sum((signal - of_features) ** 2, axis=(1, 2)))
    noise = K**2 * a / k - (1 / k - top_mean_variance(L, k)) * size
    # `B A^-1` to second order in the deviations of the means over scenarios.
    off_features, off_signal = features / a - np.eye(K), signal / b - np.eye(K)
    bias = np.einsum("nij,nji->", off_features - off_signal, off_features) / (K * count)
    variance = config.decision_map.exploration_std**2 / a**2 * (noise + c**2 * uneven)
    return Moments(float(variance), 0.0 if _no_bias() else float(bias))


class Measured(NamedTuple):
    """Walks of W, and what is predicted of their spread.

    paths: `[S, n, K, K]` by the number of scenarios.
    few: `[S, n, K, K]` with very few scenarios.
    coupled: `[2, n, K, K]` two walks with the same random numbers, the second from another start.
    moments: seed of the simulation that bias and spread need.
    """

    paths: dict[int, Float[np.ndarray, "S n K K"]]
    few: Float[np.ndarray, "S n K K"]
    coupled: Float[np.ndarray, "2 n K K"]
    moments: int


def measure(effort: Effort) -> Measured:
    """Runs the package's iteration with many, few and very few scenarios."""
    seeds = effort.times(8)
    paths = {
        M: walk(STRONG.replace(num_scenarios=M), NUM_ITERATIONS[M], seeds, effort, stream=f"finite samples, {M}")
        for M in COUNTS
    }
    few = walk(STRONG.replace(num_scenarios=FEW), 256, seeds, effort, stream="very few samples")
    start = effort.generator("start").normal(size=(ARMS, ARMS))
    coupled = [
        walk(STRONG.replace(num_scenarios=FEW), 8, 1, effort, at, stream="coupled")
        for at in (np.zeros_like(start), start)
    ]
    return Measured(paths, few, np.concatenate(coupled), effort.seed)


def rows(measured: Measured) -> list[Row]:
    """Steps that know nothing of W and of each other, whose mean is a multiple of I, and how far they spread."""
    name, eta, table = "Theorem A", step_per_iteration(STRONG), []
    steps = np.diff(measured.coupled, axis=1)
    scale = 1 + (0.05 if _dependent() else 0.0)
    table.append(exact(name, "A1: size of steps from another W, the same random numbers", scale, _ratio(*steps)))
    few = np.diff(measured.few, axis=1)
    few -= few.mean(axis=(0, 1))
    of_two, variance = np.mean(few[:, 1:] * few[:, :-1], axis=(1, 2, 3)), float(np.mean(few**2))
    table.append(equal(name, "A1: correlation of a step with the next", 0.05 * _dependent(), of_two / variance))
    predicted = moments(STRONG, np.random.default_rng(measured.moments))
    for M, paths in {FEW: measured.few, **measured.paths}.items():
        biased = eta * (1 + predicted.bias / M)
        found = multiple_of_identity(name, f"A1: M={M}: step of W", biased, increments(paths))
        table += found[1:] if M == FEW else found  # Of so few, higher orders of 1/M count as well.
    for M in COUNTS[1:]:
        steps = np.diff(measured.paths[M], axis=1)
        squares = np.sum((steps - steps.mean(axis=(0, 1))) ** 2, axis=(2, 3)).ravel()
        size = squares * squares.size / (squares.size - 1) * M
        table.append(equal(name, f"A2: M={M}: M times the variance of a step", predicted.spread, size, near=0.1))
    return table


def _ratio(first: Float[np.ndarray, "n K K"], second: Float[np.ndarray, "n K K"]) -> float:
    """How large the second is along the first."""
    return float(np.sum(first * second) / np.sum(first**2))


def draw(measured: Measured) -> Figure:
    """Relative error of W against the trajectories kept in all."""
    with column_figure() as (figure, axes):
        eta, k = step_per_iteration(STRONG), STRONG.selection.k
        kept = np.geomspace(100, 1e5, 50)
        axes.plot(
            kept, [np.sqrt(precision(n, STRONG)) for n in kept], color="black", lw=0.8, ls="--", label="A2, predicted"
        )
        for color, marker, (M, paths) in zip(COLORS, ("o", "s", "^"), measured.paths.items(), strict=False):
            counts = 2 ** np.arange(int(np.log2(NUM_ITERATIONS[M])) + 1)
            errors = paths[:, counts] / (counts * eta)[:, None, None] - np.eye(ARMS)
            sizes = np.sqrt(np.mean(np.sum(errors**2, axis=(2, 3)), axis=0))
            axes.plot(counts * M * k, sizes, marker, ms=3, color=color, label=f"M = {M} scenarios an iteration")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
        axes.set_xlabel("trajectories kept in all, N = n M k")
        axes.set_ylabel("error of W: |W/(nη₀) − I|, Frobenius")
        axes.legend()
        return figure


STATEMENT = Statement("finite_samples", measure, rows, draw)
