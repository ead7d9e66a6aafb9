import dataclasses
import functools
import math
from typing import Any

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
    make_baselines,
    reference_agent,
)
from rmft_jax.agents.catalogue import constants, tuning_grid, with_constants
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import final_regret, play_scenarios
from rmft_jax.plotting.style import style_of
from rmft_jax.problems import Abrupt, Adaptive, Environment, Problem, Stationary, get_environment

KEY = jax.random.key(0)
STOCHASTIC = {
    "ucb1", "ucb", "kl_ucb", "moss", "posterior_index", "thompson", "greedy", "epsilon_greedy", "explore_then_commit",
    "exp3", "exp3_ix", "exp3_p", "tsallis_inf",
}  # fmt: skip
DRIFTING = {
    "rexp3", "sliding_window_ucb", "discounted_ucb", "discounted_thompson", "discounted_index", "change_point_index",
}  # fmt: skip
FULL = {"hedge", "hedge_anytime", "ftrl", "ftpl", "follow_the_leader"}
REFERENCES = {"uniform", "best_fixed_arm", "best_arm"}
every_environment = pytest.mark.parametrize("name", Environment.register.names())


def agents_of(environment: Environment, horizon: int = 50, names: list[str] | None = None):
    return make_agents(Problem(environment, horizon), names)


@every_environment
def test_every_fitting_agent_plays_under_jit_and_vmap(name):
    """Traced and checked for shapes, agent by agent; a slow test runs them all."""
    problem = Problem(get_environment(name), 30)
    agents = make_agents(problem)
    assert {"uniform"} < set(agents)
    for agent in agents.values():
        play = functools.partial(play_scenarios, num_scenarios=3)
        trajectory = jax.eval_shape(jax.jit(play), agent, problem, KEY)
        assert trajectory.probabilities.shape == (3, 30, problem.num_arms)


@pytest.mark.slow
@every_environment
def test_every_fitting_agent_really_plays(name):
    problem = Problem(get_environment(name), 30)
    for agent_name, agent in make_agents(problem).items():
        regret = np.asarray(final_regret(agent, problem, KEY, 50))
        assert np.isfinite(regret).all(), agent_name
        assert regret.std() > 0 or agent_name in (*REFERENCES, "hedge", "hedge_anytime", "ftrl"), agent_name


def test_which_agents_fit():
    stationary = STOCHASTIC | REFERENCES | {"gittins"}
    assert set(agents_of(Stationary())) == stationary
    assert set(agents_of(Stationary(num_arms=2))) == stationary | {"bayes_optimal"}
    assert set(agents_of(Stationary(num_arms=3), 20)) == stationary | {"bayes_optimal"}
    assert "bayes_optimal" not in fitting(Stationary(num_arms=2), 101)
    assert "bayes_optimal" not in fitting(Stationary(num_arms=3), 51)
    assert "bayes_optimal" not in fitting(Stationary(num_arms=2, prior="fixed_gap"))
    assert "gittins" in fitting(Stationary(prior="gaussian", noise="gaussian"))
    for noise in ("none", "uniform", "beta"):
        assert "gittins" not in fitting(Stationary(noise=noise))
    assert set(agents_of(Abrupt())) == STOCHASTIC | DRIFTING | REFERENCES
    assert set(agents_of(Abrupt(num_changes=0))) == STOCHASTIC | REFERENCES
    assert "change_point_index" not in fitting(Abrupt(change="mirrored"))
    gaussian = set(agents_of(Abrupt(noise="gaussian")))
    unfit = {"kl_ucb", "discounted_thompson", "change_point_index"}
    assert gaussian == (STOCHASTIC | DRIFTING | REFERENCES) - unfit
    assert set(agents_of(Stationary(feedback="full"))) == FULL | REFERENCES
    assert set(agents_of(Adaptive(feedback="full"))) == FULL | {"uniform"}
    assert set(agents_of(Adaptive(adversary="orthogonal", feedback="full"))) == FULL | {"uniform"}
    crowding = agents_of(Adaptive(adversary="crowding"))
    assert set(crowding) == (STOCHASTIC | DRIFTING | {"uniform", "best_arm"}) - {"change_point_index"}
    assert set(AGENTS) == STOCHASTIC | DRIFTING | FULL | REFERENCES | {"bayes_optimal", "gittins"}


