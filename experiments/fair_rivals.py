"""Which way of fine-tuning is best where each has its own constants? RMFT, policy gradients, DPT and distillation.

Every method trains one network, told of its arms in a list, on the problem of `mab`, five Bernoulli arms over 50
rounds, with L = 16 rollouts. In `tuning` each tries the same step sizes, with and without a bonus for entropy, on two
seeds of its own; what has the least regret stays. Then come seeds that no choice was made on: `steps` gives all 20
million environment steps, `seconds` the time that RMFT takes for those, as far as the fastest seeds of `steps` tell,
with step sizes tried again, and `long` all steps of `mab`, to half of the seeds. Differences to RMFT are paired by
seed, with intervals, and tested for being less than a twentieth of its regret (two one-sided t-tests; Schuirmann 1987).
An interrupted script goes on where it stopped. Writes `fair_rivals.json`, a figure for each part and one of training
into `experiments/results`. What that file holds is not run again, on whatever machine it was run: constants that were
chosen, parts, and seeds of a part, to which others are added. To run all anew, move it away.

    python -m experiments.fair_rivals [--parts steps seconds long] [--runs DIR] [--seeds 10 ... 19] [--quick] [--ray]
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from scipy import stats

from experiments.common import PROVENANCE, QUICK, Options, Trained, describe_seeds, interval, provenance, run
from experiments.comparison import LISTED, Changes, Group, describe, draw, p_value, slug
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import DataFigure, Style, legend_above, sheet, style_of, value_styles
from rmft_jax.running.files import write_json
from rmft_jax.statistics.bootstrap import holm
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.statistics.tables import markdown_table
from rmft_jax.sweeps.spec import Sweep

Part = Literal["steps", "seconds", "long"]
STEP_SIZES = (1e-3, 2e-3, 4e-3, 8e-3)
ENTROPY_WEIGHTS = (0.0, 0.01)
GRID = {"step_size": STEP_SIZES, "entropy_weight": ENTROPY_WEIGHTS}
BRIEF_CHUNK = 5
"""Of iterations in `seconds`, where slow methods have few."""
BUDGET: Changes = {**LISTED, "num_iterations": 100, "num_scenarios": 256, "num_minibatches": 4, "chunk_size": 10}
_WHOLE: Changes = {"branching": "none"}
_ALL: Changes = {"selection": "regret", "k": 16}
_DISTILLED: Changes = {"objective": "distillation", **_WHOLE, **_ALL}
METHODS: dict[str, Changes] = {
    "rmft": {},
    "whole trajectories, 8 of 16": {"selection": "regret", "k": 8, **_WHOLE},
    "GRPO": {"objective": "grpo", **_WHOLE, **_ALL},
    "REINFORCE, branching": {"objective": "reinforce", **_ALL},
    "DPT, own play": {"objective": "dpt", **_WHOLE, **_ALL},
    "distillation of Gittins": {**_DISTILLED, "behavior": "gittins"},
    "distillation of the posterior index": {**_DISTILLED, "behavior": "posterior_index"},
}
REFERENCES = ("gittins", "posterior_index", "thompson", "greedy", "uniform")
TUNING_SEEDS = (100, 101)
MARGIN = 0.05
# The form of RMFT was chosen on the scenarios of seeds 0 to 2.
DEFAULTS = Options(seeds=tuple(range(10, 20)))


@pinned()
def main(
    options: tyro.conf.OmitArgPrefixes[Options] = DEFAULTS, parts: tuple[Part, ...] = ("steps", "seconds", "long")
) -> None:
    """Trains what is missing, then writes the numbers and the figures.

    Args:
      options: those of every script.
      parts: what comes after tuning; `seconds` needs the times of `steps`, of this run or an earlier one.
    """
    if shared := set(options.seeds) & set(TUNING_SEEDS):
        raise SystemExit(f"got --seeds {min(shared)}, need others than tuning's {TUNING_SEEDS}; try --seeds 10 11 12")
    target = options.results / "fair_rivals"
    result = kept_parts(target.with_suffix(".json"))
    if "seconds" in parts and "steps" not in {*parts, *result}:
        raise SystemExit("got --parts seconds, which needs the seconds of steps; try --parts steps seconds")
    if not result:
        tuned = {
            name: tune(f"{slug(name)}-tuning", BUDGET | changes, GRID, options) for name, changes in METHODS.items()
        }
        result = {"budget": BUDGET, "margin": MARGIN, "tuning": tuned}
    rows = {name: changes | {one: result["tuning"][name][one] for one in GRID} for name, changes in METHODS.items()}
    save_figure(draw_tuning(result["tuning"]), target.with_name(f"{target.name}_tuning"))
    for part in parts:
        group, seeds, again = Group(rows, "mab", REFERENCES, BUDGET), options.seeds, {}
        if part == "seconds":
            brief = in_equal_time(rows, result["steps"]["rows"])
            again = result[part]["tuning"] if part in result else tune_again(brief, options)
            brief = {name: one["changes"] | {"step_size": one["step_size"]} for name, one in again.items()}
            group = Group(brief, "mab", REFERENCES, BUDGET | {"chunk_size": BRIEF_CHUNK})
        elif part == "long":
            group = group._replace(common=LISTED)
            seeds = seeds[: max(3, len(seeds) // 2)]
        left = tuple(seed for seed in seeds if seed not in result.get(part, {}).get("seeds", ()))
        if left:
            trained = train(part, group, dataclasses.replace(options, seeds=left))
            made = {"seeds": list(left), **provenance(trained["rmft"].sweep), "tuning": again}
            result[part] = tested(pooled(result.get(part), made | described(trained, group)))
            write_json(target.with_suffix(".json"), result)
        found = result[part]
        save_figure(draw(found), target.with_name(f"{target.name}_{part}"))
        if part == "steps":
            save_figure(draw_training(found["rows"]), target.with_name(f"{target.name}_training"))
        print(table(found))


def kept_parts(path: Path) -> dict[str, Any]:
    """What a file holds of earlier runs; nothing if there is no file.

    Raises:
      SystemExit: if they had another budget, or other methods.
    """
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["budget"] != BUDGET or set(earlier["tuning"]) != set(METHODS):
        raise SystemExit(f"got {path} of another budget or of other methods; try to move it away")
    return earlier


def pooled(earlier: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """A part on the seeds of two runs of it; `runs` says where each comes from.

    Raises:
      SystemExit: if the runs had other settings.
    """
    own, before = ({name: part[name] for name in ("seeds", *PROVENANCE)} for part in (new, earlier or new))
    if earlier is None:
        return new | {"runs": [own]}
    return new | {
        "seeds": [*earlier["seeds"], *new["seeds"]],
        "rows": {name: _pooled(earlier["rows"][name], row) for name, row in new["rows"].items()},
        "references": _pooled(earlier["references"], new["references"]),
        "runs": [*earlier.get("runs", [before]), own],
    }


def _pooled(earlier: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers per seed one after the other; what only the new ones have is theirs, and what both know is equal."""
    found = dict(new)
    for name in earlier.keys() & new.keys():
        old, own = earlier[name], new[name]
        if name == "validation":
            counts = [len(row["regret"]["seeds"]) for row in (earlier, new)]
            found[name] = {
                "iteration": own["iteration"],
                "mean": np.average([old["mean"], own["mean"]], axis=0, weights=counts).tolist(),
                "least": np.minimum(old["least"], own["least"]).tolist(),
                "most": np.maximum(old["most"], own["most"]).tolist(),
            }
        elif isinstance(own, list):
            found[name] = [*old, *own]
        elif isinstance(own, dict) and "seeds" in own:
            found[name] = describe_seeds([*old["seeds"], *own["seeds"]])
        elif isinstance(own, dict) and name != "changes":
            found[name] = _pooled(old, own)
        elif old != own:
            raise SystemExit(f"got {name} = {own}, need {old}, as earlier seeds had it; try to move their results away")
    return found


