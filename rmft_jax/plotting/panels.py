"""What the curves of a figure are: of an evaluation or of a sweep, in one panel or several.

A curve is a mean with its interval as `statistics.estimates.estimate` returns it, over rounds or iterations.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xarray as xr

from rmft_jax.config.checks import either, require
from rmft_jax.config.names import TRAINED, is_trained
from rmft_jax.plotting.style import Style, styles_of, value_styles
from rmft_jax.statistics import estimates
from rmft_jax.statistics.bootstrap import frequency_interval, mean_interval
from rmft_jax.statistics.estimates import estimate_of, is_sweep, text_of
from rmft_jax.statistics.growth import suff_fail_freq
from rmft_jax.statistics.report import regret_of

MAX_CURVES, MAX_PANELS = 8, 8


P = TypeVar("P")


class View(NamedTuple):
    """All curves of a figure.

    panels: in order, by the value of the dimension that they differ in (empty if there is one panel), the curves by
      name of an agent or by value of a dimension.
    styles: by name of a curve, in the order of the legend.
    regret: what the regret of the dataset is called.
    by: the dimension that panels or curves differ in, if any.
    fixed: what the other dimensions are, as a sentence.
    left_out: agents that the figure has no room for.
    """

    panels: dict[str, dict[str, xr.Dataset]]
    styles: dict[str, Style]
    regret: str
    by: str | None
    fixed: str = ""
    left_out: tuple[str, ...] = ()


def scenario_curves(regret: xr.DataArray) -> xr.Dataset:
    """Mean over scenarios, of one agent or of several, with its 95% bootstrap band."""
    regret = regret.transpose("scenario", ...)
    band = mean_interval(regret.to_numpy(), num_resamples=1000)
    return estimate_of(regret.mean("scenario", dtype=np.float64), band, "bootstrap over scenarios")


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
    names = estimates.agents_among(list(final), baselines)
    require(
        len(names) <= limit,
        f"{len(names)} agents",
        f"at most {limit} in one figure",
        either("fewer --baselines", "fewer baselines"),
    )
    return names


def not_drawn(dataset: xr.Dataset, names: Sequence[str]) -> tuple[str, ...]:
    """The agents of a sweep or an evaluation that a figure of those `names` leaves out, but for the level 0."""
    return tuple(agent for agent, level in final_regrets(dataset).items() if agent not in names and level != 0)


def view(
    dataset: xr.Dataset, name: str, by: str | None, choice: Mapping[str, Any] | None, baselines: Sequence[str] | None
) -> View:
    """The curves of a variable over rounds, `regret` or `suff_fail_freq`.

    Of an evaluation, one panel. Of a sweep one panel per value of the dimension `by`, or one panel with a curve per
    value if `baselines` is empty.

    Raises:
      ConfigError: for dimensions of a sweep that are left open, names it does not have, or too many values.
    """
    dataset, regret = closed(dataset, by, choice), regret_of(dataset)
    names = named_agents(dataset, baselines, variable=name)
    left_out = not_drawn(dataset, names) if baselines is None and (len(names) > 1 or not is_sweep(dataset)) else ()
    if not is_sweep(dataset):
        found = evaluation_curves(dataset.sel(agent=names), name)
        curves = {agent: found.sel(agent=agent) for agent in names}
        return View({"": curves}, styles_of(names), regret, None, "", left_out)
    cells = {title: estimates.estimates(part, name) for title, part in parts(dataset, by).items()}
    styles = styles_of(names)
    if by and names == [TRAINED]:
        cells, styles = {"": {title: cell[TRAINED] for title, cell in cells.items()}}, value_styles(list(cells))
    panels = {title: _played({curve: cell[curve] for curve in styles}) for title, cell in cells.items()}
    return View(panels, styles, regret, by, remarks_on(dataset), left_out)


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
    dataset = estimates.require_closed(estimates.select(dataset, choice or {}), [*([by] if by else []), *kept])
    if by:
        values = [text_of(value) for value in dataset[by].values]
        got, need = f"{len(values)} values of {by}", f"at most {MAX_PANELS} in one figure"
        some = values[:: -(-len(values) // MAX_PANELS)]
        tried = either(f"--select {by}={','.join(some)}", f"select={ {by: some} }")
        require(len(values) <= MAX_PANELS, got, need, tried)
    return dataset


def remarks_on(dataset: xr.Dataset) -> str:
    """What a caption says of a sweep: what was selected, and lost seeds; sentences with a blank before each, if any."""
    fixed = [f"{name} = {text_of(value.values[()])}" for name, value in dataset.coords.items() if value.ndim == 0]
    told = f"At {', '.join(fixed)}" if fixed else ""
    return "".join(f" {sentence}." for sentence in (told, estimates.lost_seeds(dataset)) if sentence)


def parts(dataset: xr.Dataset, by: str | None) -> dict[str, xr.Dataset]:
    """The dataset by value of a dimension, titled such as "num_arms = 5"; all of it untitled without one."""
    if by is None:
        return {"": dataset}
    return {f"{by} = {text_of(value)}": dataset.isel({by: i}) for i, value in enumerate(dataset[by].values)}


def only_panel(panels: Mapping[str, P], tried: str) -> tuple[str, P]:
    """The panel to draw in somebody's own axes, with its title.

    Raises:
      ConfigError: if there are several; `tried` leaves one.
    """
    titles = ", ".join(title.replace("\n", " ") for title in panels)
    require(len(panels) == 1, f"ax for panels {titles}", "a single panel", tried)
    return next(iter(panels.items()))


def rows_of(drawn: View, extra: Mapping[str, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The curves as rows: the value of `by`, the agent, the round, the mean and its interval.

    `extra` has further columns by the name of a curve, or by the title of a panel and the name.
    """
    rows = []
    for title, curves in drawn.panels.items():
        for name, curve in curves.items():
            head = {drawn.by: (title or name).partition(" = ")[2]} if drawn.by else {}
            head |= {"agent": name if title or not drawn.by else TRAINED}
            rows += [head | point | (extra or {}).get(f"{title}{name}", {}) for point in points_of("round", curve)]
    return rows


def points_of(dim: str, curve: xr.Dataset) -> list[dict[str, Any]]:
    """The points of a curve that exist as rows, with where they are under the name `dim`."""
    points = curve[["mean", "low", "high", "interval"]].reset_coords(drop=True).to_dataframe().dropna(subset=["mean"])
    return points.rename_axis(dim).reset_index().to_dict("records")


def evaluation_curves(evaluation: xr.Dataset, variable: str) -> xr.Dataset:
    """The curves of all agents of an evaluation, `regret` or `suff_fail_freq` over `agent` and `round`."""
    if variable == "regret":
        return scenario_curves(evaluation["regret"])
    last, rounds = evaluation["last_best_round"].transpose("agent", "scenario"), evaluation["round"]
    shares = np.reshape([suff_fail_freq(one, len(rounds)) for one in last.to_numpy()], (-1, len(rounds)))
    frequency = xr.DataArray(shares, {"agent": evaluation["agent"], "round": rounds}, ("agent", "round"))
    return estimate_of(frequency, frequency_interval(shares, last.sizes["scenario"]), "Wilson over scenarios")


def _played(curves: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The curves without the rounds that none of them has: shorter horizons are padded with NaN."""
    played = np.flatnonzero(np.any([np.isfinite(curve["mean"]) for curve in curves.values()], axis=0))
    end = played[-1] + 1 if len(played) else None
    return {name: curve.isel(round=slice(end)) for name, curve in curves.items()}
