import jax
import numpy as np
import pytest

from rmft_jax.agents import UCB1, TransformerAgent, make_baselines
from rmft_jax.bootstrap import mean_interval
from rmft_jax.config import BanditConfig, TransformerConfig
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import evaluate, final_regret
from rmft_jax.report import summarize, table

CONFIG = BanditConfig(num_arms=4)
WORLD = make_environment(CONFIG)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def dataset():
    return evaluate(make_baselines(CONFIG), WORLD, horizon=20, num_scenarios=300, key=KEY)


def test_every_agent_meets_the_same_problems(dataset):
    assert dict(dataset.sizes) == {"agent": 6, "scenario": 300, "round": 20, "arm": 4}
    means = dataset["mean_rewards"].to_numpy()
    gaps = means.max(1, keepdims=True) - means
    per_round = np.take_along_axis(gaps[None], dataset["action"].to_numpy(), axis=2)
    np.testing.assert_allclose(np.cumsum(per_round, -1), dataset["regret"], atol=1e-4)


def test_the_result_of_an_agent_does_not_depend_on_its_company(dataset):
    alone = evaluate({"ucb1": UCB1()}, WORLD, horizon=20, num_scenarios=300, key=KEY)
    np.testing.assert_array_equal(alone["regret"].sel(agent="ucb1"), dataset["regret"].sel(agent="ucb1"))
    final = final_regret(UCB1(), WORLD, KEY, 20, 300)
    np.testing.assert_allclose(final, dataset["regret"].sel(agent="ucb1").isel(round=-1), atol=1e-5)


def test_the_summary_reports_what_the_dataset_holds(dataset):
    summary = summarize(dataset)
    assert summary["best_arm"]["regret_mean"] == 0
    assert summary["best_arm"]["suff_fail_freq"] == 0
    assert summary["thompson"]["minus_thompson"] == 0
    final = dataset["regret"].isel(round=-1)
    for name, row in summary.items():
        assert row["regret_mean"] == pytest.approx(float(final.sel(agent=name).mean()), rel=1e-5)
        low, high = row["regret_ci95"]
        assert low <= row["regret_mean"] <= high
        difference = final.sel(agent=name) - final.sel(agent="thompson")
        assert row["minus_thompson"] == pytest.approx(float(difference.mean()), abs=1e-5)
    assert summary["uniform"]["min_frac"] > summary["greedy"]["min_frac"]
    assert summary["greedy"]["greedy_frac"] > summary["uniform"]["greedy_frac"]
    shown = table(summary, "title")
    assert next(iter(shown.columns[0].cells)) == "best_arm"
    assert len(shown.rows) == 6


def test_uniform_play_loses_the_mean_gap_every_round(dataset):
    means = dataset["mean_rewards"].to_numpy()
    expected = 20 * (means.max(1) - means.mean(1))
    final = dataset["regret"].sel(agent="uniform").isel(round=-1).to_numpy()
    assert abs((final - expected).mean()) < 5 * (final - expected).std() / np.sqrt(300)


def test_fewer_arms_may_exist():
    agent = TransformerAgent.create(KEY, TransformerConfig(width=8), 4, 10)
    dataset = evaluate({"rmft": agent}, WORLD, horizon=10, num_scenarios=50, key=KEY, num_arms=2)
    assert dataset["action"].max() == 1
    assert (dataset["mean_rewards"][:, 2:] == 0).all()
    with pytest.raises(ValueError, match="got num_arms=5, need 2 to 4"):
        evaluate({"rmft": agent}, WORLD, horizon=10, num_scenarios=50, key=KEY, num_arms=5)


def test_the_bootstrap_interval_of_a_mean_has_the_width_of_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(2500, 2)).astype(np.float32)
    low, high = mean_interval(values)
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2.0 / 50, rtol=0.08)
    np.testing.assert_allclose((low + high) / 2, values.mean(0), atol=0.01)


def test_columns_of_the_bootstrap_stay_paired():
    noise = np.random.default_rng(0).normal(size=(400, 1))
    low, high = mean_interval(np.concatenate([noise, noise + 1.0], axis=1))
    np.testing.assert_allclose(low[1] - low[0], 1.0, atol=1e-9)
    np.testing.assert_allclose(high[1] - high[0], 1.0, atol=1e-9)


@pytest.mark.slow
def test_the_bootstrap_interval_covers_at_its_nominal_rate():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(400):
        low, high = mean_interval(rng.exponential(size=200), num_resamples=400, seed=seed)
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / 400 <= 0.975
