"""The regret figure of the README: five Bernoulli arms, 50 rounds, RMFT with and without shared-prefix branching.

Trains the presets `mab` and `mab-plain` on three seeds each and gathers their final evaluations. An interrupted
script goes on where it stopped. Writes `mab_regret.json`, `.png` and `.pdf` into `experiments/results`.

    python -m experiments.mab_regret [--runs DIR] [--seeds 0 1 2] [--quick]
"""

import statistics
from pathlib import Path
from typing import Any

import tyro

from experiments.common import curves_of, draw_curves, final_regrets, results_folder, train_all, write

PRESETS = {"rmft": "mab", "rmft_plain": "mab-plain"}


def main(runs: Path = Path("runs/mab_regret"), seeds: tuple[int, ...] = (0, 1, 2), quick: bool = False) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
      quick: runs of seconds, to see that the script works; writes beside the runs.
    """
    evaluations, summaries = train_all(PRESETS, runs, seeds, quick)
    curves = curves_of(evaluations)
    agents = final_regrets(curves)
    for name, row in agents.items():
        row["suff_fail_freq"] = _suff_fail_freq(name, summaries)
    result = {
        "seeds": list(seeds),
        "device": summaries["rmft"][0]["device"],
        "versions": summaries["rmft"][0]["versions"],
        "agents": agents,
        "trained": {PRESETS[agent]: _describe(summaries[agent]) for agent in PRESETS},
    }
    write(results_folder(runs, quick) / "mab_regret", result, draw_curves(curves))


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
