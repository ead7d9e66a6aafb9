"""Tables for a terminal and a paper: text, Markdown, LaTeX and CSV, of a sweep or of one evaluation."""

import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from rmft_jax.config.checks import require
from rmft_jax.config.names import is_trained
from rmft_jax.statistics import estimates
from rmft_jax.statistics.bootstrap import Interval, mean_interval, t_interval
from rmft_jax.statistics.labels import agent_label, field_label, value_label
from rmft_jax.statistics.report import estimate_text, regret_of, summarize

Format = Literal["text", "markdown", "latex", "csv"]
_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "β": r"$\beta$", "ε": r"$\varepsilon$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "*": "{*}",  # At the start of a row they would belong to the end of the one before.
})  # fmt: skip
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_NUMBER: tuple[str, ...] = ("mean", "low", "high", "interval")


NO_RIVALS = ("uniform", "best_arm", "best_fixed_arm")
"""What is no contest: play at random, and references that know the rewards."""
# Regrets of one agent, in an order in which those of all agents are paired.
_Regrets = Float[np.ndarray, "N"]


class _Words(NamedTuple):
    """What a table calls an agent, a dimension, and a value of one such as "num_arms = 5"."""

    agent: Callable[[str], str]
    dim: Callable[[str], str]
    value: Callable[[str], str]


class _Table(NamedTuple):
    """What a table shows.

    names, columns: heads of the columns that name a row, and of the others.
    rows: what names one; and for each other column a mean with its interval, and what that is.
    contests: the regrets of agents in the same setting, by the row and the column of their means.
    paired: the interval of a mean difference of such regrets, and what it is called.
    """

    names: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[dict[str, Any]]]]
    caption: str
    contests: list[dict[tuple[int, int], _Regrets]]
    paired: tuple[Callable[[_Regrets], Interval], str]


def table(
    dataset: xr.Dataset,
    rows: str | None = None,
    columns: str | None = None,
    format: Format = "markdown",
    *,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    width: int | None = None,
) -> str:
    r"""Regret at the horizon with 95% intervals, such as "3.88 [3.65, 4.11]", as text.

    Of a sweep a row per value of `rows` and a column per agent; or, if `columns` is given, a row per value and agent,
    and a column per value of `columns`. Intervals are those of `statistics.estimates`. Of an evaluation a row per
    agent, lowest regret first, and beside the regret its difference to the reference and its exponent, with bootstraps
    over scenarios. A dash is a cell without a finished run.

    LaTeX calls agents and settings what figures call them. Bold is the lowest regret among the agents in a setting, and
    every regret whose paired 95% interval of the difference to it does not exclude 0: Student's over training seeds, of
    which there must be two, or a bootstrap over scenarios. Play at random and references that know the rewards do not
    compete.

    Args:
      dataset: a sweep or an evaluation.
      rows: a dimension of the sweep; if None the first one left, of several values where there is one.
      columns: another one.
      format: `text`, columns that stand below each other; `markdown`; `latex`, a tabular with the rules of booktabs; or
        `csv`, a row per number with its interval.
      select: values of the sweep's other dimensions, one for each that is not a training seed.
      baselines: the classical agents, by name; all if None.
      width: of `text`, in characters: columns that do not fit follow below the others. None: as wide as it takes.

    Raises:
      ConfigError: for names or values that the dataset does not have, and dimensions left open.
    """
    writers = {"text": functools.partial(_text, width=width), "markdown": _markdown, "latex": _latex, "csv": _csv}
    require(format in writers, f"format={format!r}", f"one of {', '.join(writers)}", "markdown")
    words = _words_of_figures() if format == "latex" else _Words(str, str, str)
    if estimates.is_sweep(dataset):
        content = _of_sweep(estimates.select(dataset, select or {}), rows, columns, baselines, words)
    else:
        asked = f"rows={rows!r}, columns={columns!r}, select={dict(select or {})}"
        require(not (rows or columns or select), asked, "a sweep for them", "neither")
        content = _of_evaluation(dataset, baselines, words)
    return writers[format](content)


def _words_of_figures() -> _Words:
    return _Words(agent_label, field_label, value_label)


def _of_sweep(
    dataset: xr.Dataset, rows: str | None, columns: str | None, baselines: Sequence[str] | None, words: _Words
) -> _Table:
    left = [dim for dim in estimates.open_dims(dataset) or estimates.sweep_dims(dataset) if dim != columns]
    rows = rows or (left[0] if left else None)
    require(rows is None or rows != columns, f"rows={rows} and columns={columns}", "two dimensions", "one of them")
    dims = [dim for dim in (rows, columns) if dim]
    dataset = estimates.require_closed(dataset, dims)
    found, heads = estimates.estimates(dataset, "final_regret"), [rows] if rows else []
    names = estimates.agents_among(list(found), baselines)
    cells = {name: estimates.rows_of(found[name], dims) for name in names}
    told = estimates.intervals_of((words.agent(name), found[name]) for name in names)
    lost = estimates.lost_seeds(dataset)
    caption = f"{regret_of(dataset)} at the horizon; 95% intervals: {told}{f'; {lost}' if lost else ''}"
    regrets, paired = _by_seed(dataset, names, dims), (t_interval, "Student-t over seeds")
    shown = [*map(words.dim, heads)]
    if columns is None:
        body = [([line[0][dim] for dim in heads], list(line)) for line in zip(*cells.values(), strict=True)]
        contests = [{(i, j): regrets[name][i] for j, name in _rivals(names)} for i in range(len(body))]
        return _Table(shown, [*map(words.agent, names)], body, caption, contests, paired)
    values = [words.value(f"{columns} = {estimates.text_of(value)}") for value in dataset[columns].values]
    starts = range(0, len(cells[names[0]]), len(values))
    body = [
        ([*(line[i][dim] for dim in heads), words.agent(name)], line[i : i + len(values)])
        for i in starts
        for name, line in cells.items()
    ]
    contests = [
        {(block * len(names) + row, j): regrets[name][i + j] for row, name in _rivals(names)}
        for block, i in enumerate(starts)
        for j in range(len(values))
    ]
    return _Table([*shown, "agent"], values, body, caption, contests, paired)


