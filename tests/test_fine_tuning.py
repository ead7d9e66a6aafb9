import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from playing import slow_attention, slow_estimates
from rmft_jax.agents import SingleLayer, SingleLayerAgent
from rmft_jax.method import rmft
from rmft_jax.method.evaluation import final_regret
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.objectives import squared_error
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, init, make_agent
from rmft_jax.problems import Ball, Identity, Regret, Softmax, Stationary, Trajectory

KEY = jax.random.key(0)
ARMS, HORIZON, KEPT = 3, 6, 10
FULL = RMFTConfig(
    environment=Stationary(num_arms=ARMS, feedback="full", prior="gaussian", noise="gaussian"),
    policy=SingleLayer(key_size=2, init_std=0.4),
    horizon=HORIZON,
    num_iterations=6,
    num_scenarios=8,
    num_rollouts=4,
).replace(decision_map="identity", update="least_squares", entropy_weight=0.0)
BANDIT = FULL.replace(environment=Stationary(num_arms=ARMS), decision_map="softmax")
SOFTMAX = FULL.replace(attention="softmax")
settings = pytest.mark.parametrize("config", [FULL, SOFTMAX, BANDIT], ids=["linear", "softmax", "bandit"])


@jax.jit
def fit(state: TrainState, data: KeptBatch) -> tuple[TrainState, Any, Any]:
    """The state after the update of its settings, with its loss and gradient norm."""
    state, fit = state.config.update.fine_tune(state, data, KEY)
    return state, fit.loss, fit.grad_norm


@jax.jit
def loss(state: TrainState, data: KeptBatch):
    """The mean squared error per imitated round, from its definition."""
    agent = state.config.agent(state.params)
    errors = jax.vmap(lambda row: squared_error(agent.outputs(row), row))(data.trajectory)
    return jnp.sum(data.weights * errors) / jnp.sum(data.weights)


loss_and_gradient = jax.jit(jax.value_and_grad(lambda value, state, data: loss(with_value(state, value), data)))


def with_value(state: TrainState, value) -> TrainState:
    return dataclasses.replace(state, params=state.params | {"V": value})


