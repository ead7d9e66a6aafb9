"""Iterative regret-minimization fine-tuning of numerical Transformers, in JAX.

Names are imported on first use, so that importing the package stays fast and needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmft_jax.agents import TransformerAgent, make_baselines
    from rmft_jax.config import BanditConfig, ConfigError, RMFTConfig, RunConfig, TransformerConfig
    from rmft_jax.environments import StationaryBandit, make_environment
    from rmft_jax.evaluation import evaluate
    from rmft_jax.plotting import plot_regret, plot_training
    from rmft_jax.presets import get_preset
    from rmft_jax.report import summarize
    from rmft_jax.rmft import init, iterate, iterate_chunk, make_agent
    from rmft_jax.rollout import rollout_scenarios
    from rmft_jax.storage import RunDirectory
    from rmft_jax.training import load_agent, train

_HOMES = {
    "agents": ("TransformerAgent", "make_baselines"),
    "config": ("BanditConfig", "ConfigError", "RMFTConfig", "RunConfig", "TransformerConfig"),
    "environments": ("StationaryBandit", "make_environment"),
    "evaluation": ("evaluate",),
    "plotting": ("plot_regret", "plot_training"),
    "presets": ("get_preset",),
    "report": ("summarize",),
    "rmft": ("init", "iterate", "iterate_chunk", "make_agent"),
    "rollout": ("rollout_scenarios",),
    "storage": ("RunDirectory",),
    "training": ("load_agent", "train"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BanditConfig",
    "ConfigError",
    "RMFTConfig",
    "RunConfig",
    "RunDirectory",
    "StationaryBandit",
    "TransformerAgent",
    "TransformerConfig",
    "evaluate",
    "get_preset",
    "init",
    "iterate",
    "iterate_chunk",
    "load_agent",
    "make_agent",
    "make_baselines",
    "make_environment",
    "plot_regret",
    "plot_training",
    "rollout_scenarios",
    "summarize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