def _of_evaluation(evaluation: xr.Dataset, baselines: Sequence[str] | None, words: _Words) -> _Table:
    kind, reference, summary = regret_of(evaluation), evaluation.attrs.get("reference"), summarize(evaluation)
    names = sorted(estimates.agents_among(list(summary), baselines), key=lambda name: summary[name]["regret_mean"])
    columns = {kind: ("regret_mean", "regret_ci95"), "β": ("exponent", "exponent_ci95")}
    if any("minus_reference" in row for row in summary.values()):
        columns |= {f"minus {words.agent(str(reference))}": ("minus_reference", "minus_reference_ci95")}
    text = "bootstrap over scenarios"
    rows = ((name, summary[name]) for name in names)
    body = [
        (
            [words.agent(name)],
            [dict(zip(_NUMBER, (row[mean], *row[ends], text), strict=True)) for mean, ends in columns.values()],
        )
        for name, row in rows
    ]
    final = evaluation["regret"].isel(round=-1).transpose("agent", "scenario")
    contests = [{(row, 0): final.sel(agent=name).to_numpy().astype(np.float64) for row, name in _rivals(names)}]
    caption = f"{kind} at the horizon; 95% intervals: {text}"
    return _Table(["agent"], list(columns), body, caption, contests, (mean_interval, text))


def _by_seed(dataset: xr.Dataset, names: Sequence[str], dims: Sequence[str]) -> dict[str, Float[np.ndarray, "C S"]]:
    """By agent the regrets `[C, S]` of all settings and seeds, in the order of `estimates.rows_of`."""
    found = {}
    for name in names:
        classical = not is_trained(name)
        values = dataset["baseline_final_regret"].sel(agent=name) if classical else dataset["final_regret"]
        if "seed" not in values.dims:
            values = values.drop_vars("seed", errors="ignore").expand_dims(seed=dataset.sizes.get("seed", 1))
        flat = values.transpose(*dims, "seed").to_numpy()
        found[name] = flat.reshape(-1, flat.shape[-1])
    return found


def _rivals(names: Sequence[str]) -> list[tuple[int, str]]:
    """The agents that a lowest regret is looked for among, with their places."""
    return [(place, name) for place, name in enumerate(names) if name not in NO_RIVALS]


def _bold(content: _Table) -> set[tuple[int, int]]:
    """The places of the lowest regrets, and of those that cannot be told from them."""
    found = set()
    for contest in content.contests:
        known = {place: regrets for place, regrets in contest.items() if np.isfinite(regrets).any()}
        if not known:
            continue
        best = min(known, key=lambda place: float(np.nanmean(known[place])))
        differences = np.stack([regrets - known[best] for regrets in known.values()], axis=-1)
        lows = content.paired[0](differences).low
        found |= {best, *(place for place, low in zip(known, lows, strict=True) if low <= 0)}
    return found


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


def _text(content: _Table, width: int | None) -> str:
    head, *rows = _cells(content)
    frame = pd.DataFrame(rows, columns=head)
    if content.names:
        frame = frame.set_index(content.names)
    # A line that goes on below ends with a backslash for pandas; what is told is seen without it.
    lines = frame.to_string(index=bool(content.names), line_width=width).splitlines()
    told = textwrap.fill(f"{content.caption}.", width or len(content.caption) + 1)
    return "\n".join([*(line.rstrip(" \\") for line in lines), "", told, ""])


def _markdown(content: _Table) -> str:
    head, *rows = _cells(content)
    return f"{markdown_table(head, rows, len(content.names))}\n\n{content.caption}.\n"


def _latex(content: _Table) -> str:
    (head, *rows), bold = _cells(content), _bold(content)
    names = len(content.names)
    lines = [
        [*map(_escaped, row[:names]), *(_number(text, (i, j) in bold) for j, text in enumerate(row[names:]))]
        for i, row in enumerate(rows)
    ]
    told = f"bold: lowest in its setting, and what its paired 95% interval ({content.paired[1]}) does not tell from it"
    return "\n".join([
        f"% {content.caption}",
        f"% {told}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{'l' * names}{'r' * len(content.columns)}}}",
        r"\toprule",
        " & ".join(map(_escaped, head)) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def _escaped(text: str) -> str:
    return _MINUS.sub("$-$", text.translate(_ESCAPES))


def _number(text: str, bold: bool) -> str:
    """A number with its interval, of which the number may be bold; an en dash for none."""
    number, blank, rest = text.partition(" ")
    if number == "-":
        return "--"
    shown = _MINUS.sub("$-$", number)
    return (rf"\textbf{{{shown}}}" if bold else shown) + blank + _MINUS.sub("$-$", rest)


def _csv(content: _Table) -> str:
    return csv_text([
        dict(zip(content.names, names, strict=True)) | {"column": column} | {key: number[key] for key in _NUMBER}
        for names, numbers in content.rows
        for column, number in zip(content.columns, numbers, strict=True)
    ])  # fmt: skip


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as CSV with a head: numbers with 6 digits, nothing for NaN."""
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
