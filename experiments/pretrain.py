"""Trains a preset and puts its policy into the package, where `rmft evaluate pretrained:NAME` finds it.

An interrupted script goes on where it stopped.

    python -m experiments.pretrain mab-k2 [--runs DIR] [--seed 0]
"""

import dataclasses
from pathlib import Path

import tyro

from experiments.common import run_directory
from rmft_jax import ConfigError, RunDirectory, get_preset, load_agent, train
from rmft_jax.pretrained import write_policy

POLICIES = Path(__file__).parent.parent / "rmft_jax" / "policies"


def main(preset: tyro.conf.Positional[str], runs: Path = Path("runs/bandit_regret"), seed: int = 0) -> None:
    """Trains what is missing, then writes `rmft_jax/policies/PRESET.npz`.

    Args:
      preset: what to train, and the name of the policy.
      runs: where the run directory goes.
      seed: of the run.
    """
    try:
        config = dataclasses.replace(get_preset(preset), seed=seed)
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    directory = run_directory(runs, preset, seed)
    summary = train(config, directory, preset=preset, resume=True)
    agent, iteration = load_agent(RunDirectory.open(directory))
    own = {name: summary["evaluation"]["rmft"][name] for name in ("regret_mean", "regret_ci95", "suff_fail_freq")}
    kept = ("device", "versions", "wall_seconds", "env_steps")
    provenance = {"iteration": iteration, "evaluation": own} | {name: summary[name] for name in kept}
    write_policy(POLICIES / f"{preset}.npz", agent, config, preset, provenance)
    print(POLICIES / f"{preset}.npz")


if __name__ == "__main__":
    tyro.cli(main)
