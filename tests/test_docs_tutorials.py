"""The tutorials that are notebooks run from their first cell to their last, at small sizes."""

import re
from typing import Any

import numpy as np
import pytest

import rmft_jax
from experiments.tutorials import PAGES, played
from pages import ROOT, TUTORIALS, blocks
from rmft_jax.config import ConfigError
from tutorials import as_before, quick, world

SIZES = {"NUM_ITERATIONS": 5, "NUM_SCENARIOS": 8, "NUM_TEST_SCENARIOS": 16, "HORIZON": 5}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "ablation": {"HORIZONS": [4, 5], "NUM_ARMS": [2, 3], "SEEDS": [0, 1], "NUM_ITERATIONS": 2},
    "no-regret": {"HORIZONS": [4, 5], "SEEDS": [0, 1], "NUM_ITERATIONS": 2},
    "in-words": {"NUM_ARMS": 2, "NUM_ITERATIONS": 2},
}
QUICK = {"first-policy", "certificate"}
NAMES = [pytest.param(path.stem, marks=[pytest.mark.slow] * (path.stem not in QUICK)) for path in TUTORIALS]


def run(name: str, monkeypatch: pytest.MonkeyPatch, place: Any) -> tuple[str, dict[str, Any]]:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    stated = set(re.findall(r"^([A-Z_]+) = ", text, re.MULTILINE))
    sizes = {size: value for size, value in (SIZES | OWN_SIZES.get(name, {})).items() if size in stated}
    monkeypatch.chdir(place)
    few = rmft_jax.make_baselines

    def some(problem: Any, among: Any = None) -> Any:
        return few(problem, among or ("thompson", "greedy", "ucb1", "best_arm"))

    monkeypatch.setattr(rmft_jax, "make_baselines", some)
    with as_before(), quick("uniform", "thompson"):
        return played(text, sizes)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs(name, monkeypatch, tmp_path):
    text, names = run(name, monkeypatch, tmp_path)
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert re.sub(r"\n```text\n.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE) == re.sub(
        r"\n```text\n.*?^```\n", "", page, flags=re.DOTALL | re.MULTILINE
    ), "only what is printed differs"
    assert text.count("```text\n") == page.count("```text\n"), "cells print what the page shows"
    for figure in re.findall(rf"\]\(figures/{name}-([\w-]+)\.png\)", page):
        assert (tmp_path / f"{figure}.png").stat().st_size > 0
        assert (PAGES / "figures" / f"{name}-{figure}.png").is_file()
    if "evaluation" in names:
        assert np.isfinite(names["evaluation"]["regret"]).all()


def test_the_environment_of_the_tutorial_is_that_of_the_file():
    import jax
    import jax.numpy as jnp

    (code,) = [one.code for one in blocks(PAGES / "own-environment.md") if "@rmft_jax.register_environment" in one.code]
    expected = world(0.3, count=4)
    with as_before():
        exec(compile(code, "own-environment.md", "exec"), names := {"__name__": "tutorial"})
        markov: Any = names["Markov"]
        keys, masks = jax.random.split(jax.random.key(0), 4), (jnp.ones(5, bool), jnp.ones(40, bool))
        found = jax.vmap(lambda key: markov(switch_rate=0.3).reset(key, *masks))(keys)
        np.testing.assert_array_equal(found, expected)
        assert rmft_jax.get_environment("markov") == markov(switch_rate=0.1)


def test_what_cells_print_takes_the_place_of_what_stood_there():
    cells = "a\n\n```python\nN = 3\n```\n\nb\n\n```python\nprint(N)\n```\n\n```text\nold\n```\n\nc\n"
    assert played(cells)[0] == cells.replace("old", "3")
    assert played(cells, {"N": 4})[0] == cells.replace("old", "4")
    silent = cells.replace("print(N)", "pass")
    assert played(silent)[0] == silent.replace("\n```text\nold\n```\n", "")
    with pytest.raises(ConfigError, match="got size M, need a constant of the first cell"):
        played(cells, {"M": 4})


def test_every_tutorial_is_listed():
    listed = re.findall(r"\]\(([\w-]+)\.md\)", (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.stem for path in TUTORIALS]
