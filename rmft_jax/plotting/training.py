"""How a policy was trained, of a run or of a sweep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from rmft_jax.plotting.curves import draw
from rmft_jax.plotting.panels import Curve, closed, curve_of, final_regrets, fixed_of, parts, points_of
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import (
    SKY,
    STYLES,
    DataFigure,
    Style,
    StyleName,
    legend_above,
    sheet,
    style_of,
    value_styles,
)
from rmft_jax.statistics.estimates import NO_INTERVAL, TRAINED, estimate, is_sweep

_VARIABLES = ("training_regret", "selected_regret", "validation_regret", "entropy")
_Lines = dict[str, tuple[np.ndarray, Curve, str]]


@register_figure("training", needs="validation_regret")
def plot_training(
    dataset: xr.Dataset,
    evaluation: xr.Dataset | None = None,
    *,
    by: str | None = None,
    select: Mapping[str, Any] | None = None,
    style: StyleName = "paper",
) -> DataFigure:
    """Regret at the horizon over iterations, and below it the entropy of play, where the dataset has it.

    All rollouts, the kept ones, and held-out scenarios with 95% intervals; the reference agent is a level to compare
    with. With `by` a curve per value of it: held-out scenarios, and thin the rollouts.

    Args:
      dataset: the metrics of a run, or a sweep. Bands are 1.96 standard errors over the scenarios of the one, Student's
        over the training seeds of the other.
      evaluation: of the run, for its reference.
      by: a dimension of the sweep.
      select: values of its other dimensions, one for each that is not a training seed.
      style: `paper` or `slides`.

    Raises:
      ConfigError: for names or values that the sweep does not have, and dimensions left open.
    """
    dataset = closed(dataset, by, select)
    compared = dataset if is_sweep(dataset) else xr.Dataset() if evaluation is None else evaluation
    dataset = dataset if is_sweep(dataset) else dataset.rename(regret="training_regret")
    lines = {title: _lines_of(part) for title, part in parts(dataset, by).items()}
    styles = value_styles(list(lines)) if by else {"": STYLES[TRAINED]}
    with_entropy = any("entropy" in one for one in lines.values())
    with sheet(style, 3.4 if with_entropy else 2.5) as figure:
        ratios = {"height_ratios": [2.2, 1.0]} if with_entropy else {}
        axes = list(figure.subplots(len(ratios) + 1, 1, sharex=True, squeeze=False, gridspec_kw=ratios).flat)
        for title, one in lines.items():
            _draw_regrets(axes[0], one, styles[title], with_kept=by is None)
            if "entropy" in one:
                draw(axes[1], styles[title], *one["entropy"][:2], "")
        if by is None:
            _draw_reference(axes[0], compared)
        else:
            axes[0].plot([], [], color="#777777", linewidth=0.6, label="thin: rollouts")
        _finish(figure, axes, lines)
        figure.rows = [
            ({by: title.partition(" = ")[2]} if by else {}) | {"variable": variable} | point | {"interval": text}
            for title, one in lines.items()
            for variable, (iterations, curve, text) in one.items()
            for point in points_of("iteration", iterations, curve)
        ]
        bands = dict.fromkeys(text for one in lines.values() for _, _, text in one.values() if text != NO_INTERVAL)
        figure.caption = f"95% bands: {', '.join(bands) or NO_INTERVAL}.{fixed_of(dataset)}"
        return figure


def _lines_of(dataset: xr.Dataset) -> _Lines:
    found = {}
    for name in (name for name in _VARIABLES if name in dataset):
        estimated = estimate(dataset, name)
        if name != "entropy" or bool((estimated["mean"] != 0).any()):  # It is 0 where play is a point of a ball.
            found[name] = estimated[estimated["mean"].dims[0]].to_numpy(), *curve_of(estimated)
    return found


def _draw_regrets(axes: Axes, lines: _Lines, style: Style, with_kept: bool) -> None:
    iterations, rollouts, _ = lines["training_regret"]
    if with_kept:
        axes.plot(iterations, rollouts.mean, color="#999999", linewidth=0.8, label="all rollouts")
        iterations, kept, _ = lines["selected_regret"]
        axes.plot(iterations, kept.mean, color=SKY, linewidth=0.8, label="kept rollouts")
    else:
        axes.plot(iterations, rollouts.mean, color=style.color, linewidth=0.6, alpha=0.6)
    iterations, held_out, _ = lines["validation_regret"]
    draw(axes, style, iterations, held_out, "held-out scenarios" if with_kept else style.label)


def _draw_reference(axes: Axes, dataset: xr.Dataset) -> None:
    reference = dataset.attrs.get("reference", "")
    if reference in dataset.get("agent", []):
        style, level = style_of(reference), final_regrets(dataset)[reference]
        axes.axhline(level, color=style.color, linestyle=style.line, linewidth=1.0, label=style.label)


def _finish(figure: DataFigure, axes: list[Axes], lines: Mapping[str, _Lines]) -> None:
    if axes[0].get_ylim()[0] > 0:
        axes[0].set_ylim(bottom=0)
    axes[0].set_xlim(0, max(float(one["training_regret"][0][-1]) for one in lines.values()))
    axes[0].set_ylabel("regret at the horizon\n(reward units)")
    axes[-1].set_xlabel("RMFT iteration")
    if len(axes) > 1:
        axes[1].set_ylabel("entropy\n(nats)")
        axes[1].set_ylim(bottom=0)
    legend_above(figure, axes[:1], columns=2)
