"""The tables of a report: regret at the horizon, and the settings of all sources side by side."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from rmft_jax.report.markup import Content, element, table
from rmft_jax.report.sources import Source
from rmft_jax.statistics import estimates
from rmft_jax.statistics.estimates import estimates as estimates_of
from rmft_jax.statistics.estimates import is_sweep
from rmft_jax.statistics.labels import agent_label, field_label
from rmft_jax.statistics.report import estimate_text, regret_of, summarize

_SHARES = {"suff_fail_freq": "SuffFailFreq(T/2)", "min_frac": "K·MinFrac(T)", "greedy_frac": "GreedyFrac"}
_SHARES |= {"invalid": "answers that name no arm"}


def results_table(source: Source) -> ET.Element | None:
    """Regret at the horizon with 95% intervals, with a row per agent, and per setting of a sweep.

    None if there are no results; what cannot be computed is told in `source.missing`.
    """
    if source.results is None:
        return None
    with source.guarded("table"):
        return _of_sweep(source.name, source.results) if is_sweep(source.results) else _of_run(source)
    return None


def settings_table(sources: Sequence[Source]) -> ET.Element | None:
    """A row per setting and a column per source; where sources differ, the row is marked."""
    names = list(dict.fromkeys(name for source in sources for name in source.settings))
    if not names:
        return None
    rows = []
    for name in names:
        values = [source.settings.get(name, "") for source in sources]
        differs = len(set(values)) > 1
        mark = element("span", "≠", title="differs", aria_label="differs") if differs else None
        cells = [element("th", element("code", name), " " if differs else None, mark, scope="row")]
        rows.append(element("tr", *cells, *(element("td", value) for value in values), class_="differs" * differs))
    return table("Settings", ["setting", *(source.name for source in sources)], rows)


def _of_run(source: Source) -> ET.Element:
    dataset, summary = source.results, {}
    assert dataset is not None
    summary = summarize(dataset)
    reference = dataset.attrs.get("reference")
    head: list[Content] = ["agent", regret_of(dataset)]
    compared = any("minus_reference" in row for row in summary.values())
    head += [f"minus {agent_label(str(reference))}"] if compared else []
    shares = {key: label for key, label in _SHARES.items() if any(key in row for row in summary.values())}
    head += ["β", "p of β = 1", *shares.values()]
    rows = []
    for name, row in sorted(summary.items(), key=lambda item: item[1]["regret_mean"]):
        cells = [_name(name), _estimate(row["regret_mean"], row["regret_ci95"])]
        if compared:
            known = row.get("minus_reference", math.nan), row.get("minus_reference_ci95", ())
            cells.append(_number(math.nan, "-") if name == reference else _estimate(*known, sign="+"))
        p = row["sublinear_p"]
        cells.append(_estimate(row["exponent"], row["exponent_ci95"]))
        cells.append(_number(p, "<0.001" if p < 0.001 else estimate_text(p, (), 3)))
        cells += [_number(row.get(key, math.nan), estimate_text(row.get(key), (), 3)) for key in shares]
        rows.append(element("tr", *cells, data_agent=name))
    count = dataset.sizes["scenario"]
    return table(f"{source.name}: T = {dataset.sizes['round']}, {count} scenarios", head, rows, sortable=True)


def _of_sweep(name: str, dataset: xr.Dataset) -> ET.Element:
    dataset = estimates.select(dataset, {})
    dims = estimates.sweep_dims(dataset)
    final = estimates_of(dataset, "final_regret")
    growth = estimates_of(dataset, "exponent") if "exponent" in dataset else {}
    regrets = {agent: estimates.rows_of(found, dims) for agent, found in final.items()}
    exponents = {agent: estimates.rows_of(found, dims) for agent, found in growth.items()}
    rows = []
    for number in range(len(next(iter(regrets.values())))):
        for agent, known in regrets.items():
            one, beta = known[number], exponents[agent][number] if agent in exponents else {"mean": math.nan}
            cells = [_value(one[dim]) for dim in dims] + [_name(agent), _of_row(one), _of_row(beta)]
            cells += [_number(one["num_seeds"], str(one["num_seeds"])), element("td", one["interval"])]
            rows.append(element("tr", *cells, data_agent=agent, data_setting=str(number)))
    head: list[Content] = [*map(field_label, dims), "agent", regret_of(dataset), "β", "seeds", "95% interval"]
    return table(f"{name}: regret at the horizon", head, rows, sortable=True)


def _of_row(row: Mapping[str, Any]) -> ET.Element:
    return _estimate(row["mean"], [row[side] for side in ("low", "high") if side in row])


def _estimate(mean: float, interval: Sequence[float], sign: str = "") -> ET.Element:
    return _number(mean, estimate_text(mean, interval, sign=sign))


def _number(value: float, text: str) -> ET.Element:
    return element("td", text.replace("-", "−") if text != "-" else "–", data_value=f"{value:.6g}", class_="number")


def _name(agent: str) -> ET.Element:
    return element("th", agent_label(agent), scope="row", data_value=agent_label(agent))


def _value(text: str) -> ET.Element:
    return element("td", text, data_value=text)
