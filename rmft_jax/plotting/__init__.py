"""Figures fit for a paper. Imports no JAX."""

from rmft_jax.plotting.curves import (
    Curve,
    choose_agents,
    plot_arms,
    plot_evaluation,
    plot_final_regret,
    plot_loglog,
    plot_regret,
    plot_regret_curves,
    plot_run,
    plot_suff_fail,
    plot_training,
    scenario_curve,
    scenario_curves,
)
from rmft_jax.plotting.export import (
    save_figure,
)
from rmft_jax.plotting.style import (
    COLORS,
    STYLES,
    Style,
    column_figure,
    style_of,
    styles_of,
)

__all__ = [
    "COLORS",
    "STYLES",
    "Curve",
    "Style",
    "choose_agents",
    "column_figure",
    "plot_arms",
    "plot_evaluation",
    "plot_final_regret",
    "plot_loglog",
    "plot_regret",
    "plot_regret_curves",
    "plot_run",
    "plot_suff_fail",
    "plot_training",
    "save_figure",
    "scenario_curve",
    "scenario_curves",
    "style_of",
    "styles_of",
]
