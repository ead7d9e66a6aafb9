"""The dataset of a sweep to means with 95% intervals.

A sweep's dataset holds `final_regret` over what the sweep varies, `regret` over that and `round`, and so on. Training
seeds are averaged. The interval of a trained policy is Student's over seeds, which covers the test scenarios too,
because each seed has its own; with a single seed it is 1.96 standard errors over scenarios. Classical agents are not
trained: theirs is 1.96 standard errors over the scenarios of all seeds together.

Student's interval of two seeds is 12.7 standard errors wide to each side, which says little. `with_intervals` chooses a
hierarchical bootstrap instead, which resamples seeds and, by their standard errors, the scenarios of each. It is
useful from two seeds on, and too narrow for few of them: seeds that were not trained cannot be drawn. No interval of a
regret that cannot be negative goes below 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either, require
from rmft_jax.config.names import TRAINED, is_trained
from rmft_jax.statistics.bootstrap import Interval, hierarchical_interval, t_interval

_SEED, NO_INTERVAL = "seed", "none"
_TOO_FEW = "Student-t over 2 seeds, which are too few: 12.7 standard errors to each side"
_NEVER_NEGATIVE = ("pseudo", "dynamic", "swap")
IntervalName = Literal["student", "hierarchical"]
"""How the interval of a trained policy over seeds is made."""


def agents_among(known: Sequence[str], baselines: Sequence[str] | None) -> list[str]:
    """All agents; or the trained ones and the classical ones that are named, of which each must be known."""
    classical = [name for name in known if not is_trained(name)]
    for name in baselines or ():
        require(name in classical, f"baseline {name!r}", f"one of {', '.join(classical) or 'none'}", "another name")
    return list(known) if baselines is None else [*filter(is_trained, known), *dict.fromkeys(baselines)]


def is_sweep(dataset: xr.Dataset) -> bool:
    """Whether a dataset is a sweep's, and not one evaluation with all its scenarios."""
    return "final_regret" in dataset


def sweep_dims(dataset: xr.Dataset) -> list[str]:
    """The dimensions of a sweep other than its training seeds."""
    return [str(dim) for dim in dataset["final_regret"].dims if dim != _SEED]


def open_dims(dataset: xr.Dataset) -> list[str]:
    """Those of them with more than one value."""
    return [dim for dim in sweep_dims(dataset) if dataset.sizes[dim] > 1]


def is_numeric(dataset: xr.Dataset, dim: str) -> bool:
    """Whether the values along a dimension are numbers."""
    kind = dataset[dim].dtype.kind
    return kind in "iuf" or (kind == "O" and all(isinstance(value, int | float) for value in dataset[dim].values))


def with_intervals(dataset: xr.Dataset, intervals: IntervalName) -> xr.Dataset:
    """The sweep with another choice of intervals over seeds, for figures and tables of it.

    Raises:
      ConfigError: if there are no such intervals.
    """
    known = get_args(IntervalName)
    require(intervals in known, f"intervals={intervals!r}", f"one of {', '.join(known)}", "intervals='student'")
    ok = intervals == "student" or is_sweep(dataset)
    require(ok, f"intervals={intervals!r} of a single run", "a sweep over seeds for them", "intervals='student'")
    return dataset.assign_attrs(intervals=intervals)


def text_of(value: Any) -> str:
    """A value of a dimension, as figures and tables write it."""
    value = value.item() if isinstance(value, np.generic) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def select(dataset: xr.Dataset, choice: Mapping[str, Any]) -> xr.Dataset:
    """Part of a sweep: along each name one value, which removes the dimension, or a sequence of them, which keeps it.

    Names are those of dimensions, `seed` included, or of coordinates along one. A number may be a text.

    Raises:
      ConfigError: for a name or a value that the sweep does not have.
    """
    dataset = _labelled(dataset)
    for name, wanted in choice.items():
        lines = [str(c) for c in dataset.coords if set(dataset[c].dims) <= {_SEED, *sweep_dims(dataset)}]
        lines = [c for c in lines if dataset[c].ndim == 1]
        require(name in lines, f"a selection of {name!r}", f"one of {', '.join(lines) or 'none'}", "another name")
        values, dim = dataset[name].values, dataset[name].dims[0]
        several = isinstance(wanted, Sequence | np.ndarray) and not isinstance(wanted, str)
        known = ", ".join(dict.fromkeys(map(text_of, values)))
        places: list[int] = []
        for one in wanted if several else [wanted]:
            found = _places(values, one)
            require(bool(found), f"{name}={one}", f"one of {known}", f"{name}={text_of(values[-1])}")
            places += [place for place in found if place not in places]
        dataset = dataset.isel({dim: places[0] if not several and len(places) == 1 else places})
    return dataset