def tune(name: str, changes: Changes, grid: Mapping[str, Sequence[float]], options: Options) -> dict[str, Any]:
    """The values of a grid with which a method has the least regret in the mean, and the regret with all of them."""
    override = {**changes, **(QUICK if options.quick else {})}
    axes = {**{one: list(values) for one, values in grid.items()}, "seed": list(TUNING_SEEDS)}
    directory = options.runs / f"fair-{name}{'-quick' * options.quick}"
    regret = run(Sweep("mab", grid=axes, override=override), directory, options.ray, may_fail=True)["final_regret"]
    tries: list[dict[str, Any]] = [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]
    found = [each | {"regret": describe_seeds(regret.sel(each).to_numpy().tolist())} for each in tries]
    for each in found:
        if not math.isfinite(each["regret"]["mean"]):
            each["regret"] = None  # A seed of it diverged, which no one would choose.
    best = min((each for each in found if each["regret"]), key=lambda each: each["regret"]["mean"])
    return {one: best[one] for one in grid} | {"tries": found}


def tune_again(rows: Mapping[str, Changes], options: Options) -> dict[str, Any]:
    """The step size of every method for as few iterations as it has, and the rest of its settings."""
    found, sizes = {}, {"step_size": STEP_SIZES}
    for name, row in rows.items():
        changes = {one: value for one, value in row.items() if one != "step_size"}
        common = {**BUDGET, "chunk_size": BRIEF_CHUNK, **changes}
        found[name] = tune(f"{slug(name)}-{row['num_iterations']}-tuning", common, sizes, options)
        found[name]["changes"] = changes
    return found


