import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.problems import (
    Abrupt,
    Adaptive,
    Alternating,
    Besbes,
    Decision,
    Environment,
    Gradual,
    LinearTrend,
    RandomWalk,
    Sinusoidal,
    Stationary,
    get_environment,
)
from worlds import variation

NAMED = list(Environment.register)
CLASSES = Environment.register.classes()
N = 20_000


class Played(NamedTuple):
    """Uniform play of `N` scenarios, each array with leading axes `[N, T]`."""

    actions: np.ndarray
    mean_rewards: np.ndarray
    rewards: np.ndarray


def play(config: Environment, horizon: int, num_scenarios: int, arm_mask=None) -> Played:
    mask = jnp.ones(config.num_arms, bool) if arm_mask is None else arm_mask

    @jax.jit
    @jax.vmap
    def run(key):
        reset_key, action_key, reward_key = jax.random.split(key, 3)
        actions = jax.random.categorical(action_key, jnp.where(mask, 0.0, -jnp.inf), shape=(horizon,))

        def step(state, inputs):
            round, action, key = inputs
            decision = Decision(action, mask / mask.sum())
            state, outcome = config.step(key, state, decision, round)
            return state, (action, outcome.mean_rewards, outcome.rewards)

        inputs = (jnp.arange(horizon), actions, jax.random.split(reward_key, horizon))
        return jax.lax.scan(step, config.reset(reset_key, mask, jnp.ones(horizon, bool)), inputs)[1]

    return Played(*map(np.asarray, run(jax.random.split(jax.random.key(0), num_scenarios))))


def paths(config: Environment, horizon: int, num_scenarios: int = 1000) -> np.ndarray:
    """Expected rewards `[N, T, K]` of oblivious environments."""
    config.validate(horizon)
    mask = jnp.ones(config.num_arms, bool)

    def path(key):
        state = config.reset(key, mask, jnp.ones(horizon, bool))
        return jax.vmap(functools.partial(config.mean_rewards, state))(jnp.arange(horizon))

    return np.asarray(jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), num_scenarios)), np.float64)


def correlation(rows: np.ndarray) -> float:
    """Of the first two columns."""
    first, second = (rows[:, column] - rows[:, column].mean() for column in (0, 1))
    return float((first * second).mean() / (first.std() * second.std()))


def draw_means(config: Stationary, arm_mask=None) -> np.ndarray:
    mask = jnp.ones(config.num_arms, bool) if arm_mask is None else arm_mask
    keys = jax.random.split(jax.random.key(0), N)
    return np.asarray(jax.jit(jax.vmap(lambda key: config.reset(key, mask, jnp.ones(1, bool))))(keys))[:, 0]


def rewards_given(config: Environment, means: list[float]) -> np.ndarray:
    keys = jax.random.split(jax.random.key(1), N)
    return np.asarray(jax.jit(jax.vmap(lambda key: config.draw_rewards(key, jnp.asarray(means))))(keys))


@pytest.mark.parametrize("name", NAMED)
def test_the_stated_variation_budget_holds(name):
    config, horizon = get_environment(name), 60
    config.validate(horizon)
    means = np.asarray(play(config, horizon, 1000).mean_rewards, np.float64)
    assert np.isfinite(means).all()
    budget = config.variation_budget(horizon)
    assert variation(means).max() <= budget * (1 + 1e-5) + 1e-5
    low, high = config.mean_range
    assert means.min() >= low - 1e-6
    assert means.max() <= high + 1e-6


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("horizon", [1, 2])
def test_the_shortest_horizons_and_many_arms(family, horizon):
    fitting = {"abrupt": {"num_changes": horizon - 1}, "besbes": {"variation": 0.1}}.get(family, {})
    config = dataclasses.replace(CLASSES[family](num_arms=7), **fitting)
    config.validate(horizon)
    played = play(config, horizon, 50, jnp.arange(7) != 3)
    assert np.isfinite(played.rewards).all()
    assert variation(np.asarray(played.mean_rewards)).max() <= config.variation_budget(horizon) + 1e-5
    assert (played.mean_rewards[..., 3] == 0).all()


