"""How a policy was trained, of a run or of a sweep. Imports no JAX."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from rmft_jax.bootstrap import Interval
from rmft_jax.estimates import TRAINED, estimate, is_sweep
from rmft_jax.plotting.curves import draw
from rmft_jax.plotting.panels import Curve, closed, curve_of, final_regrets, fixed_of, parts
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

# By variable of a sweep: that of a run's metrics.
_METRICS = {
    "training_regret": "regret",
    "selected_regret": "selected_regret",
    "validation_regret": "validation_regret",
    "entropy": "entropy",
}
_Lines = dict[str, tuple[np.ndarray, Curve, str]]


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
    compared = evaluation
    if is_sweep(dataset):
        compared = dataset = closed(dataset, by, select)
    lines = _of_sweep(dataset, by) if is_sweep(dataset) else {"": _of_run(dataset)}
    entropies = {title: one.pop("entropy") for title, one in lines.items() if "entropy" in one}
    styles = value_styles(list(lines)) if by else {"": STYLES[TRAINED]}
    with sheet(style, 3.4 if entropies else 2.5) as figure:
        ratios = {"height_ratios": [2.2, 1.0]} if entropies else {}
        axes = list(figure.subplots(len(ratios) + 1, 1, sharex=True, squeeze=False, gridspec_kw=ratios).flat)
        for title, one in lines.items():
            _draw_regrets(axes[0], one, styles[title], with_kept=by is None)
        for title, (iterations, curve, _) in entropies.items():
            draw(axes[1], styles[title], iterations, curve, "")
        if by is None:
            _draw_reference(axes[0], compared)
        else:
            axes[0].plot([], [], color="#777777", linewidth=0.6, label="thin: rollouts")
        _finish(figure, axes, lines)
        figure.rows = _rows(lines, entropies, by)
        bands = dict.fromkeys(text for one in lines.values() for _, _, text in one.values() if text != "none")
        fixed = fixed_of(dataset) if is_sweep(dataset) else ""
        figure.caption = f"95% bands: {', '.join(bands) or 'none'}.{fixed}"
        return figure


def _of_run(metrics: xr.Dataset) -> _Lines:
    found = {}
    for name, variable in _METRICS.items():
        if variable not in metrics or (variable == "entropy" and not np.any(metrics[variable])):
            continue  # Entropy is recorded as 0 where play is a point of a ball.
        mean, error = metrics[variable], metrics.get(f"{variable}_sem")
        half = np.nan if error is None else 1.96 * error
        band = Interval(*((mean + sign * half).to_numpy() for sign in (-1, 1)))
        text = "none" if error is None else "1.96 standard errors over scenarios"
        found[name] = metrics[mean.dims[0]].to_numpy(), Curve(mean.to_numpy(), band), text
    return found


def _of_sweep(dataset: xr.Dataset, by: str | None) -> dict[str, _Lines]:
    lines = {}
    for title, part in parts(dataset, by).items():
        one = {}
        for name in (name for name in _METRICS if name in part):
            estimated = estimate(part, name)
            if name != "entropy" or bool((estimated["mean"] != 0).any()):
                one[name] = estimated[estimated["mean"].dims[0]].to_numpy(), *curve_of(estimated)
        lines[title] = one
    return lines


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


def _draw_reference(axes: Axes, dataset: xr.Dataset | None) -> None:
    reference = "" if dataset is None else dataset.attrs.get("reference", "")
    if dataset is not None and reference in dataset.get("agent", []):
        style = style_of(reference)
        level = final_regrets(dataset)[reference]
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


def _rows(lines: Mapping[str, _Lines], entropies: Mapping[str, Any], by: str | None) -> list[dict[str, Any]]:
    rows = []
    for title, one in lines.items():
        shown = one | ({"entropy": entropies[title]} if title in entropies else {})
        for variable, (iterations, (mean, (low, high)), text) in shown.items():
            head = ({by: title.partition(" = ")[2]} if by else {}) | {"variable": variable}
            points = zip(iterations, mean, low, high, strict=True)
            rows += [
                head | {"iteration": int(i), "mean": float(m), "low": float(a), "high": float(b), "interval": text}
                for i, m, a, b in points if not np.isnan(m)
            ]  # fmt: skip
    return rows
