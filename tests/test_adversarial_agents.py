import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from playing import ARMS, BERNOULLI, HORIZON, KEYS, oblivious_tables, play, static_regret
from rmft_jax.agents import EXP3, EXP3IX, EXP3P, Rexp3, TsallisINF
from rmft_jax.agents.adversarial import tsallis_policy
from rmft_jax.problems import Context


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def used(p, t, reported):
    """What estimates are made with: the twin's own policy, or what the agent reported."""
    return p if reported is None else reported[t]


def exp3(table, actions, rate=1.0, reported=None, batch=None):
    horizon, arms = table.shape
    rounds = batch or horizon
    gamma = min(1, rate * math.sqrt(arms * math.log(arms) / ((math.e - 1) * rounds)))
    gains = np.zeros(arms)
    for t in range(horizon):
        if t % rounds == 0:
            gains = np.zeros(arms)
        p = (1 - gamma) * softmax(gamma / arms * gains) + gamma / arms
        gains[actions[t]] += table[t, actions[t]] / used(p, t, reported)[actions[t]]
        yield p


def rexp3(table, actions, rate=1.0, reported=None):
    horizon, arms = table.shape
    batch = math.ceil((arms * math.log(arms)) ** (1 / 3) * (horizon / 8.0) ** (2 / 3))
    return exp3(table, actions, rate, reported, batch)


def exp3_p(table, actions, rate=1.0, reported=None):
    horizon, arms = table.shape
    gamma = min(3 / 5, 2 * rate * math.sqrt(3 / 5 * arms * math.log(arms) / horizon))
    alpha = 2 * math.sqrt(math.log(arms * horizon / 0.05))
    log_weights = np.full(arms, alpha * gamma / 3 * math.sqrt(horizon / arms))
    for t in range(horizon):
        p = (1 - gamma) * softmax(log_weights) + gamma / arms
        estimate = np.zeros(arms)
        q = used(p, t, reported)
        estimate[actions[t]] = table[t, actions[t]] / q[actions[t]]
        log_weights += gamma / (3 * arms) * (estimate + alpha / (q * math.sqrt(arms * horizon)))
        yield p


def exp3_ix(table, actions, rate=1.0, reported=None):
    horizon, arms = table.shape
    eta = rate * math.sqrt(2 * math.log(arms) / (arms * horizon))
    losses = np.zeros(arms)
    for t in range(horizon):
        p = softmax(-eta * losses)
        losses[actions[t]] += (1 - table[t, actions[t]]) / (used(p, t, reported)[actions[t]] + eta / 2)
        yield p


def tsallis_inf(table, actions, rate=1.0, reported=None):
    horizon, arms = table.shape
    losses = np.zeros(arms)
    for t in range(horizon):
        eta = 2 * rate / math.sqrt(t + 1)
        low, high = losses.min() - 2 * math.sqrt(arms) / eta, losses.min() - 2 / eta
        x = low
        for _ in range(60):
            x = (low + high) / 2
            low, high = (low, x) if (4 / (eta * (losses - x)) ** 2).sum() > 1 else (x, high)
        p = 4 / (eta * (losses - x)) ** 2
        losses[actions[t]] += (1 - table[t, actions[t]]) / used(p, t, reported)[actions[t]]
        yield p / p.sum()


CASES = {
    "exp3": (EXP3, exp3),
    "rexp3": (lambda **kw: Rexp3(variation_budget=8.0, **kw), rexp3),
    "exp3_p": (EXP3P, exp3_p),
    "exp3_ix": (EXP3IX, exp3_ix),
    "tsallis_inf": (TsallisINF, tsallis_inf),
}
every_agent = pytest.mark.parametrize("name", CASES)
THREE = np.asarray([True, False, True, True])


@every_agent
@pytest.mark.parametrize(("rate", "mask"), [(1.0, np.ones(ARMS, bool)), (2.0, THREE)], ids=["paper", "tuned, 3 arms"])
def test_plays_the_policy_of_its_slow_twin(name, rate, mask):
    create, twin = CASES[name]
    # Rewards in [-1, 3], beyond the range that the agent is told in one round.
    tables = 4 * BERNOULLI - 1
    tables[:, 5] = 9
    played = play(create(rate=rate, low=-1.0, high=3.0), tables, mask)
    actions = np.cumsum(mask)[played.actions[0]] - 1
    unit = np.clip((tables[0][:, mask] + 1) / 4, 0, 1)
    expected = np.zeros((HORIZON, ARMS))
    expected[:, mask] = list(twin(unit, actions, rate))
    np.testing.assert_allclose(played.probabilities[0], expected, atol=2e-5)
    with np.errstate(divide="ignore"):
        logits = np.log(expected).astype(np.float32)
    keys = jax.vmap(lambda t: jax.random.fold_in(KEYS[0], t))(jnp.arange(HORIZON))
    assert (jax.vmap(jax.random.categorical)(keys, logits) == played.actions[0]).all()