@pytest.mark.parametrize("family", [family for family in CLASSES if family != "adaptive"])
def test_a_scenario_does_not_depend_on_the_noise_law_or_the_feedback(family):
    config = CLASSES[family](num_arms=3)
    other = dataclasses.replace(config, noise="gaussian", feedback="full")
    np.testing.assert_array_equal(paths(config, 12, 5), paths(other, 12, 5))


def test_uniform_prior():
    means = draw_means(Stationary(num_arms=3))
    assert means.min() >= 0
    assert means.max() <= 1
    np.testing.assert_allclose(means.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / N))
    np.testing.assert_allclose(means.var(0), 1 / 12, rtol=0.03)
    assert abs(correlation(means)) < 5 / np.sqrt(N)


def test_gaussian_prior_takes_a_standard_deviation():
    means = draw_means(Stationary(num_arms=2, prior="gaussian", noise="gaussian", prior_mean=-1.0, prior_std=3.0))
    np.testing.assert_allclose(means.mean(0), -1.0, atol=5 * 3 / np.sqrt(N))
    np.testing.assert_allclose(means.std(0), 3.0, rtol=0.03)


def test_fixed_gap_prior_has_one_best_arm_uniformly_placed():
    means = draw_means(Stationary(num_arms=4, prior="fixed_gap", gap=0.5))
    np.testing.assert_allclose(np.sort(means, axis=1), np.tile([0.25, 0.25, 0.25, 0.75], (N, 1)))
    frequency = np.bincount(means.argmax(1), minlength=4) / N
    np.testing.assert_allclose(frequency, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / N))


@pytest.mark.parametrize("prior", ["uniform", "fixed_gap"])
def test_absent_arms_earn_nothing_and_are_never_best(prior):
    mask = jnp.asarray([True, False, True, False])
    means = draw_means(Stationary(num_arms=4, prior=prior), mask)
    assert (means[:, ~np.asarray(mask)] == 0).all()
    assert set(means.argmax(1)) == {0, 2}


@pytest.mark.parametrize("prior", ["uniform", "gaussian", "fixed_gap", "constant"])
def test_the_stated_moments_of_the_prior(prior):
    config = Stationary(num_arms=4, prior=prior, noise="gaussian", prior_mean=2.0, prior_std=3.0, gap=0.5)
    mean, std = config.prior_moments()
    means = draw_means(config)
    assert means.mean() == pytest.approx(mean, rel=0.05)
    assert means.std() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(
    ("noise", "std"),
    [
        ("none", [0, 0, 0]),
        ("bernoulli", [0.3, 0.5, 0]),
        ("gaussian", [0.4, 0.4, 0.4]),
        ("uniform", [0.4, 0.4, 0.4]),
        ("beta", [0.3 / 2, 0.5 / 2, 0]),
    ],
)
def test_rewards_have_their_mean_and_deviation_and_are_independent(noise, std):
    means = [0.1, 0.5, 1.0]
    law = Stationary(noise=noise, noise_std=0.4, noise_concentration=3.0)
    rewards = rewards_given(law, means).astype(np.float64)
    np.testing.assert_allclose(rewards.mean(0), means, atol=5 * 0.5 / np.sqrt(N))
    np.testing.assert_allclose(rewards.std(0), std, rtol=0.03, atol=1e-6)
    if noise != "none":
        assert abs(correlation(rewards[:, :2])) < 5 / np.sqrt(N)
    if noise == "bernoulli":
        assert set(np.unique(rewards)) == {0.0, 1.0}
    if noise == "beta":
        assert ((rewards >= 0) & (rewards <= 1)).all()
    if noise == "uniform":
        assert np.abs(rewards - means).max() <= 0.4 * math.sqrt(3) + 1e-6


