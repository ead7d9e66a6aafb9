"""Figures with a curve per agent over rounds: of an evaluation, or of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft_jax.config.checks import require
from rmft_jax.config.names import TRAINED
from rmft_jax.plotting import style as house
from rmft_jax.plotting.panels import (
    View,
    choose_agents,
    closed,
    named_agents,
    only_panel,
    parts,
    rows_of,
    scenario_curves,
    view,
)
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import DataFigure, Style, StyleName
from rmft_jax.statistics.estimates import estimates, intervals_of, is_sweep
from rmft_jax.statistics.report import estimate_text, regret_name, regret_of, summarize
from rmft_jax.statistics.tables import NO_RIVALS

_Curves = Mapping[str, xr.Dataset]
# Of a panel: its axes, its title and its curves.
_Finish = Callable[[Axes, str, _Curves], Any]


@register_figure("regret", needs="regret")
def plot_regret(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Mean cumulative regret over rounds of at most 8 agents, with 95% bands.

    The axis is cut above the highest curve but uniform play, which only shows how hard the problem is.

    Args:
      dataset: an evaluation, whose bands are bootstraps over scenarios, or a sweep (`rmft_jax.statistics.estimates`).
      by: a dimension of the sweep: one panel per value of it or, where `baselines` is empty, one curve.
      select: values of its other dimensions, one for each that is not a training seed.
      baselines: classical agents to draw, by name; a choice of them if None.
      style: `paper` or `slides`.
      ax: axes of your own to draw a single panel in, under your own style and without a legend; their figure is
        returned.

    Raises:
      ConfigError: for names or values that the dataset does not have, and dimensions left open.
    """
    return _draw(view(dataset, "regret", by, select, baselines), style, _cut, ax=ax)


