"""Figures with a curve per agent over rounds: of an evaluation, or of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int
from matplotlib.axes import Axes

from rmft_jax.plotting.panels import Curve, Panel, View, caption_of, choose_agents, closed, parts, rows_of, view
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import (
    STYLES,
    DataFigure,
    Style,
    StyleName,
    fit_vertically,
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
from rmft_jax.statistics.bootstrap import Interval
from rmft_jax.statistics.estimates import TRAINED, estimates, is_sweep
from rmft_jax.statistics.report import estimate_text, regret_name, summarize

_GUIDE = "slope of √t: β = 0.50"


@register_figure("regret", needs="regret")
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
      dataset: an evaluation, whose bands are bootstraps over scenarios, or a sweep (`rmft_jax.statistics.estimates`).
      by: a dimension of the sweep: one panel per value of it or, where `baselines` is empty, one curve.
      select: values of its other dimensions, one for each that is not a training seed.
      baselines: classical agents to draw, by name; a choice of them if None.
      style: `paper` or `slides`.

    Raises:
      ConfigError: for names or values that the dataset does not have, and dimensions left open.
    """
    return _draw(view(dataset, "regret", by, select, baselines), style, _cut)


def plot_regret_curves(curves: Mapping[str, Curve], rounds: Int[np.ndarray, "T"], regret: str = "pseudo") -> DataFigure:
    """Curves of agents by name, at most 8 of them (`choose_agents`), drawn as `plot_regret` does."""
    names = choose_agents({name: float(curve.mean[-1]) for name, curve in curves.items()}, None)
    panel = Panel("", rounds, {name: curves[name] for name in names}, {})
    return _draw(View([panel], styles_of(names), regret_name(regret), None), "paper", _cut)


