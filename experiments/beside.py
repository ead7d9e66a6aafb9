"""Trained policies beside the strongest play that is known, and beside the optimum.

Takes up what `experiments.bandit_regret` and `experiments.settings_regret` left: the regret of the policies of every
seed on its test scenarios. Draws those scenarios again and plays every agent that fits on them, as published and, where
it has constants, tuned on scenarios of their own. The exact Bayes optimum is computed where it can be; for more
Bernoulli arms it lies between a bound from below and the best agent. Trains nothing. Writes `beside_mab.json`, or those
of the other presets, into `experiments/results`.

    python -m experiments.beside mab|mab-k2|mab-k5|fol|nsmab
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
import xarray as xr

from experiments.common import (
    HINDSIGHT,
    RESULTS,
    describe_seeds,
    final_regrets,
    mean_final_regrets,
    missed_best_arm,
    write,
)
from rmft_jax.agents import Agent, bayes_optimal_regret, bayes_regret_bound, make_agents
from rmft_jax.agents.bayes_optimal import MAX_HORIZONS
from rmft_jax.agents.catalogue import constants
from rmft_jax.agents.register import AGENTS
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import scenario_curves
from rmft_jax.plotting.style import DataFigure, sheet, style_of
from rmft_jax.problems import Problem, Stationary, get_environment
from rmft_jax.running.benchmark import tune_agents
from rmft_jax.running.provenance import provenance
from rmft_jax.running.trainer import RunKeys
from rmft_jax.statistics.growth import growth_exponent
from rmft_jax.sweeps.spec import Sweep

TUNED = "_tuned"
"""Ends the name of an agent whose constants were tuned, on scenarios of their own."""
_TITLES = {
    "mab-k2": "K = 2, T = 50",
    "mab": "K = 5, T = 50",
    "mab-k5": "K = 5, T = 100",
    "fixed_gap_hard": "K = 5, T = 100, gap 0.2",
    "fixed_gap_easy": "K = 5, T = 100, gap 0.5",
    "fol": "full information",
    "nsmab": "three changes, K = 3, T = 100",
}
_SHOWN = 7
_TUNING_KEY, _TUNING_SCENARIOS = 20_261_128, 4096


@pinned()
def main(
    preset: tyro.conf.Positional[Literal["mab", "mab-k2", "mab-k5", "fol", "nsmab"]], results: Path = RESULTS
) -> None:
    """Plays the agents, and writes what the policies have relative to them.

    Args:
      preset: of the policies.
      results: where the experiments left what they found, and where this goes.
    """
    name = preset.replace("-", "_")
    recorded = json.loads((results / f"{name}_regret.json").read_text(encoding="utf-8"))
    seeds = recorded["seeds"]
    configs = [Sweep(preset, override={"seed": seed}).expand()[0].config for seed in seeds]
    problem, count = configs[0].rmft.problem(), configs[0].num_test_scenarios
    problems = {preset: beside(problem, seeds, count, recorded["trained"]["ratio_to"])}
    for instance, found in recorded.get("instances", {}).items():
        environment = dataclasses.replace(get_environment(instance), num_arms=problem.num_arms)
        other = Problem(environment, problem.horizon)
        problems[instance] = beside(other, seeds, count, found["ratio_to"])
    result = {
        "policies": f"{name}_regret.json",
        "seeds": seeds,
        "scenarios_per_seed": count,
        "measured_by": provenance(),
        "problems": problems,
    }
    write(results / f"beside_{name}", result, draw(problems))


def beside(problem: Problem, seeds: Sequence[int], count: int, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What policies have relative to every agent, seed by seed on the same scenarios.

    Args:
      problem: what was played.
      seeds: of the policies, and so of their scenarios.
      count: scenarios of each.
      recorded: the ratios of their regret to that of agents that were played before.
    """
    agents: dict[str, Agent] = make_agents(problem)
    free = {name: agent for name, agent in agents.items() if AGENTS[name].grids}
    tuned = tune_agents(free, problem, key=jax.random.key(_TUNING_KEY), num_scenarios=_TUNING_SCENARIOS)
    agents |= {name + TUNED: agent for name, agent in tuned.items()}
    played = [evaluate(agents, problem, num_scenarios=count, key=RunKeys.create(seed).test) for seed in seeds]
    means = [mean_final_regrets(one) for one in played]
    pooled = scenario_curves(xr.concat([one["regret"].isel(round=[-1]) for one in played], dim="scenario"))
    rivals = {name: float(np.mean([one[name] for one in means])) for name in agents if name not in HINDSIGHT}
    least = optimum(problem)
    return {
        "agents": final_regrets({name: pooled.sel(agent=name) for name in agents}),
        "constants": {name: constants(agent, name) for name, agent in tuned.items()},
        "suff_fail_freq": {name: missed_best_arm(played, name)["mean"] for name in agents},
        "exponents": {name: exponent(played, name) for name in agents},
        "strongest": min(rivals, key=lambda name: rivals[name]),
        "optimum": least,
        "policies": {"rmft": compared(regrets_of(recorded, means), means, least)},
    }


