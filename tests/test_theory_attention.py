"""Length-normalised attention: its closed forms against slow simulation, its rows, and the errors they must notice."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import FullInformationSingleLayer, SingleLayer
from rmft_jax.agents.single_layer import Attention
from rmft_jax.problems.types import Trajectory
from theory import anytime, attention, theorem1
from theory.statement import Effort, Row, sabotaged

ERRORS = [
    *(f"{name}{sign}" for name in ("attention_alpha", "attention_beta", "attention_step") for sign in "+-"),
    *(f"{name}{sign}" for name in ("alternating_loss", "constant_loss") for sign in "+-"),
    *("lopsided", "turned", "attention_even_part"),
    *("anytime_bound_half", "anytime_bound_fixed", "softmax_bound_logarithm"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_quadrature_each():
    """No error is planted here in what is integrated, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("order_statistic_mean", "beta"):
            patch.setattr(attention, name, functools.cache(getattr(attention, name)))
        yield


def g(name: str, t: int) -> float:
    return {"linear": 1.0, "anytime": math.sqrt(t), "softmax": max(t - 1.0, 1.0)}[name]


@pytest.mark.parametrize(("name", "num_arms", "tau", "nu"), [("anytime", 2, 1.0, 0.3), ("softmax", 3, 0.7, 1.0)])
def test_alpha_and_beta_of_the_features_agree_with_simulation(name, num_arms, tau, nu):
    rng, horizon, count = np.random.default_rng(3), 6, 60_000
    means = tau * rng.normal(size=(count, 1, num_arms))
    rewards = means + nu * rng.normal(size=(count, horizon, num_arms))
    norms = np.sqrt(np.sum(rewards**2, axis=(1, 2)))
    alphas, betas, sums = np.zeros(count), np.zeros(count), np.zeros((count, num_arms))
    for t in range(1, horizon + 1):
        features = sums / g(name, t)
        alphas += np.sum(features**2, axis=1) / num_arms
        betas += np.sum(features * rewards[:, t - 1], axis=1) / norms / num_arms
        sums += rewards[:, t - 1]
    predicted = (
        attention.attention_alpha(name, horizon, tau, nu),
        attention.attention_beta(name, num_arms, horizon, tau, nu),
    )
    for expected, values in zip(predicted, (alphas, betas), strict=True):
        assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(count)


def test_linear_attention_has_the_constants_of_theorem_1():
    config = attention.SETTINGS[3, "linear"]
    assert attention.attention_alpha("linear", 7, 0.7, 1.0) == pytest.approx(theorem1.alpha(7, 0.7, 1.0))
    assert attention.attention_beta("linear", 3, 7, 0.7, 1.0) == pytest.approx(theorem1.beta(3, 7, 0.7, 1.0))
    assert attention.attention_step(config) == pytest.approx(theorem1.step_per_iteration(config))


def test_softmax_attention_has_the_constants_of_the_statement():
    tau, nu, horizon = 0.7, 0.4, 9
    harmonic = sum(1 / s for s in range(1, horizon))
    alpha = nu**2 * harmonic + tau**2 * (horizon - 1)
    assert attention.attention_alpha("softmax", horizon, tau, nu) == pytest.approx(alpha)
    ratio = attention.attention_beta("softmax", 3, horizon, tau, nu) / attention.beta(3, horizon, tau, nu)
    assert ratio == pytest.approx(2 / horizon)


def loss(name: str, step: float, rewards: np.ndarray) -> float:
    """Regret in the unit ball, by a loop."""
    total, earned = np.zeros(rewards.shape[1]), 0.0
    for t, reward in enumerate(rewards, start=1):
        point = step * total / g(name, t)
        earned += float(point / max(1.0, float(np.linalg.norm(point))) @ reward)
        total += reward
    return float(np.linalg.norm(total)) - earned


@pytest.mark.parametrize(("name", "step"), [*itertools.product(attention.ATTENTIONS, (0.1, 1.0, 5.0))])
def test_regret_on_the_alternating_sequence_is_that_of_a_loop(name, step):
    rewards = anytime.alternating_sequence()[:60]
    assert np.linalg.norm(rewards, axis=1) == pytest.approx(np.r_[0.5, np.ones(59)])
    assert anytime.alternating_loss(name, step, 60) == pytest.approx(loss(name, step, rewards))


