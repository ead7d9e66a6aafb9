"""The ablations: their specifications, what is written of an answer, and each of them at a tiny size."""

import csv
import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import experiments.ablations
from experiments.ablations import common, rounds
from rmft_jax import Sweep
from rmft_jax.sweeps.plan import plan
from sweep_data import made_sweep

FOLDER = Path(experiments.ablations.__file__).parent
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))
QUESTIONS = [
    value
    for script in SCRIPTS
    for value in vars(importlib.import_module(f"experiments.ablations.{script}")).values()
    if isinstance(value, common.Question)
]
TINY = {
    "num_iterations": 2,
    "chunk_size": 2,
    "num_scenarios": 8,
    "horizon": 4,
    "num_arms": 2,
    "width": 8,
    "num_layers": 1,
    "num_validation_scenarios": 8,
    "num_test_scenarios": 16,
}
MADE = common.Question(
    name="made",
    quick=Sweep(),
    full=Sweep(),
    figures={"": ("sweep", {"by": "k"}), "_map": ("heatmap", {})},
    rows="k",
    columns="width",
    base={"k": 2, "width": 32},
    baselines=["thompson"],
)


def shrunk(sweep: Sweep) -> Sweep:
    """As many settings, on two seeds and as small as they can be."""
    grid = dict(sweep.grid) | {"seed": [0, 1]}
    tiny = {name: value for name, value in TINY.items() if name not in grid and name not in sweep.zip}
    columns = dict(sweep.zip) and rounds.split(2, 8, [2, 1])
    return dataclasses.replace(sweep, grid=grid, zip=columns, override={**sweep.override, **tiny})


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_both_forms_expand_to_the_same_question(question):
    quick, full = question.quick.expand(), question.full.expand()
    assert len(plan(quick)) <= 6
    assert {*quick[0].coordinates} == {*full[0].coordinates}
    for sweep in (question.quick, question.full):
        assert sweep.grid["seed"] == (0, 1, 2)
        for name, value in question.base.items():
            assert value in (sweep.grid | sweep.zip)[name]
    assert common.estimated_hours(question.quick) < 0.05
    assert common.estimated_hours(question.full) > common.estimated_hours(question.quick)


@pytest.mark.parametrize("form", ["quick", "full"])
def test_rounds_differ_in_nothing_but_when_the_policy_is_renewed(form):
    cells = getattr(rounds.QUESTION, form).expand()
    configs = [cell.config.rmft for cell in cells]
    assert len({config.num_iterations for config in configs}) >= 3
    assert len({config.num_iterations * config.num_scenarios for config in configs}) == 1
    assert len({config.num_iterations * config.update.num_minibatches for config in configs}) == 1
    assert len({config.num_scenarios * config.selection.k / config.update.num_minibatches for config in configs}) == 1
    assert len({(config.num_rollouts, config.selection.k, config.update.step_size) for config in configs}) == 1
    assert all(cell.config.chunk_size == cell.config.rmft.num_iterations for cell in cells)


def test_an_answer_has_its_numbers_with_intervals_over_seeds(tmp_path, monkeypatch):
    dataset = made_sweep({"k": [1, 2], "width": [16, 32], "seed": [0, 1, 2]}, failed=[3])
    dataset["final_regret"] = dataset["final_regret"] + 0.5 * (dataset["k"] == 1)
    dataset.attrs |= {"versions": "{}", "spec": "{}", "device": "abacus", "git_commit": "c0ffee", "created": "today"}
    dataset["wall_seconds"] = dataset["final_regret"] * 0 + 2.0
    monkeypatch.setattr(common, "run", lambda sweep, directory, ray, may_fail: dataset)
    common.answer(MADE, MADE.quick, tmp_path / "runs", tmp_path)

    found = json.loads((tmp_path / "made.json").read_text())
    assert (found["device"], found["git_commit"], found["training_seconds"]) == ("abacus", "c0ffee", 22.0)
    cells = {(cell["k"], cell["width"]): cell for cell in found["cells"]}
    seeds = dataset["final_regret"].sel(k=2, width=32).to_numpy()
    half = 4.302653 * seeds.std(ddof=1) / np.sqrt(3)
    own = cells[2, 32]["agents"]["rmft"]
    assert cells[2, 32]["seeds"] == pytest.approx(list(seeds))
    assert own["ci95"] == pytest.approx([seeds.mean() - half, seeds.mean() + half])
    assert own["interval"] == "Student-t over 3 seeds"
    assert cells[1, 32]["seeds"][0] is None
    others = {(row["k"], row["width"]): row for row in found["minus_base"]}
    assert {*others} == {(1, 16), (1, 32), (2, 16)}
    assert others[1, 16]["mean"] == pytest.approx(0.5)
    assert others[1, 16]["ci95"] == pytest.approx([0.5, 0.5])
    assert "| 1 | 16 | +0.50 [+0.50, +0.50] |" in (tmp_path / "made.md").read_text()
    for name in ("made", "made_map"):
        assert all((tmp_path / f"{name}.{suffix}").stat().st_size > 0 for suffix in ("png", "pdf", "csv"))


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_question_is_answered_and_goes_on_where_it_was(question, tmp_path):
    sweep = shrunk(question.quick)
    small = question if not sweep.zip else dataclasses.replace(question, base={"num_iterations": 1})
    common.answer(small, sweep, tmp_path / "runs", tmp_path / "results")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "cells").glob("*.nc")}
    common.answer(small, sweep, tmp_path / "runs", tmp_path / "results")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "cells").glob("*.nc")}
    found = json.loads((tmp_path / "results" / f"{question.name}.json").read_text())
    assert len(before) == len(sweep.expand())
    assert not found["failures"]
    assert all(None not in cell["seeds"] for cell in found["cells"])
    for part in question.figures:
        with (tmp_path / "results" / f"{question.name}{part}.csv").open() as file:
            assert list(csv.DictReader(file))
