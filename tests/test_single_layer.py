import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from playing import play, slow_attention, slow_estimates
from rmft_jax.agents import FTRL, BanditSingleLayer, FullInformationSingleLayer, Hedge, SingleLayer
from rmft_jax.config import ConfigError
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.problems import Ball, Problem, Simplex, Softmax, Stationary, Trajectory

ARMS, HORIZON, RUNS = 3, 7, 8
KEY = jax.random.key(0)
ALL, TWO = jnp.ones(ARMS, bool), jnp.asarray([True, False, True])
TABLES = np.random.default_rng(2).normal(size=(RUNS, HORIZON, ARMS))
KINDS = {"full": FullInformationSingleLayer, "bandit": BanditSingleLayer}
feedbacks = pytest.mark.parametrize("feedback", KINDS)
attentions = pytest.mark.parametrize("attention", ["linear", "softmax", "anytime"])


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def teacher_forced(agent, past):
    return agent.outputs(past), agent.features(past)


def outputs(agent, past):
    return np.asarray(teacher_forced(agent, jax.tree.map(jnp.asarray, dataclasses.replace(past, scores=None)))[0])


def make_agent(feedback="full", attention: Any = "linear", init_std=0.4, **changes):
    config = SingleLayer(attention=attention, key_size=2, init_std=init_std, **changes)
    return KINDS[feedback].create(jax.random.key(1), config, ARMS)


