"""What the experiments share: sweeps over training seeds, and their evaluations put together."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.benchmarks.measure import env_steps
from rmft_jax.agents import catalogue
from rmft_jax.config import ConfigError, Value
from rmft_jax.method.evaluation import evaluate, final_regret
from rmft_jax.method.settings import RunConfig
from rmft_jax.plotting import save_figure, scenario_curves
from rmft_jax.running.benchmark import tune_agents
from rmft_jax.running.files import RunError, write_json
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.training import evaluate_run
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.statistics.bootstrap import t_interval
from rmft_jax.statistics.estimates import estimate_of
from rmft_jax.statistics.growth import half_horizon, suff_fail_freq
from rmft_jax.statistics.report import estimate_text
from rmft_jax.sweeps.ray_executor import run_on_ray
from rmft_jax.sweeps.run import run_locally, run_sweep
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory, load_sweep

RESULTS = Path(__file__).parent / "results"
QUICK: dict[str, Value] = {
    "horizon": 10,
    "num_iterations": 10,
    "chunk_size": 5,
    "num_scenarios": 64,
    "num_validation_scenarios": 64,
    "num_test_scenarios": 128,
}
"""What makes a run one of seconds, to see that a script works."""
TEMPERATURES = (1.0, 0.7, 0.5, 0.35, 0.2)
"""Of play, that trained policies are measured at."""
HINDSIGHT = ("best_arm", "best_fixed_arm")
"""References that know the rewards, and so no agents."""
TUNED = "_tuned_in_hindsight"
"""Ends the name of an agent with the constant that is best on the scenarios of the comparison."""


class Trained(NamedTuple):
    """Policies of one configuration on several training seeds.

    sweep: what `load_sweep` has of them, over `seed`.
    policies: of each seed.
    """

    sweep: xr.Dataset
    policies: Sequence[TrainedPolicy]

    @property
    def config(self) -> RunConfig:
        """That of the first seed."""
        return self.policies[0].config

    def per_seed(self, name: str) -> list[Any]:
        """A number of the sweep for each seed."""
        return self.sweep[name].transpose("seed").to_numpy().tolist()

    def cost(self) -> dict[str, Any]:
        """What training took; seconds are those without compilation."""
        return {
            "checkpoint_iteration": [int(iteration) for iteration in self.per_seed("best_iteration")],
            "wall_seconds": self.per_seed("wall_seconds"),
            "env_steps": env_steps(self.config.rmft) * self.config.rmft.num_iterations,
        }

    def validation(self) -> dict[str, Any]:
        """Regret on validation scenarios of the checkpoint that was chosen by it, and of the last iterate."""
        regret = self.sweep["validation_regret"].transpose("seed", ...).to_numpy()
        return {"chosen": describe_seeds(regret.min(axis=1).tolist()), "last": describe_seeds(regret[:, -1].tolist())}

    def evaluations(self) -> list[xr.Dataset]:
        """Per seed the policy, named `rmft`, and the classical agents on its test scenarios, one by one."""
        return [evaluate_run(one.config, one.agent, RunKeys.create(one.config.seed).test) for one in self.policies]


@dataclasses.dataclass(frozen=True)
class Options:
    """What every script can be asked for."""

    runs: Path = Path("runs/experiments")
    """Where the sweeps go."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; at least two, for intervals."""
    quick: bool = False
    """Runs of seconds, to see that the script works; writes beside the runs."""
    ray: bool = False
    """Train seeds side by side, each on a core of its own, with Ray."""

    @property
    def results(self) -> Path:
        """Where a script writes: `experiments/results`, or beside its runs if they are quick ones."""
        return self.runs / "quick" if self.quick else RESULTS

    def train(
        self, name: str, preset: str = "", override: Mapping[str, Value] | None = None, baselines: Sequence[str] = ()
    ) -> Trained:
        """What `train_seeds` makes of a preset, by default the one of this name."""
        if len(self.seeds) < 2:
            raise SystemExit(f"got {len(self.seeds)} seed, need at least 2 for an interval; try --seeds 0 1 2")
        changes = {**(override or {}), **(QUICK if self.quick else {})}
        directory = self.runs / f"{name}{'-quick' * self.quick}"
        return train_seeds(directory, preset or name, self.seeds, changes, baselines, self.ray)


