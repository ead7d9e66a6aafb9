"""Regret at the horizon over two dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rmft_jax.config.checks import either, require
from rmft_jax.plotting.panels import closed, named_agents, only_panel, parts, remarks_on
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import (
    SHEETS,
    DataFigure,
    StyleName,
    figure_of,
    plain_log_ticks,
    sheet,
    style_of,
    title_of,
)
from rmft_jax.statistics import estimates
from rmft_jax.statistics.estimates import open_dims, rows_of, selection_of, sweep_dims, text_of
from rmft_jax.statistics.labels import field_label
from rmft_jax.statistics.report import regret_of

_HATCHES = {"failed": "xxxx", "missing": "////"}
_MAX_PANELS = 12
# Colours of ratios reach at least so far from 1: a tenth more or less is not dark.
_FAR = 1.5
_MARKS = (1.0, 0.5, 2.0, 0.75, 1.25, 0.9, 1.1, 1.5, 0.25, 4.0)


class _Map(NamedTuple):
    """A panel: whose numbers, `estimates.estimate` of them, what became of each cell, which may as well be 1.

    trained: the place of the setting that the policy was trained in, where it is among several.
    """

    title: str
    head: dict[str, str]
    found: xr.Dataset
    status: np.ndarray
    undecided: np.ndarray
    trained: tuple[int, int] | None

    @property
    def is_ratio(self) -> bool:
        """Whether numbers are regrets divided by those of another agent."""
        return "relative_to" in self.head


@register_figure("heatmap", needs="final_regret", axes=2)
def plot_heatmap(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    relative_to: str | Sequence[str] | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] = (),
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Mean regret at the horizon over two dimensions, as colours with numbers; hatched where no run has finished.

    Numbers have as many decimals as their 95% intervals bear, in all cells of a map the same; ratios two or more.

    Args:
      dataset: a sweep, or a trained policy played on a grid of settings.
      by: a third dimension: one panel per value of it.
      relative_to: show regret divided by that of this classical agent, seed by seed: a diverging map around 1, in which
        what is blue is better. Several names make a panel each.
      select: values of further dimensions, one for each that is not a training seed.
      baselines: classical agents that get panels of their own beside the trained policy.
      style: `paper` or `slides`.
      ax: axes of your own to draw a single panel in, under your own style and without legend or colour bar, which
        `ax.images[0]` has the colours for; their figure is returned.

    Raises:
      ConfigError: for names or values that the sweep does not have, other than two open dimensions, and `ax` for
        several panels.
    """
    dataset = estimates.select(dataset, select or {})
    dims = _two_dims(dataset, by)
    dataset = closed(dataset, by, {}, dims)
    references: list[str | None] = [relative_to] if isinstance(relative_to, str) else [*(relative_to or [None])]
    names = named_agents(dataset, baselines)
    named_agents(dataset, [name for name in references if name is not None])  # Refuses unknown names.
    maps = [
        one for title, part in parts(dataset, by).items() for reference in references
        for one in _maps(part, names, reference, title, len(references) > 1, dims)
    ]  # fmt: skip
    got = f"{len(maps)} panels"
    require(
        len(maps) <= _MAX_PANELS,
        got,
        f"at most {_MAX_PANELS}",
        either("--select fewer values, or fewer agents", "fewer values or agents"),
    )
    colors = _colors(maps, bool(relative_to))
    if ax is not None:
        _, one = only_panel({panel.title: panel for panel in maps}, "a value of by= in select=, or one relative_to=")
        _draw_map(ax, one, colors, dims)
        ax.set(xlabel=field_label(dims[1]), ylabel=field_label(dims[0]))
        return figure_of(ax)
    ratio, other = bool(relative_to), style_of(str(references[0])).label
    unit = f"\nrelative to {other if len(references) == 1 else 'a classical agent'}" if ratio else " (reward units)"
    figure = _draw_maps(maps, dims, colors, f"{regret_of(dataset)} at T{unit}", style)
    figure.rows = [
        one.head | row | {"status": status}
        for one in maps
        for row, status in zip(rows_of(one.found, dims), one.status.flat, strict=True)
    ]
    cells = [status for one in maps for status in one.status.flat if status != "absent"]
    gone = ", ".join(f"{cells.count(text)} {text}" for text in _HATCHES if text in cells)
    dotted = " Dotted: the 95% interval contains 1." * any(one.undecided.any() for one in maps)
    without = f"{cells.count('no ratio')} without a ratio, the agent having none above 0" * ("no ratio" in cells)
    told = f"{len(cells)} cells, {', '.join(filter(None, [gone, without])) or 'all with a mean'}; lower is better"
    outlined = " Outlined: as trained." * any(one.trained is not None for one in maps)
    figure.caption = f"Means over training seeds; {told}.{dotted}{outlined}{remarks_on(dataset)}"
    return figure


