"""Policies that are played or trained over many problems: growth, the map, adversaries and transfer."""

import json
import shutil

import pytest

from experiments import adversaries, growth, horizon_by_arms, transfer
from experiments.cells import joined, kept_rows
from experiments.common import Options


@pytest.mark.slow
def test_regret_over_trained_horizons_runs(tmp_path):
    growth.main(Options(tmp_path, (0, 1), quick=True), horizons=(4,))
    path = tmp_path / "quick" / "growth.json"
    first = json.loads(path.read_text())
    assert not first["places"]
    shutil.rmtree(tmp_path / "horizon_by_arms-quick")  # As on another machine.
    growth.main(Options(tmp_path, (0, 1), quick=True), horizons=(8,))
    found = json.loads(path.read_text())
    assert all(row in found["cells"] for row in first["cells"])
    assert set(found["places"]["hard"]["rmft"]["regret"]) == {"4", "8"}
    assert all((tmp_path / "quick" / f"{name}.png").exists() for name in ("growth", "growth_hard"))
    shutil.rmtree(tmp_path / "horizon_by_arms-quick")
    growth.main(Options(tmp_path, (0, 1), quick=True), horizons=())
    assert json.loads(path.read_text()) == found, "described anew, not trained"


@pytest.mark.slow
def test_the_map_is_put_together_from_parts(tmp_path):
    options, path = Options(tmp_path, (0, 1), quick=True), tmp_path / "quick" / "horizon_by_arms.json"
    horizon_by_arms.main(options, horizons=(25,), num_arms=(2,))
    first = json.loads(path.read_text())
    assert set(first["ratio_to_gittins"]["2"]) == {"25"}
    assert not path.with_suffix(".png").exists()
    shutil.rmtree(tmp_path / "horizon_by_arms-quick")  # As on another machine.
    horizon_by_arms.main(options, horizons=(25, 50), num_arms=(5,))
    found = json.loads(path.read_text())
    assert {K: list(row) for K, row in found["suff_fail_freq"].items()} == {"2": ["25"], "5": ["25", "50"]}
    assert all(row in found["cells"] for row in first["cells"])
    assert found["suff_fail_freq_minus_gittins"].keys() == found["thompson_to_gittins"].keys() == {"2", "5"}
    assert path.with_suffix(".png").exists()
    with pytest.raises(SystemExit, match=r"need values of horizon_by_arms\.toml"):
        horizon_by_arms.main(options, horizons=(26,))


def test_parts_of_other_budgets_are_not_mixed(tmp_path):
    path = tmp_path / "cells.json"
    assert kept_rows(path, {"k": 1}) == []
    path.write_text(json.dumps({"budget": {"k": 1}, "cells": [{"agent": "rmft"}]}))
    assert kept_rows(path, {"k": 1}) == [{"agent": "rmft"}]
    with pytest.raises(SystemExit, match=r"of the budget .* need "):
        kept_rows(path, {"k": 2})


def test_new_rows_replace_earlier_ones_of_their_name():
    earlier = [{"T": 2, "agent": "a", "regret": 1.0}, {"T": 1, "agent": "a", "regret": 2.0}]
    rows = joined(earlier, [{"T": 2, "agent": "a", "regret": 3.0}], ["T", "agent"])
    assert [(row["T"], row["regret"]) for row in rows] == [(1, 2.0), (2, 3.0)]


@pytest.mark.slow
def test_adversaries_beyond_the_horizon_of_training(tmp_path):
    adversaries.main(Options(tmp_path, (0, 1), quick=True))
    places = json.loads((tmp_path / "quick" / "adversaries.json").read_text())["places"]
    assert set(places["alternating"]) == {*adversaries.TRAININGS, adversaries.LONGER, *adversaries.RIVALS}
    # Follow-the-leader loses half of every second round; Hedge does not.
    assert places["alternating"]["follow_the_leader"]["exponent_beyond"]["mean"] > 0.99
    assert places["alternating"]["hedge_anytime"]["exponent_beyond"]["mean"] < 0.6


def test_a_map_that_is_not_whole_has_gaps():
    one = {"mean": 1.02, "ci95": [1.0, 1.04]}
    head, _, *rows = horizon_by_arms.table({"2": {"50": one}, "10": {"25": one, "100": one}}).splitlines()
    assert head == "| K | T = 25 | T = 50 | T = 100 |"
    assert rows == ["| 2 |  | 1.02 [1.00, 1.04] |  |", "| 10 | 1.02 [1.00, 1.04] |  | 1.02 [1.00, 1.04] |"]


def test_transfer_is_told_relative_to_the_strongest_agent_of_each_problem():
    rivals = {"gittins": [2.0, 3.0], "posterior_index": [3.0, 3.0], "thompson": [4.0, 6.0], "uniform": [8.0, 9.0]}
    rows = {name: [3.0, 4.5] for name in transfer.ROWS} | {transfer.MIXTURE: [2.5, 4.5]}
    drifting = {
        "change_point_index": [5.0, 5.0],
        "discounted_index": [4.0, 4.0],
        "thompson": [6.0, 6.0],
        "uniform": [9.0, 9.0],
    }
    played = {"T = 25": rows | rivals, "three changes": rows | drifting, "gap 0.5": rows | rivals}
    found = transfer.described(played)
    assert found["strongest"] == {"T = 25": "gittins", "three changes": "discounted_index", "gap 0.5": "gittins"}
    assert found["ratio"]["T = 25"]["K = 2"]["seeds"] == [1.5, 1.5]
    assert found["ratio"]["T = 25"]["gittins"]["seeds"] == [1.0, 1.0]
    assert found["over_own"]["T = 25"]["thompson"]["seeds"] == [4 / 3, 4 / 3]
    assert set(found["over_own"]) == {"T = 25", "three changes"}, "nothing was trained on the other gap"
    head, _, *lines = transfer.table(found).splitlines()
    assert head == "| trained on | T = 25 | three changes |"
    assert "| T = 25 | 1 | 1.00 [1.00, 1.00] |" in lines
    assert lines[-1].startswith("| Thompson | 1.33 [1.33, 1.33] | 1.")
    figure = transfer.draw(found["ratio"])
    assert len(figure.rows) == 3 * (len(transfer.ROWS) + 1)
    assert len(figure.axes[0].patches) == 2, "policies at home are framed"


@pytest.mark.slow
def test_policies_are_played_where_they_were_not_trained(tmp_path):
    transfer.main(Options(tmp_path, (0, 1), quick=True))
    found = json.loads((tmp_path / "quick" / "transfer.json").read_text())
    assert set(found["ratio"]) == set(transfer.PROBLEMS)
    assert all({*transfer.ROWS, "thompson", "uniform"} < set(rows) for rows in found["ratio"].values())
    for target, best in found["strongest"].items():
        rows, kind = found["ratio"][target], "abrupt" if target == "three changes" else "stationary"
        assert rows[best]["mean"] == 1.0
        assert all(rows[name]["mean"] >= 1.0 - 0.5 * (name not in transfer.RIVALS[kind]) for name in rows)