@pytest.mark.parametrize("step", [0.5, 4.0])
def test_regret_on_constant_rewards_is_that_of_a_loop(step):
    rewards = anytime.constant_sequence(1 / (2 * step))[:80]
    assert anytime.constant_loss(step, 80) == pytest.approx(loss("softmax", step, rewards))


def test_no_step_saves_softmax_attention_from_the_logarithm():
    for horizon, step in itertools.product((2, 10, 400, 20_000), np.geomspace(1e-3, 1e6, 60)):
        size = min(1.0, 1 / (2 * step))
        constant = size * horizon - (horizon - 1) * step * size**2
        largest = max(constant, anytime.alternating_loss("softmax", step, horizon))
        assert largest >= math.sqrt(horizon * math.log(horizon) / 32)


@pytest.mark.parametrize("horizon", [2, 10, 400, 3200])
def test_the_bounds_are_those_of_the_sums(horizon):
    t, bounds = np.arange(1, horizon + 1), {}
    steps: dict[Attention, float] = {"anytime": anytime.BEST, "softmax": anytime.softmax_step(horizon)}
    for name, step in steps.items():
        lengths = attention.lengths(name, horizon)
        bounds[name] = lengths[-1] / (2 * step) + step / 2 * np.sum(1 / lengths)
        assert lengths == pytest.approx([g(name, s) for s in t])
    assert 0.8 * math.sqrt(2 * horizon) < bounds["anytime"] <= anytime.anytime_bound(anytime.BEST, horizon)
    assert anytime.anytime_bound(anytime.BEST, horizon) == pytest.approx(math.sqrt(2 * horizon))
    assert 0.8 * anytime.softmax_bound(horizon) < bounds["softmax"] <= anytime.softmax_bound(horizon)
    value = anytime.BEST * np.eye(3) + np.asarray([[0, 0.2, 0], [-0.2, 0, 0], [0, 0, 0]])
    assert anytime.own_bound(value, horizon) == pytest.approx(bounds["anytime"]), "turning does not matter"


