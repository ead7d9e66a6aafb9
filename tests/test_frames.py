from typing import Any

import numpy as np
import pytest

from evaluations import AGENTS, made_evaluation
from rmft_jax import to_dataframe
from rmft_jax.config import ConfigError
from sweep_data import made_sweep

GRID = {"horizon": [25, 50], "num_arms": [2, 3], "seed": [0, 1]}


def test_an_evaluation_has_a_row_per_agent_and_scenario():
    evaluation = made_evaluation()
    table: Any = to_dataframe(evaluation)
    assert len(table) == len(AGENTS) * 60
    assert {"agent", "scenario", "final_regret", "last_best_round", "greedy_frac"} <= set(table.columns)
    assert "mean_rewards" not in table
    expected = evaluation["regret"].isel(round=-1).mean("scenario")
    means = table.groupby("agent")["final_regret"].mean()
    for name in AGENTS:
        assert means[name] == pytest.approx(float(expected.sel(agent=name)))
    rounds = to_dataframe(evaluation, "round")
    assert len(rounds) == len(AGENTS) * 60 * 20
    assert {"round", "regret", "action", "rank"} <= set(rounds.columns)
    assert len(to_dataframe(evaluation, "arm")) == 60 * 4


def test_a_sweep_has_a_row_per_cell_and_agent_and_nothing_beyond_a_horizon():
    sweep = made_sweep(GRID)
    table: Any = to_dataframe(sweep)
    agents = ["rmft", *sweep["agent"].values]
    assert len(table) == 8 * len(agents)
    assert set(table["agent"]) == set(agents)
    one = table.query("agent == 'rmft' and horizon == 50 and num_arms == 3 and seed == 1")
    at = {"horizon": 50, "num_arms": 3, "seed": 1}
    assert one["final_regret"].item() == pytest.approx(float(sweep["final_regret"].sel(at)))
    name = agents[1]
    other = table[(table["agent"] == name) & (table["horizon"] == 25) & (table["num_arms"] == 2) & (table["seed"] == 0)]
    expected = sweep["baseline_final_regret"].sel(horizon=25, num_arms=2, seed=0, agent=name)
    assert other["final_regret"].item() == pytest.approx(float(expected))
    rounds: Any = to_dataframe(sweep, "round")
    played = int(np.isfinite(sweep["regret"]).sum() + np.isfinite(sweep["baseline_regret"]).sum())
    assert len(rounds) == played
    assert rounds.query("horizon == 25")["round"].max() == 25
    training = to_dataframe(sweep, "validation_iteration")
    assert set(training["agent"]) == {"rmft"}
    assert "validation_regret" in training


def test_what_is_along_nothing_is_refused():
    with pytest.raises(ConfigError, match="got over='week', need none, or one of round, arm"):
        to_dataframe(made_evaluation(), "week")


def test_cells_without_numbers_have_no_rows():
    whole, partial = made_sweep(GRID), made_sweep(GRID, failed=[1, 5])
    table: Any = to_dataframe(partial)
    assert len(table) == len(to_dataframe(whole)) // 8 * 6
    assert table["final_regret"].notna().all()
    assert set(table["status"].dropna()) == {"finished"}


def test_only_dimensions_that_have_numbers_of_their_own_are_offered():
    with pytest.raises(ConfigError) as told:
        to_dataframe(made_sweep(), "rank")
    assert "rank" not in str(told.value).split("need")[1]
    assert "round" in str(told.value)