def train(part: Part, group: Group, options: Options) -> dict[str, Trained]:
    """The methods on the fresh seeds of a part."""
    trained = {}
    for name in group.rows:
        settings = group.settings(name)
        directory = f"fair-{slug(name)}-{settings['num_iterations'] if part == 'seconds' else part}"
        trained[name] = options.train(directory, group.preset, settings, group.references)
    return trained


def in_equal_time(rows: Mapping[str, Changes], measured: Mapping[str, Any]) -> dict[str, Changes]:
    """Rows with as many iterations as fit in the time of the first, in whole chunks, at least one.

    Times are those of the fastest seeds, which other work on the machine has slowed least.
    """
    seconds = {name: min(row["wall_seconds"]) for name, row in measured.items()}
    whole = int(BUDGET["num_iterations"]) / BRIEF_CHUNK
    chunks = {name: whole * seconds["rmft"] / seconds[name] for name in rows}
    return {
        name: {**changes, "num_iterations": BRIEF_CHUNK * max(1, round(chunks[name]))} for name, changes in rows.items()
    }


def described(trained: Mapping[str, Trained], group: Group) -> dict[str, Any]:
    """What the comparisons tell, and regret on validation scenarios: in training, chosen, and at the end."""
    found = describe(trained, group)
    for name, row in found["rows"].items():
        validation = trained[name].sweep["validation_regret"].transpose("seed", ...)
        row["on_validation"] = trained[name].validation()
        row["validation"] = {
            "iteration": validation["validation_iteration"].to_numpy().tolist(),
            "mean": validation.mean("seed").to_numpy().tolist(),
            "least": validation.min("seed").to_numpy().tolist(),
            "most": validation.max("seed").to_numpy().tolist(),
        }
        missed = trained[name].sweep["suff_fail_freq"].sel(round=half_horizon(trained[name].config.rmft.horizon))
        row["suff_fail_freq"] = describe_seeds(missed.to_numpy().tolist())
    return found


def tested(found: dict[str, Any]) -> dict[str, Any]:
    """A part with the p-value of every row that it is not level with the first."""
    margin = MARGIN * found["rows"]["rmft"]["regret"]["mean"]
    for name, row in found["rows"].items():
        if name != "rmft":
            row["equivalence_p_value"] = equivalence_p_value(row["minus_first"]["seeds"], margin)
    return found


def equivalence_p_value(differences: Sequence[float], margin: float) -> float:
    """Of the hypothesis that the mean difference is at least `margin` to either side."""
    sides: Any = (
        stats.ttest_1samp(differences, -margin, alternative="greater"),
        stats.ttest_1samp(differences, margin, alternative="less"),
    )
    return max(float(side.pvalue) for side in sides)


