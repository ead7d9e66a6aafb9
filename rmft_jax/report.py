"""From an evaluation dataset to the numbers that people read. Imports no JAX."""

import math
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from rmft_jax.bootstrap import mean_interval

REFERENCE = "thompson"


def summarize(evaluation: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Per agent: mean regret at the horizon with its 95% interval, paired difference to Thompson, diagnostics.

    Intervals are percentile bootstraps over scenarios; the difference is taken scenario by scenario.
    """
    final = evaluation["regret"].isel(round=-1).transpose("scenario", "agent")
    names = [str(name) for name in final["agent"].values]
    values = final.to_numpy()
    low, high = mean_interval(values)
    summary = {
        name: {
            "regret_mean": float(values[:, i].mean(dtype=np.float64)),
            "regret_ci95": [float(low[i]), float(high[i])],
            "suff_fail_freq": float(evaluation["suff_fail"].sel(agent=name).mean()),
            "min_frac": float(evaluation["min_frac"].sel(agent=name).mean()),
            "greedy_frac": float(evaluation["greedy_frac"].sel(agent=name).mean()),
        }
        for i, name in enumerate(names)
    }
    if REFERENCE in names:
        difference = values - values[:, [names.index(REFERENCE)]]
        low, high = mean_interval(difference)
        for i, name in enumerate(names):
            summary[name][f"minus_{REFERENCE}"] = float(difference[:, i].mean(dtype=np.float64))
            summary[name][f"minus_{REFERENCE}_ci95"] = [float(low[i]), float(high[i])]
    return summary


def table(summary: dict[str, dict[str, Any]], title: str) -> Table:
    """The summary as a table for the terminal, lowest regret first."""
    result = Table(title=title, caption="95% bootstrap intervals over scenarios", title_justify="left")
    result.add_column("agent", no_wrap=True)
    for column in ("regret", "minus Thompson", "SuffFail(T/2)", "K·MinFrac(T)", "GreedyFrac"):
        result.add_column(column, justify="right", no_wrap=True)
    for name, row in sorted(summary.items(), key=lambda item: item[1]["regret_mean"]):
        difference = "-"
        if name != REFERENCE and f"minus_{REFERENCE}" in row:
            difference = _with_interval(row[f"minus_{REFERENCE}"], row[f"minus_{REFERENCE}_ci95"], "+.2f")
        result.add_row(
            name,
            _with_interval(row["regret_mean"], row["regret_ci95"], ".2f"),
            difference,
            *(_number(row[key]) for key in ("suff_fail_freq", "min_frac", "greedy_frac")),
        )
    return result


def _number(value: float | None) -> str:
    """GreedyFrac does not exist at T = 1: NaN in memory, null in a file."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _with_interval(mean: float, interval: list[float], spec: str) -> str:
    return f"{mean:{spec}} [{interval[0]:{spec}}, {interval[1]:{spec}}]"
