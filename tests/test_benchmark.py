from typing import Any

import jax
import numpy as np
import pytest

from rmft_jax.agents import EXP3, UCB, EpsilonGreedy, Hedge, Rexp3, make_agents
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import evaluate, final_regret
from rmft_jax.problems import Abrupt, Problem, Stationary
from rmft_jax.running import benchmark
from rmft_jax.running.benchmark import bench_agents, tune_agents
from rmft_jax.statistics.bootstrap import paired_difference

KEY = jax.random.key(3)


@pytest.mark.slow
def test_full_information_side_by_side():
    config = Stationary(num_arms=3, feedback="full", prior="constant", prior_mean=0.5, noise="uniform", noise_std=0.2)
    dataset, constants = bench_agents(config, horizon=15, num_scenarios=60, seed=1)
    assert dataset.attrs["regret"] == "static"
    assert dataset.attrs["regret_form"] == "expected"
    assert dataset.attrs["reference"] == "hedge"
    assert constants == {name: {"rate": 1.0} for name in ("hedge", "hedge_anytime", "ftrl", "ftpl")}
    final = dataset["regret"].isel(round=-1)
    np.testing.assert_allclose(final.sel(agent="best_fixed_arm"), 0, atol=1e-5)
    assert (final.sel(agent="uniform") >= 0).all()
    # The bounds of Cesa-Bianchi and Lugosi (2006), for rewards in an interval of the stated width.
    low, high = config.reward_range
    bound = (high - low) * np.sqrt(15 * np.log(3) / 2)
    assert (final.sel(agent="hedge") <= bound + 1e-5).all()
    again, _ = bench_agents(
        config, horizon=15, num_scenarios=60, seed=1, agents=make_agents(Problem(config, 15), ["hedge"])
    )
    np.testing.assert_array_equal(again["regret"].sel(agent="hedge"), dataset["regret"].sel(agent="hedge"))
    other, _ = bench_agents(
        config, horizon=15, num_scenarios=60, seed=2, agents=make_agents(Problem(config, 15), ["hedge"])
    )
    assert (other["regret"].values != dataset["regret"].sel(agent=["hedge"]).values).any()


def test_tuning_finds_the_best_constant_of_its_grid():
    problem = Problem(Stationary(num_arms=3), 30)
    agents = make_agents(problem, ["ucb", "ucb1"])
    tuned = tune_agents(agents, problem, key=KEY, num_scenarios=100)
    assert tuned["ucb1"] == UCB()

    def mean_regret(constant: float) -> float:
        return float(np.mean(final_regret(UCB(constant=constant), problem, KEY, 100)))

    best = min(AGENTS["ucb"].grids["constant"], key=mean_regret)
    assert tuned["ucb"] == UCB(constant=best)
    assert best < 1.0, "the theory's constant explores too much at this horizon"


def test_tuning_has_scenarios_of_its_own(monkeypatch):
    keys = []

    def spy(agents, problem, *, key, **options):
        keys.append(jax.random.key_data(key).tolist())
        return agents if "num_scenarios" not in options else evaluate(agents, problem, key=key, **options)

    monkeypatch.setattr(benchmark, "tune_agents", spy)
    monkeypatch.setattr(benchmark, "evaluate", spy)
    config = Stationary(num_arms=2, feedback="full")
    bench_agents(config, horizon=3, num_scenarios=5, agents=make_agents(Problem(config, 3), ["uniform"]), tune=True)
    tuned, played = keys
    assert tuned != played


def test_tuning_leaves_the_scenarios_alone():
    config = Stationary(num_arms=2, feedback="full")
    agents = make_agents(Problem(config, 10), ["uniform", "hedge"])
    plain, _ = bench_agents(config, horizon=10, num_scenarios=30, agents=agents)
    tuned, constants = bench_agents(config, horizon=10, num_scenarios=30, agents=agents, tune=True)
    np.testing.assert_array_equal(plain["mean_rewards"], tuned["mean_rewards"])
    assert constants["hedge"]["rate"] in AGENTS["hedge"].grids["rate"]
    assert tuned.attrs["tuned"] == 1


def test_the_environment_is_checked_before_anything_compiles():
    with pytest.raises(ConfigError, match="got num_changes=3 with horizon=2"):
        bench_agents(Abrupt(), horizon=2, num_scenarios=10)


def test_rexp3_beats_exp3_where_the_budget_is_small():
    """Three changes in ten thousand rounds (Besbes, Gur, Zeevi 2014): restarts forget what is no longer true."""
    problem = Problem(Abrupt(num_arms=2, change="mirrored"), 10_000)
    agents = EXP3(), Rexp3(variation_budget=problem.environment.variation_budget(problem.horizon))
    exp3, rexp3 = (np.asarray(final_regret(agent, problem, KEY, 128)) for agent in agents)
    assert paired_difference(exp3, rexp3).low > 0


def test_tuning_knows_both_ends():
    """A probe: where one arm always wins, the leader is to be followed and nothing to be explored."""
    full = Stationary(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none")
    bandit = Stationary(num_arms=2, prior="fixed_gap", gap=1.0, noise="none")
    tuned: Any = tune_agents({"hedge": Hedge()}, Problem(full, 10), key=KEY, num_scenarios=20)
    assert tuned["hedge"].rate >= 16.0
    tuned = tune_agents({"epsilon_greedy": EpsilonGreedy()}, Problem(bandit, 10), key=KEY, num_scenarios=20)
    assert tuned["epsilon_greedy"] == EpsilonGreedy(min(AGENTS["epsilon_greedy"].grids["epsilon"]))
