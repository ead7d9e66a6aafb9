"""Regret at the horizon against what a sweep varies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either, require
from rmft_jax.config.names import TRAINED
from rmft_jax.plotting import style as house
from rmft_jax.plotting.panels import closed, named_agents, not_drawn, remarks_on
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import Style, StyleName
from rmft_jax.statistics import estimates
from rmft_jax.statistics.estimates import is_numeric, open_dims, rows_of, sweep_dims, text_of
from rmft_jax.statistics.horizons import horizon_growth
from rmft_jax.statistics.labels import field_label
from rmft_jax.statistics.report import estimate_text, regret_of
from rmft_jax.statistics.tables import NO_RIVALS

_MARKERS = "osD^vP*X"
_SHARED = "#555555"
# Uniform play is left out of the limits where it is so many times above the others.
_FAR_ABOVE = 1.5


@register_figure("sweep", needs="final_regret", axes=1)
def plot_sweep(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Regret at the horizon against one dimension of a sweep, with 95% intervals.

    One line per agent or, where a second dimension has several values, one colour per value of it: solid for the
    trained policy, otherwise for the `baselines`. The grey line over horizons grows as `sqrt(T)`.

    Args:
      dataset: a sweep.
      by: the dimension along the axis; if None the first of several numbers, else the first.
      select: values of other dimensions, one for each that is not a training seed but one.
      baselines: classical agents to draw; if None, the reference where there is a second dimension, and otherwise a
        choice of them.
      style: `paper` or `slides`.
      ax: axes of your own to draw in, under your own style and without a legend; their figure is returned.

    Raises:
      ConfigError: for names or values that the sweep does not have, and more than two open dimensions.
    """
    dataset = estimates.select(dataset, select or {})
    by = by or default_axis(dataset)
    left = [dim for dim in open_dims(dataset) if dim != by]
    second = left[0] if left else None
    dataset = closed(dataset, second, {}, [by])
    if second is not None and baselines is None:
        reference = dataset.attrs.get("reference")
        baselines = [str(reference)] if reference in dataset.get("agent", []) else []
    every = estimates.estimates(dataset, "final_regret")
    found = {name: every[name].transpose(by, ...) for name in named_agents(dataset, baselines)}
    left_out = () if baselines is not None else not_drawn(dataset, list(found))
    second_values = None if second is None else dataset[second]
    if ax is not None:
        _draw_sweep(ax, dataset, by, second_values, found)
        return house.figure_of(ax)
    num_labels = 1 + len(found) + (0 if second is None else dataset.sizes[second])
    height = house.height_for(num_labels, columns=2) + _room_for_labels(dataset, by)
    with house.column_figure(height, style) as (figure, axes):
        _draw_sweep(axes, dataset, by, second_values, found)
        house.legend_above(figure, [axes], columns=2)
        rows = [row for name, one in found.items() for row in rows_of(one, [by, *left[:1]], agent=name)]
        told = estimates.intervals_of(found.items())
        figure.tell(rows, f"95% intervals: {told}.{remarks_on(dataset)}", left_out)
        return figure


def _draw_sweep(
    axes: Axes, dataset: xr.Dataset, by: str, second: xr.DataArray | None, found: Mapping[str, xr.Dataset]
) -> None:
    """A line per agent, or a family of them over the values of a second dimension."""
    x = _axis(axes, dataset, by)
    if second is None:
        for (name, line), shift in zip(house.styles_of(list(found)).items(), _places(len(found)), strict=True):
            _draw(axes, line, x, found[name], is_numeric(dataset, by), shift)
    else:
        _draw_families(axes, found, second, x, is_numeric(dataset, by))
    _limits(axes, by, x, found)
    axes.set_ylabel(f"{regret_of(dataset)} at T\n(reward units)")


