"""RMFT beyond the stationary bandit: full-information online learning (`fol`) and the non-stationary bandit (`nsmab`).

Trains the preset on three seeds and compares the policies with classical algorithms, as published and with their free
constant tuned in hindsight, on the very scenarios of the comparison. An interrupted script goes on where it stopped.
Writes `fol_regret.json`, `.png` and `.pdf`, or the same for `nsmab`, into `experiments/results`.

    python -m experiments.settings_regret fol [--runs DIR] [--seeds 0 1 2]
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
import xarray as xr

from experiments.common import curves_of, describe_seeds, final_regrets, train_all, write
from rmft_jax import evaluate, get_preset, growth_exponent, make_agents, make_environment
from rmft_jax.agents import catalogue
from rmft_jax.benchmark import tune_agents
from rmft_jax.training import RunKeys

TUNED = {
    "fol": ("hedge", "ftrl", "ftpl"),
    "nsmab": ("ucb", "kl_ucb", "sliding_window_ucb", "discounted_ucb", "discounted_thompson", "rexp3"),
}


def main(
    preset: tyro.conf.Positional[Literal["fol", "nsmab"]],
    runs: Path = Path("runs/settings_regret"),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      preset: the setting.
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
    """
    evaluations, summaries = train_all({"rmft": preset}, runs, seeds)
    curves = curves_of(evaluations)
    tuned = [_tuned_in_hindsight(preset, seed) for seed in seeds]
    agents = final_regrets(curves)
    trained = {
        "exponent": [_exponent(evaluation, "rmft") for evaluation in evaluations["rmft"]],
        "ratio_to": _ratios(summaries["rmft"], tuned),
        "wall_seconds": [summary["wall_seconds"] for summary in summaries["rmft"]],
        "env_steps": summaries["rmft"][0]["env_steps"],
    }
    result = {
        "preset": preset,
        "seeds": list(seeds),
        "device": summaries["rmft"][0]["device"],
        "versions": summaries["rmft"][0]["versions"],
        "regret": evaluations["rmft"][0].attrs["regret"],
        "agents": agents,
        "exponents": {
            str(name): _exponent(evaluations["rmft"][0], str(name)) for name in evaluations["rmft"][0]["agent"].values
        },
        "tuned_in_hindsight": tuned,
        "trained": trained,
    }
    write(f"{preset}_regret", result, curves, result["regret"])


def _tuned_in_hindsight(preset: str, seed: int) -> dict[str, dict[str, Any]]:
    """Each rival with the constant, if it has one, that is best on the test scenarios of a seed; its regret there."""
    config = get_preset(preset)
    environment, horizon, count = config.rmft.environment, config.rmft.horizon, config.num_test_scenarios
    world, key = make_environment(environment), RunKeys.create(seed).test
    agents = make_agents(environment, horizon, TUNED[preset])
    best = tune_agents(agents, world, horizon=horizon, key=key, num_scenarios=count)
    final = evaluate(best, world, horizon=horizon, num_scenarios=count, key=key)["regret"].isel(round=-1)
    return {
        name: {
            "constant": getattr(best[name], catalogue.AGENTS[name].constant or "", None),
            "regret_mean": float(final.sel(agent=name).mean(dtype=np.float64)),
        }
        for name in best
    }


def _ratios(summaries: list[dict[str, Any]], tuned: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The trained policy's regret over that of every rival on the same scenarios, per seed."""
    ratios: dict[str, list[float]] = {}
    for summary, best in zip(summaries, tuned, strict=True):
        regrets = {name: row["regret_mean"] for name, row in summary["evaluation"].items() if row["regret_mean"] > 0}
        regrets |= {f"{name}_tuned_in_hindsight": row["regret_mean"] for name, row in best.items()}
        own = regrets.pop("rmft")
        for name, regret in regrets.items():
            ratios.setdefault(name, []).append(own / regret)
    return {name: describe_seeds(values) for name, values in ratios.items() if len(values) == len(summaries)}


def _exponent(evaluation: xr.Dataset, agent: str) -> dict[str, Any]:
    regret = evaluation["regret"].sel(agent=agent).transpose("scenario", "round").to_numpy()
    exponent, low, high, left_out = growth_exponent(regret)
    return {"exponent": exponent, "ci95": [low, high], "num_nonpositive": left_out}


if __name__ == "__main__":
    tyro.cli(main)