def fitting(environment: Environment, horizon: int = 50) -> set[str]:
    return {name for name, entry in AGENTS.items() if entry.fits(Problem(environment, horizon))}


@every_environment
def test_whether_an_agent_fits_is_known_without_making_it(name):
    environment = get_environment(name)
    assert fitting(environment, 30) == set(agents_of(environment, 30))


def test_every_agent_has_a_style_and_every_grid_holds_what_it_tunes():
    looks = [style_of(name)[1:] for name in AGENTS]
    assert len(set(looks)) == len(looks), "no two look alike, those that have no style of their own among them"
    for environment in (Stationary(), Abrupt(), Stationary(feedback="full")):
        for name, agent in agents_of(environment).items():
            own, grid = constants(agent, name), tuning_grid(agent, name)
            assert own in grid
            assert len(grid) == len({tuple(point.values()) for point in grid})
            assert all(constants(with_constants(agent, point), name) == point for point in grid[:: len(grid) // 5 + 1])
            for field, values in AGENTS[name].grids.items():
                assert min(values) <= own[field] <= max(values)


def test_two_constants_are_tuned_together():
    (agent,) = agents_of(Abrupt(), names=["discounted_index"]).values()
    grid, grids = tuning_grid(agent, "discounted_index"), AGENTS["discounted_index"].grids
    assert {*grids} == {"constant", "discount"}
    assert len(grid) == len(grids["constant"]) * (len(grids["discount"]) + 1)


def test_parameters_fit_the_environment():
    bernoulli = agents_of(Stationary())
    assert isinstance(bernoulli["thompson"], BetaThompson)
    assert bernoulli["ucb1"] == UCB()
    assert bernoulli["exp3"] == EXP3()
    gaussian = Stationary(prior="gaussian", noise="gaussian", prior_mean=2.0, prior_std=3.0, noise_std=0.5)
    fitted = agents_of(gaussian)
    assert fitted["thompson"] == GaussianThompson(2.0, 3.0, 0.5)
    assert fitted["ucb1"] == UCB(scale=1.0)
    assert fitted["exp3"] == EXP3(1.0, -5.0, 9.0)
    fixed = agents_of(Stationary(prior="constant", prior_mean=0.5, noise="none"))["thompson"]
    assert isinstance(fixed, BetaThompson)
    drifting = agents_of(Abrupt(num_changes=7))
    assert drifting["rexp3"] == Rexp3(variation_budget=7.0)
    assert drifting["discounted_ucb"] == DiscountedUCB(num_changes=7.0)
    assert drifting["discounted_thompson"] == DiscountedThompson(discount=1 - math.sqrt(7 / 50) / 4)
    noisy = agents_of(Abrupt(num_changes=7, noise="gaussian", noise_std=1.0))["rexp3"]
    assert noisy == Rexp3(1.0, -2.0, 3.0, variation_budget=7 / 5), "in units of the reward range"
    full = agents_of(Stationary(feedback="full", prior="gaussian", noise="gaussian", prior_std=0.5))
    assert full["hedge"] == Hedge(width=6.0)


@pytest.mark.parametrize(
    ("environment", "expected", "reference"),
    [
        (Stationary(num_arms=2), {"bayes_optimal", "gittins", "posterior_index", "best_arm"}, "thompson"),
        (Stationary(num_arms=5), {"gittins", "thompson", "posterior_index", "best_arm"}, "thompson"),
        (Abrupt(), {"rexp3", "change_point_index", "discounted_index", "best_fixed_arm"}, "rexp3"),
        (Stationary(feedback="full"), {"hedge", "ftrl", "follow_the_leader", "best_fixed_arm"}, "hedge"),
        (Adaptive(), {"exp3", "tsallis_inf", "uniform"}, "exp3"),
        (Adaptive(feedback="full"), {"hedge", "uniform"}, "hedge"),
    ],
)
def test_baselines_of_each_setting(environment, expected, reference):
    problem = Problem(environment, 50)
    baselines = make_baselines(problem)
    assert expected <= set(baselines)
    assert reference_agent(problem) == reference
    assert reference in baselines


def test_the_reference_always_plays():
    for environment in (Abrupt(num_changes=0), Abrupt()):
        for horizon in (5, 50):
            problem = Problem(environment, horizon)
            assert reference_agent(problem) in make_baselines(problem)
    assert reference_agent(Problem(Abrupt(num_changes=0), 50)) == "ucb1"


def test_refusals():
    with pytest.raises(ConfigError, match=r"got agent 'ucb2', need one of ucb1, ucb.*; try 'ucb'"):
        agents_of(Stationary(), names=["ucb2"])
    with pytest.raises(ConfigError, match=r"got agent 'hedge' for Stationary under 'bandit' feedback .*; try ucb1"):
        agents_of(Stationary(), names=["hedge"])
    with pytest.raises(ConfigError, match="got agent 'bayes_optimal' for Stationary under 'bandit' feedback with K=5"):
        agents_of(Stationary(), names=["bayes_optimal"])
    with pytest.raises(ConfigError, match="got UCB under 'full' feedback, need 'bandit'"):
        play_scenarios(UCB(), Problem(Stationary(feedback="full"), 5), KEY, 2)


def test_the_rivals_in_a_ball_have_the_step_of_their_bound():
    rivals = make_baselines(problem := Problem(Stationary(num_arms=4, feedback="full"), 25, radius=3.0))
    assert reference_agent(problem) in rivals
    assert set(rivals) == {"ftrl", "follow_the_leader"}
    steps = {name: agent.value for name, agent in rivals.items() if isinstance(agent, FullInformationSingleLayer)}
    np.testing.assert_allclose(steps["ftrl"], 3.0 / (2.0 * 5.0) * np.eye(4), rtol=1e-6)
    assert steps["follow_the_leader"][0, 0] > 1e5


def test_agents_know_how_many_arms_exist():
    """In arrays for more arms, as where a policy plays fewer than it was trained on."""
    three = Stationary(num_arms=3)
    two = Problem.checked(dataclasses.replace(three, num_arms=2), 12)
    masked = Problem.checked(three, 12, 2)
    assert masked.existing == two
    assert two.existing is two
    for make in (make_agents, make_baselines):
        assert make(two).keys() - make(masked).keys() == {"bayes_optimal"}, "it is solved for just its arms"
    assert "bayes_optimal" in make_baselines(Problem.checked(three, 12, 3))
    with pytest.raises(ConfigError, match=r"got agent 'bayes_optimal' for Stationary .* with K=2, T=12"):
        make_agents(masked, ["bayes_optimal"])
    gap = Stationary(num_arms=4, prior="fixed_gap", gap=0.3, noise="gaussian")
    own = make_agents(Problem.checked(dataclasses.replace(gap, num_arms=2), 12), ["thompson"])
    assert make_agents(Problem.checked(gap, 12, 2), ["thompson"]) == own, "prior moments depend on the number of arms"
    ball = Stationary(num_arms=4, feedback="full")
    wide = dataclasses.replace(Problem.checked(ball, 12, 2), radius=1.0)
    narrow = Problem(dataclasses.replace(ball, num_arms=2), 12, radius=1.0)
    jax.tree.map(np.testing.assert_array_equal, make_baselines(wide), make_baselines(narrow, size=4))


@pytest.mark.parametrize("kind", ["swap", "realized"])
def test_every_regret_has_agents_to_compare_with(kind):
    world: Any = type("World", (Stationary,), {"bandit_regret": kind})
    problem = Problem(world(), 20)
    assert reference_agent(problem) in make_baselines(problem)
