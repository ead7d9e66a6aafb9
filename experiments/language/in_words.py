"""RMFT in words: the toy language model, its controls and its rivals, on contexts of training and on those held out.

Trains preset `text-toy` with some settings changed, on some seeds, and plays every policy in the contexts it was
trained in, in those held out, on twice the arms, over twice the horizon, and with answers in its own words, beside the
model before training and the classical agents on the same problems and reward noise. Writes `in_words.json` and
figures into `experiments/results`; quick runs write beside their sweeps. An interrupted script goes on where it
stopped.

    python -m experiments.language.in_words [PART ...] [--quick] [--runs DIR] [--seeds 0 1 2]

`PART` names what is trained, of `PARTS`; without any, all of it. Parts that were run before stay in the results.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
import xarray as xr
from matplotlib.figure import Figure

from experiments.common import RESULTS, Trained, curves_of, describe_seeds, mean_final_regrets, provenance, train_seeds
from rmft_jax.agents import make_agents
from rmft_jax.config import Value
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.numerics import pinned
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.curves import plot_regret_curves
from rmft_jax.plotting.style import DataFigure, column_figure, style_of
from rmft_jax.running.files import write_json
from rmft_jax.running.trainer import RunKeys

ITERATIONS = get_preset("text-toy").rmft.num_iterations
THOUGHTS: dict[str, Value] = {"reasoning": 12, "horizon": 20, "num_iterations": 100}
PARTS: dict[str, tuple[str, dict[str, Value]]] = {
    "rmft": ("answers at once", {}),
    "reasoning": ("thinks before it answers", THOUGHTS),
    "random": ("keeps rollouts at random", {"selection": "random"}),
    "reward": ("keeps rollouts by reward", {"selection": "reward"}),
    "single round": ("all rollouts are the start's", {"refresh_every": ITERATIONS}),
    "distillation": ("imitates Gittins", {"objective": "distillation", "behavior": "gittins"}),
    "template": (
        "imitates UCB1 with a fixed thought",
        THOUGHTS | {"objective": "distillation", "behavior": "ucb1", "narration": "template", "reasoning": 24},
    ),
}
QUICK: dict[str, Value] = {
    "horizon": 4,
    "num_iterations": 2,
    "chunk_size": 1,
    "num_scenarios": 4,
    "num_tellings": 4,
    "num_validation_scenarios": 8,
    "num_test_scenarios": 16,
}
RIVALS = ("gittins", "epsilon_greedy", "thompson", "ucb1", "uniform")
PLACES: dict[str, dict[str, Value]] = {
    "trained contexts": {},
    "held-out contexts": {"contexts": "held-out"},
    "twice the arms": {"num_arms": 6},
    "twice the horizon": {"horizon": 40},
    "free answers": {"answer": "free"},
}
_MARKS = {"trained contexts": ("#D55E00", "o"), "held-out contexts": ("#0072B2", "s")}
STARTS = {"start": "trained contexts", "start, held out": "held-out contexts"}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is run."""

    parts: tyro.conf.Positional[tuple[str, ...]] = tuple(PARTS)
    """What is trained; see the module."""
    runs: Path = Path("runs/experiments/language")
    """Where the sweeps go."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED SEED ...")] = (0, 1, 2)
    """Training seeds."""
    quick: bool = False
    """Runs of seconds, to see that the script works."""


def settings(part: str, quick: bool) -> dict[str, Value]:
    """What a part changes of the preset."""
    changes = PARTS[part][1] | (QUICK if quick else {})
    return changes | ({"refresh_every": QUICK["num_iterations"]} if quick and "refresh_every" in changes else {})


def played(config: RunConfig, agent: Any) -> xr.Dataset:
    """A policy beside the classical agents on the test scenarios of a run."""
    problem = config.rmft.problem()
    agents = {"rmft": agent, **make_agents(problem, RIVALS)}
    return evaluate(agents, problem, num_scenarios=config.num_test_scenarios, key=RunKeys.create(config.seed).test)


def elsewhere(trained: Trained) -> dict[str, list[xr.Dataset]]:
    """Every policy in every place, and the model before training."""
    found: dict[str, list[xr.Dataset]] = {name: [] for name in (*PLACES, *STARTS)}
    for policy in trained.policies:
        for name, changes in PLACES.items():
            there = policy.config.replace(**changes)
            found[name].append(played(there, there.rmft.agent(policy.agent.params)))
        for name, place in STARTS.items():
            there = policy.config.replace(**PLACES[place])
            found[name].append(played(there, make_agent(init(there.rmft, RunKeys.create(there.seed).train))))
    return found


def measured(evaluations: Mapping[str, list[xr.Dataset]]) -> dict[str, Any]:
    """Per place the regret over training seeds, that of the rivals, and the answers that named no arm."""
    record = {}
    for place, datasets in evaluations.items():
        finals = [mean_final_regrets(dataset) for dataset in datasets]
        record[place] = {
            "regret": describe_seeds([final["rmft"] for final in finals]),
            "invalid": describe_seeds([float(one["invalid"].sel(agent="rmft").mean()) for one in datasets]),
            **{rival: describe_seeds([final[rival] for final in finals]) for rival in RIVALS if rival in finals[0]},
        }
    return record


def draw(record: Mapping[str, Any]) -> DataFigure:
    """Regret of every part in contexts of training and in those held out, beside that of three who read no words."""
    first, written = next(iter(record.values()))["places"], []
    with column_figure(1.1 + 0.27 * len(record)) as (figure, axes):
        for number, (name, part) in enumerate(record.items()):
            for shift, (place, (color, marker)) in enumerate(_MARKS.items()):
                found, height = part["places"][place]["regret"], -number - 0.25 * shift
                low, high = found["ci95"]
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
        axes.set_yticks([-number - 0.125 for number in range(len(record))], [PARTS[name][0] for name in record])
        axes.tick_params(axis="y", labelsize="x-small")
        figure.supxlabel("pseudo-regret at T (reward units)")
        figure.legend(loc="outside upper center", ncols=2)
        figure.rows, figure.caption = written, "Bars: 95% Student-t intervals over training seeds; strokes: the seeds."
        return figure


def draw_curves(evaluations: Mapping[str, list[xr.Dataset]]) -> Figure:
    """Regret over rounds of the policies, in both kinds of contexts, and of the model before training."""
    shown = {"rmft": "trained contexts", "rmft_held_out": "held-out contexts", "rmft_start": "start"}
    return plot_regret_curves(curves_of({agent: evaluations[place] for agent, place in shown.items()}))


@pinned()
def main() -> None:
    """Trains what is missing, plays it, and writes the record."""
    arguments = tyro.cli(Arguments)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        raise SystemExit(f"got {unknown[0]!r}, need one of {', '.join(PARTS)}; try rmft")
    target = (arguments.runs / "quick" if arguments.quick else RESULTS) / "in_words"
    path = target.with_suffix(".json")
    record = json.loads(path.read_text()) if path.is_file() else {}
    for part in arguments.parts:
        directory = arguments.runs / (part.replace(" ", "_") + "-quick" * arguments.quick)
        changes = settings(part, arguments.quick)
        trained = train_seeds(directory, "text-toy", arguments.seeds, changes, baselines=("thompson",))
        evaluations = elsewhere(trained)
        record[part] = {
            "what": PARTS[part][0],
            "settings": changes,
            "places": measured(evaluations),
            "cost": trained.cost(),
            "provenance": provenance(trained.sweep),
        }
        record = {name: record[name] for name in PARTS if name in record}
        write_json(path, record)
        save_figure(draw(record), target)
        if part == "rmft":
            save_figure(draw_curves(evaluations), target.with_name("in_words_regret"))


if __name__ == "__main__":
    main()