@pytest.mark.parametrize("name", ["anytime", "softmax"])
def test_the_layer_itself_loses_what_is_known(name):
    steps = (0.5, 3.0)
    found = anytime.known_regrets(name, steps, [anytime.alternating_sequence()] * 2)
    expected = [[anytime.alternating_loss(name, step, T) for T in anytime.HORIZONS] for step in steps]
    assert found == pytest.approx(np.asarray(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["linear", "anytime"])
def test_a_free_layer_is_linear_in_the_lifted_features(name):
    """`z = (b V + v a') S + V M a + (t - 1) b v`, all over g, as the proof of B4 says."""
    rng, horizon = np.random.default_rng(5), 7
    rewards = rng.normal(size=(horizon, 3))
    agent = FullInformationSingleLayer.create(jax.random.key(0), SingleLayer(attention=name, key_size=2), 3)
    shapes = {key: value.shape for key, value in agent.params.items()}
    params = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    query = params["Q"] @ params["c"] + params["q"]
    a, b, V, v = params["K"].T @ query, params["kappa"] @ query, params["V"], params["v"]
    table = jnp.asarray(rewards, jnp.float32)
    played = Trajectory(
        jnp.zeros(horizon, int), table[:, 0], table, table, table, None, jnp.ones(3, bool), jnp.ones(horizon, bool)
    )
    layer = FullInformationSingleLayer(agent.config, 3, {key: jnp.asarray(x, jnp.float32) for key, x in params.items()})
    products, counts = np.split(attention.even_features(rewards[None])[0], [6], axis=1)
    i, j = np.triu_indices(3)
    moments = np.zeros((horizon, 3, 3))
    moments[:, i, j] = moments[:, j, i] = products
    sums = attention.past_sums(rewards[None])[0]
    expected = sums @ (b * V + np.outer(v, a)).T + moments @ a @ V.T + counts * b * v
    lengths = attention.lengths(name, horizon)[:, None]
    assert np.asarray(layer.outputs(played)) == pytest.approx(expected / lengths, rel=1e-3, abs=1e-3)


def test_the_lifted_fit_finds_the_step_and_nothing_else(monkeypatch):
    monkeypatch.setattr(attention, "LIFTED", attention.LIFTED.replace(num_scenarios=1024))
    sums, even, size = attention.lifted_fit(4, Effort())
    eta = attention.attention_step(attention.LIFTED)
    assert sums.mean(axis=0) == pytest.approx(eta * np.eye(3), abs=0.15 * eta)
    assert np.abs(even.mean(axis=0)).max() < 0.15 * eta * size


def _around(mean: np.ndarray, count: int, size: float) -> np.ndarray:
    """Samples that deviate from the mean, by nothing on average."""
    noise = np.random.default_rng(7).normal(size=(count, *np.shape(mean)))
    return mean + size * (noise - noise.mean(axis=0))


def ideal_attention() -> attention.Measured:
    """What the check would measure if it met its predictions."""
    paths = {}
    for (num_arms, name), config in attention.SETTINGS.items():
        eta, n = attention.attention_step(config), attention.NUM_ITERATIONS
        steps = _around(eta * np.eye(num_arms), 2 * n, 0.01 * eta).reshape(2, n, num_arms, num_arms)
        paths[num_arms, name] = np.cumsum(np.concatenate([np.zeros_like(steps[:, :1]), steps], axis=1), axis=1)
    eta = attention.attention_step(attention.LIFTED)
    lifted = attention.Lifted(_around(eta * np.eye(3), 8, 0.01 * eta), _around(np.zeros((3, 7)), 8, 0.01 * eta), 2.0)
    return attention.Measured(paths, lifted)


def ideal_anytime() -> anytime.Measured:
    """The same of the second statement; what has a bound alone is a part of it, as large as was measured."""
    step, last = 20 * attention.attention_step(anytime.TRAINING), anytime.HORIZONS[-1]
    spread = np.asarray([1.001, 0.999, 1.001, 0.999])[:, None, None]
    roots = np.sqrt(anytime.HORIZONS)[None, :, None]
    played = dict.fromkeys(anytime.OPPONENTS, 0.4 * roots * spread)
    steps: dict[Attention, float] = {
        "anytime": step, "linear": anytime.TUNED_FOR**-0.5, "softmax": anytime.softmax_step(last)
    }  # fmt: skip
    losses = {
        name: np.asarray([anytime.alternating_loss(name, w, T) for T in anytime.HORIZONS]) for name, w in steps.items()
    }
    played["alternating"], played["orthogonal"] = losses["anytime"][None, :, None] * spread, roots * spread
    constant = np.asarray([anytime.constant_loss(anytime.SOFTMAX_STEP, T) for T in anytime.HORIZONS])
    softmax = np.asarray([anytime.constant_loss(anytime.softmax_step(last), last), losses["softmax"][-1]])
    values = np.tile(step * np.eye(3), (4, 1, 1))
    return anytime.Measured(
        values, 20, played, dict.fromkeys(anytime.BY_NORM, roots * spread), losses["linear"], constant, softmax
    )


@pytest.fixture(scope="module")
def ideal():
    return {attention.STATEMENT: ideal_attention(), anytime.STATEMENT: ideal_anytime()}


def _rows(ideal) -> list[Row]:
    return [row for statement, measured in ideal.items() for row in statement.rows(measured)]


@pytest.fixture(scope="module")
def noticed(ideal):
    """By planted error, the rows that fail."""
    failing = {}
    for error in ERRORS:
        with sabotaged(error):
            failing[error] = {row.quantity for row in _rows(ideal) if not row.holds}
    return failing


def test_measurements_as_predicted_make_every_row_hold(ideal):
    rows = _rows(ideal)
    assert all(row.holds for row in rows), [row for row in rows if not row.holds]
    assert len({row.quantity for row in rows}) == len(rows)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_turns_a_row_red(noticed, error):
    assert noticed[error]


def test_every_row_has_an_error_that_turns_it_red(ideal, noticed):
    assert {row.quantity for row in _rows(ideal)} == set().union(*noticed.values())


def test_figures_are_drawn(ideal):
    for statement, measured in ideal.items():
        axes = statement.draw(measured).axes[0]
        assert axes.get_xlabel()
        assert axes.get_ylabel()