def kept_batch(horizon: int = HORIZON, seed: int = 0) -> KeptBatch:
    """Decisions that nobody made, kept from branch rounds on: any scores can be fitted."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(KEPT, horizon, ARMS))
    actions = rng.integers(ARMS, size=(KEPT, horizon))
    policies = rng.dirichlet(4 * np.ones(ARMS), (KEPT, horizon))
    rewards = np.take_along_axis(table, actions[..., None], 2)[..., 0]
    scores = rng.normal(size=table.shape)
    floats = (jnp.asarray(x, jnp.float32) for x in (rewards, policies, 0 * table, table, scores))
    branches = np.arange(KEPT) % horizon
    weights = jnp.asarray(np.arange(horizon) >= branches[:, None], jnp.float32)
    return KeptBatch(Trajectory(jnp.asarray(actions), *floats, arm_mask=jnp.ones((KEPT, ARMS), bool)), weights)


DATA = kept_batch()


def rows(state: TrainState, data: KeptBatch) -> tuple[np.ndarray, np.ndarray]:
    """Features of the imitated rounds and what is left of their scores without the value bias, in float64."""
    past, policy = data.trajectory, state.config.policy
    assert isinstance(policy, SingleLayer)
    assert past.scores is not None
    seen = list(np.asarray(past.reward_table))
    if state.config.environment.feedback == "bandit":
        seen = [slow_estimates(*row) for row in zip(past.actions, past.rewards, past.probabilities, strict=True)]
    features, sums = map(
        np.stack, zip(*(slow_attention(state.params, policy.attention, one) for one in seen), strict=True)
    )
    left = np.asarray(past.scores, np.float64) - sums[..., None] * np.asarray(state.params["v"], np.float64)
    imitated = np.asarray(data.weights) > 0
    return features[imitated], left[imitated]


@settings
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_the_fit_is_that_of_lstsq(config, penalty):
    state = init(config.replace(l2_penalty=penalty), KEY)
    fitted, before, slope = fit(state, DATA)
    features, left = rows(state, DATA)
    ridge = np.sqrt(KEPT * penalty) * np.eye(ARMS)
    stacked, targets = np.concatenate([features, ridge]), np.concatenate([left, 0 * ridge])
    expected = np.linalg.lstsq(stacked, targets, rcond=None)[0].T
    np.testing.assert_allclose(fitted.params["V"], expected, rtol=2e-4, atol=1e-5)
    normal = left.T @ features @ np.linalg.inv(features.T @ features + KEPT * penalty * np.eye(ARMS))
    np.testing.assert_allclose(expected, normal, rtol=1e-6)

    unchanged = {name: leaf for name, leaf in fitted.params.items() if name != "V"}
    chex.assert_trees_all_equal(unchanged, {name: state.params[name] for name in unchanged})
    chex.assert_trees_all_equal(fitted.opt_state, state.opt_state)
    assert int(fitted.iteration) == 1
    error, gradient = loss_and_gradient(state.params["V"], state, DATA)
    np.testing.assert_allclose(before, error, rtol=1e-5)
    np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=1e-4)


@settings
def test_the_fit_is_a_fixed_point_and_a_minimum(config):
    fitted, _, _ = fit(init(config, KEY), DATA)
    again, lowest, slope = fit(fitted, DATA)
    np.testing.assert_allclose(again.params["V"], fitted.params["V"], rtol=1e-4, atol=1e-5)
    assert slope < 1e-4
    value = fitted.params["V"]
    for direction in np.eye(ARMS * ARMS).reshape(-1, ARMS, ARMS):
        for size in (0.1, -0.1):
            error, _ = loss_and_gradient(value + size * jnp.asarray(direction, jnp.float32), fitted, DATA)
            assert error > lowest


def test_along_a_direction_that_was_never_seen_nothing_changes():
    state = init(FULL, KEY)
    direction = np.asarray([1.0, 2.0, -2.0]) / 3
    table = np.asarray(DATA.trajectory.reward_table)
    flat = jnp.asarray(table - (table @ direction)[..., None] * direction, jnp.float32)
    data = dataclasses.replace(DATA, trajectory=dataclasses.replace(DATA.trajectory, reward_table=flat))
    fitted, before, _ = fit(state, data)
    change = np.asarray(fitted.params["V"] - state.params["V"])
    np.testing.assert_allclose(change @ direction, 0, atol=1e-5)
    features, left = rows(state, data)
    residuals = left - features @ np.asarray(state.params["V"]).T
    np.testing.assert_allclose(change, np.linalg.lstsq(features, residuals, rcond=1e-5)[0].T, rtol=1e-3, atol=1e-4)
    assert np.abs(change).max() > 0.05
    assert fit(fitted, data)[1] < before


def test_weak_directions_are_fitted_beside_strong_ones():
    """Rewards with a common part a thousand times their differences, as in theory/hedge.py but more so."""
    state = init(FULL, KEY)
    table = DATA.trajectory.reward_table + 1000.0
    data = dataclasses.replace(DATA, trajectory=dataclasses.replace(DATA.trajectory, reward_table=table))
    fitted, _, _ = fit(state, data)
    features, left = rows(state, data)
    residuals = left - features @ np.asarray(state.params["V"]).T
    expected = np.linalg.lstsq(features, residuals, rcond=None)[0].T
    change = np.asarray(fitted.params["V"] - state.params["V"])
    across = np.eye(ARMS) - 1 / ARMS
    np.testing.assert_allclose(change @ across, expected @ across, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_one_round_teaches_nothing():
    state = init(FULL.replace(horizon=1), KEY)
    value = np.asarray(state.params["V"])
    fitted, error, slope = fit(state, kept_batch(horizon=1))
    np.testing.assert_array_equal(fitted.params["V"], value)
    assert np.isfinite(error)
    assert slope == 0
    penalized = dataclasses.replace(state, config=state.config.replace(l2_penalty=jnp.asarray(0.5)))
    np.testing.assert_allclose(fit(penalized, kept_batch(horizon=1))[0].params["V"], 0, atol=1e-6)


def test_many_steps_of_adam_reach_the_fit():
    steps = {"num_epochs": 600, "num_minibatches": 1, "schedule": "constant", "step_size": 0.02, "max_grad_norm": 1e6}
    start = init(SOFTMAX.replace(update="gradient", **steps), KEY)
    stepped, error, _ = fit(start, DATA)
    fitted, before, _ = fit(init(SOFTMAX, KEY), DATA)
    np.testing.assert_allclose(stepped.params["V"], fitted.params["V"], atol=5e-3)
    assert np.abs(fitted.params["V"] - start.params["V"]).max() > 0.3
    assert loss(fitted, DATA) < error < before
    frozen = {name: leaf for name, leaf in stepped.params.items() if name != "V"}
    chex.assert_trees_all_equal(frozen, {name: start.params[name] for name in frozen})


def copied(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


@pytest.fixture(scope="module")
def chunks() -> list[TrainState]:
    """States before, between and after two chunks of two iterations."""
    states = [init(FULL, KEY)]
    for _ in range(2):
        states.append(rmft.iterate_chunk(copied(states[-1]), 2)[0])
    return states


def test_the_fit_is_part_of_the_compiled_iteration_and_resumes_bit_for_bit(chunks):
    program: Any = rmft.iterate_chunk
    compiled = program._cache_size()
    resumed, _ = rmft.iterate_chunk(copied(chunks[1]), 2)
    chex.assert_trees_all_equal(resumed.params, chunks[2].params)
    assert int(resumed.iteration) == 4
    assert program._cache_size() == compiled
    assert np.abs(chunks[1].params["V"] - chunks[0].params["V"]).max() > 1e-3
    chex.assert_trees_all_equal(chunks[2].params["K"], chunks[0].params["K"])


def test_evaluations_between_chunks_share_one_program(chunks):
    """The settings of the state are donated with it, and must not be part of the agent's structure."""
    program: Any = final_regret
    state, regrets, compiled = copied(chunks[0]), [], []
    for _ in range(2):
        regrets.append(np.asarray(final_regret(make_agent(state), FULL.problem(), KEY, 8)))
        compiled.append(program._cache_size())
        state, _ = rmft.iterate_chunk(state, 2)
    assert compiled[0] == compiled[1]
    assert np.isfinite(regrets).all()
    assert np.abs(regrets[0] - regrets[1]).max() > 1e-4


