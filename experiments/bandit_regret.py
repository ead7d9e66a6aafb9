"""RMFT on the stationary bandit: five arms over 50 and 100 rounds, and two arms beside the exact Bayes optimum.

Trains a preset on three seeds, `mab` beside `mab-plain`, the paper's whole-trajectory selection, and gathers the final
evaluations, with the posterior index tuned in hindsight on the very scenarios of the comparison. The policies of
`mab-k5` also play instances with a fixed gap, never seen in training. An interrupted script goes on where it stopped.
Writes `mab_regret.json`, `.png` and `.pdf`, or those of the other presets, into `experiments/results`.

    python -m experiments.bandit_regret mab|mab-k2|mab-k5 [--runs DIR] [--seeds 0 1 2] [--quick]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from experiments.common import (
    HINDSIGHT,
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
BESIDE = {"mab": {"rmft_plain": "mab-plain"}}
INSTANCES = {"mab-k5": ("fixed_gap_hard", "fixed_gap_easy")}


def main(
    preset: tyro.conf.Positional[Literal["mab", "mab-k2", "mab-k5"]],
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
    presets = {"rmft": preset, **BESIDE.get(preset, {})}
    evaluations, summaries = train_all(presets, runs, seeds, quick)
    curves, first = curves_of(evaluations), summaries["rmft"][0]
    tuned = [tuned_in_hindsight(preset_config(preset, quick=quick), seed, TUNED) for seed in seeds]
    policies = [run_directory(runs, preset, seed, quick) for seed in seeds]
    result = {
        "preset": preset,
        "seeds": list(seeds),
        "device": first["device"],
        "versions": first["versions"],
        "agents": final_regrets(curves),
        "suff_fail_freq": {name: suff_fail(name, summaries) for name in curves},
        "tuned_in_hindsight": tuned,
        "trained": {presets[agent]: describe(summaries[agent], tuned) for agent in presets},
        "instances": {name: instance(name, policies) for name in INSTANCES.get(preset, ())},
    }
    # What knows the rewards is in the numbers only: a figure holds eight curves.
    drawn = {name: curve for name, curve in curves.items() if name not in HINDSIGHT}
    write(results_folder(runs, quick) / f"{preset.replace('-', '_')}_regret", result, draw_curves(drawn))


def suff_fail(name: str, summaries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """SuffFailFreq(T/2) of a trained policy, or of a classical agent on the scenarios of its runs."""
    of_seeds = summaries.get(name, summaries["rmft"])
    agent = "rmft" if name in summaries else name
    return describe_seeds([summary["evaluation"][agent]["suff_fail_freq"] for summary in of_seeds])


def describe(summaries: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a preset reached on every seed, beside the other agents on the same scenarios, and its cost."""
    return {
        "ratio_to": ratios(summaries, tuned),
        "checkpoint_iteration": [summary["checkpoint_iteration"] for summary in summaries],
        "wall_seconds": [summary["wall_seconds"] for summary in summaries],
        "env_steps": summaries[0]["env_steps"],
    }


def instance(environment: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Regret of the trained policies, as many arms and rounds as in training, and of the classical agents beside them.

    Every seed has scenarios of its own, on which all agents play: ratios and the difference to Thompson sampling are
    paired.
    """
    finals: dict[str, list[float]] = {}
    for directory in runs:
        run = RunDirectory.open(directory)
        config, (agent, _) = run.read_config()[0], load_agent(run)
        played = evaluate_grid(config, agent, {"environment": [environment]}).squeeze("environment")
        finals.setdefault("rmft", []).append(float(played["final_regret"]))
        for name, regret in played["baseline_final_regret"].groupby("agent"):
            finals.setdefault(str(name), []).append(regret.item())
    own = np.asarray(finals["rmft"])
    others = {name: np.asarray(values) for name, values in finals.items() if name != "rmft" and min(values) > 0}
    return {
        "agents": {name: describe_seeds(values) for name, values in finals.items()},
        "ratio_to": {name: describe_seeds(list(own / values)) for name, values in others.items()},
        "rmft_minus_thompson": describe_seeds(list(own - others["thompson"])),
    }


if __name__ == "__main__":
    tyro.cli(main)
