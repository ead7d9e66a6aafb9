"""Runs side by side, finished or in training."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rmft_jax.agents import reference_agent
from rmft_jax.config.checks import require
from rmft_jax.method.evaluation import Play
from rmft_jax.running.files import RunError, as_text
from rmft_jax.running.history import least
from rmft_jax.running.storage import RunDirectory
from rmft_jax.sweeps.assembly import assemble, content_of
from rmft_jax.sweeps.results import PLAYED_TOO, played_dataset
from rmft_jax.sweeps.spec import Cell

DIMENSION = "run"


def compare_runs(directories: Sequence[str | Path]) -> xr.Dataset:
    """Runs as a dataset like that of a sweep, over the dimension `run`, for figures and tables of sweeps.

    Args:
      directories: of the runs. A run that is still in training has its curves so far, and NaN for results.

    Returns:
      What `load_sweep` returns; `run` has the directories' names, or the whole paths where two have the same name.

    Raises:
      ConfigError: for a directory that is named twice.
      RunError: for a directory that holds no run, or one of which nothing is known yet.
    """
    paths = [Path(directory) for directory in directories]
    twice = next((path for path in paths if [one.resolve() for one in paths].count(path.resolve()) > 1), None)
    require(twice is None, f"{twice} twice", "each run once", "leaving one out")
    names = [as_text(path.resolve().name) for path in paths]
    names = names if len(set(names)) == len(names) else [as_text(path) for path in paths]
    runs = [RunDirectory.open(path) for path in paths]
    datasets = [_dataset(run, {DIMENSION: name}) for run, name in zip(runs, names, strict=True)]
    status = {i: "finished" if "final_regret" in one else "training" for i, one in enumerate(datasets)}
    contents = dict(enumerate(map(content_of, datasets)))
    found = assemble({DIMENSION: {DIMENSION: names}}, [{DIMENSION: name} for name in names], contents, status)
    if "final_regret" not in found:  # By which a sweep is known.
        found["final_regret"] = (DIMENSION, np.full(len(names), np.nan))
    return found


def _dataset(run: RunDirectory, coordinates: dict[str, Any]) -> xr.Dataset:
    """What the cell of a sweep with the settings of this run would hold, as far as it is there."""
    trained = run.read_dataset("metrics.nc").rename({name: f"training_{name}" for name in PLAYED_TOO}).drop_attrs()
    best = least(trained["validation_regret"].to_numpy())
    trained = trained.assign(best_iteration=((), trained["validation_iteration"].to_numpy()[best]))
    config, _ = run.read_config()
    if not (run.path / "evaluation.nc").is_file():
        problem = config.rmft.problem()
        told = {"regret": problem.regret.kind, "regret_form": problem.regret.form}
        return trained.assign_attrs(told | {"reference": reference_agent(problem)})
    evaluation = run.read_dataset("evaluation.nc")
    plays = {str(name): _play(evaluation.sel(agent=name)) for name in evaluation["agent"].values}
    if "rmft" not in plays:
        raise RunError(
            f"{run.path} has an evaluation without the policy; try `rmft evaluate {shlex.quote(str(run.path))}`"
        )
    return played_dataset(Cell(0, coordinates, config), plays).assign(dict(trained.data_vars))


def _play(one: xr.Dataset) -> Play:
    """What one agent did; zeros for what is not known of play in a ball."""
    fields = {field.name for field in dataclasses.fields(Play)}
    known = {str(name): array.to_numpy() for name, array in one.items() if name in fields}
    zero, zeros = np.zeros(one.sizes["scenario"], np.float32), np.zeros(one["regret"].shape, int)
    nothing = dict.fromkeys(("min_frac", "greedy_frac", "invalid"), zero)
    return Play(**(nothing | {"action": zeros, "rank": zeros, "last_best_round": zeros[:, 0]} | known))
