import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rmft_jax.agents import BanditTransformer, FullInformationTransformer, Transformer, TransformerAgent
from rmft_jax.agents.network import CausalSelfAttention, empty_cache, graph_definition
from rmft_jax.config import ConfigError
from rmft_jax.problems import Ball, Context, DecisionMap, Identity, Simplex, Softmax, Trajectory

ARMS, HORIZON = 3, 9
ALL = jnp.ones(ARMS, bool)


KINDS = [BanditTransformer, FullInformationTransformer]
kinds = pytest.mark.parametrize("kind", KINDS, ids=["bandit", "full"])


def make_agent(kind: type[TransformerAgent] = BanditTransformer, horizon: int = HORIZON, **changes):
    config = Transformer(**{"num_layers": 1, "width": 16, "num_heads": 2, **changes})
    agent = kind.create(jax.random.key(0), config, ARMS, horizon)
    # The last layer starts near zero; at a normal scale, differences in the outputs show.
    out = agent.params["out"] | {"kernel": 50 * agent.params["out"]["kernel"]}
    return dataclasses.replace(agent, params=agent.params | {"out": out})


def history(horizon: int = HORIZON, seed: int = 1, arm_mask=ALL) -> Trajectory:
    """A past that nobody played: random arms, random rewards."""
    action_key, reward_key = jax.random.split(jax.random.key(seed))
    num_arms = len(arm_mask)
    actions = jax.random.randint(action_key, (horizon,), 0, num_arms)
    table = jnp.where(arm_mask[None], jax.random.normal(reward_key, (horizon, num_arms)), 0.0)
    rewards = jnp.take_along_axis(table, actions[:, None], axis=-1)[:, 0]
    uniform = jnp.full((horizon, num_arms), 1 / num_arms)
    return Trajectory(actions, rewards, uniform, jnp.zeros_like(table), table, uniform, arm_mask)


def stepwise_probabilities(agent, past: Trajectory):
    arm_mask = past.arm_mask
    state, result = agent.init(len(arm_mask), len(past.actions)), []
    act, observe = jax.jit(type(agent).act), jax.jit(type(agent).observe)
    seen = past.reward_table if agent.feedback == ("full",) else past.rewards
    for t in range(len(past.actions)):
        context = Context(jnp.asarray(t), jnp.asarray(len(past.actions)), arm_mask, jnp.zeros(len(arm_mask)))
        decision, state = act(agent, jax.random.key(t), state, context)
        result.append(decision.probabilities)
        state = observe(agent, state, past.actions[t], seen[t], context)
    return jnp.stack(result)


outputs = jax.jit(lambda agent, past: agent.outputs(past))


@kinds
@pytest.mark.parametrize(
    ("arms", "position", "num_layers", "num_heads"),
    [
        ("one_hot", "none", 1, 1),
        ("one_hot", "sinusoidal", 3, 2),
        ("one_hot", "alibi", 2, 1),
        ("token", "learned", 2, 1),
        ("token", "alibi", 1, 2),
    ],
)
def test_both_paths_agree(kind, arms, position, num_layers, num_heads):
    agent = make_agent(kind, arms=arms, position=position, num_layers=num_layers, num_heads=num_heads)
    past = history()
    at_once = jax.nn.softmax(outputs(agent, past))
    np.testing.assert_allclose(stepwise_probabilities(agent, past), at_once, atol=1e-5)


@pytest.mark.accelerator
@kinds
def test_both_paths_agree_in_outputs_at_a_longer_horizon(kind):
    horizon = 64
    agent, past = make_agent(kind, horizon=horizon, width=32), history(horizon)
    at_once = outputs(agent, past)
    state, one_by_one = agent.init(ARMS, horizon), []
    seen = past.reward_table if kind is FullInformationTransformer else past.rewards
    step = jax.jit(lambda token, caches, t: agent._network(token[None], caches, t, ALL))
    context = Context(jnp.asarray(0), jnp.asarray(horizon), ALL, jnp.zeros(ARMS))
    for t in range(horizon):
        row, caches = step(state.token, state.memory, jnp.asarray(t))
        one_by_one.append(row[0])
        state = agent.observe(dataclasses.replace(state, memory=caches), past.actions[t], seen[t], context)
    np.testing.assert_allclose(jnp.stack(one_by_one), at_once, atol=1e-5)


