import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from rmft_jax.agents import BayesOptimal, BetaGittins, BetaIndex, GaussianGittins, bayes_optimal_regret, make_agents
from rmft_jax.agents import index_tables as tables
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import final_regret
from rmft_jax.problems import Context, Problem, Stationary

KEY = jax.random.key(0)
TOLERANCE = 2e-4


def twin_index(wins: int, losses: int, left: int, alpha: float = 1.0, beta: float = 1.0) -> float:
    """The price at which to stop at once and to pull an arm are worth the same, by bisection and recursion."""

    def worth(price: float) -> float:
        @functools.cache
        def value(won: int, lost: int) -> float:
            rounds = left - won - lost
            if rounds == 0:
                return 0.0
            p = (alpha + wins + won) / (alpha + beta + wins + losses + won + lost)
            pull = p - price + p * value(won + 1, lost) + (1 - p) * value(won, lost + 1)
            return pull if won + lost == 0 else max(0.0, pull)

        return value(0, 0)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(middle) > 0 else (low, middle)
    return low


def context(num_arms: int, horizon: int, played: Any) -> Context:
    return Context(jnp.asarray(played), jnp.asarray(horizon), jnp.ones(num_arms, bool), jnp.zeros(num_arms))


def index_of(agent, wins, pulls, horizon: int, played: int | None = None) -> np.ndarray:
    """The index of every arm after so many successes and pulls."""
    played = int(np.sum(pulls)) if played is None else played
    state = ArmStatistics(jnp.asarray(pulls, float), jnp.asarray(wins, float))
    return np.asarray(agent._index(KEY, state, context(len(pulls), horizon, played)))


@given(st.data())
def test_the_index_is_that_of_recursion(data):
    left = data.draw(st.integers(1, 12))
    pulls = data.draw(st.integers(0, 50 - left))
    wins = data.draw(st.integers(0, pulls))
    (index,) = index_of(BetaGittins.create(50), [wins], [pulls], horizon=pulls + left)
    assert index == pytest.approx(twin_index(wins, pulls - wins, left), abs=TOLERANCE)


def test_the_index_knows_the_prior():
    agent = BetaGittins.create(20, alpha=2.0, beta=0.5)
    for wins, losses, left in ((0, 0, 8), (3, 1, 6), (0, 4, 10)):
        (index,) = index_of(agent, [wins], [wins + losses], horizon=wins + losses + left)
        assert index == pytest.approx(twin_index(wins, losses, left, 2.0, 0.5), abs=TOLERANCE)


def test_it_plays_as_its_twin_does():
    """Every history of three arms and seven rounds in which the twin has a clear preference, and ties at the start."""
    horizon, agent, compared = 7, BetaGittins.create(7), 0
    index = functools.cache(twin_index)

    @jax.jit
    @jax.vmap
    def policy(pulls, wins):
        played = jnp.sum(pulls).astype(jnp.int32)
        return agent.act(KEY, ArmStatistics(pulls, wins), context(3, horizon, played))[0].probabilities

    histories = [c for c in itertools.product(range(horizon), repeat=6) if sum(c) < horizon]
    counts = np.asarray(histories, float).reshape(-1, 3, 2)
    played = np.asarray(policy(jnp.asarray(counts.sum(-1)), jnp.asarray(counts[..., 0])))
    for history, probabilities in zip(histories, played, strict=True):
        pairs = list(zip(history[::2], history[1::2], strict=True))
        own = np.asarray([index(wins, losses, horizon - sum(history)) for wins, losses in pairs])
        best = [pair == pairs[int(np.argmax(own))] for pair in pairs]
        if all(same or own.max() - value > TOLERANCE for same, value in zip(best, own, strict=True)):
            np.testing.assert_allclose(probabilities, np.asarray(best) / sum(best), rtol=1e-6)
            compared += 1
    assert compared > 0.95 * len(histories)


