"""Datasets to figures, at the width of a paper's column. Imports no JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from rmft_jax.bootstrap import Interval, frequency_interval, mean_interval
from rmft_jax.growth import suff_fail_freq
from rmft_jax.plotting.export import save_figure
from rmft_jax.plotting.style import (
    PAPER,
    SKY,
    STYLES,
    WIDTH,
    Style,
    column_figure,
    height_for,
    legend_above,
    style_of,
    styles_of,
)
from rmft_jax.report import regret_name, summarize

_MAX_CURVES, _MAX_PANELS = 8, 6


class Curve(NamedTuple):
    """A mean over rounds with its band, each `[T]`."""

    mean: Float[np.ndarray, "T"]
    band: Interval


def scenario_curve(regret: xr.DataArray) -> Curve:
    """Mean over scenarios with its 95% bootstrap band."""
    return scenario_curves(regret.expand_dims(agent=["only"]))["only"]


def scenario_curves(regret: xr.DataArray) -> dict[str, Curve]:
    """Each agent's mean over scenarios with its 95% bootstrap band."""
    values = regret.transpose("scenario", "agent", "round").to_numpy()
    means, (low, high) = values.mean(0, dtype=np.float64), mean_interval(values, num_resamples=1000)
    return {str(name): Curve(means[i], Interval(low[i], high[i])) for i, name in enumerate(regret["agent"].values)}


def choose_agents(final_regret: Mapping[str, float], reference: str | None, limit: int = _MAX_CURVES) -> list[str]:
    """The agents of a figure that has room for `limit` of them, in the order of its legend.

    Agents whose name starts with "rmft" come first, then the reference and uniform play, then the others from the
    lowest final regret upwards. An agent of final regret 0, such as the best arm, is the level 0 and gets no curve.
    """
    candidates = sorted((name for name, value in final_regret.items() if value != 0), key=lambda n: final_regret[n])

    def rank(name: str) -> int:
        return 0 if name.startswith("rmft") else 1 if name in (reference, "uniform") else 2

    chosen = sorted(candidates, key=rank)[:limit]
    return sorted(chosen, key=lambda name: (not name.startswith("rmft"), final_regret[name]))


def plot_regret(evaluation: xr.Dataset) -> Figure:
    """Mean cumulative regret over rounds of at most 8 agents, with 95% bootstrap bands over scenarios."""
    curves = scenario_curves(evaluation["regret"].sel(agent=_chosen(evaluation)))
    return plot_regret_curves(curves, evaluation["round"].to_numpy(), _kind(evaluation))


def plot_regret_curves(curves: Mapping[str, Curve], rounds: Int[np.ndarray, "T"], regret: str = "pseudo") -> Figure:
    """Curves of agents by name, at most 8 of them (`choose_agents`).

    The axis is cut above the highest curve but uniform play, which only shows how hard the problem is.
    """
    drawn = choose_agents({name: float(curve.mean[-1]) for name, curve in curves.items()}, None)
    with column_figure(height_for(drawn, columns=2)) as (figure, axes):
        for name, style in styles_of(drawn).items():
            _draw(axes, style, rounds, curves[name])
        shown = [curves[name] for name in drawn if name != "uniform"] or [curves[name] for name in drawn]
        low = min([0.0, *(float(np.min(curve.band.low)) for curve in shown)])
        high = max([0.0, *(float(np.max(curve.band.high)) for curve in shown)])
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin if low < 0 else 0, high + margin)
        axes.set_xlim(0, rounds[-1])
        axes.set_xlabel("round")
        axes.set_ylabel(f"cumulative {regret_name(regret)}\n(reward units)")
        legend_above(figure, axes, columns=2)
        return figure


