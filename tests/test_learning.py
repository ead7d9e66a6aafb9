"""Selection, objective and diagnostics: the small functions between a rollout and an update."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from rmft_jax.agents import BanditTransformer, FullInformationTransformer, Transformer
from rmft_jax.method.judging import Judged, KeptBatch, take_rollouts
from rmft_jax.method.objectives import entropy, squared_error
from rmft_jax.method.selection import Advantage, AtRandom, Selection, select_lowest
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Trajectory
from rmft_jax.statistics.diagnostics import greedy_frac, last_best_round, min_frac, played_rank, suff_fail
from rmft_jax.statistics.growth import suff_fail_freq

CONFIG = Transformer(num_layers=1, width=8)
AGENT = BanditTransformer.create(jax.random.key(0), CONFIG, 3, 5)
FULL = FullInformationTransformer.create(jax.random.key(0), CONFIG, 3, 5)


@jax.jit
def loss_and_grads(params, data: KeptBatch, entropy_weight: float):
    def loss(params):
        agent = dataclasses.replace(AGENT, params=params)
        config = RMFTConfig().replace(entropy_weight=entropy_weight)
        losses = jax.vmap(functools.partial(config.objective.round_losses, config, agent))(data)
        return jnp.sum(data.weights * losses)

    return jax.value_and_grad(loss)(params)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 4, 6]), st.data())
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


def slow_selection(selection: str, regret: np.ndarray, reward: np.ndarray, k: int):
    """Numbers of the kept rollouts, counted through all scenarios; the first ones among equals."""
    numbers = np.arange(regret.size).reshape(regret.shape)
    if selection == "pooled":
        return sorted(numbers.flat, key=lambda n: regret.flat[n])[: k * len(regret)]
    if selection == "advantage":
        relative = regret - regret.mean(axis=1, keepdims=True)
        return sorted(numbers.flat, key=lambda n: relative.flat[n])[: k * len(regret)]
    score = -reward if selection == "reward" else regret
    return [n for row in numbers for n in sorted(row, key=lambda n: score.flat[n])[:k]]


def judged(final_regret: np.ndarray, total_reward: np.ndarray) -> Judged:
    """Rollouts of which nothing but this is known."""
    final, reward = jnp.asarray(final_regret), jnp.asarray(total_reward)
    nothing = jnp.zeros((*final.shape, 1))
    mask = jnp.ones((*final.shape, 1), bool)
    played = Trajectory(nothing, nothing, *[nothing[..., None]] * 3, scores=None, arm_mask=mask)
    return Judged(played, final[..., None], final, reward, final)


@pytest.mark.parametrize("selection", ["regret", "advantage", "reward", "pooled"])
def test_each_selection_equals_its_slow_twin(selection):
    rng = np.random.default_rng(0)
    regret, reward = (rng.integers(0, 9, (9, 8)).astype(np.float32) for _ in range(2))
    kept = Selection.register[selection].choice.keep(jax.random.key(0), judged(regret, reward))
    expected = slow_selection(selection, regret, reward, 2)
    table = rng.random((9, 8, 2)).astype(np.float32)
    taken = take_rollouts({"regret": jnp.asarray(regret), "table": jnp.asarray(table)}, kept)
    np.testing.assert_array_equal(taken["regret"], regret.reshape(-1)[expected])
    np.testing.assert_array_equal(taken["table"], table.reshape(-1, 2)[expected])


def test_a_random_selection_keeps_every_rollout_equally_often_whatever_it_did():
    regret = np.tile(np.arange(4.0, dtype=np.float32), (3000, 1))
    all_alike = judged(regret, -regret)
    kept, other = (np.asarray(AtRandom(k=2).keep(jax.random.key(seed), all_alike)) for seed in (0, 1))
    assert (kept[:, 0] != kept[:, 1]).all()
    np.testing.assert_allclose(np.bincount(kept.reshape(-1), minlength=4), 1500, atol=5 * np.sqrt(3000 / 4))
    assert (other != kept).any()


@pytest.mark.parametrize("tau", [0.3, 1.0, 1e4])
def test_chance_keeps_advantages_by_exponential_odds(tau):
    """The closed form of a large sample: kept are those whose perturbed advantage exceeds a common threshold."""
    levels, scenarios = np.arange(16) // 4, 4000
    regret = np.tile(levels.astype(np.float32), (scenarios, 1))
    kept = np.asarray(Advantage(k=2, selection_temperature=tau).keep(jax.random.key(3), judged(regret, regret)))
    found = np.bincount(levels[kept.reshape(-1) % 16], minlength=4) / (4 * scenarios)

    def shares(threshold):
        return -np.expm1(-np.exp((levels.mean() - np.arange(4)) / tau - threshold))

    expected = shares(optimize.brentq(lambda threshold: shares(threshold).mean() - 2 / 16, -50.0, 50.0))
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / (4 * scenarios)))
    assert len(set(kept.reshape(-1))) == 2 * scenarios
    if tau == 0.3:
        assert found[0] > 10 * found[2]


def batch(weights=None, mask=(True, True, True)) -> KeptBatch:
    keys = jax.random.split(jax.random.key(1), 4)
    actions = 2 * jax.random.randint(keys[0], (4, 5), 0, 2)
    present = jnp.tile(jnp.asarray(mask), (4, 1))
    tables = [jnp.where(present[:, None], jax.random.normal(key, (4, 5, 3)), 0.0) for key in keys[1:3]]
    policies = jax.nn.softmax(jnp.where(present[:, None], jax.random.normal(keys[3], (4, 5, 3)), -jnp.inf))
    rewards = jnp.take_along_axis(tables[0], actions[..., None], axis=-1)[..., 0]
    trajectory = Trajectory(actions, rewards, policies, tables[0], tables[0], tables[1], present)
    return KeptBatch(trajectory, jnp.ones((4, 5)) if weights is None else weights)


def test_the_bandit_loss_is_cross_entropy_minus_entropy():
    weights = jax.random.uniform(jax.random.key(2), (4, 5))
    data, expected = batch(weights), 0.0
    for b, rows in enumerate(jax.jit(jax.vmap(AGENT.outputs))(data.trajectory)):
        for t, logits in enumerate(np.asarray(rows, np.float64)):
            p = np.exp(logits) / np.exp(logits).sum()
            expected += weights[b, t] * (-np.log(p[data.trajectory.actions[b, t]]) + 0.3 * (p * np.log(p)).sum())
    loss, _ = loss_and_grads(AGENT.params, data, 0.3)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("mask", [(True, True, True), (True, False, True)])
def test_the_squared_error_equals_its_slow_twin(mask):
    data = batch(mask=mask).trajectory
    arms, scores = np.flatnonzero(mask), np.asarray(data.scores)
    z = np.asarray(jax.jit(jax.vmap(FULL.outputs))(data), np.float64)
    squares = jax.jit(jax.vmap(lambda trajectory: squared_error(FULL.outputs(trajectory), trajectory)))(data)
    for b in range(4):
        for t in range(5):
            row = z[b, t, arms]
            square = 0.5 * sum((row - scores[b, t, arms]) ** 2)
            assert float(squares[b, t]) == pytest.approx(float(square), rel=1e-4)


def test_the_squared_error_leaves_the_gradient_finite_with_absent_arms():
    data = batch(mask=(True, False, True)).trajectory

    def total(params):
        agent = dataclasses.replace(FULL, params=params)
        return jnp.sum(jax.vmap(lambda t: squared_error(agent.outputs(t), t))(data))

    grads = jax.jit(jax.grad(total))(FULL.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads))


def test_rounds_without_weight_teach_nothing():
    data = batch(jnp.zeros((4, 5)).at[:, 1].set(1.0))
    past = data.trajectory
    loss, grads = loss_and_grads(AGENT.params, data, 0.1)
    # Round 1 sees the decision of round 0 and is itself imitated; nothing after it may count.
    late = dataclasses.replace(past, actions=past.actions.at[:, 2:].set(1), rewards=past.rewards.at[:, 1:].set(9.0))
    other_loss, other_grads = loss_and_grads(AGENT.params, dataclasses.replace(data, trajectory=late), 0.1)
    assert loss == other_loss
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    early = dataclasses.replace(data, trajectory=dataclasses.replace(past, actions=past.actions.at[:, 0].set(1)))
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


def changing(actions, means, mask=None) -> Trajectory:
    """A play of problems whose means change, `means[t][a]`."""
    play = made(actions, [0.0] * len(actions), means[0], mask)
    return dataclasses.replace(play, mean_rewards=jnp.asarray(means))


def test_suffix_failure():
    play = made([0, 1, 0, 1, 1, 1], [0.0] * 6, [0.9, 0.1])
    assert [bool(suff_fail(play, t)) for t in range(1, 7)] == [False, False, False, True, True, True]
    tied = made([0, 1, 1, 1], [0.0] * 4, [0.5, 0.5])
    assert not suff_fail(tied, 3)
    never = made([1, 1, 1], [0.0] * 3, [0.9, 0.1])
    assert int(last_best_round(never)) == 0
    assert suff_fail(never, 1)


def test_the_best_arm_is_that_of_the_round():
    play = changing([0, 0, 1, 1], [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    assert int(last_best_round(play)) == 3
    np.testing.assert_array_equal(played_rank(play), [0, 1, 0, 1])
    # An arm that does not exist is no better one, whatever its entry in the table.
    masked = changing([1, 1], [[0.0, -0.5, -0.9], [0.0, -0.9, -0.5]], [False, True, True])
    np.testing.assert_array_equal(played_rank(masked), [0, 1])
    assert int(last_best_round(masked)) == 1


MEANS = st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=3, max_size=3)


def of_some_lengths(rounds: st.SearchStrategy, *lengths: int) -> st.SearchStrategy:
    """Lists of few lengths, because every length is compiled."""
    return st.sampled_from(lengths).flatmap(lambda n: st.lists(rounds, min_size=n, max_size=n))


@jax.jit
def measured(play: Trajectory):
    rounds = jnp.arange(1, len(play.actions) + 1)
    failures = jax.vmap(lambda t: suff_fail(play, t))(rounds)
    return played_rank(play), last_best_round(play), failures


compiled_greedy_frac = jax.jit(greedy_frac)


@settings(deadline=None, max_examples=30)
@given(of_some_lengths(st.tuples(st.integers(0, 2), MEANS), 1, 4, 8))
def test_ranks_and_suffix_failures_equal_their_slow_twins(rounds):
    actions, means = map(list, zip(*rounds, strict=True))
    play = changing(actions, means)
    ranks = [sum(other > row[a] for other in row) for a, row in rounds]
    last = max([t for t, rank in enumerate(ranks, start=1) if rank == 0], default=0)
    found, last_best, failed = measured(play)
    np.testing.assert_array_equal(found, ranks)
    assert int(last_best) == last
    failures = failed.tolist()
    assert failures == [0 not in ranks[t - 1 :] for t in range(1, len(rounds) + 1)]
    assert failures == sorted(failures)
    np.testing.assert_array_equal(suff_fail_freq(np.asarray([last]), len(rounds)), failures)


def test_batches_of_plays_are_measured_one_by_one():
    keys = jax.random.split(jax.random.key(0), 3)
    means = jax.random.randint(keys[0], (4, 6, 7, 3), 0, 3) / 2
    play = Trajectory(
        actions=jax.random.randint(keys[1], (4, 6, 7), 0, 3),
        rewards=jnp.zeros((4, 6, 7)),
        probabilities=means,
        mean_rewards=means,
        reward_table=means,
        scores=None,
        arm_mask=jnp.ones((4, 6, 3), bool),
    )
    for measure in (last_best_round, played_rank, min_frac):
        one_by_one = jax.vmap(jax.vmap(measure))(play)
        np.testing.assert_allclose(jax.jit(measure)(play), one_by_one, rtol=1e-6)
    assert last_best_round(play).shape == (4, 6)
    assert played_rank(play).shape == (4, 6, 7)


def test_min_frac_counts_existing_arms_only():
    play = made([0, 1, 0, 1, 0, 0], [0.0] * 6, [0.5, 0.2])
    assert float(min_frac(play)) == pytest.approx(2 * 2 / 6)
    assert [float(min_frac(play, t)) for t in (1, 2, 4, 6)] == pytest.approx([0.0, 1.0, 1.0, 2 * 2 / 6])
    masked = made([0, 2, 0, 2], [0.0] * 4, [0.5, 0.0, 0.2], [True, False, True])
    assert float(min_frac(masked)) == pytest.approx(2 * 2 / 4)


@settings(deadline=None, max_examples=40)
@given(of_some_lengths(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])), 2, 5, 9))
def test_greedy_frac_equals_its_slow_twin(rounds):
    seen: list[list[float]] = [[], [], []]
    greedy = []
    for t, (action, reward) in enumerate(rounds):
        if t > 0:
            best = max(sum(s) / len(s) for s in seen if s)
            greedy.append(bool(seen[action]) and sum(seen[action]) / len(seen[action]) >= best - 1e-7)
        seen[action].append(reward)
    actions, rewards = zip(*rounds, strict=True)
    assert float(compiled_greedy_frac(made(actions, rewards, [0.1, 0.2, 0.3]))) == pytest.approx(np.mean(greedy))
