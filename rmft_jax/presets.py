"""Named configurations and named environments. Imports no JAX."""

import dataclasses
import math
from typing import Any, NamedTuple

from rmft_jax.config import (
    AbruptConfig,
    AdaptiveConfig,
    AlternatingConfig,
    BanditConfig,
    BesbesConfig,
    ConfigError,
    EnvironmentConfig,
    GradualConfig,
    LinearTrendConfig,
    RandomWalkConfig,
    RMFTConfig,
    RunConfig,
    SingleLayerConfig,
    SinusoidalConfig,
)

_GAUSSIAN = BanditConfig(prior="gaussian", noise="gaussian")
_IID_UNIFORM = BanditConfig(prior="constant", prior_mean=0.5, noise="uniform", noise_std=math.sqrt(1 / 12))


def _full(config: EnvironmentConfig, **changes: Any) -> EnvironmentConfig:
    return dataclasses.replace(config, feedback="full", **changes)


_PER_SCENARIO = RunConfig(RMFTConfig())
# Selection by advantage: ranks within a scenario do not tell a large gain from a small one (see `selection.py`).
_MAB_K2 = RunConfig(
    RMFTConfig(
        environment=BanditConfig(num_arms=2),
        num_iterations=300,
        num_rollouts=16,
        k=1,
        selection="advantage",
    )
)
_MAB = RunConfig(
    RMFTConfig(
        num_iterations=200,
        num_scenarios=2048,
        num_rollouts=16,
        k=1,
        selection="advantage",
        num_minibatches=8,
        entropy_weight=0.0,
    )
)
_MAB_K5 = dataclasses.replace(_MAB, rmft=dataclasses.replace(_MAB.rmft, horizon=100, num_iterations=160))
_FOL = RunConfig(
    RMFTConfig(
        environment=_full(_GAUSSIAN, prior_std=0.7),
        num_iterations=300,
        num_scenarios=512,
        shared_reward_noise=True,
        step_size=4e-3,
        exploration_std=1.0,
        entropy_weight=0.0,
    )
)
_SINGLE_LAYER = RunConfig(
    RMFTConfig(
        environment=_full(_GAUSSIAN, num_arms=3, prior_std=0.7),
        policy=SingleLayerConfig(),
        num_iterations=100,
        num_scenarios=1024,
        branching="none",
        shared_reward_noise=True,
        entropy_weight=0.0,
        exploration_std=1.0,
        update="least_squares",
    ),
    chunk_size=10,
)
_NSMAB = RunConfig(RMFTConfig(environment=AbruptConfig(num_arms=3), horizon=100, num_iterations=400, num_scenarios=512))

PRESETS: dict[str, tuple[str, RunConfig]] = {
    "quickstart": (
        "Bernoulli bandit, K=3, T=30: about a minute on two CPU cores",
        RunConfig(
            RMFTConfig(environment=BanditConfig(num_arms=3), horizon=30, num_iterations=200, num_scenarios=512),
            chunk_size=10,
        ),
    ),
    "fol": (
        "full information, Gaussian rewards around a drawn mean, K=5, T=50: about two minutes on two CPU cores",
        _FOL,
    ),
    "nsmab": (
        "Bernoulli bandit with three abrupt changes, K=3, T=100: about twelve minutes on two CPU cores",
        _NSMAB,
    ),
    "single-layer": (
        "the theory's model: full information, one layer of attention, exact least squares, K=3, T=50: about a minute",
        _SINGLE_LAYER,
    ),
    "mab": ("Bernoulli bandit, K=5, T=50: about seven minutes on two CPU cores", _MAB),
    "mab-k2": (
        "Bernoulli bandit, K=2, T=50, for which the Bayes optimum is known: about six minutes on two CPU cores",
        _MAB_K2,
    ),
    "mab-k5": ("Bernoulli bandit, K=5, T=100: about a quarter of an hour on two CPU cores", _MAB_K5),
    "mab-per-scenario": (
        "the bandit of `mab`, the lowest regrets of each scenario kept, 2 of 8: about three minutes on two CPU cores",
        _PER_SCENARIO,
    ),
    "mab-plain": (
        "the same with whole-trajectory selection, as in the paper, and half of the trajectories kept",
        dataclasses.replace(_PER_SCENARIO, rmft=dataclasses.replace(_PER_SCENARIO.rmft, branching="none", k=4)),
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


class NamedEnvironment(NamedTuple):
    """An entry of the register of environments."""

    description: str
    config: EnvironmentConfig


ENVIRONMENTS: dict[str, NamedEnvironment] = {
    name: NamedEnvironment(description, config)
    for name, description, config in (
        ("bernoulli", "stationary bandit, Bernoulli rewards, uniform prior", BanditConfig()),
        ("gaussian", "stationary bandit, Gaussian rewards, Gaussian prior", _GAUSSIAN),
        ("fixed_gap_hard", "Bernoulli bandit, K=5, gap 0.2", BanditConfig(prior="fixed_gap")),
        ("fixed_gap_easy", "Bernoulli bandit, K=4, gap 0.5", BanditConfig(num_arms=4, prior="fixed_gap", gap=0.5)),
        ("sinusoidal", "bandit with sinusoidal drift", SinusoidalConfig()),
        ("random_walk", "bandit with reflected random walks", RandomWalkConfig()),
        ("gradual", "bandit whose drift slows down as 1/sqrt(t)", GradualConfig()),
        ("linear_trend", "bandit with linear trends", LinearTrendConfig()),
        ("abrupt", "bandit with three abrupt changes to fresh means", AbruptConfig()),
        ("abrupt_mirrored", "bandit with three changes that mirror the means", AbruptConfig(change="mirrored")),
        ("besbes_even", "bandit, two sines spend a budget of 3 evenly", BesbesConfig()),
        ("besbes_first_third", "bandit, they spend it in the first third", BesbesConfig(spending="first_third")),
        ("crowding", "bandit, an arm earns less the more it was played", AdaptiveConfig(adversary="crowding")),
        ("iid_uniform", "full information, i.i.d. uniform rewards", _full(_IID_UNIFORM)),
        ("iid_gaussian", "full information, Gaussian rewards around a drawn mean", _full(_GAUSSIAN, prior_std=0.7)),
        ("sine_trend", "full information, noisy sines", _full(SinusoidalConfig(noise="gaussian", noise_std=0.1))),
        ("alternating", "full information, the sequence that fools the leader", _full(AlternatingConfig())),
        ("favourite", "full information, the likeliest arm earns nothing", _full(AdaptiveConfig())),
    )
}


def get_environment(name: str) -> EnvironmentConfig:
    """The configuration of a named environment.

    Raises:
      ConfigError: if there is none of this name.
    """
    if name not in ENVIRONMENTS:
        raise ConfigError(f"got environment {name!r}, need one of {', '.join(ENVIRONMENTS)}; try 'bernoulli'")
    return ENVIRONMENTS[name].config
