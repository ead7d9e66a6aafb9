import functools
import math

import jax
import numpy as np
import pytest

from rmft_jax.agents import (
    EXP3,
    UCB,
    BetaThompson,
    DiscountedThompson,
    DiscountedUCB,
    FullInformationSingleLayer,
    GaussianThompson,
    Hedge,
    Rexp3,
    make_agents,
    make_ball_baselines,
    make_baselines,
    reference_agent,
)
from rmft_jax.agents.catalogue import AGENTS, with_constant
from rmft_jax.config import AbruptConfig, AdaptiveConfig, BanditConfig, ConfigError
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import final_regret, play_scenarios
from rmft_jax.plotting import STYLES
from rmft_jax.presets import ENVIRONMENTS
from rmft_jax.regret import Regret

KEY = jax.random.key(0)
STOCHASTIC = {
    "ucb1", "ucb", "kl_ucb", "moss", "posterior_index", "thompson", "greedy", "epsilon_greedy", "explore_then_commit",
    "exp3", "exp3_ix", "exp3_p", "tsallis_inf",
}  # fmt: skip
DRIFTING = {"rexp3", "sliding_window_ucb", "discounted_ucb", "discounted_thompson"}
FULL = {"hedge", "hedge_anytime", "ftrl", "ftpl", "follow_the_leader"}
REFERENCES = {"uniform", "best_fixed_arm", "best_arm"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_fitting_agent_plays_under_jit_and_vmap(name):
    """Traced and checked for shapes, agent by agent; a slow test runs them all."""
    config = ENVIRONMENTS[name].config
    agents = make_agents(config, 10)
    assert {"uniform"} < set(agents)
    for agent in agents.values():
        play = functools.partial(play_scenarios, horizon=10, num_scenarios=3)
        trajectory = jax.eval_shape(jax.jit(play), agent, make_environment(config), KEY)
        assert trajectory.probabilities.shape == (3, 10, config.num_arms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_fitting_agent_really_plays(name):
    config = ENVIRONMENTS[name].config
    world = make_environment(config)
    for agent_name, agent in make_agents(config, 12).items():
        regret = np.asarray(final_regret(agent, world, Regret.of(world), KEY, 12, 50))
        assert np.isfinite(regret).all(), agent_name
        assert regret.std() > 0 or agent_name in (*REFERENCES, "hedge", "hedge_anytime", "ftrl"), agent_name


def test_which_agents_fit():
    assert set(make_agents(BanditConfig(), 50)) == STOCHASTIC | REFERENCES
    assert set(make_agents(BanditConfig(num_arms=2), 50)) == STOCHASTIC | REFERENCES | {"bayes_optimal"}
    assert "bayes_optimal" not in make_agents(BanditConfig(num_arms=2), 101)
    assert "bayes_optimal" not in make_agents(BanditConfig(num_arms=2, prior="fixed_gap"), 50)
    assert set(make_agents(AbruptConfig(), 50)) == STOCHASTIC | DRIFTING | REFERENCES
    assert set(make_agents(AbruptConfig(num_changes=0), 50)) == STOCHASTIC | REFERENCES
    gaussian = set(make_agents(AbruptConfig(noise="gaussian"), 50))
    assert gaussian == (STOCHASTIC | DRIFTING | REFERENCES) - {"kl_ucb", "discounted_thompson"}
    assert set(make_agents(BanditConfig(feedback="full"), 50)) == FULL | REFERENCES
    assert set(make_agents(AdaptiveConfig(feedback="full"), 50)) == FULL | {"uniform"}
    assert set(make_agents(AdaptiveConfig(adversary="orthogonal", feedback="full"), 50)) == FULL | {"uniform"}
    crowding = make_agents(AdaptiveConfig(adversary="crowding"), 50)
    assert set(crowding) == STOCHASTIC | DRIFTING | {"uniform", "best_arm"}
    assert set(AGENTS) == STOCHASTIC | DRIFTING | FULL | REFERENCES | {"bayes_optimal"}


def test_every_agent_has_a_style_and_every_grid_holds_what_it_tunes():
    assert set(AGENTS) <= set(STYLES)
    for config in (BanditConfig(), AbruptConfig(), BanditConfig(feedback="full")):
        for name, agent in make_agents(config, 50).items():
            entry = AGENTS[name]
            assert (entry.constant is None) == (entry.grid == ())
            if entry.constant is not None:
                tried = [getattr(with_constant(agent, name, value), entry.constant) for value in entry.grid]
                assert tuple(tried) == entry.grid
                assert min(entry.grid) <= getattr(agent, entry.constant) <= max(entry.grid)


def test_parameters_fit_the_environment():
    bernoulli = make_agents(BanditConfig(), 50)
    assert isinstance(bernoulli["thompson"], BetaThompson)
    assert bernoulli["ucb1"] == UCB()
    assert bernoulli["exp3"] == EXP3()
    gaussian = BanditConfig(prior="gaussian", noise="gaussian", prior_mean=2.0, prior_std=3.0, noise_std=0.5)
    fitted = make_agents(gaussian, 50)
    assert fitted["thompson"] == GaussianThompson(2.0, 3.0, 0.5)
    assert fitted["ucb1"] == UCB(scale=1.0)
    assert fitted["exp3"] == EXP3(1.0, -5.0, 9.0)
    fixed = make_agents(BanditConfig(prior="constant", prior_mean=0.5, noise="none"), 50)["thompson"]
    assert isinstance(fixed, BetaThompson)
    drifting = make_agents(AbruptConfig(num_changes=7), 50)
    assert drifting["rexp3"] == Rexp3(variation_budget=7.0)
    assert drifting["discounted_ucb"] == DiscountedUCB(num_changes=7.0)
    assert drifting["discounted_thompson"] == DiscountedThompson(discount=1 - math.sqrt(7 / 50) / 4)
    noisy = make_agents(AbruptConfig(num_changes=7, noise="gaussian", noise_std=1.0), 50)["rexp3"]
    assert noisy == Rexp3(1.0, -2.0, 3.0, variation_budget=7 / 5), "in units of the reward range"
    full = make_agents(BanditConfig(feedback="full", prior="gaussian", noise="gaussian", prior_std=0.5), 50)
    assert full["hedge"] == Hedge(width=6.0)


@pytest.mark.parametrize(
    ("config", "expected", "reference"),
    [
        (BanditConfig(num_arms=2), {"bayes_optimal", "thompson", "posterior_index", "best_arm"}, "thompson"),
        (AbruptConfig(), {"rexp3", "ucb1", "sliding_window_ucb", "best_fixed_arm"}, "rexp3"),
        (BanditConfig(feedback="full"), {"hedge", "ftrl", "follow_the_leader", "best_fixed_arm"}, "hedge"),
        (AdaptiveConfig(), {"exp3", "tsallis_inf", "uniform"}, "exp3"),
        (AdaptiveConfig(feedback="full"), {"hedge", "uniform"}, "hedge"),
    ],
)
def test_baselines_of_each_setting(config, expected, reference):
    baselines = make_baselines(config, 50)
    assert expected <= set(baselines)
    assert reference_agent(config, 50) == reference
    assert reference in baselines


def test_the_reference_always_plays():
    for config in (AbruptConfig(num_changes=0), AbruptConfig()):
        for horizon in (5, 50):
            assert reference_agent(config, horizon) in make_baselines(config, horizon)
    assert reference_agent(AbruptConfig(num_changes=0), 50) == "ucb1"


def test_refusals():
    with pytest.raises(ConfigError, match=r"got agent 'ucb2', need one of ucb1, ucb.*; try 'uniform'"):
        make_agents(BanditConfig(), 50, ["ucb2"])
    with pytest.raises(ConfigError, match=r"got agent 'hedge' for Bandit under 'bandit' feedback .*; try ucb1"):
        make_agents(BanditConfig(), 50, ["hedge"])
    with pytest.raises(ConfigError, match="got agent 'bayes_optimal' for Bandit under 'bandit' feedback with K=5"):
        make_agents(BanditConfig(), 50, ["bayes_optimal"])
    with pytest.raises(ConfigError, match="got UCB under 'full' feedback, need 'bandit'"):
        play_scenarios(UCB(), make_environment(BanditConfig(feedback="full")), KEY, 5, 2)


def test_the_rivals_in_a_ball_have_the_step_of_their_bound():
    config = BanditConfig(num_arms=4, feedback="full")
    rivals = make_ball_baselines(config, 25, 3.0)
    assert set(rivals) == {"ftrl", "follow_the_leader"}
    steps = {name: agent.value for name, agent in rivals.items() if isinstance(agent, FullInformationSingleLayer)}
    np.testing.assert_allclose(steps["ftrl"], 3.0 / (2.0 * 5.0) * np.eye(4), rtol=1e-6)
    assert steps["follow_the_leader"][0, 0] > 1e5
