"""Puts the tables of the pages and of the README in, from what the experiments left in `experiments/results`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. The text around it is written by hand, but for numbers
between `<!--= FILE PATH -->` and `<!-- -->`, where PATH are the keys in FILE.json, parted by slashes, and the last may
end in a format such as `:.3f`. Trains nothing.

    python -m experiments.results_page
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from experiments import beside, fair_rivals, horizon_by_arms, regret_by_round, transfer
from experiments import comparison as comparisons
from experiments.ablations.redraw import QUESTIONS
from experiments.adversaries import PLACES
from experiments.aot import compiled
from experiments.beside import TUNED
from experiments.common import HINDSIGHT, RESULTS, TEMPERATURES, interval
from experiments.comparison import GROUPS, target_name
from rmft_jax.method.presets import PRESETS
from rmft_jax.plotting import plot_regret_curves, save_figure
from rmft_jax.plotting.style import style_of
from rmft_jax.running.files import replacing
from rmft_jax.running.weights import load_pretrained, pretrained_names
from rmft_jax.statistics.bootstrap import holm
from rmft_jax.statistics.tables import markdown_table

ROOT = Path(__file__).parent.parent
MAPS = {"ratio_to_gittins": "", "suff_fail_freq": "", "suff_fail_freq_minus_gittins": "+"}
FILES = ("mab_k2", "mab", "mab_k5", "fol", "nsmab")
PAGES = (
    *(ROOT / "docs" / name for name in ("results.md", "accelerators.md", "get-started.md", "language.md")),
    ROOT / "README.md",
    ROOT / "experiments" / "ablations" / "README.md",
)
_SEEN = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)
_NUMBER = re.compile(r"(<!--= ([\w/]+) ([^>]+?) -->).*?<!-- -->", re.DOTALL)


def main(figures: bool = False) -> None:
    """Brings all tables and numbers up to date.

    Args:
      figures: draw those anew that need no policies as well.
    """
    if figures:
        redraw()
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"))
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


def filled(text: str) -> str:
    """A page with its tables and numbers as they should be."""
    text = _SEEN.sub(lambda found: f"<!-- {found[1]} -->\n{TABLES[found[1]]()}\n<!-- /{found[1]} -->", text)
    return _NUMBER.sub(lambda found: f"{found[1]}{number(found[2], found[3])}<!-- -->", text)


def number(file: str, path: str) -> str:
    """What an experiment left under some keys, as text: a number, one with its interval, or one for each seed."""
    keys, _, form = path.partition(":")
    found = result(file)
    for key in keys.split("/"):
        found = found[int(key) if isinstance(found, list) else key]
    form = form or ".2f"
    match found:
        case {"regret_mean": _}:
            return interval(found, "regret_")
        case {"mean": _}:
            return interval(found, sign="+" if form == "+" else "")
        case [*several, last]:
            return f"{', '.join(format(one, form) for one in several)} and {last:{form}}"
        case _:
            return format(found, form)


def headline() -> str:
    """A row per problem: the trained policies, the optimum, the strongest agent, and Thompson sampling."""
    problems = {
        "K = 2, T = 50": ("mab_k2", "mab-k2"),
        "K = 5, T = 50": ("mab", "mab"),
        "K = 5, T = 100": ("mab_k5", "mab-k5"),
        "the same, gap 0.2, never trained on": ("mab_k5", "fixed_gap_hard"),
        "the same, gap 0.5, never trained on": ("mab_k5", "fixed_gap_easy"),
        "full information": ("fol", "fol"),
        "abrupt changes, K = 3, T = 100": ("nsmab", "nsmab"),
    }
    head = ("problem", "RMFT, regret at T", "optimum", "strongest agent", "RMFT / it", "RMFT / Thompson")
    return markdown_table(head, [[title, *_row(*place)] for title, place in problems.items()])


def _row(file: str, problem: str) -> list[str]:
    found = result(f"beside_{file}")["problems"][problem]
    own, best = found["policies"]["rmft"], found["strongest"]
    thompson = interval(own["ratio_to"]["thompson"]) if "thompson" in own["ratio_to"] else ""
    strongest = f"{label(best)}, {found['agents'][best]['regret_mean']:.2f}"
    return [interval(own["regret"]), optimum(found), strongest, interval(own["ratio_to"][best]), thompson]


def optimum(found: Mapping[str, Any]) -> str:
    """The least regret on average, or where it lies: no agent is better than it, and none worse than the best agent."""
    match found["optimum"]:
        case None:
            return ""
        case {"exact": value}:
            return f"{value:.2f}"
        case bound:
            low, (_, high) = bound["at_least"] - 1.96 * bound["sem"], found["agents"][found["strongest"]]["regret_ci95"]
            return f"{low:.1f} to {high:.1f}"


def agents(file: str, problem: str, exponents: bool = False) -> str:
    """All agents on a problem, lowest regret first, the policies among them, and how often they miss the best arm."""
    found, recorded = result(f"beside_{file}")["problems"][problem], result(f"{file}_regret")
    own, rows = found["policies"]["rmft"], []
    for name, row in found["agents"].items():
        if name in HINDSIGHT and (row["regret_mean"] <= 0 or not exponents):
            continue
        relative = interval(own["ratio_to"][name]) if name in own["ratio_to"] else ""
        last = interval(found["exponents"][name]) if exponents else f"{found['suff_fail_freq'][name]:.2f}"
        shown = label(name) + " (knows the rewards)" * (name in HINDSIGHT)
        rows.append((row["regret_mean"], [shown, interval(row, "regret_"), relative, last]))
    for name, policy in found["policies"].items():
        if exponents:
            betas = recorded["trained"]["exponent"]
            last = "; ".join(interval({"mean": one["exponent"], "ci95": one["ci95"]}) for one in betas)
        else:
            # Of another problem than that of training it stands with what was played there.
            there = recorded.get("instances", {}).get(problem, recorded)
            last = f"{there['suff_fail_freq'][name]['mean']:.2f}"
        rows.append((policy["regret"]["mean"], [label(name), interval(policy["regret"]), "", last]))
    head = ("agent", "regret at T", "RMFT / it", "β, `regret ~ t^β`" if exponents else "SuffFailFreq(T/2)")
    return markdown_table(head, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def regret_parts(name: str) -> str:
    """Where the regret of each agent arises, and by how much it misses the best arm."""
    parts = ("first_half", "second_half_missed", "second_half_others")
    rows = []
    for agent, found in result(name)["agents"].items():
        median = found["gap_of_missed_quartiles"]
        by = [f"{found['missed_by_at_least'][gap]['mean']:.3f}" for gap in ("0.05", "0.1")]
        cells = [f"{found[part]['mean']:.2f}" for part in parts] + [f"{found['missed']['mean']:.3f}", *by]
        rows.append([label(agent), *cells, f"{median[1]:.2f}" if median else ""])
    head = ("agent", "before T/2", "after, best arm missed", "after, other scenarios")
    return markdown_table((*head, "missed", "by a gap of 0.05 or more", "by 0.1 or more", "median gap"), rows)


def temperatures() -> str:
    """By how much regret changes when trained policies play at lower temperatures, on the same scenarios."""
    rows = []
    for name in ("mab_k2", "mab", "mab_k5", "nsmab"):
        found = result(f"{name}_regret")["at_temperature"]
        others = [interval(one["minus_at_1"], sign="+") for at, one in found.items() if at != "1"]
        rows.append([f"`{name.replace('_', '-')}`", interval(found["1"]["regret"]), *others])
    lower = [f"at {temperature:g}" for temperature in TEMPERATURES if temperature != 1]
    return markdown_table(("policies of", "regret at temperature 1", *lower), rows)


def growth(place: str) -> str:
    """Regret at every horizon that policies were trained at, and the two laws fitted to it."""
    found, rows = result("growth")["places"][place], []
    for name, agent in found.items():
        laws = [
            {"mean": law["value"], "ci95": [law["low"], law["high"]]} for law in (agent["exponent"], agent["slope"])
        ]
        rows.append([label(name), *map(interval, (*agent["regret"].values(), *laws))])
    head = ("agent", *(f"T = {T}" for T in found["rmft"]["regret"]), "β of `c T^β`", "b of `a + b log T`")
    return markdown_table(head, rows)


def adversary(place: str) -> str:
    """Regret at some rounds, far beyond the horizon of training, with its range over training seeds."""
    found, rounds = result("adversaries")["places"][place], ("50", "400", "1600")
    rows = [[label(name), *(_range(one["regret"][t]["seeds"]) for t in rounds)] for name, one in found.items()]
    return markdown_table(("player", *(f"t = {int(t):,}" for t in rounds)), rows)


def _range(seeds: Sequence[float]) -> str:
    mean, least, most = (f"{number:.1f}" for number in (np.mean(seeds), min(seeds), max(seeds)))
    return mean if least == most else f"{mean} ({least} to {most})"


def comparison(group: str) -> str:
    """The table of `experiments.comparison`, with a star at what Holm's correction over all its tables leaves."""
    names = {name.removeprefix(f"{group}/") for name in surviving() if name.startswith(f"{group}/")}
    return comparisons.table(result(target_name(group)), names).strip()


