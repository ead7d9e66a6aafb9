"""Numbers of sweeps that are run in parts, in several places: a row for every cell and agent, which a JSON file keeps.

A part that is run anew replaces its rows; those of other parts stay, each with the commit and the device it comes from.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from experiments.common import run
from rmft_jax.config import Value
from rmft_jax.config.names import TRAINED
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory

SHARED = ("final_regret", "final_regret_sem", "baseline_final_regret", "baseline_final_regret_sem")
"""What sweeps and evaluations over a grid both know of regret at T."""
Row = dict[str, Any]


def kept_rows(path: Path, budget: Mapping[str, Value]) -> list[Row]:
    """The rows that a file holds of earlier parts; none if there is no file.

    Raises:
      SystemExit: if they were trained with another budget.
    """
    if not path.is_file():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["budget"] != budget:
        raise SystemExit(f"got {path} of the budget {earlier['budget']}, need {dict(budget)}; try to move it away")
    return earlier["cells"]


def train_cells(sweep: Sweep, points: Sequence[Mapping[str, Value]], directory: Path, ray: bool = False) -> xr.Dataset:
    """Trains what is missing of some cells of a sweep, and of those that its directory was begun with; its dataset.

    Args:
      sweep: what the cells share.
      points: the cells' settings. One that diverges is told, and has no numbers.
      directory: of the sweep, which keeps the policies.
      ray: whether cells are trained side by side.
    """
    begun = SweepDirectory.open(directory).sweep.cells if SweepDirectory(directory).exists() else ()
    cells: list[dict[str, Value]] = []
    for point in map(dict, (*begun, *points)):
        if point not in cells:
            cells.append(point)
    return run(dataclasses.replace(sweep, grid={}, cells=cells), directory, ray, may_fail=True)


def at_half(dataset: xr.Dataset) -> xr.Dataset:
    """What of a sweep over horizons goes into rows: regret at T, and SuffFailFreq at half of each T as `missed`."""
    names = {"suff_fail_freq": "missed", "baseline_suff_fail_freq": "baseline_missed"}
    missed = [dataset[[*names]].sel(horizon=T, round=half_horizon(int(T)), drop=True) for T in dataset["horizon"]]
    return dataset[list(SHARED)].merge(xr.concat(missed, dataset["horizon"]).rename(names))


def rows_of(dataset: xr.Dataset, trained: xr.Dataset, dims: Sequence[str], **known: Value) -> list[Row]:
    """A row for every cell and agent.

    Args:
      dataset: regret and `missed` over `dims`, as `at_half` has them.
      trained: the sweep that the policies come from.
      dims: what the cells differ in.
      known: further columns, such as where it was played.
    """
    source = known | {name: trained.attrs[name] for name in ("git_commit", "device")}
    rows = []
    for values in itertools.product(*(dataset[dim].values.tolist() for dim in dims)):
        where = dict(zip(dims, values, strict=True))
        one, agents = dataset.sel(where), [TRAINED, *map(str, dataset["agent"].values)]
        if math.isnan(float(one["final_regret"])):
            continue  # No such cell.
        for name in agents:
            prefix, own = ("", one) if name == TRAINED else ("baseline_", one.sel(agent=name))
            row = {"agent": name, "regret": float(own[f"{prefix}final_regret"])}
            row["sem"] = float(own[f"{prefix}final_regret_sem"])
            if f"{prefix}missed" in own:
                row["missed"] = float(own[f"{prefix}missed"])
            if name == TRAINED:
                row["wall_seconds"] = float(trained["wall_seconds"].sel(where))
            rows.append({**source, **where, **row})
    return rows


def joined(earlier: Sequence[Row], new: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """All rows, in the order of the columns `names`, which say what a row is of; new ones replace earlier ones."""
    found = {tuple(row[name] for name in names): row for row in (*earlier, *new)}
    return [found[name] for name in sorted(found)]


def dataset_of(rows: Sequence[Row], dims: Sequence[str]) -> xr.Dataset:
    """Rows as a sweep over `dims`; cells that were not run are NaN."""
    table = pd.DataFrame(rows).set_index(["agent", *dims])[["regret", "sem", "missed"]].to_xarray()
    own, others = table.sel(agent=TRAINED, drop=True), table.drop_sel(agent=TRAINED)
    found = xr.Dataset({"final_regret": own["regret"], "final_regret_sem": own["sem"], "missed": own["missed"]})
    found = found.assign(baseline_final_regret=others["regret"], baseline_final_regret_sem=others["sem"])
    found = found.assign(baseline_missed=others["missed"])
    return found.assign_attrs(regret="pseudo")