def test_the_named_fol_environments_have_the_laws_of_their_names():
    uniform = play(get_environment("iid_uniform"), 20, 500).rewards
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    np.testing.assert_allclose(np.quantile(uniform, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.01)
    gaussian = play(get_environment("iid_gaussian"), 20, 2000)
    assert gaussian.mean_rewards[:, 0].std() == pytest.approx(0.7, rel=0.03)
    assert (gaussian.rewards - gaussian.mean_rewards).std() == pytest.approx(1.0, rel=0.03)


def test_sines_have_their_amplitude_and_period():
    config = Sinusoidal(num_arms=2, amplitude=0.4, period=20.0)
    means = paths(config, 400, 300) - 0.5
    peaks = np.abs(means).max(1)
    assert peaks.max() <= 0.4 + 1e-6
    assert peaks.min() >= 0.2 * 0.98
    crossings = (np.diff(np.sign(means), axis=1) != 0).sum(1)  # two per period of 20 to 40 rounds
    assert crossings.min() >= 2 * 400 / 40 - 1
    assert crossings.max() <= 2 * 400 / 20 + 1
    assert abs(correlation(means[:, 0])) < 0.3


def test_random_walks_step_and_stay_uniform():
    means = paths(RandomWalk(num_arms=3, walk_step=0.3), 200)
    assert np.abs(np.diff(means, axis=1)).max() <= 0.3 + 1e-6
    np.testing.assert_allclose(np.quantile(means[:, -1], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)


def test_gradual_drift_slows_down():
    means = paths(Gradual(num_arms=3, drift_scale=0.5), 100)
    steps = np.abs(np.diff(means, axis=1)).max((0, 2))
    bound = 0.5 / np.sqrt(np.arange(1, 100))
    assert (steps <= bound + 1e-6).all()
    assert (steps >= 0.9 * bound).all()


def test_linear_trends_are_straight():
    means = paths(LinearTrend(num_arms=3), 11)
    np.testing.assert_allclose(np.diff(means, n=2, axis=1), 0, atol=1e-6)
    assert means[:, 0].std() == pytest.approx(math.sqrt(1 / 12), rel=0.05)
    assert means[:, -1].std() == pytest.approx(math.sqrt(1 / 12), rel=0.05)


def test_abrupt_changes_are_as_many_as_stated_and_anywhere():
    means = paths(Abrupt(num_arms=3, num_changes=4), 12, 4000)
    changed = (np.diff(means, axis=1) != 0).all(-1)
    assert (changed.sum(1) == 4).all()
    np.testing.assert_allclose(changed.mean(0), 4 / 11, atol=5 * 0.5 / np.sqrt(4000))
    every_round = paths(Abrupt(num_changes=11), 12, 10)
    assert (np.diff(every_round, axis=1) != 0).all()
    never = paths(Abrupt(num_changes=0), 12, 10)
    assert (np.diff(never, axis=1) == 0).all()


def test_a_mirrored_change_mirrors():
    means = paths(Abrupt(num_arms=3, num_changes=3, change="mirrored"), 12, 100)
    for path in means:
        changes = 1 + np.flatnonzero((np.diff(path, axis=0) != 0).any(-1))
        assert len(changes) == 3
        np.testing.assert_allclose(path[changes], 1 - path[changes - 1], atol=1e-6)


@pytest.mark.parametrize("spending", ["even", "first_third"])
@pytest.mark.parametrize("budget", [0.2, 2.5, 9.9])
def test_besbes_states_exactly_what_it_spends(budget, spending):
    config = Besbes(variation=budget, spending=spending)
    assert config.variation_budget(100) == pytest.approx(variation(paths(config, 100, 1)).item(), abs=1e-4)
    assert config.variation_budget(10_000) <= budget + 0.064


def test_besbes_spends_its_budget():
    even = paths(Besbes(num_arms=6, variation=3.0), 600, 20)
    np.testing.assert_allclose(variation(even), 3.0, rtol=0.02)
    first = paths(Besbes(num_arms=2, variation=3.0, spending="first_third"), 600, 20)
    np.testing.assert_allclose(variation(first), 3.0, rtol=0.03)
    assert (np.diff(first[:, 200:], axis=1) == 0).all()
    np.testing.assert_allclose(even.sum(-1), 6 * 0.5, atol=1e-5)  # Half of the arms go up when the others go down.
    assert np.abs(even[:, 30] - 0.5).min() > 0.05
    assert len(np.unique(np.sign(even[:, 30] - 0.5), axis=0)) > 1


def test_the_alternating_sequence():
    means = paths(Alternating(num_arms=3), 6, 50)
    order = means[:, :2].sum(1).argsort(-1)[:, ::-1]  # round 1: 1/2 for the first; round 2: 1 for the second
    for path, (second, first, other) in zip(means, order, strict=True):
        np.testing.assert_array_equal(path[:, first], [0.5, 0, 1, 0, 1, 0])
        np.testing.assert_array_equal(path[:, second], [0, 1, 0, 1, 0, 1])
        np.testing.assert_array_equal(path[:, other], 0)
    assert set(order[:, 0]) == {0, 1, 2}


def test_the_centred_alternating_sequence_is_opposite():
    plain, centred = (paths(Alternating(num_arms=4, centred=centred), 6, 50) for centred in (False, True))
    for path, shifted in zip(plain, centred, strict=True):
        first, second = path[0].argmax(), path[1].argmax()
        np.testing.assert_array_equal(shifted[:, first], [0.25, -0.5, 0.5, -0.5, 0.5, -0.5])
        np.testing.assert_array_equal(shifted[:, second], -shifted[:, first])
        np.testing.assert_array_equal(np.delete(shifted, [first, second], 1), 0)


def test_centring_changes_nothing_among_two_arms_in_the_simplex():
    plain, centred = (paths(Alternating(centred=centred, num_arms=2), 30, 20) for centred in (False, True))
    policies = np.random.default_rng(0).dirichlet([1, 1], (20, 30))
    regrets = [table.sum(1).max(-1) - (policies * table).sum((1, 2)) for table in (plain, centred)]
    np.testing.assert_allclose(regrets[0], regrets[1], atol=1e-6)


def test_the_favourite_earns_nothing():
    world = Adaptive(num_arms=4)
    mask = jnp.asarray([True, True, False, True])
    state = world.reset(jax.random.key(0), mask, jnp.ones(5, bool))
    decision = Decision(jnp.asarray(0), jnp.asarray([0.2, 0.5, 0.0, 0.3]))
    _, outcome = world.step(jax.random.key(0), state, decision, jnp.asarray(0))
    np.testing.assert_array_equal(outcome.rewards, [1, 0, 0, 1])
    assert np.isnan(np.asarray(world.mean_rewards(state, jnp.asarray(0)))).all()


def test_crowded_arms_earn_less():
    played = play(Adaptive(num_arms=3, adversary="crowding"), 30, 20)
    for actions, means in zip(played.actions, played.mean_rewards, strict=True):
        for t in range(30):
            share = np.bincount(actions[:t], minlength=3) / max(t, 1)
            np.testing.assert_allclose(means[t], 1 - share, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Stationary(prior="gaussian"), r"got expected rewards in \[-inf, inf\] with noise='bernoulli'"),
        (Stationary(prior="constant", prior_mean=1.5, noise="beta"), r"got expected rewards in \[1.5, 1.5\]"),
        (Sinusoidal(amplitude=0.7), r"got expected rewards in \[-0.2, 1.2\]"),
        (Stationary(noise="gaussian", noise_std=-1.0), "got noise_std=-1.0"),
        (Stationary(noise="beta", noise_concentration=0.0), "got noise_concentration=0.0"),
        (Sinusoidal(period=1.0), "got period=1.0"),
        (RandomWalk(walk_step=2.0), "got walk_step=2.0"),
        (Gradual(drift_scale=-1.0), "got drift_scale=-1.0"),
        (Abrupt(num_changes=10), "got num_changes=10 with horizon=10, need fewer change points than rounds"),
        (Abrupt(num_changes=-1), "got num_changes=-1"),
        (Besbes(variation=3.1), r"got variation=3.1 with .* need a budget that can be spent, at most 3"),
        (Besbes(variation=2.0, spending="first_third"), "at most 1; try variation=1"),
        (Stationary(num_arms=1), "got num_arms=1"),
        (Adaptive(adversary="friend"), "need one of favourite, crowding, orthogonal, turning"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_work(config, message):
    with pytest.raises(ConfigError, match=message):
        config.validate(10)


@pytest.mark.parametrize("spending", ["even", "first_third"])
def test_besbes_can_spend_as_much_as_it_says(spending):
    share = 0.3 if spending == "even" else 0.1
    for horizon in range(1, 400):
        Besbes(variation=float(f"{share * horizon:g}"), spending=spending).validate(horizon)
        with pytest.raises(ConfigError, match="got variation="):
            Besbes(variation=share * horizon + 0.01, spending=spending).validate(horizon)
