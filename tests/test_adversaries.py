"""Adversaries that answer the point that is played."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.problems import Adaptive, Ball, Decision, Problem, Regret
from worlds import variation


def test_orthogonal_rewards_are_a_unit_at_a_right_angle_to_play():
    world = Adaptive(num_arms=4, adversary="orthogonal", feedback="full")
    rng = np.random.default_rng(0)
    masks = np.tile([[True] * 4, [True, False, True, True], [True, False, False, True]], (30, 1))
    points = rng.normal(size=(90, 4)) * rng.choice([1e-3, 1, 100], (90, 1)) * masks
    points[:6] = masks[:6] * [[0], [0], [0], [1], [1], [1]]  # The origin, and points that reach as far along any axis.
    points[6:9], points[9:12] = [0, 0, 0, 7], [0, 0, 0, -7]

    @jax.jit
    @jax.vmap
    def rewards(point, mask):
        state = world.reset(jax.random.key(0), mask, jnp.ones(5, bool))
        _, outcome = world.step(jax.random.key(0), state, Decision(jnp.asarray(0), point), jnp.asarray(0))
        return outcome.rewards, world.mean_rewards(state, jnp.asarray(0))

    given, known = map(np.asarray, rewards(jnp.asarray(points, jnp.float32), jnp.asarray(masks)))
    np.testing.assert_allclose(np.linalg.norm(given, axis=-1), 1, atol=1e-6)
    lengths = np.maximum(np.linalg.norm(points, axis=-1), 1)
    np.testing.assert_allclose((given * points).sum(-1) / lengths, 0, atol=1e-6)
    assert (given[~masks] == 0).all()
    assert np.isnan(known).all()


def test_an_orthogonal_adversary_keeps_its_variation_budget():
    config = Adaptive(num_arms=3, adversary="orthogonal")
    config.validate(12)
    low, high = config.mean_range
    with pytest.raises(ConfigError, match=r"got expected rewards in \[-1, 1\] with noise='bernoulli'"):
        dataclasses.replace(config, noise="bernoulli").validate(12)
    agent = FullInformationSingleLayer.ftrl(3, 1.0, Ball(0.0))
    means = np.asarray(against_orthogonal(agent, 12).mean_rewards, np.float64)[None]
    assert 0 < variation(means).item() <= config.variation_budget(12) + 1e-5 == pytest.approx(22, abs=1e-3)
    assert low <= means.min() < 0 < means.max() <= high + 1e-6


@functools.partial(jax.jit, static_argnums=1)
def against_orthogonal(agent, horizon):
    problem = Problem(Adaptive(num_arms=3, adversary="orthogonal", feedback="full"), horizon)
    played = play_scenarios(agent, problem, jax.random.key(0), 1)
    return jax.tree.map(lambda leaf: leaf[0], played)


@pytest.mark.parametrize("num_arms", [2, 3])
def test_a_turning_adversary_goes_outwards_and_then_in_a_circle_against_the_lag_of_play(num_arms):
    horizon, step = 60, 0.1
    world = Adaptive(num_arms=num_arms, adversary="turning", feedback="full")
    matrix = jnp.zeros((num_arms, num_arms)).at[0, 1].set(0.2).at[1, 0].set(-0.2) + jnp.eye(num_arms)
    agent = FullInformationSingleLayer.ftrl(num_arms, step, Ball(0.0)).with_value(step * matrix)
    played = jax.jit(lambda: play_scenarios(agent, Problem(world, horizon, radius=1.0), jax.random.key(2), 3))()
    rewards, points = np.asarray(played.reward_table, np.float64), np.asarray(played.probabilities, np.float64)
    sums = np.cumsum(rewards, axis=1)
    np.testing.assert_allclose(np.linalg.norm(rewards, axis=-1), 1, atol=1e-4)
    radius, first = np.linalg.norm(sums, axis=-1), rewards[:, :1]
    outward = np.linalg.norm(rewards - first, axis=-1) < 1e-4
    assert (outward == (np.arange(horizon) < outward.sum(1, keepdims=True))).all(), "first all of it, then none"
    for run, rounds in enumerate(outward.sum(1)):
        assert 9 <= rounds <= 12, "until play has reached the sphere"
        np.testing.assert_allclose(radius[run, rounds:], rounds, atol=1e-3)
    late = np.arange(horizon) > 12
    assert (np.sum(points * rewards, axis=-1)[:, late] < -0.03).all(), "play loses every round"
    assert not np.allclose(first[0], first[1], atol=0.01)
    low, high = world.mean_range
    assert low <= rewards.min() < rewards.max() <= high
    assert variation(np.asarray(played.mean_rewards, np.float64)).max() <= world.variation_budget(horizon)


def test_a_turning_adversary_knows_which_arms_exist():
    world = Adaptive(num_arms=4, adversary="turning", feedback="full")
    agent = FullInformationSingleLayer.ftrl(4, 0.3, Ball(0.0))
    problem = Problem.checked(world, 20, 3)
    played = play_scenarios(agent, dataclasses.replace(problem, radius=1.0), jax.random.key(0), 2)
    assert (np.asarray(played.reward_table)[..., 3] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(played.reward_table, axis=-1), 1, atol=1e-4)


@pytest.mark.parametrize("step", [0.02, 0.5])
def test_against_an_orthogonal_adversary_ftrl_in_the_ball_has_the_regret_of_the_lower_bound(step):
    horizon, radius = 100, 2.0
    played = against_orthogonal(FullInformationSingleLayer.ftrl(3, step, Ball(0.0, radius)), horizon)
    regret = Regret("ball", "expected", radius)(played)
    np.testing.assert_allclose(regret, radius * np.sqrt(np.arange(1, horizon + 1)), rtol=1e-3)
