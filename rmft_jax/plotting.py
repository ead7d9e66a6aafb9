"""Datasets to figures, at the width of a paper's column. Imports no JAX."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft_jax.bootstrap import Interval, mean_interval
from rmft_jax.storage import replacing


class Style(NamedTuple):
    """How an agent is drawn, everywhere the same."""

    label: str
    color: str
    line: Any


# Colours of Okabe and Ito (2008), which remain apart for colour-blind readers; line styles tell them apart in print.
STYLES = {
    "rmft": Style("RMFT Transformer", "#D55E00", "-"),
    "rmft_plain": Style("RMFT, whole trajectories", "#56B4E9", (0, (6, 1))),
    "thompson": Style("Thompson", "#0072B2", "--"),
    "ucb1": Style("UCB1", "#009E73", "-."),
    "greedy": Style("greedy", "#CC79A7", ":"),
    "epsilon_greedy": Style("ε-greedy", "#E69F00", (0, (4, 1, 1, 1, 1, 1))),
    "uniform": Style("uniform", "#000000", (0, (1, 2))),
}
_COLUMN_INCHES = (3.4, 2.5)
_PAPER: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def column_figure() -> Iterator[tuple[Figure, Axes]]:
    """An empty figure at column width, under the style of the house."""
    with rc_context(_PAPER):
        figure = Figure(figsize=_COLUMN_INCHES)
        yield figure, figure.subplots()


class Curve(NamedTuple):
    """A mean over rounds with its band, each `[T]`."""

    mean: Float[np.ndarray, "T"]
    band: Interval


def scenario_curve(regret: xr.DataArray) -> Curve:
    """Mean over scenarios with its 95% bootstrap band."""
    values = regret.transpose("scenario", "round").to_numpy()
    return Curve(values.mean(0), mean_interval(values, num_resamples=1000))


def plot_regret(evaluation: xr.Dataset) -> Figure:
    """Mean cumulative pseudo-regret over rounds, with 95% bootstrap bands over scenarios."""
    curves = {str(name): scenario_curve(evaluation["regret"].sel(agent=name)) for name in evaluation["agent"].values}
    return plot_regret_curves(curves, evaluation["round"].to_numpy())


def plot_regret_curves(curves: Mapping[str, Curve], rounds: Int[np.ndarray, "T"]) -> Figure:
    """Curves of agents by name; those without a style (the best arm, which has no regret) are left out.

    The axis is cut above the highest curve but uniform play, which only shows how hard the problem is.
    """
    with column_figure() as (figure, axes):
        drawn = {name: curves[name] for name in STYLES if name in curves}
        for name, (mean, band) in drawn.items():
            style = STYLES[name]
            above = 3 if name == "rmft" else 2
            axes.plot(rounds, mean, color=style.color, linestyle=style.line, label=style.label, zorder=above)
            axes.fill_between(rounds, band.low, band.high, color=style.color, alpha=0.2, linewidth=0)
        axes.set_ylim(0, 1.25 * max(curve.mean[-1] for name, curve in drawn.items() if name != "uniform"))
        axes.set_xlim(0, rounds[-1])
        axes.set_xlabel("round")
        axes.set_ylabel("cumulative regret (reward units)")
        axes.legend(loc="upper left", handlelength=2.6)
        return figure


def plot_training(metrics: xr.Dataset, evaluation: xr.Dataset | None = None) -> Figure:
    """Regret at the horizon over iterations: rollouts, kept rollouts, and held-out scenarios with 95% intervals.

    With an evaluation, the classical agents' regret is drawn as levels to compare with.
    """
    with column_figure() as (figure, axes):
        held_out, iterations = metrics["validation_regret"], metrics["validation_iteration"]
        half_width = 1.96 * metrics["validation_regret_sem"]
        axes.plot(metrics["iteration"], metrics["regret"], color="#999999", linewidth=0.8, label="all rollouts")
        axes.plot(
            metrics["iteration"], metrics["selected_regret"], color="#56B4E9", linewidth=0.8, label="kept rollouts"
        )
        axes.plot(iterations, held_out, color=STYLES["rmft"].color, label="held-out scenarios")
        axes.fill_between(
            iterations,
            held_out - half_width,
            held_out + half_width,
            color=STYLES["rmft"].color,
            alpha=0.25,
            linewidth=0,
        )
        if evaluation is not None:
            for name in ("thompson", "ucb1"):
                style = STYLES[name]
                level = float(evaluation["regret"].sel(agent=name).isel(round=-1).mean())
                axes.axhline(level, color=style.color, linestyle=style.line, linewidth=1.0, label=style.label)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, float(metrics["iteration"][-1]))
        axes.set_xlabel("RMFT iteration")
        axes.set_ylabel("regret at the horizon (reward units)")
        axes.legend(loc="upper right", ncols=2, handlelength=2.2)
        return figure


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, each whole or not at all; `path` has no suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(_PAPER):
        for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
            target = path.with_suffix(suffix)
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=300, metadata=metadata)
            written.append(target)
    return written


def plot_run(metrics: xr.Dataset, evaluation: xr.Dataset, directory: Path) -> list[Path]:
    """All figures of a run; returns the paths of the PNGs."""
    figures = {"regret": plot_regret(evaluation), "training": plot_training(metrics, evaluation)}
    return [save_figure(figure, directory / name)[0] for name, figure in figures.items()]
