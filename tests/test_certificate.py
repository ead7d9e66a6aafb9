"""Play by the norm of V, and the regret that a trained single layer is guaranteed on every sequence."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from playing import play
from rmft_jax.agents import BanditSingleLayer, FullInformationSingleLayer, SingleLayer
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Adaptive, Ball, Identity, Problem, Simplex, Softmax, Stationary
from rmft_jax.problems.projections import project_ball_metric
from rmft_jax.statistics.certificate import Rewards, bounded_rewards, euclidean_bound, guarantee, metric_bound

RNG = np.random.default_rng(5)
METRIC = RMFTConfig().replace(
    environment=Stationary(num_arms=3, feedback="full"), policy=SingleLayer(play="metric"), update="least_squares",
    decision_map="identity", branching="none", entropy_weight=0.0,
)  # fmt: skip
UNIT = Rewards(0.0, 1.0)


def positive(size: int, spread: float, rng: np.random.Generator = RNG) -> np.ndarray:
    turned = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return turned @ np.diag(np.exp(rng.uniform(-spread, spread, size))) @ turned.T


def trained(value: np.ndarray, decision_map: Any = None, **policy: Any) -> FullInformationSingleLayer:
    """A policy as training would leave it."""
    agent = FullInformationSingleLayer.create(jax.random.key(0), SingleLayer(key_size=1, **policy), len(value))
    agent = agent.with_value(jnp.asarray(value, jnp.float32))
    agent = dataclasses.replace(agent, score_map=decision_map or Ball(0.0))
    return agent.with_value((agent.value + agent.value.T) / 2) if agent.plays_metric else agent


@settings(max_examples=25)
@given(st.integers(2, 5), st.floats(0.0, 3.0), st.floats(0.1, 100.0), st.integers(0, 1000))
def test_the_nearest_point_in_a_norm_is_that_of_an_optimizer(size, spread, reach, seed):
    rng = np.random.default_rng(seed)
    matrix, radius = positive(size, spread, rng), 1.5
    sums = reach * rng.normal(size=size)
    got = project_ball_metric(jnp.asarray(matrix @ sums, jnp.float32), jnp.asarray(matrix, jnp.float32), radius)
    inverse = np.linalg.inv(matrix)
    inside = matrix @ sums
    if np.linalg.norm(inside) > radius:
        # The multiplier of the ball, by a method that is slow and sure.
        find = lambda l: np.linalg.norm(np.linalg.solve(inverse + l * np.eye(size), sums)) - radius  # noqa: E731, E741
        inside = np.linalg.solve(inverse + optimize.root_scalar(find, bracket=(0, 1e6)).root * np.eye(size), sums)
    np.testing.assert_allclose(got, inside, atol=2e-4 * radius)
    assert np.linalg.norm(got) <= radius * (1 + 1e-6)


def test_nothing_is_played_along_directions_that_are_no_part_of_a_norm():
    matrix = jnp.diag(jnp.asarray([2.0, -1.0, 0.0]))
    np.testing.assert_allclose(project_ball_metric(jnp.asarray([6.0, 5.0, 1.0]), matrix, 1.0), [1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(project_ball_metric(jnp.zeros(3), matrix, 1.0), 0)


def test_the_trained_policy_plays_by_the_norm_and_rollouts_do_not():
    value = positive(3, 0.7) + 0.2 * RNG.normal(size=(3, 3))
    params = {**METRIC.init_params(jax.random.key(0)), "V": jnp.asarray(value, jnp.float32)}
    still, exploring = METRIC.agent(params), METRIC.agent(params, explore=True)
    assert isinstance(still, FullInformationSingleLayer)
    assert isinstance(exploring, FullInformationSingleLayer)
    assert still.plays_metric
    assert not exploring.plays_metric
    np.testing.assert_array_equal(exploring.value, params["V"])
    table = RNG.normal(size=(8, 7, 3))
    mask = jnp.asarray([True, False, True])
    for arms in (jnp.ones(3, bool), mask):
        played = play(still, table, arms)
        existing = np.flatnonzero(arms)
        symmetric = ((value + value.T) / 2)[np.ix_(existing, existing)]
        sums = (np.cumsum(table, 1) - table)[..., existing]
        expected = [
            [project_ball_metric(jnp.asarray(symmetric @ s), jnp.asarray(symmetric, jnp.float32), 1.0) for s in run]
            for run in sums.astype(np.float32)
        ]
        np.testing.assert_allclose(np.asarray(played.probabilities)[..., existing], np.asarray(expected), atol=1e-4)
    assert (np.asarray(played.probabilities)[..., 1] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision_map": "softmax"}, "got play='metric' with decision_map='softmax'"),
        ({"decision_map": "ball"}, "try decision_map='identity'"),
        ({"trained": "all"}, "got play='metric' with trained='all'"),
        ({"init_std": 0.1}, "try trained='value' and init_std=0"),
        ({"play": "manhattan"}, "need one of euclidean, metric"),
    ],
)
def test_play_that_has_no_norm_is_refused(changes, message):
    METRIC.validate()
    with pytest.raises(ConfigError, match=r".*") as caught:
        METRIC.replace(**changes).validate()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("attention", "style"),
    [("linear", "euclidean"), ("linear", "metric"), ("anytime", "metric"), ("softmax", "euclidean")],
)
@pytest.mark.parametrize("adversary", ["favourite", "turning"])
def test_no_sequence_costs_more_than_is_guaranteed(attention, style, adversary):
    horizon, step = 60, {"linear": 0.08, "anytime": 0.5, "softmax": 2.0}[attention]
    environment = Adaptive(num_arms=3, feedback="full", adversary=adversary)
    value = step * (np.eye(3) + 0.2 * RNG.normal(size=(3, 3)))
    maps = (Ball(0.0), *(() if style == "metric" or adversary == "turning" else (Softmax(0.0), Simplex(0.0))))
    for decision_map in maps:
        points = decision_map.points
        agent = trained(value, decision_map, attention=attention, play=style)
        problem = Problem(environment, horizon, radius=1.0 if points else None)
        regret = problem.regret(play_scenarios(agent, problem, jax.random.key(1), 64))[:, -1]
        bound = guarantee(agent, bounded_rewards(environment), horizon).regret
        assert float(regret.max()) <= bound <= (2 * math.sqrt(3) if points else 1) * horizon


def test_for_multiples_of_the_identity_the_guarantee_is_that_of_the_theorems():
    horizon, norm = 400, math.sqrt(3)
    step = 1 / (norm * math.sqrt(horizon))
    for style in ("euclidean", "metric"):
        got = guarantee(trained(step * np.eye(3), play=style), UNIT, horizon)
        assert got.regret == pytest.approx(norm * math.sqrt(horizon), rel=1e-6)
    hedge = trained(math.sqrt(8 * math.log(3) / horizon) * np.eye(3), Softmax(0.0))
    assert guarantee(hedge, UNIT, horizon).regret == pytest.approx(math.sqrt(horizon * math.log(3) / 2), rel=1e-6)
    anytime = trained(np.eye(3) / (math.sqrt(2) * norm), attention="anytime")
    bound = guarantee(anytime, UNIT, horizon).regret
    assert 0.95 * math.sqrt(2) * norm * math.sqrt(horizon) < bound <= math.sqrt(2) * norm * math.sqrt(horizon)


def test_errors_cost_little_by_the_norm_and_much_without_it():
    horizon, norm = 1600, 1.0
    value = (np.eye(2) + 0.1 * np.asarray([[0, 1], [-1, 0]])) / math.sqrt(horizon)
    by_norm, projected = (bound(value, "linear", 1.0, norm, horizon) for bound in (metric_bound, euclidean_bound))
    assert by_norm == pytest.approx(math.sqrt(horizon), rel=1e-6)
    # One of the corollary's terms is linear in the horizon.
    corollary = 0.5 + 0.5 * 1.1**2 + 2 * 0.1 * math.sqrt(horizon)
    assert projected == pytest.approx(math.sqrt(horizon) * corollary, rel=0.01)
    assert metric_bound(-value, "linear", 1.0, norm, horizon) == math.inf


def test_the_spread_of_rewards_is_that_of_the_worst_corner():
    matrix, rewards = RNG.normal(size=(3, 3)), Rewards(-0.5, 2.0)
    corners = np.stack(np.meshgrid(*[rewards] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = corners @ matrix.T
    assert rewards.spread(matrix) == pytest.approx(float(np.ptp(seen, axis=1).max()))
    assert rewards.norm(3) == pytest.approx(float(np.linalg.norm(corners, axis=1).max()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: guarantee(trained(np.eye(3)), UNIT, 0), "got horizon=0"),
        (lambda: guarantee("hedge", UNIT, 5), "got agent str, need a single layer"),
        (
            lambda: guarantee(BanditSingleLayer.create(jax.random.key(0), SingleLayer(), 3), UNIT, 5),
            "got agent BanditSingleLayer",
        ),
        (lambda: guarantee(trained(np.eye(3), Identity(0.0)), UNIT, 5), "got decision_map='identity'"),
        (lambda: guarantee(trained(np.eye(3), Softmax(0.5)), UNIT, 5), "exploration_std=0.5"),
        (
            lambda: guarantee(dataclasses.replace(trained(np.eye(3)), params={
                **trained(np.eye(3)).params, "v": jnp.ones(3)}), UNIT, 5),
            "got attention that depends on the rewards",
        ),
        (lambda: bounded_rewards(Stationary(noise="gaussian")), "try noise='bernoulli'"),
        # Their range is where most rewards lie, which is no bound.
        (lambda: bounded_rewards(Stationary(prior="gaussian", noise="none")), "with noise='none'"),
        (lambda: bounded_rewards(Stationary(prior="gaussian", noise="uniform")), "with noise='uniform'"),
    ],
)  # fmt: skip
def test_what_has_no_guarantee_is_refused(make, message):
    with pytest.raises(ConfigError, match=r".*") as caught:
        make()
    assert message in str(caught.value)


def test_a_policy_of_no_use_is_guaranteed_what_anything_is():
    assert guarantee(trained(np.zeros((3, 3))), UNIT, 10).regret == pytest.approx(20 * math.sqrt(3))
    assert guarantee(trained(np.zeros((3, 3)), Softmax(0.0)), UNIT, 10).regret == 10.0


def test_evaluation_prints_the_guarantee(tmp_path, capsys):
    from rmft_jax.cli import main

    out = tmp_path / "run"
    words = ["train", "single-layer", "--out", str(out), "--noise", "bernoulli", "--prior", "uniform"]
    words += ["--horizon", "10"]
    words += ["--num-iterations", "2", "--chunk-size", "1", "--num-scenarios", "32", "--decision-map", "identity"]
    assert main([*words, "--play", "metric", "--num-test-scenarios", "8", "--num-validation-scenarios", "8"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--num-scenarios", "8"]) == 0
    assert "guarantee: regret is at most" in (shown := capsys.readouterr().out)
    assert "on every 10 rounds of rewards in [0, 1]" in shown
