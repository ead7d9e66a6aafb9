"""The commands `rmft plot` and `rmft table`."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr

from rmft_jax import plotting
from rmft_jax.cli.common import Groups, parse, values_by_name
from rmft_jax.config.checks import require
from rmft_jax.running.files import RunError, read_dataset, replacing
from rmft_jax.running.storage import RunDirectory
from rmft_jax.statistics import estimates, tables
from rmft_jax.statistics.estimates import is_sweep
from rmft_jax.sweeps.store import load_sweep

_Selection = Annotated[Groups, tyro.conf.arg(metavar="NAME=VALUE[,VALUE] ...")]
_Names = Annotated[Groups, tyro.conf.arg(metavar="NAME ...")]


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """What a figure and a table have in common."""

    directory: tyro.conf.Positional[Path]
    """Directory of a run or a sweep, or a netCDF file of either."""
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
    """Draws the figures of a run or a sweep, as PNG and PDF, with the numbers that they show as CSV."""

    kind: str | None = None
    """Which figure, such as regret or heatmap, or one of your own with --import; without it, all of them."""
    by: str | None = None
    """Dimension of a sweep with a panel or curve per value; the axis of --kind sweep."""
    relative_to: _Names = ()
    """Classical agents whose regret --kind heatmap divides by."""
    style: Literal["paper", "slides"] = "paper"
    """A column of a paper, or larger, for slides."""
    out: Path | None = None
    """File for the one figure of --kind; DIR/figures if not given."""


@dataclasses.dataclass(frozen=True)
class TableArguments(_Arguments):
    """Prints regret at the horizon with 95% intervals, of a run or a sweep."""

    rows: str | None = None
    """Dimension of a sweep with a row per value."""
    columns: str | None = None
    """Dimension of a sweep with a column per value; the agents if not given."""
    format: Literal["markdown", "latex", "csv"] = "markdown"
    """LaTeX needs the package booktabs; CSV has a row per number."""
    out: Path | None = None
    """File for the table, instead of printing it."""


def plot(argv: list[str]) -> int:
    """Draws the figures of a run or a sweep."""
    arguments = parse(PlotArguments, "plot", argv)
    choice = arguments.choice()
    _check(arguments)
    dataset, metrics, figures = _read(arguments.directory)
    dataset = estimates.with_intervals(dataset, arguments.intervals)
    if arguments.kind is not None:
        compared = tuple(itertools.chain(*arguments.relative_to)) or None
        options = {"by": arguments.by, "select": choice, "baselines": arguments.named(), "relative_to": compared}
        figure = plotting.plot_kind(arguments.kind, dataset, metrics, style=arguments.style, **options)
        written = plotting.save_figure(figure, arguments.out or figures / arguments.kind)[:1]
    elif is_sweep(dataset):
        written = plotting.plot_all(dataset, figures, arguments.style, choice)
    else:
        require(not choice, "--select for a run", "a sweep for it", "without")
        written = plotting.plot_run(metrics, dataset, figures, arguments.style)
    for path in written:
        beside = (suffix for suffix in (".pdf", ".csv") if path.with_name(f"{path.stem}{suffix}").is_file())
        print(f"figure: {path} (and {', '.join(beside)})")
    return 0


def table(argv: list[str]) -> int:
    """Prints or writes a table of a run or a sweep."""
    arguments = parse(TableArguments, "table", argv)
    choice = arguments.choice()
    dataset = estimates.with_intervals(_read(arguments.directory)[0], arguments.intervals)
    shape = arguments.rows, arguments.columns, arguments.format
    text = tables.table(dataset, *shape, select=choice, baselines=arguments.named())
    if arguments.out is None:
        print(text, end="")
        return 0
    with replacing(arguments.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"table: {arguments.out}")
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


def _read(path: Path) -> tuple[xr.Dataset, xr.Dataset | None, Path]:
    """What a directory or file holds, a sweep or an evaluation; of a run its metrics too; where its figures go.

    Raises:
      RunError: if it holds nothing to draw.
    """
    if path.is_file():
        dataset = read_dataset(path, "a netCDF file that rmft made")
        if not {"regret", "final_regret"} & set(dataset):
            raise RunError(f"{path} holds no regret; try the evaluation.nc of a run, or the sweep.nc of a sweep")
        return dataset, None, path.parent / "figures"
    if (path / "sweep.json").is_file():
        dataset = load_sweep(path)
        if "final_regret" not in dataset:
            raise RunError(f"{path} holds no cell that has finished; try `rmft sweep --resume`")
        return dataset, None, path / "figures"
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is not a run directory, nor one of a sweep; try one that rmft made")
    run = RunDirectory.open(path)
    return run.read_dataset("evaluation.nc"), run.read_dataset("metrics.nc"), run.figures
