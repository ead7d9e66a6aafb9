"""RMFT beside its rivals, its controls and its levers, at equal environment steps and equal numbers of updates.

Every row of a group is the same network on the same problem, with 100 iterations of M = 512 scenarios, L = 8 rollouts
of each and 4 updates, unless its name says otherwise. The problem is five Bernoulli arms over 50 rounds, that of
`full-information` the preset `fol`. `limit` asks what takes a network that is told of its arms in a list nearer to the
optimum, at the steps of `mab`, whose arms share their weights: 200 iterations of M = 512 and L = 16. A row is a sweep
over training seeds, which all groups share that have it. Policies of one seed start from the same weights and share
their test scenarios, so differences to a group's first row are paired by seed. An interrupted script goes on where it
stopped. Writes `comparison_GROUP.json`, `.md`, `.png` and `.pdf` into `experiments/results`.

    python -m experiments.comparison GROUP [--only NAME ...] [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]

with GROUP one of paper, rivals, controls, levers, limit, full-information. `--only` trains some rows without writing
anything.
"""

from collections.abc import Container, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from scipy import stats

from experiments.common import QUICK, Options, Trained, describe_seeds, interval, provenance, write
from rmft_jax.config import Value
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting.style import DataFigure, column_figure, style_of
from rmft_jax.running.files import replacing
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.statistics.tables import markdown_table

Changes = dict[str, Value]

# Written out, though most are the preset's: the budget, which rows share unless they name another.
COMMON: Changes = {
    "num_iterations": 100,
    "num_scenarios": 512,
    "num_rollouts": 8,
    "k": 2,
    "num_minibatches": 4,
    "selection": "regret",
    "branching": "uniform",
    "chunk_size": 10,
}
# The network of the other presets, measured like theirs; that of `mab` takes three times as long.
LISTED: Changes = {"arms": "one_hot", "width": 32, "play_temperature": 1.0, "num_validation_scenarios": 1024}


class Group(NamedTuple):
    """Rows that stand in one table: what each changes of the common settings. The first is what others are compared to.

    preset: the problem.
    references: the classical agents beside the rows; the first three are drawn.
    common: what all rows set that do not name it.
    """

    rows: dict[str, Changes]
    preset: str = "mab-per-scenario"
    references: tuple[str, ...] = ("thompson", "greedy", "posterior_index", "ucb1", "uniform")
    common: Changes = COMMON

    def settings(self, row: str, quick: bool = False) -> Changes:
        """All that a row sets: what all share, and what it changes."""
        override = {**self.common, **self.rows[row]}
        if quick:  # No run is shorter than the time for which its player stays.
            override["refresh_every"] = min(int(override.get("refresh_every", 1)), int(QUICK["num_iterations"]))
        return override


_WHOLE: Changes = {"branching": "none"}
_ALL: Changes = {"k": 8}
_PAPER: Changes = {**_WHOLE, "k": 4}
_PAPER_ROW = "whole trajectories, k = 4"
_SINGLE_ROUND: Changes = {"refresh_every": 100}

