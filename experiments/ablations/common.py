"""What the ablations share: a question with its two sweeps, and what becomes of the answers."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
import xarray as xr

from experiments import comparison
from experiments.common import RESULTS, interval, provenance, run
from rmft_jax import Sweep
from rmft_jax.config import ConfigError, Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_kind, save_figure
from rmft_jax.running.files import RunError, replacing, write_json
from rmft_jax.statistics.bootstrap import t_interval
from rmft_jax.statistics.estimates import estimates, open_dims, text_of
from rmft_jax.statistics.tables import markdown_table, table
from rmft_jax.sweeps.plan import arms, describe, plan, run_flops

SEEDS = (0, 1, 2)
BANDIT_BASELINES = ("greedy", "thompson", "ucb1", "uniform")
# Three arms, 20 rounds, 40 iterations: seconds for a cell, to see that a script works.
QUICK: dict[str, Value] = {
    "num_arms": 3,
    "horizon": 20,
    "num_iterations": 40,
    "chunk_size": 20,
    "num_scenarios": 256,
    "step_size": 4e-3,
    "num_validation_scenarios": 256,
    "num_test_scenarios": 1024,
}
# Five arms, 50 rounds and the 20 million steps of the comparisons: about a minute for a cell.
FULL = comparison.COMMON | {"num_validation_scenarios": 1024, "num_test_scenarios": 4096}
# Mean floating-point operations per second of two CPU cores, for a rough estimate of time.
_FLOPS_PER_SECOND = 2e10


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked, and how the answer is shown.

    name: of the files of the answer.
    quick, full: the same question in minutes, which says nothing, and at the budget of the comparisons.
    figures: kind and options of `plot_kind`, by what the file's name has after `name`.
    rows, columns: dimensions of the table.
    base: the setting that others are compared with, seed by seed; those of one seed share their test scenarios.
    baselines: classical agents of the table, of those that the sweeps play; None for all.
    """

    name: str
    quick: Sweep
    full: Sweep
    figures: Mapping[str, tuple[str, Mapping[str, Any]]]
    rows: str
    columns: str | None = None
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    baselines: Sequence[str] | None = None


@pinned()
def main(*questions: Question) -> None:
    """The command line of a script."""

    def script(
        quick: bool = False, runs: Path = Path("runs/ablations"), dry_run: bool = False, ray: bool = False
    ) -> None:
        """Trains what is missing, then writes numbers, figures and tables into `experiments/results/ablations`.

        Args:
          quick: the small form, to see that it works; writes beside the runs.
          runs: where the sweeps go.
          dry_run: only say what would run, and a rough estimate for how long.
          ray: train cells side by side, each on a core of its own, with Ray.
        """
        try:
            for question in questions:
                sweep = question.quick if quick else question.full
                print("\n".join(describe(plan(sweep.expand()))))
                print(f"{question.name}: about {estimated_hours(sweep):.2g} hours on two CPU cores, beside compilation")
                if not dry_run:
                    place, results = (runs / "quick",) * 2 if quick else (runs, RESULTS / "ablations")
                    answer(question, sweep, place / question.name, results, ray)
        except (ConfigError, RunError) as error:
            raise SystemExit(str(error)) from None

    tyro.cli(script)


def estimated_hours(sweep: Sweep) -> float:
    """Roughly what the cells of a sweep take on two CPU cores, by a count of floating-point operations."""
    flops = sum(run_flops(cell.config, arms(cell.config), cell.config.rmft.horizon) for cell in sweep.expand())
    return flops / _FLOPS_PER_SECOND / 3600


def answer(question: Question, sweep: Sweep, directory: Path, results: Path, ray: bool = False) -> None:
    """Runs what is missing of a sweep, and writes its figures, its table and its numbers.

    Args:
      question: whose.
      sweep: its quick or full form.
      directory: of the sweep; what is finished there is not run again.
      results: folder of what is written.
      ray: whether cells are trained side by side.
    """
    dataset = run(sweep, directory, ray, may_fail=True)
    for part, (kind, options) in question.figures.items():
        save_figure(plot_kind(kind, dataset, **options), results / f"{question.name}{part}")
    text = table(dataset, question.rows, question.columns, baselines=question.baselines)
    if question.base:
        text += "\n" + _markdown(_differences(dataset, question.base), question.base)
    with replacing(results / f"{question.name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(results / f"{question.name}.json", _result(dataset, question))
    print(text)


def _result(dataset: xr.Dataset, question: Question) -> dict[str, Any]:
    found = {
        "question": question.name,
        **provenance(dataset),
        "spec": json.loads(dataset.attrs["spec"]),
        "failures": json.loads(dataset.attrs.get("failures", "{}")),
        "regret": dataset.attrs["regret"],
        "training_seconds": float(dataset["wall_seconds"].sum()),
        "cells": _cells(dataset),
    }
    return found | ({"minus_base": _differences(dataset, question.base)} if question.base else {})


def _cells(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Per setting, the regret at the horizon of every agent with its interval, and per seed that of the policy."""
    found, rows = estimates(dataset, "final_regret"), []
    for place in _settings(dataset):
        agents = {}
        for name, one in found.items():
            at = one.isel(place)
            numbers = [_plain(at[side]) for side in ("mean", "low", "high")]
            agents[name] = {"mean": numbers[0], "ci95": numbers[1:], "interval": str(at["interval"].values)}
        seeds = [_plain(value) for value in dataset["final_regret"].isel(place)]
        rows.append(_coordinates(dataset, place) | {"seeds": seeds, "agents": agents})
    return rows


def _differences(dataset: xr.Dataset, base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per setting, its regret at the horizon minus that of the base on the same seed, with an interval over seeds."""
    regret, rows = dataset["final_regret"], []
    for place in _settings(dataset):
        paired = (regret.isel(place) - regret.sel(dict(base))).to_numpy()
        paired = paired[np.isfinite(paired)]
        at = _coordinates(dataset, place)
        if len(paired) >= 2 and any(at[name] != value for name, value in base.items()):
            low, high = t_interval(paired)
            rows.append(at | {"mean": float(paired.mean()), "ci95": [float(low), float(high)]})
    return rows


def _settings(dataset: xr.Dataset) -> list[dict[str, int]]:
    dims = open_dims(dataset)
    return [
        dict(zip(dims, map(int, place), strict=True)) for place in np.ndindex(*(dataset.sizes[dim] for dim in dims))
    ]


def _coordinates(dataset: xr.Dataset, place: Mapping[str, int]) -> dict[str, Any]:
    return {dim: dataset[dim].values[i].item() for dim, i in place.items()}


def _plain(value: xr.DataArray) -> float | None:
    return None if math.isnan(float(value)) else float(value)


def _markdown(rows: Sequence[Mapping[str, Any]], base: Mapping[str, Any]) -> str:
    names = list(base)
    cells = [[*(text_of(row[name]) for name in names), interval(row, sign="+")] for row in rows]
    text = markdown_table([*names, "minus base"], cells, len(names))
    shown = ", ".join(f"{name} = {text_of(value)}" for name, value in base.items())
    said = f"Regret at the horizon minus that at {shown}, on the same seeds; 95% intervals: Student-t over seeds."
    return f"{text}\n\n{said}\n"