def test_noise_and_penalty_can_be_vmapped(chunks):
    settings = [(0.5, 0.0), (2.0, 0.0), (0.5, 100.0)]
    states = [init(FULL.replace(exploration_std=std, l2_penalty=penalty), KEY) for std, penalty in settings]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    together, metrics = jax.jit(jax.vmap(lambda state: rmft.iterate_chunk(state, 2)))(stacked)
    values = np.asarray(together.params["V"])
    for i, state in enumerate(states):
        alone, alone_metrics = rmft.iterate_chunk(state, 2)
        np.testing.assert_allclose(alone.params["V"], values[i], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(metrics.loss[i], alone_metrics.loss, rtol=1e-4)
        # The error of the model's own decisions is their noise: half the sum of K squared Gaussians.
        np.testing.assert_allclose(alone_metrics.loss, ARMS * settings[i][0] ** 2 / 2, rtol=0.35)
        assert (alone_metrics.selected_regret < alone_metrics.regret).all()
        assert (alone_metrics.entropy == 0).all()
    np.testing.assert_allclose(values[0], chunks[1].params["V"], rtol=1e-3, atol=1e-5)
    assert np.abs(values[0] - values[1]).max() > 1e-2
    assert np.linalg.norm(values[2]) < 0.8 * np.linalg.norm(values[0])


def test_under_bandit_feedback_steps_of_adam_move_every_parameter():
    state = init(BANDIT.replace(trained="all", update="gradient", num_minibatches=2), KEY)
    after, metrics = rmft.iterate(copied(state))
    assert metrics.selected_regret < metrics.regret
    assert metrics.entropy > 0
    for name, leaf in after.params.items():
        assert np.abs(leaf - state.params[name]).max() > 1e-4, name


def test_only_rollouts_explore():
    state = init(FULL.replace(radius=3.0, exploration_std=0.25), KEY)
    for explore, expected in ((False, Ball(0.0, 3.0)), (True, Identity(0.25, 3.0))):
        agent = make_agent(state, explore=explore)
        assert isinstance(agent, SingleLayerAgent)
        assert agent.score_map == expected
    softmax = make_agent(init(FULL.replace(decision_map="softmax"), KEY))
    assert isinstance(softmax, SingleLayerAgent)
    assert softmax.score_map == Softmax(0.0)


def test_linear_play_is_judged_and_selected_by_the_regret_of_a_ball():
    config = FULL.replace(radius=3.0)
    problem = config.problem()
    assert problem.regret == config.selection.regret(problem) == Regret("ball", "expected", 3.0)
    assert BANDIT.problem().regret == Regret("pseudo", "sampled")
