"""Figures with a curve per agent over rounds: of an evaluation, or of a sweep. Imports no JAX."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int
from matplotlib.axes import Axes

from rmft_jax.bootstrap import Interval
from rmft_jax.estimates import TRAINED, is_sweep
from rmft_jax.plotting.panels import (
    EXPONENT_COLUMNS,
    Curve,
    Panel,
    View,
    caption_of,
    choose_agents,
    closed,
    exponents_of,
    parts,
    rows_of,
    view,
)
from rmft_jax.plotting.style import (
    STYLES,
    DataFigure,
    Style,
    StyleName,
    grid_axes,
    height_for,
    label_axes,
    legend_above,
    no_finished_run,
    plain_log_ticks,
    sheet,
    styles_of,
    title_of,
)
from rmft_jax.report import regret_name, summarize

_GUIDE = "slope of √t: β = 0.50"


def plot_regret(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
) -> DataFigure:
    """Mean cumulative regret over rounds of at most 8 agents, with 95% bands.

    The axis is cut above the highest curve but uniform play, which only shows how hard the problem is.

    Args:
      dataset: an evaluation, whose bands are bootstraps over scenarios, or a sweep (`rmft_jax.estimates`).
      by: a dimension of the sweep: one panel per value of it or, where `baselines` is empty, one curve.
      select: values of its other dimensions, one for each that is not a training seed.
      baselines: classical agents to draw, by name; a choice of them if None.
      style: `paper` or `slides`.

    Raises:
      ConfigError: for names or values that the dataset does not have, and dimensions left open.
    """
    drawn = view(dataset, "regret", by, select, baselines)
    with _figure(drawn, style, height_for(list(drawn.styles), columns=2)) as (figure, axes):
        for one, panel in zip(axes, drawn.panels, strict=True):
            _draw_panel(one, panel, drawn.styles)
            _cut(one, panel)
        label_axes(figure, axes, "round", f"cumulative {regret_name(drawn.kind)}\n(reward units)")
        legend_above(figure, axes, columns=2)
        return figure


def plot_regret_curves(curves: Mapping[str, Curve], rounds: Int[np.ndarray, "T"], regret: str = "pseudo") -> DataFigure:
    """Curves of agents by name, at most 8 of them (`choose_agents`), drawn as `plot_regret` does."""
    names = choose_agents({name: float(curve.mean[-1]) for name, curve in curves.items()}, None)
    panel = Panel("", rounds, {name: curves[name] for name in names}, {})
    drawn = View([panel], styles_of(names), regret, None)
    with _figure(drawn, "paper", height_for(names, columns=2)) as (figure, axes):
        _draw_panel(axes[0], panel, drawn.styles)
        _cut(axes[0], panel)
        label_axes(figure, axes, "round", f"cumulative {regret_name(regret)}\n(reward units)")
        legend_above(figure, axes, columns=2)
        return figure


def plot_loglog(
    dataset: xr.Dataset,
    summary: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
) -> DataFigure:
    """Mean cumulative regret on logarithmic axes, where `t^β` is a straight line of slope β.

    The legend states the exponent of each curve with its 95% interval; with several panels, their titles state that of
    the trained policy. Rounds of non-positive mean regret are missing from a curve. The grey line has the slope of
    `sqrt(t)`.

    Args:
      dataset: an evaluation or a sweep.
      summary: `summarize` of the evaluation, if there is one already.
      by: as for `plot_regret`.
      select: as for `plot_regret`.
      baselines: as for `plot_regret`.
      style: `paper` or `slides`.

    Raises:
      ConfigError: as `plot_regret` does.
    """
    drawn = view(dataset, "regret", by, select, baselines)
    exponents = _exponents(dataset, drawn, by, select, summary)
    single = len(drawn.panels) == 1
    with _figure(drawn, style, height_for(list(drawn.styles), columns=1 if single else 2)) as (figure, axes):
        for one, panel in zip(axes, drawn.panels, strict=True):
            labels = {n: _with_exponent(s.label, exponents.get(n, {})) if single else s.label
                      for n, s in drawn.styles.items()}  # fmt: skip
            _draw_loglog(one, panel, {name: s._replace(label=labels[name]) for name, s in drawn.styles.items()})
            if panel.title:
                one.set_title(_with_exponent(title_of(panel.title), exponents.get(f"{panel.title}{TRAINED}", {}), "\n"))
        label_axes(figure, axes, "round", f"cumulative {regret_name(drawn.kind)}\n(reward units)")
        legend_above(figure, axes, columns=1 if single else 2)
        figure.rows = rows_of(drawn, exponents)
        return figure


def plot_suff_fail(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
) -> DataFigure:
    """SuffFailFreq(t), the share of scenarios with no best arm from round t on, with 95% bands.

    Those of an evaluation are Wilson's over scenarios, those of a sweep as in `rmft_jax.estimates`.

    Args:
      dataset: an evaluation or a sweep.
      by: as for `plot_regret`.
      select: as for `plot_regret`.
      baselines: as for `plot_regret`.
      style: `paper` or `slides`.

    Raises:
      ConfigError: as `plot_regret` does, and for play in a ball, where no arm is the best.
    """
    drawn = view(dataset, "suff_fail_freq", by, select, baselines)
    with _figure(drawn, style, height_for(list(drawn.styles), columns=2)) as (figure, axes):
        for one, panel in zip(axes, drawn.panels, strict=True):
            _draw_panel(one, panel, drawn.styles)
            one.set_ylim(-0.02, 1.02)
        label_axes(figure, axes, "round t", "SuffFailFreq(t)\n(share of scenarios)")
        legend_above(figure, axes, columns=2)
        return figure


@contextmanager
def _figure(drawn: View, style: StyleName, height: float) -> Iterator[tuple[DataFigure, list[Axes]]]:
    """A figure with the panels of a view, and with what it shows as rows."""
    with sheet(style, height) as figure:
        axes = grid_axes(figure, len(drawn.panels))
        figure.rows, figure.caption = rows_of(drawn), caption_of(drawn)
        yield figure, axes


def _draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, Style]) -> None:
    """The curves of a panel; where there are none, because all runs failed, it says so."""
    for name, style in styles.items():
        if name in panel.curves:
            draw(axes, style, panel.rounds, panel.curves[name])
    if not any(np.isfinite(curve.mean).any() for curve in panel.curves.values()):
        no_finished_run(axes)
    elif axes.get_xscale() == "log":
        axes.set_xlim(1, max(2, panel.rounds[-1]))
    else:
        axes.set_xlim(0, panel.rounds[-1])
    if panel.title:
        axes.set_title(title_of(panel.title))


def _cut(axes: Axes, panel: Panel) -> None:
    """Limits that show every curve but uniform play with its band."""
    shown = [curve for name, curve in panel.curves.items() if name != "uniform"] or list(panel.curves.values())
    lows, highs = ([np.where(np.isnan(c.band[i]), c.mean, c.band[i]) for c in shown] for i in (0, 1))
    low, high = min([0.0, *map(_lowest, lows)]), max([0.0, *(-_lowest(-bound) for bound in highs)])
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin if low < 0 else 0, high + margin)


def _lowest(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else 0.0


def _draw_loglog(axes: Axes, panel: Panel, styles: Mapping[str, Style]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    means = {name: curve.mean[curve.mean > 0] for name, curve in panel.curves.items()}
    bottom = min([1.0, *(float(values.min()) for values in means.values() if len(values))]) / 1.5
    top = max([1.0, *(float(values.max()) for values in means.values() if len(values))]) * 1.5
    # What is not positive has no place on this axis: gaps in the mean, bands down to the bottom.
    curves = {
        name: Curve(np.where(mean > 0, mean, np.nan), Interval(*(np.maximum(bound, bottom) for bound in band)))
        for name, (mean, band) in panel.curves.items()
    }
    _draw_panel(axes, panel._replace(curves=curves), styles)
    if not any(len(values) for values in means.values()):
        return
    axes.set_ylim(bottom, top)
    plain_log_ticks(axes.xaxis, 1.0, float(panel.rounds[-1]))
    plain_log_ticks(axes.yaxis, bottom, top)
    ends = [curve.mean[np.isfinite(curve.mean)][-1:] for name, curve in panel.curves.items() if name != "uniform"]
    end = max([bottom, *(float(value[0]) for value in ends if len(value))])
    guide = 1.4 * end * np.sqrt(panel.rounds / panel.rounds[-1])
    axes.plot(panel.rounds, guide, color="#999999", linewidth=0.7, zorder=1, label=_GUIDE)


def _exponents(
    dataset: xr.Dataset,
    drawn: View,
    by: str | None,
    choice: Mapping[str, Any] | None,
    summary: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, dict[str, float]]:
    """Exponents with their intervals by curve, or by title of the panel and curve."""
    names = list(drawn.styles)
    if not is_sweep(dataset):
        rows = summary or summarize(dataset.sel(agent=names))
        return {
            name: dict(
                zip(EXPONENT_COLUMNS, (rows[name]["exponent"], *rows[name]["exponent_ci95"]), strict=True)
            ) for name in names
        }  # fmt: skip
    found = {}
    for title, part in parts(closed(dataset, by, choice), by).items():
        by_curve = by is not None and len(drawn.panels) == 1 and title in drawn.styles
        for name, row in exponents_of(part, [TRAINED] if by_curve else names).items():
            found[title if by_curve else f"{title}{name}"] = row
    return found


def draw(axes: Axes, style: Style, rounds: np.ndarray, curve: Curve, label: str | None = None) -> None:
    """A curve with its band."""
    above = 3 if style.label == STYLES["rmft"].label else 2
    axes.plot(rounds, curve.mean, color=style.color, linestyle=style.line, label=label or style.label, zorder=above)
    axes.fill_between(rounds, curve.band.low, curve.band.high, color=style.color, alpha=0.2, linewidth=0)


def _with_exponent(label: str, row: Mapping[str, float], between: str = ", ") -> str:
    """A legend entry; without what too few rounds of positive regret leave undefined."""
    exponent, low, high = (row.get(column, np.nan) for column in EXPONENT_COLUMNS)
    if np.isnan(exponent):
        return label
    interval = "" if np.isnan([low, high]).any() else f" [{low:.2f}, {high:.2f}]"
    return f"{label}{between}β = {exponent:.2f}{interval}"
