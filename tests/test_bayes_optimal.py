import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BayesOptimal, BetaIndex, BetaThompson, bayes_optimal_regret
from rmft_jax.agents.bayes_optimal import _binomials
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.problems import Context, Problem, Stationary

SCENARIOS = 16_384


Counts = tuple[int, ...]


@functools.cache
def value(rounds: int, alpha: float, beta: float, counts: Counts) -> float:
    """Brute force: the best expected reward of the rounds that are left; counts are successes, failures, arm by arm."""
    return max(arm_values(rounds, alpha, beta, counts)) if rounds else 0.0


def arm_values(rounds: int, alpha: float, beta: float, counts: Counts) -> list[float]:
    found = []
    for i in range(0, len(counts), 2):
        p = (alpha + counts[i]) / (alpha + beta + counts[i] + counts[i + 1])
        won, lost = (
            value(rounds - 1, alpha, beta, tuple(count + (j == place) for j, count in enumerate(counts)))
            for place in (i, i + 1)
        )
        found.append(p * (1 + won) + (1 - p) * lost)
    return found


def histories(rounds: int, num_arms: int) -> list[Counts]:
    """Every count of successes and failures in fewer than so many rounds."""
    return [c for c in itertools.product(range(rounds), repeat=2 * num_arms) if sum(c) < rounds]


@pytest.mark.parametrize("horizon", range(1, 7))
@pytest.mark.parametrize(
    ("num_arms", "alpha", "beta", "best"), [(2, 1.0, 1.0, 2 / 3), (2, 2.0, 1.0, 4 / 5), (3, 1.0, 1.0, 3 / 4)]
)
def test_the_value_is_that_of_brute_force(horizon, num_arms, alpha, beta, best):
    # The best of K uniform means is K / (K + 1) on average; of two with density 2x it is 4/5.
    regret = bayes_optimal_regret(horizon, num_arms, alpha=alpha, beta=beta)
    expected = value(horizon, alpha, beta, (0,) * (2 * num_arms))
    assert regret == pytest.approx(horizon * best - expected, abs=1e-9)


@pytest.mark.parametrize(
    ("horizon", "num_arms", "regret"),
    [(10, 2, 0.64488), (50, 2, 1.33662), (10, 3, 1.09036), (20, 3, 1.53417), (30, 3, 1.84114)],
)
def test_regrets_are_those_that_were_computed_apart(horizon, num_arms, regret):
    assert bayes_optimal_regret(horizon, num_arms) == pytest.approx(regret, abs=1e-5)


@pytest.mark.parametrize(("horizon", "num_arms"), [(6, 2), (5, 3)])
def test_the_decisions_are_those_of_brute_force(horizon, num_arms):
    alpha, beta = 1.0, 2.0
    agent = BayesOptimal.create(horizon, num_arms, alpha=alpha, beta=beta)
    context = Context(jnp.asarray(0), jnp.asarray(horizon), jnp.ones(num_arms, bool), jnp.zeros(num_arms))

    @jax.jit
    @jax.vmap
    def policy(pulls, sums):
        return agent.act(jax.random.key(0), ArmStatistics(pulls, sums), context)[0].probabilities

    every = histories(horizon, num_arms)
    assert len(every) == len(agent.decisions)
    counts = np.asarray(every, float).reshape(-1, num_arms, 2)
    for history, probabilities in zip(every, np.asarray(policy(counts.sum(-1), counts[..., 0])), strict=True):
        values = np.asarray(arm_values(horizon - sum(history), alpha, beta, history))
        best = values > values.max() - 1e-12
        np.testing.assert_allclose(probabilities, best / best.sum(), rtol=1e-6)


@pytest.mark.parametrize("num_arms", [2, 3])
def test_every_state_has_its_own_place_in_the_table(num_arms):
    choose = _binomials(2 * num_arms, 7)
    sums = np.cumsum(histories(7, num_arms), axis=1)
    places = choose[np.arange(1, 2 * num_arms + 1), sums].sum(axis=1)
    assert sorted(places) == list(range(len(places)))


def regrets(agent, horizon: int, scenarios: int) -> np.ndarray:
    """Pseudo-regret per scenario, for uniform means and the same rewards whoever plays."""
    problem = Problem(Stationary(num_arms=2), horizon)
    play = jax.jit(lambda agent: play_scenarios(agent, problem, jax.random.key(0), scenarios))
    played = jax.tree.map(np.asarray, play(agent))
    means = played.mean_rewards
    return (means.max(-1) - np.take_along_axis(means, played.actions[..., None], -1)[..., 0]).sum(-1)


def test_simulated_regret_is_the_computed_one():
    regret = regrets(BayesOptimal.create(30), 30, SCENARIOS)
    assert regret.mean() == pytest.approx(bayes_optimal_regret(30), abs=4 * regret.std() / np.sqrt(SCENARIOS))


@pytest.mark.slow
def test_thompson_and_posterior_index_come_close():
    thompson, optimum = regrets(BetaThompson(), 100, 2048), bayes_optimal_regret(100)
    error = 4 * thompson.std() / np.sqrt(2048)
    assert optimum - error < thompson.mean() < 2 * optimum

    optimal = regrets(BayesOptimal.create(50), 50, SCENARIOS)
    ratios = {c: regrets(BetaIndex(constant=c), 50, SCENARIOS).mean() / optimal.mean() for c in (1.0, 1.5, 2.0)}
    assert 0.99 < min(ratios.values()) < 1.05


def test_what_it_cannot_play_is_refused():
    with pytest.raises(ConfigError, match=r"got horizon=101, need 1 to 100 .* try horizon=100"):
        BayesOptimal.create(101)
    with pytest.raises(ConfigError, match=r"got horizon=51, need 1 to 50 .* of 3 arms"):
        bayes_optimal_regret(51, 3)
    with pytest.raises(ConfigError, match=r"got num_arms=4, need 2 or 3 .* BetaGittins"):
        BayesOptimal.create(10, 4)
    with pytest.raises(ConfigError, match="need positive numbers"):
        bayes_optimal_regret(10, alpha=0.0)
    agent = BayesOptimal.create(5)
    with pytest.raises(ConfigError, match="got num_arms=3, need 2 "):
        agent.init(3, 5)
    with pytest.raises(ConfigError, match="got horizon=6, need the 5 rounds"):
        agent.init(2, 6)
