import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmft_jax.agents import UCB, BanditTransformer, Transformer, Uniform
from rmft_jax.agents.base import segment_ends, state_bytes
from rmft_jax.config import ConfigError, pytree, static_field
from rmft_jax.method.noise import NoiseStreams, RolloutKeys
from rmft_jax.method.rollout import Grouping, rollout_block, rollout_scenarios
from rmft_jax.problems import Adaptive, ObliviousEnvironment, Problem, Stationary, Trajectory

WORLD = Stationary(num_arms=3, noise="gaussian")
KEYS = RolloutKeys.create(jax.random.key(0))
HORIZON = 12
PROBLEM = Problem(WORLD, HORIZON)


@functools.partial(jax.jit, static_argnames=("num_scenarios", "num_rollouts", "shared_reward_noise", "block"))
def compiled(agent, problem: Problem, keys: RolloutKeys, **options) -> Trajectory:
    return rollout_scenarios(agent, problem, keys, **options)


def play(agent=None, problem: Problem = PROBLEM, keys: RolloutKeys = KEYS, **options) -> Trajectory:
    settings = {"num_scenarios": 6, "num_rollouts": 4, **options}
    return compiled(Uniform() if agent is None else agent, problem, keys, **settings)


def network(position: Literal["none", "alibi"] = "none") -> BanditTransformer:
    settings = Transformer(num_layers=1, width=8, position=position)
    return BanditTransformer.create(jax.random.key(1), settings, 3, HORIZON)


def assert_same(a: Trajectory, b: Trajectory) -> None:
    """The same play; real numbers may differ by the rounding of another program."""
    np.testing.assert_array_equal(a.actions, b.actions)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


@pytest.mark.accelerator
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
    short, long = play(problem=Problem(WORLD, 5)), play()
    np.testing.assert_array_equal(short.actions, long.actions[..., :5])
    np.testing.assert_allclose(short.reward_table, long.reward_table[..., :5, :], atol=2e-6)


@pytest.mark.accelerator
def test_blocks_change_nothing():
    agent = network()
    whole = play(agent, block=10**6)
    for block in (4, 16):  # 16 trajectories are four scenarios, which leave a remainder of two.
        assert_same(whole, play(agent, block=block))


@pytest.mark.parametrize("name", ["ucb", "network", pytest.param("adaptive", marks=pytest.mark.slow)])
def test_a_past_that_is_played_once_changes_nothing(name, monkeypatch):
    agent = UCB() if name == "ucb" else network()  # Against an adversary UCB has ties, which rounding breaks.
    problem = Problem(Adaptive(num_arms=3), HORIZON) if name == "adaptive" else PROBLEM
    monkeypatch.setattr("rmft_jax.method.rollout._SEGMENT_ROUNDS", 3)
    monkeypatch.setattr("rmft_jax.method.rollout._LANES", 4)
    jax.clear_caches()  # Else programs of before would play.
    branches = jax.random.randint(jax.random.key(1), (23,), 0, HORIZON)  # 23 scenarios do not fill their groups.
    apart, *together = (
        play(agent, problem, num_scenarios=23, branch_rounds=branches, block=size) for size in (10**6, 12, 3)
    )
    jax.clear_caches()
    for played in together:  # In blocks of three scenarios, and of three of the four rollouts of one.
        assert_same(apart, played)


@given(scenarios=st.integers(1, 3000), rollouts=st.integers(2, 40), block=st.integers(1, 600))
def test_groups_hold_every_scenario_and_no_more_states_than_a_block(scenarios, rollouts, block):
    groups = Grouping.of(scenarios, rollouts, block)
    size = groups.num_parts * groups.part
    assert scenarios <= groups.num_groups * size < scenarios + size
    if block >= scenarios * rollouts:
        assert groups.num_groups == 1
    else:
        assert groups.part * rollouts <= max(block, rollouts)  # The rollouts of one scenario are played in blocks.
        assert 2 <= size <= max(block, 2)


def test_rounds_that_nobody_plays_are_not_computed():
    played = []

    @pytree
    class Counting(Uniform):
        def act(self, key, state, context):
            jax.debug.callback(played.append, jax.random.key_data(key))
            return super().act(key, state, context)

    branches = jax.random.randint(jax.random.key(3), (64,), 0, HORIZON)
    play(Counting(), num_scenarios=64, num_rollouts=8, branch_rounds=branches, block=32)
    jax.effects_barrier()
    needed = int(jnp.sum(branches + 8 * (HORIZON - branches)))
    assert needed <= len(played) <= 1.15 * needed < 64 * 8 * HORIZON


def test_programs_that_are_vmapped_together_play_as_alone():
    """The branch rounds of one are not those of another."""
    branches = jax.random.randint(jax.random.key(3), (2, 40), 0, HORIZON)
    agent = network()

    def one(branch_rounds):
        return play(agent, num_scenarios=40, num_rollouts=4, block=8, branch_rounds=branch_rounds)

    together = jax.jit(jax.vmap(one))(branches)
    for index, rounds in enumerate(branches):
        assert_same(one(rounds), jax.tree.map(lambda leaf, i=index: leaf[i], together))


