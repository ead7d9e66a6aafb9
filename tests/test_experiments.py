"""The experiments: fair budgets, the decompositions they report, and a small version of every script."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from experiments import (
    bandit_regret,
    beside,
    common,
    comparison,
    encodings,
    pretrain,
    regret_by_round,
    settings_regret,
    single_layer_weights,
)
from experiments.common import Options, Trained, mean_final_regrets, tuned_in_hindsight
from rmft_jax.agents import FullInformationSingleLayer, Hedge, SingleLayer, catalogue, make_agents
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Context, Problem, Stationary
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.statistics.growth import half_horizon, suff_fail_freq
from rmft_jax.sweeps.spec import Sweep
from theory.hedge import centring, rate

ROWS = [(group, name) for group, content in comparison.GROUPS.items() for name in content.rows]


def row(group: str, name: str, quick: bool = False) -> RMFTConfig:
    chosen = comparison.GROUPS[group]
    override = chosen.settings(name, quick) | (common.QUICK if quick else {})
    return Sweep(chosen.preset, override=override).expand()[0].config.rmft


def steps(config: RMFTConfig) -> int:
    return config.num_iterations * config.num_scenarios * config.num_rollouts


def num_updates(config: RMFTConfig) -> int:
    return config.num_iterations * int(config.flat()["num_minibatches"])


@pytest.mark.parametrize(("group", "name"), ROWS)
def test_rows_have_the_budget_of_their_table(group, name):
    one, first = row(group, name), row(group, next(iter(comparison.GROUPS[group].rows)))
    assert (one.environment, one.horizon) == (first.environment, first.horizon)
    assert one.policy == first.policy
    assert steps(one) == steps(first)
    assert num_updates(one) == num_updates(first) or "iterations" in name
    assert (one == first) == (name == next(iter(comparison.GROUPS[group].rows)))
    assert row(group, name, quick=True).refresh_every <= row(group, name, quick=True).num_iterations


def test_one_row_is_one_run_wherever_it_stands():
    configs = {}
    for group, name in ROWS:
        slug = comparison.slug(f"{comparison.GROUPS[group].preset} {name}")
        assert configs.setdefault(slug, row(group, name)) == row(group, name)


def trained(name: str, group: comparison.Group, regrets: list[float], thompson: list[float]) -> Trained:
    """What a sweep over three seeds would have left."""
    per_seed = {
        "final_regret": ("seed", regrets),
        "suff_fail_freq": (("seed", "round"), np.full((3, 50), 0.5) - 0.25 * (np.arange(1, 51) == 25)),
        "best_iteration": ("seed", [20.0, 40.0, 60.0]),
        "wall_seconds": ("seed", [2.0] * 3),
        "baseline_final_regret": (("seed", "agent"), np.transpose([thompson])),
    }
    sweep = xr.Dataset(per_seed, {"seed": [0, 1, 2], "round": np.arange(1, 51), "agent": ["thompson"]})
    config = Sweep("mab-per-scenario", override=group.settings(name)).expand()[0].config
    agent: Any = None
    return Trained(sweep, [TrainedPolicy(agent, config, "mab-per-scenario", {})] * 3)


def test_differences_are_paired_by_seed():
    group = comparison.Group({"rmft": {}, "at random": {"selection": "random"}}, references=("thompson",))
    regrets = {"rmft": [4.0, 5.0, 6.0], "at random": [5.0, 6.0, 7.0]}
    measured = {name: trained(name, group, values, [6.0] * 3) for name, values in regrets.items()}
    result = comparison.describe(measured, group)
    other = result["rows"]["at random"]
    assert other["minus_first"]["mean"] == 1.0
    assert other["minus_first"]["ci95"] == [1.0, 1.0]  # Though seeds differ by as much.
    assert other["regret"]["ci95"][1] > 7.0
    assert (other["updates"], other["trajectories_per_update"]) == (400, 512 * 2 // 4)
    assert (other["env_steps"], other["checkpoint_iteration"]) == (100 * 512 * 8 * 50, [20, 40, 60])
    text = comparison.table(result)
    assert "| at random | 6.00 [3.52, 8.48] | +1.00 [+1.00, +1.00] | 0.25 | 256 | 2 |" in text
    assert "| RMFT | 5.00 [2.52, 7.48] |  | 0.25 |" in text
    assert {one["row"] for one in comparison.draw(result).rows} == {"rmft", "at random", "thompson"}


def test_unknown_rows_are_refused():
    with pytest.raises(SystemExit, match="got --only 'grpo', need one of 'rmft'"):
        comparison.main("rivals", Options(), only=("grpo",))


def test_only_presets_can_become_policies(tmp_path):
    with pytest.raises(SystemExit, match="got preset 'mab-k9', need one of quickstart"):
        pretrain.main("mab-k9", tmp_path)
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_parts_of_the_regret_are_all_of_it(horizon, scenarios, seed):
    rng = np.random.default_rng(seed)
    per_round = rng.choice([0.0, 0.25, 0.5], (scenarios, horizon))
    last = [max((t + 1 for t in range(horizon) if one[t] == 0), default=0) for one in per_round]
    played = xr.Dataset(
        {
            "regret": (("scenario", "round"), np.cumsum(per_round, axis=1)),
            "last_best_round": ("scenario", np.asarray(last)),
        }
    )
    found = regret_by_round.halves(played)
    half = half_horizon(horizon) - 1
    np.testing.assert_allclose(found.first, per_round[:, :half].sum(axis=1))
    np.testing.assert_allclose(found.second, per_round[:, half:].sum(axis=1))
    np.testing.assert_allclose(found.rounds, per_round.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.gaps, per_round[:, half:].mean(axis=1))
    np.testing.assert_array_equal(found.missed, (per_round[:, half:] > 0).all(axis=1))
    assert found.missed.mean() == suff_fail_freq(np.asarray(last), horizon)[half]
    described = regret_by_round.describe([found, found])
    parts = sum(described[part]["mean"] for part in ("first_half", "second_half_missed", "second_half_others"))
    assert parts == pytest.approx(per_round.sum(axis=1).mean())
    assert described["missed_by_at_least"]["0.2"]["mean"] == pytest.approx(
        np.mean(found.missed & (per_round[:, half:].mean(axis=1) >= 0.2))
    )


def test_the_figure_counts_what_is_missed():
    def one(missed: list[bool], gaps: list[float]) -> regret_by_round.Halves:
        zeros = np.zeros(len(missed))
        return regret_by_round.Halves(np.asarray([0.2, 0.1]), zeros, zeros, np.asarray(missed), np.asarray(gaps))

    found = {"rmft": [one([True, True, False, False], [0.1, 0.3, 0.4, 0.0]), one([False] * 4, [0.0] * 4)]}
    rows = {(r["panel"], round(r["x"], 2)): r["y"] for r in regret_by_round.rows_of(found)}
    assert rows["gap", 0.0] == 2 / 8
    assert rows["gap", 0.2] == 1 / 8
    assert rows["gap", 0.4] == 0.0
    assert (rows["round", 1], rows["round", 2]) == (0.2, 0.1)


def test_hedge_is_a_matrix_along_the_centring():
    rng = np.random.default_rng(0)
    direction = centring(4)
    matrix = direction @ rng.normal(size=(4, 4)) @ direction
    eta = rate(matrix)
    nearby = [np.linalg.norm(matrix - other * direction) for other in (eta - 0.01, eta, eta + 0.01)]
    assert min(nearby) == nearby[1]
    assert single_layer_weights.share_beside_hedge(0.7 * direction) == pytest.approx(0.0, abs=1e-12)
    assert single_layer_weights.share_beside_hedge(matrix - eta * direction) == pytest.approx(1.0)


def test_the_policy_of_a_matrix_along_the_centring_is_hedge():
    eta, arms, horizon = 0.3, 3, 8
    agent = FullInformationSingleLayer.create(jax.random.key(0), SingleLayer(), arms)
    # A score other than 1, and a matrix that differs from eta I by what softmax does not see.
    params = {**agent.params, "kappa": 2.0 * agent.params["kappa"]}
    value = eta / 2 * jnp.eye(arms) + 0.4
    agent = dataclasses.replace(agent, params={**params, "V": value})
    np.testing.assert_allclose(single_layer_weights.trained_matrix(agent), eta * centring(arms), atol=1e-6)
    hedge = Hedge(rate=eta / np.sqrt(8 * np.log(arms) / horizon))
    players: tuple[Any, Any] = (agent, hedge)
    states = [player.init(arms, horizon) for player in players]
    reward = jnp.asarray([0.2, 0.9, 0.4])
    for round in range(3):
        context = Context(jnp.asarray(round), jnp.asarray(horizon), jnp.ones(arms, bool), jnp.zeros(arms))
        decisions = []
        for i, player in enumerate(players):
            decision, state = player.act(jax.random.key(round), states[i], context)
            states[i] = player.observe(state, decision.action, reward, context)
            decisions.append(decision.probabilities)
        np.testing.assert_allclose(decisions[0], decisions[1], atol=1e-5)


def test_no_constant_is_better_than_the_one_tuned_in_hindsight():
    config = Sweep("mab-k2", override={**common.QUICK, "seed": 3}).expand()[0].config
    tuned = tuned_in_hindsight(config, ("posterior_index",))["posterior_index"]
    problem = config.rmft.problem()
    agent = make_agents(problem, ["posterior_index"])["posterior_index"]
    candidates = {
        str(constant): catalogue.with_constants(agent, {"constant": constant})
        for constant in (0.6, 1.0, 2.0, tuned["constant"])
    }
    key = RunKeys.create(3).test
    finals = mean_final_regrets(evaluate(candidates, problem, num_scenarios=config.num_test_scenarios, key=key))
    assert finals[str(tuned["constant"])] == pytest.approx(tuned["regret_mean"], rel=1e-5)
    assert min(finals.values()) == pytest.approx(tuned["regret_mean"], rel=1e-5)


def test_ratios_are_taken_on_the_same_scenarios():
    finals = xr.DataArray([[2.0, 4.0, 0.0], [4.0, 6.0, 0.0]], dims=("scenario", "agent"))
    regret = finals.assign_coords(agent=["rmft", "thompson", "best_arm"]).expand_dims(round=[1])
    ucb, kl_ucb = {"constant": 0.5, "regret_mean": 1.5}, {"constant": None, "regret_mean": 6.0}
    tuned = [{"ucb": ucb, "kl_ucb": kl_ucb}] * 2
    found = common.ratios([regret.to_dataset(name="regret"), 2 * regret.to_dataset(name="regret")], tuned)
    assert {name: row["seeds"] for name, row in found.items()} == {
        "thompson": [0.6, 0.6],  # Who knows the rewards has no regret to be compared with.
        "ucb_tuned_in_hindsight": [2.0, 4.0],
        "kl_ucb": [0.5, 1.0],
    }


def test_recorded_policies_are_compared_on_their_own_scenarios():
    """The regret of a policy is what all agents say that were played beside it, or the scenarios are others."""
    ratios = {"thompson": {"seeds": [0.5, 0.6]}, "greedy": {"seeds": [1.0, 1.5]}, "forgotten": {"seeds": [2.0, 2.0]}}
    means = [{"thompson": 4.0, "greedy": 2.0, "best_arm": 0.0, "gittins": 1.6}, {"thompson": 5.0, "greedy": 2.0}]
    assert beside.regrets_of(ratios, means) == [2.0, 3.0]
    with pytest.raises(SystemExit, match="the scenarios are not those of the file: thompson, greedy say"):
        beside.regrets_of(ratios, [means[0] | {"greedy": 2.1}, means[1]])


def test_the_ratio_to_the_optimum_goes_by_way_of_the_optimal_policy():
    problem = Problem(Stationary(num_arms=2), 10)
    exact = beside.optimum(problem)
    assert exact == {"exact": pytest.approx(0.64488, abs=1e-5)}
    lucky = [{"bayes_optimal": 0.5, "best_arm": 0.0}, {"bayes_optimal": 0.8, "best_arm": 0.0}]
    found = beside.compared([0.6, 0.9], lucky, exact)
    assert found["ratio_to_optimum"]["seeds"] == pytest.approx([1 + 0.1 / 0.64488] * 2, rel=1e-4)
    assert found["ratio_to"]["bayes_optimal"]["seeds"] == pytest.approx([1.2, 1.125])
    assert set(found["ratio_to"]) == {"bayes_optimal"}
    assert beside.compared([0.5, 0.8], lucky, exact)["ratio_to_optimum"]["ci95"][0] >= 1.0
    assert beside.optimum(Problem(Stationary(num_arms=2, prior="fixed_gap"), 10)) is None
    assert beside.optimum(Problem(Stationary(num_arms=2, feedback="full"), 10)) is None
    assert set(beside.optimum(Problem(Stationary(num_arms=5), 5)) or ()) == {"at_least", "sem"}


@pytest.mark.slow
def test_a_sweep_over_seeds_grows_and_its_policies_play_what_it_says(tmp_path):
    tiny = {**common.QUICK, "horizon": 4, "num_iterations": 2, "chunk_size": 2, "width": 8, "num_layers": 1}
    first = common.train_seeds(tmp_path / "mab-k2", "mab-k2", [1], tiny)
    before = (tmp_path / "mab-k2" / "cells" / "00000.nc").stat().st_mtime_ns
    both = common.train_seeds(tmp_path / "mab-k2", "mab-k2", [0, 1], tiny)
    assert (tmp_path / "mab-k2" / "cells" / "00000.nc").stat().st_mtime_ns == before
    assert common.train_seeds(tmp_path / "mab-k2", "mab-k2", [1], tiny).per_seed("seed") == [1]
    assert [one.config.seed for one in both.policies] == [0, 1]
    assert both.cost()["env_steps"] == 2 * 64 * 16 * 4
    assert common.provenance(both.sweep)["versions"] == common.provenance(first.sweep)["versions"]
    (evaluation,) = first.evaluations()
    assert mean_final_regrets(evaluation)["rmft"] == pytest.approx(first.per_seed("final_regret")[0], rel=1e-5)
    missed = common.missed_best_arm([evaluation], "rmft")["mean"]
    assert missed == pytest.approx(float(first.sweep["suff_fail_freq"].sel(round=half_horizon(4), seed=1)))
    assert "thompson" in evaluation["agent"]


def test_a_single_seed_has_no_interval():
    with pytest.raises(SystemExit, match="got 1 seed, need at least 2"):
        Options(seeds=(4,)).train("mab-k2")


def test_both_scales_of_the_encodings_differ_in_encodings_and_seeds_alone():
    for scale in (encodings.QUICK, encodings.FULL):
        cells = scale.sweep((0, 1)).expand()
        assert len(cells) == len(encodings.ARMS) * len(encodings.POSITIONS) * 2
        own = {"arms": "token", "position": "none", "seed": 0}
        assert len({cell.config.replace(**own) for cell in cells}) == 1
        assert cells[0].config.rmft.environment.num_arms in scale.num_arms
        assert cells[0].config.rmft.horizon in scale.horizons


@pytest.mark.slow
@pytest.mark.parametrize("group", list(comparison.GROUPS))
def test_comparisons_run(tmp_path, group):
    comparison.main(group, Options(tmp_path, (0, 1), quick=True))
    target = tmp_path / "quick" / f"comparison_{group.replace('-', '_')}"
    assert set(json.loads(target.with_suffix(".json").read_text())["rows"]) == set(comparison.GROUPS[group].rows)
    assert all(target.with_suffix(suffix).stat().st_size for suffix in (".md", ".png", ".pdf"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["mab", "mab-k2", "mab-k5"])
def test_headline_scripts_run(tmp_path, preset):
    for script, name in ((bandit_regret, f"{preset}_regret"), (regret_by_round, f"regret_by_round_{preset}")):
        script.main(preset, Options(tmp_path, (0, 1), quick=True))
        target = tmp_path / "quick" / name.replace("-", "_")
        found = json.loads(target.with_suffix(".json").read_text())
        assert "rmft" in found["agents"]
        assert target.with_suffix(".png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["fol", "nsmab"])
def test_scripts_of_the_settings_run(tmp_path, preset):
    settings_regret.main(preset, Options(tmp_path, (0, 1), quick=True))
    found = json.loads((tmp_path / "quick" / f"{preset}_regret.json").read_text())
    assert len(found["trained"]["exponent"]) == 2


@pytest.mark.slow
def test_the_script_of_the_single_layer_runs(tmp_path):
    single_layer_weights.main(Options(tmp_path, (0, 1), quick=True))
    found = json.loads((tmp_path / "quick" / "single_layer_weights.json").read_text())
    assert found["rate"]["mean"] > 0
