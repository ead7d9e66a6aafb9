"""What sharing programs saves: 75 cells as one sweep, against the same cells one by one in fresh compilations.

Five horizons, five arm counts, three seeds. Both ways run in this process with the same engine, first the sweep, then
every cell at its own size, with all of JAX's caches cleared before each. Compared are wall time, compilations, and the
results themselves.

    python -m experiments.benchmarks.sweep [--json experiments/benchmarks/results/sweep.json] [--every 1]
"""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import tyro
import xarray as xr
from rich.progress import track

from experiments.benchmarks.measure import compilations
from rmft_jax import Sweep, load_sweep
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance
from rmft_jax.sweeps.batches import Task, run_task
from rmft_jax.sweeps.plan import Group, describe, plan
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.run import run_sweep
from rmft_jax.sweeps.spec import Cell

SWEEP = Sweep(
    preset="quickstart",
    grid={"horizon": [10, 20, 30, 40, 50], "num_arms": [2, 3, 4, 5, 6], "seed": [0, 1, 2]},
    override={
        "num_iterations": 20,
        "chunk_size": 10,
        "num_scenarios": 64,
        "num_validation_scenarios": 256,
        "num_test_scenarios": 1024,
    },
)


def alone(cell: Cell) -> tuple[xr.Dataset, float, int]:
    """A cell by itself, unpadded and freshly compiled: its dataset, seconds, and compilations."""
    jax.clear_caches()
    group = Group((cell,), cell.config, ())
    with compilations() as found:
        started = time.perf_counter()
        (result,) = run_task(Task(group, (cell,), (0,), None), Programs(group), None, lambda done, regret: None)
        seconds = time.perf_counter() - started
    assert result.dataset is not None, result.failure
    return result.dataset, seconds, len(found)


def compare(own: xr.Dataset, shared: xr.Dataset) -> dict[str, float]:
    """How far a cell of the sweep is from the same cell alone."""
    difference = float(shared["final_regret"] - own["final_regret"])
    both = float(np.hypot(own["final_regret_sem"], shared["final_regret_sem"]))
    return {
        "first_iteration_regret": abs(float(shared["training_regret"][0] - own["training_regret"][0])),
        "first_iteration_loss": abs(float(shared["loss"][0] - own["loss"][0])),
        "final_regret": abs(difference),
        "final_regret_standard_errors": abs(difference) / both,
    }


def main(json: Path = Path("experiments/benchmarks/results/sweep.json"), every: int = 1) -> None:
    """Runs both ways and writes the comparison.

    Args:
      json: file for the result.
      every: only every so many cells are run alone, and their total is scaled up; 1 runs all.
    """
    groups = plan(SWEEP.expand())
    print("\n".join(describe(groups)))
    jax.clear_caches()
    with tempfile.TemporaryDirectory() as folder:
        with compilations() as found:
            outcome = run_sweep(SWEEP, folder, overwrite=True)
        dataset = load_sweep(folder)
    cells = [cell for group in groups for cell in group.cells]
    chosen = cells[::every]
    seconds, compiled, differences = [], [], []
    for cell in track(chosen, "one by one"):
        own, duration, count = alone(cell)
        seconds.append(duration)
        compiled.append(count)
        differences.append(compare(own, dataset.sel(cell.coordinates)))
    total = float(np.mean(seconds)) * len(cells)
    result = {
        **provenance(),
        "cells": len(cells),
        "groups": len(groups),
        "programs": 3 * len(groups),
        "compilations": len(found),
        "sweep_seconds": outcome.seconds,
        "cells_run_alone": len(chosen),
        "alone_seconds": total,
        "alone_seconds_spread": [float(np.quantile(seconds, q)) for q in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "alone_compilations": float(np.mean(compiled)) * len(cells),
        "ratio": outcome.seconds / total,
        "largest_difference": {name: max(row[name] for row in differences) for name in differences[0]},
        "cells_with_equal_final_regret": sum(row["final_regret"] == 0 for row in differences),
    }
    write_json(json, result)
    print(json.read_text())


if __name__ == "__main__":
    tyro.cli(main)
