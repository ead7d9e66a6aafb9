"""The numbers of a report: curves of a run, or of every setting of a sweep, thinned, as plain lists.

Nothing is computed here that figures and tables compute otherwise: means and intervals are those of
`rmft_jax.statistics` and `rmft_jax.plotting.panels`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from rmft_jax.config.names import TRAINED, is_trained
from rmft_jax.plotting.panels import evaluation_curves, final_regrets
from rmft_jax.plotting.training import training_lines
from rmft_jax.report.sources import Source
from rmft_jax.statistics import estimates
from rmft_jax.statistics.bootstrap import percentiles, resample
from rmft_jax.statistics.estimates import estimate_of, is_sweep, text_of
from rmft_jax.statistics.labels import field_label, value_label
from rmft_jax.statistics.report import regret_of

MOST_NUMBERS = 420_000
"""Numbers in a page, about; each takes 6 or 7 bytes. Curves are thinned to that, but never below `FEWEST` points."""
FEWEST, MOST_POINTS, BINS = 12, 160, 40
Curves = dict[str, xr.Dataset]
"""By name, a mean with its interval as `estimates.estimate` returns it."""


def agents_of(dataset: xr.Dataset) -> list[str]:
    """The agents of an evaluation or a sweep, the trained policy first."""
    named = [str(name) for name in dataset["agent"].values] if "agent" in dataset else []
    trained = [TRAINED] if is_sweep(dataset) else [name for name in named if is_trained(name)]
    return [*trained, *(name for name in named if name not in trained)]


def dims_of(dataset: xr.Dataset) -> list[str]:
    """The dimensions whose values make the settings of a sweep; none of an evaluation."""
    return estimates.sweep_dims(dataset) if is_sweep(dataset) else []


def num_points(sources: Sequence[Source]) -> int:
    """How many points a curve may have, so that the page stays small."""
    curves = 0
    for dataset in (source.results for source in sources if source.results is not None):
        agents = len(agents_of(dataset))
        settings = int(np.prod([dataset.sizes[dim] for dim in dims_of(dataset)], dtype=int))
        curves += settings * (2 * agents + agents * (agents - 1) // 2 + 3)
    return int(np.clip(MOST_NUMBERS // (3 * max(curves, 1)), FEWEST, MOST_POINTS))


def content_of(source: Source, points: int) -> dict[str, Any]:
    """Everything that the page draws of a source, fit for JSON; what cannot be drawn is told in `source.missing`.

    Returns:
      `name`; `regret`, what the regret is called; `reference`; `agents` by name of which there are curves; `dims`, with
      the texts of their values, and `settings`, one for each combination of them (one without dimensions of a run),
      each with `title`, `status` (`finished`, `failed`, `missing`, or of how many of its seeds that is so), and by
      kind of curves (`regret`, `difference`, `suff_fail`, `training`, `entropy`) where they are along and, by name,
      mean, low and high, or the mean alone; differences are named `a|b` for a minus b. `arms` has shares by agent, rank
      and bin of rounds. `bands` says what the intervals of a kind are.
    """
    dataset = source.results
    regret = regret_of(dataset) if dataset is not None else "regret"
    content: dict[str, Any] = {"name": source.name, "regret": regret, "dims": [], "agents": [], "reference": None}
    content["bands"] = {}
    settings: list[dict[str, Any]] = [{"title": "", "status": "finished"}]
    if dataset is not None:
        with source.guarded("agents"):
            dataset = estimates.select(dataset, {}) if is_sweep(dataset) else dataset
            content |= {"agents": agents_of(dataset), "reference": dataset.attrs.get("reference")}
            content["dims"], settings = _settings(dataset)
        makers = {"regret": _regrets, "difference": _differences, "suff_fail": _suff_fail}
        for kind, make in makers.items():
            with source.guarded(kind):
                # The suffixes of an evaluation are counted over all of its rounds.
                curves = make(dataset if kind == "suff_fail" else _thin_rounds(dataset, points))
                _add(settings, kind, curves, dims_of(dataset), "round", points)
                content["bands"][kind] = _bands(curves)
        with source.guarded("arms"):
            _add_arms(settings, dataset)
    with source.guarded("training"):
        _add_training(settings, source.metrics, dataset, points)
    return content | {"settings": settings}


def _settings(dataset: xr.Dataset) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The dimensions of a sweep, and its settings in order, with what became of them."""
    dims = dims_of(dataset)
    values = [[text_of(value) for value in dataset[dim].values] for dim in dims]
    told = [{"name": d, "label": field_label(d), "values": v} for d, v in zip(dims, values, strict=True)]
    shape = tuple(map(len, values))
    runs = dataset["status"].transpose(*dims, ...).to_numpy().reshape(*shape, -1) if "status" in dataset else None
    settings = []
    for place in np.ndindex(*shape):
        parts = [value_label(f"{d} = {v[i]}") for d, v, i in zip(dims, values, place, strict=True)]
        settings.append({"title": ", ".join(parts), "status": "finished" if runs is None else _state(runs[place])})
    return told, settings