def _two_dims(dataset: xr.Dataset, by: str | None) -> tuple[str, str]:
    """The vertical and the horizontal dimension: horizons go to the right."""
    dims = [dim for dim in open_dims(dataset) if dim != by]
    if len(dims) < 2:  # Too few values to need a map still make one.
        dims += [dim for dim in sweep_dims(dataset) if dim not in (*dims, by)][: 2 - len(dims)]
    got, tried = f"open dimensions {', '.join(dims) or 'none'}", either("--kind sweep", "plot_sweep")
    if len(dims) > 2:
        value = dataset[dims[-1]].values[-1].item()
        words = f"--select {selection_of(dims[-1], value)} or --by {dims[-1]}"
        tried = either(words, f"select={ {dims[-1]: value} } or by={dims[-1]!r}")
    require(len(dims) == 2, got, "two", tried)
    return (dims[0], dims[1]) if dims[1] == "horizon" else (dims[1], dims[0])


def _maps(
    part: xr.Dataset, names: Sequence[str], reference: str | None, title: str, several: bool, dims: tuple[str, str]
) -> list[_Map]:
    status = np.full([part.sizes[dim] for dim in dims], "missing", object)
    if "status" in part:
        told = part["status"].transpose(*dims, ...).to_numpy().reshape(*status.shape, -1)
        status[(told == "absent").all(-1)] = "absent"  # No part of the sweep, so that nothing is hatched.
        status[(told == "finished").any(-1)] = "no ratio"  # Unless there is one.
        status[(told == "failed").any(-1)] = "failed"
    if reference is not None:
        level = part["baseline_final_regret"].sel(agent=reference, drop=True)
        level = level.where(level > 0)  # Where it gains on the best arm, less regret would be a larger ratio.
        ratios = part[["final_regret", "baseline_final_regret"]] / level
        part = ratios.assign_attrs(part.attrs)  # Which division keeps in some versions of xarray only.
    found, maps = estimates.estimates(part, "final_regret"), []
    for name in (name for name in names if name != reference):
        labels = [title_of(title), style_of(name).label if len(names) > 1 else ""]
        labels.append(f"relative to {style_of(str(reference)).label}" if several else "")
        head = ({} if not title else dict([title.split(" = ", 1)])) | {"agent": name}
        head |= {} if reference is None else {"relative_to": reference}
        one = found[name].transpose(*dims)
        became = np.where(one["num_seeds"] > 0, "finished", status)
        # Without an interval, as of one seed, nothing is said.
        contained = ((one["low"] <= 1) & (one["high"] >= 1)).to_numpy()
        undecided = (became == "finished") & contained & (reference is not None)
        maps.append(_Map("\n".join(filter(None, labels)), head, one, became, undecided, _trained(part, dims)))
    return maps


def _trained(part: xr.Dataset, dims: tuple[str, str]) -> tuple[int, int] | None:
    """The cell of the setting that a single policy was trained in."""
    places = [np.flatnonzero(part[dim].values == part.attrs.get(f"trained_{dim}")) for dim in dims]
    return (int(places[0][0]), int(places[1][0])) if all(map(len, places)) else None


def _colors(maps: Sequence[_Map], ratio: bool) -> ScalarMappable:
    """Colours that remain apart for colour-blind readers; logarithmic where regrets differ much."""
    values = np.concatenate([one.found["mean"].to_numpy().ravel() for one in maps])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.5, 2.0)
    if ratio:
        if low > 0:
            far = max(high, 1 / low, _FAR)
            return ScalarMappable(LogNorm(1 / far, far), "RdBu_r")
        return ScalarMappable(TwoSlopeNorm(1.0, min(low, 0.5), max(high, 2.0 - min(low, 0.5))), "RdBu_r")
    norm = LogNorm(low, high) if low > 0 and high / low > 30 else Normalize(low, high if high > low else low + 1)
    return ScalarMappable(norm, "cividis")


