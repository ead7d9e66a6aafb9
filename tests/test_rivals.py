"""The rivals of RMFT, its controls and its levers against collapse: how they play, step and learn."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BanditTransformer, BetaThompson, Transformer, make_agents
from rmft_jax.config import ConfigError
from rmft_jax.method import rmft
from rmft_jax.method.state import TrainState, abstract_state, init, make_agent, make_player
from rmft_jax.problems import Adaptive, Sinusoidal, Stationary, Trajectory
from rmft_jax.running.checkpoints import Checkpoints
from rmft_jax.running.history import History
from worlds import TINY_RUN

KEY = jax.random.key(0)
TINY = TINY_RUN.rmft
FULL = TINY.replace(
    environment=Stationary(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    branching="none",
    entropy_weight=0.0,
)
DRIFT = Sinusoidal(num_arms=2)
ALL_KEPT = TINY.replace(k=TINY.num_rollouts)
LEVERS = TINY.replace(kl_reference="initial", kl_weight=1.0, refresh_every=3)
OTHERS = {
    "dpt of its own play": TINY.replace(objective="dpt"),
    "full dpt": FULL.replace(objective="dpt"),
    "full reinforce": FULL.replace(objective="reinforce", k=TINY.num_rollouts),
}


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_every_rival_steps(config):
    """Those that no test below sees learning."""
    state = init(config, KEY)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(3):
        state, metrics = rmft.iterate(state)
        assert np.isfinite(metrics.loss)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_chunk_carries_the_memory_as_its_iterations_do():
    state = init(LEVERS, KEY)
    chunked, metrics = rmft.iterate_chunk(init(LEVERS, KEY), 3)
    assert np.isfinite(metrics.loss).all()
    for _ in range(3):
        state, _ = rmft.iterate(state)
    chex.assert_trees_all_close(state.params, chunked.params, atol=1e-5)
    chex.assert_trees_all_close(state.memory, chunked.memory, atol=1e-5)


def test_the_memory_is_part_of_a_checkpoint(tmp_path):
    state, metrics = rmft.iterate_chunk(init(LEVERS, KEY), 3)
    history, first = History.fresh(1), functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf)[None])
    history.add_chunk(first(metrics), np.ones(1, bool))
    history.add_validation(3, np.zeros((1, 4)), first(state.params))
    store = Checkpoints(tmp_path, "whose they are")
    store.save(state, history)
    restored = store.restore(abstract_state(LEVERS))
    assert restored is not None
    chex.assert_trees_all_equal(restored[0].memory, state.memory)
    resumed, _ = rmft.iterate_chunk(restored[0], 3)
    state, _ = rmft.iterate_chunk(state, 3)
    chex.assert_trees_all_equal(resumed.memory, state.memory)


def probability_of_best(state: TrainState) -> float:
    """Mean probability of the best arm in the last round."""
    played = rmft.play(state)
    best = jnp.argmax(played.mean_rewards[..., -1, :], axis=-1)
    return float(jnp.mean(jnp.take_along_axis(played.probabilities[..., -1, :], best[..., None], axis=-1)))


@pytest.mark.parametrize(
    "objective",
    [
        "imitation",
        "grpo",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("distillation", "dpt", "reinforce")),
    ],
)
def test_every_rival_learns_which_arm_pays(objective):
    """A probe with a known answer: one arm always pays, the other never."""
    changes = {
        "imitation": {"k": 1},
        "distillation": {"behavior": "thompson"},
        "dpt": {"behavior": "uniform"},
        "reinforce": {"k": 4},
        "grpo": {"k": 4},
    }[objective]
    config = TINY.replace(
        environment=Stationary(num_arms=2, prior="fixed_gap", gap=1.0),
        policy=Transformer(num_layers=1, width=16),
        objective=objective,
        num_iterations=60,
        num_scenarios=64,
        branching="none",
        step_size=1e-2,
        **changes,
    )
    state, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert np.isfinite(metrics.loss).all()
    plain = dataclasses.replace(state.config, objective=TINY.objective)  # The policy plays, whoever played before.
    assert probability_of_best(dataclasses.replace(state, config=plain)) > 0.85


def test_the_regret_loss_learns_to_follow_what_it_is_shown():
    environment = Stationary(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none")
    config = FULL.replace(environment=environment, objective="regret_loss", step_size=1e-2, num_iterations=60)
    _, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert metrics.regret[-5:].mean() < 0.6 * metrics.regret[0]


def test_the_behavior_plays_the_rollouts():
    config = TINY.replace(objective="distillation", branching="none")
    state = init(config, KEY)
    assert isinstance(make_player(state), BetaThompson)
    played = rmft.play(state)
    np.testing.assert_array_equal(jnp.max(played.probabilities, axis=-1), 1.0)  # Point masses, unlike a network's.
    assert isinstance(make_agent(state), BanditTransformer)


@pytest.mark.parametrize(
    "behavior",
    [
        "gittins",
        "kl_ucb",
        "best_arm",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("posterior_index", "bayes_optimal", "moss")),
    ],
)
def test_any_agent_that_fits_may_play_the_rollouts(behavior):
    """As it plays outside of training, on the same scenarios."""
    config = TINY.replace(objective="dpt", behavior=behavior, branching="none", num_arms=2)
    state = init(config, KEY)
    (agent,) = make_agents(config.problem(), [behavior]).values()
    assert jax.tree.structure(make_player(state)) == jax.tree.structure(agent)
    _, metrics = rmft.iterate(state)
    assert np.isfinite(metrics.loss)


def play_of(params, state: TrainState) -> Trajectory:
    """What the rollouts of the coming iteration are if these weights play them."""
    other = dataclasses.replace(state, params=params, memory=dataclasses.replace(state.memory, player=None))
    return rmft.play(other)


def test_a_single_round_plays_with_the_initial_policy():
    config = TINY.replace(refresh_every=2, step_size=0.05)
    state = init(config, KEY)
    initial = jax.tree.map(jnp.copy, state.params)
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(initial, state))
    assert np.abs(rmft.play(state).probabilities - play_of(state.params, state).probabilities).max() > 1e-3
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(state.params, state))


BAD = [
    (
        TINY,
        {"objective": "distillation", "behavior": "policy"},
        "need another agent to imitate; try behavior='thompson'",
    ),
    (TINY, {"behavior": "ucb1"}, "got behavior with objective 'imitation', need distillation or dpt, which has it"),
    (
        FULL,
        {"objective": "dpt", "behavior": "uniform"},
        "feedback='full' and noise='gaussian', need a Transformer under bandit feedback",
    ),
    (TINY, {"objective": "reinforce"}, "with k=2, num_rollouts=4 and selection='regret', need all of at least two"),
    (
        ALL_KEPT,
        {"objective": "reinforce", "selection": "random"},
        "with k=4, num_rollouts=4 and selection='random', need all of at least two",
    ),
    (ALL_KEPT, {"objective": "grpo", "temperature": 2.0}, "need rollouts of the policy as it is; try temperature=1"),
    (ALL_KEPT, {"objective": "grpo", "refresh_every": 2}, "and refresh_every=2, need rollouts of the policy as it is"),
    (FULL, {"objective": "grpo", "k": 4}, "need probabilities of actions, whose ratio it clips"),
    (TINY, {"objective": "regret_loss"}, "with feedback='bandit', need rewards that are seen whole"),
    (
        FULL,
        {"objective": "regret_loss", "environment": Adaptive(feedback="full")},
        "and rewards that react to play, need",
    ),
    (
        FULL,
        {"objective": "regret_loss", "branching": "uniform"},
        "need the regret of all rounds; try branching='none'",
    ),
    (FULL, {"objective": "dpt", "decision_map": "ball"}, "need arms, of which one is the best"),
    (
        FULL,
        {"objective": "dpt", "policy": "single_layer", "update": "least_squares"},
        "need the imitation of what was just kept",
    ),
    (TINY, {"kl_reference": "previous"}, "got kl_reference='previous' with kl_weight=0.0, need both or neither"),
    (TINY, {"kl_weight": 0.1}, "got kl_reference='none' with kl_weight=0.1, need both or neither"),
    (
        FULL,
        {"kl_reference": "initial", "kl_weight": 0.1},
        "need a policy that plays arms under bandit feedback",
    ),
    (
        TINY,
        {"objective": "dpt", "behavior": "ucb1", "kl_reference": "previous", "kl_weight": 0.1},
        "need a policy that plays arms under bandit feedback",
    ),
    (TINY, {"kl_reference": "previous", "kl_weight": -1.0}, "got kl_weight=-1.0, need a finite number of at least 0"),
    (TINY, {"kl_reference": "last"}, "got kl_reference='last', need one of none, previous, initial"),
    (TINY, {"objective": "dpt", "behavior": "oracle"}, "got behavior='oracle', need policy or one of ucb1"),
    (TINY, {"objective": "dpt", "behavior": "hedge"}, "got agent 'hedge' for Stationary under 'bandit' feedback"),
    (TINY, {"objective": "dpt", "behavior": "best_fixed_arm"}, "best_arm; try 'best_arm'"),
    (
        TINY.replace(num_arms=2),
        {"objective": "dpt", "behavior": "discounted_thompson", "environment": DRIFT},
        "got behavior='discounted_thompson' in 'sinusoidal', whose settings it is made from, need an agent that can be",
    ),
    (TINY, {"refresh_every": 0}, "got refresh_every=0, need a whole number of at least 1"),
    (TINY, {"k": 1, "num_minibatches": 3}, "with num_scenarios*k=8*1=8, need a number of minibatches that divides"),
]


@pytest.mark.parametrize(("base", "changes", "message"), BAD, ids=[message[:50] for *_, message in BAD])
def test_what_does_not_go_together_is_refused(base, changes, message):
    with pytest.raises(ConfigError) as error:
        base.replace(**changes).validate()
    assert message in str(error.value)
    assert "; try " in str(error.value)
