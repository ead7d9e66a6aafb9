"""Draws of Thompson sampling: their quantiles beside SciPy's, and their law by several statistics."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from rmft_jax.agents import BetaThompson, beta_draws
from rmft_jax.agents.beta_draws import REACH, log_odds, log_quantile
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.problems import Context

COUNT = 40_000
draws = jax.jit(log_odds)
# Two of the last: after 100,000 rounds.
SHAPES = [
    (1, 1), (1, 900), (900, 1), (2, 1), (3.3, 7.7), (50, 50), (0.5, 0.5), (0.03, 2), (0.9, 0.1), (3e4, 7e4), (1e5, 1),
]  # fmt: skip


def least(*shapes: float) -> float:
    """A bound that chooses the quick method where it is allowed."""
    return min(1.0, *shapes)


def many(a: float, b: float, seed: int, impl: str = "threefry2x32") -> np.ndarray:
    """`[COUNT]` independent log odds, in float64."""
    drawn = draws(jax.random.key(seed, impl=impl), jnp.full(COUNT, float(a)), jnp.full(COUNT, float(b)), least(a, b))
    return np.asarray(drawn, np.float64)


def quantiles(z: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(log_quantile)(z, shape), np.float64)


def within_4_errors(found: np.ndarray, expected: float) -> bool:
    return abs(found.mean() - expected) < 4 * found.std() / np.sqrt(len(found))


def exact_quantiles(z: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """`log_quantile` from SciPy's inverse of the incomplete Gamma function, in float64."""
    z, shape = z.astype(np.float64), shape.astype(np.float64)
    chance = scipy.special.ndtr(-abs(z))
    below, above = scipy.special.gammaincinv(shape, chance), scipy.special.gammainccinv(shape, chance)
    return np.log(np.where(z < 0, below, above) / shape)


def test_quantiles_are_those_of_the_gamma_distribution():
    shapes = np.concatenate([np.linspace(1, 4, 61), np.geomspace(4, 1e6, 60)]).astype(np.float32)
    z, shape = (grid.ravel() for grid in np.meshgrid(np.linspace(-5.4, 5.4, 541, dtype=np.float32), shapes))
    assert abs(z).max() < REACH
    expected = exact_quantiles(z, shape)
    error = np.abs(quantiles(z, shape) - expected)
    assert error.max() < 5e-6
    assert error[abs(z) < 3].max() < 3e-6
    # By how much the distribution function of what is drawn is off, but for rounding.
    law: Any = scipy.stats.gamma(shape.astype(np.float64))
    density = np.exp(law.logpdf(shape * np.exp(expected)) + np.log(shape) + expected)
    assert (error * density).max() < 1.5e-6


def test_coefficients_are_those_of_least_squares():
    # At the nodes of Chebyshev, in z and in 1 / sqrt(shape), with weights towards equal errors in standard deviations.
    z, root = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (64, 32))
    z, root = (grid.ravel() for grid in np.meshgrid(REACH * z, 0.505 + 0.495 * root))
    t, ratio, weight = z * root / REACH, root**2, 1 + 0.1 / root
    w, rho = 2 * t**2 - 1, 2 * ratio - 1
    columns = [
        t**power * w**i * rho**j
        for power, rows in ((1, beta_draws._A), (2, beta_draws._B))
        for i, row in enumerate(rows)
        for j in range(len(row))
    ]
    columns += [ratio * rho**j for j in range(len(beta_draws._C))]
    fitted, *_ = np.linalg.lstsq(weight[:, None] * np.stack(columns, 1), weight * exact_quantiles(z, root**-2.0))
    stored = [value for row in (*beta_draws._A, *beta_draws._B, beta_draws._C) for value in row]
    np.testing.assert_allclose(stored, fitted, rtol=1e-5, atol=1e-9)