@every_agent
def test_float32_suffices_for_ten_thousand_rounds(name):
    create, twin = CASES[name]
    table = (np.random.default_rng(3).random((10_000, ARMS)) < [0.2, 0.8, 0.75, 0.1]) * 1.0
    played = play(create(), table[None])
    # With the estimates of the agent's own policies, because following recorded actions amplifies any rounding.
    expected = list(twin(table, played.actions[0], 1.0, played.probabilities[0].astype(np.float64)))
    np.testing.assert_allclose(played.probabilities[0], expected, atol=1e-5)


@pytest.mark.parametrize("arms", [1, 2, 5, 1000])
def test_tsallis_policy_is_normalized(arms):
    for scale in (0, 1e-3, 1, 30, 1e4):
        gaps = scale * np.random.default_rng(0).random(arms)
        p = tsallis_policy(jnp.asarray(gaps - gaps.min(), jnp.float32))
        assert float(p.sum()) == pytest.approx(1, abs=1e-5)


def test_rexp3_without_variation_is_exp3():
    same = [play(agent, BERNOULLI).actions for agent in (Rexp3(variation_budget=0.0), EXP3())]
    np.testing.assert_array_equal(*same)


def test_regret_bounds_hold():
    horizon, arms, runs = 400, 5, 300
    bounds = {
        EXP3(): 2 * math.sqrt(math.e - 1) * math.sqrt(horizon * arms * math.log(arms)),
        TsallisINF(): 4 * math.sqrt(arms * horizon) + 1,
    }
    tables = oblivious_tables(horizon, arms)
    stacked = np.concatenate([np.broadcast_to(table, (runs, horizon, arms)) for table in tables.values()])
    for agent, bound in bounds.items():
        regret = static_regret(play(agent, stacked, keys=jax.random.split(KEYS[1], len(stacked)))).reshape(-1, runs)
        assert (regret.mean(1) + 3 * regret.std(1) / math.sqrt(runs) <= bound).all()


@pytest.mark.parametrize("delta", [0.05])
def test_regret_bounds_hold_with_high_probability(delta):
    horizon, arms, runs = 400, 5, 300
    n, log_draws = arms * horizon, math.log(arms * horizon / delta)
    bounds = {
        EXP3P(delta=delta): 4 * math.sqrt(n * log_draws) + 4 * math.sqrt(5 / 3 * n * math.log(arms)) + 8 * log_draws,
        EXP3IX(): 2 * math.sqrt(2 * n * math.log(arms)) + (math.sqrt(2 * n / math.log(arms)) + 1) * math.log(2 / delta),
    }
    table = oblivious_tables(horizon, arms)["sine"]
    for agent, bound in bounds.items():
        played = play(agent, np.broadcast_to(table, (runs, horizon, arms)))
        regret = table.sum(0).max() - played.rewards.sum(1)
        assert (regret > bound).mean() <= delta


def test_rexp3_follows_a_best_arm_that_changes():
    # The best of two arms changes every 500 rounds: dynamic regret is 1/2 per wrong arm.
    horizon = 2000
    best = np.arange(horizon) // 500 % 2
    table = np.eye(2)[best]
    wrong = {}
    for agent in (EXP3(), Rexp3(variation_budget=3.0)):
        played = play(agent, np.broadcast_to(table, (50, horizon, 2)))
        wrong[type(agent)] = (played.actions != best).mean()
    assert wrong[Rexp3] < 0.8 * wrong[EXP3]


@pytest.mark.parametrize("agent", [EXP3(), EXP3IX(), EXP3P(), TsallisINF(rate=4.0), Rexp3()], ids=type)
def test_absent_arms_leave_the_policy_alone_however_long(agent):
    """The policy of two arms among four is that of two arms, from the same gains."""
    gains = jnp.asarray([0.0, -400.0, 7.0, -900.0])
    full, few = (
        Context(jnp.asarray(900), jnp.asarray(1000), jnp.asarray(mask), jnp.zeros(len(mask)))
        for mask in ([True, True, False, False], [True, True])
    )

    def after(totals, context):
        state = agent.init(len(totals), 1000)
        state = dataclasses.replace(state, totals=totals, probabilities=jnp.where(context.arm_mask, 0.5, 0.0))
        state = agent.observe(state, jnp.asarray(0), jnp.asarray(0.3), context)
        return agent.act(jax.random.key(0), state, context)[0].probabilities

    masked, alone = after(gains, full), after(gains[:2], few)
    np.testing.assert_allclose(masked[:2], alone, atol=1e-6)
    assert (masked[2:] == 0).all()
    assert alone[0] > alone[1] > 0