@functools.cache
def history(horizon: int = HORIZON) -> Trajectory:
    """Pasts that nobody played: random arms, policies and rewards."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(RUNS, horizon, ARMS))
    actions = rng.integers(ARMS, size=(RUNS, horizon))
    rewards = np.take_along_axis(table, actions[..., None], 2)[..., 0]
    policies = rng.dirichlet(np.ones(ARMS), (RUNS, horizon))
    rewards, policies, table = (jnp.asarray(x, jnp.float32) for x in (rewards, policies, table))
    mask = jnp.ones((RUNS, ARMS), bool)
    return Trajectory(jnp.asarray(actions), rewards, policies, jnp.zeros_like(table), table, None, mask)


def seen(feedback, past: Trajectory) -> list[np.ndarray]:
    if feedback == "full":
        return list(np.asarray(past.reward_table))
    return [slow_estimates(*row) for row in zip(past.actions, past.rewards, past.probabilities, strict=True)]


def slow_scores(agent, feedback, past: Trajectory) -> np.ndarray:
    value, bias = (np.asarray(agent.params[name], np.float64) for name in ("V", "v"))
    pairs = [slow_attention(agent.params, agent.config.attention, rows) for rows in seen(feedback, past)]
    return np.stack([features @ value.T + sums[:, None] * bias for features, sums in pairs])


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@feedbacks
@attentions
def test_scores_are_those_of_the_slow_twin(feedback, attention):
    agent, past = make_agent(feedback, attention), history()
    expected = slow_scores(agent, feedback, past)
    np.testing.assert_allclose(outputs(agent, past), expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
    assert (outputs(agent, past)[:, 0] == 0).all()


@feedbacks
@attentions
def test_it_plays_the_map_of_its_scores(feedback, attention):
    agent = make_agent(feedback, attention)
    for mask in (ALL, TWO):
        played = play(agent, np.where(mask, TABLES, 0), mask)
        there = np.flatnonzero(mask)
        expected = slow_scores(agent, feedback, played)[..., there]
        tolerance = 1e-4 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(played.scores[..., there], expected, rtol=1e-4, atol=tolerance)
        np.testing.assert_allclose(outputs(agent, played)[..., there], played.scores[..., there], atol=tolerance)
        np.testing.assert_allclose(
            played.probabilities[..., there], softmax(np.asarray(played.scores)[..., there]), atol=1e-6
        )
    assert (played.probabilities[..., 1] == 0).all()
    assert (played.actions != 1).all()
    assert (outputs(agent, played)[..., 1] == -jnp.inf).all()


@feedbacks
@attentions
def test_scores_are_linear_in_the_value_matrix(feedback, attention):
    agent, past = make_agent(feedback, attention), history()
    pairs = [slow_attention(agent.params, attention, rows) for rows in seen(feedback, past)]
    _, seen_features = teacher_forced(agent, past)
    scale = np.abs(seen_features).max()
    np.testing.assert_allclose(seen_features, [pair[0] for pair in pairs], rtol=2e-5, atol=2e-5 * scale)
    bias = np.stack([sums for _, sums in pairs])[..., None] * np.asarray(agent.params["v"])
    for value in (agent.value, jnp.zeros((ARMS, ARMS)), jnp.arange(9.0).reshape(3, 3) / 9):
        expected = np.asarray(seen_features) @ np.asarray(value).T + bias
        np.testing.assert_allclose(outputs(agent.with_value(value), past), expected, atol=1e-4 * scale)


def test_what_it_remembers_does_not_grow_with_the_horizon():
    agent = make_agent()
    short, long = (jax.tree.map(jnp.shape, agent.init(ARMS, horizon)) for horizon in (10, 10_000))
    assert short == long
    assert jax.tree.structure(short) == jax.tree.structure(long)


def test_it_plays_any_horizon():
    agent, long = make_agent("full", "softmax"), np.tile(TABLES, (1, 20, 1))
    played, short = play(agent, long), play(agent, TABLES)
    np.testing.assert_allclose(played.probabilities[:, :HORIZON], short.probabilities, atol=1e-6)
    np.testing.assert_allclose(played.scores, slow_scores(agent, "full", played), rtol=1e-4, atol=1e-4)


def test_it_plays_drawn_scenarios():
    agent, problem = make_agent("bandit"), Problem(Stationary(num_arms=ARMS), HORIZON)
    run = functools.partial(rollout_scenarios, num_scenarios=RUNS // 2, num_rollouts=2)
    played = jax.jit(run)(agent, problem, RolloutKeys.create(KEY))
    played = jax.tree.map(lambda x: x.reshape(RUNS, *x.shape[2:]), played)
    expected = slow_scores(agent, "bandit", played)
    np.testing.assert_allclose(played.scores, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(outputs(agent, played), played.scores, atol=1e-5 * np.abs(expected).max())


def with_params(agent, **changes):
    params = agent.params | {name: jnp.asarray(value, jnp.float32) for name, value in changes.items()}
    return dataclasses.replace(agent, params=params)


@pytest.mark.parametrize("spikes", [(0,), (HORIZON - 2,), (2, 5), ()], ids=["early", "late", "twice", "never"])
def test_softmax_attention_to_huge_scores(spikes):
    """Scores are 1000 in a spike and -1000 elsewhere: all attention is on the spikes, or even where there are none."""
    query = {"Q": np.eye(2), "c": [1, 0], "q": [0, 0], "kappa": [0, 0], "K": [[1000, 0, 0], [0, 0, 0]]}
    agent = with_params(make_agent("full", "softmax", trained="all"), **query)
    first = jnp.full((RUNS, HORIZON), -1.0).at[:, jnp.asarray(spikes, int)].set(1.0)
    past = dataclasses.replace(history(), reward_table=history().reward_table.at[..., 0].set(first))
    expected = slow_scores(agent, "full", past)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(outputs(agent, past), expected, atol=1e-5)
    gradient = jax.tree.leaves(outputs_gradient(agent.params, agent, past))
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@jax.jit
@jax.grad
def outputs_gradient(params, agent, past):
    scores = jax.vmap(dataclasses.replace(agent, params=params).outputs)(past)
    return jnp.sum(scores * jnp.cos(jnp.arange(scores.size)).reshape(scores.shape))


def test_gradients_of_softmax_attention_are_those_of_the_formula():
    agent, past = make_agent("full", "softmax", trained="all"), history()

    @jax.jit
    @jax.grad
    def direct(p):
        scores = (past.reward_table @ p["K"].T + p["kappa"][None, None]) @ (p["Q"] @ p["c"] + p["q"])
        earlier = jnp.tril(jnp.ones((HORIZON - 1, HORIZON - 1), bool))
        weights = jax.nn.softmax(jnp.where(earlier, scores[:, None, :-1], -jnp.inf))
        values = past.reward_table @ p["V"].T + p["v"][None, None]
        z = jnp.concatenate([jnp.zeros((RUNS, 1, ARMS)), weights @ values[:, :-1]], axis=1)
        return jnp.sum(z * jnp.cos(jnp.arange(z.size)).reshape(z.shape))

    expected = direct(agent.params)
    for name, gradient in outputs_gradient(agent.params, agent, past).items():
        np.testing.assert_allclose(gradient, expected[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("attention", ["linear", "softmax", "anytime"])
@pytest.mark.parametrize("trained", ["value", "all"])
def test_what_is_trained(attention, trained):
    gradient = outputs_gradient((agent := make_agent("bandit", attention, trained=trained)).params, agent, history())
    moved = {name for name, leaf in gradient.items() if np.abs(leaf).max() > 1e-4}
    everything = set(agent.params) - ({"kappa"} if attention == "softmax" else set())  # The same shift of all scores.
    assert moved == ({"V"} if trained == "value" else everything)
    assert trained == "all" or all((gradient[name] == 0).all() for name in gradient if name != "V")


@feedbacks
@attentions
def test_no_round_sees_its_own_or_a_later_reward(feedback, attention):
    agent, one = make_agent(feedback, attention), jax.tree.map(lambda x: jnp.stack(RUNS * [x[0]]), history())
    noise = jnp.eye(RUNS, HORIZON)  # One round of each run is changed, and none of the last one.
    table = one.reward_table + noise[..., None]
    changed = outputs(agent, dataclasses.replace(one, reward_table=table, rewards=one.rewards + noise))
    influence = np.abs(changed[:-1] - changed[-1]).sum(-1).T
    assert (influence[np.triu_indices(HORIZON)] == 0).all()
    assert (influence[np.tril_indices(HORIZON, -1)] > 0).all()


@attentions
def test_the_start_is_that_of_the_theorems(attention):
    agent = make_agent("full", attention, init_std=0.0)
    p = {name: np.asarray(value) for name, value in agent.params.items()}
    query = p["Q"] @ p["c"] + p["q"]
    assert (p["K"].T @ query == 0).all()
    assert p["kappa"] @ query == 1
    assert (p["v"] == 0).all()
    assert (p["V"] == 0).all()
    past, value = history(), np.random.default_rng(1).normal(size=(ARMS, ARMS))
    table = np.asarray(past.reward_table)
    before = np.cumsum(table, 1) - table
    if attention == "softmax":
        before = before / np.maximum(np.arange(HORIZON), 1)[:, None]
    if attention == "anytime":
        before = before / np.sqrt(np.arange(1, HORIZON + 1))[:, None]
    scores = outputs(agent.with_value(jnp.asarray(value, jnp.float32)), past)
    np.testing.assert_allclose(scores, before @ value.T, atol=2e-5)


def test_noise_at_the_start_has_its_size_and_no_parameter_is_spared():
    config = SingleLayer(key_size=20, init_std=0.5)
    noisy = BanditSingleLayer.create(KEY, config, 20).params
    start = BanditSingleLayer.create(KEY, dataclasses.replace(config, init_std=0.0), 20).params
    for name, leaf in noisy.items():
        assert np.std(leaf - start[name]) == pytest.approx(0.5, rel=0.5), name
    assert np.std(noisy["V"]) == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize(
    ("other", "decision_map", "step"),
    [
        (Hedge(), Softmax(0.0), lambda arms: np.sqrt(8 * np.log(arms) / HORIZON)),
        (FTRL(rate=2.0), Simplex(0.0), lambda arms: 2 * np.sqrt((1 - 1 / arms) / (arms * HORIZON))),
    ],
    ids=["hedge", "ftrl"],
)
def test_a_multiple_of_the_identity_is_hedge_or_ftrl(other, decision_map, step):
    for mask in (ALL, TWO):
        agent = FullInformationSingleLayer.ftrl(ARMS, jnp.asarray(step(mask.sum())), decision_map)
        ours, theirs = play(agent, TABLES, mask), play(other, TABLES, mask)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=2e-6)
        assert ours.probabilities.std(axis=1).max() > 0.05


def test_in_a_ball_it_is_ftrl_in_the_ball():
    step, radius = 0.4, 1.5
    played = play(FullInformationSingleLayer.ftrl(ARMS, step, Ball(0.0, radius)), TABLES)
    before = np.cumsum(TABLES, 1) - TABLES
    reach = np.linalg.norm(step * before, axis=-1, keepdims=True)
    expected = step * before * np.minimum(1, radius / np.maximum(reach, 1e-30))
    np.testing.assert_allclose(played.probabilities, expected, atol=1e-5)
    assert (reach > radius).any()
    assert (reach[:, 1:] < radius).any()


@feedbacks
def test_a_wrong_arm_count_is_refused(feedback):
    with pytest.raises(ConfigError, match=r"got num_arms=4, need num_arms=3, .*; try masking absent arms instead"):
        make_agent(feedback).init(4, HORIZON)


def test_estimates_of_the_rewards_are_unbiased():
    rewards, policy = jnp.asarray([0.3, -2.0, 5.0, 0.0]), jnp.asarray([0.5, 0.125, 0.375, 0.0])
    actions = jnp.arange(4)
    estimates = BanditSingleLayer._seen(actions, rewards, jnp.tile(policy, (4, 1)))
    np.testing.assert_array_equal(estimates[:3] - jnp.diag(jnp.diag(estimates))[:3], 0)
    np.testing.assert_allclose(policy[:3] @ estimates[:3], rewards, rtol=1e-6)
