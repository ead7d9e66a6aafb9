"""A figure of your own: how unequal scenarios are, behind their mean.

    rmft plot runs/quickstart --import docs/tutorials/own_figure.py --kind spread --out spread.pdf
    rmft plot runs/quickstart --import docs/tutorials/own_figure.py          # with all the others

In Python: `rmft_jax.save_figure(plot_spread(evaluation), Path("spread"))`.
"""

import numpy as np
import xarray as xr

from rmft_jax import register_figure
from rmft_jax.plotting import DataFigure, StyleName, choose_agents, column_figure, styles_of


@register_figure("spread", needs="scenario")
def plot_spread(evaluation: xr.Dataset, *, style: StyleName = "paper") -> DataFigure:
    """Share of scenarios whose regret at the horizon is at most x, of at most 8 agents.

    A low mean may hide rare scenarios of very high regret, which are the right end of a curve.

    Args:
      evaluation: of a run, or of `evaluate`.
      style: `paper` or `slides`.
    """
    final = evaluation["regret"].isel(round=-1).transpose("agent", "scenario")
    means = {str(name): float(final.sel(agent=name).mean()) for name in final["agent"].values}
    share = np.arange(1, final.sizes["scenario"] + 1) / final.sizes["scenario"]
    with column_figure(style=style) as (figure, axes):
        rows = []
        for name, look in styles_of(choose_agents(means, evaluation.attrs.get("reference"))).items():
            regret = np.sort(final.sel(agent=name).to_numpy())
            axes.step(regret, share, where="post", color=look.color, linestyle=look.line, label=look.label)
            points = zip(regret, share, strict=True)
            rows += [{"agent": name, "regret": float(x), "share": float(y)} for x, y in points]
        axes.set_xlabel("regret at the horizon (reward units)")
        axes.set_ylabel("share of scenarios")
        figure.legend(loc="outside upper center", ncols=2)
        figure.rows = rows  # Written beside the figure, as CSV.
        return figure
