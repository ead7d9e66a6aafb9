"""The pages show what the experiments left."""

import re
from pathlib import Path

import pytest

from experiments import results_page
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


def test_the_strongest_agent_is_no_reference_that_knows_the_rewards():
    def ratio(mean: float) -> dict:
        return {"mean": mean, "ci95": [mean, mean]}

    trained = {
        "ratio_to": {"best_arm": ratio(9.0), "thompson": ratio(0.5), "hedge_tuned_in_hindsight": ratio(1.2)},
        "wall_seconds": [60.0, 120.0],
    }
    assert results_page.strongest(trained) == [
        "Hedge, best constant in hindsight",
        "1.20 [1.20, 1.20]",
        "0.50 [0.50, 0.50]",
        "2",
    ]


def test_agents_without_a_constant_are_not_called_tuned():
    ratios = {"kl_ucb": {"mean": 1.0, "ci95": [0.9, 1.1]}, "ucb_tuned_in_hindsight": {"mean": 2.0, "ci95": [1.9, 2.1]}}
    tuned = [{"kl_ucb": {"constant": None, "regret_mean": 3.0}, "ucb": {"constant": 0.5, "regret_mean": 4.0}}]
    labels = [row[0] for row in results_page._tuned(tuned, ratios)]
    assert labels == ["KL-UCB", "UCB, best constant in hindsight"]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:rmft_jax|experiments|theory|docs)/[\w./]+)`", PAGE))))
def test_named_files_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http|#)(.*?)\)", PAGE))
def test_links_and_pictures_lead_somewhere(path):
    assert (ROOT / "docs" / path).exists()


def test_commands_name_presets_that_exist():
    named = re.findall(r"experiments\.(?:bandit_regret|settings_regret|regret_by_round|pretrain) ([\w-]+)", PAGE)
    assert named
    assert set(named) <= set(PRESETS)