def surviving() -> set[str]:
    """The rows, as group and name, whose difference to the first row remains after Holm's correction."""
    return holm(differences())


def ablation(name: str) -> str:
    """What an ablation wrote: regret by setting, and differences to one of them."""
    return (RESULTS / "ablations" / f"{name}.md").read_text(encoding="utf-8").strip()


def differences() -> dict[str, float]:
    """The p-value of every difference in the tables of comparisons, by group and row."""
    found = {}
    for group in GROUPS:
        rows = list(result(target_name(group))["rows"].items())
        found |= {f"{group}/{name}": comparisons.p_value(row) for name, row in rows[1:]}
    return found


def redraw() -> None:
    """Draws figures from the numbers that the experiments left, and writes the tables of comparisons."""
    for group in GROUPS:
        save_figure(comparisons.draw(result(target_name(group))), RESULTS / target_name(group))
        (RESULTS / f"{target_name(group)}.md").write_text(comparison(group) + "\n", encoding="utf-8")
    for name in FILES:
        save_figure(beside.draw(result(f"beside_{name}")["problems"]), RESULTS / f"beside_{name}")
        points = pd.read_csv(RESULTS / f"{name}_regret.csv")
        curves = {str(agent): one.set_index("round").to_xarray() for agent, one in points.groupby("agent", sort=False)}
        save_figure(
            plot_regret_curves(curves, result(f"{name}_regret").get("regret", "pseudo")), RESULTS / f"{name}_regret"
        )
    for name in ("regret_by_round_mab_k2", "regret_by_round_mab_k5"):
        rows: Any = pd.read_csv(RESULTS / f"{name}.csv").to_dict("records")
        save_figure(regret_by_round.draw(rows), RESULTS / name)


