"""The commands `rmft plot` and `rmft table`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from rmft_jax.cli.common import gathered, parse
from rmft_jax.config.checks import require

if TYPE_CHECKING:
    import xarray as xr

_Selection = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE[,VALUE] ...")]
_Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
# Options of several words, which may be repeated.
_LISTS = ("--select", "--baselines", "--relative-to")


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draws the figures of a run or a sweep, as PNG and PDF, with the numbers that they show as CSV."""

    directory: tyro.conf.Positional[Path]
    """Directory of a run or a sweep, or a netCDF file of either."""
    kind: str | None = None
    """Which figure, such as regret or heatmap, or one of your own with --import; without it, all of them."""
    by: str | None = None
    """Dimension of a sweep with a panel or curve per value; the axis of --kind sweep."""
    select: _Selection = ()
    """Values of a sweep's other dimensions, such as num_arms=5 seed=0,1."""
    relative_to: _Names | None = None
    """Classical agents whose regret --kind heatmap divides by."""
    baselines: _Names | None = None
    """Classical agents to draw; `none` for none; a choice of them if not given."""
    style: Literal["paper", "slides"] = "paper"
    """A column of a paper, or larger, for slides."""
    out: Path | None = None
    """File for the one figure of --kind; DIR/figures if not given."""


@dataclasses.dataclass(frozen=True)
class TableArguments:
    """Prints regret at the horizon with 95% intervals, of a run or a sweep."""

    directory: tyro.conf.Positional[Path]
    """Directory of a run or a sweep, or a netCDF file of either."""
    rows: str | None = None
    """Dimension of a sweep with a row per value."""
    columns: str | None = None
    """Dimension of a sweep with a column per value; the agents if not given."""
    select: _Selection = ()
    """Values of a sweep's other dimensions, such as num_arms=5."""
    baselines: _Names | None = None
    """Classical agents; `none` for none; all if not given."""
    format: Literal["markdown", "latex", "csv"] = "markdown"
    """LaTeX needs the package booktabs; CSV has a row per number."""
    out: Path | None = None
    """File for the table, instead of printing it."""


class _Source(NamedTuple):
    """What there is to draw: a sweep or an evaluation, and of a run its metrics too."""

    dataset: "xr.Dataset"
    metrics: "xr.Dataset | None"
    figures: Path


def plot(argv: list[str]) -> int:
    """Draws the figures of a run or a sweep."""
    arguments = parse(PlotArguments, "plot", gathered(argv, *_LISTS))
    choice, baselines = _selection(arguments.select), _baselines(arguments.baselines)
    _check(arguments)
    source = _read(arguments.directory)

    from rmft_jax import plotting
    from rmft_jax.statistics.estimates import is_sweep

    dataset, metrics, figures = source
    if arguments.kind is not None:
        options = {"by": arguments.by, "select": choice, "baselines": baselines, "relative_to": arguments.relative_to}
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
    arguments = parse(TableArguments, "table", gathered(argv, *_LISTS))
    choice, baselines = _selection(arguments.select), _baselines(arguments.baselines)
    dataset = _read(arguments.directory).dataset

    from rmft_jax.running.storage import replacing
    from rmft_jax.statistics import tables

    text = tables.table(
        dataset, arguments.rows, arguments.columns, arguments.format, select=choice, baselines=baselines
    )  # fmt: skip
    if arguments.out is None:
        print(text, end="")
        return 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.out) as temporary:
        temporary.write_text(text)
    print(f"table: {arguments.out}")
    return 0


def _check(arguments: PlotArguments) -> None:
    """Refuses what only --kind can use, where it is not given."""
    if arguments.kind is None:
        for name in ("by", "relative_to", "baselines", "out"):
            got = f"--{name.replace('_', '-')} without --kind"
            require(getattr(arguments, name) is None, got, "the kind of figure it is for", "--kind regret")
    elif arguments.out is not None:
        suffix = arguments.out.suffix
        require(suffix in (".pdf", ".png"), f"--out {arguments.out}", "a .pdf or .png", f"--out {arguments.kind}.pdf")


def _selection(words: tuple[str, ...]) -> dict[str, Any]:
    """Values by name: `a=1` is one value, `a=1,2` several."""
    choice: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        require(bool(name and equals and value), f"--select {word}", "NAME=VALUE", "--select num_arms=5")
        require(name not in choice, f"--select {name} twice", "each name once", f"--select {name}=1,2")
        choice[name] = [part for part in value.split(",") if part] if "," in value else value
    return choice


def _baselines(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return () if names == ("none",) else names


def _read(path: Path) -> _Source:
    """What a directory or file holds.

    Raises:
      RunError: if it holds nothing to draw.
    """
    from rmft_jax.running.storage import RunDirectory, RunError, read_dataset
    from rmft_jax.sweeps.store import load_sweep

    if path.is_file():
        dataset = read_dataset(path, "a netCDF file that rmft made")
        if not {"regret", "final_regret"} & set(dataset):
            raise RunError(f"{path} holds no regret; try the evaluation.nc of a run, or the sweep.nc of a sweep")
        return _Source(dataset, None, path.parent / "figures")
    if (path / "sweep.json").is_file():
        dataset = load_sweep(path)
        if "final_regret" not in dataset:
            raise RunError(f"{path} holds no cell that has finished; try `rmft sweep --resume`")
        return _Source(dataset, None, path / "figures")
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is not a run directory, nor one of a sweep; try one that rmft made")
    run = RunDirectory.open(path)
    return _Source(run.read_dataset("evaluation.nc"), run.read_dataset("metrics.nc"), run.figures)
