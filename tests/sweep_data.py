"""Datasets of sweeps with a known answer, made without playing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

GRID = {"horizon": [25, 50, 100], "num_arms": [2, 5, 10], "seed": [0, 1, 2]}
BASELINES = {"thompson": 0.5, "ucb1": 0.8, "greedy": 0.45, "uniform": 1.5}


def made_sweep(
    grid: Mapping[str, Sequence[Any]] | None = None,
    baselines: Mapping[str, float] | None = None,
    failed: Sequence[int] = (),
    bonus: float = 0.0,
    ball: bool = False,
) -> xr.Dataset:
    """Regret `c sqrt(K t) - bonus t`, with c = 0.3 for the trained policy, and one per baseline.

    A seed s multiplies all regrets by `1 + 0.1 s`. Cells of the flat indices `failed` have failed.
    """
    grid = dict(GRID if grid is None else grid)
    costs = np.asarray(list((BASELINES if baselines is None else baselines).values()))
    names = list(BASELINES if baselines is None else baselines)
    dims, shape = list(grid), tuple(len(values) for values in grid.values())
    axes = dict(zip(dims, np.meshgrid(*grid.values(), indexing="ij"), strict=True)) if dims else {}
    horizon, num_arms = (np.broadcast_to(axes.get(k, d), shape) for k, d in (("horizon", 50), ("num_arms", 3)))
    factor = 1 + 0.1 * np.broadcast_to(axes.get("seed", 0), shape).astype(float)
    rounds, ranks = np.arange(1, int(horizon.max()) + 1), np.arange(int(num_arms.max()))
    ok = np.ones(shape, bool)
    ok.ravel()[list(failed)] = False if shape else ok
    seen = ok[..., None] & (rounds <= horizon[..., None])
    root = factor[..., None] * np.sqrt(num_arms[..., None] * rounds)
    regret = np.where(seen, 0.3 * root - bonus * rounds, np.nan)
    other = np.where(seen[..., None, :], costs[:, None] * root[..., None, :] - bonus * rounds, np.nan)
    fail = np.where(seen, 0.4 * (rounds / horizon[..., None]) ** 2, np.nan)
    best = 1 - 1 / np.sqrt(rounds)
    share = np.where(ranks[:, None] == 0, best, (1 - best) / np.maximum(num_arms[..., None, None] - 1, 1))
    share = np.where(seen[..., None, :] & (ranks[:, None] < num_arms[..., None, None]), share, np.nan)
    final = np.take_along_axis(regret, horizon[..., None] - 1, -1)[..., 0]
    other_final = np.take_along_axis(other, horizon[..., None, None] - 1, -1)[..., 0]
    iteration, held_out = np.arange(1, 41), np.arange(0, 41, 10)
    nan = np.where(ok, 1.0, np.nan)[..., None]
    trained = final[..., None] * (1 + np.exp(-iteration / 10))
    values: dict[str, tuple[Any, Any]] = {
        "final_regret": (dims, final),
        "final_regret_sem": (dims, 0.02 * np.abs(final) + 0.01),
        "regret": ([*dims, "round"], regret),
        "regret_sem": ([*dims, "round"], 0.02 * np.abs(regret) + 0.01),
        "exponent": (dims, np.where(ok, 0.5, np.nan) * factor),
        "exponent_low": (dims, np.where(ok, 0.4, np.nan)),
        "exponent_high": (dims, np.where(ok, 0.6, np.nan)),
        "baseline_final_regret": ([*dims, "agent"], other_final),
        "baseline_final_regret_sem": ([*dims, "agent"], 0.02 * np.abs(other_final) + 0.01),
        "baseline_regret": ([*dims, "agent", "round"], other),
        "baseline_regret_sem": ([*dims, "agent", "round"], 0.02 * np.abs(other) + 0.01),
        "baseline_exponent": ([*dims, "agent"], np.where(ok[..., None], 0.5, np.nan) + 0 * costs),
        "training_regret": ([*dims, "iteration"], trained),
        "selected_regret": ([*dims, "iteration"], 0.8 * trained),
        "entropy": ([*dims, "iteration"], nan * np.exp(-iteration / 30)),
        "validation_regret": ([*dims, "validation_iteration"], final[..., None] * (1 + np.exp(-held_out / 10))),
        "validation_regret_sem": ([*dims, "validation_iteration"], nan * np.full(len(held_out), 0.1)),
        "status": (dims, np.where(ok, "finished", "failed")),
    }
    if not ball:
        values["suff_fail_freq"] = ([*dims, "round"], fail)
        values["baseline_suff_fail_freq"] = (
            [*dims, "agent", "round"], np.where(seen[..., None, :], fail[..., None, :] * costs[:, None] / 2, np.nan)
        )  # fmt: skip
        values["rank_frequency"] = ([*dims, "rank", "round"], share)
    coords = grid | {"agent": names, "round": rounds, "iteration": iteration, "validation_iteration": held_out}
    coords |= {} if ball else {"rank": ranks}
    attrs = {"regret": "pseudo"} | ({"reference": "thompson"} if "thompson" in names else {})
    return xr.Dataset(values, coords=coords, attrs=attrs)
