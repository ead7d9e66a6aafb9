"""Trains a preset and puts its policy into the package, where `rmft evaluate pretrained:NAME` finds it.

An interrupted script goes on where it stopped.

    python -m experiments.pretrain mab-k2 [--runs DIR] [--seed 0]
"""

from pathlib import Path

import tyro

from experiments.common import Options, provenance, train_seeds
from rmft_jax.method.numerics import pinned
from rmft_jax.running.weights import PRETRAINED, write_policy
from rmft_jax.statistics.report import summarize


@pinned()
def main(preset: tyro.conf.Positional[str], runs: Path = Options.runs, seed: int = 0) -> None:
    """Trains what is missing, then writes `rmft_jax/running/policies/PRESET.npz`.

    Args:
      preset: what to train, and the name of the policy.
      runs: where the sweep goes, that of `experiments.bandit_regret` if it has been there.
      seed: of the policy.
    """
    trained = train_seeds(runs / preset, preset, [seed])
    (policy,), (evaluation,) = trained.policies, trained.evaluations()
    summary, cost, made = summarize(evaluation)["rmft"], trained.cost(), provenance(trained.sweep)
    kept = {
        "iteration": cost["checkpoint_iteration"][0],
        "evaluation": {name: summary[name] for name in ("regret_mean", "regret_ci95", "suff_fail_freq")},
        "device": made["device"],
        "versions": made["versions"],
        "wall_seconds": cost["wall_seconds"][0],
        "env_steps": cost["env_steps"],
    }
    write_policy(PRETRAINED / f"{preset}.npz", policy.agent.params, policy.config, preset, kept)
    print(PRETRAINED / f"{preset}.npz")


if __name__ == "__main__":
    tyro.cli(main)
