"""What the experiments share: presets trained on several seeds, and their evaluations put together."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from scipy import stats

from rmft_jax import RunDirectory, get_preset, train
from rmft_jax.bootstrap import Interval
from rmft_jax.config import RunConfig
from rmft_jax.plotting import Curve, plot_regret_curves, save_figure, scenario_curve
from rmft_jax.storage import write_json

RESULTS = Path(__file__).parent / "results"


class TrainedRuns(NamedTuple):
    """The runs of some presets on some seeds.

    evaluations: by agent, the evaluation of each seed, in which the trained policy is named `rmft`.
    summaries: by agent, the summary of each seed.
    """

    evaluations: dict[str, list[xr.Dataset]]
    summaries: dict[str, list[dict[str, Any]]]


def train_all(configs: Mapping[str, RunConfig | str], runs: Path, seeds: Sequence[int]) -> TrainedRuns:
    """Trains what is missing: a preset, or a configuration, for each agent name on every seed.

    Goes on where it was interrupted. Runs that differ in their seeds share their compiled programs, which are kept in
    `runs/compiled`. A run's directory is named after its preset, or after the agent, and its seed.
    """
    if len(seeds) < 2:
        raise SystemExit(f"got {len(seeds)} seed, need at least 2 for an interval; try --seeds 0 1 2")
    jax.config.update("jax_compilation_cache_dir", str((runs / "compiled").absolute()))
    trained = TrainedRuns({agent: [] for agent in configs}, {agent: [] for agent in configs})
    for agent, given in configs.items():
        name, config = (given, get_preset(given)) if isinstance(given, str) else (agent, given)
        for seed in seeds:
            directory = runs / f"{name}-seed{seed}"
            summary = train(dataclasses.replace(config, seed=seed), directory, preset=name, resume=True)
            trained.summaries[agent].append(summary)
            trained.evaluations[agent].append(RunDirectory.open(directory).read_dataset("evaluation.nc"))
    return trained


def curves_of(evaluations: Mapping[str, list[xr.Dataset]]) -> dict[str, Curve]:
    """A curve per agent: over training seeds for the trained policies, over all scenarios for the others.

    Runs of one seed share their test scenarios, so the classical agents are the same in all of them.
    """
    pooled = xr.concat([dataset["regret"] for dataset in next(iter(evaluations.values()))], dim="scenario")
    return {str(name): scenario_curve(pooled.sel(agent=name)) for name in pooled["agent"].values if name != "rmft"} | {
        agent: over_seeds([dataset["regret"].sel(agent="rmft") for dataset in datasets])
        for agent, datasets in evaluations.items()
    }


def over_seeds(regrets: Sequence[xr.DataArray]) -> Curve:
    """Mean over training seeds and Student-t band; each seed has its own test scenarios, so it covers both."""
    means = np.stack([regret.mean("scenario").to_numpy() for regret in regrets])
    band = t_interval(means)
    return Curve(means.mean(0), band)


def t_interval(values: np.ndarray) -> Interval:
    """Student-t interval of the mean over the first axis."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
    return Interval(values.mean(0) - half, values.mean(0) + half)


def describe_seeds(values: Sequence[float]) -> dict[str, Any]:
    """A number per seed, with its mean and Student-t interval over them."""
    low, high = t_interval(np.asarray(values))
    return {"seeds": list(values), "mean": float(np.mean(values)), "ci95": [float(low), float(high)]}


def final_regrets(curves: Mapping[str, Curve]) -> dict[str, dict[str, Any]]:
    """Regret at the horizon with its interval, lowest first."""
    return {
        name: {"regret_mean": float(mean[-1]), "regret_ci95": [float(band.low[-1]), float(band.high[-1])]}
        for name, (mean, band) in sorted(curves.items(), key=lambda item: item[1].mean[-1])
    }


def write(name: str, result: dict[str, Any], curves: Mapping[str, Curve], regret: str) -> None:
    """Writes the numbers and the figure of an experiment into `experiments/results`."""
    horizon = len(next(iter(curves.values())).mean)
    save_figure(plot_regret_curves(curves, np.arange(1, horizon + 1), regret), RESULTS / name)
    write_json(RESULTS / f"{name}.json", result)
    print((RESULTS / f"{name}.json").read_text())
