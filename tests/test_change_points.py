import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BetaIndex, ChangePointIndex, make_agents
from rmft_jax.method.evaluation import final_regret, play_scenarios
from rmft_jax.problems import Abrupt, Context, Problem

KEY = jax.random.key(0)


def twin_index(actions, rewards, num_arms: int, horizon: int, changes: int, constant: float) -> np.ndarray:
    """Every set of change points, weighed by how well it foresaw the rewards."""
    means, squares, weights = [], [], []
    for points in itertools.combinations(range(1, horizon), changes):
        weight, wins, losses = 1.0, np.ones(num_arms), np.ones(num_arms)
        for round in range(len(actions) + 1):
            if round in points:
                wins, losses = np.ones(num_arms), np.ones(num_arms)
            if round < len(actions):
                arm, reward = actions[round], rewards[round]
                weight *= (wins[arm] if reward else losses[arm]) / (wins[arm] + losses[arm])
                wins[arm] += reward
                losses[arm] += 1 - reward
        mean = wins / (wins + losses)
        means.append(mean)
        squares.append(mean * (wins + 1) / (wins + losses + 1))
        weights.append(weight)
    mean = np.average(means, axis=0, weights=weights)
    return mean + constant * np.sqrt(np.average(squares, axis=0, weights=weights) - mean**2)


@pytest.mark.parametrize("changes", [0, 1, 3, 6])
def test_the_index_is_that_of_all_change_points(changes):
    """In a horizon of 7 rounds, in arrays for 9: what a padded program has."""
    rng, horizon = np.random.default_rng(changes), 7
    agent = ChangePointIndex(num_changes=changes, constant=1.3)
    actions, rewards = rng.integers(0, 3, horizon), rng.integers(0, 2, horizon)
    state = agent.init(3, 9)
    for round in range(horizon):
        context = Context(jnp.asarray(round), jnp.asarray(horizon), jnp.ones(3, bool), jnp.zeros(3))
        expected = twin_index(actions[:round], rewards[:round], 3, horizon, changes, 1.3)
        np.testing.assert_allclose(agent._index(KEY, state, context), expected, rtol=1e-5)
        state = agent.observe(state, jnp.asarray(actions[round]), jnp.asarray(float(rewards[round])), context)


def test_without_changes_it_is_the_index_of_the_posterior():
    problem = Problem(Abrupt(num_arms=3, num_changes=0), 20)
    filtered, plain = (
        play_scenarios(agent, problem, KEY, 64).actions for agent in (ChangePointIndex(num_changes=0), BetaIndex())
    )
    assert np.mean(np.asarray(filtered) != np.asarray(plain)) < 0.02  # But where rounding decides.


def test_who_knows_the_law_is_ahead_where_means_change():
    problem = Problem(Abrupt(num_arms=3, num_changes=3), 60)
    agents = make_agents(problem, ["change_point_index", "discounted_index", "discounted_thompson", "posterior_index"])
    means = {name: float(np.mean(final_regret(agent, problem, KEY, 2048))) for name, agent in agents.items()}
    assert sorted(means, key=means.__getitem__)[:2] == ["change_point_index", "discounted_index"], means