def test_the_first_index_grows_with_the_rounds_left():
    agent = BetaGittins.create(100)
    first = [float(index_of(agent, [0], [0], horizon=left)[0]) for left in range(1, 101)]
    assert first[0] == pytest.approx(0.5, abs=1e-6)
    assert first[1] == pytest.approx(5 / 9, abs=1e-6)  # 0 = 1/2 - x + 1/2 (2/3 - x).
    assert (np.diff(first) > 0).all()
    gaussian = GaussianGittins.create(100, 0.5, 2.0, 3.0)
    first = [float(index_of(gaussian, [0.0], [0], horizon=left)[0]) for left in range(1, 101)]
    assert first[0] == pytest.approx(0.5, abs=1e-5)
    assert (np.diff(first) > 0).all()


def test_a_table_is_the_beginning_of_a_longer_one():
    short, long = tables.bernoulli_bonus(50, 1.0, 1.0), tables.bernoulli_bonus(100, 1.0, 1.0)
    np.testing.assert_allclose(short, long[: len(short)], atol=TOLERANCE)
    short, long = tables.gaussian_bonus(50, 2.0), tables.gaussian_bonus(100, 2.0)
    np.testing.assert_allclose(short, long[: len(short)], atol=2e-3)


def two_pulls(variance_ratio: float) -> float:
    """The bonus of an arm with two pulls left, in prior deviations: `0 = -g + E max(0, -g + deviation N(0, 1))`."""
    deviation, low, high = (1 / (1 + variance_ratio)) ** 0.5, 0.0, 5.0
    for _ in range(60):
        g = (low + high) / 2
        gain = deviation * np.exp(-((g / deviation) ** 2) / 2) / np.sqrt(2 * np.pi) - g * scipy.special.ndtr(
            -g / deviation
        )
        low, high = (g, high) if gain > g else (low, g)
    return low


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 12.0])
def test_the_gaussian_index_of_two_pulls_is_the_closed_form(ratio):
    bonus = tables.gaussian_bonus(50, ratio)
    assert bonus[0] == pytest.approx(0.0, abs=1e-6)
    assert bonus[1] == pytest.approx(two_pulls(ratio), abs=1e-3)  # n = 0, m = 2.


