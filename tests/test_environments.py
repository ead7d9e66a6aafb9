import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import Adversary

from rmft_jax.agents import Uniform
from rmft_jax.config import BanditConfig
from rmft_jax.environments import StationaryBandit
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.types import Decision

N = 20_000


def draw_means(config: BanditConfig, arm_mask=None) -> np.ndarray:
    world = StationaryBandit(config)
    mask = jnp.ones(config.num_arms, bool) if arm_mask is None else arm_mask
    keys = jax.random.split(jax.random.key(0), N)
    return np.asarray(jax.vmap(lambda key: world.reset(key, mask, 1))(keys))


def draw_rewards(config: BanditConfig, means: list[float]) -> np.ndarray:
    world, state = StationaryBandit(config), jnp.asarray(means)
    decision = Decision(jnp.asarray(0), jnp.full(len(means), 1 / len(means)))
    keys = jax.random.split(jax.random.key(1), N)
    return np.asarray(jax.vmap(lambda key: world.step(key, state, decision, jnp.asarray(0))[1].rewards)(keys))


def test_uniform_prior():
    means = draw_means(BanditConfig(num_arms=3))
    assert means.min() >= 0
    assert means.max() <= 1
    np.testing.assert_allclose(means.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / N))
    np.testing.assert_allclose(means.var(0), 1 / 12, rtol=0.03)
    assert abs(np.corrcoef(means.T)[0, 1]) < 5 / np.sqrt(N)


def test_gaussian_prior_takes_a_standard_deviation():
    means = draw_means(BanditConfig(num_arms=2, prior="gaussian", noise="gaussian", prior_mean=-1.0, prior_std=3.0))
    np.testing.assert_allclose(means.mean(0), -1.0, atol=5 * 3 / np.sqrt(N))
    np.testing.assert_allclose(means.std(0), 3.0, rtol=0.03)


def test_fixed_gap_prior_has_one_best_arm_uniformly_placed():
    means = draw_means(BanditConfig(num_arms=4, prior="fixed_gap", gap=0.5))
    np.testing.assert_allclose(np.sort(means, axis=1), np.tile([0.25, 0.25, 0.25, 0.75], (N, 1)))
    frequency = np.bincount(means.argmax(1), minlength=4) / N
    np.testing.assert_allclose(frequency, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / N))


@pytest.mark.parametrize("prior", ["uniform", "fixed_gap"])
def test_absent_arms_earn_nothing_and_are_never_best(prior):
    mask = jnp.asarray([True, False, True, False])
    means = draw_means(BanditConfig(num_arms=4, prior=prior), mask)
    assert (means[:, ~np.asarray(mask)] == 0).all()
    assert set(means.argmax(1)) == {0, 2}


def test_bernoulli_rewards_have_their_mean_and_are_independent_over_arms():
    rewards = draw_rewards(BanditConfig(num_arms=3), [0.1, 0.5, 1.0])
    assert set(np.unique(rewards)) == {0.0, 1.0}
    np.testing.assert_allclose(rewards.mean(0), [0.1, 0.5, 1.0], atol=5 * 0.5 / np.sqrt(N))
    assert abs(np.corrcoef(rewards[:, :2].T)[0, 1]) < 5 / np.sqrt(N)


def test_gaussian_rewards_take_a_standard_deviation():
    rewards = draw_rewards(BanditConfig(num_arms=2, noise="gaussian", noise_std=0.5), [0.0, 2.0])
    np.testing.assert_allclose(rewards.mean(0), [0.0, 2.0], atol=5 * 0.5 / np.sqrt(N))
    np.testing.assert_allclose(rewards.std(0), 0.5, rtol=0.03)


def test_an_environment_may_react_to_the_decision():
    play = jax.jit(
        lambda: rollout_scenarios(
            Uniform(), Adversary(jnp.zeros(3)), RolloutKeys.create(jax.random.key(0)), horizon=5, num_scenarios=4
        )
    )()
    worst = np.asarray(play.probabilities).argmax(-1)
    np.testing.assert_array_equal(np.asarray(play.reward_table).argmin(-1), worst)
