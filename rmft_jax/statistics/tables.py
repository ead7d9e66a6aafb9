"""Tables for a paper: Markdown, LaTeX and CSV, of a sweep or of one evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
import xarray as xr

from rmft_jax.config.checks import require
from rmft_jax.statistics import estimates
from rmft_jax.statistics.report import estimate_text, regret_of, summarize

Format = Literal["markdown", "latex", "csv"]
_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "β": r"$\beta$", "ε": r"$\varepsilon$",
})  # fmt: skip
_NUMBER: tuple[str, ...] = ("mean", "low", "high", "interval")


class _Table(NamedTuple):
    """What a table shows.

    names, columns: heads of the columns that name a row, and of the others.
    rows: what names one; and for each other column a mean with its interval, and what that is.
    """

    names: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[dict[str, Any]]]]
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
    and a column per value of `columns`. Intervals are those of `statistics.estimates`. Of an evaluation a row per
    agent, lowest regret first, and beside the regret its difference to the reference and its exponent, with bootstraps
    over scenarios. A dash is a cell without a finished run.

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
    writers = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    require(format in writers, f"format={format!r}", f"one of {', '.join(writers)}", "markdown")
    if estimates.is_sweep(dataset):
        content = _of_sweep(estimates.select(dataset, select or {}), rows, columns, baselines)
    else:
        asked = f"rows={rows!r}, columns={columns!r}, select={dict(select or {})}"
        require(not (rows or columns or select), asked, "a sweep for them", "neither")
        content = _of_evaluation(dataset, baselines)
    return writers[format](content)


def _of_sweep(dataset: xr.Dataset, rows: str | None, columns: str | None, baselines: Sequence[str] | None) -> _Table:
    left = [dim for dim in estimates.open_dims(dataset) or estimates.sweep_dims(dataset) if dim != columns]
    rows = rows or (left[0] if left else None)
    require(rows is None or rows != columns, f"rows={rows} and columns={columns}", "two dimensions", "one of them")
    dims = [dim for dim in (rows, columns) if dim]
    dataset = estimates.require_closed(dataset, dims)
    found, heads = estimates.estimates(dataset, "final_regret"), [rows] if rows else []
    names = estimates.agents_among(list(found), baselines)
    cells = {name: estimates.rows_of(found[name], dims) for name in names}
    told = estimates.intervals_of((name, found[name]) for name in names)
    caption = f"{regret_of(dataset)} at the horizon; 95% intervals: {told}"
    if columns is None:
        body = [([line[0][dim] for dim in heads], list(line)) for line in zip(*cells.values(), strict=True)]
        return _Table(heads, names, body, caption)
    values = [f"{columns} = {estimates.text_of(value)}" for value in dataset[columns].values]
    body = [
        ([*(line[i][dim] for dim in heads), name], line[i : i + len(values)])
        for i in range(0, len(cells[names[0]]), len(values))
        for name, line in cells.items()
    ]
    return _Table([*heads, "agent"], values, body, caption)


def _of_evaluation(evaluation: xr.Dataset, baselines: Sequence[str] | None) -> _Table:
    kind, reference, summary = regret_of(evaluation), evaluation.attrs.get("reference"), summarize(evaluation)
    names = sorted(estimates.agents_among(list(summary), baselines), key=lambda name: summary[name]["regret_mean"])
    columns = {kind: ("regret_mean", "regret_ci95"), "β": ("exponent", "exponent_ci95")}
    if any("minus_reference" in row for row in summary.values()):
        columns |= {f"minus {reference}": ("minus_reference", "minus_reference_ci95")}
    text = "bootstrap over scenarios"
    rows = ((name, summary[name]) for name in names)
    body = [
        ([name], [dict(zip(_NUMBER, (row[mean], *row[ends], text), strict=True)) for mean, ends in columns.values()])
        for name, row in rows
    ]
    return _Table(["agent"], list(columns), body, f"{kind} at the horizon; 95% intervals: {text}")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], names: int | None = None) -> str:
    """A table in Markdown, of the cells of its head and of each row as texts.

    The first `names` columns are aligned to the left, the others hold numbers; None: all.
    """
    names = len(head) if names is None else names
    lines = head, ["---"] * names + ["---:"] * (len(head) - names), *rows
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cells(content: _Table) -> list[list[str]]:
    """The head and the rows as texts."""
    texts = [[*names, *(estimate_text(n["mean"], (n["low"], n["high"])) for n in row)] for names, row in content.rows]
    return [[*content.names, *content.columns], *texts]


def _markdown(content: _Table) -> str:
    head, *rows = _cells(content)
    return f"{markdown_table(head, rows, len(content.names))}\n\n{content.caption}.\n"


def _latex(content: _Table) -> str:
    head, *rows = (" & ".join(cell.translate(_ESCAPES) for cell in line) + r" \\" for line in _cells(content))
    return "\n".join([
        f"% {content.caption}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{'l' * len(content.names)}{'r' * len(content.columns)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def _csv(content: _Table) -> str:
    return csv_text([
        dict(zip(content.names, names, strict=True)) | {"column": column} | {key: number[key] for key in _NUMBER}
        for names, numbers in content.rows
        for column, number in zip(content.columns, numbers, strict=True)
    ])  # fmt: skip


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as CSV with a head: numbers with 6 digits, nothing for NaN."""
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
