"""RMFT on the stationary bandit: five arms over 50 and 100 rounds, and two arms beside the exact Bayes optimum.

Trains a preset on three seeds and gathers the final evaluations, with the posterior index tuned in hindsight on the
very scenarios of the comparison, and the policies at other temperatures of play. Those of `mab-k5` also play instances
with a fixed gap, never seen in training. An interrupted script goes on where it stopped. Writes `mab_regret.json`,
`.png` and `.pdf`, or those of the other presets, into `experiments/results`.

    python -m experiments.bandit_regret mab|mab-k2|mab-k5 [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tyro

from experiments.common import (
    HINDSIGHT,
    Options,
    at_temperatures,
    curves_of,
    describe_seeds,
    final_regrets,
    missed_best_arm,
    provenance,
    ratios,
    tuned_in_hindsight,
    write,
)
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_regret_curves
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.sweeps.generalization import evaluate_grid

TUNED = ("posterior_index",)
INSTANCES = {"mab-k5": ("fixed_gap_hard", "fixed_gap_easy")}


@pinned()
def main(
    preset: tyro.conf.Positional[Literal["mab", "mab-k2", "mab-k5"]],
    options: tyro.conf.OmitArgPrefixes[Options],
) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      preset: what to train.
      options: those of every script.
    """
    trained = options.train(preset)
    evaluations, policies = trained.evaluations(), trained.policies
    curves = curves_of({"rmft": evaluations})
    tuned = [tuned_in_hindsight(policy.config, TUNED) for policy in policies]
    result = {
        "preset": preset,
        "seeds": list(options.seeds),
        **provenance(trained.sweep),
        "agents": final_regrets(curves),
        "suff_fail_freq": {name: missed_best_arm(evaluations, name) for name in curves},
        "tuned_in_hindsight": tuned,
        "trained": {"ratio_to": ratios(evaluations, tuned), **trained.cost(), "validation": trained.validation()},
        "at_temperature": at_temperatures(policies),
        "instances": {name: instance(name, policies) for name in INSTANCES.get(preset, ())},
    }
    # What knows the rewards is in the numbers only: a figure holds eight curves.
    drawn = {name: curve for name, curve in curves.items() if name not in HINDSIGHT}
    write(options.results / f"{preset.replace('-', '_')}_regret", result, plot_regret_curves(drawn))


def instance(environment: str, policies: Sequence[TrainedPolicy]) -> dict[str, Any]:
    """Regret of the trained policies, as many arms and rounds as in training, and of the classical agents beside them.

    Every seed has scenarios of its own, on which all agents play: ratios and the difference to Thompson sampling are
    paired.
    """
    finals: dict[str, list[float]] = {}
    missed: list[float] = []
    for policy in policies:
        played = evaluate_grid(policy.config, policy.agent, {"environment": [environment]}).squeeze("environment")
        finals.setdefault("rmft", []).append(float(played["final_regret"]))
        missed.append(float(played["suff_fail_freq"].sel(round=half_horizon(policy.config.rmft.horizon))))
        for name, regret in played["baseline_final_regret"].groupby("agent"):
            finals.setdefault(str(name), []).append(regret.item())
    own = np.asarray(finals["rmft"])
    others = {name: np.asarray(values) for name, values in finals.items() if name != "rmft" and min(values) > 0}
    return {
        "agents": {name: describe_seeds(values) for name, values in finals.items()},
        "ratio_to": {name: describe_seeds(list(own / values)) for name, values in others.items()},
        "suff_fail_freq": {"rmft": describe_seeds(missed)},
        "rmft_minus_thompson": describe_seeds(list(own - others["thompson"])),
    }


if __name__ == "__main__":
    tyro.cli(main)