@register_figure("growth", needs="horizon", axes=1, along="horizon")
def plot_growth(
    dataset: xr.Dataset,
    *,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Regret at the horizon against the horizon, each trained by itself, with the fitted `c T^β` and `a + b log T`.

    The legend states β with its 95% interval over training seeds (`statistics.horizons`). The fits are of the trained
    policy, and of the others if there are few; the dotted line is the logarithm.

    Args:
      dataset: a sweep over horizons.
      select: values of other dimensions, one for each that is not a training seed.
      baselines: classical agents to draw; the three of lowest regret if None.
      style: `paper` or `slides`.
      ax: axes of your own to draw in, under your own style and without a legend; their figure is returned.

    Raises:
      ConfigError: for names or values that the sweep does not have, fewer than two horizons, and other open dimensions.
    """
    dataset = closed(estimates.select(dataset, select or {}), None, {}, ["horizon"])
    got = f"a sweep of {dataset.sizes['horizon']} horizon"
    require(dataset.sizes["horizon"] > 1, got, "several for their growth", either("--kind sweep", "plot_sweep"))
    names = named_agents(dataset, baselines)
    names = names if baselines is not None else [name for name in names if name not in NO_RIVALS][:4]
    left_out = () if baselines is not None else not_drawn(dataset, [*names, *NO_RIVALS])
    every = estimates.estimates(dataset, "final_regret")
    if ax is not None:
        _draw_growth(ax, dataset, {name: every[name] for name in names})
        return house.figure_of(ax)
    with house.column_figure(house.height_for(len(names) + 2, columns=1), style) as (figure, axes):
        rows = _draw_growth(axes, dataset, {name: every[name] for name in names})
        house.legend_above(figure, [axes], columns=1)
        told = estimates.intervals_of((name, every[name]) for name in names)
        fewer = [str(row["agent"]) for row in rows if row.get("fitted_seeds", row["num_seeds"]) < row["num_seeds"]]
        told += f"; of β over the fits of seeds{_without_some(fewer)}."
        figure.tell(rows, f"95% intervals: {told}{remarks_on(dataset)}", left_out)
        return figure


def _without_some(agents: Sequence[str]) -> str:
    """Says of whom some seeds are not fitted."""
    names = ", ".join(dict.fromkeys(agents))
    return f"; only seeds with a positive number at every horizon are fitted, of {names} not all" * bool(names)


def _draw_growth(axes: Axes, dataset: xr.Dataset, found: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Points with bars and the fitted laws of every agent; the numbers as rows."""
    x, rows = np.asarray(dataset["horizon"].values, float), []
    line = np.geomspace(x.min(), x.max(), 60)
    for name, one in found.items():
        style, values = house.style_of(name), dataset["final_regret"]
        if name != TRAINED:
            values = dataset["baseline_final_regret"].sel(agent=name, drop=True)
        mean, low, high = (one[side].transpose("horizon").to_numpy() for side in ("mean", "low", "high"))
        bars = np.clip(np.nan_to_num(np.stack([mean - low, high - mean])), 0, None)
        axes.errorbar(x, mean, bars, color=style.color, fmt="o", markersize=3, linewidth=1)
        try:
            growth = horizon_growth(values)
        except ConfigError:  # Without a seed that finished at every horizon.
            axes.plot([], [], color=style.color, linestyle=style.line, label=style.label)
            rows += rows_of(one, ["horizon"], agent=name)
            continue
        beta = estimate_text(growth.exponent.value, growth.exponent[1:])
        axes.plot(line, growth.power(line), color=style.color, linestyle=style.line, label=f"{style.label}, β = {beta}")
        axes.plot(line, growth.logarithm(line), color=style.color, linestyle=":", linewidth=0.8)
        fit = {"fitted_seeds": growth.num_seeds, "exponent": growth.exponent.value, "exponent_low": growth.exponent.low}
        fit |= {"exponent_high": growth.exponent.high, "log_slope": growth.slope.value}
        fit |= {"power_misfit": growth.power_misfit, "log_misfit": growth.log_misfit}
        rows += [row | fit for row in rows_of(one, ["horizon"], agent=name)]
    trained = "" if "trained_horizon" in dataset.attrs else "trained "  # One policy at all horizons, or one at each.
    label = f"{regret_of(dataset)} at T\n(reward units)"
    axes.set(xscale="log", xlabel=f"{trained}horizon T", ylabel=label)
    axes.xaxis.minorticks_off()
    axes.set_xticks(np.sort(x), [f"{value:g}" for value in np.sort(x)])
    means = _means(list(found.values()))
    if not len(means):
        house.nothing_to_show(axes)
    elif (means > 0).all():
        axes.set_yscale("log")
        house.plain_log_ticks(axes.yaxis, float(means.min()), float(means.max()))
    return rows


def default_axis(dataset: xr.Dataset) -> str:
    """The dimension that a sweep is drawn along: the first of several numbers, else the first.

    Raises:
      ConfigError: if the sweep has none.
    """
    candidates = open_dims(dataset) or sweep_dims(dataset)
    require(
        bool(candidates), "a sweep of one cell", "a dimension to draw along", either("--kind regret", "plot_regret")
    )
    return next((dim for dim in candidates if is_numeric(dataset, dim)), candidates[0])


def _axis(axes: Axes, dataset: xr.Dataset, by: str) -> Float[np.ndarray, "X"]:
    """Sets up the horizontal axis; returns where the values are on it."""
    values = dataset[by].values
    labels = [text_of(value) for value in values]
    axes.set_xlabel(field_label(by))
    if not is_numeric(dataset, by):
        x = np.arange(len(values), dtype=float)
        slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if _room_for_labels(dataset, by) else {}
        axes.set_xticks(x, labels, **slanted)
        axes.set_xlim(-0.5, len(values) - 0.5)
        return x
    x = np.asarray(values, float)
    if x.min() > 0 and x.max() / x.min() >= 4:
        axes.set_xscale("log")
        axes.xaxis.minorticks_off()
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), 7)).astype(int))
    order = np.argsort(x)[shown]
    axes.set_xticks(x[order], [labels[i] for i in order])
    return x


