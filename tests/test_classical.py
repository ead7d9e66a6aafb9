import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import TableWorld

from rmft_jax.agents import (
    UCB1,
    BestArm,
    BetaThompson,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    Uniform,
    make_baselines,
)
from rmft_jax.config import BanditConfig
from rmft_jax.rollout import NoiseStream, RolloutKeys, rollout, rollout_scenarios

HORIZON, ARMS = 60, 4
MEANS = np.asarray([0.3, 0.6, 0.55, 0.1], np.float32)
RNG = np.random.default_rng(7)
BERNOULLI = (RNG.random((HORIZON, ARMS)) < MEANS).astype(np.float32)
GAUSSIAN = (MEANS + 0.5 * RNG.standard_normal((HORIZON, ARMS))).astype(np.float32)


class Twin:
    """A slow, plain loop. `index` gets the round, the arm's pulls, its rewards so far, and that arm's random draw."""

    def __init__(self, index: Callable[..., Any], draws: Callable[..., Any] = lambda *_: np.zeros(ARMS)):
        self.index, self.draws = index, draws

    def play(self, key, table: np.ndarray) -> list[int]:
        history: list[list[float]] = [[] for _ in range(ARMS)]
        actions = []
        for t in range(HORIZON):
            index_key, tie_key = jax.random.split(jax.random.fold_in(key, t))
            draws = self.draws(index_key, [len(h) for h in history], [sum(h) for h in history])
            scores = [np.float32(self.index(t, history[a], draws[a], a)) for a in range(ARMS)]
            ties = np.asarray(jax.random.uniform(tie_key, (ARMS,)))
            action = max(range(ARMS), key=lambda a: (scores[a], ties[a]))
            history[action].append(float(table[t, action]))
            actions.append(action)
        return actions


def mean(rewards: list[float]) -> float:
    return sum(rewards) / len(rewards)


def greedy(t, rewards, draw, arm) -> float:
    return mean(rewards) if rewards else math.inf


def ucb1(t, rewards, draw, arm) -> float:
    return mean(rewards) + math.sqrt(2 * math.log(t) / len(rewards)) if rewards else math.inf


def beta_draws(key, pulls, sums):
    return np.asarray(jax.random.beta(key, 1.0 + jnp.asarray(sums), 1.0 + jnp.asarray(pulls) - jnp.asarray(sums)))


def gaussian_draws(key, pulls, sums):
    normal, draws = np.asarray(jax.random.normal(key, (ARMS,))), []
    for a in range(ARMS):
        precision = 1 / 0.8**2 + pulls[a] / 0.5**2
        draws.append((0.4 / 0.8**2 + sums[a] / 0.5**2) / precision + normal[a] / math.sqrt(precision))
    return draws


def coin(key, pulls, sums):
    return [bool(jax.random.bernoulli(key, 0.1))] * ARMS


CASES = {
    "ucb1": (UCB1(), Twin(ucb1), BERNOULLI),
    "greedy": (Greedy(), Twin(greedy), BERNOULLI),
    "epsilon_greedy": (
        EpsilonGreedy(),
        Twin(lambda t, rewards, explore, arm: 0.0 if explore else greedy(t, rewards, explore, arm), coin),
        BERNOULLI,
    ),
    "beta_thompson": (BetaThompson(), Twin(lambda t, rewards, draw, arm: draw, beta_draws), BERNOULLI),
    "gaussian_thompson": (
        GaussianThompson(prior_mean=0.4, prior_std=0.8, noise_std=0.5),
        Twin(lambda t, rewards, draw, arm: draw, gaussian_draws),
        GAUSSIAN,
    ),
    "uniform": (Uniform(), Twin(lambda *_: 0.0), BERNOULLI),
    "best_arm": (BestArm(), Twin(lambda t, rewards, draw, arm: MEANS[arm]), BERNOULLI),
}


@pytest.mark.parametrize("name", CASES)
def test_plays_the_same_arms_as_its_slow_twin(name):
    agent, twin, table = CASES[name]
    key, mask = jax.random.key(3), jnp.ones(ARMS, bool)
    world = TableWorld(jnp.asarray(MEANS), jnp.asarray(table))
    stream = NoiseStream(key, key, jnp.asarray(0))
    played = jax.jit(lambda: rollout(agent, world, world.reset(key, mask, HORIZON), stream, stream, mask, HORIZON))()
    assert played.actions.tolist() == twin.play(key, table)


