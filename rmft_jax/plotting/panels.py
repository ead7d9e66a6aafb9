"""What the curves of a figure are: of an evaluation or of a sweep, in one panel or several."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.plotting.style import Style, styles_of, value_styles
from rmft_jax.statistics.bootstrap import Interval, frequency_interval, mean_interval
from rmft_jax.statistics.estimates import (
    NO_INTERVAL,
    TRAINED,
    agents_among,
    estimates,
    intervals_by_agent,
    is_sweep,
    is_trained,
    require_closed,
    select,
    text_of,
)
from rmft_jax.statistics.growth import suff_fail_freq
from rmft_jax.statistics.report import regret_of

MAX_CURVES, MAX_PANELS = 8, 8


class Curve(NamedTuple):
    """A mean over rounds with its band, each `[T]`."""

    mean: Float[np.ndarray, "T"]
    band: Interval


class Panel(NamedTuple):
    """Axes with curves over rounds or iterations.

    title: the value of the dimension that the panels of a figure differ in, empty if there is one panel.
    rounds: `[T]` where the curves are.
    curves: by name of an agent, or by value of a dimension.
    intervals: what the band of each curve is, as far as is known.
    """

    title: str
    rounds: Int[np.ndarray, "T"]
    curves: dict[str, Curve]
    intervals: dict[str, str]


class View(NamedTuple):
    """All curves of a figure.

    panels: in order.
    styles: by name of a curve, in the order of the legend.
    regret: what the regret of the dataset is called.
    by: the dimension that panels or curves differ in, if any.
    fixed: what the other dimensions are, as a sentence.
    """

    panels: list[Panel]
    styles: dict[str, Style]
    regret: str
    by: str | None
    fixed: str = ""


def scenario_curve(regret: xr.DataArray) -> Curve:
    """Mean over scenarios with its 95% bootstrap band."""
    return scenario_curves(regret.expand_dims(agent=["only"]))["only"]


def scenario_curves(regret: xr.DataArray) -> dict[str, Curve]:
    """Each agent's mean over scenarios with its 95% bootstrap band."""
    values = regret.transpose("scenario", "agent", "round").to_numpy()
    means, (low, high) = values.mean(0, dtype=np.float64), mean_interval(values, num_resamples=1000)
    return {str(name): Curve(means[i], Interval(low[i], high[i])) for i, name in enumerate(regret["agent"].values)}


def choose_agents(final_regret: Mapping[str, float], reference: str | None, limit: int = MAX_CURVES) -> list[str]:
    """The agents of a figure that has room for `limit` of them, in the order of its legend.

    Agents whose name starts with "rmft" come first, then the reference and uniform play, then the others from the
    lowest final regret upwards. An agent of final regret 0, such as the best arm, is the level 0 and gets no curve.
    """
    by_regret = {name: np.inf if np.isnan(value) else value for name, value in final_regret.items()}
    candidates = sorted((name for name, value in by_regret.items() if value != 0), key=lambda n: by_regret[n])

    def rank(name: str) -> int:
        return 0 if is_trained(name) else 1 if name in (reference, "uniform") else 2

    chosen = sorted(candidates, key=rank)[:limit]
    return sorted(chosen, key=lambda name: (not is_trained(name), by_regret[name]))


def final_regrets(dataset: xr.Dataset) -> dict[str, float]:
    """Mean regret at the horizon by agent, of an evaluation or over a whole sweep."""
    if not is_sweep(dataset):
        final = dataset["regret"].isel(round=-1).mean("scenario")
        return {str(name): float(final.sel(agent=name)) for name in final["agent"].values}
    found = {TRAINED: float(dataset["final_regret"].mean())}
    if "baseline_final_regret" in dataset:
        classical = dataset["baseline_final_regret"]
        found |= {str(name): float(classical.sel(agent=name).mean()) for name in classical["agent"].values}
    return found


def named_agents(
    dataset: xr.Dataset, baselines: Sequence[str] | None = None, limit: int = MAX_CURVES, variable: str = "final_regret"
) -> list[str]:
    """The agents of a figure: those that it has room for, or the trained ones and the `baselines` that are named.

    Args:
      dataset: a sweep or an evaluation.
      baselines: classical agents, by name; None for a choice of them.
      limit: agents that the figure has room for.
      variable: of a sweep, what is drawn; without it for classical agents, there are none.

    Raises:
      ConfigError: for a name that the dataset does not have, or too many of them.
    """
    final = final_regrets(dataset)
    if is_sweep(dataset) and f"baseline_{variable}" not in dataset:
        final = {TRAINED: final[TRAINED]}
    if baselines is None:
        return choose_agents(final, dataset.attrs.get("reference"), limit)
    names = agents_among(list(final), baselines)
    require(len(names) <= limit, f"{len(names)} agents", f"at most {limit} in one figure", "fewer --baselines")
    return names


def view(
    dataset: xr.Dataset,
    variable: str,
    by: str | None = None,
    choice: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
) -> View:
    """The curves of a variable over rounds, `regret` or `suff_fail_freq`.

    Of an evaluation, one panel. Of a sweep one panel per value of the dimension `by`, or one panel with a curve per
    value if `baselines` is empty.

    Raises:
      ConfigError: for dimensions of a sweep that are left open, names it does not have, or too many values.
    """
    dataset, regret = closed(dataset, by, choice), regret_of(dataset)
    if not is_sweep(dataset):
        names = named_agents(dataset, baselines)
        return View([_of_evaluation(dataset.sel(agent=names), variable)], styles_of(names), regret, None)
    names = named_agents(dataset, baselines, variable=variable)
    cells = {title: estimates(part, variable) for title, part in parts(dataset, by).items()}
    if by and names == [TRAINED]:
        cells, styles = {"": {title: cell[TRAINED] for title, cell in cells.items()}}, value_styles(list(cells))
    else:
        styles = styles_of(names)
    panels = [_of_cell(cell, list(styles), title) for title, cell in cells.items()]
    return View(panels, styles, regret, by, fixed_of(dataset))


