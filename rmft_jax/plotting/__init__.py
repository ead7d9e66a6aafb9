"""Figures fit for a paper."""

from rmft_jax.plotting.agents import plot_arms as plot_arms
from rmft_jax.plotting.agents import plot_final_regret as plot_final_regret
from rmft_jax.plotting.curves import plot_loglog as plot_loglog
from rmft_jax.plotting.curves import plot_regret as plot_regret
from rmft_jax.plotting.curves import plot_regret_curves as plot_regret_curves
from rmft_jax.plotting.curves import plot_suff_fail as plot_suff_fail
from rmft_jax.plotting.figures import plot_all as plot_all
from rmft_jax.plotting.figures import plot_kind as plot_kind
from rmft_jax.plotting.figures import plot_run as plot_run
from rmft_jax.plotting.figures import save_figure as save_figure
from rmft_jax.plotting.heatmap import plot_heatmap as plot_heatmap
from rmft_jax.plotting.panels import choose_agents as choose_agents
from rmft_jax.plotting.panels import scenario_curves as scenario_curves
from rmft_jax.plotting.register import FIGURES as FIGURES
from rmft_jax.plotting.register import FigureKind as FigureKind
from rmft_jax.plotting.register import register_figure as register_figure
from rmft_jax.plotting.style import STYLES as STYLES
from rmft_jax.plotting.style import DataFigure as DataFigure
from rmft_jax.plotting.style import Style as Style
from rmft_jax.plotting.style import StyleName as StyleName
from rmft_jax.plotting.style import column_figure as column_figure
from rmft_jax.plotting.style import style_of as style_of
from rmft_jax.plotting.style import styles_of as styles_of
from rmft_jax.plotting.sweep import plot_sweep as plot_sweep
from rmft_jax.plotting.training import plot_training as plot_training
