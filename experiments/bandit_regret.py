"""Selection by advantage on the stationary bandit: `mab-k2` beside the exact Bayes optimum, five arms beside an index.

Trains the preset on three seeds and gathers the final evaluations, with the posterior index tuned in hindsight on the
very scenarios of the comparison. The policies of `mab-k5` also play instances with a fixed gap, never seen in
training. An interrupted script goes on where it stopped. Writes `mab_k2_regret.json`, `.png` and `.pdf`, or those of
the other presets, into `experiments/results`.

    python -m experiments.bandit_regret mab-k2|mab-k5|mab-k5-t50 [--runs DIR] [--seeds 0 1 2] [--quick]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.common import (
    curves_of,
    describe_seeds,
    draw_curves,
    final_regrets,
    preset_config,
    ratios,
    results_folder,
    run_directory,
    train_all,
    tuned_in_hindsight,
    write,
)
from rmft_jax import RunDirectory, load_agent
from rmft_jax.engine.generalization import evaluate_grid

TUNED = ("posterior_index",)
INSTANCES = {"mab-k5": ("fixed_gap_hard", "fixed_gap_easy")}


def main(
    preset: tyro.conf.Positional[Literal["mab-k2", "mab-k5", "mab-k5-t50"]],
    runs: Path = Path("runs/bandit_regret"),
    seeds: tuple[int, ...] = (0, 1, 2),
    quick: bool = False,
) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      preset: what to train.
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
      quick: runs of seconds, to see that the script works; writes beside the runs.
    """
    evaluations, summaries = train_all({"rmft": preset}, runs, seeds, quick)
    curves, of_seeds = curves_of(evaluations), summaries["rmft"]
    tuned = [tuned_in_hindsight(preset_config(preset, quick=quick), seed, TUNED) for seed in seeds]
    policies = [run_directory(runs, preset, seed, quick) for seed in seeds]
    rows: list[dict[str, Any]] = [summary["evaluation"] for summary in of_seeds]
    result = {
        "preset": preset,
        "seeds": list(seeds),
        "device": of_seeds[0]["device"],
        "versions": of_seeds[0]["versions"],
        "agents": final_regrets(curves),
        "tuned_in_hindsight": tuned,
        "ratio_to": ratios(of_seeds, tuned),
        "suff_fail_freq": {name: describe_seeds([row[name]["suff_fail_freq"] for row in rows]) for name in rows[0]},
        "instances": {name: instance(name, policies) for name in INSTANCES.get(preset, ())},
        "checkpoint_iteration": [summary["checkpoint_iteration"] for summary in of_seeds],
        "wall_seconds": [summary["wall_seconds"] for summary in of_seeds],
        "env_steps": of_seeds[0]["env_steps"],
    }
    write(results_folder(runs, quick) / f"{preset.replace('-', '_')}_regret", result, draw_curves(curves))


def instance(environment: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Regret of the trained policies, as many arms and rounds as in training, and of the classical agents beside them.

    Every seed has scenarios of its own, on which all agents play; the difference to Thompson sampling is paired.
    """
    finals: dict[str, list[float]] = {}
    for directory in runs:
        run = RunDirectory.open(directory)
        config, (agent, _) = run.read_config()[0], load_agent(run)
        played = evaluate_grid(config, agent, {"environment": [environment]})["final_regret"].squeeze("environment")
        for name in played["agent"].values:
            finals.setdefault(str(name), []).append(float(played.sel(agent=name)))
    differences = [own - other for own, other in zip(finals["rmft"], finals["thompson"], strict=True)]
    return {
        "agents": {name: describe_seeds(values) for name, values in finals.items()},
        "rmft_minus_thompson": describe_seeds(differences),
    }


if __name__ == "__main__":
    tyro.cli(main)