@register_figure("loglog", needs="regret")
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

    Options are those of `plot_regret`, and `summarize` of the evaluation, if there is one already.
    """
    drawn = view(dataset, "regret", by, select, baselines)
    exponents, single = _exponents(dataset, drawn, select, summary), len(drawn.panels) == 1
    labels = {name: _with_exponent(line.label, exponents.get(name, [None])) for name, line in drawn.styles.items()}

    def finish(axes: Axes, panel: Panel) -> None:
        _make_loglog(axes, panel)
        if panel.title:
            axes.set_title(_with_exponent(title_of(panel.title), exponents[panel.title], "\n"))

    styles = {name: line._replace(label=labels[name] if single else line.label) for name, line in drawn.styles.items()}
    positive = drawn._replace(panels=[_positive(panel) for panel in drawn.panels], styles=styles)
    figure = _draw(positive, style, finish, columns=1 if single else 2)
    columns = ("exponent", "exponent_low", "exponent_high")
    figure.rows = rows_of(drawn, {curve: dict(zip(columns, row, strict=True)) for curve, row in exponents.items()})
    return figure


@register_figure("suff_fail", needs=("suff_fail_freq", "last_best_round"))
def plot_suff_fail(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
) -> DataFigure:
    """SuffFailFreq(t), the share of scenarios with no best arm from round t on, with 95% bands.

    Those of an evaluation are Wilson's over scenarios, those of a sweep as in `rmft_jax.statistics.estimates`. Options
    are those of `plot_regret`. Play in a ball is refused, because no arm is the best there.
    """
    drawn, y = view(dataset, "suff_fail_freq", by, select, baselines), "SuffFailFreq(t)\n(share of scenarios)"
    return _draw(drawn, style, lambda axes, panel: axes.set_ylim(-0.02, 1.02), x="round t", y=y)


def _draw(
    drawn: View, style: StyleName, finish: Callable[[Axes, Panel], Any], x: str = "round", y: str = "", columns: int = 2
) -> DataFigure:
    """The panels of a view, each finished by a function, beneath a legend; they show regret if `y` is empty."""
    with sheet(style, height_for(len(drawn.styles), columns)) as figure:
        axes = grid_axes(figure, len(drawn.panels))
        for one, panel in zip(axes, drawn.panels, strict=True):
            _draw_panel(one, panel, drawn.styles)
            finish(one, panel)
        label_axes(figure, axes, x, y or f"cumulative {drawn.regret}\n(reward units)")
        legend_above(figure, axes, columns)
        figure.rows, figure.caption = rows_of(drawn), caption_of(drawn)
        return figure


def _draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, Style]) -> None:
    """The curves of a panel; where there are none, because all runs failed, it says so."""
    for name, style in styles.items():
        if name in panel.curves:
            draw(axes, style, panel.rounds, panel.curves[name])
    if not any(np.isfinite(curve.mean).any() for curve in panel.curves.values()):
        no_finished_run(axes)
    else:
        axes.set_xlim(0, panel.rounds[-1])
    if panel.title:
        axes.set_title(title_of(panel.title))


def _cut(axes: Axes, panel: Panel) -> None:
    """Limits that show every curve but uniform play with its band."""
    shown = [curve for name, curve in panel.curves.items() if name != "uniform"] or list(panel.curves.values())
    fit_vertically(axes, [numbers for curve in shown for numbers in (curve.mean, *curve.band)])


def _reach(panel: Panel) -> tuple[float, float]:
    """Limits of a logarithmic axis for the positive means of a panel."""
    positive = np.concatenate([[1.0], *(curve.mean[curve.mean > 0] for curve in panel.curves.values())])
    return float(positive.min()) / 1.5, float(positive.max()) * 1.5


def _positive(panel: Panel) -> Panel:
    """What has a place on a logarithmic axis: gaps in the means, and bands down to the bottom."""
    bottom, _ = _reach(panel)
    curves = {
        name: Curve(np.where(mean > 0, mean, np.nan), Interval(*(np.maximum(bound, bottom) for bound in band)))
        for name, (mean, band) in panel.curves.items()
    }
    return panel._replace(curves=curves)


def _make_loglog(axes: Axes, panel: Panel) -> None:
    """Logarithmic axes with a guide above the curves of a panel, if there are any."""
    ends = {name: curve.mean[np.isfinite(curve.mean)][-1:] for name, curve in panel.curves.items()}
    if not any(len(end) for end in ends.values()):
        return
    bottom, top = _reach(panel)
    axes.set(xscale="log", yscale="log", xlim=(1, max(2, panel.rounds[-1])), ylim=(bottom, top))
    plain_log_ticks(axes.xaxis, 1.0, float(panel.rounds[-1]))
    plain_log_ticks(axes.yaxis, bottom, top)
    end = max([bottom, *(float(end[0]) for name, end in ends.items() if len(end) and name != "uniform")])
    guide = 1.4 * end * np.sqrt(panel.rounds / panel.rounds[-1])
    axes.plot(panel.rounds, guide, color="#999999", linewidth=0.7, zorder=1, label=_GUIDE)


def _exponents(
    dataset: xr.Dataset, drawn: View, choice: Mapping[str, Any] | None, summary: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, list[float]]:
    """Exponents with their intervals by curve, or by title of the panel and curve; by title, of the trained policy."""
    if not is_sweep(dataset):
        rows = summary or summarize(dataset.sel(agent=list(drawn.styles)))
        return {name: [rows[name]["exponent"], *rows[name]["exponent_ci95"]] for name in drawn.styles}
    found = {}
    for title, part in parts(closed(dataset, drawn.by, choice), drawn.by).items():
        cell = {n: [float(one[s]) for s in ("mean", "low", "high")] for n, one in estimates(part, "exponent").items()}
        found |= {f"{title}{name}": row for name, row in cell.items()} | {title: cell[TRAINED]}
    return found


def draw(axes: Axes, style: Style, rounds: np.ndarray, curve: Curve, label: str | None = None) -> None:
    """A curve with its band."""
    above = 3 if style.label == STYLES["rmft"].label else 2
    axes.plot(rounds, curve.mean, color=style.color, linestyle=style.line, label=label or style.label, zorder=above)
    axes.fill_between(rounds, curve.band.low, curve.band.high, color=style.color, alpha=0.2, linewidth=0)


def _with_exponent(label: str, exponent: Sequence[float | None], between: str = ", ") -> str:
    """A legend entry; without what too few rounds of positive regret leave undefined."""
    text = estimate_text(exponent[0], exponent[1:])
    return label if text == "-" else f"{label}{between}β = {text}"
