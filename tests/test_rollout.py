import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import UCB, BanditTransformer, Uniform
from rmft_jax.agents.base import segment_ends, state_bytes
from rmft_jax.config import BanditConfig, TransformerConfig
from rmft_jax.environments import Stationary
from rmft_jax.rollout import NoiseStreams, RolloutKeys, rollout_block, rollout_scenarios
from rmft_jax.types import Trajectory

WORLD = Stationary(BanditConfig(num_arms=3, noise="gaussian"))
KEYS = RolloutKeys.create(jax.random.key(0))
HORIZON = 12


def play(agent=None, **options) -> Trajectory:
    agent = Uniform() if agent is None else agent
    settings = {"keys": KEYS, "horizon": HORIZON, "num_scenarios": 6, "num_rollouts": 4, **options}
    return jax.jit(lambda: rollout_scenarios(agent, WORLD, **settings))()


def assert_same(a: Trajectory, b: Trajectory) -> None:
    """The same play; real numbers may differ by the rounding of another program."""
    np.testing.assert_array_equal(a.actions, b.actions)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


def test_the_trajectory_is_what_was_played():
    played = play(UCB())
    table = np.asarray(played.reward_table)
    actions = np.asarray(played.actions)
    np.testing.assert_allclose(np.take_along_axis(table, actions[..., None], -1)[..., 0], played.rewards, atol=1e-6)
    means = np.asarray(played.mean_rewards)
    assert (means == means[:, :1, :1]).all(), "a scenario keeps its means in every rollout and round"
    assert len(np.unique(means[:, 0, 0, 0])) == 6, "every scenario is its own"
    assert (np.sort(actions[..., :3], -1) == [0, 1, 2]).all(), "UCB1 tries every arm first"


def test_rollouts_and_rounds_draw_their_own_noise():
    played = play()
    noise = np.asarray(played.reward_table - played.mean_rewards)
    assert len(np.unique(noise.round(5))) > 0.98 * noise.size
    actions = np.asarray(played.actions).reshape(-1, HORIZON)
    assert len(np.unique(actions, axis=0)) == len(actions)


def test_branching_shares_the_past_and_only_the_past():
    branches = jnp.asarray([0, 1, 5, 6, 11, 12])
    played = play(branch_rounds=branches)
    for scenario, branch in enumerate(branches.tolist()):
        for table in (played.actions, played.rewards, played.reward_table):
            rows = np.asarray(table[scenario])[:, :branch]
            np.testing.assert_allclose(rows, np.broadcast_to(rows[:1], rows.shape), atol=1e-6)
        noise = np.asarray(played.reward_table[scenario, :, branch:, 0])
        assert len(np.unique(noise)) == noise.size


def test_shared_reward_noise_shares_rewards_and_not_actions():
    played = play(shared_reward_noise=True)
    table = np.asarray(played.reward_table)
    np.testing.assert_allclose(table, np.broadcast_to(table[:, :1], table.shape), atol=1e-6)
    assert not (np.asarray(played.actions) == np.asarray(played.actions)[:, :1]).all()


def test_each_purpose_has_its_own_randomness():
    other, tables = jax.random.key(99), {}
    for purpose in ("scenario", "policy", "reward"):
        keys = dataclasses.replace(KEYS, **{purpose: other})
        tables[purpose] = play(keys=keys)
    base = play()
    for purpose, played in tables.items():
        noise = (table.reward_table - table.mean_rewards for table in (played, base))
        same = {
            "scenario": np.array_equal(played.mean_rewards, base.mean_rewards),
            "policy": np.array_equal(played.actions, base.actions),
            "reward": np.allclose(*noise, atol=1e-6),
        }
        assert same == {name: name != purpose for name in same}


def test_policy_and_rewards_do_not_share_a_stream():
    """With one key for both, the two would be one stream if it were not split by purpose."""
    streams = NoiseStreams.create(jax.random.split(jax.random.key(0)), jnp.asarray(1), jnp.asarray([0, 0]))
    policy_key, reward_key = (jax.random.key_data(key) for key in streams.keys(jnp.asarray(3)))
    assert (policy_key != reward_key).any()


