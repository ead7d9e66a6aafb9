"""Which way of fine-tuning is best where each has its own step size? RMFT, policy gradients, DPT and distillation.

Every method trains one network, told of its arms in a list, on the problem of `mab`, five Bernoulli arms over 50
rounds, with L = 16 rollouts. In `tuning` each tries the same step sizes on three seeds of its own; the one of least
regret stays. Then come fresh seeds: `steps` gives all 20 million environment steps, `seconds` the time that RMFT takes
for those, by what `steps` measured, and `long` all steps of `mab`, to half of the seeds. Differences to RMFT are paired
by seed, with intervals, and tested for being less than a twentieth of its regret (two one-sided t-tests; Schuirmann
1987). An interrupted script goes on where it stopped. Writes `fair_rivals.json`, in which parts stay that are not asked
for as long as tuning chose the same, and a figure for each part into `experiments/results`.

    python -m experiments.fair_rivals [--parts steps seconds long] [--runs DIR] [--seeds 0 ... 9] [--quick] [--ray]
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from scipy import stats

from experiments.common import QUICK, Options, Trained, describe_seeds, provenance, run
from experiments.comparison import LISTED, Changes, Group, describe, draw, slug, table
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import DataFigure, column_figure, legend_above, value_styles
from rmft_jax.running.files import write_json
from rmft_jax.sweeps.spec import Sweep

Part = Literal["steps", "seconds", "long"]
STEP_SIZES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
BUDGET: Changes = {**LISTED, "num_iterations": 100, "num_scenarios": 256, "num_minibatches": 4, "chunk_size": 10}
_WHOLE: Changes = {"branching": "none"}
_ALL: Changes = {"selection": "regret", "k": 16}
_DISTILLED: Changes = {"objective": "distillation", **_WHOLE, **_ALL}
METHODS: dict[str, Changes] = {
    "rmft": {},
    "whole trajectories, 4 of 16": {"selection": "regret", "k": 4, **_WHOLE},
    "GRPO": {"objective": "grpo", **_WHOLE, **_ALL},
    "REINFORCE, branching": {"objective": "reinforce", **_ALL},
    "DPT, own play": {"objective": "dpt", **_WHOLE, **_ALL},
    "distillation of Gittins": {**_DISTILLED, "behavior": "gittins"},
    "distillation of the posterior index": {**_DISTILLED, "behavior": "posterior_index"},
}
REFERENCES = ("gittins", "posterior_index", "thompson", "greedy", "uniform")
TUNING_SEEDS = (100, 101, 102)
MARGIN = 0.05
DEFAULTS = Options(seeds=tuple(range(10)))


@pinned()
def main(
    options: tyro.conf.OmitArgPrefixes[Options] = DEFAULTS, parts: tuple[Part, ...] = ("steps", "seconds", "long")
) -> None:
    """Trains what is missing, then writes the numbers and the figures.

    Args:
      options: those of every script.
      parts: what comes after tuning; `seconds` needs `steps`.
    """
    if "seconds" in parts and "steps" not in parts:
        raise SystemExit("got --parts seconds, which needs the seconds of steps; try --parts steps seconds")
    if shared := set(options.seeds) & set(TUNING_SEEDS):
        raise SystemExit(f"got --seeds {min(shared)}, need others than tuning's {TUNING_SEEDS}; try --seeds 0 1 2")
    tuned = {name: tune(name, options) for name in METHODS}
    rows = {name: {**changes, "step_size": tuned[name]["step_size"]} for name, changes in METHODS.items()}
    equal_steps, few = Group(rows, "mab", REFERENCES, BUDGET), options.seeds[: max(2, len(options.seeds) // 2)]
    target = options.results / "fair_rivals"
    result = earlier_parts(target.with_suffix(".json"), tuned) | {"budget": BUDGET, "margin": MARGIN, "tuning": tuned}
    save_figure(draw_tuning(tuned), target.with_name(f"{target.name}_tuning"))
    trained: dict[str, dict[str, Trained]] = {}
    for part in parts:
        group, seeds = equal_steps, options.seeds
        if part == "seconds":
            group = equal_steps._replace(rows=in_equal_time(rows, trained["steps"]))
        elif part == "long":
            group, seeds = equal_steps._replace(common=LISTED), few
        trained[part] = train(part, group, dataclasses.replace(options, seeds=seeds))
        found = described(trained[part], group)
        made = {"seeds": list(seeds), **provenance(trained[part]["rmft"].sweep)}
        result[part] = made | found
        save_figure(draw(found), target.with_name(f"{target.name}_{part}"))
        print(table(found))
    write_json(target.with_suffix(".json"), result)


def earlier_parts(path: Path, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds of parts with the same step sizes; nothing if there is none."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    chosen, before = ({name: one["step_size"] for name, one in each.items()} for each in (tuned, earlier["tuning"]))
    return earlier if chosen == before else {}


def tune(name: str, options: Options) -> dict[str, Any]:
    """The step size with which a method has the least regret in the mean, and the regret with each."""
    override = {**BUDGET, **METHODS[name], **(QUICK if options.quick else {})}
    grid = {"step_size": list(STEP_SIZES), "seed": list(TUNING_SEEDS)}
    directory = options.runs / f"fair-{slug(name)}-tuning{'-quick' * options.quick}"
    regret = run(Sweep("mab", grid=grid, override=override), directory, options.ray)["final_regret"]
    found = {size: describe_seeds(regret.sel(step_size=size).to_numpy().tolist()) for size in STEP_SIZES}
    best = min(STEP_SIZES, key=lambda size: found[size]["mean"])
    return {"step_size": best, "regret": {f"{size:g}": one for size, one in found.items()}}


def train(part: Part, group: Group, options: Options) -> dict[str, Trained]:
    """The methods on the fresh seeds of a part."""
    return {
        name: options.train(f"fair-{slug(name)}-{part}", group.preset, group.settings(name), group.references)
        for name in group.rows
    }


def in_equal_time(rows: Mapping[str, Changes], trained: Mapping[str, Trained]) -> dict[str, Changes]:
    """Rows with as many iterations as fit in the time of the first, in whole chunks, at least one."""
    seconds = {name: np.mean(one.per_seed("wall_seconds")) for name, one in trained.items()}
    config = trained["rmft"].config
    chunks = {name: config.rmft.num_iterations / config.chunk_size * seconds["rmft"] / seconds[name] for name in rows}
    return {
        name: {**changes, "num_iterations": config.chunk_size * max(1, round(chunks[name]))}
        for name, changes in rows.items()
    }


def described(trained: Mapping[str, Trained], group: Group) -> dict[str, Any]:
    """What the comparisons tell; whether a row is level with the first; the last iterate on validation scenarios."""
    found = describe(trained, group)
    margin = MARGIN * found["rows"]["rmft"]["regret"]["mean"]
    for name, row in found["rows"].items():
        last = trained[name].sweep["validation_regret"].transpose("seed", ...).to_numpy()[:, -1]
        row["last_on_validation"] = describe_seeds(last.tolist())
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


def draw_tuning(tuned: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """Regret of each method over its step sizes, the chosen one filled."""
    styles, written = value_styles(list(tuned)), []
    with column_figure(3.8) as (figure, axes):
        for name, found in tuned.items():
            label, color, line = styles[name]
            means = [one["mean"] for one in found["regret"].values()]
            axes.plot(STEP_SIZES, means, color=color, linestyle=line, label="RMFT" if name == "rmft" else label)
            axes.plot(found["step_size"], min(means), "o", color=color, markersize=4)
            written += [
                {"method": name, "step_size": size, "mean": one["mean"], "low": one["ci95"][0], "high": one["ci95"][1]}
                for size, one in found["regret"].items()
            ]
        axes.set(xscale="log", yscale="log", xlabel="step size", ylabel="regret at T\n(reward units, log scale)")
        axes.set_xticks(STEP_SIZES, [f"{size:g}" for size in STEP_SIZES])
        axes.set_yticks(ticks := [4, 5, 6, 8, 12, 16], [str(tick) for tick in ticks])
        axes.minorticks_off()
        legend_above(figure, [axes], columns=1)
        figure.rows, figure.caption = written, "Means over three training seeds; points: the step size that stays."
        return figure


if __name__ == "__main__":
    tyro.cli(main)
