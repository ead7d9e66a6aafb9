import jax
import numpy as np
import pytest

from rmft_jax.agents import UCB, BanditTransformer, make_agents, make_baselines
from rmft_jax.config import AdaptiveConfig, BanditConfig, TransformerConfig
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import evaluate, final_regret
from rmft_jax.regret import Regret

CONFIG = BanditConfig(num_arms=4)
WORLD = make_environment(CONFIG)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def dataset():
    return evaluate(make_baselines(CONFIG, 20), WORLD, horizon=20, num_scenarios=300, key=KEY)


def test_every_agent_meets_the_same_problems(dataset):
    assert dict(dataset.sizes) == {"agent": 8, "scenario": 300, "round": 20, "arm": 4}
    means = dataset["mean_rewards"].to_numpy()
    gaps = means.max(1, keepdims=True) - means
    per_round = np.take_along_axis(gaps[None], dataset["action"].to_numpy(), axis=2)
    np.testing.assert_allclose(np.cumsum(per_round, -1), dataset["regret"], atol=1e-4)


def test_the_result_of_an_agent_does_not_depend_on_its_company(dataset):
    alone = evaluate({"ucb1": UCB()}, WORLD, horizon=20, num_scenarios=300, key=KEY)
    np.testing.assert_array_equal(alone["regret"].sel(agent="ucb1"), dataset["regret"].sel(agent="ucb1"))
    final = final_regret(UCB(), WORLD, Regret.of(WORLD), KEY, 20, 300)
    np.testing.assert_allclose(final, dataset["regret"].sel(agent="ucb1").isel(round=-1), atol=1e-5)


def test_uniform_play_loses_the_mean_gap_every_round(dataset):
    means = dataset["mean_rewards"].to_numpy()
    expected = 20 * (means.max(1) - means.mean(1))
    final = dataset["regret"].sel(agent="uniform").isel(round=-1).to_numpy()
    assert abs((final - expected).mean()) < 5 * (final - expected).std() / np.sqrt(300)


def test_fewer_arms_may_exist():
    agent = BanditTransformer.create(KEY, TransformerConfig(width=8), 4, 10)
    dataset = evaluate({"rmft": agent}, WORLD, horizon=10, num_scenarios=50, key=KEY, num_arms=2)
    assert dataset["action"].max() == 1
    assert (dataset["mean_rewards"][:, 2:] == 0).all()
    with pytest.raises(ValueError, match="got num_arms=5, need 2 to 4"):
        evaluate({"rmft": agent}, WORLD, horizon=10, num_scenarios=50, key=KEY, num_arms=5)


def test_means_that_depend_on_the_agent_are_not_stated():
    world = make_environment(config := AdaptiveConfig(num_arms=3, feedback="full"))
    agents = make_agents(config, 4, ["hedge", "ftpl"])
    dataset = evaluate(agents, world, horizon=4, num_scenarios=20, key=KEY)
    assert np.isnan(dataset["mean_rewards"]).any()
    alone = evaluate({"hedge": agents["hedge"]}, world, horizon=4, num_scenarios=20, key=KEY)
    np.testing.assert_array_equal(alone["mean_rewards"], np.tile([0.0, 1.0, 1.0], (20, 1)))
