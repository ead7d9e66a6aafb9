"""From an evaluation dataset to the numbers that people read."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from rich import box
from rich.table import Table

from rmft_jax.statistics.bootstrap import percentiles, resample
from rmft_jax.statistics.growth import half_horizon, regression_test, slopes, suff_fail_freq, trend_test


def regret_name(kind: str) -> str:
    """What a figure or a table calls a regret, such as "dynamic regret"."""
    return "pseudo-regret" if kind == "pseudo" else f"{kind} regret"


def regret_of(dataset: xr.Dataset) -> str:
    """The name of the regret that a dataset holds."""
    return regret_name(dataset.attrs.get("regret", "pseudo"))


def estimate_text(mean: float | None, interval: Sequence[float | None], digits: int = 2, sign: str = "") -> str:
    """A number with its interval, such as "3.88 [3.65, 4.11]", or without one; a dash for none. `+` shows signs."""
    # What cannot be computed is NaN in memory and null in a file.
    number, *bounds = ("" if n is None or math.isnan(n) else f"{n:{sign}.{digits}f}" for n in (mean, *interval))
    if not number:
        return "-"
    return f"{number} [{', '.join(bounds)}]" if bounds and all(bounds) else number


def summarize(evaluation: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Per agent: regret at the horizon, how regret grows, and how the agent explores.

    Intervals are 95% percentile bootstraps over scenarios, all of them from the same 2,000 resamples. The difference
    to the reference (`minus_*`) is taken scenario by scenario; it is absent where the reference is. Exponents are of
    the mean regret over all rounds, none left out but those of non-positive mean regret (`num_nonpositive`).

    Args:
      evaluation: variables `regret`, `last_best_round`, `min_frac`, `greedy_frac` over `agent`, `scenario` and `round`;
        attributes `horizon` and `reference`, the name of the agent to compare with.

    Returns:
      For each agent `regret_mean`, `regret_ci95`, `exponent`, `exponent_ci95`, `trend_p`, `regression_p`,
      `sublinear_p` (`growth.regression_test`), `num_nonpositive`, `suff_fail_freq` (at T/2), `min_frac`, `greedy_frac`,
      and `minus_reference`, `minus_reference_ci95`, if there is a reference; `invalid`, the share of answers that name
      no arm, if there are any. NaN is what cannot be computed; how arms
      are explored is absent where play is a point of a ball.
    """
    names = [str(name) for name in evaluation["agent"].values]
    curves = evaluation["regret"].transpose("agent", "scenario", "round").to_numpy()
    half = half_horizon(curves.shape[-1]) - 1
    final, exponent = np.moveaxis(_resampled_regret(curves), -1, 0)
    reference = evaluation.attrs.get("reference")
    summary = {}
    for i, name in enumerate(names):
        mean = curves[i].mean(axis=0, dtype=np.float64)
        regression = regression_test(mean)
        one = evaluation.sel(agent=name)
        row: dict[str, Any] = {
            "regret_mean": float(mean[-1]),
            "regret_ci95": [*map(float, percentiles(final[:, i]))],
            "exponent": regression.exponent,
            "exponent_ci95": [*map(float, percentiles(exponent[:, i]))],
            "trend_p": trend_test(mean).p_value,
            "regression_p": regression.p_value,
            "sublinear_p": regression.sublinear_p,
            "num_nonpositive": regression.num_nonpositive,
        }
        if "last_best_round" in one:
            row |= {
                "suff_fail_freq": float(suff_fail_freq(one["last_best_round"].to_numpy(), curves.shape[-1])[half]),
                **{kind: float(one[kind].to_numpy().mean(dtype=np.float64)) for kind in ("min_frac", "greedy_frac")},
            }
        if "invalid" in one and (share := float(one["invalid"].to_numpy().mean(dtype=np.float64))) > 0:
            row["invalid"] = share
        if reference in names:
            other = names.index(reference)
            row["minus_reference"] = float(np.mean(curves[i, :, -1] - curves[other, :, -1], dtype=np.float64))
            # Resamples share their scenarios, so the difference of their means is the mean of paired differences.
            row["minus_reference_ci95"] = [*map(float, percentiles(final[:, i] - final[:, other]))]
        summary[name] = row
    return summary


