"""How regret grows with the horizon that a policy was trained for: what a no-regret claim is about.

A curve within one horizon shows how one policy spends its rounds; it knows when they end. Here every horizon has
policies of its own, and regret at T is fitted as `c T^β` and as `a + b log T`.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from rmft_jax.config.checks import either, require
from rmft_jax.statistics.bootstrap import t_interval
from rmft_jax.statistics.growth import slopes


class Fitted(NamedTuple):
    """A number with its 95% interval over training seeds, NaN where there is one seed."""

    value: float
    low: float
    high: float


class HorizonGrowth(NamedTuple):
    """Two laws of regret at the horizon, each fitted by least squares seed by seed.

    horizons: the T, rising.
    exponent: β of `c T^β`, from logarithms.
    scale: c, for the mean over seeds.
    slope: b of `a + b log T`, in reward units.
    intercept: a, likewise.
    power_misfit, log_misfit: root mean square of what each law leaves of the mean over seeds, in reward units.
    num_seeds: seeds that the intervals are over.
    """

    horizons: Float[np.ndarray, "H"]
    exponent: Fitted
    scale: float
    slope: Fitted
    intercept: float
    power_misfit: float
    log_misfit: float
    num_seeds: int

    def power(self, horizons: Float[np.ndarray, "X"]) -> Float[np.ndarray, "X"]:
        """`c T^β`."""
        return self.scale * horizons**self.exponent.value

    def logarithm(self, horizons: Float[np.ndarray, "X"]) -> Float[np.ndarray, "X"]:
        """`a + b log T`."""
        return self.intercept + self.slope.value * np.log(horizons)


def horizon_growth(final_regret: xr.DataArray) -> HorizonGrowth:
    """How regret at the horizon grows with it, of a trained policy or of another agent of a sweep.

    Intervals are Student-t over seeds, of which each has its own weights and scenarios. Where both laws fit, few
    horizons do not tell them apart: compare the misfits.

    Args:
      final_regret: over `horizon` and, if there are several, `seed`: `dataset["final_regret"]`, or
        `dataset["baseline_final_regret"].sel(agent=...)`. Seeds with a missing or non-positive number do not count.

    Raises:
      ConfigError: if there are other dimensions, or fewer than two horizons.
    """
    extra = [str(dim) for dim in final_regret.dims if dim not in ("horizon", "seed") and final_regret.sizes[dim] > 1]
    named = ", ".join(map(str, final_regret.dims))
    require(
        not extra and "horizon" in final_regret.dims, f"regret over {named}", "horizon and seed", ".sel() or select="
    )
    final_regret = final_regret.squeeze([dim for dim in final_regret.dims if dim not in ("horizon", "seed")])
    if "seed" not in final_regret.dims:
        final_regret = final_regret.expand_dims("seed")
    values = final_regret.sortby("horizon").transpose("seed", "horizon").to_numpy().astype(np.float64)
    horizons = np.sort(final_regret["horizon"].to_numpy().astype(np.float64))
    require(
        len(horizons) >= 2,
        f"{len(horizons)} horizon",
        "at least 2, better 4",
        either("--grid horizon=25,50,100,200", "more"),
    )
    values = values[(np.isfinite(values) & (values > 0)).all(axis=1)]
    require(len(values) > 0, "no seed with positive regret at every horizon", "one", "other horizons")
    mean, logs = values.mean(axis=0), np.log(horizons)
    exponent = _fitted(slopes(values, horizons), float(slopes(mean, horizons)))
    scale = float(np.exp(np.mean(np.log(mean)) - exponent.value * np.mean(logs)))
    slope = _fitted(np.polyfit(logs, values.T, 1)[0], float(np.polyfit(logs, mean, 1)[0]))
    intercept = float(mean.mean() - slope.value * logs.mean())
    left = (scale * horizons**exponent.value - mean, intercept + slope.value * logs - mean)
    power, logarithm = (float(np.sqrt(np.mean(one**2))) for one in left)
    return HorizonGrowth(horizons, exponent, scale, slope, intercept, power, logarithm, len(values))


def _fitted(per_seed: Float[np.ndarray, "S"], value: float) -> Fitted:
    low, high = (float(bound) for bound in t_interval(per_seed)) if len(per_seed) > 1 else (np.nan, np.nan)
    centre = float(np.mean(per_seed))  # The interval is about the mean of the fits; the fit is of the mean.
    return Fitted(value, low + value - centre, high + value - centre)
