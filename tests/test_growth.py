"""The statistics of a no-regret claim, against sequences of known growth and against slow twins."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from rmft_jax.config import ConfigError
from rmft_jax.statistics.growth import growth_exponent, half_horizon, regression_test, suff_fail_freq, trend_test

ROUNDS = np.arange(1, 201)


def slow_p_value(falls: int, comparisons: int) -> Fraction:
    return Fraction(sum(math.comb(comparisons, j) for j in range(falls, comparisons + 1)), 2**comparisons)


@pytest.mark.parametrize(
    ("regret", "falls"),
    [
        (np.sqrt(ROUNDS), 199),
        (1 + np.log(ROUNDS), 199),
        (np.full(200, 3.0), 199),
        (ROUNDS**1.2, 0),
        (np.zeros(200), 0),
        (-np.sqrt(ROUNDS), 0),
        (-(ROUNDS**1.2), 199),
    ],
    ids=["sqrt", "log", "constant", "superlinear", "zero", "minus-sqrt", "ever-more-negative"],
)
def test_trend_of_known_sequences(regret, falls):
    test = trend_test(regret)
    assert test.num_decreases == falls
    assert test.p_value == pytest.approx(float(slow_p_value(falls, 199)), rel=1e-9, abs=0)


@pytest.mark.parametrize("slope", [0.1, 0.2, 1 / 3, 0.7, -0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_regret_does_not_fall_by_rounding(slope, dtype):
    regret = np.cumsum(np.full(1000, slope, dtype), dtype=dtype)
    assert trend_test(regret) == (0, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-3, 5), min_size=1, max_size=30))
@example([1])
@example([1, -1])
@example([1, 1])
def test_the_trend_test_equals_its_slow_twin(steps):
    regret = [sum(steps[: t + 1]) for t in range(len(steps))]
    averages = [Fraction(value, t) for t, value in enumerate(regret, start=1)]
    falls = sum(before > after for before, after in itertools.pairwise(averages))
    test = trend_test(np.asarray(regret, np.float32))
    assert test.num_decreases == falls
    assert test.p_value == pytest.approx(float(slow_p_value(falls, len(steps) - 1)), rel=1e-9, abs=0)


def test_the_trend_test_on_many_rounds():
    # 5,000 falls in 9,999 comparisons: half of the binomial, by symmetry.
    rise_and_fall = np.cumsum(np.where(np.arange(10_000) % 2, 0.0, 1.0))
    assert trend_test(rise_and_fall) == (5000, pytest.approx(0.5, abs=1e-9))
    falls = 5150
    steps = np.concatenate([np.ones(1), np.zeros(falls), np.full(10_000 - 1 - falls, 10.0)])
    test = trend_test(np.cumsum(steps))
    assert test.num_decreases == falls
    assert test.p_value == pytest.approx(float(slow_p_value(falls, 9999)), rel=1e-9, abs=0)
    assert trend_test(np.sqrt(np.arange(1, 10_001))) == (9999, pytest.approx(0.0, abs=1e-300))


@pytest.mark.parametrize(("power", "scale"), [(0.5, 2.0), (1.0, 0.3), (0.0, 3.0), (1.4, 1.0)])
def test_the_regression_finds_the_power(power, scale):
    test = regression_test(scale * ROUNDS**power)
    assert test.exponent == pytest.approx(power, abs=1e-12)
    # Residuals are rounding, of which the error is a square root.
    assert test.standard_error == pytest.approx(0.0, abs=1e-7)
    assert test.p_value == pytest.approx(float(power == 0), abs=1e-12)
    assert test.num_nonpositive == 0


def test_the_regression_on_a_noisy_curve_is_that_of_the_library():
    regret = np.log(1 + ROUNDS) * np.exp(np.random.default_rng(0).normal(0, 0.3, 200))
    regret[[0, 7, 100]] = [0.0, -1.0, -0.5]
    weak = np.exp(np.random.default_rng(1).normal(0, 1, 200))
    for curve, left_out in ((regret, 3), (weak, 0)):
        used = curve > 0
        expected: Any = stats.linregress(np.log(ROUNDS[used]), np.log(curve[used]))
        below = stats.t.cdf((expected.slope - 1) / expected.stderr, used.sum() - 2)
        numbers = [expected.slope, expected.stderr, expected.pvalue, left_out, below]
        np.testing.assert_allclose(regression_test(curve), numbers, rtol=1e-9)
    assert regression_test(weak).p_value > 0.01


def test_constant_regret_has_no_slope_whatever_is_left_out():
    for regret in ([3.3] * 9, [0.0, 3.3, 3.3, 3.3, 3.3, 0.0], [3.3, 3.3, -1.0, 3.3]):
        test = regression_test(np.asarray(regret))
        assert test.exponent == pytest.approx(0.0, abs=1e-15)
        assert (test.standard_error, test.p_value) == (0.0, 1.0)


def test_what_has_no_logarithm_is_counted_and_never_an_error():
    for regret in (np.zeros(50), -np.ones(50), np.asarray([-1.0]), np.asarray([0.0, 1.0, -2.0])):
        test = regression_test(regret)
        assert np.isnan([test.exponent, test.standard_error, test.p_value]).all()
        assert test.num_nonpositive == np.count_nonzero(regret <= 0)
    assert np.isnan(regression_test(np.ones(1)).exponent)
    two = regression_test(np.asarray([1.0, 0.0, 3.0]))
    assert two.exponent == pytest.approx(1.0)
    assert np.isnan([two.standard_error, two.p_value]).all()
    assert two.num_nonpositive == 1


def test_the_exponent_of_the_mean_is_that_of_the_regression():
    rng = np.random.default_rng(0)
    regret = rng.exponential(size=(300, 1)) * ROUNDS**0.6 + np.cumsum(rng.normal(0, 0.3, size=(300, 200)), axis=1)
    found = growth_exponent(regret.astype(np.float32))
    expected = regression_test(regret.mean(axis=0))
    assert found.exponent == pytest.approx(expected.exponent, rel=1e-5)
    assert found.low < 0.6 < found.high
    assert found.high - found.low > 3 * expected.standard_error  # The points of a curve are not independent.


def test_the_interval_of_the_exponent_equals_its_slow_twin():
    rng, regret = np.random.default_rng(3), np.random.default_rng(0).exponential(size=(7, 5)).cumsum(axis=1) - 0.4
    slopes = []
    for counts in rng.multinomial(7, np.full(7, 1 / 7), size=200):
        mean = np.repeat(regret, counts, axis=0).mean(axis=0)
        slopes.append(regression_test(np.where(np.arange(1, 6) >= 2, mean, -1.0)).exponent)
    found = growth_exponent(regret, start=2, num_resamples=200, seed=3)
    np.testing.assert_allclose([found.low, found.high], np.quantile(slopes, [0.025, 0.975]), rtol=1e-9)


def test_the_fit_may_start_late():
    regret = np.tile(np.where(ROUNDS < 20, 1.0, ROUNDS**0.5), (4, 1))
    assert growth_exponent(regret, start=20, num_resamples=10) == pytest.approx((0.5, 0.5, 0.5, 0))
    assert growth_exponent(regret, num_resamples=10).exponent != pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (2, 6)])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_exponent_that_does_not_exist_is_nan(shape, value):
    found = growth_exponent(np.full(shape, value), num_resamples=10)
    assert np.isnan([found.exponent, found.low, found.high]).all()
    assert found.num_nonpositive == shape[1]
    assert np.isnan(growth_exponent(np.ones((3, 5)), start=5, num_resamples=10).exponent)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.data())
def test_suffix_failures_equal_their_slow_twin_and_never_fall(horizon, data):
    last = data.draw(st.lists(st.integers(0, horizon), min_size=1, max_size=12))
    expected = [np.mean([value < t for value in last]) for t in range(1, horizon + 1)]
    found = suff_fail_freq(np.asarray(last, np.int32), horizon)
    np.testing.assert_allclose(found, expected)
    assert (np.diff(found) >= 0).all()


def test_half_horizon():
    assert [half_horizon(t) for t in (1, 2, 5, 50)] == [1, 1, 2, 25]


@pytest.mark.slow
def test_the_interval_of_the_exponent_covers_at_its_nominal_rate():
    rounds, repetitions, covered = np.arange(1, 61), 500, 0
    growth = np.diff(rounds**0.6, prepend=0.0)
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        scale = rng.gamma(2.0, 0.5, size=(200, 1))
        steps = scale * growth + rng.normal(0.0, 0.4, size=(200, 60))
        found = growth_exponent(np.cumsum(steps, axis=1), start=3, num_resamples=500, seed=seed)
        covered += found.low <= 0.6 <= found.high
    assert 0.91 <= covered / repetitions <= 0.98


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=25), st.integers(0, 20))
def test_padding_is_no_round(steps, padding):
    """What is not played, at the end of a shorter horizon, changes no test."""
    curve = np.cumsum(steps)
    padded = np.concatenate([curve, np.full(padding, np.nan)])
    assert trend_test(padded) == trend_test(curve)
    np.testing.assert_equal(regression_test(padded), regression_test(curve))
    several, cut = np.stack([padded, 2 * padded]), np.stack([curve, 2 * curve])
    np.testing.assert_equal(growth_exponent(several, num_resamples=5), growth_exponent(cut, num_resamples=5))


def test_a_shorter_horizon_of_a_sweep_is_tested_by_its_own_rounds():
    regret = np.full((3, 60), np.nan)
    for row, horizon in zip(regret, (15, 30, 60), strict=True):
        row[:horizon] = np.sqrt(np.arange(1, horizon + 1))
    dims = {"horizon": [15, 30, 60], "round": np.arange(1, 61)}
    curve = xr.DataArray(regret, dims).sel(horizon=15)
    assert trend_test(curve).p_value == pytest.approx(2.0**-14)
    assert regression_test(curve).num_nonpositive == 0


def test_regret_over_horizons_knows_them():
    finals = 0.3 * np.asarray([15.0, 30.0, 60.0]) ** 0.735
    assert regression_test(finals, rounds=[15, 30, 60]).exponent == pytest.approx(0.735, abs=1e-9)
    over = xr.DataArray(finals, {"horizon": [15, 30, 60]})
    assert regression_test(over).exponent == pytest.approx(0.735, abs=1e-9)
    assert trend_test(over).num_decreases == 2
    assert regression_test(finals).exponent != pytest.approx(0.735, abs=0.1)  # Rounds 1, 2, 3.


@pytest.mark.parametrize(("power", "low", "high"), [(0.5, 0.0, 1e-6), (1.0, 0.05, 0.95), (1.2, 0.999, 1.0)])
def test_what_grows_like_t_is_not_sublinear(power, low, high):
    noise = np.exp(np.random.default_rng(2).normal(0, 0.05, 200))
    assert low <= regression_test(ROUNDS**power * noise).sublinear_p <= high


@pytest.mark.parametrize(
    ("regret", "rounds", "message"),
    [
        (np.asarray([1.0, np.nan, 2.0]), None, "got regret with 1 numbers that are none, need all rounds"),
        (np.asarray([np.nan, np.nan]), None, "got regret that is NaN throughout, need a played round"),
        (np.asarray([]), None, r"got regret of shape \(0,\), need one number per round"),
        (np.ones((2, 3)), None, r"got regret of shape \(2, 3\), need one number per round"),
        (np.ones(3), [1.0, 2.0], "need 3 rising rounds from 1 on"),
        (np.ones(3), [1.0, 1.0, 2.0], "need 3 rising rounds from 1 on"),
        (np.ones(3), [0.0, 1.0, 2.0], "need 3 rising rounds from 1 on"),
    ],
)
def test_what_is_no_curve_is_refused(regret, rounds, message):
    for test in (trend_test, regression_test):
        with pytest.raises(ConfigError, match=message):
            test(regret, rounds)


@pytest.mark.parametrize("start", [0, -1, 6])
def test_an_exponent_of_rounds_that_are_not_there_is_refused(start):
    with pytest.raises(ConfigError, match="need a round from 1 to 5"):
        growth_exponent(np.ones((3, 5)), start=start, num_resamples=10)