@pytest.mark.parametrize("position", ["none", "alibi"])
def test_a_cache_that_grows_changes_nothing(position, monkeypatch):
    agent = network(position)
    whole, sizes, grow = play(agent), [], BanditTransformer.grow
    monkeypatch.setattr("rmft_jax.method.rollout._SEGMENT_ROUNDS", 5)
    monkeypatch.setattr(
        BanditTransformer, "grow", lambda self, state, horizon: (sizes.append(horizon), grow(self, state, horizon))[1]
    )
    jax.clear_caches()  # Else the program of before would play.
    assert_same(play(agent), whole)
    assert sizes == [6, HORIZON]  # Two segments of six.


@pytest.mark.parametrize(
    ("rounds", "shortest", "ends"),
    [(50, 25, [25, 50]), (49, 25, [49]), (7, 3, [3, 7]), (1, 25, [1]), (1000, 25, [125 * i for i in range(1, 9)])],
)
def test_segments_cover_all_rounds(rounds, shortest, ends):
    assert segment_ends(rounds, shortest) == ends


def test_a_block_fits_into_the_cache():
    config = Transformer(num_layers=2, width=64, num_heads=4)
    agent = BanditTransformer.create(jax.random.key(1), config, 3, 100)
    assert state_bytes(agent, 3, 100) == 2 * 2 * 100 * 64 * 4 + 4 * 7  # Keys and values, and a token.
    assert rollout_block(agent, 3, 100) * state_bytes(agent, 3, 100) <= 4_000_000
    assert rollout_block(agent, 3, 100) == 39
    assert rollout_block(Uniform(), 3, 100) == 256


def test_temperature_flattens_the_policy():
    agent = network()
    hot = play(dataclasses.replace(agent, temperature=1e6)).probabilities
    cold = play(dataclasses.replace(agent, temperature=1e-6)).probabilities
    np.testing.assert_allclose(hot, 1 / 3, atol=1e-5)
    assert (np.asarray(cold).max(-1) > 0.99).mean() > 0.95


@pytree
class WrongAgent(Uniform):
    """Returns what no agent may."""

    field: str = static_field(default="")

    def act(self, key, state, context):
        decision, state = super().act(key, state, context)
        wrong = {"action": jnp.zeros((1,), jnp.int32), "probabilities": jnp.ones(7)}[self.field]
        return dataclasses.replace(decision, **{self.field: wrong}), state


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("action", "got action from WrongAgent of shape (1,), need a number, (); try returning a number"),
        (
            "probabilities",
            "got probabilities from WrongAgent of shape (7,), need one entry per arm, (3,); try returning",
        ),
    ],
)
def test_an_agent_that_breaks_its_protocol_is_named_before_it_runs(field, message):
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda: rollout_scenarios(WrongAgent(field), PROBLEM, KEYS, num_scenarios=1))
    assert message in str(error.value)


class WrongWorld(Stationary):
    """Returns what no environment may."""

    field: str = ""

    def step(self, key, state, decision, round):
        state, outcome = super().step(key, state, decision, round)
        return state, dataclasses.replace(outcome, **{self.field: jnp.zeros((3, 1))})


@pytest.mark.parametrize("field", ["mean_rewards", "rewards"])
def test_an_environment_that_breaks_its_protocol_is_named_before_it_runs(field):
    problem = Problem(WrongWorld(num_arms=3, field=field), HORIZON)
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda: rollout_scenarios(Uniform(), problem, KEYS, num_scenarios=1))
    assert str(error.value) == (
        f"got {field} from WrongWorld of shape (3, 1), need one entry per arm, (3,); try returning one entry per arm"
    )


class WrongPath(ObliviousEnvironment):
    """Forgets the axis of the arms, or that of the rounds."""

    axis: str = "rounds"

    def path(self, key, arm_mask, round_mask):
        return jnp.zeros(len(round_mask) if self.axis == "rounds" else len(arm_mask))


@pytest.mark.parametrize(("axis", "size"), [("rounds", HORIZON), ("arms", 3)])
def test_a_path_without_an_axis_is_refused(axis, size):
    problem = Problem(WrongPath(num_arms=3, axis=axis), HORIZON)
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(lambda: rollout_scenarios(Uniform(), problem, KEYS, num_scenarios=1))
    assert f"got a path of shape ({size},) from WrongPath, need (n, 3)" in str(error.value)
    assert "; try " in str(error.value)


def test_absent_arms_are_zero_in_every_table():
    played = play(problem=Problem.checked(Stationary(num_arms=3, noise="gaussian"), HORIZON, num_arms=2))
    for table in (played.probabilities, played.mean_rewards, played.reward_table):
        assert (np.asarray(table)[..., 2] == 0).all()
        assert (np.asarray(table)[..., :2] != 0).all()
    assert (np.asarray(played.actions) != 2).all()
