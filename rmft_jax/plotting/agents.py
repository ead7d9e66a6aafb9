"""Figures with a row or a panel per agent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from rmft_jax.config.checks import either, require
from rmft_jax.config.names import TRAINED, is_trained
from rmft_jax.plotting import style as house
from rmft_jax.plotting.panels import closed, named_agents, not_drawn, only_panel, parts
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import StyleName
from rmft_jax.statistics.estimates import is_sweep
from rmft_jax.statistics.report import regret_of, summarize

_MAX_PANELS = 6
# Square roots, because most shares are small.
_SHARES, _COLORS = PowerNorm(0.5, 0, 1), "cividis"


@register_figure("arms", needs=("rank_frequency", "rank"))
def plot_arms(
    dataset: xr.Dataset,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Which arms are played when: share of scenarios by rank of the played arm, per round.

    Of an evaluation, a panel for each of at most 6 agents; of a sweep, which knows this of the trained policy only, one
    for each value of `by`, averaged over training seeds.

    Args:
      dataset: an evaluation or a sweep.
      by: a dimension of the sweep.
      select: values of its other dimensions, one for each that is not a training seed.
      baselines: classical agents of an evaluation, at most 6 with the trained ones; a choice of them if None.
      style: `paper` or `slides`.
      ax: axes of your own to draw a single panel in, under your own style and without a colour bar, which
        `ax.images[0]` has the colours for; their figure is returned.

    Raises:
      ConfigError: for names or values that the dataset does not have, dimensions left open, play in a ball, and `ax`
        for several panels.
    """
    dataset, swept = closed(dataset, by, select), is_sweep(dataset)
    got, tried = f"the arms of {', '.join(baselines or ())} in a sweep", either("--baselines none", "baselines=[]")
    require(not (swept and baselines), got, "no classical agents there, whose arms it does not keep", tried)
    panels = _sweep_shares(dataset, by) if swept else _evaluation_shares(dataset, baselines)
    left_out = () if swept or baselines is not None else not_drawn(dataset, list(panels))
    titles = {title: house.style_of(title).label if by is None else house.title_of(title) for title in panels}
    x, y = "round", "rank of the played arm (0 = best)"
    if ax is not None:
        title, share = only_panel(panels, "a value of by= in select=, or dataset.sel(agent=['rmft'])")
        _draw_ranks(ax, share, titles[title])
        ax.set(xlabel=x, ylabel=y)
        return house.figure_of(ax)
    num_rows = -(-len(panels) // 2)
    with house.sheet(style, 0.6 + 0.95 * max(num_rows, 2), axes_grid=False) as figure:
        places = figure.subplots(num_rows, min(2, len(panels)), sharex=by is None, sharey=by is None, squeeze=False)
        for axes, (title, share) in zip(places.flat, panels.items(), strict=False):
            _draw_ranks(axes, share, titles[title])
        for axes in places.flat[len(panels) :]:  # Left over where the number of panels is odd.
            axes.set_axis_off()
        figure.supxlabel(x)
        figure.supylabel(y)
        figure.colorbar(
            ScalarMappable(_SHARES, _COLORS), ax=figure.axes, label="share of scenarios", aspect=30, pad=0.02
        )
        rows = [
            {by or "agent": title.removeprefix(f"{by} = "), "rank": rank, "round": i + 1, "share": float(value)}
            for title, share in panels.items() for rank, line in enumerate(share) for i, value in enumerate(line)
        ]  # fmt: skip
        figure.tell(rows, "Means over scenarios and training seeds.", left_out)
        return figure


def _draw_ranks(axes: Axes, share: Float[np.ndarray, "K T"], title: str) -> None:
    num_ranks, num_rounds = share.shape
    extent = (0.5, num_rounds + 0.5, num_ranks - 0.5, -0.5)
    axes.imshow(share, cmap=_COLORS, norm=_SHARES, aspect="auto", extent=extent, interpolation="nearest")
    axes.grid(visible=False)
    axes.set_title(title, pad=3)
    for axis in (axes.xaxis, axes.yaxis):
        house.whole_ticks(axis, 4)
    if np.isnan(share).all():
        house.nothing_to_show(axes)


def _evaluation_shares(evaluation: xr.Dataset, baselines: Sequence[str] | None) -> dict[str, Float[np.ndarray, "K T"]]:
    names = named_agents(evaluation, baselines, _MAX_PANELS)
    names = names or [str(name) for name in evaluation["agent"].values[:_MAX_PANELS]]
    ranks = evaluation["rank"].sel(agent=names).transpose("agent", "scenario", "round").to_numpy()
    num_ranks = max(int(evaluation.attrs.get("num_arms", 1)), int(ranks.max()) + 1)
    return {
        name: np.stack([np.mean(played == rank, axis=0) for rank in range(num_ranks)])
        for name, played in zip(names, ranks, strict=True)
    }


def _sweep_shares(dataset: xr.Dataset, by: str | None) -> dict[str, Float[np.ndarray, "K T"]]:
    found = {}
    for title, part in parts(dataset, by).items():
        share = part["rank_frequency"].transpose("rank", "round", ...)
        share = share.mean([dim for dim in share.dims if dim not in ("rank", "round")]).to_numpy()
        known = np.isfinite(share)  # Fewer arms and shorter horizons are padded with NaN.
        num_ranks, num_rounds = (int(np.count_nonzero(known.any(axis))) or 1 for axis in (1, 0))
        found[title or TRAINED] = share[:num_ranks, :num_rounds]
    return found


@register_figure("final_regret", needs="scenario")
def plot_final_regret(
    evaluation: xr.Dataset,
    summary: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    style: StyleName = "paper",
    ax: Axes | None = None,
) -> Figure:
    """Regret at the horizon of every agent with its 95% interval, lowest first.

    The axis is logarithmic where all intervals are positive and span more than a factor of 10. An agent of regret 0,
    such as the best arm, is left out.

    Args:
      evaluation: with all its scenarios.
      summary: `summarize` of it, if there is one already.
      style: `paper` or `slides`.
      ax: axes of your own to draw in, under your own style; their figure is returned.
    """
    columns, text = ("agent", "mean", "low", "high", "interval"), "bootstrap over scenarios"
    known = (summary or summarize(evaluation)).items()
    cells = sorted(((name, row["regret_mean"], *row["regret_ci95"], text) for name, row in known), key=lambda c: c[1])
    rows: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in cells if row[1] != 0]
    x = f"{regret_of(evaluation)} at T = {evaluation.sizes['round']} (reward units)"
    if ax is not None:
        _draw_final(ax, rows)
        ax.set_xlabel(x)
        return house.figure_of(ax)
    with house.column_figure(0.7 + 0.135 * max(len(rows), 3), style) as (figure, axes):
        _draw_final(axes, rows)
        # Beneath the whole figure, because the names leave the axes little width.
        figure.supxlabel(x)
        figure.rows, figure.caption = rows, f"95% intervals: {text}."
        return figure


def _draw_final(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row per agent, from the top: a dot on the bar of its interval."""
    for i, row in enumerate(rows):
        color = house.style_of(row["agent"]).color
        axes.plot([row["low"], row["high"]], [i, i], color=color, linewidth=2.0, solid_capstyle="butt", alpha=0.6)
        axes.plot(row["mean"], i, marker="o", markersize=3.5, color=color)
    axes.set_yticks(range(len(rows)), [house.style_of(row["agent"]).label for row in rows])
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if is_trained(row["agent"]) else "normal")
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    low, high = min((row["low"] for row in rows), default=0), max((row["high"] for row in rows), default=0)
    if low > 0 and high / low > 10:
        axes.set_xscale("log")
        house.plain_log_ticks(axes.xaxis, 1.0, high / low)
