"""The comparison in which every method has its own step size."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments import fair_rivals
from experiments.common import Options, Trained, describe_seeds
from experiments.comparison import LISTED, Group
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.sweeps.spec import Sweep


def config_of(changes: dict[str, Any]) -> RunConfig:
    return Sweep("mab", override=changes).expand()[0].config


def budget(config: RMFTConfig) -> tuple[object, ...]:
    update = config.update
    assert isinstance(update, GradientSteps)
    updates = config.num_iterations * update.num_epochs * update.num_minibatches
    steps = config.num_iterations * config.num_scenarios * config.num_rollouts * config.horizon
    return config.environment, config.policy, steps, updates


@pytest.mark.parametrize("common", [fair_rivals.BUDGET, LISTED])
def test_all_methods_have_one_budget(common):
    configs = [config_of({**common, **changes}).rmft for changes in fair_rivals.METHODS.values()]
    assert len({budget(config) for config in configs}) == 1
    assert len(set(configs)) == len(configs)
    assert configs[0] == config_of(common).rmft


def test_no_seed_that_a_choice_was_made_on_is_compared():
    assert not {*fair_rivals.TUNING_SEEDS, *Options().seeds} & set(fair_rivals.DEFAULTS.seeds)
    preset = config_of({}).rmft.update
    assert isinstance(preset, GradientSteps)
    assert preset.step_size in fair_rivals.STEP_SIZES[1:-1]


@given(st.lists(st.integers(-64, 64), min_size=3, max_size=10, unique=True), st.floats(0.01, 2.0))
def test_equivalence_is_an_interval_within_the_margin(hundredths, margin):
    values = np.asarray(hundredths) / 100
    spread = values.std(ddof=1) / np.sqrt(len(values))
    t = min(margin - values.mean(), margin + values.mean()) / spread
    found = fair_rivals.equivalence_p_value(values.tolist(), margin)
    assert found == pytest.approx(stats.t.sf(t, len(values) - 1), abs=1e-9)
    # The same as that the 90% interval lies within the margin.
    half = stats.t.ppf(0.95, len(values) - 1) * spread
    assert (found < 0.05) == (abs(values.mean()) + half < margin)


def trained(seconds: float, changes: dict[str, Any]) -> Trained:
    """What a sweep over two seeds would have left."""
    per_seed = {
        "final_regret": ("seed", [4.0, 5.0]),
        "validation_regret": (("seed", "validation_iteration"), [[9.0, 4.0, 6.0], [9.0, 5.0, 7.0]]),
        "suff_fail_freq": (("seed", "round"), np.full((2, 50), 0.5)),
        "best_iteration": ("seed", [50.0, 50.0]),
        "wall_seconds": ("seed", [seconds] * 2),
        "baseline_final_regret": (("seed", "agent"), [[6.0], [6.0]]),
    }
    coordinates = {
        "seed": [0, 1],
        "round": np.arange(1, 51),
        "agent": ["thompson"],
        "validation_iteration": [0, 50, 100],
    }
    sweep = xr.Dataset(per_seed, coordinates)
    agent: Any = None
    return Trained(sweep, [TrainedPolicy(agent, config_of({**fair_rivals.BUDGET, **changes}), "mab", {})] * 2)


def test_a_step_that_diverges_is_never_chosen(monkeypatch, tmp_path):
    sizes = {"step_size": (1e-3, 2e-3, 4e-3)}
    coords = {"step_size": list(sizes["step_size"]), "seed": list(fair_rivals.TUNING_SEEDS)}
    regret = xr.DataArray([[5.0, 5.0], [4.0, 5.0], [3.0, np.nan]], coords, ["step_size", "seed"])
    monkeypatch.setattr(fair_rivals, "run", lambda *_, **__: {"final_regret": regret})
    found = fair_rivals.tune("x", {}, sizes, Options(tmp_path))
    assert found["step_size"] == 2e-3
    assert [each["regret"] and each["regret"]["mean"] for each in found["tries"]] == [5.0, 4.5, None]
    drawn = {**found, "entropy_weight": 0.0, "tries": [each | {"entropy_weight": 0.0} for each in found["tries"]]}
    monkeypatch.setattr(fair_rivals, "STEP_SIZES", sizes["step_size"])
    monkeypatch.setattr(fair_rivals, "ENTROPY_WEIGHTS", (0.0, 0.01))
    drawn["tries"] += [each | {"entropy_weight": 0.01} for each in drawn["tries"]]
    assert len(fair_rivals.draw_tuning({"rmft": drawn}).rows) == 6


def test_who_is_slow_has_fewer_iterations_in_equal_time():
    rows = {name: fair_rivals.METHODS[name] for name in ("rmft", "GRPO", "DPT, own play")}
    measured = {
        "rmft": {"wall_seconds": [60.0, 90.0]},
        "GRPO": {"wall_seconds": [300.0, 125.0]},
        "DPT, own play": {"wall_seconds": [40.0, 40.0]},
    }
    found = fair_rivals.in_equal_time(rows, measured)
    assert {name: row["num_iterations"] for name, row in found.items()} == {
        "rmft": 100,
        "GRPO": 50,
        "DPT, own play": 150,
    }
    assert found["GRPO"].items() >= rows["GRPO"].items()
    very_slow = fair_rivals.in_equal_time(rows, {**measured, "GRPO": {"wall_seconds": [1e6]}})
    assert very_slow["GRPO"]["num_iterations"] == 5


def test_the_last_iterate_is_not_the_chosen_checkpoint():
    group = Group({"rmft": {}, "GRPO": fair_rivals.METHODS["GRPO"]}, "mab", ("thompson",), fair_rivals.BUDGET)
    found = fair_rivals.described({name: trained(60.0, group.rows[name]) for name in group.rows}, group)
    assert found["rows"]["GRPO"]["on_validation"]["last"]["seeds"] == [6.0, 7.0]
    assert found["rows"]["GRPO"]["on_validation"]["chosen"]["seeds"] == [4.0, 5.0]
    assert found["rows"]["GRPO"]["regret"]["seeds"] == [4.0, 5.0]
    assert found["rows"]["GRPO"]["validation"] == {
        "iteration": [0, 50, 100],
        "mean": [9.0, 4.5, 6.5],
        "least": [9.0, 4.0, 6.0],
        "most": [9.0, 5.0, 7.0],
    }
    assert found["rows"]["GRPO"]["suff_fail_freq"]["seeds"] == [0.5, 0.5]


def test_a_table_tells_who_differs_and_who_is_level():
    def row(differences: list[float], p: float) -> dict[str, Any]:
        mean = float(np.mean(differences))
        return {
            "changes": {"step_size": 2e-3, "entropy_weight": 0.0},
            "regret": {"mean": 4 + mean, "ci95": [3 + mean, 5 + mean]},
            "minus_first": {"mean": mean, "ci95": [mean - 1, mean + 1], "seeds": differences},
            "equivalence_p_value": p,
            "suff_fail_freq": {"mean": 0.25, "ci95": [0.2, 0.3]},
            "env_steps": 20_480_000,
            "wall_seconds": [30.0, 40.0, 50.0],
        }

    rows = {"rmft": row([0.0] * 3, 1.0), "GRPO": row([2.0, 2.01, 1.99], 0.9), "DPT": row([0.1, -0.1, 0.02], 0.012)}
    found = fair_rivals.table({"rows": rows, "references": {"gittins": {"mean": 3.5, "ci95": [3.4, 3.6]}}})
    lines = found.splitlines()
    assert lines[2] == "| RMFT | 0.002, 0 | 4.00 [3.00, 5.00] |  |  | 0.25 [0.20, 0.30] | 20 | 30 |"
    assert (
        lines[3]
        == "| GRPO | 0.002, 0 | 6.00 [5.00, 7.00] | +2.00 [+1.00, +3.00]* | 0.9 | 0.25 [0.20, 0.30] | 20 | 30 |"
    )
    assert (
        lines[4]
        == "| DPT | 0.002, 0 | 4.01 [3.01, 5.01] | +0.01 [-0.99, +1.01] | 0.012* | 0.25 [0.20, 0.30] | 20 | 30 |"
    )
    assert lines[-1] == "Beside: Gittins index 3.50 [3.40, 3.60]."


def test_equal_time_needs_the_seconds_of_equal_steps(tmp_path):
    with pytest.raises(SystemExit, match="got --parts seconds"):
        fair_rivals.main(Options(tmp_path, quick=True), parts=("seconds",))


def test_fresh_seeds_are_not_those_of_tuning():
    with pytest.raises(SystemExit, match="got --seeds 101, need others"):
        fair_rivals.main(Options(seeds=(0, 101)))


def test_a_file_of_another_budget_is_not_added_to(tmp_path):
    path, tuning = tmp_path / "fair_rivals.json", {name: {"step_size": 0.002} for name in fair_rivals.METHODS}
    assert fair_rivals.kept_parts(path) == {}
    path.write_text(json.dumps({"budget": fair_rivals.BUDGET, "tuning": tuning, "steps": {"rows": {}}}))
    assert "steps" in fair_rivals.kept_parts(path)
    longer = {**fair_rivals.BUDGET, "num_iterations": 101}
    for changed in ({"budget": longer}, {"tuning": {"rmft": tuning["rmft"]}}):
        path.write_text(json.dumps({"budget": fair_rivals.BUDGET, "tuning": tuning, **changed}))
        with pytest.raises(SystemExit, match="another budget or of other methods"):
            fair_rivals.kept_parts(path)


GROUP = Group({"rmft": {}, "GRPO": fair_rivals.METHODS["GRPO"]}, "mab", ("thompson",), fair_rivals.BUDGET)


def part_of(seeds: list[int], commit: str, *, worse: float = 0.0, curve: float = 0.0) -> dict[str, Any]:
    """A part as a run on two seeds leaves it."""
    made = {"seeds": seeds, "device": "cpu", "git_commit": commit, "created": "today", "versions": {}, "tuning": {}}
    rows = {name: trained(60.0 + curve, changes) for name, changes in GROUP.rows.items()}
    grpo = rows["GRPO"].sweep
    rows["GRPO"] = rows["GRPO"]._replace(
        sweep=grpo.assign(
            final_regret=grpo["final_regret"] + worse, validation_regret=grpo["validation_regret"] + curve
        )
    )
    return made | fair_rivals.described(rows, GROUP)


def test_seeds_of_two_runs_are_one_part():
    first = fair_rivals.pooled(None, part_of([10, 11], "a"))
    second = fair_rivals.pooled(first, part_of([12, 13], "b", worse=0.5, curve=3.0))
    found = fair_rivals.tested(fair_rivals.pooled(second, part_of([14, 15], "c", worse=0.25)))
    assert (found["seeds"], found["git_commit"]) == ([10, 11, 12, 13, 14, 15], "c")
    runs = [(one["seeds"], one["git_commit"]) for one in found["runs"]]
    assert runs == [([10, 11], "a"), ([12, 13], "b"), ([14, 15], "c")]
    row = found["rows"]["GRPO"]
    assert row["regret"] == describe_seeds([4.0, 5.0, 4.5, 5.5, 4.25, 5.25])
    assert row["minus_first"]["seeds"] == [0.0, 0.0, 0.5, 0.5, 0.25, 0.25]
    assert row["on_validation"]["last"]["seeds"] == [6.0, 7.0, 9.0, 10.0, 6.0, 7.0]
    assert row["wall_seconds"] == [60.0, 60.0, 63.0, 63.0, 60.0, 60.0]
    assert row["checkpoint_iteration"] == [50] * 6
    assert row["validation"] == {
        "iteration": [0, 50, 100],
        "mean": [10.0, 5.5, 7.5],
        "least": [9.0, 4.0, 6.0],
        "most": [12.0, 8.0, 10.0],
    }
    assert row["equivalence_p_value"] == fair_rivals.equivalence_p_value(row["minus_first"]["seeds"], 0.05 * 4.5)
    assert row["updates"] == part_of([0, 1], "d")["rows"]["GRPO"]["updates"]
    assert found["references"]["thompson"]["seeds"] == [6.0] * 6


def test_seeds_of_a_part_without_a_list_of_runs_are_one_run():
    earlier = fair_rivals.pooled(None, part_of([10, 11], "a"))
    del earlier["runs"]
    found = fair_rivals.pooled(earlier, part_of([12, 13], "b"))
    assert [(one["seeds"], one["git_commit"]) for one in found["runs"]] == [([10, 11], "a"), ([12, 13], "b")]


def test_seeds_of_other_settings_are_refused():
    earlier = fair_rivals.pooled(None, part_of([10, 11], "a"))
    earlier["rows"]["GRPO"]["changes"]["step_size"] = 0.5
    with pytest.raises(SystemExit, match=r"got changes = .*, need .*as earlier seeds had it"):
        fair_rivals.pooled(earlier, part_of([12, 13], "b"))


@pytest.mark.slow
def test_it_runs(tmp_path):
    fair_rivals.main(Options(tmp_path, (0, 1), quick=True))
    found = json.loads((tmp_path / "quick" / "fair_rivals.json").read_text())
    assert set(found["seconds"]["tuning"]) == set(fair_rivals.METHODS)
    for part in ("steps", "seconds", "long"):
        assert set(found[part]["rows"]) == set(fair_rivals.METHODS)
        assert (tmp_path / "quick" / f"fair_rivals_{part}.png").exists()
    assert (tmp_path / "quick" / "fair_rivals_training.png").exists()
    tries = found["tuning"]["rmft"]["tries"]
    assert len(tries) == len(fair_rivals.STEP_SIZES) * len(fair_rivals.ENTROPY_WEIGHTS)
    assert (
        found["steps"]["rows"]["rmft"]["changes"].items()
        >= {one: min(tries, key=lambda each: each["regret"]["mean"])[one] for one in fair_rivals.GRID}.items()
    )
