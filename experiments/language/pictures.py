"""What `in_words` shows of its parts: figures, and dialogues before and after."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from experiments.common import curves_of
from rmft_jax.language.dialogues import Dialogue, rollouts_of
from rmft_jax.method.state import init, make_agent
from rmft_jax.plotting.curves import plot_regret_curves
from rmft_jax.plotting.style import DataFigure, column_figure, style_of
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import TrainedPolicy

SHOWN = ("rmft", "reasoning", "large")
"""Parts with figures and dialogues of their own."""
_MARKS = {"trained contexts": ("#D55E00", "o"), "held-out contexts": ("#0072B2", "s")}


def draw(record: Mapping[str, Any]) -> DataFigure:
    """Regret of every part in contexts of training and in those held out, beside that of three who read no words."""
    first, written = next(iter(record.values()))["places"], []
    with column_figure(1.3 + 0.27 * len(record)) as (figure, axes):
        for number, (name, part) in enumerate(record.items()):
            for shift, (place, (color, marker)) in enumerate(_MARKS.items()):
                found, height = part["places"][place]["regret"], -number - 0.25 * shift
                low, high = max(found["ci95"][0], 0.0), found["ci95"][1]  # As regret, which is never negative here.
                told = place if number == 0 else ""
                errors = [[found["mean"] - low], [high - found["mean"]]]
                axes.errorbar(
                    found["mean"], height, xerr=errors, fmt=marker, color=color, markersize=3.5, linewidth=1, label=told
                )
                axes.plot(found["seeds"], [height] * len(found["seeds"]), "|", color=color, markersize=5)
                written.append({"part": name, "place": place, "mean": found["mean"], "low": low, "high": high})
        lines = {"rmft_start": first["start"]["regret"]} | {
            name: first["trained contexts"][name] for name in ("uniform", "thompson", "gittins")
        }
        for name, found in lines.items():
            label, color, line = style_of(name)
            axes.axvline(found["mean"], color=color, linestyle=line, linewidth=1, label=label)
            written.append({"part": name, "place": "trained contexts", "mean": found["mean"]})
        axes.set_yticks([-number - 0.125 for number in range(len(record))], [part["what"] for part in record.values()])
        axes.set_ylim(-len(record) + 0.35, 0.4)
        axes.set_xlim(left=0.0)
        axes.tick_params(axis="y", labelsize="x-small")
        figure.supxlabel("pseudo-regret at T (reward units)")
        figure.legend(loc="outside upper center", ncols=2)
        figure.rows, figure.caption = written, "Bars: 95% Student-t intervals over training seeds; strokes: the seeds."
        return figure


def draw_curves(evaluations: Mapping[str, list[xr.Dataset]]) -> Figure:
    """Regret over rounds of the policies, in both kinds of contexts, and of the model before training."""
    shown = {"rmft": "trained contexts", "rmft_held_out": "held-out contexts", "rmft_start": "start"}
    return plot_regret_curves(curves_of({agent: evaluations[place] for agent, place in shown.items()}))


def transcripts(policy: TrainedPolicy, scenario: int = 0) -> str:
    """The dialogues of lowest and highest regret of a scenario, by the model before training and after it."""
    config = policy.config
    started = make_agent(init(config.rmft, RunKeys.create(config.seed).train))
    start = dataclasses.replace(policy, agent=started)
    parts = []
    for when, one in (("before RMFT", start), ("after RMFT", policy)):
        ranked = sorted(rollouts_of(one, scenario), key=lambda dialogue: float(dialogue.regret[-1]))
        for which, dialogue in (("lowest", ranked[0]), ("highest", ranked[-1])):
            number = len(ranked)
            parts.append(f"{when}: the {which} regret of {number} rollouts of scenario {scenario}\n\n{_text(dialogue)}")
    return "\n\n".join(parts)


def _text(dialogue: Dialogue) -> str:
    rows = zip(dialogue.rounds, dialogue.regret, strict=True)
    lines = [f"{float(regret):7.2f}  " + text.replace("\n", " | ") for text, regret in rows]
    return "\n".join([dialogue.intro, *lines]) + "\n"