def table(found: Mapping[str, Any]) -> str:
    """The methods of a part in Markdown, with a star at what Holm's correction over its column leaves."""
    rows = found["rows"]
    others = {name: row for name, row in rows.items() if name != "rmft"}
    differ = holm({name: p_value(row) for name, row in others.items()})
    level = holm({name: row["equivalence_p_value"] for name, row in others.items()})
    head = ("method", "step size, entropy weight", "regret", "minus RMFT", "p of no equivalence", "SuffFailFreq(T/2)")
    cells = [
        [
            "RMFT" if name == "rmft" else name,
            ", ".join(f"{row['changes'][one]:g}" for one in GRID),
            interval(row["regret"]),
            "" if name == "rmft" else interval(row["minus_first"], sign="+") + "*" * (name in differ),
            "" if name == "rmft" else f"{row['equivalence_p_value']:.2g}" + "*" * (name in level),
            interval(row["suff_fail_freq"]),
            f"{row['env_steps'] / 1e6:.0f}",
            f"{min(row['wall_seconds']):.0f}",
        ]
        for name, row in rows.items()
    ]
    beside = (f"{style_of(name).label} {interval(one)}" for name, one in found["references"].items())
    return f"{markdown_table((*head, 'million steps', 'least seconds'), cells)}\n\nBeside: {', '.join(beside)}."


def method_styles(names: Sequence[str]) -> dict[str, Style]:
    """RMFT as in all figures, the other methods from dark to light."""
    others = value_styles([name for name in names if name != "rmft"])
    return {name: others[name] if name in others else style_of("rmft")._replace(label="RMFT") for name in names}


def draw_tuning(tuned: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """Regret of each method over its step sizes, without and with a bonus for entropy, the chosen one filled."""
    styles, written = method_styles(list(tuned)), []
    with sheet("paper", 2.9) as figure:
        panels = dict(zip(ENTROPY_WEIGHTS, figure.subplots(1, 2, sharey=True), strict=True))
        for name, found in tuned.items():
            label, color, line = styles[name]
            for weight, axes in panels.items():
                tries = [each for each in found["tries"] if each["entropy_weight"] == weight]
                means = [each["regret"]["mean"] if each["regret"] else math.nan for each in tries]
                axes.plot(STEP_SIZES, means, color=color, linestyle=line, label=label)
                written += [
                    {"method": name, **{one: each[one] for one in GRID}, "mean": mean}
                    for each, mean in zip(tries, means, strict=True)
                ]
            least = min(each["regret"]["mean"] for each in found["tries"] if each["regret"])
            panels[found["entropy_weight"]].plot(found["step_size"], least, "o", color=color, markersize=4)
        for weight, axes in panels.items():
            axes.set(xscale="log", yscale="log", title=f"entropy weight {weight:g}", xlabel="step size")
            axes.set_xticks(STEP_SIZES, [f"{1000 * size:g}e-3" for size in STEP_SIZES])
            axes.set_yticks(ticks := [4, 5, 6, 8, 12, 16], [str(tick) for tick in ticks])
            axes.minorticks_off()
        panels[0.0].set(ylabel="regret at T\n(reward units, log scale)")
        legend_above(figure, list(panels.values()), columns=1)
        figure.rows, figure.caption = written, "Means over two training seeds; points: what stays."
        return figure


def draw_training(rows: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """Regret on validation scenarios as training goes on, over steps of the environment and over time."""
    styles, written = method_styles(list(rows)), []
    with sheet("paper", 2.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for name, row in rows.items():
            label, color, line = styles[name]
            done = np.asarray(row["validation"]["iteration"]) / row["validation"]["iteration"][-1]
            steps, seconds = done * row["env_steps"] / 1e6, done * min(row["wall_seconds"])
            for axes, x in zip(panels, (steps, seconds), strict=True):
                axes.fill_between(
                    x, row["validation"]["least"], row["validation"]["most"], color=color, alpha=0.15, lw=0
                )
                axes.plot(x, row["validation"]["mean"], color=color, linestyle=line, label=label)
            written += [
                {"method": name, "million_steps": one, "seconds": time, "mean": mean}
                for one, time, mean in zip(steps, seconds, row["validation"]["mean"], strict=True)
            ]
        panels[0].set(xlabel="million steps", yscale="log", ylabel="validation regret\n(reward units, log scale)")
        panels[0].set_yticks(ticks := [4, 5, 6, 8, 12, 16], [str(tick) for tick in ticks])
        panels[1].set(xlabel="seconds", xlim=(0, 4 * min(rows["rmft"]["wall_seconds"])))
        for axes in panels:
            axes.minorticks_off()
        legend_above(figure, list(panels), columns=1)
        figure.rows, figure.caption = written, "Means over training seeds; bands from the least to the most of them."
        return figure


if __name__ == "__main__":
    tyro.cli(main)
