import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import TINY_RUN

from rmft_jax import rmft
from rmft_jax.config import AbruptConfig, AlternatingConfig, BanditConfig, ConfigError, RMFTConfig, TransformerConfig
from rmft_jax.devices import ALONE
from rmft_jax.evaluation import final_regret
from rmft_jax.regret import Regret
from rmft_jax.rollout import RolloutKeys
from rmft_jax.types import KeptBatch, TrainState

KEY = jax.random.key(0)
SMALL = TINY_RUN.rmft


def numbers(state: TrainState):
    return jax.tree.map(np.asarray, (state.params, state.opt_state, state.iteration))


def test_one_compilation_serves_every_iteration(tiny):
    traced = chex.assert_max_traces(lambda state: rmft._iteration(ALONE, state, None), n=1)
    step = jax.jit(traced, donate_argnums=0)
    state = rmft.init(tiny, KEY)
    for _ in range(3):
        state, _ = step(state)
    state, _ = step(rmft.init(dataclasses.replace(tiny, step_size=0.5, entropy_weight=0.0), KEY))
    assert int(state.iteration) == 1


def test_the_second_chunk_does_not_recompile(tiny):
    state, _ = rmft.iterate_chunk(rmft.init(tiny, KEY), 2)
    chunk: Any = rmft.iterate_chunk
    before = chunk._cache_size()
    rmft.iterate_chunk(state, 2)
    assert chunk._cache_size() == before


def test_the_step_never_talks_to_the_host(tiny):
    compiled = rmft.iterate_chunk.lower(rmft.init(tiny, KEY), 2).compile()
    program = str(compiled.as_text())
    for word in ("callback", "infeed", "outfeed", "send(", "recv("):
        assert word not in program


