"""Results as tidy tables of pandas."""

import pandas as pd
import xarray as xr

from rmft_jax.config.checks import require
from rmft_jax.config.names import TRAINED
from rmft_jax.statistics.estimates import is_sweep

_BASELINE = "baseline_"


def to_dataframe(dataset: xr.Dataset, over: str | None = None) -> pd.DataFrame:
    """Results as a table with a row per observation and a column per variable, for pandas, seaborn or a CSV.

    xarray's own `to_dataframe` repeats every number along all dimensions that it does not have; this one takes only
    the variables of one kind.

    Args:
      dataset: an evaluation, a sweep, or the metrics of a run.
      over: None: a row per agent and scenario of an evaluation, or per cell and agent of a sweep, with what is known at
        the horizon (`final_regret` and so on). `round`: a row for every round besides, with the curves (`regret`,
        `action`). `iteration` or `validation_iteration`: how a policy was trained, of a sweep or of metrics. Any other
        dimension of the dataset as well, such as `arm`.

    Returns:
      Columns for the dimensions, then for the variables. Rows that hold nothing, such as rounds after a shorter
      horizon and cells that are missing, are left out.

    Raises:
      ConfigError: if nothing in the dataset is along `over`.
    """
    sweep = is_sweep(dataset)
    if not sweep and {"regret", "scenario"} <= {*dataset.variables, *dataset.dims}:
        dataset = dataset.assign(final_regret=dataset["regret"].isel(round=-1, drop=True))
    base = {str(dim) for dim in dataset["final_regret"].dims} if "final_regret" in dataset else set()
    own = [str(name) for name in dataset if not str(name).startswith(_BASELINE)]
    found = [_frame(dataset[own], base, over)]
    if sweep:
        others = {str(name): str(name).removeprefix(_BASELINE) for name in dataset if str(name) not in own}
        found[0].insert(0, "agent", TRAINED)
        found.append(_frame(dataset[[*others]].rename(others), base | {"agent"}, over))
    tables = [table for table in found if len(table)]
    inner = [str(dim) for dim in dataset.dims if dim not in base and _along(dataset, str(dim), base | {"agent"})]
    tried = f"over={next(iter(inner), None)!r}"
    require(bool(tables), f"over={over!r}", f"none, or one of {', '.join(inner)} that has numbers", tried)
    return pd.concat(tables, ignore_index=True)


def _along(dataset: xr.Dataset, over: str, base: set[str]) -> bool:
    """Whether a variable is along this dimension, and along none but `base` besides."""
    return any(over in one.dims and set(one.dims) <= base | {over} for one in dataset.values())


def _frame(dataset: xr.Dataset, base: set[str], over: str | None) -> pd.DataFrame:
    """The variables along `over`, or along none but `base`; without rows of nothing."""
    allowed = base | ({over} if over else set())
    names = [name for name, one in dataset.items() if set(one.dims) <= allowed and (over is None or over in one.dims)]
    kept = dataset[names]
    lines = [name for name, one in kept.coords.items() if name not in kept.dims and not set(one.dims) <= allowed]
    kept = kept.drop_vars(lines)
    if not names:
        return pd.DataFrame()
    table = kept.to_dataframe() if kept.dims else pd.DataFrame({name: [one.item()] for name, one in kept.items()})
    numbers = [name for name in names if kept[name].dtype.kind not in "OUS"] or names
    table = table.dropna(how="all", subset=numbers)
    return table.reset_index() if kept.dims else table