def _labelled(dataset: xr.Dataset) -> xr.Dataset:
    """Dimensions without values of their own, such as that of scattered cells, get those along them, as texts."""
    for dim in (dim for dim in sweep_dims(dataset) if dim not in dataset.coords):
        along = [str(name) for name in dataset.coords if dataset[name].dims == (dim,)]
        texts = [
            ",".join(f"{name}={text_of(dataset[name].values[i])}" for name in along) or str(i)
            for i in range(dataset.sizes[dim])
        ]
        dataset = dataset.assign_coords({dim: texts})
    return dataset


def _places(values: np.ndarray, wanted: Any) -> list[int]:
    """Where a value is: as a number, else as it is printed, else but for rounding, which whole numbers have none of."""
    number, text = _number(wanted), text_of(wanted).lower()
    close = [np.nan if isinstance(value, int | np.integer) else _number(value) for value in values]
    for same in (
        [_number(value) == number for value in values],
        [text_of(value).lower() == text for value in values],
        np.isclose(close, number, rtol=1e-6, atol=0),
    ):
        if found := [place for place, ok in enumerate(same) if ok]:
            return found
    return []


def _number(value: Any) -> float:
    """As a number; NaN, which equals nothing, if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def selection_of(dim: str, value: Any) -> str:
    """What selects a value of a dimension on the command line: of the label of scattered cells, what it is made of."""
    return text_of(value) if dim in ("cell", "zip") else f"{dim}={text_of(value)}"


def require_closed(dataset: xr.Dataset, kept: Sequence[str]) -> xr.Dataset:
    """The dataset without dimensions of one value, `kept` and seeds excepted.

    Raises:
      ConfigError: if another dimension has several values, or `kept` names none.
    """
    dims = sweep_dims(dataset)
    for name in kept:
        need = f"one of {', '.join(dims) or 'none, as there are none'}"
        require(name in dims, f"dimension {name!r}", need, "another")
    left = [dim for dim in open_dims(dataset) if dim not in kept]
    if left:
        known = "; ".join(f"{dim} ({', '.join(map(text_of, dataset[dim].values))})" for dim in left)
        last = {dim: dataset[dim].values[-1].item() for dim in left}
        words = " ".join(f"--select {selection_of(dim, value)}" for dim, value in last.items())
        tried = either(words, f"select={last}")
        raise ConfigError(f"got several values of {known}, need one of each; try {tried}")
    return dataset.squeeze([dim for dim in dims if dim not in kept])


def estimate(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """A variable's mean over training seeds with its 95% interval.

    Seeds whose value is NaN, those that failed, do not count.

    Args:
      dataset: a sweep; beside the variable `name` it may hold `name_sem`, a standard error over scenarios, or
        `name_low` and `name_high`, an interval of each seed.
      name: the variable. That of a classical agent begins with `baseline_`.

    Returns:
      `mean`, `low`, `high` (NaN where there is no interval), `num_seeds` and `interval`, which says what it is, over
      the variable's dimensions but the seeds. The interval over seeds is that of `with_intervals`.
    """
    values = _with_seeds(dataset[name])
    given = {end: _with_seeds(dataset[f"{name}_{end}"]) for end in ("sem", "low", "high") if f"{name}_{end}" in dataset}
    count, mean = values.notnull().sum(_SEED), values.mean(_SEED)
    over_seeds: xr.DataArray = (count >= 2) & ("sem" not in given or not name.startswith("baseline_"))
    alone = {side: given[side].mean(_SEED) if side in given else np.nan for side in ("low", "high")}
    if "sem" in given:
        pooled = 1.96 * np.sqrt((given["sem"].where(values.notnull()) ** 2).sum(_SEED)) / count
        alone = {"low": mean - pooled, "high": mean + pooled}
    axis, hierarchical = values.get_axis_num(_SEED), dataset.attrs.get("intervals") == "hierarchical"
    if hierarchical:
        sems = given["sem"].transpose(*values.dims).to_numpy() if "sem" in given else np.zeros(values.shape)
        bounds = hierarchical_interval(values.to_numpy(), sems, axis)
    else:
        bounds = t_interval(values.to_numpy(), axis)
    found = estimate_of(mean, bounds, "").assign(num_seeds=count)
    found = found.assign({side: found[side].where(over_seeds, bound) for side, bound in alone.items()})
    if "regret" in name and "minus" not in name and dataset.attrs.get("regret") in _NEVER_NEGATIVE:
        found["low"] = found["low"].clip(0.0)
    words_of = (_HIERARCHICAL if "sem" in given else _BOOTSTRAP) if hierarchical else _student
    single = "1.96 standard errors over scenarios" if "sem" in given else "bootstrap over scenarios"
    words = xr.apply_ufunc(np.vectorize(words_of, otypes=[object]), count)
    return found.assign(interval=words.where(over_seeds, single).where(found["low"].notnull(), NO_INTERVAL))


_BOOTSTRAP = "bootstrap over {} seeds".format
_HIERARCHICAL = "hierarchical bootstrap over {} seeds and their scenarios".format


def _student(count: float) -> str:
    return _TOO_FEW if count == 2 else f"Student-t over {count} seeds"


def _with_seeds(array: xr.DataArray) -> xr.DataArray:
    if _SEED in array.dims:
        return array
    # Along another dimension, whose cells differ in their seeds too, it says nothing of what is averaged.
    alone = _SEED in array.coords and array[_SEED].ndim == 0
    return (array if alone else array.drop_vars(_SEED, errors="ignore")).expand_dims(_SEED)


def estimates(dataset: xr.Dataset, name: str) -> dict[str, xr.Dataset]:
    """`estimate` of the trained policy and of every classical agent that has the variable, by agent."""
    found = {TRAINED: estimate(dataset, name)}
    if f"baseline_{name}" in dataset:
        classical = estimate(dataset, f"baseline_{name}")
        found |= {str(agent): classical.sel(agent=agent) for agent in classical["agent"].values}
    return found


def estimate_of(mean: xr.DataArray, bounds: Interval, interval: str) -> xr.Dataset:
    """`mean`, `low`, `high` and `interval` as `estimate` returns them, of a mean whose interval is known."""
    low, high = (mean.copy(data=bound) for bound in bounds)
    return xr.Dataset({"mean": mean, "low": low, "high": high, "interval": xr.full_like(mean, interval, object)})


def lost_seeds(dataset: xr.Dataset) -> str:
    """Of how many runs of a sweep other seeds have to stand in, such as "2 of 12 runs failed or are missing"; or empty.

    Settings of which no run has finished do not count: they have no mean that could mislead.
    """
    if "status" not in dataset or _SEED not in dataset["status"].dims:
        return ""
    status = dataset["status"].transpose(..., _SEED).to_numpy()
    runs = status.reshape(-1, status.shape[-1])
    begun, known = (runs == "finished").any(axis=1), int((runs != "absent").sum())
    lost = int(np.isin(runs[begun], ("failed", "missing")).sum())
    return f"{lost} of {known} runs failed or are missing, means are those of other seeds" * bool(lost)


def intervals_of(found: Iterable[tuple[str, xr.Dataset]]) -> str:
    """What the intervals of agents are, as text, such as "Student-t over 3 seeds (rmft, rmft_start)"."""
    said: dict[str, dict[str, None]] = {}
    for name, one in found:
        for text in dict.fromkeys(map(str, one["interval"].values.flat)):
            said.setdefault(text, {})[name] = None
    said.pop(NO_INTERVAL, None)
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in said.items()) or NO_INTERVAL


def rows_of(found: xr.Dataset, dims: Sequence[str], **head: str) -> list[dict[str, Any]]:
    """An estimate as rows: its values along `dims` as texts, what `head` says, the numbers, what the interval is."""
    rows = []
    for place in np.ndindex(*(found.sizes[dim] for dim in dims)):
        cell = found.isel(dict(zip(dims, place, strict=True)))
        numbers = {side: float(cell[side]) for side in ("mean", "low", "high")}
        told = {"num_seeds": int(cell["num_seeds"]), "interval": str(cell["interval"].values)}
        rows.append({dim: text_of(cell[dim].values[()]) for dim in dims} | head | numbers | told)
    return rows