GROUPS: dict[str, Group] = {
    "paper": Group(
        {
            _PAPER_ROW: _PAPER,
            "whole, by realized reward": {**_PAPER, "selection": "reward"},
            "whole, at random": {**_PAPER, "selection": "random"},
            "whole, single round": {**_PAPER, **_SINGLE_ROUND},
            "whole, 5 rounds": {**_PAPER, "refresh_every": 20},
            "whole, k = 1": {**_WHOLE, "k": 1},
            "whole, k = 2": _WHOLE,
        }
    ),
    "rivals": Group(
        {
            "rmft": {},
            _PAPER_ROW: _PAPER,
            "distillation of UCB1": {"objective": "distillation", "behavior": "ucb1", **_WHOLE, **_ALL},
            "distillation of Thompson": {"objective": "distillation", "behavior": "thompson", **_WHOLE, **_ALL},
            "distillation of EXP3": {"objective": "distillation", "behavior": "exp3", **_WHOLE, **_ALL},
            "best of Thompson, k = 2": {"objective": "distillation", "behavior": "thompson", **_WHOLE},
            "DPT, own play": {"objective": "dpt", **_WHOLE, **_ALL},
            "DPT, uniform play": {"objective": "dpt", "behavior": "uniform", **_WHOLE, **_ALL},
            "REINFORCE": {"objective": "reinforce", **_WHOLE, **_ALL},
            "REINFORCE, branching": {"objective": "reinforce", **_ALL},
            "GRPO": {"objective": "grpo", **_WHOLE, **_ALL},
            "GRPO, branching": {"objective": "grpo", **_ALL},
        }
    ),
    "controls": Group(
        {
            "rmft": {},
            "by advantage": {"selection": "advantage"},
            "by advantage, 1 of 16, M = 256": {
                "selection": "advantage",
                "k": 1,
                "num_rollouts": 16,
                "num_scenarios": 256,
            },
            "by realized reward": {"selection": "reward"},
            "by expected regret": {"selection_form": "expected"},
            "at random": {"selection": "random"},
            "over all scenarios": {"selection": "pooled"},
            "single round": _SINGLE_ROUND,
            "5 rounds": {"refresh_every": 20},
            "k = 1 of 8": {"k": 1},
            "k = 4 of 8": {"k": 4},
            "k = 1 of 4, M = 1024": {"k": 1, "num_rollouts": 4, "num_scenarios": 1024},
            "k = 4 of 16, M = 256": {"k": 4, "num_rollouts": 16, "num_scenarios": 256},
            "shared reward noise": {"shared_reward_noise": True},
        }
    ),
    "levers": Group(
        {
            "rmft": {},
            _PAPER_ROW: _PAPER,
            "no entropy bonus": {"entropy_weight": 0.0},
            "entropy 0.03": {"entropy_weight": 0.03},
            "temperature 1.2": {"temperature": 1.2},
            "temperature 0.8": {"temperature": 0.8},
            "constant step size": {"schedule": "constant"},
            "half the step size": {"step_size": 1e-3},
            "KL to the last policy": {"kl_reference": "previous", "kl_weight": 0.3},
            "KL to the first policy": {"kl_reference": "initial", "kl_weight": 0.03},
            "twice M, half the iterations": {"num_scenarios": 1024, "num_iterations": 50},
            "half M, twice the iterations": {"num_scenarios": 256, "num_iterations": 200},
        }
    ),
    "limit": Group(
        {
            "rmft": {},
            "step size 4e-3": {"step_size": 4e-3},
            "step size 8e-3": {"step_size": 8e-3},
            "k = 2": {"k": 2},
            "half M, twice the iterations": {"num_scenarios": 256, "num_iterations": 400, "num_minibatches": 2},
        },
        "mab",
        ("gittins", "posterior_index", "thompson", "greedy"),
        common={**LISTED, "step_size": 2e-3, "num_iterations": 200, "num_scenarios": 512, "num_minibatches": 4},
    ),
    "full-information": Group(
        {
            "rmft": {},
            _PAPER_ROW: _PAPER,
            "regret-loss": {"objective": "regret_loss", **_WHOLE, **_ALL},
            "DPT, own play": {"objective": "dpt", **_WHOLE, **_ALL},
            "REINFORCE": {"objective": "reinforce", **_WHOLE, **_ALL},
            "by realized reward": {"selection": "reward"},
            "at random": {"selection": "random"},
            "single round": _SINGLE_ROUND,
            "independent reward noise": {"shared_reward_noise": False},
            "by regret of sampled arms": {"selection_form": "sampled"},
        },
        "fol",
        ("follow_the_leader", "hedge_anytime", "ftrl", "uniform"),
        common={**COMMON, "exploration_std": 1.0},
    ),
}


@pinned()
def main(
    group: tyro.conf.Positional[Literal["paper", "rivals", "controls", "levers", "limit", "full-information"]],
    options: tyro.conf.OmitArgPrefixes[Options],
    only: tuple[str, ...] = (),
) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      group: which rows.
      options: those of every script.
      only: names of rows to train, without writing the table.
    """
    chosen = GROUPS[group]
    if unknown := [name for name in only if name not in chosen.rows]:
        raise SystemExit(f"got --only {unknown[0]!r}, need one of {', '.join(map(repr, chosen.rows))}")
    trained = {
        name: options.train(
            slug(f"{chosen.preset} {name}"), chosen.preset, chosen.settings(name, options.quick), chosen.references
        )
        for name in chosen.rows
        if not only or name in only
    }
    if only:
        return
    result = describe(trained, chosen)
    target, text = options.results / target_name(group), table(result)
    made = {"seeds": list(options.seeds), **provenance(next(iter(trained.values())).sweep)}
    write(target, made | result, draw(result))
    with replacing(target.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def target_name(group: str) -> str:
    """What the files of a group are called."""
    return f"comparison_{group.replace('-', '_')}"


def slug(name: str) -> str:
    """A name as part of a directory's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def describe(trained: Mapping[str, Trained], group: Group) -> dict[str, Any]:
    """Per row its regret, its difference to the first row on the same seeds, its SuffFailFreq and its cost."""
    first = next(iter(trained.values()))
    base = first.per_seed("final_regret")
    found = {}
    for name, row in trained.items():
        regrets, rmft = row.per_seed("final_regret"), row.config.rmft
        assert isinstance(rmft.update, GradientSteps)
        missed = row.sweep["suff_fail_freq"].sel(round=half_horizon(rmft.horizon))
        found[name] = {
            "changes": dict(group.rows[name]),
            "regret": describe_seeds(regrets),
            "minus_first": describe_seeds([a - b for a, b in zip(regrets, base, strict=True)]),
            "suff_fail_freq": float(missed.mean()),
            "updates": rmft.num_iterations * rmft.update.num_epochs * rmft.update.num_minibatches,
            "trajectories_per_update": rmft.num_scenarios * rmft.selection.k // rmft.update.num_minibatches,
            **row.cost(),
        }
    beside = first.sweep["baseline_final_regret"]
    references = {name: describe_seeds(beside.sel(agent=name).to_numpy().tolist()) for name in group.references}
    return {"rows": found, "references": references}


