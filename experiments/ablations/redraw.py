"""Draws the figures of the ablations anew, from the numbers that `save_figure` left beside them. Trains nothing.

python -m experiments.ablations.redraw [--results DIR]
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
import xarray as xr

from experiments.ablations import arm_count, chance, exploration, horizon, kept, rounds, selection, size
from experiments.ablations.common import Question
from experiments.common import RESULTS
from rmft_jax.config.names import TRAINED
from rmft_jax.plotting import DataFigure, plot_kind, save_figure

QUESTIONS = (
    selection.QUESTION, rounds.QUESTION, kept.QUESTION, exploration.BANDIT, exploration.FULL_INFORMATION,
    horizon.QUESTION, arm_count.QUESTION, size.QUESTION, chance.TWO_ARMS, chance.FIVE_ARMS,
)  # fmt: skip
_CURVES = {"regret": "regret", "loglog": "regret", "suff_fail": "suff_fail_freq"}
_SIDES = {"mean": "", "low": "_low", "high": "_high"}


def main(results: Path = RESULTS / "ablations") -> None:
    """Draws all of them that have numbers.

    Args:
      results: where the figures and their numbers are.
    """
    for question, part in drawn(results):
        print(save_figure(redrawn(question, part, results), results / f"{question.name}{part}")[0])


def drawn(results: Path = RESULTS / "ablations") -> list[tuple[Question, str]]:
    """Questions and parts of all figures whose numbers are there."""
    there = [one for one in QUESTIONS if (results / f"{one.name}.json").is_file()]
    return [(one, part) for one in there for part in one.figures]


def redrawn(question: Question, part: str, results: Path = RESULTS / "ablations") -> DataFigure:
    """A figure as the question draws it, of the means and intervals in its file."""
    kind, options = question.figures[part]
    own, final = (pd.read_csv(results / f"{question.name}{one}.csv") for one in (part, ""))
    varied = [name for name in (*question.quick.grid, *question.quick.zip) if name in final]
    found = _of_agents(final, varied, "final_regret")
    if kind == "arms":
        found["rank_frequency"] = _array(own, [*varied, "rank", "round"], "share")
    elif kind == "training":
        for name, rows in own.groupby("variable"):
            along = "validation_iteration" if name == "validation_regret" else "iteration"
            found |= _arrays(rows.rename(columns={"iteration": along}), [*varied, along], str(name))
    elif kind in _CURVES:
        found |= _of_agents(own, [*varied, "round"], _CURVES[kind])
        for name in (name for name in own if name.startswith("exponent")):
            found[name] = _array(own.drop_duplicates(varied), varied, name)
    regret = json.loads((results / f"{question.name}.json").read_text(encoding="utf-8"))["regret"]
    figure: Any = plot_kind(kind, xr.Dataset(found, attrs={"regret": regret}), **options)
    # Of the file, which alone knows what the intervals are.
    figure.rows = own.to_dict("records")
    if "interval" in own:
        agents = own["agent"] if "agent" in own else [TRAINED] * len(own)
        told: dict[str, dict[str, None]] = {}
        for text, agent in zip(own["interval"], agents, strict=True):
            told.setdefault(text, {})[agent] = None
        words = "; ".join(f"{text} ({', '.join(names)})" for text, names in told.items())
        figure.caption = f"95% intervals: {words}."
    return figure


def _of_agents(rows: pd.DataFrame, dims: Sequence[str], name: str) -> dict[str, xr.DataArray]:
    own, others = rows.query("agent == @TRAINED"), rows.query("agent != @TRAINED")
    found = _arrays(own, dims, name)
    return found | (_arrays(others, [*dims, "agent"], f"baseline_{name}") if len(others) else {})


def _arrays(rows: pd.DataFrame, dims: Sequence[str], name: str) -> dict[str, xr.DataArray]:
    return {f"{name}{end}": _array(rows, dims, side) for side, end in _SIDES.items()}


def _array(rows: pd.DataFrame, dims: Sequence[str], column: str) -> xr.DataArray:
    """A column over dimensions, whose values keep the order in which they appear."""
    array = rows.set_index(list(dims))[column].to_xarray()
    return array.sel({dim: rows[dim].unique() for dim in dims})


if __name__ == "__main__":
    tyro.cli(main)
