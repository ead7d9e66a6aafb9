"""What the presets promise, trained for real."""

import dataclasses

import pytest

from rmft_jax import get_preset, train


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quickstart_beats_the_classical_agents(tmp_path, seed):
    summary = train(dataclasses.replace(get_preset("quickstart"), seed=seed), tmp_path / "run")
    regret = {name: row["regret_mean"] for name, row in summary["evaluation"].items()}
    assert regret["rmft"] < regret["ucb1"]
    assert regret["rmft"] < regret["greedy"]
    assert regret["rmft"] <= 0.85 * regret["thompson"]


@pytest.mark.slow
def test_mab_reaches_its_target(tmp_path):
    regret = {name: row["regret_mean"] for name, row in train(get_preset("mab"), tmp_path)["evaluation"].items()}
    assert regret["rmft"] <= 0.70 * regret["thompson"]