def _resampled_regret(curves: Float[np.ndarray, "A N T"]) -> Float[np.ndarray, "R A 2"]:
    """Bootstrap samples of the mean regret at the horizon, and of its exponent."""
    rounds = np.arange(1, curves.shape[-1] + 1)

    def statistic(weights: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B A 2"]:
        # One agent at a time: all of them at once would not fit into memory.
        means = (weights @ curve.astype(np.float64) for curve in curves)
        return np.stack([np.stack([mean[:, -1], slopes(mean, rounds)], axis=-1) for mean in means], axis=1)

    return resample(statistic, curves.shape[1])


_CAPTION = {
    "regret": "brackets: 95% bootstraps over scenarios{minus}",
    "growth": (
        "β: regret ~ t^β up to T\n"
        "p of β = 1: p-value, too small because rounds depend on each other\n"
        "SuffFailFreq(T/2): scenarios in which no best arm is played from round T/2 on\n"
        "K·MinFrac(T): K times the share of rounds that play the arm played least\n"
        "GreedyFrac: rounds that play an arm whose rewards so far have the highest mean"
    ),
}


def table(
    summary: dict[str, dict[str, Any]],
    title: str,
    regret: str = "pseudo",
    reference: str | None = None,
    part: Literal["regret", "growth"] | None = None,
) -> Table:
    """The summary as a table of at most 120 columns for the terminal, lowest regret first.

    Args:
      summary: what `summarize` returns, or what a file holds of it.
      title: printed above.
      regret: which regret the dataset holds.
      reference: name of the agent that differences are taken against; the column is left out where there are none.
      part: for a narrow terminal, the columns of regrets or those of how they grow; both have fewer than 80 characters.
        None: all.
    """
    compared = any("minus_reference" in row for row in summary.values())
    other = reference or "the reference"
    minus = f"\nminus {other}: regret minus that of {other}, scenario by scenario" if compared else ""
    caption = "\n".join(text for name, text in _CAPTION.items() if part in (None, name)).format(minus=minus)
    result = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    result.show_edge, result.pad_edge, result.collapse_padding = False, False, True
    result.add_column("agent", overflow="fold", max_width=19)
    heads = ["β", "p of\nβ = 1", "SuffFail\nFreq\n(T/2)", "K·Min\nFrac(T)", "Greedy\nFrac"]
    regrets = [regret_name(regret), *([f"minus\n{reference or 'reference'}"] if compared else [])]
    kept = {None: slice(None), "regret": slice(len(regrets)), "growth": slice(len(regrets), None)}[part]
    for head in [*regrets, *heads][kept]:
        result.add_column(head, justify="right", no_wrap=True)
    for name, row in sorted(summary.items(), key=lambda item: item[1]["regret_mean"]):
        cells = [_estimate(row["regret_mean"], row["regret_ci95"], 20)]
        if compared:
            difference = row["minus_reference"], row["minus_reference_ci95"]
            cells.append("-" if name == reference else _estimate(*difference, 23, sign="+"))
        cells += [
            _estimate(row["exponent"], row["exponent_ci95"], 17),
            _p_value(row["sublinear_p"]),
            *(estimate_text(row.get(key), (), 3) for key in ("suff_fail_freq", "min_frac", "greedy_frac")),
        ]
        result.add_row(name, *cells[kept])
    return result


def _p_value(p: float | None) -> str:
    return "<0.001" if p is not None and p < 0.001 else estimate_text(p, (), 3)


def _estimate(mean: float | None, interval: Sequence[float | None], width: int, sign: str = "") -> str:
    """A number with its interval, with two decimals or as many as fit into the width."""
    texts = [estimate_text(mean, interval, digits, sign) for digits in (2, 1, 0)]
    return next((text for text in texts if len(text) <= width), texts[-1])
