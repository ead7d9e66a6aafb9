"""Evaluation datasets with a known answer, made without playing."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

AGENTS = ("rmft", "ucb1", "thompson", "greedy", "epsilon_greedy", "uniform", "best_arm")


def made_evaluation(
    agents: Sequence[str] = AGENTS,
    num_scenarios: int = 60,
    horizon: int = 20,
    num_arms: int = 4,
    reference: str | None = "thompson",
    bonus: float = 0.0,
) -> xr.Dataset:
    """Agents that explore at rate `c / sqrt(t)`, each with its own c, and otherwise play the best arm.

    Uniform play has rate 1, the best arm rate 0. Every round costs `bonus` less than the gap of its arm.
    """
    rng, rounds = np.random.default_rng(0), np.arange(1, horizon + 1)
    means = rng.random((num_scenarios, num_arms))
    best_first = np.argsort(-means, axis=1)
    rank = np.zeros((len(agents), num_scenarios, horizon), np.int16)
    for i, name in enumerate(agents):
        rate = {"best_arm": 0.0 * rounds, "uniform": 0.0 * rounds + 1}.get(name, (0.3 + 0.05 * i) / np.sqrt(rounds))
        explores = rng.random(rank[i].shape) < rate
        rank[i] = np.where(explores, rng.integers(0, num_arms, rank[i].shape), 0)
    scenario = np.arange(num_scenarios)[None, :, None]
    action = best_first[scenario, rank]
    gap = means.max(axis=1)[None, :, None] - means[scenario, action]
    pulls = (action[..., None] == np.arange(num_arms)).sum(axis=2)
    per_round, per_scenario = ("agent", "scenario", "round"), ("agent", "scenario")
    attrs = {"horizon": horizon, "num_scenarios": num_scenarios, "num_arms": num_arms, "regret": "dynamic"}
    return xr.Dataset(
        {
            "regret": (per_round, np.cumsum(gap - bonus, axis=-1).astype(np.float32)),
            "action": (per_round, action.astype(np.int32)),
            "rank": (per_round, rank),
            "last_best_round": (per_scenario, np.where(rank == 0, rounds, 0).max(axis=-1)),
            "min_frac": (per_scenario, (num_arms * pulls.min(axis=-1) / horizon).astype(np.float32)),
            "greedy_frac": (per_scenario, rng.random((len(agents), num_scenarios)).astype(np.float32)),
            "mean_rewards": (("scenario", "arm"), means.astype(np.float32)),
        },
        coords={"agent": list(agents), "round": rounds},
        attrs=attrs | ({} if reference is None else {"reference": reference}),
    )
