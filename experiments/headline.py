"""RMFT beside the strongest play that is known, on scenarios that served for nothing before.

Trains a preset on three seeds; `mab` beside `mab-plain`, the paper's whole trajectories. Every agent that fits plays
the same scenarios as the policies, as published and, where it has constants, tuned on scenarios of their own. The exact
Bayes optimum is computed where it can be, and bracketed for more Bernoulli arms. The policies of `mab-k5` also play
instances with a fixed gap, never seen in training. An interrupted script goes on where it stopped. Writes
`headline_mab.json`, `.csv`, `.png` and `.pdf`, or those of the other presets, into `experiments/results`.

    python -m experiments.headline mab|mab-k2|mab-k5|fol|nsmab [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import tyro
import xarray as xr

from experiments.common import (
    HINDSIGHT,
    Options,
    Trained,
    curves_of,
    describe_seeds,
    final_regrets,
    mean_final_regrets,
    missed_best_arm,
    over_seeds,
    provenance,
    write,
)
from rmft_jax.agents import Agent, bayes_optimal_regret, bayes_regret_bound, make_agents
from rmft_jax.agents.bayes_optimal import MAX_HORIZONS
from rmft_jax.agents.register import AGENTS
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import choose_agents
from rmft_jax.plotting.curves import draw
from rmft_jax.plotting.panels import points_of
from rmft_jax.plotting.style import DataFigure, legend_above, sheet, style_of
from rmft_jax.problems import Problem, Stationary, get_environment
from rmft_jax.running.benchmark import tune_agents
from rmft_jax.running.provenance import provenance as measured_by
from rmft_jax.statistics.growth import growth_exponent
from rmft_jax.statistics.report import regret_name

BESIDE = {"mab": {"rmft_plain": "mab-plain"}}
INSTANCES = {"mab-k5": ("fixed_gap_hard", "fixed_gap_easy")}
TUNED = "_tuned"
"""Ends the name of an agent whose constants were tuned."""
NUM_SCENARIOS, _STREAM = 16_384, 20_261_128
_FACTOR_SHOWN = 1.5


@pinned()
def main(
    preset: tyro.conf.Positional[Literal["mab", "mab-k2", "mab-k5", "fol", "nsmab"]],
    options: tyro.conf.OmitArgPrefixes[Options],
) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      preset: what to train.
      options: those of every script.
    """
    presets = {"rmft": preset, **BESIDE.get(preset, {})}
    trained = {agent: options.train(name) for agent, name in presets.items()}
    count = 256 if options.quick else NUM_SCENARIOS
    problem = trained["rmft"].config.rmft.problem()
    own = played(trained, options.seeds, problem, count)
    problems = {preset: row(own, problem)}
    for name in INSTANCES.get(preset, ()):
        environment = dataclasses.replace(get_environment(name), num_arms=problem.num_arms)
        instance = Problem(environment, problem.horizon)
        problems[name] = row(played({"rmft": trained["rmft"]}, options.seeds, instance, count), instance)
    result = {
        "preset": preset,
        "seeds": list(options.seeds),
        "scenarios_per_seed": count,
        "trained_by": provenance(trained["rmft"].sweep),
        "measured_by": measured_by(),
        "regret": problem.regret.kind,
        "problems": problems,
        "training": {name: training(one) for name, one in trained.items()},
    }
    write(options.results / f"headline_{preset.replace('-', '_')}", result, figure_of(own, problem.regret.kind))


def played(trained: Mapping[str, Trained], seeds: Sequence[int], problem: Problem, count: int) -> list[xr.Dataset]:
    """Per seed the policies and all agents on the same scenarios, which are new; tuned agents end in `_tuned`."""
    key = jax.random.key(_STREAM)
    agents: dict[str, Agent] = make_agents(problem)
    free = {name: agent for name, agent in agents.items() if AGENTS[name].grids}
    tuned = tune_agents(free, problem, key=jax.random.fold_in(key, 0), num_scenarios=min(count, 4096))
    agents |= {name + TUNED: agent for name, agent in tuned.items()}
    evaluations = []
    for place, seed in enumerate(seeds):
        policies = {name: one.policies[place].agent for name, one in trained.items()}
        fresh = jax.random.fold_in(key, 1 + seed)
        evaluations.append(evaluate({**policies, **agents}, problem, num_scenarios=count, key=fresh))
    return evaluations


