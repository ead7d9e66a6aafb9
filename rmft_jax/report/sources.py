"""What a report is made from: the files of a run or a sweep, as far as they are there and whole."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from rmft_jax.config import ConfigError
from rmft_jax.running.files import RunError, as_text, read_dataset
from rmft_jax.running.storage import RunDirectory
from rmft_jax.statistics.estimates import IntervalName, is_sweep, with_intervals
from rmft_jax.sweeps.store import SweepDirectory, load_sweep

_MOST_VALUES = 6
# What a file that is there and makes no sense leads to, depending on what is wrong with it.
_DAMAGE = (ConfigError, RunError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)


@dataclasses.dataclass
class Source:
    """A run, a sweep, or one file of either.

    name: what the page calls it.
    path: where it is.
    settings: by name, as texts; those that a sweep varies have all their values.
    provenance: by name, as texts.
    results: an evaluation or the dataset of a sweep, if there is one.
    metrics: how a run was trained, if that is known.
    writes: whether its policy is a language model.
    missing: what is not there or cannot be shown, in sentences; grows while the page is made.
    """

    name: str
    path: Path
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)
    results: xr.Dataset | None = None
    metrics: xr.Dataset | None = None
    writes: bool = False
    missing: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Inside it, whatever files that are damaged lead to becomes a sentence about what is missing."""
        try:
            yield
        except _DAMAGE as error:
            told = str(error) if isinstance(error, ConfigError | RunError) else f"{type(error).__name__}: {error}"
            self.missing.append(f"{what}: {' '.join(told.split())}")


def open_sources(paths: Sequence[str | Path], intervals: IntervalName = "student") -> list[Source]:
    """What is at each of some places.

    Args:
      paths: directories of runs or sweeps, or netCDF files of either.
      intervals: of sweeps over seeds, as `statistics.estimates.with_intervals` has them.

    Raises:
      RunError: if there is nothing that rmft made at one of them.
      ConfigError: if there are no such intervals, or no paths.
    """
    places = list(dict.fromkeys(map(Path, paths)))
    if not places:
        raise ConfigError("got nothing to report on, need a run or a sweep; try `rmft report runs/quickstart`")
    names = [as_text(path.name or path.resolve().name) for path in places]
    found = []
    for path, name in zip(places, names, strict=True):
        source = Source(name if names.count(name) == 1 else as_text(path), path)
        _fill(source)
        if source.results is not None and is_sweep(source.results):
            source.results = with_intervals(source.results, intervals)
        found.append(source)
    return found


def _fill(source: Source) -> None:
    path = source.path
    if path.is_file():
        _of_file(source)
    elif (path / "sweep.json").is_file() or (path / "sweep.nc").is_file():
        _of_sweep(source)
    elif any((path / name).exists() for name in ("config.json", "metrics.nc", "evaluation.nc", "agents.nc")):
        _of_run(source)
    else:
        raise RunError(f"{path} is no run, no sweep and no file of either; try a directory that rmft made")


def _of_file(source: Source) -> None:
    dataset = read_dataset(source.path, "another file")
    if {"regret", "final_regret"} & set(dataset):
        trained = "iteration" in dataset.get("regret", xr.DataArray()).dims
        source.metrics, source.results = (dataset, None) if trained else (None, dataset)
        source.provenance |= _texts(_without(dataset.attrs, ("spec", "failures", "made_from")))
        _tell_failures(source)
        return
    raise RunError(f"{source.path} holds no regret; try the evaluation.nc of a run, or the sweep.nc of a sweep")


def _of_run(source: Source) -> None:
    run = RunDirectory(source.path)
    with source.guarded("settings"):
        if not run.exists():
            # What `rmft bench-agents --out` leaves, for one, has no settings.
            raise RunError(f"there is no {run.record_name}")
        record = run.read_record()
        source.settings = {name: str(value) for name, value in record["config"].items()}
        source.provenance["preset"] = str(record["preset"])
        source.writes = record["config"].get("policy") == "text"
    agents = source.path / "agents.nc"
    with source.guarded("evaluation"):
        alone = agents.is_file() and not run.exists()
        source.results = read_dataset(agents, "bench-agents again") if alone else run.read_dataset("evaluation.nc")
    if not (agents.is_file() and source.results is not None):
        with source.guarded("training"):
            source.metrics = run.read_dataset("metrics.nc")
    with source.guarded("provenance"):
        if (source.path / "summary.json").is_file():
            summary = _without(run.read_summary(), ("evaluation",))
            source.provenance |= _texts(summary)
        elif source.metrics is not None:
            source.provenance |= _texts(source.metrics.attrs)
    if source.metrics is not None and not (source.path / "summary.json").is_file():
        done = int(source.metrics.sizes.get("iteration", 0))
        total = source.settings.get("num_iterations", "?")
        source.missing.append(f"the run has not ended: {done} of {total} iterations are done")


def _of_sweep(source: Source) -> None:
    directory = SweepDirectory(source.path)
    with source.guarded("settings"):
        if not directory.exists():
            raise RunError(f"there is no {directory.record_name}")
        record = directory.read_record()
        flat = [cell["config"] for cell in record["cells"]]
        source.settings = {name: _values([one.get(name) for one in flat]) for name in flat[0]} if flat else {}
        source.writes = bool(flat) and all(one.get("policy") == "text" for one in flat)
        source.provenance |= {"preset": str(record["spec"].get("preset", "")), "cells": str(len(flat))}
        source.provenance |= _texts(record["provenance"])
    with source.guarded("results"):
        try:
            source.results = load_sweep(source.path, source.missing.append)
        except RunError as error:
            # The assembled file alone still tells what the cells held when it was made.
            if not (source.path / "sweep.nc").is_file():
                raise
            source.missing.append(f"sweep.json: {error}; shown is sweep.nc as it was made last")
            source.results = read_dataset(source.path / "sweep.nc", "`rmft sweep --resume`")
    if source.results is not None:
        _tell_failures(source)
        if "final_regret" not in source.results:
            source.missing.append("no cell has finished; try `rmft sweep --resume`")
            source.results = None


def _tell_failures(source: Source) -> None:
    """Says which cells of a sweep failed, and how many are missing."""
    dataset = source.results
    if dataset is None or "status" not in dataset:
        return
    told = dataset["status"].to_numpy().ravel().tolist()
    for state in ("failed", "missing"):
        if state in told:
            source.missing.append(f"{told.count(state)} of {len(told)} cells {state}")
    with source.guarded("messages of cells"):
        failures = json.loads(dataset.attrs.get("failures", "{}"))
        source.missing += [f"{label} failed: {message}" for label, message in failures.items()]


def _values(values: Sequence[Any]) -> str:
    """The values of a setting in all cells, as text."""
    texts = list(dict.fromkeys(map(str, values)))
    more = f", ... ({len(texts)} values)" if len(texts) > _MOST_VALUES else ""
    return ", ".join(texts[:_MOST_VALUES]) + more


def _without(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values by name as texts; those of a table, such as versions, on one line."""
    return {str(name): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    table = value
    if isinstance(value, str) and value.startswith("{"):  # NetCDF has no tables.
        with contextlib.suppress(ValueError):
            table = json.loads(value)
    return ", ".join(f"{key} {one}" for key, one in table.items()) if isinstance(table, Mapping) else str(value)
