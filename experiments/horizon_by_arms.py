"""The map: policies trained at every horizon and arm count, beside the strongest play that is known.

`horizon_by_arms.toml` says what is trained. It may be run in parts, by seeds, horizons and arm counts, one after the
other and anywhere: what `horizon_by_arms.json` holds of earlier parts stays. An interrupted script goes on where it
stopped. Writes that file and a map of regret relative to the Gittins index into `experiments/results`.

    python -m experiments.horizon_by_arms [--seeds 0 1 2] [--horizons 25 50] [--num-arms 2 5] [--runs DIR] [--ray]
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
import xarray as xr

from experiments.cells import at_half, dataset_of, joined, kept_rows, rows_of, train_cells
from experiments.common import QUICK, Options, describe_seeds, interval, provenance, without
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_heatmap, save_figure
from rmft_jax.running.files import write_json
from rmft_jax.statistics.tables import markdown_table
from rmft_jax.sweeps.spec import Sweep

FILE = Path(__file__).with_suffix(".toml")
DIMS = ("num_arms", "horizon", "seed")


@pinned()
def main(
    options: tyro.conf.OmitArgPrefixes[Options], horizons: tuple[int, ...] = (), num_arms: tuple[int, ...] = ()
) -> None:
    """Trains what is missing, then writes the numbers and the map.

    Args:
      options: those of every script.
      horizons: T of the file that are run; all if not given.
      num_arms: K of the file that are run; all if not given.
    """
    whole = whole_map(options.quick)
    path = options.results / f"{FILE.stem}.json"
    earlier = kept_rows(path, whole.override)
    points = points_of(whole, {"seed": options.seeds, "horizon": horizons, "num_arms": num_arms})
    trained = train_cells(whole, points, directory_of(options), options.ray)
    rows = joined(earlier, rows_of(at_half(trained), trained, DIMS), [*DIMS, "agent"])
    dataset = dataset_of(rows, DIMS)
    complete = dataset.where(dataset["final_regret"].notnull().all("seed"))
    write_json(path, {"budget": whole.override, **provenance(trained), **described(complete), "cells": rows})
    if min(complete.sizes[dim] for dim in ("num_arms", "horizon")) > 1:
        save_figure(plot_heatmap(complete, relative_to="gittins"), options.results / FILE.stem)


def whole_map(quick: bool = False) -> Sweep:
    """What the file says is trained; with `quick` in seconds."""
    sweep = Sweep.from_toml(FILE)
    changes = without(QUICK, "horizon") if quick else {}
    return dataclasses.replace(sweep, override={**sweep.override, **changes})


def directory_of(options: Options) -> Path:
    """Where its policies are, which other scripts play as well."""
    return options.runs / f"{FILE.stem}{'-quick' * options.quick}"


def points_of(sweep: Sweep, wanted: dict[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """The cells of a sweep whose settings are among those wanted; an empty list wants all."""
    product = (dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values()))
    found = [
        point for point in map(dict, (*product, *sweep.cells))
        if all(not values or point[name] in values for name, values in wanted.items())
    ]  # fmt: skip
    if not found:
        raise SystemExit(f"got {wanted}, need values of {FILE.name}; try without --horizons and --num-arms")
    return found


def described(dataset: xr.Dataset) -> dict[str, Any]:
    """By K and T, of cells whose seeds are all there, regret over that of the Gittins index, and SuffFailFreq(T/2)."""
    classical = dataset[["baseline_final_regret", "baseline_missed"]]
    gittins, thompson = (classical.sel(agent=name, drop=True) for name in ("gittins", "thompson"))
    numbers = {
        "ratio_to_gittins": dataset["final_regret"] / gittins["baseline_final_regret"],
        "thompson_to_gittins": thompson["baseline_final_regret"] / gittins["baseline_final_regret"],
        "suff_fail_freq": dataset["missed"],
        "suff_fail_freq_minus_gittins": dataset["missed"] - gittins["baseline_missed"],
    }
    found: dict[str, Any] = {name: {} for name in numbers}
    for K, T in itertools.product(dataset["num_arms"].values.tolist(), dataset["horizon"].values.tolist()):
        for name, values in numbers.items():
            seeds = values.sel(num_arms=K, horizon=T).to_numpy().tolist()
            if len(seeds) > 1 and not math.isnan(sum(seeds)):
                found[name].setdefault(str(K), {})[str(T)] = describe_seeds(seeds)
    return found


def table(found: dict[str, dict[str, Any]], sign: str = "") -> str:
    """A number of `described` in every cell of the map that is whole; with `sign="+"` their signs."""
    horizons = sorted({T for row in found.values() for T in row}, key=int)
    body = [[K, *(interval(row[T], sign=sign) if T in row else "" for T in horizons)] for K, row in found.items()]
    return markdown_table(("K", *(f"T = {T}" for T in horizons)), body)


if __name__ == "__main__":
    tyro.cli(main)
