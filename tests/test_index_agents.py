import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import rel_entr

from playing import ARMS, BERNOULLI, HORIZON, KEYS, MEANS, RUNS, Seen, play, play_tables, twin_actions
from rmft_jax.agents import (
    KLUCB,
    MOSS,
    UCB,
    BestArm,
    BetaIndex,
    BetaThompson,
    DiscountedThompson,
    DiscountedUCB,
    EpsilonGreedy,
    ExploreThenCommit,
    GaussianIndex,
    GaussianThompson,
    Greedy,
    SlidingWindowUCB,
    Uniform,
)
from rmft_jax.agents.beta_draws import log_odds
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.problems import Context

GAUSSIAN = (MEANS + 0.5 * np.random.default_rng(7).standard_normal((HORIZON, ARMS))).astype(np.float32)


def once_first(rule):
    return lambda seen: rule(seen) if seen.rewards else math.inf


def kl(p: float, q: float) -> float:
    return float(rel_entr(p, q) + rel_entr(1 - p, 1 - q))


def largest_mean(mean: float, budget: float) -> float:
    if mean == 1 or kl(mean, 1 - 1e-15) < budget:
        return 1.0
    return float(brentq(lambda q: kl(mean, q) - budget, mean, 1 - 1e-15, xtol=1e-12)) if budget > 0 else mean  # type: ignore[arg-type]


def moss(s: Seen) -> float:
    n = len(s.rewards)
    return s.mean + math.sqrt(max(0, math.log(HORIZON / (ARMS * n))) / n)


def explore_then_commit(s: Seen) -> float:
    goal = math.floor(min((HORIZON / ARMS) ** (2 / 3) * math.log(HORIZON) ** (1 / 3), HORIZON / ARMS))
    if s.t < goal * ARMS:
        return -len(s.rewards)
    return s.mean if s.t == goal * ARMS else len(s.rewards)


def beta_moments(s: Seen) -> tuple[float, float]:
    a, b = 2 + sum(s.rewards), 3 + len(s.rewards) - sum(s.rewards)
    return a / (a + b), math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))


def gaussian_moments(pulls: float, total: float) -> tuple[float, float]:
    precision = 1 / 0.8**2 + pulls / 0.5**2
    return (0.4 / 0.8**2 + total / 0.5**2) / precision, 1 / math.sqrt(precision)


def gaussian_index(s: Seen) -> float:
    mean, std = gaussian_moments(len(s.rewards), sum(s.rewards))
    return mean + 1.5 * std


def beta_draws(key, pulls, sums):
    return np.asarray(log_odds(key, 1.0 + jnp.asarray(sums), 1.0 + jnp.asarray(pulls) - jnp.asarray(sums), 1.0))


def gaussian_draws(key, pulls, sums):
    moments = [gaussian_moments(n, s) for n, s in zip(pulls, sums, strict=True)]
    return [m + z * s for (m, s), z in zip(moments, np.asarray(jax.random.normal(key, (ARMS,))), strict=True)]


def coin(key, pulls, sums):
    return [bool(jax.random.bernoulli(key, 0.1))] * ARMS


def windowed(window: int, bound: float, xi: float):
    def rule(s: Seen) -> float:
        recent = [r for t, r in zip(s.times, s.rewards, strict=True) if t >= s.t - window]
        if not recent:
            return math.inf
        bonus = bound * math.sqrt(xi * math.log(min(s.t, window)) / len(recent))
        return sum(recent) / len(recent) + bonus

    return rule


def discounted_ucb(discount: float, bound: float, xi: float):
    def rule(s: Seen) -> float:
        ages = np.asarray([s.t - 1 - t for t in s.times])
        count, total = (discount**ages).sum(), (discount**ages * s.rewards).sum()
        everything = (1 - discount**s.t) / (1 - discount)
        return total / count + 2 * bound * math.sqrt(xi * math.log(everything) / count)

    return rule