def test_quantiles_beside_closed_forms():
    z = np.linspace(-5.4, 5.4, 55, dtype=np.float32)
    exponential = -scipy.special.log_ndtr(-z.astype(np.float64))
    np.testing.assert_allclose(quantiles(z, np.ones_like(z)), np.log(exponential), atol=5e-6)
    # The logarithm of a Gamma variate of a large shape is normal, but for 1 / sqrt(shape).
    shape = np.full_like(z, 1e12)
    np.testing.assert_allclose(1e6 * quantiles(z, shape), z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_law_is_beta(a, b, seed):
    found, law = many(a, b, seed), scipy.stats.beta(a, b)
    share = scipy.special.expit(found)
    # From the nearer end: so close to 1 are some shares that float64 holds no more than how far away they are.
    above = scipy.stats.beta(b, a).cdf(scipy.special.expit(-found))
    assert scipy.stats.kstest(np.where(found < 0, law.cdf(share), 1 - above), "uniform").pvalue > 1e-3
    assert within_4_errors(share, law.mean())
    assert within_4_errors((share - law.mean()) ** 2, law.var())
    middle = scipy.special.digamma(a) - scipy.special.digamma(b)
    assert within_4_errors(found, middle)
    assert within_4_errors((found - middle) ** 2, scipy.special.polygamma(1, [a, b]).sum())


def test_the_law_holds_for_other_kinds_of_keys():
    share = scipy.special.expit(many(3.3, 7.7, 0, "rbg"))
    assert scipy.stats.kstest(share, scipy.stats.beta(3.3, 7.7).cdf).pvalue > 1e-3


def test_both_methods_have_the_same_law():
    quick, other = many(2, 5, 0), np.asarray(draws(jax.random.key(1), jnp.full(COUNT, 2.0), jnp.full(COUNT, 5.0), 0.5))
    assert not np.array_equal(quick, other)
    compared: Any = scipy.stats.ks_2samp(quick, other)
    assert compared.pvalue > 1e-3


@pytest.mark.parametrize(
    "arms", [[(3, 2), (2, 3)], [(1, 1), (2, 90)], [(50, 50), (55, 45)], [(1, 900), (2, 900)], [(0.5, 0.5), (0.7, 0.2)]]
)
def test_an_arm_is_best_as_often_as_its_posterior_says(arms):
    a, b = jnp.asarray(arms, jnp.float32).T
    keys = jax.random.split(jax.random.key(2), COUNT)
    drawn = jax.jit(jax.vmap(log_odds, (0, None, None, None)))(keys, a, b, least(*np.ravel(arms)))
    first, second = (scipy.stats.beta(*arm) for arm in arms)
    # Over the quantiles of the first, whose density need not be bounded.
    chance, _ = scipy.integrate.quad(lambda u: second.cdf(first.ppf(u)), 0, 1, limit=200)
    assert within_4_errors(np.asarray(drawn[:, 0] > drawn[:, 1], np.float64), chance)


@pytest.mark.parametrize("prior", [1.0, 0.4])
def test_arms_are_independent(prior):
    keys, shapes = jax.random.split(jax.random.key(3), COUNT), prior + jnp.arange(6.0)
    drawn = jax.jit(jax.vmap(log_odds, (0, None, None, None)))(keys, shapes, shapes[::-1], prior)
    drawn = np.asarray(drawn, np.float64)
    for values in (drawn, drawn**2):
        between = np.corrcoef(values.T) - np.eye(6)
        assert np.abs(between).max() < 4.5 / np.sqrt(COUNT)


@pytest.mark.parametrize("prior", [1.0, 0.4])
def test_draws_depend_on_their_key_and_arm_alone(prior):
    keys, a = jax.random.split(jax.random.key(4), 5), prior + jnp.arange(19.0)
    together = jax.vmap(lambda key: log_odds(key, a, a[::-1], prior))(keys)
    for key, drawn in zip(keys, together, strict=True):
        for number in (1, 2, 4, 5, 8, 19):
            alone = draws(key, a[:number], a[::-1][:number], prior)
            np.testing.assert_allclose(alone, drawn[:number], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(draws(key, a, a[::-1], prior), draws(key, a, a[::-1], prior))
    assert len(np.unique(together)) == together.size


def test_priors_can_be_vmapped():
    state = ArmStatistics(jnp.asarray([0.0, 3.0, 50.0]), jnp.asarray([0.0, 1.5, 49.0]))
    context = Context(jnp.asarray(53), jnp.asarray(100), jnp.ones(3, bool), jnp.zeros(3))
    key, priors = jax.random.key(5), jnp.asarray([1.0, 0.5, 2.0])

    def index(alpha):
        return dataclasses.replace(BetaThompson(), alpha=alpha, beta=2.0)._index(key, state, context)

    for prior, row in zip(priors, jax.vmap(index)(priors), strict=True):
        np.testing.assert_allclose(row, index(prior), rtol=1e-5, atol=1e-5)
        alone = draws(key, prior + state.sums, 2.0 + state.pulls - state.sums, prior)
        np.testing.assert_allclose(row, alone, rtol=1e-5, atol=1e-5)
