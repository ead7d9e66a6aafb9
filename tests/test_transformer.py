import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import TransformerAgent
from rmft_jax.agents.transformer import empty_cache, graph_definition, history_token, token_size
from rmft_jax.config import TransformerConfig
from rmft_jax.types import Context

ARMS, HORIZON = 3, 9
ALL = jnp.ones(ARMS, bool)


def make_agent(horizon: int = HORIZON, **changes) -> TransformerAgent:
    config = TransformerConfig(**{"width": 16, "num_heads": 2, **changes})
    agent = TransformerAgent.create(jax.random.key(0), config, ARMS, horizon)
    # The last layer starts near zero; at a normal scale, differences in the logits show.
    out = agent.params["out"] | {"kernel": 50 * agent.params["out"]["kernel"]}
    return dataclasses.replace(agent, params=agent.params | {"out": out})


def history(horizon: int = HORIZON, seed: int = 1):
    action_key, reward_key = jax.random.split(jax.random.key(seed))
    return jax.random.randint(action_key, (horizon,), 0, ARMS), jax.random.normal(reward_key, (horizon,))


def stepwise_probabilities(agent, actions, rewards, arm_mask=ALL):
    state, result = agent.init(ARMS, len(actions)), []
    act, observe = jax.jit(type(agent).act), jax.jit(type(agent).observe)
    for t in range(len(actions)):
        context = Context(jnp.asarray(t), jnp.asarray(len(actions)), arm_mask, jnp.zeros(ARMS))
        decision, state = act(agent, jax.random.key(t), state, context)
        result.append(decision.probabilities)
        state = observe(agent, state, actions[t], rewards[t], context)
    return jnp.stack(result)


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_both_paths_agree(position, num_layers):
    agent = make_agent(position=position, num_layers=num_layers)
    actions, rewards = history()
    at_once = jax.nn.softmax(jax.jit(type(agent).logits)(agent, actions, rewards, ALL))
    np.testing.assert_allclose(stepwise_probabilities(agent, actions, rewards), at_once, atol=1e-5)


def test_both_paths_agree_in_logits_at_a_longer_horizon():
    horizon = 64
    agent = make_agent(horizon=horizon, width=32)
    actions, rewards = history(horizon)
    at_once = agent.logits(actions, rewards, ALL)
    state, one_by_one = agent.init(ARMS, horizon), []
    caches, token = state.caches, state.token
    step = jax.jit(lambda token, caches, t: agent._network(token[None], caches, t))
    for t in range(horizon):
        logits, caches = step(token, caches, jnp.asarray(t))
        one_by_one.append(logits[0])
        token = history_token(actions[t], rewards[t], ARMS)
    np.testing.assert_allclose(jnp.stack(one_by_one), at_once, atol=1e-5)


def test_no_round_sees_its_future():
    agent = make_agent()
    tokens = jax.random.normal(jax.random.key(0), (HORIZON, token_size(ARMS)))
    jacobian = jax.jacrev(lambda tokens: agent._network(tokens, empty_cache(agent.config, HORIZON), 0)[0])(tokens)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, 3))
    assert (influence[np.triu_indices(HORIZON, 1)] == 0).all()
    assert (influence[np.tril_indices(HORIZON)] > 0).all()


def test_batch_members_do_not_influence_one_another():
    agent = make_agent()
    batch = [history(seed=seed) for seed in range(4)]
    actions, rewards = (jnp.stack(column) for column in zip(*batch, strict=True))
    logits = jax.jit(jax.vmap(lambda a, r: agent.logits(a, r, ALL)))
    replaced = logits(actions.at[0].set(0), rewards.at[0].set(jnp.nan))
    np.testing.assert_array_equal(replaced[1:], logits(actions, rewards)[1:])
    assert not np.isfinite(replaced[0, -1]).any()


def test_absent_arms_get_minus_infinity_and_the_rest_share_the_probability():
    agent, mask = make_agent(), jnp.asarray([True, False, True])
    actions, rewards = history()
    logits = agent.logits(actions, rewards, mask)
    assert (logits[:, 1] == -jnp.inf).all()
    probabilities = stepwise_probabilities(agent, actions, rewards, mask)
    assert (probabilities[:, 1] == 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)


def test_every_part_of_the_history_matters():
    agent = make_agent()
    actions, rewards = history()
    last = agent.logits(actions, rewards, ALL)[-1]
    for t in range(HORIZON - 1):
        assert np.abs(agent.logits(actions.at[t].add(1) % ARMS, rewards, ALL)[-1] - last).max() > 1e-6
        assert np.abs(agent.logits(actions, rewards.at[t].add(1.0), ALL)[-1] - last).max() > 1e-6


def test_the_number_of_heads_is_not_ignored():
    one, two = make_agent(num_heads=1), make_agent(num_heads=2)
    assert jax.tree.map(jnp.shape, one.params) == jax.tree.map(jnp.shape, two.params)
    two = dataclasses.replace(two, params=one.params)
    actions, rewards = history()
    assert np.abs(one.logits(actions, rewards, ALL) - two.logits(actions, rewards, ALL)).max() > 1e-4


def test_position_encodings_tell_rounds_apart_and_none_does_not():
    actions, rewards = jnp.zeros(HORIZON, jnp.int32), jnp.ones(HORIZON)
    changes = {}
    for position in ("none", "learned", "sinusoidal"):
        agent = make_agent(position=position)
        logits = agent.logits(actions.at[1].set(1), rewards, ALL)[-1]
        changes[position] = float(np.abs(logits - agent.logits(actions.at[2].set(1), rewards, ALL)[-1]).max())
    assert changes["learned"] > 1e-4
    assert changes["sinusoidal"] > 1e-4
    assert changes["none"] < changes["learned"]


def test_a_new_policy_is_close_to_uniform():
    agent = TransformerAgent.create(jax.random.key(0), TransformerConfig(), ARMS, HORIZON)
    probabilities = jax.nn.softmax(agent.logits(*history(), ALL))
    np.testing.assert_allclose(probabilities, 1 / ARMS, atol=0.12)


def test_a_learned_position_encoding_bounds_the_horizon():
    with pytest.raises(ValueError, match=r"got horizon=10, need horizon <= 9, .* try training with position='none'"):
        make_agent(position="learned").init(ARMS, HORIZON + 1)
    make_agent(position="sinusoidal").init(ARMS, HORIZON + 1)


def test_a_wrong_arm_count_is_refused():
    with pytest.raises(ValueError, match="got num_arms=4, need num_arms=3"):
        make_agent().init(4, HORIZON)


def test_the_graph_definition_is_built_once_per_shape():
    first = graph_definition(TransformerConfig(), 2, 3)
    assert graph_definition(TransformerConfig(), 2, 3) is first