@register_figure("average_regret", needs="regret")
def plot_average_regret(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Regret per round, `Reg(t) / t`, of at most 8 agents with 95% bands: what no regret brings to 0.

    Options are those of `plot_regret`.
    """
    drawn = view(dataset, "regret", by, select, baselines)
    panels = {
        title: {name: _averaged(curve) for name, curve in curves.items()} for title, curves in drawn.panels.items()
    }
    y = f"{drawn.regret} per round,\nReg(t) / t (reward units)"
    return _draw(drawn._replace(panels=panels), style, _cut, x="round t", y=y, ax=ax)


@register_figure("difference", needs="scenario")
def plot_difference(
    evaluation: xr.Dataset,
    *,
    relative_to: str | Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Regret of the trained policy minus that of its strongest rivals, round by round on the same scenarios.

    Bands are 95% bootstraps of the paired difference. Below 0 the policy is ahead, as far as its band says. Without a
    trained policy, the agent of lowest regret takes its place.

    Args:
      evaluation: with all its scenarios.
      relative_to: the rivals; if None the three of lowest regret at the horizon, without who has twice the lowest.
      style: `paper` or `slides`.
      ax: as in `plot_regret`.

    Raises:
      ConfigError: for agents that the evaluation does not have.
    """
    ranked = [name for name in named_agents(evaluation, limit=len(evaluation["agent"])) if name not in NO_RIVALS]
    base = TRAINED if TRAINED in evaluation["agent"] else ranked[0] if ranked else str(evaluation["agent"].values[0])
    chosen = [relative_to] if isinstance(relative_to, str) else relative_to
    rivals = _strongest(evaluation, ranked, base) if chosen is None else list(chosen)
    known = [str(name) for name in evaluation["agent"].values if name != base]
    for name in rivals:
        require(
            name in known, f"agent {name!r} to compare with", f"one of {', '.join(known) or 'none'}", "another name"
        )
    own = evaluation["regret"].sel(agent=base)
    curves = {name: scenario_curves(own - evaluation["regret"].sel(agent=name)) for name in rivals}
    styles = {name: line._replace(label=f"minus {line.label}") for name, line in house.styles_of(rivals).items()}

    def finish(axes: Axes, title: str, found: _Curves) -> None:
        if found:
            _cut(axes, title, found)
            axes.axhline(0, color="#999999", linewidth=0.7, zorder=1)

    y = f"{house.style_of(base).label} minus agent:\n{regret_of(evaluation)} (reward units)"
    left_out = () if chosen is not None else tuple(name for name in ranked if name not in (base, *rivals))
    drawn = View({"": curves}, styles, regret_of(evaluation), None, left_out=left_out)
    return _draw(drawn, style, finish, x="round t", y=y, ax=ax)


def _strongest(evaluation: xr.Dataset, ranked: Sequence[str], base: str) -> list[str]:
    """The three rivals of lowest regret at the horizon, as far as they are near the first, which sets the scale."""
    rivals = [name for name in ranked if name != base][:3]
    final = {name: float(evaluation["regret"].sel(agent=name).isel(round=-1).mean()) for name in rivals}
    return [name for name in rivals if final[name] <= 2 * max(min(final.values()), 0.0)] or rivals


def _averaged(curve: xr.Dataset) -> xr.Dataset:
    return curve.assign({side: curve[side] / curve["round"] for side in ("mean", "low", "high")})


def plot_regret_curves(curves: Mapping[str, xr.Dataset], regret: str = "pseudo") -> Figure:
    """Curves of agents by name, at most 8 of them (`choose_agents`), drawn as `plot_regret` does.

    Each has `mean`, `low`, `high` and `interval` over `round`, as those of `statistics.estimates`.
    """
    names = choose_agents({name: float(curve["mean"][-1]) for name, curve in curves.items()}, None)
    panels = {"": {name: curves[name] for name in names}}
    return _draw(View(panels, house.styles_of(names), regret_name(regret), None), "paper", _cut)


@register_figure("loglog", needs="regret")
def plot_loglog(
    dataset: xr.Dataset,
    summary: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Mean cumulative regret on logarithmic axes, where `t^β` is a straight line of slope β.

    The legend states the exponent of each curve with its 95% interval; with several panels, their titles state that of
    the trained policy. Rounds of non-positive mean regret are missing from a curve. The grey line has the slope of
    `sqrt(t)`.

    Options are those of `plot_regret`, and `summarize` of the evaluation, if there is one already.
    """
    drawn = view(dataset, "regret", by, select, baselines)
    exponents, single = _exponents(dataset, drawn, select, summary), len(drawn.panels) == 1
    labels = {name: _with_exponent(line.label, exponents.get(name, [None])) for name, line in drawn.styles.items()}

    def finish(axes: Axes, title: str, curves: _Curves) -> None:
        _make_loglog(axes, curves)
        if title:
            axes.set_title(_with_exponent(house.title_of(title), exponents[title], "\n"))

    styles = {name: line._replace(label=labels[name] if single else line.label) for name, line in drawn.styles.items()}
    positive = drawn._replace(panels={title: _positive(one) for title, one in drawn.panels.items()}, styles=styles)
    empty = "no finished run\nwith positive regret"
    figure = _draw(positive, style, finish, columns=1 if single else 2, ax=ax, empty=empty)
    if isinstance(figure, DataFigure):
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
    ax: Axes | None = None,
) -> Figure:
    """SuffFailFreq(t), the share of scenarios with no best arm from round t on, with 95% bands.

    Those of an evaluation are Wilson's over scenarios, those of a sweep as in `rmft_jax.statistics.estimates`. Options
    are those of `plot_regret`. Play in a ball is refused, because no arm is the best there.
    """
    drawn, y = view(dataset, "suff_fail_freq", by, select, baselines), "SuffFailFreq(t)\n(share of scenarios)"
    return _draw(drawn, style, lambda axes, title, curves: axes.set_ylim(-0.02, 1.02), x="round t", y=y, ax=ax)


def _draw(
    drawn: View,
    style: StyleName,
    finish: _Finish,
    x: str = "round",
    y: str = "",
    columns: int = 2,
    ax: Axes | None = None,
    empty: str = "no finished run",
) -> Figure:
    """The panels of a view, each finished by a function, beneath a legend; they show regret if `y` is empty.

    With `ax`, the only panel in those axes, and their figure. A panel without a value to show says `empty`.
    """
    y = y or f"cumulative {drawn.regret}\n(reward units)"
    if ax is not None:
        _draw_panel(ax, *only_panel(drawn.panels, "select= or baselines=[]"), drawn.styles, finish, empty)
        ax.set(xlabel=x, ylabel=y)
        return house.figure_of(ax)
    with house.sheet(style, house.height_for(len(drawn.styles), columns)) as figure:
        places = house.grid_axes(figure, len(drawn.panels))
        for axes, (title, curves) in zip(places, drawn.panels.items(), strict=True):
            _draw_panel(axes, title, curves, drawn.styles, finish, empty)
        house.compare_panels(places)
        house.label_axes(figure, places, x, y)
        house.legend_above(figure, places, columns)
        bands = intervals_of(pair for curves in drawn.panels.values() for pair in curves.items())
        by = f" By {drawn.by}." if drawn.by else ""
        figure.tell(rows_of(drawn), f"95% bands: {bands}.{by}{drawn.fixed}", drawn.left_out)
        return figure


def _draw_panel(
    axes: Axes, title: str, curves: _Curves, styles: Mapping[str, Style], finish: _Finish, empty: str
) -> None:
    """A panel of curves; one without a value, because all runs failed, says `empty`."""
    for name, curve in curves.items():
        draw(axes, styles[name], curve)
    if any(curve["mean"].notnull().any() for curve in curves.values()):
        axes.set_xlim(0, _rounds(curves)[-1])
        house.whole_ticks(axes.xaxis)
    else:
        house.nothing_to_show(axes, empty if curves else "no other agent")
    if title:
        axes.set_title(house.title_of(title))
    finish(axes, title, curves)


def _rounds(curves: _Curves) -> np.ndarray:
    return next(iter(curves.values()))["round"].to_numpy()


def _cut(axes: Axes, title: str, curves: _Curves) -> None:
    """Limits that show every curve but uniform play with its band."""
    shown = [curve for name, curve in curves.items() if name != "uniform"] or curves.values()
    house.fit_vertically(axes, [curve[side] for curve in shown for side in ("mean", "low", "high")])


def _reach(curves: _Curves) -> tuple[float, float]:
    """Limits of a logarithmic axis for the positive means of a panel."""
    means = np.concatenate([[1.0], *(curve["mean"] for curve in curves.values())])
    positive = means[means > 0]
    return float(positive.min()) / 1.5, float(positive.max()) * 1.5


def _positive(curves: _Curves) -> dict[str, xr.Dataset]:
    """What has a place on a logarithmic axis: gaps in the means, and bands down to the bottom."""
    bottom, _ = _reach(curves)
    return {
        name: curve.assign(
            mean=curve["mean"].where(curve["mean"] > 0), low=curve["low"].clip(bottom), high=curve["high"].clip(bottom)
        )
        for name, curve in curves.items()
    }


def _make_loglog(axes: Axes, curves: _Curves) -> None:
    """Logarithmic axes with a guide above the curves of a panel, if there are any."""
    ends = {name: curve["mean"].dropna("round").to_numpy()[-1:] for name, curve in curves.items()}
    if not any(len(end) for end in ends.values()):
        return
    (bottom, top), rounds = _reach(curves), _rounds(curves)
    axes.set(xscale="log", yscale="log", xlim=(1, max(2, rounds[-1])), ylim=(bottom, top))
    house.plain_log_ticks(axes.xaxis, 1.0, float(rounds[-1]))
    house.plain_log_ticks(axes.yaxis, bottom, top)
    # Through the end of the first curve, the trained policy's where there is one.
    end = next(float(end[0]) for end in ends.values() if len(end))
    guide = end * np.sqrt(rounds / rounds[-1])
    axes.plot(rounds, guide, color="#999999", linewidth=0.7, zorder=1, label="slope of √t: β = 0.50")


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


def draw(axes: Axes, style: Style, curve: xr.Dataset, label: str | None = None) -> None:
    """A curve with its band."""
    above, along = 3 if style.label == house.STYLES["rmft"].label else 2, curve[curve["mean"].dims[0]]
    axes.plot(along, curve["mean"], color=style.color, linestyle=style.line, label=label or style.label, zorder=above)
    axes.fill_between(along, curve["low"], curve["high"], color=style.color, alpha=0.2, linewidth=0)


def _with_exponent(label: str, exponent: Sequence[float | None], between: str = ", ") -> str:
    """A legend entry; without what too few rounds of positive regret leave undefined."""
    text = estimate_text(exponent[0], exponent[1:])
    return label if text == "-" else f"{label}{between}β = {text}"