def test_the_given_state_is_donated(tiny):
    state = rmft.init(tiny, KEY)
    rmft.iterate(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_a_chunk_equals_its_iterations_one_by_one(tiny):
    state, losses = rmft.init(tiny, KEY), []
    for _ in range(3):
        state, metrics = rmft.iterate(state)
        losses.append(metrics.loss)
    chunked, metrics = rmft.iterate_chunk(rmft.init(tiny, KEY), 3)
    chex.assert_trees_all_close(numbers(state), numbers(chunked), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics.loss, losses, rtol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tiny):
    first, _ = rmft.iterate_chunk(rmft.init(tiny, KEY), 2)
    again, _ = rmft.iterate_chunk(rmft.init(tiny, KEY), 2)
    other, _ = rmft.iterate_chunk(rmft.init(tiny, jax.random.key(1)), 2)
    chex.assert_trees_all_equal(numbers(first), numbers(again))
    assert np.abs(first.params["embed"]["kernel"] - other.params["embed"]["kernel"]).max() > 1e-3


def test_float_settings_can_be_vmapped(tiny):
    configs = [
        dataclasses.replace(tiny, step_size=size, entropy_weight=weight) for size, weight in ((1e-3, 0), (1e-2, 0.1))
    ]
    states = [rmft.init(config, KEY) for config in configs]
    together, metrics = jax.vmap(rmft.iterate)(jax.tree.map(lambda *x: jnp.stack(x), *states))
    for i, state in enumerate(states):
        alone, alone_metrics = rmft.iterate(state)
        chex.assert_trees_all_close(alone.params, jax.tree.map(lambda x, i=i: x[i], together.params), atol=2e-5)
        np.testing.assert_allclose(metrics.regret[i], alone_metrics.regret, rtol=1e-6)


def test_block_sizes_change_nothing_but_rounding(tiny):
    runs = [
        rmft.iterate(rmft.init(dataclasses.replace(tiny, rollout_block=rollouts, update_block=updates), KEY))
        for rollouts, updates in ((0, 0), (4, 1), (12, 3))
    ]
    for state, metrics in runs[1:]:
        np.testing.assert_allclose(metrics.loss, runs[0][1].loss, rtol=1e-5)
        chex.assert_trees_all_close(state.params, runs[0][0].params, atol=1e-5)


def test_metrics_describe_the_rollouts(tiny):
    _, metrics = rmft.iterate(rmft.init(tiny, KEY))
    assert 0 <= metrics.selected_regret < metrics.regret < tiny.horizon
    assert metrics.entropy == pytest.approx(np.log(3), abs=0.05)
    # The first policy is near uniform: cross-entropy ln 3, less the bonus. The updates of the iteration lower it a bit.
    assert metrics.loss == pytest.approx((1 - tiny.entropy_weight) * np.log(3), abs=0.05)
    assert 0 <= metrics.suff_fail_freq <= 1
    _, everything = rmft.iterate(rmft.init(dataclasses.replace(tiny, k=tiny.num_rollouts), KEY))
    assert everything.selected_regret == pytest.approx(float(everything.regret), rel=1e-6)


SETTINGS = {
    "branching": "none",
    "shared_reward_noise": True,
    "selection_regret": "realized",
    "temperature": 3.0,
    "num_epochs": 2,
    "num_minibatches": 1,
    "step_size": 1e-3,
    "schedule": "constant",
    "max_grad_norm": 1e-3,
    "entropy_weight": 0.5,
    "num_rollouts": 3,
    "replay": 1,
}


@pytest.fixture(scope="module")
def reference():
    state, _ = rmft.iterate_chunk(rmft.init(SMALL, KEY), 2)
    return state.params


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_reaches_the_step(reference, name):
    assert getattr(SMALL, name) != SETTINGS[name]
    config = dataclasses.replace(SMALL, **{name: SETTINGS[name]})
    state, metrics = rmft.iterate_chunk(rmft.init(config, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    change = np.abs(state.params["embed"]["kernel"] - reference["embed"]["kernel"]).max()
    assert change > 1e-5


@pytest.mark.parametrize("selection", ["advantage", "reward", "random", "pooled"])
def test_a_control_selects_among_the_same_trajectories(tiny, selection):
    """Before the first update nothing but the selection differs, so all else was drawn from the streams of before."""
    _, standard = rmft.iterate(rmft.init(tiny, KEY))
    _, metrics = rmft.iterate(rmft.init(dataclasses.replace(tiny, selection=selection), KEY))
    assert metrics.regret == standard.regret
    if selection == "pooled":
        assert metrics.selected_regret < standard.selected_regret
    elif selection == "advantage":
        assert metrics.selected_regret < metrics.regret
    else:
        assert standard.selected_regret < metrics.selected_regret


def test_selection_by_the_expected_regret_keeps_the_lowest_expected_regret(tiny):
    """With equal policies the expected regrets of a scenario's rollouts differ by its means alone: all are equal."""
    config = dataclasses.replace(tiny, selection_form="expected", temperature=1e6)
    _, metrics = rmft.iterate(rmft.init(config, KEY))
    _, sampled = rmft.iterate(rmft.init(dataclasses.replace(config, selection_form="sampled"), KEY))
    assert metrics.regret == sampled.regret
    assert sampled.selected_regret < metrics.selected_regret


FULL = dataclasses.replace(
    SMALL,
    environment=BanditConfig(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    shared_reward_noise=True,
    entropy_weight=0.0,
)
FULL_SETTINGS = {
    "decision_map": "simplex",
    "exploration_std": 2.0,
    "full_loss": "cross_entropy",
    "selection_regret": "swap",
    "selection_form": "sampled",
}


@pytest.fixture(scope="module")
def full_reference():
    state, metrics = rmft.iterate_chunk(rmft.init(FULL, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    assert (metrics.selected_regret < metrics.regret).all()
    return state.params


@pytest.mark.parametrize("name", FULL_SETTINGS)
def test_every_setting_of_full_information_reaches_the_step(full_reference, name):
    assert getattr(FULL, name) != FULL_SETTINGS[name]
    config = dataclasses.replace(FULL, **{name: FULL_SETTINGS[name]})
    state, metrics = rmft.iterate_chunk(rmft.init(config, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    assert np.abs(state.params["embed"]["kernel"] - full_reference["embed"]["kernel"]).max() > 1e-5


def test_play_in_a_ball_is_judged_and_selected_by_the_regret_of_the_ball():
    config = dataclasses.replace(FULL, decision_map="ball", radius=3.0)
    assert rmft.setting_regret(config) == rmft.selection_regret(config) == Regret("ball", "expected", 3.0)
    _, metrics = rmft.iterate(rmft.init(config, KEY))
    assert metrics.selected_regret < metrics.regret
    # An untrained policy plays near the centre, so that its regret is nearly the comparator's reward.
    assert metrics.regret > 3.0
    assert metrics.entropy == 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (BanditConfig(), Regret("pseudo", "sampled")),
        (AbruptConfig(), Regret("dynamic", "sampled")),
        (AlternatingConfig(), Regret("static", "sampled")),
        (AbruptConfig(feedback="full"), Regret("static", "expected")),
    ],
)
def test_each_setting_has_its_regret(environment, expected):
    config = RMFTConfig(environment=environment)
    assert rmft.setting_regret(config) == rmft.selection_regret(config) == expected
    other = dataclasses.replace(config, selection_regret="realized", selection_form="expected")
    assert rmft.selection_regret(other) == Regret("realized", "expected")
    assert rmft.setting_regret(other) == expected


def test_it_learns_to_follow_the_rewards_it_is_shown():
    """A probe with a known answer: the reward vectors never change, so one look at them settles everything."""
    config = RMFTConfig(
        environment=BanditConfig(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none"),
        policy=TransformerConfig(num_layers=1, width=16),
        horizon=8,
        num_iterations=60,
        num_scenarios=64,
        num_rollouts=4,
        k=1,
        num_minibatches=2,
        step_size=1e-2,
        exploration_std=1.0,
        entropy_weight=0.0,
    )
    _, metrics = rmft.iterate_chunk(rmft.init(config, KEY), 60)
    assert metrics.regret[0] > 3.0
    assert metrics.regret[-5:].mean() < 1.2, "half a round is lost in the first one on average"


def test_every_iteration_draws_its_own_scenarios(tiny):
    """With steps too small to matter, only the draws differ between iterations."""
    _, metrics = rmft.iterate_chunk(rmft.init(dataclasses.replace(tiny, step_size=1e-30), KEY), 3)
    assert len(np.unique(metrics.regret)) == 3


def test_only_rounds_from_the_branch_on_are_imitated(tiny):
    config = dataclasses.replace(tiny, num_scenarios=3)
    played = rmft.rollout_scenarios(
        rmft.make_agent(rmft.init(config, KEY)),
        rmft.make_environment(config.environment),
        RolloutKeys.create(KEY),
        horizon=6,
        num_scenarios=3,
        num_rollouts=4,
    )
    kept = jnp.asarray([[3, 0], [1, 2], [2, 3]])
    data = rmft._training_data(played, None, kept, jnp.asarray([0, 2, 5]))
    assert isinstance(data, KeptBatch)
    np.testing.assert_array_equal(data.weights.sum(-1), [6, 6, 4, 4, 1, 1])
    np.testing.assert_array_equal(data.weights[2], [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(data.trajectory.actions[0], played.actions[0, 3])
    np.testing.assert_array_equal(data.trajectory.rewards[5], played.rewards[2, 3])


def test_the_cosine_schedule_reaches_zero(tiny):
    config = dataclasses.replace(tiny, num_iterations=3)
    state, _ = rmft.iterate_chunk(rmft.init(config, KEY), 3)
    params = jax.tree.map(np.asarray, state.params)
    after, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(params, jax.tree.map(np.asarray, after.params))


def test_the_configuration_is_checked_before_anything_is_built(tiny):
    with pytest.raises(ConfigError, match="got k=5 with num_rollouts=4"):
        rmft.init(dataclasses.replace(tiny, k=5), KEY)


@pytest.mark.parametrize("arms", ["one_hot", "token"])
def test_it_learns_to_tell_two_certain_arms_apart(arms):
    """A probe with a known answer: one arm always pays, one never does; one look settles it."""
    config = RMFTConfig(
        environment=BanditConfig(num_arms=2, prior="fixed_gap", gap=1.0),
        policy=TransformerConfig(num_layers=1, width=16, arms=arms),
        horizon=8,
        num_iterations=60,
        num_scenarios=64,
        num_rollouts=4,
        k=1,
        num_minibatches=2,
        step_size=1e-2,
    )
    state, metrics = rmft.iterate_chunk(rmft.init(config, KEY), 60)
    assert metrics.regret[0] > 3.0, "a random policy loses every second round"
    assert metrics.regret[-5:].mean() < 1.0, "playing each arm once loses half a round on average"
    if arms == "token":
        # Four arms of which one pays: whoever tries one after the other loses one and a half rounds.
        world = rmft.make_environment(BanditConfig(num_arms=4, prior="fixed_gap", gap=1.0))
        regret = final_regret(rmft.make_agent(state), world, Regret.of(world), KEY, 8, 256)
        assert float(regret.mean()) < 3.0, "uniform play loses six"