def test_the_gaussian_index_is_that_of_numerical_integration():
    """Three pulls, the expectation by quadrature; without noise one pull shows everything."""
    ratio, grid = 1.0, np.linspace(-8, 8, 4001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi) * (grid[1] - grid[0])
    variance = ratio / (ratio + np.arange(4))

    def value(z, n, left):
        if left == 0:
            return np.zeros_like(z)
        moved = np.sqrt(variance[n] - variance[n + 1]) * grid
        after = np.stack([value(z + move, n + 1, left - 1) for move in moved[::40]]) if left > 1 else 0.0
        ahead = np.tensordot(density[::40] * 40, after, 1) if left > 1 else 0.0
        return np.maximum(0.0, z + ahead)

    fine = np.linspace(-1.0, 0.0, 401)
    index = -fine[np.argmax(value(fine, 0, 3) > 0)]
    assert tables.gaussian_bonus(50, ratio)[3] == pytest.approx(index, abs=6e-3)  # n = 0, m = 3.
    known = tables.gaussian_bonus(50, 0.0)
    assert known[(9 * 8) // 2 + 1 :][:7] == pytest.approx(np.zeros(7), abs=1e-3)  # n >= 1, n + m = 9.


def test_gaussian_arms_are_played_in_their_own_units():
    """Rewards that are moved and stretched are played alike."""
    plain, stretched = GaussianGittins.create(20), GaussianGittins.create(20, 3.0, 10.0, 10.0)
    pulls, sums = np.asarray([2.0, 1.0, 0.0]), np.asarray([1.0, -0.4, 0.0])
    own = index_of(plain, sums, pulls, 20)
    np.testing.assert_allclose(index_of(stretched, 10 * sums + 3 * pulls, pulls, 20), 3 + 10 * own, rtol=1e-5)


def regrets(agent, problem: Problem, scenarios: int) -> np.ndarray:
    return np.asarray(final_regret(agent, problem, KEY, scenarios))


def test_it_is_the_optimum_in_all_but_name():
    problem, scenarios = Problem(Stationary(num_arms=3), 20), 8192
    agents = make_agents(problem, ["gittins", "bayes_optimal"])
    index, optimal = (regrets(agents[name], problem, scenarios) for name in ("gittins", "bayes_optimal"))
    error = 4 * float(optimal.std()) / scenarios**0.5
    assert optimal.mean() == pytest.approx(bayes_optimal_regret(20, 3), abs=error)
    difference = index - optimal
    assert abs(difference.mean()) < 4 * difference.std() / scenarios**0.5 + 0.01


def test_it_beats_the_index_of_a_fixed_width_on_gaussian_arms():
    world = Stationary(num_arms=4, prior="gaussian", noise="gaussian", noise_std=2.0)
    problem = Problem(world, 30)
    agents = make_agents(problem, ["gittins", "posterior_index", "thompson"])
    means = {name: regrets(agent, problem, 4096).mean() for name, agent in agents.items()}
    assert min(means, key=means.__getitem__) == "gittins", means


def test_beyond_the_longest_table_it_counts_the_rounds_that_the_table_has(monkeypatch):
    monkeypatch.setattr(tables, "LONGEST", 50)
    monkeypatch.setattr(tables, "_SIZES", (50,))
    agent = BetaGittins.create(80)
    assert agent.rounds == 50
    wins, pulls = [0.0, 20.0, 70.0], [0.0, 40.0, 75.0]
    unplayed, played, often = index_of(agent, wins, pulls, 500, played=115)
    assert unplayed == pytest.approx(index_of(agent, [0.0], [0.0], 50)[0], abs=1e-6)
    assert played == pytest.approx(index_of(agent, [20.0], [40.0], 50)[0], abs=1e-6)
    assert often == pytest.approx(71 / 77, abs=1e-6)
    assert np.isfinite(regrets(agent, Problem(Stationary(num_arms=2), 80), 8)).all()


def test_long_tables_are_kept_and_a_damaged_one_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(tables.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(tables, "_KEPT_FROM", 10)
    made = tables.bernoulli_bonus.__wrapped__(12, 1.0, 1.0)
    (path,) = (tmp_path / "rmft_jax").iterdir()
    np.save(path, made + 1)
    np.testing.assert_array_equal(tables.bernoulli_bonus.__wrapped__(12, 1.0, 1.0), made + 1)
    for damaged in (path.read_bytes()[:-5], b"", b"no table"):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(tables.bernoulli_bonus.__wrapped__(12, 1.0, 1.0), made)
    tables.bernoulli_bonus.__wrapped__(12, 2.0, 1.0)
    assert len(list((tmp_path / "rmft_jax").iterdir())) == 2
    monkeypatch.setattr(tables.platformdirs, "user_cache_path", lambda name: path)  # A file is no folder.
    np.testing.assert_array_equal(tables.bernoulli_bonus.__wrapped__(12, 1.0, 1.0), made)


def test_what_is_no_prior_is_refused():
    with pytest.raises(ConfigError, match=r"got alpha=0.0, beta=1.0, need positive numbers"):
        BetaGittins.create(10, alpha=0.0)
    with pytest.raises(ConfigError, match=r"got horizon=0, need a whole number of at least 1"):
        BetaGittins.create(0)
    with pytest.raises(ConfigError, match=r"got prior_std=0.0, noise_std=1.0, need a positive"):
        GaussianGittins.create(10, prior_std=0.0)


@pytest.mark.slow
def test_regrets_are_those_that_were_computed_apart():
    """On 20,000 scenarios: K = 5 and T = 50, 3.60; T = 100, 4.7."""
    for horizon, expected, tolerance in ((50, 3.60, 0.05), (100, 4.7, 0.1)):
        problem = Problem(Stationary(num_arms=5), horizon)
        own, other = (regrets(agent, problem, 20_000) for agent in (BetaGittins.create(horizon), BetaIndex()))
        assert own.mean() == pytest.approx(expected, abs=tolerance)
        assert own.mean() < other.mean()


def test_the_exact_policy_has_no_better():
    """In every problem that can be solved, the index is not significantly below the optimum."""
    for num_arms, horizon in ((2, 10), (2, 40), (3, 12)):
        problem = Problem(Stationary(num_arms=num_arms), horizon)
        optimal = regrets(BayesOptimal.create(horizon, num_arms), problem, 8192)
        for agent in (BetaGittins.create(horizon), BetaIndex()):
            difference = regrets(agent, problem, 8192) - optimal
            assert difference.mean() > -3 * difference.std() / 8192**0.5
