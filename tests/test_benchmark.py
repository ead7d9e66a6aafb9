import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from rmft_jax import benchmark
from rmft_jax.agents import EXP3, UCB, EpsilonGreedy, Hedge, Rexp3, make_agents
from rmft_jax.agents.catalogue import AGENTS
from rmft_jax.benchmark import bench_agents, tune_agents
from rmft_jax.bootstrap import paired_difference
from rmft_jax.config import AbruptConfig, BanditConfig, ConfigError
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import evaluate, final_regret
from rmft_jax.regret import Regret

KEY = jax.random.key(3)


def test_full_information_side_by_side():
    config = BanditConfig(num_arms=3, feedback="full", prior="constant", prior_mean=0.5, noise="uniform", noise_std=0.2)
    dataset, constants = bench_agents(config, horizon=15, num_scenarios=60, seed=1)
    assert dataset.attrs["regret"] == "static"
    assert dataset.attrs["regret_form"] == "expected"
    assert dataset.attrs["reference"] == "hedge"
    assert constants == {"hedge": 1.0, "hedge_anytime": 1.0, "ftrl": 1.0, "ftpl": 1.0}
    final = dataset["regret"].isel(round=-1)
    np.testing.assert_allclose(final.sel(agent="best_fixed_arm"), 0, atol=1e-5)
    assert (final.sel(agent="uniform") >= 0).all()
    # The bounds of Cesa-Bianchi and Lugosi (2006), for rewards in an interval of the stated width.
    low, high = config.reward_range
    bound = (high - low) * np.sqrt(15 * np.log(3) / 2)
    assert (final.sel(agent="hedge") <= bound + 1e-5).all()
    again, _ = bench_agents(config, horizon=15, num_scenarios=60, seed=1, agents=make_agents(config, 15, ["hedge"]))
    np.testing.assert_array_equal(again["regret"].sel(agent="hedge"), dataset["regret"].sel(agent="hedge"))
    other, _ = bench_agents(config, horizon=15, num_scenarios=60, seed=2, agents=make_agents(config, 15, ["hedge"]))
    assert (other["regret"].values != dataset["regret"].sel(agent=["hedge"]).values).any()


def test_tuning_finds_the_best_constant_of_its_grid():
    config = BanditConfig(num_arms=3)
    world = make_environment(config)
    agents = make_agents(config, 30, ["ucb", "ucb1"])
    tuned = tune_agents(agents, world, horizon=30, key=KEY, num_scenarios=100)
    assert tuned["ucb1"] == UCB()

    def mean_regret(constant: float) -> float:
        return float(np.mean(final_regret(UCB(constant=constant), world, Regret.of(world), KEY, 30, 100)))

    best = min(AGENTS["ucb"].grid, key=mean_regret)
    assert tuned["ucb"] == UCB(constant=best)
    assert best < 1.0, "the theory's constant explores too much at this horizon"


def test_tuning_has_scenarios_of_its_own(monkeypatch):
    keys = []

    def spy(agents, environment, *, key, **options):
        keys.append(jax.random.key_data(key).tolist())
        return agents if "num_scenarios" not in options else evaluate(agents, environment, key=key, **options)

    monkeypatch.setattr(benchmark, "tune_agents", spy)
    monkeypatch.setattr(benchmark, "evaluate", spy)
    config = BanditConfig(num_arms=2, feedback="full")
    bench_agents(config, horizon=3, num_scenarios=5, agents=make_agents(config, 3, ["uniform"]), tune=True)
    tuned, played = keys
    assert tuned != played


def test_tuning_leaves_the_scenarios_alone():
    config = BanditConfig(num_arms=2, feedback="full")
    agents = make_agents(config, 10, ["uniform", "hedge"])
    plain, _ = bench_agents(config, horizon=10, num_scenarios=30, agents=agents)
    tuned, constants = bench_agents(config, horizon=10, num_scenarios=30, agents=agents, tune=True)
    np.testing.assert_array_equal(plain["mean_rewards"], tuned["mean_rewards"])
    assert constants["hedge"] in AGENTS["hedge"].grid
    assert tuned.attrs["tuned"] == 1


def test_the_environment_is_checked_before_anything_compiles():
    with pytest.raises(ConfigError, match="got num_changes=3 with horizon=2"):
        bench_agents(AbruptConfig(), horizon=2, num_scenarios=10)


def test_rexp3_beats_exp3_where_the_budget_is_small():
    """Three changes in ten thousand rounds (Besbes, Gur, Zeevi 2014): restarts forget what is no longer true."""
    config, horizon = AbruptConfig(num_arms=2, change="mirrored"), 10_000
    world = make_environment(config)
    agents = EXP3(), Rexp3(variation_budget=config.variation_budget(horizon))
    exp3, rexp3 = (np.asarray(final_regret(a, world, Regret.of(world), KEY, horizon, 128)) for a in agents)
    assert paired_difference(exp3, rexp3).low > 0


def test_tuning_knows_both_ends():
    """A probe: where one arm always wins, the leader is to be followed and nothing to be explored."""
    config = BanditConfig(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none")
    hedge, greedy = Hedge(), EpsilonGreedy()
    tuned: Any = tune_agents({"hedge": hedge}, make_environment(config), horizon=10, key=KEY, num_scenarios=20)
    assert tuned["hedge"].rate >= 16.0
    bandit = make_environment(dataclasses.replace(config, feedback="bandit"))
    tuned = tune_agents({"epsilon_greedy": greedy}, bandit, horizon=10, key=KEY, num_scenarios=20)
    assert tuned["epsilon_greedy"] == EpsilonGreedy(min(AGENTS["epsilon_greedy"].grid))
