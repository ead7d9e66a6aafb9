"""What the experiments share: presets trained on several seeds, and their evaluations put together."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from rmft_jax import RunDirectory, Sweep, evaluate, make_agents, make_environment, train
from rmft_jax.agents import catalogue
from rmft_jax.benchmark import tune_agents
from rmft_jax.bootstrap import Interval
from rmft_jax.config import RunConfig
from rmft_jax.plotting import Curve, plot_regret_curves, save_figure, scenario_curve
from rmft_jax.storage import write_json
from rmft_jax.training import RunKeys

RESULTS = Path(__file__).parent / "results"
QUICK: dict[str, Any] = {
    "horizon": 10,
    "num_iterations": 10,
    "chunk_size": 5,
    "num_scenarios": 64,
    "num_validation_scenarios": 64,
    "num_test_scenarios": 128,
}
"""What makes a run one of seconds, to see that a script works."""
HINDSIGHT = ("best_arm", "best_fixed_arm")
"""References that know the rewards, and so no agents."""
TUNED = "_tuned_in_hindsight"
"""Ends the name of an agent with the constant that is best on the scenarios of the comparison."""


class TrainedRuns(NamedTuple):
    """The runs of some presets on some seeds.

    evaluations: by agent, the evaluation of each seed, in which the trained policy is named `rmft`.
    summaries: by agent, the summary of each seed.
    """

    evaluations: dict[str, list[xr.Dataset]]
    summaries: dict[str, list[dict[str, Any]]]


def preset_config(preset: str, override: Mapping[str, Any] | None = None, quick: bool = False) -> RunConfig:
    """A preset with some settings changed; `quick` makes it a run of seconds."""
    changes = {**(override or {}), **(QUICK if quick else {})}
    return next(iter(Sweep(preset, override=changes).expand())).config


def results_folder(runs: Path, quick: bool = False) -> Path:
    """Where a script writes: `experiments/results`, or beside its runs if they are quick ones."""
    return runs / "quick" if quick else RESULTS


def run_directory(runs: Path, name: str, seed: int, quick: bool = False) -> Path:
    """Where `train_all` keeps a run."""
    return runs / f"{name}{'-quick' * quick}-seed{seed}"


def train_all(
    configs: Mapping[str, RunConfig | str], runs: Path, seeds: Sequence[int], quick: bool = False
) -> TrainedRuns:
    """Trains what is missing: a preset, or a configuration, for each agent name on every seed.

    Goes on where it was interrupted. Runs that differ in their seeds share their compiled programs, which are kept in
    `runs/compiled`. A run's directory is named after its preset, or after the agent, and its seed. `quick` makes runs
    of presets ones of seconds; a configuration is expected to be one.
    """
    if len(seeds) < 2:
        raise SystemExit(f"got {len(seeds)} seed, need at least 2 for an interval; try --seeds 0 1 2")
    jax.config.update("jax_compilation_cache_dir", str((runs / "compiled").absolute()))
    trained = TrainedRuns({agent: [] for agent in configs}, {agent: [] for agent in configs})
    for agent, given in configs.items():
        name, config = (given, preset_config(given, quick=quick)) if isinstance(given, str) else (agent, given)
        for seed in seeds:
            directory = run_directory(runs, name, seed, quick)
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
    return {
        "seeds": [float(value) for value in values],
        "mean": float(np.mean(values)),
        "ci95": [float(low), float(high)],
    }


def tuned_in_hindsight(config: RunConfig, seed: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each rival with the constant, if it has one, that is best on the test scenarios of a seed; its regret there."""
    environment, horizon, count = config.rmft.environment, config.rmft.horizon, config.num_test_scenarios
    world, key = make_environment(environment), RunKeys.create(seed).test
    agents = make_agents(environment, horizon, names)
    best = tune_agents(agents, world, horizon=horizon, key=key, num_scenarios=count)
    final = evaluate(best, world, horizon=horizon, num_scenarios=count, key=key)["regret"].isel(round=-1)
    return {
        name: {
            "constant": getattr(best[name], catalogue.AGENTS[name].constant or "", None),
            "regret_mean": float(final.sel(agent=name).mean(dtype=np.float64)),
        }
        for name in best
    }


def ratios(summaries: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The trained policy's regret over that of every rival on the same scenarios, per seed.

    Args:
      summaries: of the runs, one per seed.
      tuned: what `tuned_in_hindsight` returns, for each of them.
    """
    found: dict[str, list[float]] = {}
    for summary, best in zip(summaries, tuned, strict=True):
        regrets = {name: row["regret_mean"] for name, row in summary["evaluation"].items() if row["regret_mean"] > 0}
        for name, row in best.items():
            regrets[name if row["constant"] is None else name + TUNED] = row["regret_mean"]
        own = regrets.pop("rmft")
        for name, regret in regrets.items():
            found.setdefault(name, []).append(own / regret)
    return {name: describe_seeds(values) for name, values in found.items() if len(values) == len(summaries)}


def final_regrets(curves: Mapping[str, Curve]) -> dict[str, dict[str, Any]]:
    """Regret at the horizon with its interval, lowest first."""
    return {
        name: {"regret_mean": float(mean[-1]), "regret_ci95": [float(band.low[-1]), float(band.high[-1])]}
        for name, (mean, band) in sorted(curves.items(), key=lambda item: item[1].mean[-1])
    }


def write(target: Path, result: dict[str, Any], figure: Figure) -> None:
    """Writes the numbers and the figure of an experiment: a path without its suffix."""
    save_figure(figure, target)
    write_json(target.with_suffix(".json"), result)
    print(target.with_suffix(".json").read_text())


def interval(found: Mapping[str, Any], prefix: str = "", sign: str = "") -> str:
    """A number and its interval as text, such as "3.88 [3.65, 4.11]"; `sign="+"` shows the signs."""
    low, high = found[f"{prefix}ci95"]
    return f"{found[f'{prefix}mean']:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def draw_curves(curves: Mapping[str, Curve], regret: str = "pseudo") -> Figure:
    """The curves of `curves_of` over all rounds."""
    horizon = len(next(iter(curves.values())).mean)
    return plot_regret_curves(curves, np.arange(1, horizon + 1), regret)
