import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import Transformer
from rmft_jax.config import ConfigError
from rmft_jax.method import rmft
from rmft_jax.method.evaluation import final_regret
from rmft_jax.method.judging import KeptBatch, judge, take_rollouts, training_data
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, TrainState, init, make_agent
from rmft_jax.problems import Abrupt, Alternating, Problem, Regret, Stationary, Trajectory
from rmft_jax.running.trainer import RunKeys, RunStepper
from worlds import TINY_RUN

KEY = jax.random.key(0)
SMALL = TINY_RUN.rmft


def numbers(state: TrainState):
    return jax.tree.map(np.asarray, (state.params, state.opt_state, state.iteration))


@pytest.mark.accelerator
def test_one_compilation_serves_every_iteration():
    program: Any = rmft.iterate
    state, _ = rmft.iterate(init(SMALL, KEY))
    compiled = program._cache_size()
    for _ in range(2):
        state, _ = rmft.iterate(state)
    assert int(state.iteration) == 3
    other = SMALL.replace(step_size=0.5, entropy_weight=0.0, temperature=2.0, play_temperature=0.5, gap=0.1)
    state, _ = rmft.iterate(init(other, KEY))
    assert int(state.iteration) == 1
    assert program._cache_size() == compiled


def test_only_what_is_measured_is_played_at_its_own_temperature():
    config = TINY_RUN.replace(play_temperature=0.25, temperature=2.0)
    (plain, cold), keys = (
        [RunStepper(one, init(one.rmft, KEY), None) for one in (config.replace(play_temperature=1.0), config)],
        RunKeys.create(config.seed),
    )
    (metrics, regret, _), (same, colder, _) = (stepper.advance(run=True) for stepper in (plain, cold))
    chex.assert_trees_all_equal(numbers(plain.state), numbers(cold.state))
    chex.assert_trees_all_equal(metrics, same)
    assert not np.array_equal(regret, colder)
    agent: Any = make_agent(plain.state)
    cooled = dataclasses.replace(agent, temperature=0.25)
    expected = final_regret(cooled, config.rmft.problem(), keys.validation, config.num_validation_scenarios)
    np.testing.assert_array_equal(colder[0], expected)
    exploring: Any = make_agent(cold.state, explore=True)
    assert exploring.temperature == 2.0


@pytest.mark.accelerator
def test_the_second_chunk_does_not_recompile():
    state, _ = rmft.iterate_chunk(init(SMALL, KEY), 2)
    chunk: Any = rmft.iterate_chunk
    before = chunk._cache_size()
    rmft.iterate_chunk(state, 2)
    assert chunk._cache_size() == before


def test_the_step_never_talks_to_the_host():
    compiled = rmft.iterate_chunk.lower(init(SMALL, KEY), 2).compile()
    program = str(compiled.as_text())
    for word in ("callback", "infeed", "outfeed", "send(", "recv("):
        assert word not in program


