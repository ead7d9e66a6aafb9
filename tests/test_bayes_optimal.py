import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BayesOptimal, BetaIndex, BetaThompson, bayes_optimal_regret
from rmft_jax.agents.bayes_optimal import _position
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.problems import Context, Problem, Stationary

SCENARIOS = 16_384


@functools.cache
def value(rounds: int, alpha: float, beta: float, s1: int = 0, f1: int = 0, s2: int = 0, f2: int = 0) -> float:
    """Brute force: the best expected reward of the rounds that are left."""
    return max(arm_values(rounds, alpha, beta, s1, f1, s2, f2)) if rounds else 0.0


def arm_values(rounds, alpha, beta, s1, f1, s2, f2) -> list[float]:
    left = functools.partial(value, rounds - 1, alpha, beta)
    p1 = (alpha + s1) / (alpha + beta + s1 + f1)
    p2 = (alpha + s2) / (alpha + beta + s2 + f2)
    return [
        p1 * (1 + left(s1 + 1, f1, s2, f2)) + (1 - p1) * left(s1, f1 + 1, s2, f2),
        p2 * (1 + left(s1, f1, s2 + 1, f2)) + (1 - p2) * left(s1, f1, s2, f2 + 1),
    ]


def histories(rounds: int):
    """Every count of successes and failures in fewer than so many rounds."""
    return [c for c in itertools.product(range(rounds), repeat=4) if sum(c) < rounds]


@pytest.mark.parametrize("horizon", range(1, 7))
@pytest.mark.parametrize(("alpha", "beta", "best"), [(1.0, 1.0, 2 / 3), (2.0, 1.0, 4 / 5)])
def test_the_value_is_that_of_brute_force(horizon, alpha, beta, best):
    # The better of two uniform means is 2/3 on average; of two with density 2x it is 4/5.
    regret = bayes_optimal_regret(horizon, alpha, beta)
    assert regret == pytest.approx(horizon * best - value(horizon, alpha, beta), abs=1e-9)


def test_the_decisions_are_those_of_brute_force():
    horizon, alpha, beta = 6, 1.0, 2.0
    agent = BayesOptimal.create(horizon, alpha, beta)
    context = Context(jnp.asarray(0), jnp.asarray(horizon), jnp.ones(2, bool), jnp.zeros(2))

    @jax.jit
    def policy(pulls, sums):
        return agent.act(jax.random.key(0), ArmStatistics(pulls, sums), context)[0].probabilities

    for s1, f1, s2, f2 in histories(horizon):
        first, second = arm_values(horizon - s1 - f1 - s2 - f2, alpha, beta, s1, f1, s2, f2)
        expected = 0.5 if abs(first - second) < 1e-12 else float(first > second)
        probabilities = policy(jnp.asarray([s1 + f1, s2 + f2], float), jnp.asarray([s1, s2], float))
        assert probabilities.tolist() == [expected, 1 - expected]


def test_every_state_has_its_own_place_in_the_table():
    positions = [int(_position(*jnp.asarray(state))) for state in histories(7)]
    assert sorted(positions) == list(range(len(positions)))
    size = len(BayesOptimal.create(100).decisions)
    assert int(_position(*jnp.asarray([99, 0, 0, 0]))) == size - 1


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
    with pytest.raises(ConfigError, match="need positive numbers"):
        bayes_optimal_regret(10, alpha=0.0)
    agent = BayesOptimal.create(5)
    with pytest.raises(ConfigError, match="got num_arms=3, need 2 "):
        agent.init(3, 5)
    with pytest.raises(ConfigError, match="got horizon=6, need the 5 rounds"):
        agent.init(2, 6)