def closed(
    dataset: xr.Dataset, by: str | None, choice: Mapping[str, Any] | None, kept: Sequence[str] = ()
) -> xr.Dataset:
    """The part of a sweep that a figure with one panel, curve or colour per value of `by` shows.

    Along `kept`, further dimensions, a figure has room for any number of values. An evaluation is all there is of it.

    Raises:
      ConfigError: as `select` and `require_closed` do, or if `by` has more values than a figure has room for.
    """
    if not is_sweep(dataset):
        require(not by and not choice, f"by={by!r}, select={dict(choice or {})}", "a sweep for them", "neither")
        return dataset
    dataset = require_closed(select(dataset, choice or {}), [*([by] if by else []), *kept])
    if by and dataset.sizes[by] > MAX_PANELS:
        values = [text_of(value) for value in dataset[by].values]
        got, tried = f"{len(values)} values of {by}", ",".join(values[:: -(-len(values) // MAX_PANELS)])
        raise ConfigError(f"got {got}, need at most {MAX_PANELS} in one figure; try --select {by}={tried}")
    return dataset


def fixed_of(dataset: xr.Dataset) -> str:
    """What dimensions of a sweep were selected, as a sentence with a blank before it; empty if none were."""
    fixed = [f"{name} = {text_of(value.values[()])}" for name, value in dataset.coords.items() if value.ndim == 0]
    return f" At {', '.join(fixed)}." if fixed else ""


def parts(dataset: xr.Dataset, by: str | None) -> dict[str, xr.Dataset]:
    """The dataset by value of a dimension, titled such as "num_arms = 5"; all of it untitled without one."""
    if by is None:
        return {"": dataset}
    return {f"{by} = {text_of(value)}": dataset.isel({by: i}) for i, value in enumerate(dataset[by].values)}


def rows_of(drawn: View, extra: Mapping[str, Mapping[str, float]] | None = None) -> list[dict[str, Any]]:
    """The curves as rows: the value of `by`, the agent, the round, the mean and its interval.

    Args:
      drawn: the curves.
      extra: further columns by the name of a curve, or by the title of a panel and the name.
    """
    rows = []
    for panel in drawn.panels:
        for name in (name for name in drawn.styles if name in panel.curves):
            value = (panel.title or name).partition(" = ")[2]
            head = ({drawn.by: value} if drawn.by else {}) | {"agent": name if panel.title or not drawn.by else TRAINED}
            tail = {"interval": panel.intervals.get(name, "95%")} | dict((extra or {}).get(f"{panel.title}{name}", {}))
            rows += [head | point | tail for point in points_of("round", panel.rounds, panel.curves[name])]
    return rows


def points_of(dim: str, places: Int[np.ndarray, "T"], curve: Curve) -> list[dict[str, Any]]:
    """The points of a curve that exist as rows."""
    return [
        {dim: int(place), "mean": float(mean), "low": float(low), "high": float(high)}
        for place, mean, low, high in zip(places, curve.mean, *curve.band, strict=True)
        if not np.isnan(mean)
    ]


def caption_of(drawn: View) -> str:
    """What the bands are, as one sentence."""
    pairs = [pair for panel in drawn.panels for pair in panel.intervals.items()]
    by = f" By {drawn.by}." if drawn.by else ""
    return f"95% bands: {intervals_by_agent(pairs)}.{by}{drawn.fixed}" if pairs else ""


def curve_of(estimated: xr.Dataset) -> tuple[Curve, str]:
    """A curve of an estimate over one dimension, and what its band is."""
    mean, low, high = (estimated[name].to_numpy() for name in ("mean", "low", "high"))
    known = [str(text) for text in estimated["interval"].to_numpy().ravel() if text != NO_INTERVAL]
    return Curve(mean, Interval(low, high)), known[-1] if known else NO_INTERVAL


def _of_evaluation(evaluation: xr.Dataset, variable: str) -> Panel:
    rounds, curves, text = evaluation["round"].to_numpy(), {}, "Wilson over scenarios"
    if variable == "regret":
        curves, text = scenario_curves(evaluation["regret"]), "bootstrap over scenarios"
    else:
        for name in map(str, evaluation["agent"].values):
            last = evaluation["last_best_round"].sel(agent=name).to_numpy()
            frequency = suff_fail_freq(last, len(rounds))
            curves[name] = Curve(frequency, frequency_interval(frequency, len(last)))
    return Panel("", rounds, curves, dict.fromkeys(curves, text))


def _of_cell(cell: Mapping[str, xr.Dataset], names: Sequence[str], title: str) -> Panel:
    drawn, rounds = {name: curve_of(cell[name]) for name in names}, cell[names[0]]["round"].to_numpy()
    played = np.flatnonzero(np.any([np.isfinite(curve.mean) for curve, _ in drawn.values()], axis=0))
    end = played[-1] + 1 if len(played) else len(rounds)  # Shorter horizons are padded with NaN.
    curves = {n: Curve(c.mean[:end], Interval(*(bound[:end] for bound in c.band))) for n, (c, _) in drawn.items()}
    return Panel(title, rounds[:end], curves, {name: text for name, (_, text) in drawn.items()})
