"""Every setting of a run, as frozen dataclasses that are checked before anything compiles.

This package never imports JAX, so that the command line can reject bad input at once. `rmft_jax.types` registers the
classes as pytrees: their `float` fields are leaves, which can be traced and vmapped, and all other fields are static,
because they fix shapes or choose code.
"""

from rmft_jax.config.algorithm import (
    RMFTConfig,
    RunConfig,
    differing_fields,
    environment_to_dict,
    from_dict,
    to_dict,
)
from rmft_jax.config.checks import ConfigError
from rmft_jax.config.environments import (
    FAMILIES,
    AbruptConfig,
    AdaptiveConfig,
    AlternatingConfig,
    BanditConfig,
    BesbesConfig,
    EnvironmentConfig,
    Feedback,
    GradualConfig,
    LinearTrendConfig,
    RandomWalkConfig,
    RegretKind,
    SinusoidalConfig,
)
from rmft_jax.config.policies import POLICIES, PolicyConfig, SingleLayerConfig, TransformerConfig

CONFIG_CLASSES = (*FAMILIES.values(), *POLICIES.values(), RMFTConfig, RunConfig)

__all__ = [
    "CONFIG_CLASSES",
    "FAMILIES",
    "POLICIES",
    "AbruptConfig",
    "AdaptiveConfig",
    "AlternatingConfig",
    "BanditConfig",
    "BesbesConfig",
    "ConfigError",
    "EnvironmentConfig",
    "Feedback",
    "GradualConfig",
    "LinearTrendConfig",
    "PolicyConfig",
    "RMFTConfig",
    "RandomWalkConfig",
    "RegretKind",
    "RunConfig",
    "SingleLayerConfig",
    "SinusoidalConfig",
    "TransformerConfig",
    "differing_fields",
    "environment_to_dict",
    "from_dict",
    "to_dict",
]