def _draw_maps(
    maps: Sequence[_Map], dims: tuple[str, str], colors: ScalarMappable, label: str, style: StyleName
) -> DataFigure:
    num_y, num_x = maps[0].status.shape
    num_columns = 1 if len(maps) == 1 else 2
    num_rows = -(-len(maps) // num_columns)
    cell = 2.3 / num_columns / num_x
    legend = _legend_of(maps)
    # No lower than the label of the colour bar is long.
    height = max(0.75 + num_rows * (0.35 + min(num_y * min(cell, 0.42), 3.0)), 2.7) + 0.16 * -(-len(legend) // 2)
    with sheet(style, height, axes_grid=False, axes_spines_top=True, axes_spines_right=True) as figure:
        places = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flat
        scale = figure.get_figwidth() / SHEETS["paper"].width
        longest = max(len(text) for one in maps for text in _numbers(one).flat)
        size = scale * min(7.0, 72 * cell / (0.62 * longest + 0.4))
        for axes, one in zip(places, maps, strict=False):
            _draw_map(axes, one, colors, dims, size)
        for axes in list(figure.axes)[len(maps) :]:
            axes.set_axis_off()
        figure.supxlabel(field_label(dims[1]))
        figure.supylabel(field_label(dims[0]))
        bar = figure.colorbar(colors, ax=figure.axes, label=label, aspect=20, pad=0.02)
        _finish_bar(
            bar, colors, np.concatenate([one.found["mean"].to_numpy().ravel() for one in maps]), maps[0].is_ratio
        )
        if legend:
            figure.legend(handles=legend, loc="outside upper center", ncols=2)
        return figure


def _finish_bar(bar: Colorbar, colors: ScalarMappable, shown: Float[np.ndarray, "N"], ratio: bool) -> None:
    """Limits and labels of a colour bar; that of ratios has its ends labelled, and 1."""
    # Half of a diverging scale may be unused.
    limits = np.append(shown[np.isfinite(shown)], [1.0] if ratio else [])
    if len(limits) and limits.min() < limits.max():
        bar.ax.set_ylim(float(limits.min()), float(limits.max()))
    if ratio:
        ends = list(map(float, bar.ax.get_ylim()))
        marks, norm = [*ends], cast(Normalize, colors.norm)
        apart = 0.08 * float(norm(ends[1]) - norm(ends[0]))
        for mark in _MARKS:
            if ends[0] < mark < ends[1] and all(abs(float(norm(mark) - norm(other))) > apart for other in marks):
                marks.append(mark)
        bar.set_ticks(sorted(marks), labels=[f"{mark:.2f}".replace("-", "−") for mark in sorted(marks)])
        bar.ax.minorticks_off()
    elif isinstance(colors.norm, LogNorm):
        low, high = colors.get_clim()
        plain_log_ticks(bar.ax.yaxis, float(low or 1), float(high or 1))


def _legend_of(maps: Sequence[_Map]) -> list[Patch]:
    """What hatches, dots and frames of cells mean, as far as there are any."""
    gone = sorted({text for one in maps for text in one.status.ravel()} & {*_HATCHES})
    found = [Patch(facecolor="white", edgecolor="#555555", hatch=_HATCHES[text], label=text) for text in gone]
    if any(one.undecided.any() for one in maps):
        found.append(Patch(facecolor="white", edgecolor="#555555", hatch="....", label="95% interval contains 1"))
    if any(one.trained is not None for one in maps):
        found.append(Patch(facecolor="white", edgecolor="black", linewidth=1.4, label="as trained"))
    return found


def _draw_map(axes: Axes, one: _Map, colors: ScalarMappable, dims: tuple[str, str], size: float | None = None) -> None:
    values: Float[np.ndarray, "Y X"] = one.found["mean"].to_numpy()
    texts, norm = _numbers(one), cast(Normalize, colors.norm)
    axes.imshow(np.ma.masked_invalid(values), colors.cmap, norm, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor="#555555", linewidth=0.5,
                          hatch=_HATCHES.get(str(one.status[row, column])))
            )  # fmt: skip
            continue
        red, green, blue, _ = colors.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        color = "white" if dark else "black"
        if one.undecided[row, column]:
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=color, linewidth=0.0, hatch="....",
                          alpha=0.35)
            )  # fmt: skip
        ground: Any = {"facecolor": colors.to_rgba(value), "edgecolor": "none", "pad": 0.6}  # No dots behind digits.
        axes.text(
            column, row, str(texts[row, column]), ha="center", va="center", fontsize=size, color=color, bbox=ground
        )
    for axis, dim in ((axes.yaxis, dims[0]), (axes.xaxis, dims[1])):
        labels = [text_of(value) for value in one.found[dim].values]
        slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if axis is axes.xaxis else {}
        axis.set_ticks(range(len(labels)), labels, **(slanted if max(map(len, labels)) > 5 else {}))
    axes.tick_params(length=0)
    axes.set_title(one.title, pad=3)
    if one.trained is not None:
        row, column = one.trained
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))


def _numbers(one: _Map) -> np.ndarray:
    """The means of a map as texts, empty where there are none, all with as many decimals as `_decimals` says."""
    means, found = one.found["mean"].to_numpy(), one.found
    digits = max(_decimals(means, (found["high"] - found["low"]).to_numpy() / 2), 2 if one.is_ratio else 0)
    texts = ["" if np.isnan(value) else f"{value:z.{digits}f}".replace("-", "−") for value in means.flat]
    return np.array(texts, object).reshape(means.shape)


def _decimals(means: np.ndarray, errors: np.ndarray) -> int:
    """One number of decimals for means with their errors.

    The error of the cell in the middle is written by the rule of the Particle Data Group: two digits up to 354, else
    one. Where errors are not known, the largest number has three digits. The smallest number has a digit that is not 0
    even so, as far as the largest has no more than four.
    """
    sizes = np.abs(means[np.isfinite(means) & (means != 0)])
    if not len(sizes):
        return 0
    smallest, largest = (int(np.floor(np.log10(size))) for size in (sizes.min(), sizes.max()))
    known = errors[np.isfinite(errors) & (errors > 1e-6 * sizes.max())]
    by_error = -int(np.floor(np.log10(np.median(known) / 3.55))) if len(known) else 2 - max(largest, 0)
    return max(0, min(max(by_error, -smallest), 3 - largest))
