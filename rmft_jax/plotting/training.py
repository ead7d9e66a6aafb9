"""How a policy was trained, of a run or of a sweep."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from rmft_jax.config.names import TRAINED
from rmft_jax.plotting import style as house
from rmft_jax.plotting.curves import draw
from rmft_jax.plotting.panels import closed, final_regrets, parts, points_of, remarks_on
from rmft_jax.plotting.register import register_figure
from rmft_jax.plotting.style import DataFigure, Style, StyleName
from rmft_jax.statistics.estimates import NO_INTERVAL, estimate, is_sweep

_VARIABLES = ("training_regret", "selected_regret", "validation_regret", "entropy")
_Lines = dict[str, xr.Dataset]


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

    All rollouts, the kept ones, and validation scenarios with 95% intervals; the reference agent is a level to compare
    with. With `by` a curve per value of it: validation scenarios, and thin the rollouts.

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
    lines = {title: training_lines(part) for title, part in parts(dataset, by).items()}
    styles = house.value_styles(list(lines)) if by else {"": house.STYLES[TRAINED]}
    with_entropy = any("entropy" in one for one in lines.values())
    with house.sheet(style, 3.4 if with_entropy else 2.5) as figure:
        ratios = {"height_ratios": [2.2, 1.0]} if with_entropy else {}
        axes = list(figure.subplots(len(ratios) + 1, 1, sharex=True, squeeze=False, gridspec_kw=ratios).flat)
        for title, one in lines.items():
            _draw_regrets(axes[0], one, styles[title], with_kept=by is None)
            if "entropy" in one:
                draw(axes[1], styles[title], one["entropy"], "")
        reference = compared.attrs.get("reference", "")
        if by is None and reference in compared.get("agent", []):
            line, level = house.style_of(reference), final_regrets(compared)[reference]
            axes[0].axhline(level, color=line.color, linestyle=line.line, linewidth=1.0, label=line.label)
        if by is not None:
            axes[0].plot([], [], color="#777777", linewidth=0.6, label="thin: rollouts")
        _finish(figure, axes, lines)
        figure.rows = [
            ({by: title.partition(" = ")[2]} if by else {}) | {"variable": variable} | point
            for title, one in lines.items()
            for variable, curve in one.items()
            for point in points_of("iteration", curve)
        ]
        texts = (text for one in lines.values() for curve in one.values() for text in curve["interval"].values)
        bands = [text for text in dict.fromkeys(texts) if text != NO_INTERVAL]
        figure.caption = f"95% bands: {', '.join(bands) or NO_INTERVAL}.{remarks_on(dataset)}"
        return figure


def training_lines(dataset: xr.Dataset) -> dict[str, xr.Dataset]:
    """The curves of training that a sweep holds, or the metrics of a run whose `regret` is named `training_regret`."""
    found = {}
    for name in (name for name in _VARIABLES if name in dataset):
        estimated = estimate(dataset, name)
        if name != "entropy" or bool((estimated["mean"] != 0).any()):  # It is 0 where play is a point of a ball.
            found[name] = estimated
    return found


def _draw_regrets(axes: Axes, lines: _Lines, style: Style, with_kept: bool) -> None:
    rollouts = lines["training_regret"]["mean"]
    if with_kept:
        kept = lines["selected_regret"]["mean"]
        axes.plot(rollouts["iteration"], rollouts, color="#999999", linewidth=0.8, label="all rollouts")
        axes.plot(kept["iteration"], kept, color=house.SKY, linewidth=0.8, label="kept rollouts")
    else:
        axes.plot(rollouts["iteration"], rollouts, color=style.color, linewidth=0.6, alpha=0.6)
    validated = lines["validation_regret"].dropna("validation_iteration", subset=["mean"])  # Others have others.
    draw(axes, style, validated, "validation scenarios" if with_kept else style.label)


def _finish(figure: DataFigure, axes: list[Axes], lines: Mapping[str, _Lines]) -> None:
    if axes[0].get_ylim()[0] > 0:
        axes[0].set_ylim(bottom=0)
    last = max(float(one["training_regret"]["iteration"][-1]) for one in lines.values())
    axes[0].set(xlim=(0, last), ylabel="regret at the horizon\n(reward units)")
    axes[-1].set_xlabel("RMFT iteration")
    house.whole_ticks(axes[-1].xaxis)
    if len(axes) > 1:
        axes[1].set(ylim=(0, None), ylabel="entropy\n(nats)")
    house.legend_above(figure, axes[:1], columns=2)