def average_pulls(agent, means: list[float], mask: list[bool] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean pulls per arm over many runs against fixed Bernoulli means, and their standard errors."""
    runs, horizon = 4000, 12
    rng = np.random.default_rng(0)
    tables = jnp.asarray((rng.random((runs, horizon, len(means))) < np.asarray(means)).astype(np.float32))
    arm_mask = jnp.ones(len(means), bool) if mask is None else jnp.asarray(mask)

    def play(table, key):
        world = TableWorld(jnp.asarray(means), table)
        stream = NoiseStream(key, key, jnp.asarray(0))
        actions = rollout(agent, world, world.reset(key, arm_mask, horizon), stream, stream, arm_mask, horizon).actions
        return jax.nn.one_hot(actions, len(means)).sum(0)

    pulls = np.asarray(jax.jit(jax.vmap(play))(tables, jax.random.split(jax.random.key(1), runs)))
    return pulls.mean(0), pulls.std(0) / np.sqrt(runs)


@pytest.mark.parametrize("name", CASES)
def test_renaming_the_arms_changes_nothing_but_names(name):
    agent = CASES[name][0]
    order = [2, 0, 1]
    means = [0.8, 0.5, 0.2]
    pulls, error = average_pulls(agent, means)
    renamed, renamed_error = average_pulls(agent, [means[a] for a in order])
    assert (np.abs(renamed - pulls[order]) <= 5 * np.hypot(error[order], renamed_error) + 1e-6).all()


@pytest.mark.parametrize("name", CASES)
def test_absent_arms_are_never_played(name):
    pulls, _ = average_pulls(CASES[name][0], [0.5, 0.0, 0.2, 0.0], [True, False, True, False])
    assert pulls[1] == pulls[3] == 0
    assert pulls.sum() == pytest.approx(12)


@pytest.mark.parametrize("name", CASES)
def test_actions_follow_the_reported_probabilities(name):
    agent = CASES[name][0]
    world = TableWorld(jnp.asarray(MEANS), jnp.asarray(BERNOULLI))
    played = jax.jit(
        lambda: rollout_scenarios(agent, world, RolloutKeys.create(jax.random.key(0)), horizon=8, num_scenarios=2000)
    )()
    probabilities = np.asarray(played.probabilities)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    actions = np.eye(ARMS)[np.asarray(played.actions)]
    assert (probabilities[actions == 1] > 0).all()
    residual = (actions - probabilities).mean(axis=(0, 1))
    error = np.sqrt((probabilities * (1 - probabilities)).sum(axis=(0, 1))) / len(actions)
    assert (np.abs(residual) <= 5 * error + 1e-6).all()


def test_gaussian_thompson_without_noise_plays_the_best_arm_it_has_seen():
    agent = GaussianThompson(prior_mean=0.0, prior_std=10.0, noise_std=0.0)
    table = jnp.tile(jnp.asarray([[0.3, 0.9]]), (200, 1))
    world, key, mask = TableWorld(table[0], table), jax.random.key(0), jnp.ones(2, bool)
    stream = NoiseStream(key, key, jnp.asarray(0))
    actions = rollout(agent, world, table[0], stream, stream, mask, 200).actions
    assert (actions[-50:] == 1).all()


def test_baselines_fit_the_noise():
    assert isinstance(make_baselines(BanditConfig())["thompson"], BetaThompson)
    gaussian = BanditConfig(prior="gaussian", noise="gaussian", prior_mean=2.0, prior_std=3.0, noise_std=0.5)
    assert make_baselines(gaussian)["thompson"] == GaussianThompson(2.0, 3.0, 0.5)
    assert make_baselines(gaussian)["ucb1"] == UCB1(scale=1.0)


@pytest.mark.parametrize("prior", ["uniform", "gaussian", "fixed_gap"])
def test_thompson_is_told_the_moments_of_the_prior(prior):
    from rmft_jax.environments import StationaryBandit

    config = BanditConfig(num_arms=4, prior=prior, noise="gaussian", prior_mean=2.0, prior_std=3.0, gap=0.5)
    agent = make_baselines(config)["thompson"]
    keys = jax.random.split(jax.random.key(0), 20_000)
    means = np.asarray(jax.vmap(lambda key: StationaryBandit(config).reset(key, jnp.ones(4, bool), 1))(keys))
    assert isinstance(agent, GaussianThompson)
    assert means.mean() == pytest.approx(agent.prior_mean, rel=0.05)
    assert means.std() == pytest.approx(agent.prior_std, rel=0.03)
