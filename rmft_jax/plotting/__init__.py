"""Figures fit for a paper."""

from rmft_jax.plotting.agents import plot_arms, plot_final_regret
from rmft_jax.plotting.curves import plot_loglog, plot_regret, plot_regret_curves, plot_suff_fail
from rmft_jax.plotting.export import save_figure
from rmft_jax.plotting.figures import plot_all, plot_evaluation, plot_kind, plot_run
from rmft_jax.plotting.heatmap import plot_heatmap
from rmft_jax.plotting.panels import Curve, choose_agents, scenario_curve
from rmft_jax.plotting.register import FIGURES, FigureKind, register_figure
from rmft_jax.plotting.style import STYLES, DataFigure, Style, StyleName, column_figure, style_of, styles_of
from rmft_jax.plotting.sweep import plot_sweep
from rmft_jax.plotting.training import plot_training

__all__ = [
    "FIGURES",
    "STYLES",
    "Curve",
    "DataFigure",
    "FigureKind",
    "Style",
    "StyleName",
    "choose_agents",
    "column_figure",
    "plot_all",
    "plot_arms",
    "plot_evaluation",
    "plot_final_regret",
    "plot_heatmap",
    "plot_kind",
    "plot_loglog",
    "plot_regret",
    "plot_regret_curves",
    "plot_run",
    "plot_suff_fail",
    "plot_sweep",
    "plot_training",
    "register_figure",
    "save_figure",
    "scenario_curve",
    "style_of",
    "styles_of",
]
