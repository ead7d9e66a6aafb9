"""The pages show what the experiments left."""

import re
from pathlib import Path

import pytest

from experiments import results_page
from experiments.common import HINDSIGHT
from experiments.comparison import GROUPS
from rmft_jax.method.presets import PRESETS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", results_page.PAGES, ids=lambda page: page.name)
def test_tables_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert results_page.filled(text) == text


def test_every_table_is_shown():
    shown = {name for page in results_page.PAGES for name in re.findall(r"<!-- (\w+) -->", page.read_text("utf-8"))}
    assert shown == set(results_page.TABLES)


def test_only_what_stands_between_the_marks_changes(monkeypatch):
    monkeypatch.setitem(results_page.TABLES, "one", lambda: "| new |")
    assert (
        results_page.filled("a\n<!-- one -->\n| old |\n<!-- /one -->\nb")
        == "a\n<!-- one -->\n| new |\n<!-- /one -->\nb"
    )
    assert results_page.filled("<!-- one -->\n<!-- /one -->") == "<!-- one -->\n| new |\n<!-- /one -->"


def test_numbers_in_the_text_are_those_of_the_files(monkeypatch):
    found = {
        "rows": {"k = 1, whole": {"mean": 1.234, "ci95": [1.0, 1.5]}},
        "agents": {"rmft": {"regret_mean": 2.0, "regret_ci95": [1.9, 2.1]}},
        "seeds": [1.0, 2.0, 3.0],
    }
    monkeypatch.setattr(results_page, "result", lambda name: found[name])
    texts = {
        "rows k = 1, whole": "1.23 [1.00, 1.50]",
        "rows k = 1, whole:+": "+1.23 [+1.00, +1.50]",
        "rows k = 1, whole/mean:.1f": "1.2",
        "rows k = 1, whole/ci95/1": "1.50",
        "agents rmft": "2.00 [1.90, 2.10]",
    }
    for path, text in texts.items():
        page = f"It has <!--= {path} -->something\nelse<!-- --> and 3.00 [2.00, 4.00]."
        assert results_page.filled(page) == f"It has <!--= {path} -->{text}<!-- --> and 3.00 [2.00, 4.00]."
    monkeypatch.setattr(results_page, "result", lambda name: found)
    assert results_page.number("any", "seeds:.0f") == "1, 2 and 3"
    with pytest.raises(KeyError):
        results_page.filled("<!--= any rows/k = 3 -->1<!-- -->")


def test_where_the_optimum_lies():
    found = {"strongest": "gittins", "agents": {"gittins": {"regret_ci95": [4.6, 4.84]}}}
    assert results_page.optimum(found | {"optimum": None}) == ""
    assert results_page.optimum(found | {"optimum": {"exact": 1.3366}}) == "1.34"
    assert results_page.optimum(found | {"optimum": {"at_least": 3.5, "sem": 0.1}}) == "3.3 to 4.8"


@pytest.mark.parametrize("file", ["mab_k2", "mab", "mab_k5", "fol", "nsmab"])
def test_the_strongest_agent_is_an_agent_and_the_strongest(file):
    for found in results_page.result(f"beside_{file}")["problems"].values():
        agents = {name: row["regret_mean"] for name, row in found["agents"].items() if name not in HINDSIGHT}
        assert found["strongest"] == min(agents, key=agents.__getitem__)
        assert set(found["policies"]["rmft"]["ratio_to"]) >= set(agents) - {"rmft"}


def test_every_result_says_what_made_it():
    for name in ("mab_k2", "mab", "mab_k5", "fol", "nsmab"):
        found = results_page.result(f"beside_{name}")["measured_by"]
        assert found["versions"]["rmft-jax"]
        assert len(found["git_commit"].removesuffix("-dirty")) == 40


def test_stars_are_what_holm_leaves():
    differences, surviving = results_page.differences(), results_page.surviving()
    assert surviving < set(differences)
    text = "".join(results_page.comparison(group) for group in GROUPS)
    assert text.count("*") == len(surviving)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:rmft_jax|experiments|theory|docs)/[\w./]+)`", PAGE))))
def test_named_files_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http|#)(.*?)\)", PAGE))
def test_links_and_pictures_lead_somewhere(path):
    assert (ROOT / "docs" / path.partition("#")[0]).exists()


def test_commands_name_presets_that_exist():
    named = re.findall(r"experiments\.(?:bandit_regret|settings_regret|regret_by_round|pretrain) ([\w-]+)", PAGE)
    assert named
    assert set(named) <= set(PRESETS)
