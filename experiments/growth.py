"""Does regret grow without rate? Policies trained at every horizon, beside the strongest play that is known.

The policies are those of the map of horizons by arms (`horizon_by_arms.toml`) with five arms and uniform prior, trained
for every T by itself, equal iterations at each: what the map has trained is not trained again. Fits `c T^β` and
`a + b log T` to regret at T, of the trained policies and of the agents beside them. The same policies also play arms of
which one is better by `2 / sqrt(T)`: the hardest gaps, which they have not been trained on. An interrupted script goes
on where it stopped, and horizons may be run one after the other, anywhere: what `growth.json` holds stays. Writes that
file and figures into `experiments/results`.

    python -m experiments.growth [--horizons 25 50 100 200 400] [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
import xarray as xr

from experiments.cells import SHARED, Row, at_half, dataset_of, joined, kept_rows, rows_of, train_cells
from experiments.common import PROVENANCE, Options, describe_seeds, provenance
from experiments.horizon_by_arms import directory_of, whole_map
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_growth, save_figure
from rmft_jax.running.files import write_json
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.statistics.horizons import horizon_growth
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.store import SweepDirectory

RIVALS = ("gittins", "posterior_index", "thompson", "ucb1", "uniform")
NUM_ARMS = 5
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
    path, budget = options.results / "growth.json", whole_map(options.quick).override
    rows = kept_rows(path, budget)
    if horizons or not rows:
        new, made = trained_rows(horizons, options)
        rows = joined(rows, new, ["place", *DIMS, "agent"])
    else:
        made = {name: json.loads(path.read_text(encoding="utf-8"))[name] for name in PROVENANCE}
    # A horizon is in figures and fits once all of its seeds are there.
    found = {place: dataset_of([row for row in rows if row["place"] == place], DIMS) for place in PLACES}
    places = {place: dataset.dropna("horizon", subset=["final_regret"]) for place, dataset in found.items()}
    places = {place: dataset for place, dataset in places.items() if dataset.sizes["horizon"] > 1}
    described_places = {place: described(dataset) for place, dataset in places.items()}
    write_json(path, {"budget": budget, **made, "places": described_places, "cells": rows})
    for place, dataset in places.items():
        figure = plot_growth(dataset, baselines=RIVALS[:4])
        save_figure(figure, options.results / ("growth" if place == "uniform" else f"growth_{place}"))


def trained_rows(horizons: Sequence[int], options: Options) -> tuple[list[Row], dict[str, Any]]:
    """The rows of every horizon, trained where that is missing, and where they come from."""
    directory = directory_of(options)
    points = [{"horizon": T, "num_arms": NUM_ARMS, "seed": seed} for T in horizons for seed in options.seeds]
    trained = train_cells(whole_map(options.quick), points, directory, options.ray)
    trained = trained.sel(num_arms=NUM_ARMS, horizon=list(horizons), seed=list(options.seeds))
    played = dict(zip(PLACES, (at_half(trained), beside_small_gaps(directory, trained)), strict=True))
    rows = [row for place, dataset in played.items() for row in rows_of(dataset, trained, DIMS, place=place)]
    return rows, provenance(trained)


def beside_small_gaps(directory: Path, trained: xr.Dataset) -> xr.Dataset:
    """The same where one arm is better by `2 / sqrt(T)`, on scenarios of every seed's own."""
    files = SweepDirectory.open(directory)
    found: list[xr.Dataset] = []
    for T, seed in itertools.product(trained["horizon"].values.tolist(), trained["seed"].values.tolist()):
        if math.isnan(float(trained["final_regret"].sel(horizon=T, seed=seed))):
            continue  # Diverged in training.
        policy = files.read_weights({"horizon": T, "num_arms": NUM_ARMS, "seed": seed})
        axes: dict[str, Sequence[Value]] = {"prior": ["fixed_gap"], "gap": [2 / math.sqrt(T)]}
        played = evaluate_grid(policy.config, policy.agent, axes, baselines=RIVALS).squeeze(drop=True)
        missed = played["suff_fail_freq"].sel(round=half_horizon(T), drop=True)
        found.append(played.assign(missed=missed)[[*SHARED, "missed"]].expand_dims(horizon=[T], seed=[seed]))
    return xr.combine_by_coords(found, combine_attrs="drop_conflicts")  # pyright: ignore[reportReturnType]


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