@kinds
@pytest.mark.parametrize("arms", ["one_hot", "token"])
def test_rounded_caches_hold_bfloat16_and_both_paths_see_them(kind, arms):
    rounded, exact = (make_agent(kind, arms=arms, cache_dtype=dtype) for dtype in ("bfloat16", "float32"))
    state = rounded.init(ARMS, HORIZON)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.memory)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded.grow(state, 2 * HORIZON).memory)} == {jnp.dtype("bfloat16")}
    past = history()
    at_once = outputs(rounded, past)
    assert at_once.dtype == jnp.float32
    np.testing.assert_allclose(stepwise_probabilities(rounded, past), jax.nn.softmax(at_once), atol=1e-5)
    # Eight bits of mantissa: the outputs of round 0, of one key and value alone, differ, and none by much.
    apart = np.abs(at_once - outputs(exact, past)).max(axis=-1)
    assert (apart > 0).all()
    assert apart.max() < 0.02 * np.abs(at_once).max()


def test_weights_learn_through_rounded_caches():
    past = history()

    def loss(params, dtype):
        agent = dataclasses.replace(make_agent(cache_dtype=dtype), params=params)
        return -jax.nn.log_softmax(agent.outputs(past))[jnp.arange(HORIZON), past.actions].mean()

    params = make_agent().params
    rounded, exact = (jax.grad(loss)(params, dtype) for dtype in ("bfloat16", "float32"))
    for found, expected in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize(("arms", "position"), [("one_hot", "none"), ("one_hot", "alibi"), ("token", "none")])
def test_a_long_trajectory_is_read_in_parts_as_in_one(arms, position, monkeypatch):
    agent, past = make_agent(arms=arms, position=position), history()
    whole = jax.jit(agent.outputs)(past)
    sizes = []
    attend = CausalSelfAttention._attend
    monkeypatch.setattr("rmft_jax.agents.network._PART_ROUNDS", 4)
    monkeypatch.setattr(
        CausalSelfAttention,
        "_attend",
        lambda self, q, k, v, start: (sizes.append((q.shape[1], k.shape[1])), attend(self, q, k, v, start))[1],
    )
    jax.clear_caches()  # Else the program of before would run.
    np.testing.assert_allclose(jax.jit(agent.outputs)(past), whole, atol=1e-5)
    assert set(sizes) == {(4, 4), (5, 9)}  # Of nine rounds: no part reads beyond its own end.


@pytest.mark.parametrize(("arms", "position"), [("one_hot", "none"), ("token", "alibi")])
def test_no_round_sees_its_future(arms, position):
    agent = make_agent(arms=arms, position=position, num_layers=2)
    shape = (HORIZON, 2 * ARMS + 1) if arms == "one_hot" else (ARMS, HORIZON, 3)
    caches = empty_cache(agent.config, ARMS, HORIZON)
    tokens = jax.random.normal(jax.random.key(0), shape)
    jacobian = jax.jit(jax.jacrev(lambda tokens: agent._network(tokens, caches, 0, ALL)[0]))(tokens)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, -1))
    influence = influence.sum(axis=1) if arms == "token" else influence
    assert (influence[np.triu_indices(HORIZON, 1)] == 0).all()
    assert (influence[np.tril_indices(HORIZON)] > 0).all()


@kinds
def test_outputs_depend_on_the_rewards_of_earlier_rounds_only(kind):
    agent, past = make_agent(kind), history()

    def by_reward(noise):
        table = past.reward_table + noise[:, None]
        return agent.outputs(dataclasses.replace(past, reward_table=table, rewards=past.rewards + noise))

    influence = np.abs(np.asarray(jax.jit(jax.jacrev(by_reward))(jnp.zeros(HORIZON)))).sum(axis=1)
    assert (influence[np.triu_indices(HORIZON)] == 0).all()
    assert (influence[np.tril_indices(HORIZON, -1)] > 0).all()


