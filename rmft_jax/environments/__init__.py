"""What the world does: one protocol, one file per family."""

from typing import Any

from rmft_jax.config import (
    AbruptConfig,
    AdaptiveConfig,
    AlternatingConfig,
    BanditConfig,
    BesbesConfig,
    EnvironmentConfig,
    GradualConfig,
    LinearTrendConfig,
    RandomWalkConfig,
    SinusoidalConfig,
)
from rmft_jax.environments.abrupt import Abrupt
from rmft_jax.environments.adaptive import Adaptive
from rmft_jax.environments.alternating import Alternating
from rmft_jax.environments.base import Environment
from rmft_jax.environments.besbes import Besbes
from rmft_jax.environments.drift import Gradual, LinearTrend, RandomWalk, Sinusoidal
from rmft_jax.environments.oblivious import ObliviousEnvironment
from rmft_jax.environments.stationary import Stationary

__all__ = [
    "Abrupt",
    "Adaptive",
    "Alternating",
    "Besbes",
    "Environment",
    "Gradual",
    "LinearTrend",
    "ObliviousEnvironment",
    "RandomWalk",
    "Sinusoidal",
    "Stationary",
    "make_environment",
]

_CLASSES: dict[type[EnvironmentConfig], Any] = {
    BanditConfig: Stationary,
    SinusoidalConfig: Sinusoidal,
    RandomWalkConfig: RandomWalk,
    GradualConfig: Gradual,
    LinearTrendConfig: LinearTrend,
    AbruptConfig: Abrupt,
    BesbesConfig: Besbes,
    AlternatingConfig: Alternating,
    AdaptiveConfig: Adaptive,
}


def make_environment(config: EnvironmentConfig) -> Environment:
    """The environment that a configuration describes."""
    return _CLASSES[type(config)](config)
