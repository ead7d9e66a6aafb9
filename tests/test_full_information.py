import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from playing import ARMS, BERNOULLI, HORIZON, KEYS, RUNS, Seen, oblivious_tables, play, static_regret, twin_actions
from rmft_jax.agents import FTPL, FTRL, FollowTheLeader, Hedge
from rmft_jax.problems.projections import project_ball, project_simplex


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def projection(scores):
    tau = brentq(lambda t: np.maximum(scores - t, 0).sum() - 1, scores.min() - 1, scores.max(), xtol=1e-14)
    return np.maximum(scores - tau, 0)


def hedge(t, horizon, sums):
    return softmax(math.sqrt(8 * math.log(len(sums)) / horizon) * sums)


def hedge_anytime(t, horizon, sums):
    return softmax(math.sqrt(8 * math.log(len(sums)) / (t + 1)) * sums)


def ftrl(t, horizon, sums):
    arms = len(sums)
    return projection(math.sqrt((1 - 1 / arms) / (arms * horizon)) * sums)


CASES = {
    "hedge": (Hedge, hedge),
    "hedge_anytime": (lambda **kw: Hedge(anytime=True, **kw), hedge_anytime),
    "ftrl": (FTRL, ftrl),
}
THREE = np.asarray([True, False, True, True])
masks = pytest.mark.parametrize("mask", [np.ones(ARMS, bool), THREE], ids=["all", "three"])


@masks
@pytest.mark.parametrize("name", CASES)
def test_plays_the_policy_of_its_slow_twin(name, mask):
    create, twin = CASES[name]
    tables = BERNOULLI + np.random.default_rng(0).random(BERNOULLI.shape)
    played = play(create(rate=1.5, width=2.0), tables, mask)
    table = tables[0][:, mask].astype(np.float64)
    sums = np.cumsum(table, 0) - table
    expected = np.zeros((HORIZON, ARMS))
    expected[:, mask] = [twin(t, HORIZON, 1.5 / 2 * sums[t]) for t in range(HORIZON)]
    np.testing.assert_allclose(played.probabilities[0], expected, atol=2e-6)
    with np.errstate(divide="ignore"):
        logits = np.log(expected).astype(np.float32)
    keys = jax.vmap(lambda t: jax.random.fold_in(KEYS[0], t))(jnp.arange(HORIZON))
    assert (jax.vmap(jax.random.categorical)(keys, logits) == played.actions[0]).all()


@pytest.mark.parametrize("name", CASES)
def test_float32_suffices_for_ten_thousand_rounds(name):
    create, twin = CASES[name]
    table = np.random.default_rng(3).random((10_000, ARMS)).astype(np.float32)
    played = play(create(), table[None])
    sums = np.cumsum(table, 0, dtype=np.float64) - table
    expected = [twin(t, 10_000, sums[t]) for t in range(10_000)]
    np.testing.assert_allclose(played.probabilities[0], expected, atol=1e-5)


def perturbation(key, pulls, sums):
    return 2.0 / (1.5 * math.sqrt(2 / (ARMS * HORIZON))) * np.asarray(jax.random.uniform(key, (ARMS,)))


def leader(s: Seen) -> float:
    return sum(s.rewards) + s.draw


@pytest.mark.parametrize(
    ("agent", "draws"), [(FollowTheLeader(), None), (FTPL(rate=1.5, width=2.0), perturbation)], ids=["ftl", "ftpl"]
)
def test_plays_the_same_arms_as_its_slow_twin(agent, draws):
    expected = twin_actions(leader, draws, KEYS[0], BERNOULLI[0], full=True)
    assert play(agent, BERNOULLI).actions[0].tolist() == expected


