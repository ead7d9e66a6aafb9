"""What the look inside a policy shows is what the players do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import look_inside
from rmft_jax.agents import UCB, BanditTransformer, BayesOptimal
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.problems import Context, Problem, Stationary
from rmft_jax.running.weights import load_pretrained


def context(round: int) -> Context:
    return Context(jnp.asarray(round), jnp.asarray(50), jnp.ones(2, bool), jnp.zeros(2))


def test_equal_records_are_a_coin_toss():
    assert look_inside.thompson(look_inside.KNOWN) == pytest.approx(0.5)
    for agent in (BayesOptimal.create(50), UCB()):
        assert look_inside.classical(agent, 50, look_inside.KNOWN) == 0.5


def test_thompson_prefers_the_second_arm_as_often_as_its_draws_do():
    rng = np.random.default_rng(0)
    share = np.mean(rng.beta(1 + 3, 1 + 1, 40_000) > rng.beta(1 + 5, 1 + 5, 40_000))
    assert look_inside.thompson((4, 3)) == pytest.approx(share, abs=0.01)


def test_a_bonus_is_worth_more_than_a_record():
    assert look_inside.classical(UCB(), 50, (1, 0)) == 1.0
    assert look_inside.classical(UCB(), 50, (20, 10)) == 0.0


def test_the_transformer_is_asked_after_the_whole_record():
    agent = load_pretrained("mab-k2").agent
    assert isinstance(agent, BanditTransformer)
    actions, rewards = jnp.asarray([0, 1, 1, 0, 1]), jnp.asarray([1.0, 0.0, 1.0, 0.0, 0.0])
    state = agent.init(2, 50)
    for round in range(5):
        _, state = agent.act(jax.random.key(0), state, context(round))
        state = agent.observe(state, actions[round], rewards[round], context(round))
    decision, _ = agent.act(jax.random.key(0), state, context(5))
    orders = [jnp.pad(values, (0, 4))[None] for values in (actions, rewards)]
    found = look_inside.second_arm(agent, orders[0], orders[1], 5)[0]
    assert float(found) == pytest.approx(float(decision.probabilities[1]), abs=1e-4)


def test_optimal_play_is_always_optimal_and_an_arm_that_never_pays_is_left():
    horizon = 12
    problem = Problem(Stationary(num_arms=2), horizon)
    played = play_scenarios(BayesOptimal.create(horizon), problem, jax.random.key(0), 16)
    assert look_inside.optimal_share(played) == 1.0
    ones = jnp.ones_like(played.rewards)
    first = dataclasses.replace(played, actions=jnp.zeros_like(played.actions), rewards=ones)
    assert look_inside.optimal_share(first) == 1.0  # An arm that always pays is kept.
    never = dataclasses.replace(first, rewards=0 * ones)
    assert look_inside.optimal_share(never) == pytest.approx(1 / horizon)  # The first round is a tie.
