"""All figures, by kind and in files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from rmft_jax.config.checks import either, require
from rmft_jax.plotting.panels import MAX_PANELS
from rmft_jax.plotting.register import FIGURES, FigureKind
from rmft_jax.plotting.style import DataFigure, StyleName, house_style
from rmft_jax.plotting.sweep import default_axis
from rmft_jax.running.files import replacing
from rmft_jax.statistics import estimates
from rmft_jax.statistics.estimates import is_sweep, open_dims, text_of
from rmft_jax.statistics.report import summarize
from rmft_jax.statistics.tables import csv_text

# Metrics of training that are called as results of an evaluation or a sweep.
_RESULTS = ("regret", "suff_fail_freq")


def plot_kind(
    kind: str, dataset: xr.Dataset, metrics: xr.Dataset | None = None, *, style: StyleName = "paper", **options: Any
) -> Figure:
    """A figure by the name of its kind.

    Args:
      kind: one of `FIGURES`, those of users among them.
      dataset: an evaluation or a sweep.
      metrics: of the run that was evaluated, for kinds that show how it was trained.
      style: `paper` or `slides`, for kinds that have a style.
      options: of its function, and `select` of any sweep; those that are None or empty are as not given.

    Raises:
      ConfigError: for an unknown kind, an option that it does not have, and whatever its function refuses.
    """
    entry = FIGURES[kind]
    given = {name: value for name, value in options.items() if value is not None and value != {}}
    if "select" not in entry.options and is_sweep(dataset):
        dataset = estimates.select(dataset, given.pop("select", {}))
    for name in given:
        option, able = (
            either(f"--{name.replace('_', '-')}", name),
            [one for one in FIGURES if name in FIGURES[one].options],
        )
        of_kind = either("--kind", "kind")
        need = f"{of_kind} {' or '.join(able)} for it" if able else "an option that a figure has"
        require(name in entry.options, f"{option} with {of_kind} {kind}", need, "without")
    if metrics is not None and not entry.fits(dataset) and _draws_training(entry, metrics):
        dataset, given["evaluation"] = metrics, dataset
    given["style"] = style
    return entry.draw(dataset, **{name: value for name, value in given.items() if name in entry.options})


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Writes a figure as PNG and PDF, and the numbers that it shows, if it knows them, as CSV.

    Fonts are embedded in the PDF. Each file is written whole or not at all. `path` is without suffix, or with that of a
    PNG or a PDF, of which both are written all the same. Returns the paths of the PNG, the PDF and the CSV.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".pdf") else path
    # A name such as "k=0.5" has no suffix to replace.
    png, pdf, numbers = (stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf", ".csv"))
    known = figure if isinstance(figure, DataFigure) else DataFigure()
    with house_style(known.style):
        caption = known.caption or None
        for target, metadata in ((png, {"Description": caption}), (pdf, {"Subject": caption, "CreationDate": None})):
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=300, metadata=metadata)
    if not known.rows:
        return [png, pdf]
    with replacing(numbers) as temporary:
        temporary.write_text(csv_text(known.rows), encoding="utf-8", newline="\n")
    return [png, pdf, numbers]


class Written(NamedTuple):
    """A figure that was drawn and is in files.

    path: of the PNG.
    kind: which figure it is.
    by: the dimension of a sweep that its panels or curves differ in.
    fixed: the values of a sweep's further dimensions that were chosen for it, as texts.
    shown: the agents that it shows, by name.
    left_out: those that it has no room for.
    thinned: by dimension the values that it has no room for, as texts.
    """

    path: Path
    kind: str
    by: str | None = None
    fixed: Mapping[str, str] = MappingProxyType({})
    shown: Sequence[str] = ()
    left_out: Sequence[str] = ()
    thinned: Mapping[str, Sequence[str]] = MappingProxyType({})


def write_figure(
    figure: Figure,
    path: str | Path,
    kind: str,
    by: str | None = None,
    fixed: Mapping[str, str] = MappingProxyType({}),
    thinned: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Written:
    """Saves a figure of a kind, and says which agents and values it shows."""
    known = figure if isinstance(figure, DataFigure) else DataFigure()
    known.caption += "".join(f" Not shown: {dim} = {', '.join(values)}." for dim, values in thinned.items())
    shown = dict.fromkeys(str(row["agent"]) for row in known.rows if "agent" in row)
    return Written(save_figure(figure, path)[0], kind, by, fixed, [*shown], known.left_out, thinned)


def plot_run(
    metrics: xr.Dataset | None, evaluation: xr.Dataset, directory: str | Path, style: StyleName = "paper"
) -> list[Written]:
    """All figures of a run, in files of a directory, that of regret first.

    `metrics` say how it was trained, None if that is not known, and `evaluation` how it plays. What it does not hold is
    not drawn: which arms are played, where play is a point of a ball.
    """
    summary, written = summarize(evaluation), []
    for name in _kinds():
        kind = FIGURES[name]
        if kind.fits(evaluation) or (metrics is not None and _draws_training(kind, metrics)):
            known = {"summary": summary} if "summary" in kind.options else {}
            figure = plot_kind(name, evaluation, metrics, style=style, **known)
            written.append(write_figure(figure, Path(directory) / name, name))
    return written


def plot_all(
    sweep: xr.Dataset, directory: str | Path, style: StyleName = "paper", select: Mapping[str, Any] | None = None
) -> list[Written]:
    """All figures of a sweep that its dimensions and variables allow, in files of a directory, that of regret first.

    Panels are at most 8 values of the first dimension other than the horizon; captions name those that are left out.
    What a figure has no room for is fixed at the last value, which its file name then says. `select` has values to fix
    beforehand
    (`rmft_jax.statistics.estimates.select`).
    """
    sweep = estimates.select(sweep, select or {})
    dims, written = open_dims(sweep), []
    panels = [dim for dim in dims if dim != "horizon"][:1] or dims[:1]
    axis = [default_axis(sweep)] if dims else []
    shown = panels, axis + [dim for dim in dims if dim not in axis][:1], dims[:2]
    for name in _kinds():
        kind = FIGURES[name]
        if len(dims) < kind.axes or not kind.fits(sweep) or kind.along not in (None, *dims):
            continue
        kept = shown[kind.axes] if kind.axes or "by" in kind.options else []
        kept = [kind.along] if kind.along else kept
        fixed = {dim: sweep[dim].values[-1] for dim in dims if dim not in kept}
        few = {dim: _few(sweep[dim].values) for dim in kept[kind.axes :]}
        thinned = {
            dim: gone for dim, some in few.items() if (gone := [text_of(x) for x in sweep[dim].values if x not in some])
        }
        by = kept[0] if kept and kind.axes < 2 and "by" in kind.options else None
        reference = sweep.attrs.get("reference") if "relative_to" in kind.options else None
        chosen = {dim: text_of(value) for dim, value in fixed.items()}
        for relative in dict.fromkeys([None, reference]):
            options = {"by": by, "relative_to": relative}
            figure = plot_kind(name, estimates.select(sweep, fixed | few), style=style, **options)
            words = [name, *(["relative"] if relative else []), *(f"{dim}={text}" for dim, text in chosen.items())]
            written.append(write_figure(figure, Path(directory) / "_".join(words), name, by, chosen, thinned))
    return written


def _kinds() -> list[str]:
    """All kinds of figures, that of regret first: it is the one to look at first."""
    return sorted(FIGURES.names(), key=lambda name: name != "regret")


def _draws_training(kind: FigureKind, metrics: xr.Dataset) -> bool:
    """Whether a kind shows what metrics alone have; of what has the name of a result, it shows the result."""
    return kind.fits(metrics.drop_vars(_RESULTS, errors="ignore"))


def _few(values: np.ndarray) -> list[Any]:
    """As many of the values as there may be panels, evenly among them."""
    return list(values[np.linspace(0, len(values) - 1, min(len(values), MAX_PANELS)).round().astype(int)])
