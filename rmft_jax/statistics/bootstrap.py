"""Confidence intervals over scenarios, most of them by resampling, and over training seeds."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special


class Interval(NamedTuple):
    """Bounds of a 95% confidence interval."""

    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


class Difference(NamedTuple):
    """Mean of a paired difference with its 95% interval, in the unit of what is compared."""

    mean: float
    low: float
    high: float


def resample(
    statistic: Callable[[Float[np.ndarray, "B N"]], Float[np.ndarray, "B ..."]],
    num_rows: int,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, "R ..."]:
    """A statistic of `R = num_resamples` bootstrap samples of N rows.

    Drawing N rows with replacement weights them multinomially, so a statistic of a mean is a function of
    `weights @ rows`. Equal `num_rows`, `num_resamples` and `seed` draw the same rows, whatever the statistic.

    Args:
      statistic: maps weights `[B, N]` of a batch of samples, each row of sum 1, to one value per sample.
      num_rows: N.
      num_resamples: bootstrap samples.
      seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    uniform = np.full(num_rows, 1 / num_rows)
    batches = np.array_split(np.arange(num_resamples), -(-num_resamples * num_rows // 4_000_000))
    return np.concatenate([statistic(rng.multinomial(num_rows, uniform, size=len(b)) / num_rows) for b in batches])


def percentiles(resampled: Float[np.ndarray, "R ..."]) -> Interval:
    """The percentile interval of resampled values (Efron and Tibshirani 1993, section 13.3). NaN where any is NaN."""
    return Interval(*np.quantile(resampled, [0.025, 0.975], axis=0))


def mean_interval(values: Float[np.ndarray, "N ..."], num_resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over the first axis.

    All columns are resampled in one matrix product, with the same rows drawn for each. Columns of a paired comparison
    therefore stay paired. `values` is `[N, ...]`, one row per scenario; options are those of `resample`.
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    low, high = percentiles(resample(lambda weights: weights @ rows, len(rows), num_resamples, seed))
    return Interval(low.reshape(values.shape[1:]), high.reshape(values.shape[1:]))


def paired_difference(
    first: Float[np.ndarray, "N"], second: Float[np.ndarray, "N"], num_resamples: int = 2000, seed: int = 0
) -> Difference:
    """Mean of `first - second`, each `[N]` with one value per scenario, and its percentile bootstrap (`resample`).

    Raises:
      ValueError: if they are not of the same scenarios.
    """
    if first.shape != second.shape:
        raise ValueError(f"got shapes {first.shape} and {second.shape}, need the same scenarios in both")
    difference = np.asarray(first, np.float64) - second
    low, high = mean_interval(difference, num_resamples, seed)
    return Difference(float(difference.mean()), float(low), float(high))


def t_interval(values: Float[np.ndarray, "..."], axis: int = 0) -> Interval:
    """Student-t interval of the mean along an axis. NaN does not count, and is the result of fewer than 2 values."""
    known = np.ma.masked_invalid(np.asarray(values, np.float64))
    count, mean = known.count(axis), known.mean(axis)
    half = special.stdtrit(count - 1, 0.975) * known.std(axis, ddof=1) / np.sqrt(count)
    return Interval(np.ma.filled(mean - half, np.nan), np.ma.filled(mean + half, np.nan))


def hierarchical_interval(
    values: Float[np.ndarray, "..."],
    sems: Float[np.ndarray, "..."],
    axis: int = 0,
    num_resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Bootstrap of a mean over groups that were each sampled: groups are resampled, and in each its mean anew.

    The mean of a group of many members is normal about what was seen, with its standard error (Davison and Hinkley
    1997, section 3.8, of which this is the parametric form). Of few groups it is too narrow, by `sqrt((n - 1) / n)` or
    more. The same draws serve all entries.

    Args:
      values: means of groups along an axis. NaN does not count; the result of none is NaN.
      sems: their standard errors, of the same shape.
      axis: that of the groups.
      num_resamples: bootstrap samples.
      seed: seed of the resampling.
    """
    groups, errors = (np.moveaxis(np.asarray(given, np.float64), axis, 0) for given in (values, sems))
    rng, known = np.random.default_rng(seed), np.isfinite(groups)
    drawn = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=num_resamples).astype(np.float64)
    noise = rng.standard_normal((num_resamples, len(groups))) * np.sqrt(drawn)
    flat = (len(groups), -1)
    filled, spread = (np.where(known, given, 0.0).reshape(flat) for given in (groups, np.nan_to_num(errors)))
    with np.errstate(invalid="ignore", divide="ignore"):  # Where a sample has no group that is known.
        means = (drawn @ filled + noise @ spread) / (drawn @ known.reshape(flat).astype(np.float64))
    nothing = ~known.any(axis=0).ravel()
    means[:, nothing] = 0.0
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    low[nothing] = high[nothing] = np.nan
    return Interval(low.reshape(groups.shape[1:]), high.reshape(groups.shape[1:]))


def holm(p_values: Mapping[str, float], level: float = 0.05) -> set[str]:
    """The names whose hypotheses Holm's step-down procedure (1979) rejects: one in twenty times one of them wrongly.

    A p-value of NaN is 1.
    """
    ordered = sorted(p_values, key=lambda name: (np.isnan(p_values[name]), p_values[name]))
    rejected: set[str] = set()
    for place, name in enumerate(ordered):
        if not p_values[name] <= level / (len(ordered) - place):
            break
        rejected.add(name)
    return rejected


def frequency_interval(frequency: Float[np.ndarray, "..."], num_rows: int) -> Interval:
    """Wilson's score interval (1927) of a frequency in `num_rows` independent scenarios.

    Unlike a bootstrap it has a width where the event never or always happened.
    """
    z = 1.959964
    centre = (frequency + z**2 / (2 * num_rows)) / (1 + z**2 / num_rows)
    half = z / (1 + z**2 / num_rows) * np.sqrt(frequency * (1 - frequency) / num_rows + (z / (2 * num_rows)) ** 2)
    # Exact bounds at 0 and 1, which rounding would miss.
    return Interval(np.clip(centre - half, 0.0, frequency), np.clip(centre + half, frequency, 1.0))
