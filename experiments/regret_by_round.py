"""Where the regret of a trained policy arises: round by round, and in the scenarios whose best arm it leaves alone.

The regret of a scenario is that of its first half and that of its second half, in which a best arm is either played or
not: then the scenario is missed, which is what SuffFailFreq(T/2) counts. The figure has the regret of every round, and
how many scenarios are missed by how much: the gap is what a round of the second half loses. Plays the policies of
`experiments.bandit_regret`, and trains those that are missing. Writes `regret_by_round_mab_k5.json`, `.csv`, `.png` and
`.pdf`, or those of the other presets, into `experiments/results`.

    python -m experiments.regret_by_round mab|mab-k2|mab-k5 [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
import xarray as xr
from jaxtyping import Bool, Float

from experiments.common import Options, describe_seeds, write
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting.style import DataFigure, legend_above, plain_log_ticks, sheet, styles_of, whole_ticks
from rmft_jax.statistics.growth import half_horizon

AGENTS = ("rmft", "bayes_optimal", "posterior_index", "thompson", "greedy", "ucb1")
GAPS = (0.02, 0.05, 0.1, 0.2)
QUARTILES = (0.25, 0.5, 0.75)


class Halves(NamedTuple):
    """The play of one agent on the scenarios of one seed.

    rounds: `[T]` mean regret of every round.
    first, second: `[N]` regret of the rounds before T/2, and of those from T/2 on.
    missed: `[N]` whether no best arm is played from round T/2 on.
    gaps: `[N]` regret of a round from T/2 on, which in a missed scenario is the gap of what is played instead.
    """

    rounds: Float[np.ndarray, "T"]
    first: Float[np.ndarray, "N"]
    second: Float[np.ndarray, "N"]
    missed: Bool[np.ndarray, "N"]
    gaps: Float[np.ndarray, "N"]


@pinned()
def main(
    preset: tyro.conf.Positional[Literal["mab", "mab-k2", "mab-k5"]],
    options: tyro.conf.OmitArgPrefixes[Options],
) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      preset: what to train.
      options: those of every script.
    """
    evaluations = options.train(preset).evaluations()
    present = [name for name in AGENTS if name in evaluations[0]["agent"].values]
    found = {name: [halves(evaluation.sel(agent=name)) for evaluation in evaluations] for name in present}
    described = {name: describe(each) for name, each in found.items()}
    result = {"preset": preset, "seeds": list(options.seeds), "agents": described}
    write(options.results / f"regret_by_round_{preset.replace('-', '_')}", result, draw(rows_of(found)))


def halves(evaluation: xr.Dataset) -> Halves:
    """Splits an agent's pseudo-regret, variables over `scenario` and `round`, at T/2."""
    curves = evaluation["regret"].transpose("scenario", "round").to_numpy().astype(np.float64)
    half = half_horizon(curves.shape[1])  # The first round of the second half, counted from 1.
    first = curves[:, half - 2] if half > 1 else np.zeros(len(curves))
    second = curves[:, -1] - first
    missed = evaluation["last_best_round"].to_numpy() < half
    rounds = np.diff(curves.mean(axis=0), prepend=0.0)
    return Halves(rounds, first, second, missed, second / (curves.shape[1] - half + 1))


def describe(seeds: list[Halves]) -> dict[str, Any]:
    """The three parts of the regret, and the gaps of the missed scenarios; intervals over training seeds."""
    gaps = np.concatenate([one.gaps[one.missed] for one in seeds])
    return {
        "first_half": describe_seeds([float(one.first.mean()) for one in seeds]),
        "second_half_missed": describe_seeds([float((one.second * one.missed).mean()) for one in seeds]),
        "second_half_others": describe_seeds([float((one.second * ~one.missed).mean()) for one in seeds]),
        "missed": describe_seeds([float(one.missed.mean()) for one in seeds]),
        "missed_by_at_least": {
            str(gap): describe_seeds([float((one.missed & (one.gaps >= gap)).mean()) for one in seeds]) for gap in GAPS
        },
        "gap_of_missed_quartiles": [float(gap) for gap in np.quantile(gaps, QUARTILES)] if len(gaps) else None,
    }


def rows_of(found: Mapping[str, list[Halves]]) -> list[dict[str, Any]]:
    """The points of the figure: the regret of every round, and the share of scenarios missed by at least a gap."""
    rows, grid = [], np.linspace(0.0, 0.5, 101)
    for name, seeds in found.items():
        rounds = np.mean([one.rounds for one in seeds], axis=0)
        gaps = np.concatenate([one.gaps[one.missed] for one in seeds])
        shares = [np.sum(gaps >= gap) / sum(len(one.missed) for one in seeds) for gap in grid]
        for panel, xs, ys in (("round", np.arange(1, len(rounds) + 1), rounds), ("gap", grid, shares)):
            rows += [{"panel": panel, "agent": name, "x": float(x), "y": float(y)} for x, y in zip(xs, ys, strict=True)]
    return rows


def draw(rows: Sequence[Mapping[str, Any]]) -> DataFigure:
    """Above the regret of every round, below the share of scenarios that are missed by at least a gap."""
    styles = styles_of(list(dict.fromkeys(str(row["agent"]) for row in rows)))
    with sheet("paper", 4.2) as figure:
        above, below = figure.subplots(2, 1)
        for axes, panel in ((above, "round"), (below, "gap")):
            for name, (label, color, line) in styles.items():
                own = [row for row in rows if (row["panel"], row["agent"]) == (panel, name)]
                axes.plot(
                    [row["x"] for row in own], [row["y"] for row in own], label=label, color=color, linestyle=line
                )
        positive = [row["y"] for row in rows if row["panel"] == "round" and row["y"] > 0]
        above.set_yscale("log")
        plain_log_ticks(above.yaxis, min(positive), max(positive))
        above.set_xlabel("round")
        above.set_xlim(0)
        whole_ticks(above.xaxis)
        above.set_ylabel("regret of the round\n(reward units)")
        below.set_xlim(0.0, 0.5)
        below.set_ylim(0.0)
        below.set_xlabel("gap of what is played instead (reward units)")
        below.set_ylabel("scenarios missed\nby at least this gap")
        legend_above(figure, [above], columns=2)
        figure.rows = rows
        return figure


if __name__ == "__main__":
    tyro.cli(main)
