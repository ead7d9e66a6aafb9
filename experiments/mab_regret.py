"""The regret figure of the README: five Bernoulli arms, 50 rounds, RMFT with and without shared-prefix branching.

Trains the presets `mab` and `mab-plain` on three seeds each and gathers their final evaluations. An interrupted
script goes on where it stopped. Writes `mab_regret.json`, `.png` and `.pdf` into `experiments/results`.

    python -m experiments.mab_regret [--runs DIR] [--seeds 0 1 2]
"""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import tyro
import xarray as xr
from scipy import stats

from rmft_jax import RunDirectory, get_preset, train
from rmft_jax.bootstrap import Interval
from rmft_jax.plotting import Curve, plot_regret_curves, save_figure, scenario_curve
from rmft_jax.storage import replacing

PRESETS = {"rmft": "mab", "rmft_plain": "mab-plain"}
RESULTS = Path(__file__).parent / "results"


def main(runs: Path = Path("runs/mab_regret"), seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
    """
    if len(seeds) < 2:
        raise SystemExit(f"got {len(seeds)} seed, need at least 2 for an interval; try --seeds 0 1 2")
    evaluations: dict[str, list[xr.Dataset]] = {agent: [] for agent in PRESETS}
    summaries: dict[str, list[dict[str, Any]]] = {agent: [] for agent in PRESETS}
    for seed in seeds:
        for agent, preset in PRESETS.items():
            directory = runs / f"{preset}-seed{seed}"
            config = dataclasses.replace(get_preset(preset), seed=seed)
            summaries[agent].append(train(config, directory, preset=preset, resume=True))
            evaluations[agent].append(RunDirectory.open(directory).read_dataset("evaluation.nc"))

    # Runs of one seed share their test scenarios, so the classical agents are the same in both.
    pooled = xr.concat([dataset["regret"] for dataset in evaluations["rmft"]], dim="scenario")
    curves = {name: scenario_curve(pooled.sel(agent=name)) for name in pooled["agent"].values if name != "rmft"} | {
        agent: _over_seeds([dataset["regret"].sel(agent="rmft") for dataset in evaluations[agent]]) for agent in PRESETS
    }
    save_figure(plot_regret_curves(curves, pooled["round"].to_numpy()), RESULTS / "mab_regret")
    result = {
        "seeds": list(seeds),
        "device": summaries["rmft"][0]["device"],
        "versions": summaries["rmft"][0]["versions"],
        "agents": {
            name: {
                "regret_mean": float(mean[-1]),
                "regret_ci95": [float(band.low[-1]), float(band.high[-1])],
                "suff_fail_freq": _suff_fail_freq(name, summaries),
            }
            for name, (mean, band) in sorted(curves.items(), key=lambda item: item[1].mean[-1])
        },
        "trained": {PRESETS[agent]: _describe(summaries[agent]) for agent in PRESETS},
    }
    with replacing(RESULTS / "mab_regret.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _over_seeds(regrets: list[xr.DataArray]) -> Curve:
    """Mean over training seeds and Student-t band; each seed has its own test scenarios, so it covers both."""
    means = np.stack([regret.mean("scenario").to_numpy() for regret in regrets])
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(0, ddof=1) / np.sqrt(len(means))
    return Curve(means.mean(0), Interval(means.mean(0) - half, means.mean(0) + half))


def _suff_fail_freq(name: str, summaries: dict[str, list[dict[str, Any]]]) -> float:
    """Mean over the seeds of SuffFailFreq(T/2)."""
    rows = [summary["evaluation"] for summary in summaries.get(name, summaries["rmft"])]
    return statistics.mean(row["rmft" if name in PRESETS else name]["suff_fail_freq"] for row in rows)


def _describe(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Per seed, the ratio to Thompson on the same scenarios, and the cost."""
    rows = [summary["evaluation"] for summary in summaries]
    ratios = [row["rmft"]["regret_mean"] / row["thompson"]["regret_mean"] for row in rows]
    return {
        "ratio_to_thompson": ratios,
        "ratio_to_thompson_mean": statistics.mean(ratios),
        "suff_fail_freq": [row["rmft"]["suff_fail_freq"] for row in rows],
        "wall_seconds": [summary["wall_seconds"] for summary in summaries],
        "env_steps": summaries[0]["env_steps"],
    }


if __name__ == "__main__":
    tyro.cli(main)