def _room_for_labels(dataset: xr.Dataset, by: str) -> float:
    """Inches that slanted labels take, 0 where they need not be slanted."""
    longest = max(len(text_of(value)) for value in dataset[by].values)
    return 0.0 if is_numeric(dataset, by) or longest * dataset.sizes[by] <= 36 else 0.035 * longest


def _draw(
    axes: Axes, line: Style, x: np.ndarray, found: xr.Dataset, joined: bool, shift: float = 0.0, marker: str = ""
) -> None:
    """One agent: a line with a band where the values are numbers, else points with bars, beside those of others.

    Where agents differ in their markers, they share colours, and lines have bars in place of bands that would mix.
    """
    order = np.argsort(x)
    mean, low, high = (found[name].to_numpy()[order] for name in ("mean", "low", "high"))
    bars = np.clip(np.nan_to_num(np.stack([mean - low, high - mean])), 0, None)
    if joined:
        axes.plot(x[order], mean, color=line.color, linestyle=line.line, marker="o", markersize=2.5, label=line.label)
        if marker:
            axes.errorbar(x[order], mean, bars, color=line.color, fmt="none", linewidth=0.7, alpha=0.7)
        else:
            axes.fill_between(x[order], low, high, color=line.color, alpha=0.2, linewidth=0)
        return
    axes.errorbar(
        x + shift, mean, bars, color=line.color, fmt=marker or "o", markersize=3.5, linewidth=1.2, label=line.label
    )  # fmt: skip


def _places(number: int) -> np.ndarray:
    """Shifts that set points of one value beside each other."""
    return np.linspace(-0.25, 0.25, number) if number > 1 else np.zeros(1)


def _draw_families(
    axes: Axes, found: Mapping[str, xr.Dataset], values: xr.DataArray, x: np.ndarray, joined: bool
) -> None:
    """Colours for the values of the second dimension, line styles or markers for the agents; grey is all values.

    The legend shows an agent that has a line of every colour in black.
    """
    colors = house.value_styles([f"{values.name} = {text_of(value)}" for value in values.values])
    lines = house.styles_of(list(found))
    second, shared = str(values.name), set()
    for (name, one), marker in zip(found.items(), _MARKERS, strict=False):
        # Such as classical agents, where only the training of a policy varies.
        if name != TRAINED and np.allclose(one["mean"], one["mean"].isel({second: [0]}), equal_nan=True):
            _draw(axes, Style("_", _SHARED, lines[name].line), x, one.isel({second: 0}), joined, 0.0, marker)
            shared.add(name)
            continue
        for i, (shade, shift) in enumerate(zip(colors.values(), _places(len(colors)), strict=True)):
            line = Style(shade.label if name == TRAINED else "_", shade.color, lines[name].line)
            _draw(axes, line, x, one.isel({second: i}), joined, shift, marker)
    for (name, line), marker in zip(lines.items(), _MARKERS, strict=False):
        mark = {"linestyle": line.line} if joined else {"linestyle": "", "marker": marker, "markersize": 3.5}
        axes.plot([], [], color=_SHARED if name in shared else "black", label=line.label, **mark)


def _limits(axes: Axes, by: str, x: np.ndarray, found: Mapping[str, xr.Dataset]) -> None:
    """The guide, and a logarithmic axis of regrets where that of horizons is one."""
    shown = [one for name, one in found.items() if name != "uniform"] or list(found.values())
    means = _means(shown)
    if "uniform" in found and len(means) and _means([found["uniform"]]).max(initial=0) <= _FAR_ABOVE * means.max():
        shown = list(found.values())
    if not len(means):
        house.nothing_to_show(axes)
        return
    if by == "horizon":
        guide_x = np.geomspace(x.min(), x.max(), 50)
        ends = np.atleast_1d(next(iter(found.values()))["mean"].to_numpy().reshape(len(x), -1)[np.argmax(x)])
        if np.isfinite(ends).any() and np.nanmax(ends) > 0:
            guide = 1.3 * np.nanmax(ends) * np.sqrt(guide_x / x.max())
            axes.plot(guide_x, guide, color="#999999", linewidth=0.7, zorder=1, label="∝ √T")
        if axes.get_xscale() == "log" and means.min() > 0:
            axes.set_yscale("log")
            house.plain_log_ticks(axes.yaxis, float(means.min()), float(means.max()))
            return
    house.fit_vertically(axes, [one[side] for one in shown for side in ("mean", "low", "high")])


def _means(found: Sequence[xr.Dataset]) -> Float[np.ndarray, "N"]:
    means = np.concatenate([one["mean"].to_numpy().ravel() for one in found] or [np.zeros(0)])
    return means[np.isfinite(means)]
