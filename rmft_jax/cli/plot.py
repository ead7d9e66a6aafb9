"""The commands `rmft plot` and `rmft table`."""

import dataclasses
import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr

from rmft_jax import plotting
from rmft_jax.cli.common import (
    Groups,
    imports,
    parse,
    program,
    short_name,
    suggest,
    table_text,
    values_by_name,
)
from rmft_jax.config.checks import require
from rmft_jax.running.files import RunError, read_dataset, replacing
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.storage import RunDirectory
from rmft_jax.statistics import estimates, tables
from rmft_jax.statistics.estimates import is_sweep, selection_of
from rmft_jax.sweeps.compare import DIMENSION, compare_runs
from rmft_jax.sweeps.store import load_sweep

_Selection = Annotated[Groups, tyro.conf.arg(metavar="NAME=VALUE[,VALUE] ...")]
_ALONE = ("evaluation.nc", "sweep.nc", "agents.nc", "metrics.nc")
"""Names of files of which a directory has one."""
_Names = Annotated[Groups, tyro.conf.arg(metavar="NAME ...")]


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """What a figure and a table have in common."""

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Directory of a run or a sweep, or a netCDF file of either; or directories of several runs, side by side."""
    select: _Selection = ()
    """Values of a sweep's other dimensions, such as num_arms=5 seed=0,1."""
    baselines: _Names = ()
    """Classical agents; `none` for none. If not given, a figure has a choice of them, and a table all."""
    intervals: estimates.IntervalName = "student"
    """Of a sweep over seeds: Student-t, or a hierarchical bootstrap, which is of use from two seeds on."""

    def choice(self) -> dict[str, Any]:
        """The selected values by name: `a=1` is one value, `a=1,2` several."""
        choice = values_by_name("--select", self.select, "NAME=VALUE", "num_arms=5")
        return {name: [v for v in text.split(",") if v] if "," in text else text for name, text in choice.items()}

    def named(self) -> tuple[str, ...] | None:
        """The baselines; None if they are not given."""
        names = tuple(itertools.chain(*self.baselines))
        return None if not self.baselines else () if names == ("none",) else names


@dataclasses.dataclass(frozen=True)
class PlotArguments(_Arguments):
    """Draws the figures of a run or a sweep, as PNG and PDF, with the numbers that they show as CSV.

    Of several runs they are those of a sweep whose dimension is called `run`. A run that is still in training has the
    figure of its training so far.
    """

    kind: str | None = None
    """Which figure, such as regret or heatmap, or one of your own with --import; without it, all of them."""
    by: str | None = None
    """Dimension of a sweep with a panel or curve per value; the axis of --kind sweep."""
    relative_to: _Names = ()
    """Classical agents whose regret --kind heatmap divides by, or whose --kind difference takes away."""
    style: Literal["paper", "slides"] = "paper"
    """A column of a paper, or larger, for slides."""
    out: Path | None = None
    """File for the one figure of --kind; if not given DIR/figures, of several runs compared/ beside the first."""


@dataclasses.dataclass(frozen=True)
class TableArguments(_Arguments):
    """Prints regret at the horizon with 95% intervals, of a run or a sweep."""

    rows: str | None = None
    """Dimension of a sweep with a row per value."""
    columns: str | None = None
    """Dimension of a sweep with a column per value; the agents if not given."""
    format: tables.Format = "text"
    """Text is for the terminal; LaTeX needs the package booktabs; CSV has a row per number."""
    out: Path | None = None
    """File for the table, instead of printing it."""


def plot(argv: list[str]) -> int:
    """Draws the figures of a run or a sweep."""
    arguments = parse(PlotArguments, "plot", argv)
    choice = arguments.choice()
    _check(arguments)
    dataset, metrics, figures = _read(arguments.directories, arguments.kind in (None, "training"))
    with ProgressReporter().status("drawing figures", lines=False):
        written = _drawn(arguments, choice, dataset, metrics, figures)
    tell_figures(written, arguments.directories, arguments.select)
    if dataset:
        if lost := estimates.lost_seeds(dataset):
            print(f"note: {lost}", file=sys.stderr)
        suggest(["table", *arguments.directories, "--format", "latex"])
    elif arguments.directories[0].is_dir():
        print(f"{figures.parent} is in training; its other figures need its end", file=sys.stderr)
    return 0


def tell_figures(written: Sequence[plotting.Written], sources: Sequence[Path], select: Groups = ()) -> None:
    """Says where figures are, which values of a sweep they took, and how to see agents that they have no room for.

    Args:
      written: the figures.
      sources: where the command had it from.
      select: what it was asked to select.
    """
    for one in written:
        beside = (suffix for suffix in (".pdf", ".csv") if one.path.with_name(f"{one.path.stem}{suffix}").is_file())
        print(f"figure: {one.path} (and {', '.join(beside)})")
    fixed = [(",".join(selection_of(dim, value) for dim, value in one.fixed.items()), one.kind) for one in written]
    for words, kinds in _gathered(fixed):
        print(f"the last value is shown, as with --select {words}: {kinds}")
    thinned = [(f"{dim} = {', '.join(gone)}", one.kind) for one in written for dim, gone in one.thinned.items()]
    for words, kinds in _gathered(thinned):
        print(f"no room for {words}, which --select shows: {kinds}")
    crowded: dict[tuple[str, ...], list[plotting.Written]] = {}
    for one in written:
        if one.left_out:
            crowded.setdefault((*one.left_out,), []).append(one)
    for left_out, alike in crowded.items():
        first, kinds = alike[0], ", ".join(one.kind for one in alike)
        fixed = [*itertools.chain(*select), *(selection_of(dim, value) for dim, value in first.fixed.items())]
        words = ["plot", *map(str, sources), *imports(), "--kind", first.kind]
        words += [*(["--by", first.by] if first.by else []), *(["--select", *fixed] if fixed else [])]
        named = "baselines" if "baselines" in plotting.FIGURES[first.kind].options else "relative_to"
        command = shlex.join([*words, f"--{named.replace('_', '-')}", *left_out[: max(len(first.shown) - 1, 1)]])
        print(f"{kinds}: {len(left_out)} agents have no room; to see them: `{program()} {command}`")