def plot_loglog(evaluation: xr.Dataset, summary: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Mean cumulative regret on logarithmic axes, where `t^β` is a straight line of slope β.

    The legend states each agent's exponent with its 95% interval over scenarios. Rounds of non-positive mean regret
    are missing from a curve. The grey line has the slope of `sqrt(t)`.

    Args:
      evaluation: the dataset.
      summary: its `summarize`, if there is one already.
    """
    names, rounds = _chosen(evaluation), evaluation["round"].to_numpy()
    curves = scenario_curves(evaluation["regret"].sel(agent=names))
    summary, styles = summary or summarize(evaluation.sel(agent=names)), styles_of(names)
    positive = {name: curves[name].mean[curves[name].mean > 0] for name in names}
    with column_figure(height_for(names, columns=1)) as (figure, axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        bottom = min([1.0, *(float(values.min()) for values in positive.values() if len(values))]) / 1.5
        top = max([1.0, *(float(values.max()) for values in positive.values() if len(values))]) * 1.5
        for name in names:
            mean, band = curves[name]
            # What is not positive has no place on this axis: gaps in the mean, bands down to the bottom.
            curve = Curve(np.where(mean > 0, mean, np.nan), Interval(*(np.maximum(bound, bottom) for bound in band)))
            _draw(axes, styles[name], rounds, curve, _with_exponent(styles[name].label, summary[name]))
        end = max([bottom, *(curves[name].mean[-1] for name in names if name != "uniform")])
        guide = 1.4 * end * np.sqrt(rounds / rounds[-1])
        axes.plot(rounds, guide, color="#999999", linewidth=0.7, zorder=1, label="slope of √t: β = 0.50")
        axes.set_ylim(bottom, top)
        axes.set_xlim(1, max(2, rounds[-1]))
        axes.set_xlabel("round")
        axes.set_ylabel(f"cumulative {regret_name(_kind(evaluation))}\n(reward units)")
        legend_above(figure, axes, columns=1)
        return figure


def plot_suff_fail(evaluation: xr.Dataset) -> Figure:
    """SuffFailFreq(t), the share of scenarios with no best arm from round t on, with 95% Wilson bands."""
    names, rounds = _chosen(evaluation), evaluation["round"].to_numpy()
    with column_figure(height_for(names, columns=2)) as (figure, axes):
        for name, style in styles_of(names).items():
            last = evaluation["last_best_round"].sel(agent=name).to_numpy()
            frequency = suff_fail_freq(last, len(rounds))
            _draw(axes, style, rounds, Curve(frequency, frequency_interval(frequency, len(last))))
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(0, rounds[-1])
        axes.set_xlabel("round t")
        axes.set_ylabel("SuffFailFreq(t)\n(share of scenarios)")
        legend_above(figure, axes, columns=2)
        return figure


def plot_arms(evaluation: xr.Dataset) -> Figure:
    """Which arms are played when: share of scenarios by rank of the played arm, per round, for at most 6 agents."""
    names = _chosen(evaluation, _MAX_PANELS) or [str(name) for name in evaluation["agent"].values[:_MAX_PANELS]]
    num_rounds = evaluation.sizes["round"]
    ranks = evaluation["rank"].sel(agent=names).transpose("agent", "scenario", "round").to_numpy()
    num_ranks = max(int(evaluation.attrs.get("num_arms", 1)), int(ranks.max()) + 1)
    num_rows, scale = -(-len(names) // 2), ScalarMappable(Normalize(0, 1), "cividis")
    with rc_context(PAPER | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.95 * num_rows))
        panels = figure.subplots(num_rows, min(2, len(names)), sharex=True, sharey=True, squeeze=False).flat
        for axes, name, played in zip(panels, names, ranks, strict=False):
            share = np.stack([np.mean(played == rank, axis=0) for rank in range(num_ranks)])
            extent = (0.5, num_rounds + 0.5, num_ranks - 0.5, -0.5)
            axes.imshow(share, cmap=scale.cmap, norm=scale.norm, aspect="auto", extent=extent, interpolation="nearest")
            axes.set_title(style_of(name).label, pad=2)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in panels:  # Left over where the number of agents is odd.
            axes.set_axis_off()
        figure.supxlabel("round", fontsize=8)
        figure.supylabel("rank of the played arm (0 = best)", fontsize=8)
        figure.colorbar(scale, ax=figure.axes, label="share of scenarios", aspect=30, pad=0.02)
        return figure


def plot_final_regret(evaluation: xr.Dataset, summary: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Regret at the horizon of every agent with its 95% interval, lowest first.

    The axis is logarithmic where all intervals are positive and span more than a factor of 10. An agent of regret 0,
    such as the best arm, is left out.

    Args:
      evaluation: the dataset.
      summary: its `summarize`, if there is one already.
    """
    summary = summary or summarize(evaluation)
    names = sorted((n for n in summary if summary[n]["regret_mean"] != 0), key=lambda n: summary[n]["regret_mean"])
    bounds = np.reshape([summary[name]["regret_ci95"] for name in names], (-1, 2))
    with column_figure(0.7 + 0.135 * max(len(names), 3)) as (figure, axes):
        for row, (name, (low, high)) in enumerate(zip(names, bounds, strict=True)):
            color = style_of(name).color
            axes.plot([low, high], [row, row], color=color, linewidth=2.0, solid_capstyle="butt", alpha=0.6)
            axes.plot(summary[name]["regret_mean"], row, marker="o", markersize=3.5, color=color)
        axes.set_yticks(range(len(names)), [style_of(name).label for name in names])
        for name, label in zip(names, axes.get_yticklabels(), strict=True):
            label.set_fontweight("bold" if name.startswith("rmft") else "normal")
        axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
        if names and bounds.min() > 0 and (span := bounds.max() / bounds.min()) > 10:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 100 else (1,)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        # Beneath the whole figure, because the names leave the axes little width.
        kind = regret_name(_kind(evaluation))
        figure.supxlabel(f"{kind} at T = {evaluation.sizes['round']} (reward units)", fontsize=8)
        return figure


def plot_training(metrics: xr.Dataset, evaluation: xr.Dataset | None = None) -> Figure:
    """Regret at the horizon over iterations: rollouts, kept rollouts, and held-out scenarios with 95% intervals.

    With an evaluation, the regret of the agent that it names as its reference is drawn as a level to compare with.
    """
    with column_figure() as (figure, axes):
        held_out, iterations = metrics["validation_regret"], metrics["validation_iteration"]
        half_width = 1.96 * metrics["validation_regret_sem"]
        axes.plot(metrics["iteration"], metrics["regret"], color="#999999", linewidth=0.8, label="all rollouts")
        axes.plot(metrics["iteration"], metrics["selected_regret"], color=SKY, linewidth=0.8, label="kept rollouts")
        band = Interval((held_out - half_width).to_numpy(), (held_out + half_width).to_numpy())
        curve = Curve(held_out.to_numpy(), band)
        _draw(axes, STYLES["rmft"], iterations.to_numpy(), curve, "held-out scenarios")
        reference = "" if evaluation is None else evaluation.attrs.get("reference", "")
        if evaluation is not None and reference in evaluation["agent"].values:
            style = style_of(reference)
            level = float(evaluation["regret"].sel(agent=reference).isel(round=-1).mean())
            axes.axhline(level, color=style.color, linestyle=style.line, linewidth=1.0, label=style.label)
        if axes.get_ylim()[0] > 0:
            axes.set_ylim(bottom=0)
        axes.set_xlim(0, float(metrics["iteration"][-1]))
        axes.set_xlabel("RMFT iteration")
        axes.set_ylabel("regret at the horizon\n(reward units)")
        legend_above(figure, axes, columns=2)
        return figure


def plot_run(metrics: xr.Dataset, evaluation: xr.Dataset, directory: Path) -> list[Path]:
    """All figures of a run; returns the paths of the PNGs."""
    training = save_figure(plot_training(metrics, evaluation), directory / "training")[0]
    return [training, *plot_evaluation(evaluation, directory)]


def plot_evaluation(evaluation: xr.Dataset, directory: Path) -> list[Path]:
    """All figures of an evaluation; returns the paths of the PNGs.

    What it does not hold is not drawn: which arms are played, where play is a point of a ball.
    """
    summary = summarize(evaluation)
    figures = {
        "regret": plot_regret(evaluation),
        "loglog": plot_loglog(evaluation, summary),
        "final_regret": plot_final_regret(evaluation, summary),
    }
    if "rank" in evaluation:
        figures |= {"suff_fail": plot_suff_fail(evaluation), "arms": plot_arms(evaluation)}
    return [save_figure(figure, directory / name)[0] for name, figure in figures.items()]


def _kind(evaluation: xr.Dataset) -> str:
    return evaluation.attrs.get("regret", "pseudo")


def _chosen(evaluation: xr.Dataset, limit: int = _MAX_CURVES) -> list[str]:
    final = evaluation["regret"].isel(round=-1).mean("scenario")
    by_name = {str(name): float(final.sel(agent=name)) for name in final["agent"].values}
    return choose_agents(by_name, evaluation.attrs.get("reference"), limit)


def _draw(axes: Axes, style: Style, rounds: np.ndarray, curve: Curve, label: str | None = None) -> None:
    above = 3 if style is STYLES["rmft"] else 2
    axes.plot(rounds, curve.mean, color=style.color, linestyle=style.line, label=label or style.label, zorder=above)
    axes.fill_between(rounds, curve.band.low, curve.band.high, color=style.color, alpha=0.2, linewidth=0)


def _with_exponent(label: str, row: Mapping[str, Any]) -> str:
    """A legend entry; without what too few rounds of positive regret leave undefined."""
    if np.isnan(row["exponent"]):
        return label
    interval = "" if np.isnan(row["exponent_ci95"]).any() else " [{:.2f}, {:.2f}]".format(*row["exponent_ci95"])
    return f"{label}, β = {row['exponent']:.2f}{interval}"
