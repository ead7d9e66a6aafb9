"""What the curves of a figure are: of an evaluation or of a sweep, in one panel or several. Imports no JAX."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from rmft_jax.bootstrap import Interval, frequency_interval, mean_interval
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.estimates import (
    TRAINED,
    estimates,
    is_sweep,
    open_dims,
    require_closed,
    select,
    sweep_dims,
    text_of,
)
from rmft_jax.growth import suff_fail_freq
from rmft_jax.plotting.style import Style, styles_of, value_styles

MAX_CURVES, MAX_PANELS = 8, 8
EXPONENT_COLUMNS = ("exponent", "exponent_low", "exponent_high")


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
    kind: which regret the dataset holds.
    by: the dimension that panels or curves differ in, if any.
    fixed: what the other dimensions are, as a sentence.
    """

    panels: list[Panel]
    styles: dict[str, Style]
    kind: str
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
        return 0 if name.startswith("rmft") else 1 if name in (reference, "uniform") else 2

    chosen = sorted(candidates, key=rank)[:limit]
    return sorted(chosen, key=lambda name: (not name.startswith("rmft"), by_regret[name]))


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
    trained = [name for name in final if name.startswith("rmft")]
    known = [name for name in final if name not in trained]
    for name in baselines:
        require(name in known, f"baseline {name!r}", f"one of {', '.join(known) or 'none'}", "another name")
    names = [*trained, *dict.fromkeys(baselines)]
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
    kind = dataset.attrs.get("regret", "pseudo")
    if not is_sweep(dataset):
        require(not by and not choice, f"by={by!r}, select={dict(choice or {})}", "a sweep for them", "neither")
        names = named_agents(dataset, baselines)
        return View([_of_evaluation(dataset.sel(agent=names), variable)], styles_of(names), kind, None)
    dataset = closed(dataset, by, choice)
    require_variable(dataset, variable)
    names = named_agents(dataset, baselines, variable=variable)
    panels = [_of_cell(part, variable, names, title) for title, part in parts(dataset, by).items()]
    if by and names == [TRAINED]:
        intervals = {panel.title: panel.intervals[TRAINED] for panel in panels}
        longest = max((p.rounds for p in panels), key=len)
        padded = {panel.title: _padded(panel.curves[TRAINED], len(longest)) for panel in panels}
        return View([Panel("", longest, padded, intervals)], value_styles(list(padded)), kind, by, fixed_of(dataset))
    return View(panels, styles_of(names), kind, by, fixed_of(dataset))


def closed(
    dataset: xr.Dataset, by: str | None, choice: Mapping[str, Any] | None, kept: Sequence[str] = ()
) -> xr.Dataset:
    """The part of a sweep that a figure with one panel, curve or colour per value of `by` shows.

    Along `kept`, further dimensions, a figure has room for any number of values.

    Raises:
      ConfigError: as `select` and `require_closed` do, or if `by` has more values than a figure has room for.
    """
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


def require_variable(dataset: xr.Dataset, variable: str) -> None:
    """Raises `ConfigError` unless the dataset has a variable."""
    need = "one with it: play in a ball has no arms, and a grid of evaluations no curves"
    require(variable in dataset, f"a dataset without {variable}", need, "another --kind")


def open_without(dataset: xr.Dataset, dim: str) -> list[str]:
    """Dimensions of a sweep, `dim` excepted, that are open; those of one value if none is."""
    return [name for name in open_dims(dataset) or sweep_dims(dataset) if name != dim]


def rows_of(drawn: View, extra: Mapping[str, Mapping[str, float]] | None = None) -> list[dict[str, Any]]:
    """The curves as rows: the value of `by`, the agent, the round, the mean and its interval.

    Args:
      drawn: the curves.
      extra: further columns by the name of a curve, or by the title of a panel and the name.
    """
    rows = []
    for panel in drawn.panels:
        for name in (name for name in drawn.styles if name in panel.curves):
            mean, (low, high) = panel.curves[name]
            value = (panel.title or name).partition(" = ")[2]
            head = ({drawn.by: value} if drawn.by else {}) | {"agent": name if panel.title or not drawn.by else TRAINED}
            tail = {"interval": panel.intervals.get(name, "95%")} | dict((extra or {}).get(f"{panel.title}{name}", {}))
            for i, number in enumerate(panel.rounds):
                point = {"round": int(number), "mean": float(mean[i]), "low": float(low[i]), "high": float(high[i])}
                if not np.isnan(mean[i]):
                    rows.append(head | point | tail)
    return rows


def caption_of(drawn: View) -> str:
    """What the bands are, as one sentence."""
    found: dict[str, list[str]] = {}
    for panel in drawn.panels:
        for name, interval in panel.intervals.items():
            found.setdefault(interval, []).append(name)
    said = [f"{interval} ({', '.join(dict.fromkeys(names))})" for interval, names in found.items()]
    by = f" By {drawn.by}." if drawn.by else ""
    return f"95% bands: {'; '.join(said)}.{by}{drawn.fixed}" if said else ""


def curve_of(estimated: xr.Dataset) -> tuple[Curve, str]:
    """A curve of an estimate over one dimension, and what its band is."""
    mean, low, high = (estimated[name].to_numpy() for name in ("mean", "low", "high"))
    known = [str(text) for text in estimated["interval"].to_numpy().ravel() if text != "none"]
    return Curve(mean, Interval(low, high)), known[-1] if known else "none"


def _of_evaluation(evaluation: xr.Dataset, variable: str) -> Panel:
    rounds, names = evaluation["round"].to_numpy(), [str(name) for name in evaluation["agent"].values]
    if variable == "regret":
        return Panel(
            "", rounds, scenario_curves(evaluation["regret"]), dict.fromkeys(names, "bootstrap over scenarios")
        )
    curves = {}
    for name in names:
        last = evaluation["last_best_round"].sel(agent=name).to_numpy()
        frequency = suff_fail_freq(last, len(rounds))
        curves[name] = Curve(frequency, frequency_interval(frequency, len(last)))
    return Panel("", rounds, curves, dict.fromkeys(names, "Wilson over scenarios"))


def _of_cell(cell: xr.Dataset, variable: str, names: Sequence[str], title: str) -> Panel:
    found = estimates(cell, variable)
    drawn = {name: curve_of(found[name]) for name in names}
    played = np.flatnonzero(np.any([np.isfinite(curve.mean) for curve, _ in drawn.values()], axis=0))
    end = played[-1] + 1 if len(played) else len(cell["round"])  # Shorter horizons are padded with NaN.
    curves = {n: Curve(c.mean[:end], Interval(*(bound[:end] for bound in c.band))) for n, (c, _) in drawn.items()}
    return Panel(title, cell["round"].to_numpy()[:end], curves, {name: text for name, (_, text) in drawn.items()})


def _padded(curve: Curve, length: int) -> Curve:
    missing = (0, length - len(curve.mean))
    mean, low, high = (
        np.pad(np.asarray(array, float), missing, constant_values=np.nan) for array in (curve.mean, *curve.band)
    )
    return Curve(mean, Interval(low, high))


def exponents_of(cell: xr.Dataset, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The exponent of each agent in a cell with its interval, as columns."""
    found = estimates(cell, "exponent")
    sides = dict(zip(EXPONENT_COLUMNS, ("mean", "low", "high"), strict=True))
    return {
        name: {column: float(found[name][side]) for column, side in sides.items()} for name in names if name in found
    }