@kinds
def test_batch_members_do_not_influence_one_another(kind):
    agent = make_agent(kind)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[history(seed=seed) for seed in range(4)])
    run = jax.jit(jax.vmap(agent.outputs))
    poisoned = dataclasses.replace(
        batch,
        actions=batch.actions.at[0].set(0),
        rewards=batch.rewards.at[0].set(jnp.nan),
        reward_table=batch.reward_table.at[0].set(jnp.nan),
    )
    np.testing.assert_array_equal(run(poisoned)[1:], run(batch)[1:])
    assert not np.isfinite(run(poisoned)[0, -1]).any()


@kinds
def test_absent_arms_get_minus_infinity_and_the_rest_share_the_probability(kind):
    agent, mask = make_agent(kind), jnp.asarray([True, False, True])
    past = history(arm_mask=mask)
    assert (outputs(agent, past)[:, 1] == -jnp.inf).all()
    probabilities = stepwise_probabilities(agent, past)
    assert (probabilities[:, 1] == 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("arms", ["one_hot", "token"])
def test_a_token_tells_what_was_seen_in_the_round_before(arms):
    context = Context(jnp.asarray(0), jnp.asarray(HORIZON), ALL, jnp.zeros(ARMS))
    for kind, reward, features in (
        (BanditTransformer, jnp.asarray(0.5), [[0, 1, 0], [0, 0.5, 0]]),
        (FullInformationTransformer, jnp.asarray([0.1, 0.5, 0.3]), [[0.1, 0.5, 0.3]]),
    ):
        agent = make_agent(kind, arms=arms)
        start = agent.init(ARMS, HORIZON)
        later = agent.observe(start, jnp.asarray(1), reward, context)
        for state, seen, first in ((start, np.zeros_like(features), 1), (later, features, 0)):
            expected = np.append(seen, first) if arms == "one_hot" else np.vstack([seen, np.full(ARMS, first)]).T
            np.testing.assert_allclose(state.token, expected)


@pytest.mark.parametrize("arms", ["one_hot", "token"])
def test_every_part_of_the_history_matters(arms):
    past = history()
    bandit, full = (make_agent(kind, arms=arms, num_layers=2) for kind in KINDS)
    for t in range(HORIZON - 1):
        other_action = dataclasses.replace(past, actions=past.actions.at[t].add(1) % ARMS)
        other_reward = dataclasses.replace(past, rewards=past.rewards.at[t].add(1.0))
        for changed in (other_action, other_reward):
            assert np.abs(outputs(bandit, changed)[-1] - outputs(bandit, past)[-1]).max() > 1e-6
            np.testing.assert_array_equal(outputs(full, changed), outputs(full, past))
        for arm in range(ARMS):
            changed = dataclasses.replace(past, reward_table=past.reward_table.at[t, arm].add(1.0))
            assert np.abs(outputs(full, changed)[-1] - outputs(full, past)[-1]).max() > 1e-6
            np.testing.assert_array_equal(outputs(bandit, changed), outputs(bandit, past))


def test_the_number_of_heads_is_not_ignored():
    one, two = make_agent(num_heads=1), make_agent(num_heads=2)
    assert jax.tree.map(jnp.shape, one.params) == jax.tree.map(jnp.shape, two.params)
    two = dataclasses.replace(two, params=one.params)
    assert np.abs(outputs(one, history()) - outputs(two, history())).max() > 1e-4


def test_position_encodings_tell_rounds_apart_and_none_does_not():
    past = dataclasses.replace(history(), actions=jnp.zeros(HORIZON, jnp.int32), rewards=jnp.ones(HORIZON))
    changes = {}
    for position in ("none", "learned", "sinusoidal", "alibi"):
        agent = make_agent(position=position)
        early, late = (dataclasses.replace(past, actions=past.actions.at[t].set(1)) for t in (1, 2))
        changes[position] = float(np.abs(outputs(agent, early)[-1] - outputs(agent, late)[-1]).max())
    assert changes["learned"] > 1e-4
    assert changes["sinusoidal"] > 1e-4
    assert changes["alibi"] > 1e-4
    assert changes["none"] < changes["learned"]


def test_alibi_weighs_what_is_seen_by_its_age():
    """Where all scores are equal, the value seen s rounds ago weighs exp(-slope s)."""
    attention = CausalSelfAttention(Transformer(width=2, num_heads=2, position="alibi"), rngs=nnx.Rngs(0))
    attention.query_key_value.kernel[...] = jnp.concatenate([jnp.zeros((2, 4)), jnp.eye(2)], axis=1)
    attention.out.kernel[...] = jnp.eye(2)
    x = np.asarray(jax.random.normal(jax.random.key(0), (HORIZON, 2)))
    caches = (jnp.zeros((2, HORIZON, 1)), jnp.zeros((2, HORIZON, 1)))
    mixed, _ = attention(jnp.asarray(x), caches, 0)
    for t in range(HORIZON):
        for head, slope in enumerate((1 / 16, 1 / 256)):
            weights = np.exp(-slope * (t - np.arange(t + 1)))
            assert mixed[t, head] == pytest.approx(weights @ x[: t + 1, head] / weights.sum(), abs=1e-6)


def rearranged(past: Trajectory, order) -> Trajectory:
    """The same past with arm `order[i]` called i."""
    names = {"actions": jnp.argsort(order)[past.actions], "arm_mask": past.arm_mask[order]}
    return dataclasses.replace(past, reward_table=past.reward_table[:, order], **names)


@kinds
def test_with_a_token_per_arm_names_do_not_matter(kind):
    agent, one_hot, past = make_agent(kind, arms="token"), make_agent(kind), history()
    order = jnp.asarray([2, 0, 1])
    expected = outputs(agent, past)[:, order]
    np.testing.assert_allclose(outputs(agent, rearranged(past, order)), expected, atol=1e-5)
    assert np.ptp(expected, axis=1)[1:].min() > 1e-3
    assert np.abs(outputs(one_hot, rearranged(past, order)) - outputs(one_hot, past)[:, order]).max() > 1e-2


@kinds
def test_with_a_token_per_arm_absent_arms_change_nothing(kind):
    """Five arms of which two are absent are the three arms that the agent was made for; so are they one by one."""
    agent, past = make_agent(kind, arms="token", position="alibi"), history()
    present = jnp.asarray([4, 0, 2])
    wide = history(arm_mask=jnp.zeros(5, bool).at[present].set(True))
    wide = dataclasses.replace(
        wide,
        actions=present[past.actions],
        rewards=past.rewards,
        reward_table=jnp.full((HORIZON, 5), 7.0).at[:, present].set(past.reward_table),
    )
    expected = outputs(agent, past)
    np.testing.assert_allclose(outputs(agent, wide)[:, present], expected, atol=1e-5)
    np.testing.assert_allclose(stepwise_probabilities(agent, wide)[:, present], jax.nn.softmax(expected), atol=1e-5)
    assert (outputs(agent, wide)[:, jnp.asarray([1, 3])] == -jnp.inf).all()


@kinds
def test_with_a_token_per_arm_the_parameters_know_of_no_arm_count(kind):
    config = Transformer(width=8, arms="token")
    few, many = (kind.create(jax.random.key(0), config, num_arms, HORIZON) for num_arms in (2, 7))
    jax.tree.map(np.testing.assert_array_equal, few.params, many.params)


@kinds
def test_with_a_token_per_arm_arms_learn_of_one_another(kind):
    """Attention across arms is no ornament: without it an arm's output hangs on its own past alone."""
    agent, past = make_agent(kind, arms="token"), history()
    past = dataclasses.replace(past, actions=past.actions.at[0].set(1))
    other = dataclasses.replace(
        past, rewards=past.rewards.at[0].add(1.0), reward_table=past.reward_table.at[0, 1].add(1.0)
    )
    assert (np.abs(outputs(agent, other) - outputs(agent, past))[-1] > 1e-5).all()


@kinds
def test_a_new_policy_is_close_to_uniform(kind):
    agent = kind.create(jax.random.key(0), Transformer(), ARMS, HORIZON)
    np.testing.assert_allclose(jax.nn.softmax(outputs(agent, history())), 1 / ARMS, atol=0.12)


def decide(agent, z, mask=ALL, num_draws: int = 4000):
    keys = jax.random.split(jax.random.key(2), num_draws)
    z = jnp.where(mask, jnp.asarray(z), -jnp.inf)
    return jax.jit(jax.vmap(lambda key: agent._decide(key, z, mask)))(keys)


def test_full_information_decisions_are_the_map_of_gaussian_scores():
    mask, z = jnp.asarray([True, False, True]), [0.7, 0.0, -0.4]
    agent = dataclasses.replace(make_agent(FullInformationTransformer), score_map=Softmax(0.5))
    drawn = decide(agent, z, mask)
    scores = np.asarray(drawn.scores, np.float64)
    np.testing.assert_allclose(scores[:, [0, 2]].mean(0), [0.7, -0.4], atol=5 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose(scores[:, [0, 2]].std(0), 0.5, rtol=0.06)
    assert (scores[:, 1] == 0).all()
    odds = np.exp(scores[:, 0] - scores[:, 2])
    np.testing.assert_allclose(drawn.probabilities[:, 0], odds / (1 + odds), rtol=1e-4)
    played = np.asarray(drawn.action)
    assert set(played) == {0, 2}
    error = np.sqrt((drawn.probabilities[:, 0] * drawn.probabilities[:, 2]).mean() / 4000)
    assert abs((played == 0).mean() - drawn.probabilities[:, 0].mean()) < 5 * error
    still = decide(dataclasses.replace(agent, score_map=Softmax(0.0)), z, mask)
    assert len(np.unique(still.scores, axis=0)) == 1


def test_the_maps_of_scores():
    agent = make_agent(FullInformationTransformer)

    def play(z, score_map: DecisionMap):
        return decide(dataclasses.replace(agent, score_map=score_map), z, num_draws=50)

    simplex = play([0.9, 0.3, -2.0], Simplex(0.0))
    np.testing.assert_allclose(simplex.probabilities, np.tile([0.8, 0.2, 0.0], (50, 1)), atol=1e-6)
    assert set(np.asarray(simplex.action)) == {0, 1}
    np.testing.assert_allclose(play([3.0, 0.0, 4.0], Ball(0.0, 2.0)).probabilities[0], [1.2, 0.0, 1.6], atol=1e-6)
    np.testing.assert_allclose(play([0.3, 0.0, 0.4], Ball(0.0, 2.0)).probabilities[0], [0.3, 0.0, 0.4], atol=1e-6)
    identity = play([3.0, -7.0, 4.0], Identity(0.0))
    np.testing.assert_array_equal(identity.probabilities[0], [3.0, -7.0, 4.0])
    assert set(np.asarray(identity.action)) == {0}
    assert Identity(0.25, 3.0).still == Ball(0.0, 3.0), "the trained policy plays the projection of its scores"
    for explores in (Softmax(0.25), Simplex(0.25), Ball(0.25, 3.0)):
        assert explores.still == dataclasses.replace(explores, exploration_std=0.0)


@pytest.mark.parametrize("score_map", [Softmax(0.0), Simplex(0.0), Ball(0.0, 0.5), Identity(0.0, 0.5)])
def test_absent_arms_get_nothing_under_any_map(score_map):
    mask = jnp.asarray([True, False, True])
    for absent in (-jnp.inf, 100.0):
        policy = score_map.policy(jnp.asarray([0.7, absent, 0.3]), mask)
        np.testing.assert_allclose(policy, score_map.policy(jnp.asarray([0.7, 0.0, 0.3]), mask))
        assert policy[1] == 0
    if score_map.points:
        assert policy[2] / policy[0] == pytest.approx(3 / 7)
    else:
        assert policy.sum() == pytest.approx(1)


def test_a_learned_position_encoding_bounds_the_horizon():
    with pytest.raises(ConfigError, match=r"got horizon=10, need horizon <= 9, .* try training with position='none'"):
        make_agent(position="learned").init(ARMS, HORIZON + 1)
    make_agent(position="sinusoidal").init(ARMS, HORIZON + 1)


def test_a_wrong_arm_count_is_refused():
    with pytest.raises(ConfigError, match=r"got num_arms=4, need num_arms=3, .* training with arms='token'"):
        make_agent().init(4, HORIZON)


def test_the_graph_definition_is_built_once_per_shape():
    first = graph_definition(Transformer(), 5, 2, 3)
    assert graph_definition(Transformer(), 5, 2, 3) is first
