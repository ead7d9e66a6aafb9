import itertools

import numpy as np
import pytest

from rmft_jax.agents import bayes_optimal_regret, bayes_regret_bound
from rmft_jax.agents.bounds import _Arm, _most
from rmft_jax.config import ConfigError


@pytest.mark.parametrize(("horizon", "num_arms", "share"), [(10, 2, 0.75), (40, 2, 0.6), (10, 3, 0.75), (30, 3, 0.7)])
def test_the_bound_is_below_the_optimum_and_not_far(horizon, num_arms, share):
    optimum, bound = bayes_optimal_regret(horizon, num_arms), bayes_regret_bound(horizon, num_arms, num_scenarios=4000)
    assert share * optimum < bound.value - 4 * bound.sem
    assert bound.value - 3 * bound.sem < optimum
    assert bound.sem < 0.05 * optimum


def test_the_bound_knows_the_prior():
    optimum = bayes_optimal_regret(20, 3, alpha=2.0, beta=1.0)
    bound = bayes_regret_bound(20, 3, alpha=2.0, beta=1.0, num_scenarios=4000)
    assert 0.5 * optimum < bound.value < optimum


def test_it_is_the_same_for_the_same_seed():
    first, again, other = (bayes_regret_bound(10, 5, num_scenarios=600, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert abs(first.value - other.value) < 4 * (first.sem**2 + other.sem**2) ** 0.5


def test_the_best_numbers_of_pulls_are_those_of_trying_them_all():
    horizon, arm = 5, _Arm(5, 0.6, 1.0, 1.0)
    rewards = np.random.default_rng(0).random((7, 3, horizon)) < 0.5
    wins = np.cumsum(np.pad(rewards, ((0, 0), (0, 0), (1, 0))), axis=-1)

    def gain(won: np.ndarray, pulls: int) -> float:
        total = 0.0
        for n in range(pulls):
            mean, owed = (1 + won[n]) / (2 + n), arm.value[n + 1, won[n + 1]] - arm.expected[n, won[n]]
            total += mean - owed
        return total

    shares = [c for c in itertools.product(range(horizon + 1), repeat=3) if sum(c) == horizon]
    expected = [max(sum(gain(one[a], c[a]) for a in range(3)) for c in shares) for one in wins]
    np.testing.assert_allclose(_most(wins, arm), expected, rtol=1e-12)


def test_what_is_owed_is_nothing_on_average():
    """V before a pull expects V after it."""
    arm, (n, s) = _Arm(6, 0.7, 1.0, 1.0), np.mgrid[:6, :6]
    mean = np.minimum((1 + s) / (2 + n), 1)
    expected = mean * arm.value[1:, 1:] + (1 - mean) * arm.value[1:, :-1]
    reachable = s <= n
    np.testing.assert_allclose(arm.expected[:6, :6][reachable], expected[reachable], rtol=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="got horizon=0, need a whole number of at least 1"):
        bayes_regret_bound(0, 2)
    with pytest.raises(ConfigError, match="got num_arms=1, need a whole number of at least 2"):
        bayes_regret_bound(10, 1)
    with pytest.raises(ConfigError, match="got num_scenarios=1, need a whole number of at least 2"):
        bayes_regret_bound(10, 2, num_scenarios=1)
    with pytest.raises(ConfigError, match="need positive numbers"):
        bayes_regret_bound(10, 2, beta=float("inf"))