AUTO_WINDOW = math.floor(2 * math.sqrt(HORIZON * math.log(HORIZON) / 4))
AUTO_DISCOUNT = 1 - math.sqrt(4 / HORIZON) / 4
GREEDY = once_first(lambda s: s.mean)
UCB1 = once_first(lambda s: s.mean + math.sqrt(2 * math.log(s.t) / len(s.rewards)))
CASES = {
    "ucb1": (UCB(), UCB1, None, BERNOULLI),
    "ucb": (
        UCB(constant=0.3, scale=2.0),
        once_first(lambda s: s.mean + 0.6 * math.sqrt(math.log(s.t) / len(s.rewards))),
        None,
        GAUSSIAN,
    ),
    "kl_ucb": (
        KLUCB(c=3.0),
        once_first(
            lambda s: largest_mean(s.mean, (math.log(s.t + 1) + 3 * math.log(math.log(s.t + 1))) / len(s.rewards))
        ),
        None,
        BERNOULLI,
    ),
    "moss": (MOSS(), once_first(moss), None, BERNOULLI),
    "greedy": (Greedy(), GREEDY, None, BERNOULLI),
    "epsilon_greedy": (EpsilonGreedy(), lambda s: 0.0 if s.draw else GREEDY(s), coin, BERNOULLI),
    "explore_then_commit": (ExploreThenCommit(), explore_then_commit, None, BERNOULLI),
    "beta_thompson": (BetaThompson(), lambda s: s.draw, beta_draws, BERNOULLI),
    "beta_index": (
        BetaIndex(1.5, alpha=2.0, beta=3.0),
        lambda s: np.dot(beta_moments(s), [1, 1.5]),
        None,
        BERNOULLI,
    ),
    "gaussian_thompson": (GaussianThompson(0.4, 0.8, 0.5), lambda s: s.draw, gaussian_draws, GAUSSIAN),
    "gaussian_index": (GaussianIndex(1.5, 0.4, 0.8, 0.5), gaussian_index, None, GAUSSIAN),
    "uniform": (Uniform(), lambda s: 0.0, None, BERNOULLI),
    "best_arm": (BestArm(), lambda s: MEANS[s.arm], None, BERNOULLI),
    "sliding_window_ucb": (SlidingWindowUCB(num_changes=4.0), windowed(AUTO_WINDOW, 1, 0.5), None, BERNOULLI),
    "sliding_window_of_7": (SlidingWindowUCB(window=7, bound=2.0, xi=0.6), windowed(7, 2, 0.6), None, GAUSSIAN),
    "discounted_ucb": (
        DiscountedUCB(num_changes=4.0),
        once_first(discounted_ucb(AUTO_DISCOUNT, 1, 0.5)),
        None,
        BERNOULLI,
    ),
    "discounted_ucb_of_0.8": (
        DiscountedUCB(discount=0.8, bound=2.0, xi=0.1),
        once_first(discounted_ucb(0.8, 2, 0.1)),
        None,
        GAUSSIAN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plays_the_same_arms_as_its_slow_twin(name):
    agent, index, draws, table = CASES[name]
    tables = BERNOULLI if table is BERNOULLI else np.broadcast_to(table, BERNOULLI.shape)
    assert play(agent, tables).actions[0].tolist() == twin_actions(index, draws, KEYS[0], tables[0])


def context(round: int, horizon: int = 20_000, arms: int = ARMS) -> Context:
    return Context(jnp.asarray(round), jnp.asarray(horizon), jnp.ones(arms, bool), jnp.zeros(arms))


@pytest.mark.parametrize("pulls", [1, 7, 100, 9999])
def test_kl_ucb_index_is_the_largest_plausible_mean(pulls):
    sums = np.unique(np.round(pulls * np.asarray([0, 0.001, 0.1, 0.5, 0.9, 1])))
    state = ArmStatistics(jnp.full(len(sums), float(pulls)), jnp.asarray(sums, jnp.float32))
    index = KLUCB()._index(jax.random.key(0), state, context(2 * pulls, arms=len(sums)))
    expected = [largest_mean(s / pulls, math.log(2 * pulls + 1) / pulls) for s in sums]
    np.testing.assert_allclose(index, expected, atol=2e-5)


def test_constants_can_be_vmapped():
    constants = [0.1, 1.0]
    swept = jax.vmap(lambda c: play_tables(UCB(constant=c), BERNOULLI[:1], MEANS[None], KEYS[:1], np.ones(ARMS, bool)))
    for constant, actions in zip(constants, swept(jnp.asarray(constants)).actions, strict=True):
        np.testing.assert_array_equal(actions, play(UCB(constant=constant), BERNOULLI[:1]).actions)


def test_committing_is_for_good():
    tables = np.zeros((RUNS, HORIZON, ARMS))
    tables[:, :8, 2] = 1
    actions = play(ExploreThenCommit(pulls=2), tables).actions
    assert (np.sort(actions[:, :8]) == np.repeat(range(ARMS), 2)).all()
    assert (actions[:, 8:] == 2).all()
    tied = play(ExploreThenCommit(pulls=1.5), np.ones(tables.shape)).actions
    assert (tied[:, 8:] == tied[:, 8:9]).all()
    assert np.ptp(np.bincount(tied[:, 8])) < 5 * math.sqrt(RUNS / 2)


def test_discounted_thompson_forgets():
    # Arm 0 earns until round 30, arm 1 from then on.
    tables = np.zeros((RUNS, HORIZON, ARMS))
    tables[:, :30, 0] = tables[:, 30:, 1] = 1
    late = {c: (play(DiscountedThompson(discount=c), tables).actions[:, 40:50] == 1).mean() for c in (1.0, 0.9)}
    assert late[0.9] > 0.6
    assert late[1.0] < 0.3
    same = [play(agent, BERNOULLI).actions for agent in (DiscountedThompson(discount=1.0), BetaThompson())]
    np.testing.assert_array_equal(*same)


def test_discounted_thompson_samples_the_discounted_posterior():
    agent, key = DiscountedThompson(num_changes=9.0), jax.random.key(0)
    actions, rewards = [0, 1, 0, 0], [1.0, 0.0, 1.0, 0.0]
    state, counts = agent.init(2, 100), np.zeros((2, 2))
    for t, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
        state = agent.observe(state, jnp.asarray(action), jnp.asarray(reward), context(t, 100, 2))
        counts *= 1 - math.sqrt(9 / 100) / 4
        counts[action] += [reward, 1 - reward]
    expected = log_odds(key, 1 + jnp.asarray(counts[:, 0]), 1 + jnp.asarray(counts[:, 1]), 1.0)
    np.testing.assert_allclose(agent._index(key, state, context(4, 100, 2)), expected, rtol=1e-4)


def test_gaussian_thompson_without_noise_plays_the_best_arm_it_has_seen():
    agent = GaussianThompson(prior_mean=0.0, prior_std=10.0, noise_std=0.0)
    tables = np.tile(np.asarray([0.3, 0.9, 0.1, 0.2], np.float32), (1, 200, 1))
    assert (play(agent, tables).actions[0, -50:] == 1).all()


def test_ucb1_keeps_its_bound():
    # Auer, Cesa-Bianchi, Fischer 2002, Theorem 1.
    means, horizon = np.asarray([0.9, 0.5, 0.2]), 4000
    tables = np.random.default_rng(0).random((100, horizon, 3)) < means
    actions = play(UCB(), tables, means=means).actions
    gaps = means.max() - means
    regret = gaps[actions].sum(1)
    bound = sum(8 * math.log(horizon) / gap for gap in gaps[1:]) + (1 + math.pi**2 / 3) * gaps.sum()
    assert 10 < regret.mean() < bound