def test_regret_bounds_hold():
    horizon, arms = 400, 5
    slack = math.sqrt(horizon * math.log(arms) / 2)
    bounds = {
        Hedge(): slack,
        Hedge(anytime=True): 2 * slack + math.sqrt(math.log(arms) / 8),
        FTRL(): math.sqrt((arms - 1) * horizon),
    }
    tables = np.stack(list(oblivious_tables(horizon, arms).values()))
    for agent, bound in bounds.items():
        regret = static_regret(play(agent, tables))
        assert (regret <= bound).all()
    runs = 300
    stacked = np.concatenate([np.broadcast_to(table, (runs, horizon, arms)) for table in tables])
    regret = static_regret(play(FTPL(), stacked, keys=jax.random.split(KEYS[1], len(stacked)))).reshape(-1, runs)
    assert (regret.mean(1) + 3 * regret.std(1) / math.sqrt(runs) <= 2 * math.sqrt(2 * arms * horizon)).all()


@pytest.mark.parametrize("name", CASES)
def test_the_width_is_the_unit_of_the_rewards(name):
    create = CASES[name][0]
    expected = play(create(), BERNOULLI).probabilities
    np.testing.assert_allclose(play(create(width=8.0), 8 * BERNOULLI - 3).probabilities, expected, atol=1e-5)


def test_follow_the_leader_is_led_astray_and_hedge_is_not():
    horizon = 200
    table = np.zeros((horizon, 2))
    table[0, 0] = 0.5
    table[1::2, 1] = table[2::2, 0] = 1
    regret = {type(agent): static_regret(play(agent, table[None]))[0] for agent in (FollowTheLeader(), Hedge())}
    # The first round is a tie; after it the leader is wrong every time.
    assert regret[FollowTheLeader] >= horizon / 2 - 1
    assert regret[Hedge] <= math.sqrt(horizon * math.log(2) / 2)


@masks
def test_simplex_projection_is_the_nearest_point(mask):
    scores = np.random.default_rng(0).normal(0, [[0.01], [0.3], [1], [100]] * 25, (100, ARMS))
    scores[:5] = [[0, 0, 0, 0], [1, 1, 1, 1], [5, 5, 0, 5], [1, 0, 1, 0], [0.25, 7, 0.25, 0.5]]
    points = np.asarray(jax.vmap(project_simplex, (0, None))(jnp.asarray(scores, jnp.float32), jnp.asarray(mask)))
    expected = np.zeros_like(scores)
    expected[:, mask] = [projection(row[mask]) for row in scores]
    assert (points[:, ~mask] == 0).all()
    np.testing.assert_allclose(points, expected, atol=2e-5)
    np.testing.assert_allclose(points.sum(1), 1, atol=1e-6)


def test_simplex_projection_is_differentiable():
    scores, mask = jnp.asarray([0.5, 3.0, 0.4, 0.1, -2.0]), jnp.asarray([True, False, True, True, True])
    support = np.asarray([1.0, 0, 1, 1, 0])
    jacobian = jax.jacobian(project_simplex)(scores, mask)
    np.testing.assert_allclose(jacobian, np.diag(support) - np.outer(support, support) / 3, atol=1e-6)


def test_ball_projection():
    inside, outside = jnp.asarray([0.3, -0.4]), jnp.asarray([3.0, -4.0])
    np.testing.assert_allclose(project_ball(inside, 1.0), inside)
    np.testing.assert_allclose(project_ball(outside, 2.0), [1.2, -1.6], rtol=1e-6)
    np.testing.assert_allclose(jax.jacobian(project_ball)(jnp.zeros(2), 1.0), np.eye(2))
    radial = np.eye(2) - np.outer([0.6, -0.8], [0.6, -0.8])
    np.testing.assert_allclose(jax.jacobian(project_ball)(outside, 2.0), 2 / 5 * radial, atol=1e-6)


def test_ftpl_reports_the_arm_that_it_drew():
    played = play(FTPL(), BERNOULLI)
    assert (np.take_along_axis(played.probabilities, played.actions[..., None], 2) == 1).all()
    assert len(np.unique(played.actions[:, 0])) == ARMS
    assert played.actions.shape == (RUNS, HORIZON)
