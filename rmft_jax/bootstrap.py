"""Confidence intervals by resampling scenarios. Imports no JAX."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Interval(NamedTuple):
    """Bounds of a 95% confidence interval."""

    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def mean_interval(values: Float[np.ndarray, "N ..."], num_resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over the first axis (Efron and Tibshirani 1993, section 13.3).

    A resampled mean is a multinomial weighting of the rows, so all columns are resampled in one matrix product, with
    the same rows drawn for each. Columns of a paired comparison therefore stay paired.

    Args:
      values: `[N, ...]` one row per scenario.
      num_resamples: bootstrap samples.
      seed: seed of the resampling.
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    rng = np.random.default_rng(seed)
    uniform = np.full(len(rows), 1 / len(rows))
    batches = np.array_split(np.arange(num_resamples), -(-num_resamples * len(rows) // 4_000_000))
    means = np.concatenate([rng.multinomial(len(rows), uniform, size=len(b)) @ rows / len(rows) for b in batches])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return Interval(low.reshape(values.shape[1:]), high.reshape(values.shape[1:]))