def exponent(played: Sequence[xr.Dataset], agent: str) -> dict[str, Any]:
    """β of `regret ~ t^β` within the horizon, over all scenarios."""
    regret = [one["regret"].sel(agent=agent).transpose("scenario", "round").to_numpy() for one in played]
    found = growth_exponent(np.concatenate(regret), num_resamples=400)
    return {"mean": found.exponent, "ci95": [found.low, found.high]}


def draw(problems: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """The regret of the policies relative to that of the strongest agents, a panel per problem.

    Of an agent its best form is shown, as published or tuned.
    """
    rows = []
    with sheet("paper", 0.6 + 1.25 * len(problems)) as figure:
        places = figure.subplots(len(problems), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, found) in zip(places, problems.items(), strict=True):
            ratios, shown = found["policies"]["rmft"]["ratio_to"], {}
            for name in found["agents"]:  # From the lowest regret upwards.
                if name in ratios and name not in HINDSIGHT:
                    shown.setdefault(name.removesuffix(TUNED), name)
            for place, (agent, name) in enumerate(list(shown.items())[:_SHOWN]):
                mean, (low, high), color = ratios[name]["mean"], ratios[name]["ci95"], style_of(agent).color
                axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=color, markersize=3.5)
                rows.append({"problem": title, "agent": name, "mean": mean, "low": low, "high": high})
            labels = [style_of(agent).label + ", tuned" * (agent != name) for agent, name in shown.items()][:_SHOWN]
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.axvline(1.0, color="#999999", linewidth=0.7, zorder=1)
            axes.set_title(_TITLES[title])
        figure.supxlabel("regret of RMFT / regret of the agent\n(above 1 the agent is stronger)")
        figure.rows = rows
        figure.caption = "95% Student-t intervals over training seeds. Above 1 the agent is stronger."
        return figure


def regrets_of(ratios: Mapping[str, Any], means: Sequence[Mapping[str, float]]) -> list[float]:
    """The regret of a policy per seed, from its ratios to agents that were played beside it then and now.

    Raises:
      SystemExit: if the agents do not agree about it, as on other scenarios.
    """
    known = [name for name in ratios if name in means[0] and means[0][name] > 0]
    each = np.asarray([[ratios[name]["seeds"][i] * one[name] for name in known] for i, one in enumerate(means)])
    if not np.allclose(each, each[:, :1], rtol=1e-3):
        raise SystemExit(f"the scenarios are not those of the file: {', '.join(known)} say {each.tolist()}")
    return np.median(each, axis=1).tolist()


def compared(
    own: Sequence[float], means: Sequence[Mapping[str, float]], least: Mapping[str, float] | None
) -> dict[str, Any]:
    """A policy's regret, and relative to that of every agent and to the optimum, each over seeds."""
    positive = [name for name in means[0] if min(one[name] for one in means) > 0]
    ratio = None
    if least is not None and "exact" in least:
        # By way of the optimal policy, which met the same scenarios and has the optimum as its mean.
        above = [a - one["bayes_optimal"] for a, one in zip(own, means, strict=True)]
        ratio = describe_seeds([1 + one / least["exact"] for one in above])
        ratio["ci95"][0] = max(ratio["ci95"][0], 1.0)  # No policy is better on average.
    return {
        "regret": describe_seeds(own),
        "ratio_to": {n: describe_seeds([a / one[n] for a, one in zip(own, means, strict=True)]) for n in positive},
        "minus": {n: describe_seeds([a - one[n] for a, one in zip(own, means, strict=True)]) for n in means[0]},
        "ratio_to_optimum": ratio,
    }


def optimum(problem: Problem) -> dict[str, float] | None:
    """The least regret on average: exact, or no less than a bound with its standard error; None where neither is."""
    world, horizon, num_arms = problem.environment, problem.horizon, problem.num_arms
    known = isinstance(world, Stationary) and world.prior == "uniform" and world.noise == "bernoulli"
    if not known or problem.feedback != "bandit":
        return None
    if horizon <= MAX_HORIZONS.get(num_arms, 0):
        return {"exact": bayes_optimal_regret(horizon, num_arms)}
    bound = bayes_regret_bound(horizon, num_arms)
    return {"at_least": bound.value, "sem": bound.sem}


if __name__ == "__main__":
    tyro.cli(main)
