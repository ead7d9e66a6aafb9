"""All figures, by kind and in files. Imports no JAX."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rmft_jax import estimates
from rmft_jax.config.checks import require
from rmft_jax.estimates import is_sweep, open_dims, text_of
from rmft_jax.plotting.agents import plot_arms, plot_final_regret
from rmft_jax.plotting.curves import plot_loglog, plot_regret, plot_suff_fail
from rmft_jax.plotting.export import save_figure
from rmft_jax.plotting.heatmap import plot_heatmap
from rmft_jax.plotting.panels import require_variable
from rmft_jax.plotting.style import DataFigure, StyleName
from rmft_jax.plotting.sweep import default_axis, plot_sweep
from rmft_jax.plotting.training import plot_training
from rmft_jax.report import summarize

KINDS: dict[str, Callable[..., DataFigure]] = {
    "regret": plot_regret,
    "loglog": plot_loglog,
    "sweep": plot_sweep,
    "heatmap": plot_heatmap,
    "training": plot_training,
    "suffail": plot_suff_fail,
    "arms": plot_arms,
}
_NEEDED = {
    "regret": "regret",
    "loglog": "regret",
    "sweep": "final_regret",
    "heatmap": "final_regret",
    "training": "training_regret",
    "suffail": "suff_fail_freq",
    "arms": "rank_frequency",
}
_OPTIONS = {
    "by": {"regret", "loglog", "sweep", "heatmap", "training", "suffail", "arms"},
    "select": {"regret", "loglog", "sweep", "heatmap", "training", "suffail", "arms"},
    "baselines": {"regret", "loglog", "sweep", "heatmap", "suffail"},
    "relative_to": {"heatmap"},
}
_FEW = 6


def plot_kind(kind: str, dataset: xr.Dataset, **options: Any) -> DataFigure:
    """A figure by the name of its kind.

    Args:
      kind: one of `KINDS`.
      dataset: what that kind draws.
      options: of its function; those that are None or empty are as not given.

    Raises:
      ConfigError: for an unknown kind, an option that it does not have, and whatever the function refuses.
    """
    require(kind in KINDS, f"kind={kind!r}", f"one of {', '.join(KINDS)}", "--kind regret")
    given = {name: value for name, value in options.items() if value is not None and value != {}}
    for name in given:
        able = _OPTIONS.get(name)
        option = f"--{name.replace('_', '-')} with --kind {kind}"
        require(able is None or kind in able, option, f"--kind {' or '.join(sorted(able or ()))} for it", "without")
    if is_sweep(dataset):
        require_variable(dataset, _NEEDED[kind])
    return KINDS[kind](dataset, **given)


def plot_run(metrics: xr.Dataset, evaluation: xr.Dataset, directory: Path, style: StyleName = "paper") -> list[Path]:
    """All figures of a run; returns the paths of the PNGs."""
    training = save_figure(plot_training(metrics, evaluation, style=style), directory / "training")[0]
    return [training, *plot_evaluation(evaluation, directory, style)]


def plot_evaluation(evaluation: xr.Dataset, directory: Path, style: StyleName = "paper") -> list[Path]:
    """All figures of an evaluation; returns the paths of the PNGs.

    What it does not hold is not drawn: which arms are played, where play is a point of a ball.
    """
    summary = summarize(evaluation)
    figures = {
        "regret": plot_regret(evaluation, style=style),
        "loglog": plot_loglog(evaluation, summary, style=style),
        "final_regret": plot_final_regret(evaluation, summary, style=style),
    }
    if "rank" in evaluation:
        figures |= {
            "suff_fail": plot_suff_fail(evaluation, style=style),
            "arms": plot_arms(evaluation, style=style),
        }
    return [save_figure(figure, directory / name)[0] for name, figure in figures.items()]


def plot_all(
    sweep: xr.Dataset, directory: Path, style: StyleName = "paper", select: Mapping[str, Any] | None = None
) -> list[Path]:
    """All figures of a sweep that its dimensions and variables allow; returns the paths of the PNGs.

    Panels are at most 6 values of the first dimension other than the horizon. What a figure has no room for is fixed
    at the last value, which its file name then says.

    Args:
      sweep: the dataset.
      directory: for the files.
      style: `paper` or `slides`.
      select: values to fix beforehand (`rmft_jax.estimates.select`).
    """
    sweep = estimates.select(sweep, select or {})
    dims = open_dims(sweep)
    panels = next((dim for dim in dims if dim != "horizon"), dims[0] if dims else None)
    axis = [default_axis(sweep)] if dims else []
    plans: list[tuple[str, list[str], dict[str, Any]]] = [
        (kind, [panels] if panels else [], {"by": panels})
        for kind in ("regret", "loglog", "training", "suffail", "arms")
    ]
    if dims:
        plans.append(("sweep", axis + [dim for dim in dims if dim not in axis][:1], {"by": axis[0]}))
    if len(dims) >= 2:
        plans.append(("heatmap", dims[:2], {}))
        if reference := sweep.attrs.get("reference"):
            plans.append(("heatmap", dims[:2], {"relative_to": reference}))
    written = []
    for kind, kept, options in plans:
        if _NEEDED[kind] not in sweep:
            continue
        fixed = {dim: sweep[dim].values[-1] for dim in dims if dim not in kept}
        few = {dim: _few(sweep[dim].values) for dim in kept[-1:] if kind != "heatmap"}
        words = [kind, *(["relative"] if "relative_to" in options else [])]
        words += [f"{dim}={text_of(value)}" for dim, value in fixed.items()]
        figure = plot_kind(kind, sweep, style=style, select=fixed | few, **options)
        written.append(save_figure(figure, directory / "_".join(words))[0])
    return written


def _few(values: np.ndarray) -> list[Any]:
    """At most 6 of the values, evenly among them."""
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), _FEW)).round().astype(int))
    return [values[i] for i in places]
