import inspect
from typing import Any, cast

import jax
import numpy as np
import pytest

from rmft_jax.agents import UCB, BanditTransformer, Hedge, Transformer, Uniform, make_agents, make_baselines
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import evaluate, final_regret
from rmft_jax.problems import Abrupt, Adaptive, Problem, Stationary

PROBLEM = Problem(Stationary(num_arms=4), 20)
KEY = jax.random.key(5)
# Agents that compile quickly.
QUICK = ("ucb1", "greedy", "uniform", "best_fixed_arm", "best_arm")


@pytest.fixture(scope="module")
def dataset():
    return evaluate(make_baselines(PROBLEM, QUICK), PROBLEM, num_scenarios=300, key=KEY)


@pytest.mark.accelerator
def test_every_agent_meets_the_same_problems(dataset):
    assert dict(dataset.sizes) == {"agent": 5, "scenario": 300, "round": 20, "arm": 4}
    means = dataset["mean_rewards"].to_numpy()
    gaps = means.max(1, keepdims=True) - means
    per_round = np.take_along_axis(gaps[None], dataset["action"].to_numpy(), axis=2)
    np.testing.assert_allclose(np.cumsum(per_round, -1), dataset["regret"], atol=1e-4)


def test_the_result_of_an_agent_does_not_depend_on_its_company(dataset):
    alone = evaluate({"ucb1": UCB()}, PROBLEM, num_scenarios=300, key=KEY)
    np.testing.assert_array_equal(alone["regret"].sel(agent="ucb1"), dataset["regret"].sel(agent="ucb1"))
    final = final_regret(UCB(), PROBLEM, KEY, 300)
    np.testing.assert_allclose(final, dataset["regret"].sel(agent="ucb1").isel(round=-1), atol=1e-5)


@pytest.mark.accelerator
def test_uniform_play_loses_the_mean_gap_every_round(dataset):
    means = dataset["mean_rewards"].to_numpy()
    expected = 20 * (means.max(1) - means.mean(1))
    final = dataset["regret"].sel(agent="uniform").isel(round=-1).to_numpy()
    assert abs((final - expected).mean()) < 5 * (final - expected).std() / np.sqrt(300)


def test_fewer_arms_may_exist():
    world = Stationary(num_arms=4)
    agent = BanditTransformer.create(KEY, Transformer(width=8, num_layers=1), 4, 10)
    dataset = evaluate({"rmft": agent}, Problem.checked(world, 10, num_arms=2), num_scenarios=50, key=KEY)
    assert dataset["action"].max() == 1
    assert (dataset["mean_rewards"][:, 2:] == 0).all()
    assert dataset.attrs["num_arms"] == 2
    with pytest.raises(ConfigError, match="got num_arms=5, need 2 to 4"):
        Problem.checked(world, 10, num_arms=5)


def test_the_dataset_says_what_it_is_of(dataset):
    expected = {"num_arms": 4, "horizon": 20, "num_scenarios": 300, "feedback": "bandit", "reference": "thompson"}
    assert expected.items() <= dataset.attrs.items()
    assert (dataset.attrs["regret"], dataset.attrs["regret_form"]) == ("pseudo", "sampled")


def test_an_agent_that_cannot_play_is_refused_before_anything_compiles():
    agent = BanditTransformer.create(KEY, Transformer(width=8), 3, 10)
    with pytest.raises(ConfigError, match="got num_arms=4, need num_arms=3"):
        evaluate({"rmft": agent}, PROBLEM, num_scenarios=2, key=KEY)
    with pytest.raises(ConfigError, match="got Hedge under 'bandit' feedback, need 'full'"):
        evaluate({"hedge": Hedge()}, PROBLEM, num_scenarios=2, key=KEY)


def test_problems_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="got horizon=0, need a whole number of at least 1"):
        Problem.checked(Stationary(), 0)
    with pytest.raises(ConfigError, match=r"got noise_std=-1\.0"):
        Problem.checked(Stationary(noise="gaussian", noise_std=-1.0), 10)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Problem(Stationary(prior="gaussian"), 10), "with noise='bernoulli'"),
        (Problem(Stationary(prior="fixed_gap", gap=3.0), 10), "got gap=3"),
        (Problem(Stationary(noise="gaussian", noise_std=-1.0), 10), "got noise_std=-1"),
        (Problem(Stationary(num_arms=1), 10), "got num_arms=1"),
        (Problem(Stationary(prior=cast(Any, "foo")), 10), "foo"),
        (Problem(Abrupt(num_changes=7), 5), "num_changes"),
        (Problem(Stationary(), 0), "got horizon=0"),
        (Problem(Stationary(), cast(Any, 5.0)), "got horizon=5.0"),
        (Problem(cast(Any, "bernoulli"), 5), "got environment='bernoulli', need an environment"),
    ],
)
def test_problems_made_by_hand_are_looked_at_as_others_are(problem, message):
    for call in (
        lambda: evaluate({"uniform": Uniform()}, problem, num_scenarios=2, key=KEY),
        lambda: make_agents(problem, ["uniform"]),
        lambda: make_baselines(problem),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_scenarios": 0}, "got num_scenarios=0"),
        ({"num_scenarios": 2.5}, "got num_scenarios=2.5"),
        ({"key": 0}, r"got key=0, need one key; try jax.random.key\(0\)"),
        ({"key": jax.random.split(KEY, 2)}, "need one key"),
    ],
)
def test_arguments_that_cannot_work_are_refused(changes, message):
    options: Any = {"num_scenarios": 2, "key": KEY} | changes
    with pytest.raises(ConfigError, match=message):
        inspect.unwrap(evaluate)({"uniform": Uniform()}, PROBLEM, **options)  # Of which tests check the types.


def test_means_that_depend_on_the_agent_are_not_stated():
    problem = Problem(Adaptive(num_arms=3, feedback="full"), 4)
    agents = make_agents(problem, ["hedge", "ftpl"])
    dataset = evaluate(agents, problem, num_scenarios=20, key=KEY)
    assert np.isnan(dataset["mean_rewards"]).any()
    alone = evaluate({"hedge": agents["hedge"]}, problem, num_scenarios=20, key=KEY)
    np.testing.assert_array_equal(alone["mean_rewards"], np.tile([0.0, 1.0, 1.0], (20, 1)))


def test_nobody_who_plays_is_refused():
    with pytest.raises(ConfigError, match=r"got no agents, need one at least; try make_baselines\(problem\)"):
        evaluate({}, Problem(Stationary(), 5), num_scenarios=4, key=jax.random.key(0))