def test_the_given_state_is_donated():
    state = init(SMALL, KEY)
    rmft.iterate(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.accelerator
def test_a_chunk_equals_its_iterations_one_by_one():
    state, losses = init(SMALL, KEY), []
    for _ in range(3):
        state, metrics = rmft.iterate(state)
        losses.append(metrics.loss)
    chunked, metrics = rmft.iterate_chunk(init(SMALL, KEY), 3)
    chex.assert_trees_all_close(numbers(state), numbers(chunked), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics.loss, losses, rtol=1e-5)


@pytest.mark.accelerator
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    first, _ = rmft.iterate_chunk(init(SMALL, KEY), 2)
    again, _ = rmft.iterate_chunk(init(SMALL, KEY), 2)
    other, _ = rmft.iterate_chunk(init(SMALL, jax.random.key(1)), 2)
    chex.assert_trees_all_equal(numbers(first), numbers(again))
    assert np.abs(first.params["embed"]["kernel"] - other.params["embed"]["kernel"]).max() > 1e-3


def test_float_settings_can_be_vmapped():
    states = [
        init(SMALL.replace(step_size=size, entropy_weight=weight), KEY) for size, weight in ((1e-3, 0.0), (1e-2, 0.1))
    ]
    together, metrics = jax.vmap(rmft.iterate)(jax.tree.map(lambda *x: jnp.stack(x), *states))
    for i, state in enumerate(states):
        alone, alone_metrics = rmft.iterate(state)
        chex.assert_trees_all_close(alone.params, jax.tree.map(lambda x, i=i: x[i], together.params), atol=2e-5)
        np.testing.assert_allclose(metrics.regret[i], alone_metrics.regret, rtol=1e-6)


@functools.cache
def played() -> Trajectory:
    """The rollouts of the first iteration."""
    return rmft.play(init(SMALL, KEY))


def test_block_sizes_change_nothing_but_rounding():
    kept, own_rounds = jnp.tile(jnp.asarray([[1, 3]]), (8, 1)), jnp.ones((8, 6), bool)
    fits = []
    for updates in (0, 1, 3):  # Blocks of three leave a remainder of the eight in a minibatch.
        config = SMALL.replace(update_block=updates)
        data = training_data(config, judge(config, config.problem(), played()), kept, own_rounds)
        fits.append(jax.jit(config.update.fine_tune)(init(config, KEY), data, KEY))
    for state, fit in fits[1:]:
        np.testing.assert_allclose(fit.loss, fits[0][1].loss, rtol=1e-5)
        chex.assert_trees_all_close(state.params, fits[0][0].params, atol=1e-5)
    larger = rmft.play(init(SMALL.replace(rollout_block=12), KEY))
    np.testing.assert_array_equal(larger.actions, played().actions)


def test_metrics_describe_the_rollouts():
    _, metrics = rmft.iterate(init(SMALL, KEY))
    assert 0 <= metrics.selected_regret < metrics.regret < SMALL.horizon
    assert metrics.entropy == pytest.approx(np.log(3), abs=0.05)
    # The first policy is near uniform: cross-entropy ln 3, less the bonus. The updates of the iteration lower it a bit.
    assert metrics.loss == pytest.approx((1 - SMALL.objective.entropy_weight) * np.log(3), abs=0.05)
    assert 0 <= metrics.suff_fail_freq <= 1
    _, everything = rmft.iterate(init(SMALL.replace(k=SMALL.num_rollouts), KEY))
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
    "selection": "random",
    "kl_weight": 0.5,
}


@pytest.fixture(scope="module")
def reference():
    state, _ = rmft.iterate_chunk(init(SMALL, KEY), 2)
    return state.params


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_reaches_the_step(reference, name):
    config = SMALL.replace(**{name: SETTINGS[name]})
    if name == "kl_weight":
        config = config.replace(kl_reference="initial")
    assert SMALL.flat()[name] != config.flat()[name]
    state, metrics = rmft.iterate_chunk(init(config, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    change = np.abs(state.params["embed"]["kernel"] - reference["embed"]["kernel"]).max()
    assert change > 1e-5


def selected_regret(**changes) -> float:
    """Mean regret of those that are kept of the same rollouts."""
    config = SMALL.replace(**changes)
    judged = judge(config, config.problem(), played())
    kept = config.selection.keep(IterationKeys.of(init(SMALL, KEY)).selection, judged)
    return float(take_rollouts(judged.setting_regret, kept).mean())


def test_an_iteration_keeps_by_the_rule_of_its_settings():
    _, metrics = rmft.iterate(init(SMALL, KEY))
    assert metrics.selected_regret == pytest.approx(selected_regret(), rel=1e-5)
    _, other = rmft.iterate(init(SMALL.replace(selection="pooled"), KEY))
    assert other.selected_regret == pytest.approx(selected_regret(selection="pooled"), rel=1e-5)
    assert other.regret == metrics.regret, "nothing else was drawn from other streams"


def test_each_rule_favours_what_it_says():
    standard, everything = selected_regret(), selected_regret(k=4)
    assert everything == pytest.approx(float(final_regrets().mean()), rel=1e-5)
    assert selected_regret(selection="pooled") < standard
    assert selected_regret(selection="advantage") < everything
    assert standard < selected_regret(selection="random")
    assert standard < selected_regret(selection="reward")


def final_regrets():
    return SMALL.problem().regret.final(played())


def test_selection_by_the_expected_regret_keeps_the_lowest_expected_regret():
    """The first policy is near uniform: with equal policies the expected regrets of a scenario are all equal."""
    sampled, expected = (selected_regret(selection_form=form) for form in ("sampled", "expected"))
    assert sampled == selected_regret()
    assert sampled < expected
    config = SMALL.replace(selection_form="expected")
    judged = judge(config, config.problem(), played())
    kept = config.selection.keep(KEY, judged)
    lowest = np.sort(np.asarray(Regret("pseudo", "expected").final(played())), axis=1)[:, :2]
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(judged.final), np.asarray(kept), 1), lowest)