def train_seeds(
    directory: Path,
    preset: str,
    seeds: Sequence[int],
    override: Mapping[str, Value] | None = None,
    baselines: Sequence[str] = (),
    ray: bool = False,
) -> Trained:
    """Trains what is missing of a preset, with some settings changed, on some seeds.

    Args:
      directory: of the sweep; it may have been begun with other seeds, which stay.
      preset: what is trained.
      seeds: training seeds.
      override: settings that differ from the preset.
      baselines: the classical agents that the sweep plays beside.
      ray: whether seeds are trained side by side.
    """
    earlier = SweepDirectory.open(directory).sweep.grid["seed"] if SweepDirectory(directory).exists() else ()
    grid = {"seed": list(dict.fromkeys((*earlier, *seeds)))}
    dataset = run(Sweep(preset, grid=grid, override=override or {}, baselines=baselines), directory, ray)
    files = SweepDirectory.open(directory)
    return Trained(dataset.sel(seed=list(seeds)), [files.read_weights({"seed": seed}) for seed in seeds])


def run(sweep: Sweep, directory: Path, ray: bool = False, *, may_fail: bool = False) -> xr.Dataset:
    """Trains what is missing of a sweep and keeps its policies; its dataset. Programs are kept in `compiled` beside.

    Args:
      sweep: what is trained.
      directory: of the sweep.
      ray: whether cells are trained side by side.
      may_fail: whether a cell that diverges is told and stays without numbers, instead of ending the script.
    """
    jax.config.update("jax_compilation_cache_dir", str((directory.parent / "compiled").absolute()))
    executor = run_on_ray if ray else run_locally
    try:
        outcome = run_sweep(sweep, directory, resume=True, keep_weights=True, executor=executor)
    except (ConfigError, RunError) as error:
        raise SystemExit(str(error)) from None
    failures = "\n".join(f"{label}: {message}" for label, message in outcome.failures.items())
    if failures and not may_fail:
        raise SystemExit(failures)
    print(failures, end="\n" * bool(failures))
    return load_sweep(directory)


def without(budget: Mapping[str, Value], *names: str) -> dict[str, Value]:
    """A budget, but for settings that a question varies."""
    return {name: value for name, value in budget.items() if name not in names}


PROVENANCE = ("device", "git_commit", "created", "versions")


def provenance(sweep: xr.Dataset) -> dict[str, Any]:
    """Where the numbers of a sweep come from."""
    found = {name: sweep.attrs[name] for name in PROVENANCE}
    return found | {"versions": json.loads(found["versions"])}


def curves_of(evaluations: Mapping[str, list[xr.Dataset]]) -> dict[str, xr.Dataset]:
    """A curve per agent: over training seeds for the trained policies, over all scenarios for the others.

    Policies of one seed share their test scenarios, so the classical agents are the same beside all of them.
    """
    pooled = xr.concat([dataset["regret"] for dataset in next(iter(evaluations.values()))], dim="scenario")
    classical = scenario_curves(pooled.drop_sel(agent="rmft"))
    return {str(name): classical.sel(agent=name) for name in classical["agent"].values} | {
        agent: over_seeds([dataset["regret"].sel(agent="rmft") for dataset in datasets])
        for agent, datasets in evaluations.items()
    }


def over_seeds(regrets: Sequence[xr.DataArray]) -> xr.Dataset:
    """Mean over training seeds and Student-t band; each seed has its own test scenarios, so it covers both.

    Where regret is negative in no scenario, neither is the band.
    """
    means = xr.concat([regret.mean("scenario") for regret in regrets], "seed")
    found = estimate_of(means.mean("seed"), t_interval(means.to_numpy()), f"Student-t over {len(regrets)} seeds")
    if min(float(regret.min()) for regret in regrets) >= 0:
        found["low"] = found["low"].clip(0.0)
    return found


def describe_seeds(values: Sequence[float]) -> dict[str, Any]:
    """A number per seed, with its mean and Student-t interval over them."""
    low, high = t_interval(np.asarray(values))
    return {
        "seeds": [float(value) for value in values],
        "mean": float(np.mean(values)),
        "ci95": [float(low), float(high)],
    }


