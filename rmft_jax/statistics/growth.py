"""Is an agent no-regret? Statistics of how regret grows within a horizon, and of when the best arm is given up.

The trend test and the regression test are those of Park et al. (2024, "Do LLM agents have regret?", the section on
validating no-regret behaviour). Both treat the points of one regret curve as independent. They are not: each sum
contains the one before it, so their p-values overstate the evidence. `growth_exponent` resamples
whole scenarios instead, which are independent. No test within a horizon says what happens beyond it, where a policy was
not trained; `statistics.horizons` is about regret over trained horizons.

Curves that are shorter than the array that holds them, as those of a sweep over horizons, end in NaN: what is not
played is no round and does not count.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Real
from scipy import special, stats

from rmft_jax.config.checks import require
from rmft_jax.statistics.bootstrap import percentiles, resample

_Rounds = TypeVar("_Rounds", bound=Any)
Curve = Real[np.ndarray, "T"] | xr.DataArray
"""Cumulative regret by round."""
Rounds = Real[np.ndarray, "T"] | Sequence[float]
"""Rounds of the points of a curve, counted from 1."""

# Average regret that falls by less than this share did not fall but was rounded: regret is a sum in single precision.
_ROUNDING = 1e-6


class TrendTest(NamedTuple):
    """How often the average regret fell.

    num_decreases: rounds `t < T` with `Reg(t)/t > Reg(t+1)/(t+1)`.
    p_value: chance of at least as many falls if each round were a fair coin.
    """

    num_decreases: int
    p_value: float


class RegressionTest(NamedTuple):
    """Least squares of log regret on log t.

    exponent: the slope, `Reg(t) ~ t^exponent`; below 1 says sublinear.
    standard_error: of the slope, if the points were independent.
    p_value: of the slope, against a slope of 0.
    num_nonpositive: rounds left out because their regret has no logarithm.
    sublinear_p: of the slope, against a slope of 1 or more.
    """

    exponent: float
    standard_error: float
    p_value: float
    num_nonpositive: int
    sublinear_p: float


class GrowthExponent(NamedTuple):
    """The exponent of mean regret with its 95% interval over scenarios.

    exponent: least-squares slope of log mean regret on log t.
    low, high: bounds of the interval.
    num_nonpositive: rounds left out because their mean regret has no logarithm.
    """

    exponent: float
    low: float
    high: float
    num_nonpositive: int


def played(regret: Curve, rounds: Rounds | None = None) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """A regret curve without the padding at its end, and the rounds of its points.

    Args:
      regret: cumulative regret; of a `DataArray` over `round` or `horizon` the coordinate says the rounds.
      rounds: rounds `t` of the points, rising. None: 1, 2, ..., or those of the coordinate.

    Raises:
      ConfigError: if it is no curve, has gaps, or the rounds do not fit it.
    """
    if rounds is None and isinstance(regret, xr.DataArray) and regret.dims and regret.dims[0] in regret.coords:
        rounds = regret[str(regret.dims[0])].to_numpy()
    curve = np.asarray(regret, np.float64)
    advice = "the mean over scenarios, .mean('scenario')"
    require(curve.ndim == 1 and curve.size > 0, f"regret of shape {curve.shape}", "one number per round", advice)
    points = np.arange(1.0, curve.size + 1) if rounds is None else np.asarray(rounds, np.float64)
    number = curve.size - int(np.argmin(np.isnan(curve[::-1]))) if not np.isnan(curve).all() else 0
    curve, given = curve[:number], points.shape
    require(number > 0, "regret that is NaN throughout", "a played round", "the cell of a finished run")
    missing = int(np.count_nonzero(~np.isfinite(curve)))
    require(not missing, f"regret with {missing} numbers that are none", "all rounds up to the last", "regret.dropna")
    fits = given == (points.size,) and points.size >= number and bool(np.all(np.diff(points, prepend=0.0) > 0))
    require(fits, f"rounds {_shortened(points)}", f"{curve.size} rising rounds from 1 on", "rounds=[15, 30, 60]")
    return curve, points[:number]


def _shortened(points: np.ndarray) -> str:
    return np.array2string(points, threshold=6, edgeitems=2)


def trend_test(regret: Curve, rounds: Rounds | None = None) -> TrendTest:
    """Trend test of Park et al. (2024): does average regret fall more often than a fair coin shows heads?

    With `s = #{t < T: Reg(t)/t > Reg(t+1)/(t+1)}` the p-value is `2^-(T-1) sum_{j=s}^{T-1} C(T-1, j)`; it is 1 at
    T = 1. It takes the T - 1 comparisons for independent, which they are not. Falls by less than a millionth of the
    average are rounding and do not count (ours): without it, exactly linear regret passes the test or fails it by the
    last bit of each sum.

    It says that regret per round falls, not how fast: one that falls from 0.40 to 0.37 passes it as one that vanishes
    does. Compare `RegressionTest.exponent` with 1.

    Args:
      regret: `[T]` cumulative regret, in reward units.
      rounds: `[T]` of the points; see `played`.

    Raises:
      ConfigError: if the curve has gaps, or the rounds do not fit it.
    """
    curve, points = played(regret, rounds)
    average = curve / points
    falls = int(np.count_nonzero(average[:-1] - average[1:] > _ROUNDING * np.abs(average[:-1])))
    return TrendTest(falls, float(special.bdtrc(falls - 1, len(curve) - 1, 0.5)))


def regression_test(regret: Curve, rounds: Rounds | None = None) -> RegressionTest:
    """Regression test of Park et al. (2024): least squares of `log Reg(t)` on `log t`.

    The source reports the slope with the p-value of the regression parameter, that is of the two-sided t-test of
    slope 0. A small one says that regret grows as some power, not that the power is below 1: `sublinear_p` is that of
    the one-sided t-test of slope 1 (ours). Both take the T points for independent, which they are not.

    Rounds of non-positive regret are left out and counted (ours). The slope is NaN if fewer than 2 rounds remain, its
    standard error and p-value if fewer than 3.

    Args:
      regret: `[T]` cumulative regret, in reward units.
      rounds: `[T]` of the points; see `played`.

    Raises:
      ConfigError: if the curve has gaps, or the rounds do not fit it.
    """
    curve, points = played(regret, rounds)
    used, exponent = curve > 0, float(slopes(curve, points))
    left_out = int(np.count_nonzero(~used))
    if len(curve) - left_out < 3:
        return RegressionTest(exponent, np.nan, np.nan, left_out, np.nan)
    if np.ptp(curve[used]) == 0:  # No slope beyond doubt, of which the library knows no p-value.
        return RegressionTest(exponent, 0.0, 1.0, left_out, 0.0)
    fit: Any = stats.linregress(np.log(points[used]), np.log(curve[used]))
    error = float(fit.stderr)
    below = (exponent - 1) / error if error > 0 else np.copysign(np.inf, exponent - 1)
    sublinear = float(special.stdtr(len(curve) - left_out - 2, below))
    return RegressionTest(exponent, error, float(fit.pvalue), left_out, sublinear)


def growth_exponent(
    regret: Float[np.ndarray, "N T"], start: int = 1, num_resamples: int = 2000, seed: int = 0
) -> GrowthExponent:
    """Exponent of the mean regret over scenarios, with its percentile bootstrap.

    Whole scenarios are resampled, so the interval does not depend on how the rounds of one scenario hang together.
    It is about the sampling of scenarios only: a curve that is no power of t has a well-determined slope all the same.
    Rounds of non-positive mean regret are left out, in each bootstrap sample its own (ours); NaN if fewer than 2
    remain in any.

    Args:
      regret: `[N, T]` cumulative regret, in reward units.
      start: first round of the fit, counted from 1; early rounds are seldom on the line.
      num_resamples: bootstrap samples.
      seed: seed of the resampling.

    Raises:
      ConfigError: if the curves are none, or do not have the round `start`.
    """
    curves = np.asarray(regret, np.float64)
    last = len(played(curves.mean(axis=0))[0])
    require(1 <= start <= last, f"start={start}", f"a round from 1 to {last}", "start=1")
    curves = curves[:, start - 1 : last]
    mean, rounds = curves.mean(axis=0), np.arange(start, start + curves.shape[1])
    interval = percentiles(resample(lambda w: slopes(w @ curves, rounds), len(curves), num_resamples, seed))
    exponent, left_out = float(slopes(mean, rounds)), int(np.count_nonzero(mean <= 0))
    return GrowthExponent(exponent, float(interval.low), float(interval.high), left_out)


def half_horizon(horizon: _Rounds) -> _Rounds:
    """The round T/2, counted from 1, at which suffix failure is reported."""
    return horizon // 2 + (horizon < 2)  # Also of a traced number, which knows no `max`.


def suff_fail_freq(last_best_round: Int[np.ndarray, "N"], horizon: int) -> Float[np.ndarray, "T"]:
    """SuffFailFreq(t), t = 1 .. T: share of scenarios with no best arm in rounds t .. T (Krishnamurthy et al. 2024).

    It does not decrease with t.

    Args:
      last_best_round: `[N]` last round, counted from 1, in which a best arm is played, 0 if never.
      horizon: T.
    """
    counts = np.bincount(last_best_round, minlength=horizon + 1)
    return np.cumsum(counts)[:horizon] / len(last_best_round)


def slopes(curves: Float[np.ndarray, "*batch T"], rounds: Real[np.ndarray, "T"]) -> Float[np.ndarray, "*batch"]:
    """Least-squares slope of log curve on log round, over the rounds where the curve is positive."""
    used: Bool[np.ndarray, "*batch T"] = curves > 0
    log_rounds, count = np.log(rounds), used.sum(axis=-1)
    x = np.where(used, log_rounds - (used @ log_rounds / np.maximum(count, 1))[..., None], 0.0)
    y = np.log(np.where(used, curves, 1.0))
    enough = count >= 2
    # Measured from its last value, log regret of a constant curve is 0 exactly, and so is the slope.
    covariance = np.sum(x * (y - y[..., -1:]), axis=-1)
    return np.divide(covariance, np.sum(x**2, axis=-1), out=np.full(covariance.shape, np.nan), where=enough)