def pretrained() -> str:
    """The policies that come with the package."""
    rows = []
    for name in pretrained_names():
        policy = load_pretrained(name)
        problem = PRESETS[policy.preset][0].partition(":")[0]
        measured = interval(policy.provenance["evaluation"], "regret_")
        rows.append([f"`pretrained:{name}`", problem, measured, str(policy.provenance["iteration"])])
    return markdown_table(("name", "trained on", "regret at T", "iteration"), rows)


def result(name: str) -> Any:
    """What an experiment left."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def label(agent: str) -> str:
    """What a table calls an agent."""
    if agent.endswith(TUNED):
        return f"{label(agent.removesuffix(TUNED))}, tuned"
    return f"**{style_of(agent).label}**" if agent == "rmft" else style_of(agent).label


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "mab_k2": lambda: agents("mab_k2", "mab-k2"),
    "mab": lambda: agents("mab", "mab"),
    "mab_k5": lambda: agents("mab_k5", "mab-k5"),
    "gap_hard": lambda: agents("mab_k5", "fixed_gap_hard"),
    "gap_easy": lambda: agents("mab_k5", "fixed_gap_easy"),
    "fol": lambda: agents("fol", "fol", exponents=True),
    "nsmab": lambda: agents("nsmab", "nsmab", exponents=True),
    "temperatures": temperatures,
    "growth": lambda: growth("uniform"),
    "growth_hard": lambda: growth("hard"),
    **{f"against_{place}": lambda place=place: adversary(place) for place in PLACES},
    "parts_k2": lambda: regret_parts("regret_by_round_mab_k2"),
    "parts_k5": lambda: regret_parts("regret_by_round_mab_k5"),
    **{target_name(group): lambda group=group: comparison(group) for group in GROUPS},
    **{
        f"fair_rivals_{part}": lambda part=part: fair_rivals.table(result("fair_rivals")[part])
        for part in ("steps", "seconds", "long")
        if (RESULTS / f"fair_rivals_{part}.png").is_file()
    },
    "transfer": lambda: transfer.table(result("transfer")),
    **{
        f"map_{name}": lambda name=name, sign=sign: horizon_by_arms.table(result("horizon_by_arms")[name], sign)
        for name, sign in MAPS.items()
        if (RESULTS / "horizon_by_arms.json").is_file()
    },
    **{
        f"ablation_{question.name}": lambda question=question: ablation(question.name)
        for question in QUESTIONS
        if (RESULTS / "ablations" / f"{question.name}.json").is_file()
    },
    "pretrained": pretrained,
    "accelerators": lambda: compiled.table(result("accelerators")),
}

if __name__ == "__main__":
    tyro.cli(main)