def mean_final_regrets(evaluation: xr.Dataset) -> dict[str, float]:
    """Per agent its mean regret at the horizon."""
    means = evaluation["regret"].isel(round=-1).mean("scenario", dtype=np.float64)
    return dict(zip(map(str, means["agent"].values), means.values.tolist(), strict=True))


def missed_best_arm(evaluations: Sequence[xr.Dataset], agent: str) -> dict[str, Any]:
    """SuffFailFreq(T/2) of an agent."""
    half = half_horizon(evaluations[0].sizes["round"]) - 1
    rounds = [one["last_best_round"].sel(agent=agent).to_numpy() for one in evaluations]
    horizons = [one.sizes["round"] for one in evaluations]
    return describe_seeds([suff_fail_freq(last, T)[half] for last, T in zip(rounds, horizons, strict=True)])


def tuned_in_hindsight(config: RunConfig, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each rival with the constant, if it has one, that is best on the test scenarios of a run; its regret there."""
    problem, count, key = config.rmft.problem(), config.num_test_scenarios, RunKeys.create(config.seed).test
    best = tune_agents(catalogue.make_agents(problem, names), problem, key=key, num_scenarios=count)
    regrets = mean_final_regrets(evaluate(best, problem, num_scenarios=count, key=key))
    return {
        name: {"constant": next(iter(catalogue.constants(best[name], name).values()), None), "regret_mean": regret}
        for name, regret in regrets.items()
    }


def at_temperatures(policies: Sequence[TrainedPolicy]) -> dict[str, dict[str, Any]]:
    """Regret on its test scenarios of each policy at several temperatures of play, and what that changes.

    Checkpoints are those that did best on validation scenarios at the run's own temperature.
    """
    found = {temperature: [regret_at(temperature, one) for one in policies] for temperature in TEMPERATURES}
    return {
        f"{temperature:g}": {
            "regret": describe_seeds(regrets),
            "minus_at_1": describe_seeds(list(np.subtract(regrets, found[1.0]))),
        }
        for temperature, regrets in found.items()
    }


def regret_at(temperature: float, policy: TrainedPolicy) -> float:
    """Mean regret at the horizon on the test scenarios of the policy's run."""
    config = policy.config.replace(play_temperature=temperature)
    agent, key = config.rmft.agent(policy.agent.params), RunKeys.create(config.seed).test
    regret = final_regret(agent, config.rmft.problem(), key, config.num_test_scenarios)
    return float(np.asarray(regret).mean(dtype=np.float64))


def ratios(evaluations: Sequence[xr.Dataset], tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The trained policy's regret over that of every rival on the same scenarios, per seed.

    Args:
      evaluations: one per seed.
      tuned: what `tuned_in_hindsight` returns, for each of them.
    """
    found: dict[str, list[float]] = {}
    for evaluation, best in zip(evaluations, tuned, strict=True):
        regrets = {name: regret for name, regret in mean_final_regrets(evaluation).items() if regret > 0}
        for name, row in best.items():
            regrets[name if row["constant"] is None else name + TUNED] = row["regret_mean"]
        own = regrets.pop("rmft")
        for name, regret in regrets.items():
            found.setdefault(name, []).append(own / regret)
    return {name: describe_seeds(values) for name, values in found.items() if len(values) == len(evaluations)}


def final_regrets(curves: Mapping[str, xr.Dataset]) -> dict[str, dict[str, Any]]:
    """Regret at the horizon with its interval, lowest first."""
    ends = {name: curve.isel(round=-1) for name, curve in curves.items()}
    return {
        name: {"regret_mean": float(end["mean"]), "regret_ci95": [float(end["low"]), float(end["high"])]}
        for name, end in sorted(ends.items(), key=lambda item: float(item[1]["mean"]))
    }


def write(target: Path, result: dict[str, Any], figure: Figure) -> None:
    """Writes the numbers and the figure of an experiment: a path without its suffix."""
    save_figure(figure, target)
    write_json(target.with_suffix(".json"), result)
    print(target.with_suffix(".json").read_text())


def interval(found: Mapping[str, Any], prefix: str = "", sign: str = "") -> str:
    """A number and its interval as text, such as "3.88 [3.65, 4.11]"; `sign="+"` shows the signs."""
    return estimate_text(found[f"{prefix}mean"], found[f"{prefix}ci95"], sign=sign)
