"""Puts the tables of `docs/results.md` and of the README in, from what the experiments left in `experiments/results`.

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
import tyro

from experiments.common import HINDSIGHT, RESULTS, TUNED, interval
from experiments.comparison import GROUPS, target_name
from rmft_jax.method.presets import PRESETS
from rmft_jax.plotting.style import style_of
from rmft_jax.running.files import replacing
from rmft_jax.running.weights import load_pretrained, pretrained_names
from rmft_jax.statistics.tables import markdown_table

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")
_SEEN = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)
_NUMBER = re.compile(r"(<!--= (\w+) ([^>]+?) -->).*?<!-- -->", re.DOTALL)


def main() -> None:
    """Brings all tables up to date."""
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
    """A row per problem: the trained policies, the strongest agent beside them, and Thompson sampling."""
    k2, mab, k5, fol, nsmab = (result(f"{name}_regret") for name in ("mab_k2", "mab", "mab_k5", "fol", "nsmab"))
    found = {
        "K = 2, T = 50": (k2["agents"]["rmft"], k2["trained"]["mab-k2"]),
        "K = 5, T = 50": (mab["agents"]["rmft"], mab["trained"]["mab"]),
        "K = 5, T = 100": (k5["agents"]["rmft"], k5["trained"]["mab-k5"]),
        "the same, gap 0.2, never trained on": (None, k5["instances"]["fixed_gap_hard"]),
        "the same, gap 0.5, never trained on": (None, k5["instances"]["fixed_gap_easy"]),
        "full information": (fol["agents"]["rmft"], fol["trained"]),
        "abrupt changes": (nsmab["agents"]["rmft"], nsmab["trained"]),
    }
    rows = [
        [problem, interval(own, "regret_") if own else interval(beside["agents"]["rmft"]), *strongest(beside)]
        for problem, (own, beside) in found.items()
    ]
    head = (
        "problem",
        "RMFT, regret at T",
        "strongest agent beside it",
        "RMFT / it",
        "RMFT / Thompson",
        "minutes a seed",
    )
    return markdown_table(head, rows)


def strongest(trained: Mapping[str, Any]) -> list[str]:
    """The agent of lowest regret beside the trained policies, the ratios to it and to Thompson, and minutes a seed."""
    ratios = {name: ratio for name, ratio in trained["ratio_to"].items() if name not in HINDSIGHT}
    name = max(ratios, key=lambda name: ratios[name]["mean"])
    thompson = interval(ratios["thompson"]) if "thompson" in ratios else ""
    minutes = f"{np.mean(trained['wall_seconds']) / 60:.0f}" if "wall_seconds" in trained else ""
    return [label(name), interval(ratios[name]), thompson, minutes]


def bandit_agents(name: str, preset: str) -> str:
    """All agents on a stationary bandit, lowest regret first, with the index tuned in hindsight."""
    found = result(name)
    ratios, rows = found["trained"][preset]["ratio_to"], []
    for agent, row in found["agents"].items():
        if agent in HINDSIGHT:
            continue
        missed = f"{found['suff_fail_freq'][agent]['mean']:.2f}"
        relative = interval(ratios[agent]) if agent in ratios else ""
        rows.append([label(agent), interval(row, "regret_"), relative, missed])
    rows += _tuned(found["tuned_in_hindsight"], ratios)
    return markdown_table(("agent", "regret at T", "RMFT / it", "SuffFailFreq(T/2)"), rows)


def setting_agents(name: str) -> str:
    """All agents of a setting, with their exponents, and the constants tuned in hindsight."""
    found = result(name)
    ratios, rows = found["trained"]["ratio_to"], []
    for agent, row in found["agents"].items():
        if row["regret_mean"] == 0:
            continue
        exponents = found["trained"]["exponent"] if agent == "rmft" else [found["exponents"][agent]]
        beta = "; ".join(interval({"mean": one["exponent"], "ci95": one["ci95"]}) for one in exponents)
        name = label(agent) + " (knows the rewards)" * (agent in HINDSIGHT)
        rows.append([name, interval(row, "regret_"), interval(ratios[agent]) if agent in ratios else "", beta])
    rows += _tuned(found["tuned_in_hindsight"], ratios)
    return markdown_table(("agent", "regret at T", "RMFT / it", "β, `regret ~ T^β`"), rows)


def _tuned(tuned: Sequence[Mapping[str, Any]], ratios: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the agents that were tuned in hindsight; of those without a constant, as they are."""
    rows = []
    for agent, first in tuned[0].items():
        name = agent if first["constant"] is None else agent + TUNED
        mean = np.mean([one[agent]["regret_mean"] for one in tuned])
        rows.append([label(name), f"{mean:.2f}", interval(ratios[name]), ""])
    return rows


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


def comparison(group: str) -> str:
    """The table that `experiments.comparison` wrote."""
    return (RESULTS / f"{target_name(group)}.md").read_text(encoding="utf-8").strip()


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
        return f"{label(agent.removesuffix(TUNED))}, best constant in hindsight"
    return f"**{style_of(agent).label}**" if agent == "rmft" else style_of(agent).label


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "mab_k2": lambda: bandit_agents("mab_k2_regret", "mab-k2"),
    "mab": lambda: bandit_agents("mab_regret", "mab"),
    "mab_k5": lambda: bandit_agents("mab_k5_regret", "mab-k5"),
    "fol": lambda: setting_agents("fol_regret"),
    "nsmab": lambda: setting_agents("nsmab_regret"),
    "parts_k2": lambda: regret_parts("regret_by_round_mab_k2"),
    "parts_k5": lambda: regret_parts("regret_by_round_mab_k5"),
    **{target_name(group): lambda group=group: comparison(group) for group in GROUPS},
    "pretrained": pretrained,
}

if __name__ == "__main__":
    tyro.cli(main)