def row(evaluations: Sequence[xr.Dataset], problem: Problem) -> dict[str, Any]:
    """All that is said of a problem: agents, what the policy has relative to them, the strongest, and the optimum."""
    curves = _curves(evaluations)
    means = [mean_final_regrets(one) for one in evaluations]
    rivals = [name for name in means[0] if name not in (*HINDSIGHT, *_policies(means[0]))]
    pooled = {name: float(np.mean([one[name] for one in means])) for name in rivals}
    positive = [name for name in means[0] if name != "rmft" and min(one[name] for one in means) > 0]
    return {
        "agents": final_regrets(curves),
        "ratio_to": {name: describe_seeds([one["rmft"] / one[name] for one in means]) for name in positive},
        "minus": {name: describe_seeds([one["rmft"] - one[name] for one in means]) for name in means[0]},
        "strongest": min(pooled, key=lambda name: pooled[name]),
        "suff_fail_freq": {name: missed_best_arm(evaluations, name) for name in means[0]},
        "exponents": {name: _exponent(evaluations, name) for name in means[0]},
        "optimum": optimum(problem),
    }


def optimum(problem: Problem) -> dict[str, float] | None:
    """The least regret on average: exact, or no less than a bound with its standard error; None where neither is."""
    world, horizon, num_arms = problem.environment, problem.horizon, problem.num_arms
    if not (isinstance(world, Stationary) and world.prior == "uniform" and world.noise == "bernoulli"):
        return None
    if problem.feedback != "bandit":
        return None
    if horizon <= MAX_HORIZONS.get(num_arms, 0):
        return {"exact": bayes_optimal_regret(horizon, num_arms)}
    bound = bayes_regret_bound(horizon, num_arms)
    return {"at_least": bound.value, "sem": bound.sem}


def training(trained: Trained) -> dict[str, Any]:
    """Cost, and the regret on validation scenarios of the chosen checkpoint and of the last iterate, seed by seed."""
    curve = trained.sweep["validation_regret"].transpose("seed", "validation_iteration").to_numpy()
    return {
        **trained.cost(),
        "num_iterations": trained.config.rmft.num_iterations,
        "validation_chosen": np.nanmin(curve, axis=1).tolist(),
        "validation_last": curve[:, -1].tolist(),
    }


def figure_of(evaluations: Sequence[xr.Dataset], kind: str) -> DataFigure:
    """Regret over rounds, and beneath it that of the policy minus that of the strongest rivals."""
    curves = _curves(evaluations)
    drawn = {name: one for name, one in curves.items() if name not in HINDSIGHT and not name.endswith(TUNED)}
    levels = {name: float(one["mean"][-1]) for name, one in drawn.items()}
    names = choose_agents(levels, evaluations[0].attrs["reference"])
    finals = {name: float(one["mean"][-1]) for name, one in drawn.items() if name not in _policies(drawn)}
    near = sorted((n for n in finals if finals[n] <= _FACTOR_SHOWN * min(finals.values())), key=lambda n: finals[n])
    with sheet("paper", 3.9) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        for name in names:
            draw(above, style_of(name), curves[name])
        shown = [curves[name] for name in names if name != "uniform"]
        above.set_ylim(0, 1.05 * max(float(one["high"].max()) for one in shown))
        rows = [
            {"panel": "regret", "agent": name} | point for name in names for point in points_of("round", curves[name])
        ]
        for name in near[:3]:
            differences = [(one["regret"].sel(agent="rmft") - one["regret"].sel(agent=name)) for one in evaluations]
            curve = over_seeds(differences)
            draw(below, style_of(name), curve, label="_")
            rows += [{"panel": "difference", "agent": name} | point for point in points_of("round", curve)]
        below.axhline(0, color="#999999", linewidth=0.7, zorder=1)
        above.set_ylabel(f"cumulative {regret_name(kind)}\n(reward units)")
        below.set(xlabel="round", ylabel="RMFT minus agent\n(reward units)", xlim=(0, evaluations[0].sizes["round"]))
        legend_above(figure, [above], columns=2)
        figure.rows = rows
        figure.caption = "95% bands: Student-t over training seeds; of classical agents bootstraps over scenarios."
        return figure


def _policies(names: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name.startswith("rmft")]


def _curves(evaluations: Sequence[xr.Dataset]) -> dict[str, xr.Dataset]:
    policies = _policies(mean_final_regrets(evaluations[0]))
    classical = [one.drop_sel(agent=[name for name in policies if name != "rmft"]) for one in evaluations]
    curves = curves_of({"rmft": classical})
    return curves | {name: over_seeds([one["regret"].sel(agent=name) for one in evaluations]) for name in policies}


def _exponent(evaluations: Sequence[xr.Dataset], agent: str) -> dict[str, Any]:
    """β within the horizon, over all scenarios."""
    regret = [one["regret"].sel(agent=agent).transpose("scenario", "round").to_numpy() for one in evaluations]
    found = growth_exponent(np.concatenate(regret), num_resamples=400)
    return {"mean": found.exponent, "ci95": [found.low, found.high]}


if __name__ == "__main__":
    tyro.cli(main)
