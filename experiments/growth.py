"""Does regret grow without rate? Policies trained at every horizon, beside the strongest play that is known.

Trains on the bandit of `mab`, five arms with uniform prior, for every T by itself, equal iterations at each, and fits
`c T^β` and `a + b log T` to regret at T, of the trained policies and of the agents beside them. The same policies also
play arms of which one is better by `2 / sqrt(T)`: the hardest gaps, which they have not been trained on. An interrupted
script goes on where it stopped, and horizons may be run one after the other, anywhere: what `growth.json` holds stays.
Writes that file and figures into `experiments/results`.

    python -m experiments.growth [--horizons 25 50 100 200 400] [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tyro
import xarray as xr

from experiments.cells import SHARED, Row, at_half, dataset_of, joined, kept_rows, rows_of
from experiments.common import PROVENANCE, QUICK, Options, describe_seeds, provenance, run, without
from experiments.comparison import LISTED
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_growth, save_figure
from rmft_jax.running.files import write_json
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.statistics.horizons import horizon_growth
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory

RIVALS = ("gittins", "posterior_index", "thompson", "ucb1", "uniform")
BUDGET: dict[str, Value] = {
    **LISTED,
    "step_size": 2e-3,
    "num_iterations": 400,
    "num_scenarios": 512,
    "num_minibatches": 4,
    "chunk_size": 20,
}
"""Of every horizon: at T = 50 twice the env-steps of `mab`, of a network that is told of its arms in a list."""
DIMS = ("horizon", "seed")
PLACES = ("uniform", "hard")


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options], horizons: tuple[int, ...] = (25, 50, 100, 200, 400)) -> None:
    """Trains what is missing, then writes the numbers and the figures.

    Args:
      options: those of every script.
      horizons: T. Those that stand in the results already, of the same budget, stay there and in the figures. None, a
        bare `--horizons`: what stands there is described and drawn anew.
    """
    changes = BUDGET | (without(QUICK, "horizon") if options.quick else {})
    path = options.results / "growth.json"
    rows = kept_rows(path, changes)
    if horizons or not rows:
        new, made = trained_rows(horizons, changes, options)
        rows = joined(rows, new, ["place", *DIMS, "agent"])
    else:
        made = {name: json.loads(path.read_text(encoding="utf-8"))[name] for name in PROVENANCE}
    # A horizon is in figures and fits once all of its seeds are there.
    found = {place: dataset_of([row for row in rows if row["place"] == place], DIMS) for place in PLACES}
    places = {place: dataset.dropna("horizon", subset=["final_regret"]) for place, dataset in found.items()}
    places = {place: dataset for place, dataset in places.items() if dataset.sizes["horizon"] > 1}
    described_places = {place: described(dataset) for place, dataset in places.items()}
    write_json(path, {"budget": changes, **made, "places": described_places, "cells": rows})
    for place, dataset in places.items():
        figure = plot_growth(dataset, baselines=RIVALS[:4])
        save_figure(figure, options.results / ("growth" if place == "uniform" else f"growth_{place}"))


def trained_rows(
    horizons: Sequence[int], changes: Mapping[str, Value], options: Options
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of every horizon, trained where that is missing, and where they come from."""
    directory = options.runs / ("growth" + "-quick" * options.quick)
    if SweepDirectory(directory).exists():
        begun = SweepDirectory.open(directory).sweep.grid
        horizons = tuple(dict.fromkeys((*(int(T) for T in begun["horizon"]), *horizons)))
    grid = {"horizon": list(horizons), "seed": list(options.seeds)}
    trained = run(Sweep("mab", grid=grid, override=changes, baselines=RIVALS), directory, options.ray)
    played = dict(zip(PLACES, (at_half(trained), beside_small_gaps(directory, grid)), strict=True))
    rows = [row for place, dataset in played.items() for row in rows_of(dataset, trained, DIMS, place=place)]
    return rows, provenance(trained)


def beside_small_gaps(directory: Any, grid: dict[str, Any]) -> xr.Dataset:
    """The same where one arm is better by `2 / sqrt(T)`, on scenarios of every seed's own."""
    files = SweepDirectory.open(directory)
    rows: list[xr.Dataset] = []
    for T in grid["horizon"]:
        own: list[xr.Dataset] = []
        for seed in grid["seed"]:
            policy = files.read_weights({"horizon": T, "seed": seed})
            axes: dict[str, Sequence[Value]] = {"prior": ["fixed_gap"], "gap": [2 / math.sqrt(T)]}
            played = evaluate_grid(policy.config, policy.agent, axes, baselines=RIVALS).squeeze(drop=True)
            missed = played["suff_fail_freq"].sel(round=half_horizon(T), drop=True)
            own.append(played.assign(missed=missed)[[*SHARED, "missed"]])
        rows.append(xr.concat(own, xr.Variable("seed", grid["seed"])))
    return xr.concat(rows, xr.Variable("horizon", grid["horizon"]))


def described(dataset: xr.Dataset) -> dict[str, Any]:
    """Per agent regret at every horizon and the two laws; of the trained policy also SuffFailFreq(T/2)."""
    agents = {"rmft": dataset["final_regret"]} | {
        name: dataset["baseline_final_regret"].sel(agent=name, drop=True) for name in RIVALS
    }
    found: dict[str, Any] = {}
    for name, regret in agents.items():
        law = horizon_growth(regret)
        found[name] = {
            "regret": _per_horizon(regret),
            "exponent": law.exponent._asdict(),
            "slope": law.slope._asdict(),
            "misfit": {"power": law.power_misfit, "log": law.log_misfit},
        }
    found["rmft"]["suff_fail_freq"] = _per_horizon(dataset["missed"])
    # Of a ratio the exponent is the difference of two, seed by seed.
    found["rmft"]["exponent_minus"] = {
        name: horizon_growth(agents["rmft"] / agents[name]).exponent._asdict() for name in RIVALS
    }
    found["rmft"]["ratio_to_gittins"] = _per_horizon(agents["rmft"] / agents["gittins"])
    return found


def _per_horizon(values: xr.DataArray) -> dict[str, Any]:
    return {str(int(T)): describe_seeds(values.sel(horizon=T).to_numpy().tolist()) for T in values["horizon"]}


if __name__ == "__main__":
    tyro.cli(main)
