"""What holds for every classical agent."""

import inspect

import jax
import numpy as np
import pytest

from playing import ARMS, BERNOULLI, HORIZON, MEANS, RUNS, bernoulli_tables, play
from rmft_jax import agents
from rmft_jax.agents import bayes_optimal_regret

AGENTS = {
    "ucb": agents.UCB(),
    "kl_ucb": agents.KLUCB(),
    "moss": agents.MOSS(),
    "greedy": agents.Greedy(),
    "epsilon_greedy": agents.EpsilonGreedy(),
    "explore_then_commit": agents.ExploreThenCommit(),
    "beta_thompson": agents.BetaThompson(),
    "beta_index": agents.BetaIndex(),
    "gaussian_thompson": agents.GaussianThompson(prior_mean=0.5, prior_std=0.3, noise_std=0.5),
    "gaussian_index": agents.GaussianIndex(prior_mean=0.5, prior_std=0.3, noise_std=0.5),
    "beta_gittins": agents.BetaGittins.create(50),
    "gaussian_gittins": agents.GaussianGittins.create(50, 0.5, 0.3, 0.5),
    "discounted_index": agents.DiscountedIndex(num_changes=2.0),
    "discounted_gaussian_index": agents.DiscountedGaussianIndex(prior_mean=0.5, prior_std=0.3, noise_std=0.5),
    "change_point_index": agents.ChangePointIndex(num_changes=2),
    "uniform": agents.Uniform(),
    "best_arm": agents.BestArm(),
    "exp3": agents.EXP3(),
    "exp3_ix": agents.EXP3IX(rate=3.0),
    "exp3_p": agents.EXP3P(),
    "tsallis_inf": agents.TsallisINF(),
    "rexp3": agents.Rexp3(),
    "sliding_window_ucb": agents.SlidingWindowUCB(),
    "discounted_ucb": agents.DiscountedUCB(),
    "discounted_thompson": agents.DiscountedThompson(),
    "hedge": agents.Hedge(),
    "hedge_anytime": agents.Hedge(anytime=True),
    "ftrl": agents.FTRL(),
    "ftpl": agents.FTPL(),
    "follow_the_leader": agents.FollowTheLeader(),
}
TWO = [False, True, False, True]
OTHER_KEYS = jax.random.split(jax.random.key(4), RUNS)
every_agent = pytest.mark.parametrize("name", AGENTS)


def pulls(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean pulls per arm, and their standard errors."""
    counts = np.eye(ARMS)[actions].sum(1)
    return counts.mean(0), counts.std(0) / np.sqrt(len(counts))


def test_every_classical_agent_is_checked():
    others = {
        "Agent",
        "TrainedAgent",
        "BanditSingleLayer",
        "FullInformationSingleLayer",
        "BanditTransformer",
        "FullInformationTransformer",
        "BayesOptimal",
        "BestFixedArm",
    }
    named = {name for name, made in vars(agents).items() if hasattr(made, "act") and not inspect.isabstract(made)}
    assert {type(agent).__name__ for agent in AGENTS.values()} == named - others


@every_agent
def test_actions_follow_the_reported_probabilities(name):
    played = play(AGENTS[name], BERNOULLI)
    np.testing.assert_allclose(played.probabilities.sum(-1), 1, atol=1e-6)
    actions = np.eye(ARMS)[played.actions]
    assert (played.probabilities[actions == 1] > 0).all()
    residual = (actions - played.probabilities).mean(axis=(0, 1))
    variance = played.probabilities * (1 - played.probabilities)
    error = np.sqrt(variance.sum(axis=(0, 1))) / (RUNS * HORIZON)
    assert (np.abs(residual) <= 5 * error + 1e-6).all()


@every_agent
def test_renaming_the_arms_changes_nothing_but_names(name):
    order = [2, 0, 3, 1]
    mean, error = pulls(play(AGENTS[name], BERNOULLI).actions)
    tables = bernoulli_tables(MEANS[order], seed=8)
    renamed, renamed_error = pulls(play(AGENTS[name], tables, means=MEANS[order], keys=OTHER_KEYS).actions)
    assert (np.abs(renamed - mean[order]) <= 5 * np.hypot(error[order], renamed_error) + 1e-6).all()


@every_agent
def test_absent_arms_do_not_exist(name):
    tables = BERNOULLI.copy()
    if not hasattr(AGENTS[name], "alpha"):  # A Beta posterior is of rewards in [0, 1].
        tables[::2] -= 3
    played = play(AGENTS[name], tables, TWO)
    assert (played.probabilities[..., [0, 2]] == 0).all()
    np.testing.assert_allclose(played.probabilities.sum(-1), 1, atol=1e-6)
    assert np.isin(played.actions, [1, 3]).all()
    alone = play(AGENTS[name], BERNOULLI, [False, False, True, False])
    assert (alone.probabilities == [0, 0, 1, 0]).all()


@every_agent
def test_constant_rewards_do_no_harm(name):
    rewards = [0.0, 1.0] if hasattr(AGENTS[name], "alpha") else [0.0, 1.0, -3.0, 7.0]
    tables = np.broadcast_to(np.resize(rewards, RUNS)[:, None, None], BERNOULLI.shape)
    played = play(AGENTS[name], tables)
    assert np.isfinite(played.probabilities).all()
    np.testing.assert_allclose(played.probabilities.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in AGENTS if AGENTS[name].feedback == ("bandit",)])
def test_no_bandit_agent_beats_the_bayes_optimal_one(name):
    means = np.random.default_rng(1).random((RUNS, ARMS)).astype(np.float32)
    played = play(AGENTS[name], bernoulli_tables(means, seed=9), TWO, means)
    regret = HORIZON * means[:, TWO].max(1) - np.take_along_axis(means, played.actions, 1).sum(1)
    assert regret.mean() + 4 * regret.std() / np.sqrt(RUNS) > bayes_optimal_regret(HORIZON)
