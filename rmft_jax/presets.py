"""Named configurations. Imports no JAX."""

import dataclasses

from rmft_jax.config import BanditConfig, ConfigError, RMFTConfig, RunConfig

_MAB = RunConfig(RMFTConfig())

PRESETS: dict[str, tuple[str, RunConfig]] = {
    "quickstart": (
        "Bernoulli bandit, K=3, T=30: about a minute on two CPU cores",
        RunConfig(
            RMFTConfig(environment=BanditConfig(num_arms=3), horizon=30, num_iterations=200, num_scenarios=512),
            chunk_size=10,
        ),
    ),
    "mab": ("Bernoulli bandit, K=5, T=50: about ten minutes on two CPU cores", _MAB),
    "mab-plain": (
        "the same bandit with whole-trajectory selection, as in the paper, and half of the trajectories kept",
        dataclasses.replace(_MAB, rmft=dataclasses.replace(_MAB.rmft, branching="none", k=4)),
    ),
}


def get_preset(name: str) -> RunConfig:
    """The configuration of a preset.

    Raises:
      ConfigError: if there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"got preset {name!r}, need one of {', '.join(PRESETS)}; try `rmft presets`")
    return PRESETS[name][1]