def _state(runs: np.ndarray) -> str:
    """What became of the runs of a setting, one for each seed; how many are lost where others have finished."""
    lost = {word: int((runs == word).sum()) for word in ("failed", "missing")}
    told = [word for word, number in lost.items() if number]
    if not told:
        return "finished"
    if sum(lost.values()) == runs.size:
        return told[0]
    return ", ".join(f"{lost[word]} of {runs.size} seeds {word}" for word in told)


def _regrets(dataset: xr.Dataset) -> Curves:
    if is_sweep(dataset):
        return estimates.estimates(dataset, "regret")
    return _by_agent(evaluation_curves(dataset, "regret"))


def _suff_fail(dataset: xr.Dataset) -> Curves:
    if is_sweep(dataset):
        return estimates.estimates(dataset, "suff_fail_freq") if "suff_fail_freq" in dataset else {}
    return _by_agent(evaluation_curves(dataset, "suff_fail_freq")) if "last_best_round" in dataset else {}


def _differences(dataset: xr.Dataset) -> Curves:
    """Regret of each agent minus that of every later one: paired by scenario, or by seed of a sweep."""
    if not is_sweep(dataset):
        return _paired_by_scenario(dataset)
    names, found = agents_of(dataset), {}
    regrets = {name: dataset["baseline_regret"].sel(agent=name, drop=True) for name in names[1:]}
    regrets = {TRAINED: dataset["regret"], **regrets}
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            paired = dataset.assign(difference=regrets[name] - regrets[other])
            found[f"{name}|{other}"] = estimates.estimate(paired, "difference")
    return found


