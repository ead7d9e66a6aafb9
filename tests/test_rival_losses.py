"""The losses and advantages of the rivals of RMFT, each against its definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BanditTransformer, FullInformationTransformer, Transformer
from rmft_jax.method.advantages import grpo_advantages, regret_to_go, reinforce_advantages
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.objectives import GRPO, best_arm_loss
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Stationary, Trajectory
from worlds import TINY_RUN

KEY = jax.random.key(0)
TINY = TINY_RUN.rmft
ARMS, HORIZON = 3, 5
FULL = TINY.replace(
    environment=Stationary(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    branching="none",
    entropy_weight=0.0,
)
ALL_KEPT = TINY.replace(k=TINY.num_rollouts)


def past(seed: int = 0, mask=(True, True, True), means=None) -> Trajectory:
    """A trajectory that nobody played."""
    rng = np.random.default_rng(seed)
    present = np.asarray(mask)
    arms = np.flatnonzero(present)
    table, means_, scores = (np.where(present, rng.normal(size=(HORIZON, ARMS)), 0.0) for _ in range(3))
    weights = np.where(present, rng.uniform(0.5, 1.0, (HORIZON, ARMS)), 0.0)
    actions = rng.choice(arms, HORIZON)
    arrays = (
        table[np.arange(HORIZON), actions],
        weights / weights.sum(-1, keepdims=True),
        means_ if means is None else means,
        table,
        scores,
    )
    return Trajectory(jnp.asarray(actions), *(jnp.asarray(a, jnp.float32) for a in arrays), arm_mask=jnp.asarray(mask))


def log_softmax(outputs) -> np.ndarray:
    outputs = np.asarray(outputs, np.float64)
    return outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))


OUTPUTS = jnp.asarray(np.random.default_rng(9).normal(size=(HORIZON, ARMS)), jnp.float32)


def test_the_best_arm_is_that_of_the_round_or_that_in_hindsight():
    row, log_probs = past(), log_softmax(OUTPUTS)
    per_round = [-log_probs[t, np.argmax(row.mean_rewards[t])] for t in range(HORIZON)]
    np.testing.assert_allclose(best_arm_loss(OUTPUTS, row), per_round, rtol=1e-5)
    best = int(np.argmax(np.asarray(row.reward_table).sum(0)))
    np.testing.assert_allclose(best_arm_loss(OUTPUTS, row, in_hindsight=True), -log_probs[:, best], rtol=1e-5)


def test_an_absent_arm_is_never_the_best():
    means = np.tile([-1.0, 0.0, -2.0], (HORIZON, 1))  # What is absent holds 0.
    row = past(mask=(True, False, True), means=means)
    outputs = jnp.where(row.arm_mask, OUTPUTS, -jnp.inf)
    np.testing.assert_allclose(best_arm_loss(outputs, row), -log_softmax(outputs)[:, 0], rtol=1e-5)


def test_the_clipped_loss_equals_its_slow_twin():
    row, log_probs = past(), log_softmax(OUTPUTS)
    advantages = np.asarray([2.0, -1.0, 0.5, -3.0, 1.0])
    kept = KeptBatch(row, jnp.ones(HORIZON), jnp.asarray(advantages))
    losses, ratios = GRPO().losses(OUTPUTS, kept, RMFTConfig()), []
    for t, action in enumerate(np.asarray(row.actions)):
        ratio = np.exp(log_probs[t, action]) / float(row.probabilities[t, action])
        ratios.append(ratio)
        expected = -min(ratio * advantages[t], min(max(ratio, 0.8), 1.2) * advantages[t])
        assert float(losses[t]) == pytest.approx(expected, rel=1e-5)
    assert min(ratios) < 0.8, "the test must meet the clipping"
    assert max(ratios) > 1.2


@pytest.mark.parametrize("decision_map", ["softmax", "ball"])
def test_the_regret_loss_is_the_squared_regret_of_the_policy(decision_map):
    config = FULL.replace(objective="regret_loss", decision_map=decision_map, horizon=HORIZON)
    if decision_map == "ball":
        config = config.replace(radius=2.0)
    agent = config.agent(config.init_params(KEY))
    assert isinstance(agent, FullInformationTransformer)
    row = past()
    z, table = np.asarray(agent.outputs(row), np.float64), np.asarray(row.reward_table, np.float64)
    if decision_map == "softmax":
        regret = table.sum(0).max() - (np.exp(log_softmax(z)) * table).sum()
    else:
        points = z * np.minimum(1.0, 2.0 / np.linalg.norm(z, axis=-1, keepdims=True))
        regret = 2.0 * np.linalg.norm(table.sum(0)) - (points * table).sum()
    assert regret > 0
    losses = round_losses(config, agent, row)
    np.testing.assert_allclose(losses, np.full(HORIZON, regret**2 / HORIZON), rtol=1e-4)


@jax.jit
def round_losses(config, agent, row, advantages=None, reference=None):
    kept = KeptBatch(row, jnp.ones(len(row.actions)), advantages)
    return config.objective.round_losses(config, agent, kept, reference)


def slow_advantages(regret: np.ndarray) -> np.ndarray:
    num_scenarios, num_rollouts, horizon = regret.shape
    found = np.zeros(regret.shape)
    for m in range(num_scenarios):
        for i in range(num_rollouts):
            for t in range(horizon):
                ahead = [regret[m, j, -1] - (regret[m, j, t - 1] if t else 0.0) for j in range(num_rollouts)]
                others = [ahead[j] for j in range(num_rollouts) if j != i]
                found[m, i, t] = np.mean(others) - ahead[i]
    return found


def test_advantages_equal_their_slow_twins():
    regret = np.cumsum(np.random.default_rng(1).uniform(0, 1, (4, 3, HORIZON)), axis=-1)
    final = regret[..., -1]
    slow = slow_advantages(regret)
    found = reinforce_advantages(jnp.asarray(regret), jnp.asarray(final), jnp.ones(regret.shape, bool))
    np.testing.assert_allclose(found, slow / np.sqrt((slow**2).mean()), rtol=1e-4, atol=1e-5)
    z = -(final - final.mean(1, keepdims=True)) / final.std(1, keepdims=True)
    expected = np.repeat(z[..., None], HORIZON, axis=-1)
    np.testing.assert_allclose(grpo_advantages(jnp.asarray(regret), jnp.asarray(final)), expected, rtol=1e-3, atol=1e-5)
    ahead = regret_to_go(jnp.asarray(regret), jnp.asarray(final))
    np.testing.assert_allclose(ahead[..., 0], final, rtol=1e-6)
    np.testing.assert_allclose(ahead[..., -1], regret[..., -1] - regret[..., -2], rtol=1e-4)


def test_rounds_that_are_not_played_change_no_advantage():
    regret = jnp.asarray(np.cumsum(np.random.default_rng(2).uniform(0, 1, (4, 3, HORIZON)), axis=-1), jnp.float32)
    played = jnp.broadcast_to(jnp.arange(HORIZON) < HORIZON - 2, regret.shape)
    part, final = regret[..., :-2], regret[..., -3]
    alone = reinforce_advantages(part, final, jnp.ones(part.shape, bool))
    np.testing.assert_allclose(reinforce_advantages(regret, final, played)[..., :-2], alone, rtol=1e-5)


@pytest.mark.parametrize("num_rollouts", [3, 5, 6, 7, 10, 16])
def test_rollouts_that_fared_alike_teach_nothing(num_rollouts):
    """The mean of equal numbers may be rounded to another one, and the same pulls be summed in another order."""
    final = jnp.asarray(np.random.default_rng(0).uniform(0, 20, (200, 1)), jnp.float32)
    regret = jnp.broadcast_to(final[..., None], (200, num_rollouts, HORIZON))
    np.testing.assert_array_equal(grpo_advantages(regret, regret[..., -1]), 0.0)
    played = jnp.ones(regret.shape, bool)
    assert float(jnp.abs(reinforce_advantages(0.0 * regret, 0.0 * regret[..., -1], played)).max()) == 0.0
    rounded = regret[..., -1] * (1 + 1e-7 * jnp.arange(num_rollouts)[None, :])
    assert float(jnp.abs(grpo_advantages(regret, rounded)).max()) < 0.2


def test_the_policy_gradient_is_that_of_the_expected_regret():
    """One round, two arms: the gradient of the expected regret in the logits is p (1 - p) times the gap."""
    agent = BanditTransformer.create(KEY, Transformer(num_layers=1, width=8), 2, 1)
    config = ALL_KEPT.replace(environment=Stationary(num_arms=2), objective="reinforce", entropy_weight=0.0)
    bias = jnp.asarray([0.4, 0.0])
    p = float(jax.nn.softmax(bias)[0])
    draws = 40_000
    actions = jax.random.bernoulli(jax.random.key(3), 1 - p, (draws, 2, 1)).astype(jnp.int32)
    regret = actions.astype(jnp.float32) * 0.5  # Arm 1 loses half a unit.
    scaled = reinforce_advantages(regret, regret[..., -1], jnp.ones(regret.shape, bool))
    plain = (jnp.mean(regret, 1, keepdims=True) - regret) * 2
    scale = float(jnp.sqrt(jnp.mean(plain**2)))

    def loss(bias):
        head = {"kernel": jnp.zeros_like(agent.params["out"]["kernel"]), "bias": bias}
        learner = dataclasses.replace(agent, params=agent.params | {"out": head})

        def one(actions, advantages):
            table = jnp.zeros((1, 2))
            row = Trajectory(actions, jnp.zeros(1), table, table, table, None, jnp.ones(2, bool))
            return round_losses(config, learner, row, advantages)[0]

        return jnp.mean(jax.vmap(one)(actions.reshape(-1, 1), scaled.reshape(-1, 1))) * scale

    gradient = jax.jit(jax.grad(loss))(bias)
    assert float(gradient[1]) == pytest.approx(p * (1 - p) * 0.5, abs=4e-3)
    assert float(gradient[0]) == pytest.approx(-p * (1 - p) * 0.5, abs=4e-3)


def test_the_pull_towards_a_reference_is_its_divergence():
    agent = BanditTransformer.create(KEY, Transformer(num_layers=1, width=8), ARMS, HORIZON)
    other = BanditTransformer.create(jax.random.key(5), Transformer(num_layers=1, width=8), ARMS, HORIZON)
    row, config = past(), TINY.replace(entropy_weight=0.0)
    plain = np.asarray(round_losses(config, agent, row))
    log_probs = log_softmax(agent.outputs(row))
    for kind, target in (("previous", row.probabilities), ("initial", np.exp(log_softmax(other.outputs(row))))):
        config = config.replace(kl_reference=kind, kl_weight=0.7)
        pulled = round_losses(config, agent, row, reference=other if kind == "initial" else None)
        p = np.asarray(target, np.float64)
        np.testing.assert_allclose(pulled - plain, 0.7 * (p * (np.log(p) - log_probs)).sum(-1), rtol=1e-3, atol=1e-5)
    masked, config = past(mask=(True, False, True)), TINY.replace(kl_reference="previous", kl_weight=0.7)
    losses, gradient = jax.value_and_grad(
        lambda params: round_losses(config, dataclasses.replace(agent, params=params), masked).sum()
    )(agent.params)
    assert np.isfinite(losses)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
