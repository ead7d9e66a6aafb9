"""Selection, objective and diagnostics: the small functions between a rollout and an update."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft_jax.agents import TransformerAgent
from rmft_jax.config import TransformerConfig
from rmft_jax.diagnostics import greedy_frac, half_horizon, min_frac, suff_fail
from rmft_jax.objectives import entropy, imitation_loss
from rmft_jax.selection import select_lowest, take_rollouts
from rmft_jax.types import KeptBatch, Trajectory

AGENT = TransformerAgent.create(jax.random.key(0), TransformerConfig(num_layers=1, width=8), 3, 5)


@jax.jit
def loss_and_grads(params, data: KeptBatch, entropy_weight: float):
    def loss(params):
        return imitation_loss(dataclasses.replace(AGENT, params=params), data, entropy_weight)

    return jax.value_and_grad(loss)(params)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.data())
def test_selection_keeps_the_k_lowest_of_each_scenario(num_rollouts, data):
    k = data.draw(st.integers(1, num_rollouts))
    rows = st.lists(st.integers(0, 5), min_size=num_rollouts, max_size=num_rollouts)
    regret = np.asarray(data.draw(st.lists(rows, min_size=3, max_size=3)), np.float32)
    indices = select_lowest(jnp.asarray(regret), k)
    kept = np.asarray(indices)
    assert all(len(set(row)) == k for row in kept)
    np.testing.assert_array_equal(np.take_along_axis(regret, kept, 1), np.sort(regret, 1)[:, :k])
    wide = jnp.stack([jnp.asarray(regret)] * 2, axis=-1)
    taken = take_rollouts({"regret": jnp.asarray(regret), "wide": wide}, indices)
    np.testing.assert_array_equal(taken["regret"], np.take_along_axis(regret, kept, 1).reshape(-1))
    np.testing.assert_array_equal(taken["wide"][:, 1], taken["regret"])


def batch(weights=None, mask=(True, True, True)) -> KeptBatch:
    keys = jax.random.split(jax.random.key(1), 2)
    actions = 2 * jax.random.randint(keys[0], (4, 5), 0, 2)
    return KeptBatch(
        actions=actions,
        rewards=jax.random.normal(keys[1], (4, 5)),
        arm_mask=jnp.tile(jnp.asarray(mask), (4, 1)),
        weights=jnp.ones((4, 5)) if weights is None else weights,
    )


def test_the_loss_is_weighted_cross_entropy_minus_entropy():
    weights = jax.random.uniform(jax.random.key(2), (4, 5))
    data, expected = batch(weights), 0.0
    for b, rows in enumerate(jax.jit(jax.vmap(AGENT.logits))(data.actions, data.rewards, data.arm_mask)):
        for t, logits in enumerate(np.asarray(rows, np.float64)):
            p = np.exp(logits) / np.exp(logits).sum()
            expected += weights[b, t] * (-np.log(p[data.actions[b, t]]) + 0.3 * (p * np.log(p)).sum())
    loss, _ = loss_and_grads(AGENT.params, data, 0.3)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_rounds_without_weight_teach_nothing():
    data = batch(jnp.zeros((4, 5)).at[:, 1].set(1.0))
    loss, grads = loss_and_grads(AGENT.params, data, 0.1)
    # Round 1 sees the decision of round 0 and is itself imitated; nothing after it may count.
    late = dataclasses.replace(data, actions=data.actions.at[:, 2:].set(1), rewards=data.rewards.at[:, 1:].set(9.0))
    other_loss, other_grads = loss_and_grads(AGENT.params, late, 0.1)
    assert loss == other_loss
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    early = dataclasses.replace(data, actions=data.actions.at[:, 0].set(1))
    assert loss_and_grads(AGENT.params, early, 0.1)[0] != loss
    nothing, zero = loss_and_grads(AGENT.params, batch(jnp.zeros((4, 5))), 0.1)
    assert nothing == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(zero))


def test_absent_arms_leave_loss_and_gradient_finite():
    loss, grads = loss_and_grads(AGENT.params, batch(mask=(True, False, True)), 0.5)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_entropy():
    log_probs = jnp.log(jnp.asarray([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    np.testing.assert_allclose(entropy(log_probs), [np.log(4), 0.0, np.log(2)], atol=1e-6)


def made(actions, rewards, means, mask=None) -> Trajectory:
    actions, means = jnp.asarray(actions), jnp.asarray(means)
    table = jnp.tile(means, (len(actions), 1))
    present = jnp.ones(len(means), bool) if mask is None else jnp.asarray(mask)
    return Trajectory(actions, jnp.asarray(rewards), table, table, table, None, present)


def test_suffix_failure():
    play = made([0, 1, 0, 1, 1, 1], [0.0] * 6, [0.9, 0.1])
    assert [bool(suff_fail(play, t)) for t in range(1, 7)] == [False, False, False, True, True, True]
    tied = made([0, 1, 1, 1], [0.0] * 4, [0.5, 0.5])
    assert not suff_fail(tied, 3)
    assert [half_horizon(t) for t in (1, 2, 5, 50)] == [1, 1, 2, 25]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=8))
def test_suffix_failure_does_not_decrease_with_the_round(actions):
    play = made(actions, [0.0] * len(actions), [0.2, 0.9, 0.5])
    failures = [bool(suff_fail(play, t)) for t in range(1, len(actions) + 1)]
    assert failures == sorted(failures)


def test_min_frac_counts_existing_arms_only():
    assert float(min_frac(made([0, 1, 0, 1, 0, 0], [0.0] * 6, [0.5, 0.2]))) == pytest.approx(2 * 2 / 6)
    masked = made([0, 2, 0, 2], [0.0] * 4, [0.5, 0.0, 0.2], [True, False, True])
    assert float(min_frac(masked)) == pytest.approx(2 * 2 / 4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=9))
def test_greedy_frac_equals_its_slow_twin(rounds):
    seen: list[list[float]] = [[], [], []]
    greedy = []
    for t, (action, reward) in enumerate(rounds):
        if t > 0:
            best = max(sum(s) / len(s) for s in seen if s)
            greedy.append(bool(seen[action]) and sum(seen[action]) / len(seen[action]) >= best - 1e-7)
        seen[action].append(reward)
    actions, rewards = zip(*rounds, strict=True)
    assert float(greedy_frac(made(actions, rewards, [0.1, 0.2, 0.3]))) == pytest.approx(np.mean(greedy))
