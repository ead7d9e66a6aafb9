"""Tables for a paper: Markdown, LaTeX and CSV, of a sweep or of one evaluation. Imports no JAX."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import xarray as xr

from rmft_jax.config.checks import require
from rmft_jax.estimates import (
    TRAINED,
    bands_of,
    estimates,
    is_sweep,
    open_dims,
    require_closed,
    sweep_dims,
    text_of,
)
from rmft_jax.estimates import (
    select as part_of,
)
from rmft_jax.report import regret_name, summarize

Format = Literal["markdown", "latex", "csv"]
_FORMATS = ("markdown", "latex", "csv")
_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "β": r"$\beta$", "ε": r"$\varepsilon$",
})  # fmt: skip


class _Number(NamedTuple):
    """A cell: a mean with its 95% interval, and what that is; NaN where there is none."""

    mean: float
    low: float
    high: float
    interval: str


class _Table(NamedTuple):
    """heads: of the columns that name a row, and of the others; rows: what names one, and its cells."""

    names: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[_Number]]]
    caption: str


def table(
    dataset: xr.Dataset,
    rows: str | None = None,
    columns: str | None = None,
    format: Format = "markdown",
    *,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
) -> str:
    r"""Regret at the horizon with 95% intervals, such as "3.88 [3.65, 4.11]", as text.

    Of a sweep a row per value of `rows` and a column per agent; or, if `columns` is given, a row per value and agent,
    and a column per value of `columns`. Intervals are those of `rmft_jax.estimates`. Of an evaluation a row per agent,
    lowest regret first, and beside the regret its difference to the reference and its exponent, with bootstraps over
    scenarios. A dash is a cell without a finished run.

    Args:
      dataset: a sweep or an evaluation.
      rows: a dimension of the sweep; if None the first one left, of several values where there is one.
      columns: another one.
      format: `markdown`; `latex`, a tabular with the rules of booktabs; or `csv`, a row per number with its interval.
      select: values of the sweep's other dimensions, one for each that is not a training seed.
      baselines: the classical agents, by name; all if None.

    Raises:
      ConfigError: for names or values that the dataset does not have, and dimensions left open.
    """
    require(format in _FORMATS, f"format={format!r}", f"one of {', '.join(_FORMATS)}", "markdown")
    if is_sweep(dataset):
        content = _of_sweep(part_of(dataset, select or {}), rows, columns, baselines)
    else:
        asked = f"rows={rows!r}, columns={columns!r}, select={dict(select or {})}"
        require(not (rows or columns or select), asked, "a sweep for them", "neither")
        content = _of_evaluation(dataset, baselines)
    return {"markdown": _markdown, "latex": _latex, "csv": _csv}[format](content)


def _of_sweep(dataset: xr.Dataset, rows: str | None, columns: str | None, baselines: Sequence[str] | None) -> _Table:
    left = [dim for dim in open_dims(dataset) or sweep_dims(dataset) if dim != columns]
    rows = rows or (left[0] if left else None)
    require(rows is None or rows != columns, f"rows={rows} and columns={columns}", "two dimensions", "one of them")
    dataset = require_closed(dataset, [dim for dim in (rows, columns) if dim])
    found = estimates(dataset, "final_regret")
    names = _agents(list(found), baselines)
    values = [None] if rows is None else list(range(dataset.sizes[rows]))
    heads = [] if rows is None else [rows]

    def at(name: str, row: int | None, column: int | None = None) -> _Number:
        places = {dim: i for dim, i in ((rows, row), (columns, column)) if dim is not None and i is not None}
        return _number(found[name].isel(places))

    def head(row: int | None) -> list[str]:
        return [] if rows is None or row is None else [text_of(dataset[rows].values[row])]

    caption = f"{regret_name(dataset.attrs.get('regret', 'pseudo'))} at the horizon; {bands_of(found, names)}"
    if columns is None:
        body = [(head(row), [at(name, row) for name in names]) for row in values]
        return _Table(heads, names, body, caption)
    places = range(dataset.sizes[columns])
    body = [([*head(row), name], [at(name, row, i) for i in places]) for row in values for name in names]
    return _Table([*heads, "agent"], [f"{columns} = {text_of(v)}" for v in dataset[columns].values], body, caption)


def _of_evaluation(evaluation: xr.Dataset, baselines: Sequence[str] | None) -> _Table:
    kind, reference = regret_name(evaluation.attrs.get("regret", "pseudo")), evaluation.attrs.get("reference")
    summary = summarize(evaluation)
    names = _agents(sorted(summary, key=lambda name: summary[name]["regret_mean"]), baselines)
    columns = {kind: ("regret_mean", "regret_ci95"), "β": ("exponent", "exponent_ci95")}
    if any("minus_reference" in row for row in summary.values()):
        columns |= {f"minus {reference}": ("minus_reference", "minus_reference_ci95")}
    interval = "bootstrap over scenarios"
    body = [
        ([name], [_Number(row[mean], row[bounds][0], row[bounds][1], interval) for mean, bounds in columns.values()])
        for name, row in ((name, summary[name]) for name in names)
    ]
    return _Table(["agent"], list(columns), body, f"{kind} at the horizon; 95% intervals: {interval}")


def _agents(known: Sequence[str], baselines: Sequence[str] | None) -> list[str]:
    classical = [name for name in known if not name.startswith(TRAINED)]
    for name in baselines or ():
        require(name in classical, f"baseline {name!r}", f"one of {', '.join(classical) or 'none'}", "another name")
    return [name for name in known if baselines is None or name not in classical or name in baselines]


def _number(found: xr.Dataset) -> _Number:
    mean, low, high = (float(found[side]) for side in ("mean", "low", "high"))
    return _Number(mean, low, high, str(found["interval"].values[()]))


def _text(number: _Number) -> str:
    if math.isnan(number.mean):
        return "-"
    return f"{number.mean:.2f}" + ("" if math.isnan(number.low) else f" [{number.low:.2f}, {number.high:.2f}]")


def _markdown(content: _Table) -> str:
    lines = [[*content.names, *content.columns], [*["---"] * len(content.names), *["---:"] * len(content.columns)]]
    lines += [[*names, *map(_text, numbers)] for names, numbers in content.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"{body}\n\n{content.caption}.\n"


def _latex(content: _Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_ESCAPES) for cell in cells) + r" \\"

    return "\n".join([
        f"% {content.caption}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{'l' * len(content.names)}{'r' * len(content.columns)}}}",
        r"\toprule",
        line([*content.names, *content.columns]),
        r"\midrule",
        *(line([*names, *map(_text, numbers)]) for names, numbers in content.rows),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def _csv(content: _Table) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*content.names, "column", "mean", "low", "high", "interval"])
    for names, numbers in content.rows:
        for column, number in zip(content.columns, numbers, strict=True):
            values = ("" if math.isnan(value) else f"{value:.6g}" for value in number[:3])
            writer.writerow([*names, column, *values, number.interval])
    return output.getvalue()
