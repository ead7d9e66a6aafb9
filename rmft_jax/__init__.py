"""Iterative regret-minimization fine-tuning of numerical Transformers, in JAX.

Names are imported on first use, so that importing the package stays fast and needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmft_jax.agents import (
        BanditSingleLayer,
        BanditTransformer,
        FullInformationSingleLayer,
        FullInformationTransformer,
        bayes_optimal_regret,
        make_agents,
        make_baselines,
    )
    from rmft_jax.benchmark import bench_agents
    from rmft_jax.bootstrap import mean_interval, paired_difference
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
        TransformerConfig,
    )
    from rmft_jax.engine.generalization import evaluate_grid
    from rmft_jax.engine.sweep import run_sweep
    from rmft_jax.environments import make_environment
    from rmft_jax.evaluation import evaluate
    from rmft_jax.growth import growth_exponent, regression_test, trend_test
    from rmft_jax.plotting import (
        plot_arms,
        plot_final_regret,
        plot_heatmap,
        plot_loglog,
        plot_regret,
        plot_suff_fail,
        plot_sweep,
        plot_training,
        save_figure,
    )
    from rmft_jax.presets import get_environment, get_preset
    from rmft_jax.pretrained import load_pretrained, pretrained_names
    from rmft_jax.regret import Regret
    from rmft_jax.report import summarize
    from rmft_jax.rmft import init, iterate, iterate_chunk, make_agent
    from rmft_jax.rollout import rollout_scenarios
    from rmft_jax.storage import RunDirectory
    from rmft_jax.sweeps.spec import Sweep
    from rmft_jax.sweeps.store import load_sweep
    from rmft_jax.tables import table
    from rmft_jax.training import load_agent, train

_HOMES = {
    "agents": (
        "BanditSingleLayer",
        "BanditTransformer",
        "FullInformationSingleLayer",
        "FullInformationTransformer",
        "bayes_optimal_regret",
        "make_agents",
        "make_baselines",
    ),
    "benchmark": ("bench_agents",),
    "bootstrap": (
        "mean_interval",
        "paired_difference",
    ),
    "config": (
        "AbruptConfig",
        "AdaptiveConfig",
        "AlternatingConfig",
        "BanditConfig",
        "BesbesConfig",
        "ConfigError",
        "EnvironmentConfig",
        "GradualConfig",
        "LinearTrendConfig",
        "RMFTConfig",
        "RandomWalkConfig",
        "RunConfig",
        "SingleLayerConfig",
        "SinusoidalConfig",
        "TransformerConfig",
    ),
    "engine.generalization": ("evaluate_grid",),
    "engine.sweep": ("run_sweep",),
    "environments": ("make_environment",),
    "evaluation": ("evaluate",),
    "growth": (
        "growth_exponent",
        "regression_test",
        "trend_test",
    ),
    "plotting": (
        "plot_arms",
        "plot_final_regret",
        "plot_heatmap",
        "plot_loglog",
        "plot_regret",
        "plot_suff_fail",
        "plot_sweep",
        "plot_training",
        "save_figure",
    ),
    "presets": (
        "get_environment",
        "get_preset",
    ),
    "pretrained": (
        "load_pretrained",
        "pretrained_names",
    ),
    "regret": ("Regret",),
    "report": ("summarize",),
    "rmft": (
        "init",
        "iterate",
        "iterate_chunk",
        "make_agent",
    ),
    "rollout": ("rollout_scenarios",),
    "storage": ("RunDirectory",),
    "sweeps.spec": ("Sweep",),
    "sweeps.store": ("load_sweep",),
    "tables": ("table",),
    "training": (
        "load_agent",
        "train",
    ),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AbruptConfig",
    "AdaptiveConfig",
    "AlternatingConfig",
    "BanditConfig",
    "BanditSingleLayer",
    "BanditTransformer",
    "BesbesConfig",
    "ConfigError",
    "EnvironmentConfig",
    "FullInformationSingleLayer",
    "FullInformationTransformer",
    "GradualConfig",
    "LinearTrendConfig",
    "RMFTConfig",
    "RandomWalkConfig",
    "Regret",
    "RunConfig",
    "RunDirectory",
    "SingleLayerConfig",
    "SinusoidalConfig",
    "Sweep",
    "TransformerConfig",
    "bayes_optimal_regret",
    "bench_agents",
    "evaluate",
    "evaluate_grid",
    "get_environment",
    "get_preset",
    "growth_exponent",
    "init",
    "iterate",
    "iterate_chunk",
    "load_agent",
    "load_pretrained",
    "load_sweep",
    "make_agent",
    "make_agents",
    "make_baselines",
    "make_environment",
    "mean_interval",
    "paired_difference",
    "plot_arms",
    "plot_final_regret",
    "plot_heatmap",
    "plot_loglog",
    "plot_regret",
    "plot_suff_fail",
    "plot_sweep",
    "plot_training",
    "pretrained_names",
    "regression_test",
    "rollout_scenarios",
    "run_sweep",
    "save_figure",
    "summarize",
    "table",
    "train",
    "trend_test",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