def _paired_by_scenario(evaluation: xr.Dataset) -> Curves:
    """As `panels.scenario_curves` of every difference, from one resampling of all agents.

    Resamples share their scenarios, so the difference of their means is the mean of paired differences.
    """
    names = agents_of(evaluation)
    regret = evaluation["regret"].sel(agent=names).transpose("agent", "scenario", "round")
    curves, rounds, found = regret.to_numpy(), evaluation["round"], {}

    def means(weights: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B A T"]:
        return np.stack([weights @ one.astype(np.float64) for one in curves], axis=1)

    resampled, whole = resample(means, curves.shape[1], num_resamples=1000), curves.mean(1, dtype=np.float64)
    for i, j in itertools.combinations(range(len(names)), 2):
        mean = xr.DataArray(whole[i] - whole[j], {"round": rounds}, ("round",))
        band = percentiles(resampled[:, i] - resampled[:, j])
        found[f"{names[i]}|{names[j]}"] = estimate_of(mean, band, "bootstrap over scenarios")
    return found


def _bands(curves: Curves) -> str:
    """What the intervals of curves are."""
    texts = dict.fromkeys(str(text) for curve in curves.values() for text in np.unique(curve["interval"].values))
    return "; ".join(text for text in texts if text != estimates.NO_INTERVAL) or estimates.NO_INTERVAL


def _by_agent(curves: xr.Dataset) -> Curves:
    return {str(name): curves.sel(agent=name) for name in curves["agent"].values}


def _thin_rounds(dataset: xr.Dataset, points: int) -> xr.Dataset:
    """The dataset at the rounds that some setting will show; intervals then take as much less time."""
    played = dataset["regret"].notnull().any([dim for dim in dataset["regret"].dims if dim != "round"])
    ends = {int(played.sum())}
    if is_sweep(dataset):
        ends = set(dataset["regret"].notnull().sum("round").to_numpy().ravel().tolist())
    kept = [places_of(end, points) for end in ends if end]
    return dataset.isel(round=np.unique(np.concatenate(kept))) if kept else dataset


def places_of(number: int, points: int) -> Int[np.ndarray, "p"]:
    """At most so many of a number of places: first and last, half of them evenly, half evenly on a logarithmic axis."""
    if number <= points:
        return np.arange(number)
    even = np.linspace(1, number, points - points // 2)
    return np.unique(np.concatenate([even, np.geomspace(1, number, points // 2)]).round().astype(int)) - 1


def _add(
    settings: Sequence[dict[str, Any]], kind: str, curves: Curves, dims: Sequence[str], along: str, points: int
) -> None:
    """Puts curves into the settings that they belong to, each as far as it was played."""
    if not curves:
        return
    at = next(iter(curves.values()))[along].to_numpy()
    flat = {name: _flat(curve, dims, along) for name, curve in curves.items()}
    for number, setting in enumerate(settings):
        own = {name: numbers[:, number] for name, numbers in flat.items()}
        known = np.flatnonzero(np.any([np.isfinite(numbers[0]) for numbers in own.values()], axis=0))
        if along == "round":
            # Those of its own horizon, whatever rounds are here for the sake of others.
            wanted = places_of(int(at[known[-1]]) if len(known) else 0, points) + 1
            places = known[np.isin(at[known], wanted)]
        else:
            places = known[places_of(len(known), points)]
        if len(places):
            lines = {name: _lists(numbers[:, places]) for name, numbers in own.items() if np.isfinite(numbers[0]).any()}
            setting[kind] = {"at": at[places].tolist(), "curves": lines}


def _flat(curve: xr.Dataset, dims: Sequence[str], along: str) -> Float[np.ndarray, "3 S n"]:
    """Mean, low and high of every setting."""
    sides = [curve[side].transpose(*dims, along).to_numpy() for side in ("mean", "low", "high")]
    return np.stack([side.reshape(-1, side.shape[-1]) for side in sides]).astype(np.float64)


def _lists(numbers: Float[np.ndarray, "3 n"]) -> list[list[float | None]]:
    """Mean, low and high, or the mean alone where there is no interval."""
    return [plain(side) for side in (numbers if np.isfinite(numbers[1]).any() else numbers[:1])]


def plain(numbers: Float[np.ndarray, "n"] | Sequence[float]) -> list[float | None]:
    """Numbers with four digits, which is more than a screen shows; None for what is none."""
    return [float(f"{number:.4g}") if np.isfinite(number) else None for number in numbers]


def _add_training(
    settings: Sequence[dict[str, Any]], metrics: xr.Dataset | None, dataset: xr.Dataset | None, points: int
) -> None:
    """Regret over iterations, of the metrics of a run or of a sweep, and the entropy of play."""
    of_sweep = dataset is not None and "validation_regret" in dataset
    trained = dataset if of_sweep else None if metrics is None else metrics.rename(regret="training_regret")
    if trained is None:
        return
    dims = dims_of(trained)
    for name, curve in training_lines(trained).items():
        along = next(str(dim) for dim in curve["mean"].dims if str(dim) not in dims)
        kind = name if name == "entropy" else f"training.{name}"
        _add(settings, kind, {name: curve}, dims, along, points)
    level = final_regrets(dataset) if dataset is not None and not of_sweep else {}
    for setting in settings:
        # Validations are made at other iterations than updates.
        lines = {kind.removeprefix("training."): setting.pop(kind) for kind in [*setting] if "training." in kind}
        if lines:
            setting["training"] = lines
            setting["level"] = {name: plain([value])[0] for name, value in level.items()}


def _add_arms(settings: Sequence[dict[str, Any]], dataset: xr.Dataset) -> None:
    """Shares of scenarios by rank of the played arm, averaged over bins of rounds."""
    dims = dims_of(dataset)
    if "rank_frequency" in dataset:
        share = dataset["rank_frequency"].transpose(*dims, "rank", "round", ...)
        share = share.mean([dim for dim in share.dims if dim not in (*dims, "rank", "round")])
        by_agent = {TRAINED: share.to_numpy().reshape(-1, *share.shape[len(dims) :])}
    elif "rank" in dataset:
        ranks = dataset["rank"].transpose("agent", "scenario", "round")
        number = max(int(dataset.attrs.get("num_arms", 1)), int(ranks.max()) + 1)
        shares = np.stack([(ranks == rank).mean("scenario").to_numpy() for rank in range(number)], axis=1)
        by_agent = {str(name): shares[i][None] for i, name in enumerate(ranks["agent"].values)}
    else:
        return
    for number, setting in enumerate(settings):
        binned = {name: _binned(share[number]) for name, share in by_agent.items()}
        if any(one is not None for one in binned.values()):
            setting["arms"] = binned


def _binned(share: Float[np.ndarray, "K T"]) -> Mapping[str, Any] | None:
    """Means over at most `BINS` bins of rounds, of the ranks and rounds that there are."""
    known = np.isfinite(share)
    share = share[known.any(1)][:, known.any(0)]
    if not share.size:
        return None
    num_rounds = share.shape[1]
    edges = np.unique(np.linspace(0, num_rounds, min(num_rounds, BINS) + 1).round().astype(int))
    means = np.add.reduceat(share, edges[:-1], axis=1) / np.diff(edges)
    return {"edges": (edges + 1).tolist(), "shares": [plain(row) for row in means]}
