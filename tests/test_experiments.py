"""The experiments: fair budgets, the decompositions they report, and a small version of every script."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from experiments import bandit_regret, comparison, pretrain, regret_by_round, settings_regret, single_layer_weights
from experiments.common import preset_config, run_directory, tuned_in_hindsight
from rmft_jax import RunDirectory, evaluate, get_preset, make_agents, make_environment
from rmft_jax.agents import FullInformationSingleLayer, Hedge, catalogue
from rmft_jax.config import RMFTConfig, SingleLayerConfig
from rmft_jax.growth import half_horizon, suff_fail_freq
from rmft_jax.training import RunKeys
from rmft_jax.types import Context
from theory.hedge import centring, rate

ROWS = [(group, name) for group, content in comparison.GROUPS.items() for name in content.rows]


def row(group: str, name: str, quick: bool = False) -> RMFTConfig:
    chosen = comparison.GROUPS[group]
    return comparison.config_of(chosen.rows[name], chosen.preset, quick).rmft


@pytest.mark.parametrize(("group", "name"), ROWS)
def test_rows_have_the_budget_of_their_table(group, name):
    one, first = row(group, name), row(group, next(iter(comparison.GROUPS[group].rows)))
    for quantity in (lambda c: c.num_iterations * c.num_scenarios * c.num_rollouts, lambda c: c.horizon):
        assert quantity(one) == quantity(first)
    if "iterations" not in name or "replay" in name:
        assert one.num_iterations * one.num_minibatches == first.num_iterations * first.num_minibatches
    assert (one.environment, one.policy) == (first.environment, first.policy)
    assert (one == first) == (name == next(iter(comparison.GROUPS[group].rows)))
    assert row(group, name, quick=True).refresh_every <= row(group, name, quick=True).num_iterations


def test_one_row_is_one_run_wherever_it_stands():
    configs = {}
    for group, name in ROWS:
        slug = comparison.slug(f"{comparison.GROUPS[group].preset} {name}")
        assert configs.setdefault(slug, row(group, name)) == row(group, name)


def summaries(regrets: list[float], thompson: list[float]) -> list[dict]:
    return [
        {
            "evaluation": {
                "rmft": {"regret_mean": regret, "suff_fail_freq": 0.25},
                "thompson": {"regret_mean": other},
            },
            "env_steps": 1000,
            "wall_seconds": 2.0,
            "checkpoint_iteration": 20,
        }
        for regret, other in zip(regrets, thompson, strict=True)
    ]


def test_differences_are_paired_by_seed():
    group = comparison.Group({"rmft": {}, "at random": {"selection": "random"}})
    configs = {name: comparison.config_of(changes) for name, changes in group.rows.items()}
    measured = {"rmft": summaries([4.0, 5.0, 6.0], [6.0] * 3), "at random": summaries([5.0, 6.0, 7.0], [6.0] * 3)}
    result = comparison.describe(measured, configs, group)
    other = result["rows"]["at random"]
    assert other["minus_first"]["mean"] == 1.0
    assert other["minus_first"]["ci95"] == [1.0, 1.0]  # Though seeds differ by as much.
    assert other["regret"]["ci95"][1] > 7.0
    assert other["trajectories_per_update"] == 512 * 2 // 4
    text = comparison.table(result)
    assert "| at random | 6.00 [3.52, 8.48] | +1.00 [+1.00, +1.00] | 0.25 | 256 | 2 |" in text
    assert "| rmft | 5.00 [2.52, 7.48] |  | 0.25 |" in text
    assert {one["row"] for one in comparison.draw(result).rows} == {"rmft", "at random", "thompson"}


def test_unknown_rows_are_refused():
    with pytest.raises(SystemExit, match="got --only 'grpo', need one of 'rmft'"):
        comparison.main("rivals", only=("grpo",))


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
    rows = {(r["panel"], round(r["x"], 2)): r["y"] for r in regret_by_round.draw(found).rows}
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


def test_the_policy_of_a_matrix_along_the_centring_is_hedge(monkeypatch):
    eta, arms, horizon = 0.3, 3, 8
    agent = FullInformationSingleLayer.create(jax.random.key(0), SingleLayerConfig(), arms)
    # A score other than 1, and a matrix that differs from eta I by what softmax does not see.
    params = {**agent.params, "kappa": 2.0 * agent.params["kappa"]}
    value = eta / 2 * jnp.eye(arms) + 0.4
    agent = dataclasses.replace(agent, params={**params, "V": value})
    monkeypatch.setattr(single_layer_weights, "load_agent", lambda run: (agent, 1))
    matrix = single_layer_weights.trained_matrix(RunDirectory(Path("nowhere")))
    np.testing.assert_allclose(matrix, eta * centring(arms), atol=1e-6)
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
    config = preset_config("mab-k2", quick=True)
    tuned = tuned_in_hindsight(config, 3, ("posterior_index",))["posterior_index"]
    environment, horizon = config.rmft.environment, config.rmft.horizon
    played = evaluate(
        {
            str(constant): catalogue.with_constant(agent, "posterior_index", constant)
            for name, agent in make_agents(environment, horizon, ["posterior_index"]).items()
            for constant in (0.6, 1.0, 2.0, tuned["constant"])
        },
        make_environment(environment),
        horizon=horizon,
        num_scenarios=config.num_test_scenarios,
        key=RunKeys.create(3).test,
    )
    finals = played["regret"].isel(round=-1).mean("scenario")
    assert float(finals.sel(agent=str(tuned["constant"]))) == pytest.approx(tuned["regret_mean"], rel=1e-5)
    assert float(finals.min()) == pytest.approx(tuned["regret_mean"], rel=1e-5)


def test_quick_runs_are_kept_apart(tmp_path):
    assert run_directory(tmp_path, "fol", 1) != run_directory(tmp_path, "fol", 1, quick=True)
    assert preset_config("fol") == get_preset("fol")
    assert preset_config("fol", quick=True).rmft.environment == get_preset("fol").rmft.environment


@pytest.mark.slow
@pytest.mark.parametrize("group", list(comparison.GROUPS))
def test_comparisons_run(tmp_path, group):
    comparison.main(group, runs=tmp_path, seeds=(0, 1), quick=True)
    target = tmp_path / "quick" / f"comparison_{group.replace('-', '_')}"
    assert set(json.loads(target.with_suffix(".json").read_text())["rows"]) == set(comparison.GROUPS[group].rows)
    assert all(target.with_suffix(suffix).stat().st_size for suffix in (".md", ".png", ".pdf"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["mab", "mab-k2", "mab-k5"])
def test_headline_scripts_run(tmp_path, preset):
    for script, name in ((bandit_regret, f"{preset}_regret"), (regret_by_round, f"regret_by_round_{preset}")):
        script.main(preset, runs=tmp_path, seeds=(0, 1), quick=True)
        target = tmp_path / "quick" / name.replace("-", "_")
        found = json.loads(target.with_suffix(".json").read_text())
        assert "rmft" in found["agents"]
        assert target.with_suffix(".png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["fol", "nsmab"])
def test_scripts_of_the_settings_run(tmp_path, preset):
    settings_regret.main(preset, runs=tmp_path, seeds=(0, 1), quick=True)
    found = json.loads((tmp_path / "quick" / f"{preset}_regret.json").read_text())
    assert len(found["trained"]["exponent"]) == 2


@pytest.mark.slow
def test_the_script_of_the_single_layer_runs(tmp_path):
    single_layer_weights.main(runs=tmp_path, seeds=(0, 1), quick=True)
    found = json.loads((tmp_path / "quick" / "single_layer_weights.json").read_text())
    assert found["rate"]["mean"] > 0
