"""Selection by advantage on the stationary bandit: `mab-k2` beside the exact Bayes optimum, `mab-k5` at 100 rounds.

Trains the preset on three seeds and gathers the final evaluations. An interrupted script goes on where it stopped.
Writes `mab_k2_regret.json`, `.png` and `.pdf`, or those of `mab_k5`, into `experiments/results`.

    python -m experiments.bandit_regret mab-k2|mab-k5 [--runs DIR] [--seeds 0 1 2]
"""

from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.common import curves_of, describe_seeds, final_regrets, train_all, write


def main(
    preset: tyro.conf.Positional[Literal["mab-k2", "mab-k5", "mab-k5-t50"]],
    runs: Path = Path("runs/bandit_regret"),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      preset: what to train.
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
    """
    evaluations, summaries = train_all({"rmft": preset}, runs, seeds)
    curves = curves_of(evaluations)
    of_seeds = summaries["rmft"]
    rows: list[dict[str, Any]] = [summary["evaluation"] for summary in of_seeds]
    own = [row["rmft"]["regret_mean"] for row in rows]
    rivals = [name for name in rows[0] if name != "rmft" and rows[0][name]["regret_mean"] > 0]
    result = {
        "preset": preset,
        "seeds": list(seeds),
        "device": of_seeds[0]["device"],
        "versions": of_seeds[0]["versions"],
        "agents": final_regrets(curves),
        "ratio_to": {
            name: describe_seeds([a / row[name]["regret_mean"] for a, row in zip(own, rows, strict=True)])
            for name in rivals
        },
        "suff_fail_freq": {name: describe_seeds([row[name]["suff_fail_freq"] for row in rows]) for name in rows[0]},
        "checkpoint_iteration": [summary["checkpoint_iteration"] for summary in of_seeds],
        "wall_seconds": [summary["wall_seconds"] for summary in of_seeds],
        "env_steps": of_seeds[0]["env_steps"],
    }
    write(f"{preset.replace('-', '_')}_regret", result, curves, "pseudo")


if __name__ == "__main__":
    tyro.cli(main)