FULL = SMALL.replace(
    environment=Stationary(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    shared_reward_noise=True,
    entropy_weight=0.0,
)
FULL_SETTINGS = {
    "decision_map": "simplex",
    "exploration_std": 2.0,
    "selection_regret": "swap",
    "selection_form": "sampled",
}


@pytest.fixture(scope="module")
def full_reference():
    state, metrics = rmft.iterate_chunk(init(FULL, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    assert (metrics.selected_regret < metrics.regret).all()
    return state.params


@pytest.mark.parametrize("name", FULL_SETTINGS)
def test_every_setting_of_full_information_reaches_the_step(full_reference, name):
    config = FULL.replace(**{name: FULL_SETTINGS[name]})
    assert FULL.flat()[name] != config.flat()[name]
    state, metrics = rmft.iterate_chunk(init(config, KEY), 2)
    assert np.isfinite(metrics.loss).all()
    assert np.abs(state.params["embed"]["kernel"] - full_reference["embed"]["kernel"]).max() > 1e-5


def test_play_in_a_ball_is_judged_and_selected_by_the_regret_of_the_ball():
    config = FULL.replace(decision_map="ball", radius=3.0)
    problem = config.problem()
    assert problem.regret == config.selection.regret(problem) == Regret("ball", "expected", 3.0)
    _, metrics = rmft.iterate(init(config, KEY))
    assert metrics.selected_regret < metrics.regret
    # An untrained policy plays near the centre, so that its regret is nearly the comparator's reward.
    assert metrics.regret > 3.0
    assert metrics.entropy == 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (Stationary(), Regret("pseudo", "sampled")),
        (Abrupt(), Regret("dynamic", "sampled")),
        (Alternating(), Regret("static", "sampled")),
        (Abrupt(feedback="full"), Regret("static", "expected")),
    ],
)
def test_each_setting_has_its_regret(environment, expected):
    config = RMFTConfig(environment=environment)
    problem = config.problem()
    assert problem.regret == config.selection.regret(problem) == expected
    for selection in ("regret", "advantage", "pooled"):
        other = config.replace(selection=selection, selection_regret="realized", selection_form="expected")
        assert other.selection.regret(problem) == Regret("realized", "expected")
    by_reward = config.replace(selection="reward", selection_form="expected")
    assert by_reward.selection.regret(problem) == Regret(expected.kind, "expected")


PROBE = RMFTConfig(
    environment=Stationary(num_arms=2, prior="fixed_gap", gap=1.0),
    policy=Transformer(num_layers=1, width=16),
    horizon=8,
    num_iterations=60,
    num_scenarios=64,
    num_rollouts=4,
).replace(k=1, num_minibatches=2, step_size=1e-2)


def test_it_learns_to_follow_the_rewards_it_is_shown():
    """A probe with a known answer: the reward vectors never change, so one look at them settles everything."""
    config = PROBE.replace(feedback="full", noise="none", exploration_std=1.0, entropy_weight=0.0)
    _, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert metrics.regret[0] > 3.0
    assert metrics.regret[-5:].mean() < 1.2, "half a round is lost in the first one on average"


def test_every_iteration_draws_its_own_scenarios():
    """With steps too small to matter, only the draws differ between iterations."""
    _, metrics = rmft.iterate_chunk(init(SMALL.replace(step_size=1e-30), KEY), 3)
    assert len(np.unique(metrics.regret)) == 3


def test_only_rounds_from_the_branch_on_are_imitated():
    few = jax.tree.map(lambda leaf: leaf[:3], played())
    kept = jnp.asarray([[3, 0], [1, 2], [2, 3]])
    own_rounds = jnp.arange(6)[None] >= jnp.asarray([0, 2, 5])[:, None]
    data = training_data(SMALL, judge(SMALL, SMALL.problem(), few), kept, own_rounds)
    assert isinstance(data, KeptBatch)
    np.testing.assert_array_equal(data.weights.sum(-1), [6, 6, 4, 4, 1, 1])
    np.testing.assert_array_equal(data.weights[2], [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(data.trajectory.actions[0], few.actions[0, 3])
    np.testing.assert_array_equal(data.trajectory.rewards[5], few.rewards[2, 3])


def test_branch_rounds_are_uniform():
    config = SMALL.replace(num_scenarios=4000, horizon=30, k=1, num_rollouts=1)
    state = init(config, KEY)
    draw = jax.jit(lambda state: rmft.play_rollouts(state, config.problem(), IterationKeys.of(state)))
    rollouts, own_rounds = draw(state)
    rounds = 30 - np.asarray(own_rounds).sum(-1)
    np.testing.assert_array_equal(own_rounds, np.arange(30)[None] >= rounds[:, None])
    counts = np.bincount(rounds, minlength=30)
    np.testing.assert_allclose(counts, 4000 / 30, atol=5 * np.sqrt(4000 / 30))
    assert rollouts.actions.shape == (4000, 1, 30)


def test_without_branching_every_round_is_a_rollouts_own():
    state = init(SMALL.replace(branching="none"), KEY)
    _, own_rounds = jax.jit(lambda state: rmft.play_rollouts(state, SMALL.problem(), IterationKeys.of(state)))(state)
    assert own_rounds.all()


def test_the_cosine_schedule_reaches_zero():
    config = SMALL.replace(num_iterations=3)
    state, _ = rmft.iterate_chunk(init(config, KEY), 3)
    params = jax.tree.map(np.asarray, state.params)
    after, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(params, jax.tree.map(np.asarray, after.params))


def test_the_configuration_is_checked_before_anything_is_built():
    with pytest.raises(ConfigError, match="got k=5 with num_rollouts=4"):
        init(SMALL.replace(k=5), KEY)


@pytest.mark.parametrize("arms", [pytest.param("one_hot", marks=pytest.mark.accelerator), "token"])
def test_it_learns_to_tell_two_certain_arms_apart(arms):
    """A probe with a known answer: one arm always pays, one never does; one look settles it."""
    config = PROBE.replace(arms=arms)
    state, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert metrics.regret[0] > 3.0, "a random policy loses every second round"
    assert metrics.regret[-5:].mean() < 1.0, "playing each arm once loses half a round on average"
    if arms == "token":
        # Four arms of which one pays: whoever tries one after the other loses one and a half rounds.
        problem = Problem(Stationary(num_arms=4, prior="fixed_gap", gap=1.0), 8)
        regret = final_regret(make_agent(state), problem, KEY, 256)
        assert float(regret.mean()) < 3.0, "uniform play loses six"
