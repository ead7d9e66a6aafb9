"""What README.md promises at a glance; `test_docs_pages.py` runs its code and commands."""

import re

import pytest

from pages import PAGES, ROOT, blocks
from rmft_jax.method.presets import PRESETS

PAGE = ROOT / "README.md"
README = PAGE.read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.split()) <= 900
    (example,) = (block.code for block in blocks(PAGE) if block.language == "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    (commands,) = (block.commands for block in blocks(PAGE) if block.language == "sh")
    assert commands == [["make", "quickstart"], ["make", "test"]]


def test_words_of_the_trade_come_after_their_meaning():
    """Below the headline table they are explained; `branching` is where the method first needs it."""
    before = README.split("<!-- headline -->")[0]
    for word in ("posterior index", "SuffFailFreq", "Gittins", "held-out", "pseudo-regret"):
        assert word not in before, word
    assert README.index("*branching*") < min(found.end() for found in re.finditer("branching", README))


def test_a_beginner_is_told_where_the_command_and_the_first_figure_are():
    begun = README.partition("## In Python")[0]
    assert "`source .venv/bin/activate`" in begun
    assert "`runs/quickstart/figures/regret.png`" in begun
    (example,) = (block.code for block in blocks(PAGE) if block.language == "python")
    assert "print(" in example, "it takes a minute"


NAMED = re.compile(r"`(?:\./)?((?:rmft_jax|experiments|theory|tests|docs)/[\w./]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_exist_and_nothing_is_left_open(page):
    text = page.read_text(encoding="utf-8")
    for path in NAMED.findall(text):
        assert (ROOT / path).exists(), path
    assert not re.search(r"@@|@[A-Z]+@|TODO", text)


def test_nothing_is_left_open_in_presets():
    for description, _ in PRESETS.values():
        assert not re.search(r"@@|@[A-Z]+@|TODO", description)