def draw(result: Mapping[str, Any]) -> DataFigure:
    """Regret of every row with its interval and its seeds, and that of the first three classical agents."""
    rows, references = result["rows"], list(result["references"].items())[:3]
    places = np.arange(len(rows))[::-1]
    written = []
    with column_figure(0.7 + 0.19 * len(rows)) as (figure, axes):
        for place, (name, row) in zip(places, rows.items(), strict=True):
            mean, (low, high) = row["regret"]["mean"], row["regret"]["ci95"]
            first = row is next(iter(rows.values()))
            color, told = ("#D55E00", "first row") if first else ("#444444", "")
            axes.errorbar(
                mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=color, markersize=3.5, label=told
            )
            seeds = row["regret"]["seeds"]
            axes.plot(seeds, [place] * len(seeds), "|", color=color, markersize=5, label="seeds" if first else "")
            written.append({"row": name, "mean": mean, "low": low, "high": high})
        for name, reference in references:
            (label, color, line), value = style_of(name), reference["mean"]
            axes.axvline(value, color=color, linestyle=line, linewidth=1, label=label)
            written.append({"row": name, "mean": value, "low": value, "high": value})
        axes.set_yticks(places, [_shown(name) for name in rows], fontsize="small")
        # Beneath the whole figure, because the names leave the axes little width.
        figure.supxlabel("regret at T (reward units, log scale)")
        axes.set_xscale("log")
        ticks = [
            tick for tick in (3, 4, 5, 6, 8, 10, 13, 17, 25, 40) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
        ]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        figure.legend(loc="outside upper center", ncols=3)
        figure.rows, figure.caption = written, "Bars: 95% Student-t intervals over training seeds."
        return figure


def _shown(name: str) -> str:
    return "RMFT" if name == "rmft" else name


def p_value(row: Mapping[str, Any]) -> float:
    """Of the paired t-test over seeds that a row is no other than the first."""
    found: Any = stats.ttest_1samp(row["minus_first"]["seeds"], 0.0)
    return float(found.pvalue)


def table(result: Mapping[str, Any], surviving: Container[str] = ()) -> str:
    """The rows in Markdown, with a star at the differences of `surviving` rows."""
    head = ("row", "regret", "minus the first row", "SuffFailFreq(T/2)", "trajectories per update", "seconds per run")
    first = next(iter(result["rows"].values()))
    rows = [
        [
            _shown(name),
            interval(row["regret"]),
            "" if row is first else interval(row["minus_first"], sign="+") + "*" * (name in surviving),
            f"{row['suff_fail_freq']:.2f}",
            str(row["trajectories_per_update"]),
            f"{np.mean(row['wall_seconds']):.0f}",
        ]
        for name, row in result["rows"].items()
    ]
    others = {row["updates"] for row in result["rows"].values()} - {first["updates"]}
    updates = f"{first['updates']} updates each" + ", but for rows that say otherwise" * bool(others)
    beside = (f"{style_of(name).label} {interval(one)}" for name, one in result["references"].items())
    lines = [
        markdown_table(head, rows),
        "",
        f"{first['env_steps'] / 1e6:.0f} million environment steps and {updates}. 95% Student-t intervals over "
        "training seeds; differences are paired by seed.",
        f"Beside: {', '.join(beside)}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