def _gathered(told: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is told of figures, each once, with all kinds that it is told of; nothing of empty words."""
    kinds: dict[str, dict[str, None]] = {}
    for words, kind in told:
        kinds.setdefault(words, {})[kind] = None
    return [(words, ", ".join(names)) for words, names in kinds.items() if words]


def _drawn(
    arguments: PlotArguments, choice: dict[str, Any], dataset: xr.Dataset, metrics: xr.Dataset | None, figures: Path
) -> list[plotting.Written]:
    """Draws and writes. An empty dataset is that of a run in training."""
    kind, style = arguments.kind, arguments.style
    if not dataset and metrics is not None:
        require(not choice, "--select for a run", "a sweep for it", "without")
        figure = plotting.plot_training(metrics, style=style)
        return [plotting.write_figure(figure, _place(arguments, figures), "training")]
    dataset = estimates.with_intervals(dataset, arguments.intervals)
    if kind is not None:
        compared = tuple(itertools.chain(*arguments.relative_to)) or None
        side_by_side = DIMENSION in dataset.dims and "by" in plotting.FIGURES[kind].options
        by = arguments.by or (DIMENSION if side_by_side else None)
        options = {"by": by, "select": choice, "baselines": arguments.named(), "relative_to": compared}
        figure = plotting.plot_kind(kind, dataset, metrics, style=style, **options)
        return [plotting.write_figure(figure, _place(arguments, figures), kind, by)]
    if is_sweep(dataset):
        return plotting.plot_all(dataset, figures, style, choice)
    require(not choice, "--select for a run", "a sweep for it", "without")
    return plotting.plot_run(metrics, dataset, figures, style)


def _place(arguments: PlotArguments, figures: Path) -> Path:
    return arguments.out or figures / (arguments.kind or "training")


def table(argv: list[str]) -> int:
    """Prints or writes a table of a run or a sweep."""
    arguments = parse(TableArguments, "table", argv)
    dataset = estimates.with_intervals(_read(arguments.directories)[0], arguments.intervals)
    axes, options = (arguments.rows, arguments.columns), {"select": arguments.choice(), "baselines": arguments.named()}
    text = table_text(dataset, *axes, arguments.format, **options)
    if arguments.out is None:
        print(text, end="")
        return 0
    with replacing(arguments.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"table: {arguments.out}")
    suggest(["plot", *arguments.directories])
    return 0


def _check(arguments: PlotArguments) -> None:
    """Refuses what only --kind can use, where it is not given."""
    if arguments.kind is None:
        for name in ("by", "relative_to", "baselines", "out"):
            got = f"--{name.replace('_', '-')} without --kind"
            require(not getattr(arguments, name), got, "the kind of figure it is for", "--kind regret")
    elif arguments.out is not None:
        suffix = arguments.out.suffix
        require(suffix in (".pdf", ".png"), f"--out {arguments.out}", "a .pdf or .png", f"--out {arguments.kind}.pdf")


def _read(paths: tuple[Path, ...], training: bool = False) -> tuple[xr.Dataset, xr.Dataset | None, Path]:
    """What directories or a file hold, a sweep or an evaluation; of a run its metrics too; where their figures go.

    `training`: whether of a run without an evaluation the metrics will do, beside which the dataset is empty.

    Raises:
      RunError: if it holds nothing to draw.
    """
    require(bool(paths), "no directory", "that of a run or a sweep", "`rmft plot runs/quickstart`")
    if len(paths) == 1:
        return _read_one(paths[0], training)
    for path in paths:
        if not (path / RunDirectory.record_name).is_file():
            raise RunError(f"got {path} beside {paths[0]}, need directories of runs; try one that `rmft train` made")
    dataset = compare_runs(paths)
    whole = [path.resolve() for path in paths]
    shared = os.path.commonpath([path.parent for path in whole])  # Runs of one name in other places are other runs.
    words = "+".join("-".join(path.relative_to(shared).parts) for path in whole)
    return dataset, None, whole[0].parent / "compared" / short_name(words)


def _read_one(path: Path, training: bool) -> tuple[xr.Dataset, xr.Dataset | None, Path]:
    if path.is_file():
        dataset = read_dataset(path, "a netCDF file that rmft made")
        # Evaluations of one run under other settings are side by side, and so are their figures.
        figures = path.parent / "figures" / ("" if path.name in _ALONE else path.stem)
        if "regret" in dataset and "iteration" in dataset["regret"].dims:
            if not training:
                raise RunError(f"{path} holds the training of a run, not how it plays; try its directory")
            return xr.Dataset(), dataset, figures
        if not {"regret", "final_regret"} & set(dataset):
            raise RunError(f"{path} holds no regret; try the evaluation.nc of a run, or the sweep.nc of a sweep")
        return dataset, None, figures
    if (path / "sweep.json").is_file():
        dataset = load_sweep(path)
        if "final_regret" not in dataset:
            raise RunError(f"{path} holds no cell that has finished; try `rmft sweep --resume`")
        return dataset, None, path / "figures"
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is not a run directory, nor one of a sweep; try one that rmft made")
    run = RunDirectory.open(path)
    metrics = run.read_dataset("metrics.nc")
    if training and not (path / "evaluation.nc").is_file():
        return xr.Dataset(), metrics, run.figures
    return run.read_dataset("evaluation.nc"), metrics, run.figures