def test_the_first_rollout_lends_its_streams_to_the_shared_past():
    alone, branched = play(), play(branch_rounds=jnp.full(6, 5))
    np.testing.assert_array_equal(alone.actions[:, 0], branched.actions[:, 0])
    np.testing.assert_array_equal(alone.actions[:, 1, 5:], branched.actions[:, 1, 5:])


def test_agents_meet_the_same_problems_and_the_same_rewards():
    first, second = play(Uniform()), play(UCB())
    np.testing.assert_allclose(first.reward_table, second.reward_table, atol=2e-6)
    np.testing.assert_array_equal(first.mean_rewards, second.mean_rewards)


def test_a_rollout_does_not_depend_on_the_size_of_its_batch():
    small, large = play(), play(num_scenarios=9, num_rollouts=5)
    assert_same(small, jax.tree.map(lambda leaf: leaf[:6, :4], large))


def test_a_shorter_horizon_is_a_prefix():
    short, long = play(horizon=5), play()
    np.testing.assert_array_equal(short.actions, long.actions[..., :5])
    np.testing.assert_allclose(short.reward_table, long.reward_table[..., :5, :], atol=2e-6)


def test_blocks_change_nothing():
    agent = BanditTransformer.create(jax.random.key(1), TransformerConfig(width=8), 3, HORIZON)
    whole = play(agent, block=10**6)
    for block in (4, 16):  # 16 trajectories are four scenarios, which leave a remainder of two.
        assert_same(whole, play(agent, block=block))


@pytest.mark.parametrize("position", ["none", "alibi"])
def test_a_cache_that_grows_changes_nothing(position, monkeypatch):
    agent = BanditTransformer.create(jax.random.key(1), TransformerConfig(width=8, position=position), 3, HORIZON)
    whole, sizes, grow = play(agent), [], BanditTransformer.grow
    monkeypatch.setattr("rmft_jax.rollout._SEGMENT_ROUNDS", 5)
    monkeypatch.setattr(
        BanditTransformer, "grow", lambda self, state, horizon: (sizes.append(horizon), grow(self, state, horizon))[1]
    )
    assert_same(play(agent), whole)
    assert sizes == [HORIZON]  # Two segments of six.


@pytest.mark.parametrize(
    ("rounds", "shortest", "ends"),
    [(50, 25, [25, 50]), (49, 25, [49]), (7, 3, [3, 7]), (1, 25, [1]), (1000, 25, [125 * i for i in range(1, 9)])],
)
def test_segments_cover_all_rounds(rounds, shortest, ends):
    assert segment_ends(rounds, shortest) == ends


def test_a_block_fits_into_the_cache():
    config = TransformerConfig(num_layers=2, width=64, num_heads=4)
    agent = BanditTransformer.create(jax.random.key(1), config, 3, 100)
    assert state_bytes(agent, 3, 100) == 2 * 2 * 100 * 64 * 4 + 4 * 7  # Keys and values, and a token.
    assert rollout_block(agent, 3, 100) * state_bytes(agent, 3, 100) <= 8_000_000
    assert rollout_block(agent, 3, 100) == 78
    assert rollout_block(Uniform(), 3, 100) == 256


def test_temperature_flattens_the_policy():
    agent = BanditTransformer.create(jax.random.key(1), TransformerConfig(width=8), 3, HORIZON)
    hot = play(dataclasses.replace(agent, temperature=1e6)).probabilities
    cold = play(dataclasses.replace(agent, temperature=1e-6)).probabilities
    np.testing.assert_allclose(hot, 1 / 3, atol=1e-5)
    assert (np.asarray(cold).max(-1) > 0.99).mean() > 0.95


def test_an_agent_that_breaks_its_protocol_is_named_before_it_runs():
    class Wrong(Uniform):
        def act(self, key, state, context):
            decision, state = super().act(key, state, context)
            return dataclasses.replace(decision, probabilities=jnp.ones(7)), state

    jax.tree_util.register_static(Wrong)
    with pytest.raises(AssertionError, match="shape"):
        play(Wrong())


def test_absent_arms_are_zero_in_every_table():
    played = play(arm_mask=jnp.asarray([True, False, True]))
    for table in (played.probabilities, played.mean_rewards, played.reward_table):
        assert (np.asarray(table)[..., 1] == 0).all()
    assert (np.asarray(played.actions) != 1).all()
