"""A problem, and who plays and learns it, does not depend on the arms and rounds that are there only to be masked."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, get_args

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft_jax.agents import Agent, make_agents
from rmft_jax.config import Params
from rmft_jax.method import rmft
from rmft_jax.method.evaluation import in_hindsight, play_scenarios
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import state_of
from rmft_jax.problems import (
    Decision,
    Environment,
    Extent,
    Problem,
    Regret,
    RegretKind,
    Stationary,
    Trajectory,
    get_environment,
)
from rmft_jax.problems.regret import Form
from rmft_jax.running.history import METRICS
from rmft_jax.statistics import diagnostics
from worlds import TINY_RUN

KEY = jax.random.key(3)
ARMS, ROUNDS = 3, 6
MORE_ARMS, MORE_ROUNDS = 5, 9
EXTENT = Extent(ARMS, ROUNDS)
# Programs that run once: what compiles fastest is best.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


BANDIT = TINY_RUN.rmft
FULL = BANDIT.replace(
    environment=Stationary(num_arms=ARMS, feedback="full", prior="gaussian", noise="gaussian"),
    shared_reward_noise=True,
    entropy_weight=0.0,
)
SINGLE = FULL.replace(policy="single_layer", key_size=2, update="least_squares", decision_map="identity")
POLICIES = {
    "bandit": BANDIT,
    "learned": BANDIT.replace(position="learned"),
    "full": FULL,
    "token": BANDIT.replace(arms="token"),
    "single_layer": SINGLE.replace(trained="all"),
    "single_layer_bandit": BANDIT.replace(
        policy="single_layer", attention="softmax", trained="all", entropy_weight=0.0
    ),
}


def some_slow(names: Iterable[str], *slow: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def larger(config: RMFTConfig) -> RMFTConfig:
    return config.replace(num_arms=MORE_ARMS, horizon=MORE_ROUNDS)


def padded(params: Params, config: RMFTConfig) -> Params:
    """Parameters for the arms and rounds of a configuration in the layout of the larger one."""
    return config.policy.padded(params, config.problem(), larger(config).problem())


def shapes(config: RMFTConfig) -> Params:
    return jax.eval_shape(lambda: config.init_params(KEY))


def some_params(config: RMFTConfig) -> Params:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.1 + 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes(config))


@pytest.mark.parametrize("name", POLICIES)
def test_parameters_survive_padding_and_what_is_new_is_zero(name):
    config = POLICIES[name]
    params = some_params(config)
    assert config.policy.paddable
    wide = padded(params, config)
    jax.tree.map(lambda leaf, new: np.testing.assert_equal(leaf.shape, new.shape), wide, shapes(larger(config)))
    old = jax.tree.map(lambda leaf, new: np.asarray(new)[np.nonzero(new)].reshape(leaf.shape), params, wide)
    jax.tree.map(np.testing.assert_array_equal, old, params)


def some_trajectory(num_arms: int, horizon: int) -> Trajectory:
    """Of `EXTENT` within these sizes; the rounds beyond hold rubbish."""
    rng = np.random.default_rng(1)
    rewards = rng.random((MORE_ROUNDS, MORE_ARMS), np.float32)[:horizon, :num_arms] * (np.arange(num_arms) < ARMS)
    actions = rng.integers(ARMS, size=MORE_ROUNDS)[:horizon]
    probabilities = np.where(np.arange(num_arms) < ARMS, np.float32(1 / ARMS), 0) * np.ones((horizon, 1), np.float32)
    received = rewards[np.arange(horizon), actions]
    masks = np.arange(num_arms) < ARMS, np.arange(horizon) < ROUNDS
    parts = actions, received, probabilities, rewards, rewards, rewards, *masks
    return Trajectory(*(jnp.asarray(part) for part in parts))


@pytest.mark.parametrize("name", some_slow(POLICIES, "token", "single_layer_bandit"))
def test_a_padded_policy_has_the_same_outputs_and_gradients(name):
    config = POLICIES[name]
    params = some_params(config)

    def outputs_and_gradients(config: RMFTConfig, params: Params) -> tuple[Any, Params]:
        trajectory = some_trajectory(config.environment.num_arms, config.horizon)
        used = trajectory.arm_mask[None, :] & trajectory.played[:, None]
        waves = jnp.cos(jnp.arange(used.shape[0])[:, None] + 2.0 * jnp.arange(used.shape[1])[None, :])

        def loss(params: Params) -> tuple[Any, Any]:
            outputs = config.agent(params).outputs(trajectory)
            return jnp.sum(jnp.where(used, outputs * waves, 0.0)), outputs

        (_, outputs), gradients = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
        return outputs, gradients

    own, gradients = outputs_and_gradients(config, params)
    wide, more = outputs_and_gradients(larger(config), padded(params, config))
    np.testing.assert_allclose(wide[:ROUNDS, :ARMS], own, rtol=1e-4, atol=1e-5)
    assert np.isneginf(wide[:, ARMS:]).all()
    expected = padded(gradients, config)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), more, expected)
    old = padded(jax.tree.map(np.ones_like, params), config)
    jax.tree.map(lambda leaf, is_old: np.testing.assert_array_equal(leaf * (1 - is_old), 0), more, old)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients)) > 0.01


SLOW_SETTINGS = {
    "full": FULL.replace(branching="none"),
    "branching": BANDIT,
    "no branching": BANDIT.replace(branching="none"),
    "learned": POLICIES["learned"],
    "sinusoidal": BANDIT.replace(position="sinusoidal"),
    "token": POLICIES["token"],
    "advantage": BANDIT.replace(selection="advantage"),
    "pooled": BANDIT.replace(selection="pooled"),
    "random": BANDIT.replace(selection="random"),
    "reinforce": BANDIT.replace(objective="reinforce", k=4),
    "regret loss": FULL.replace(objective="regret_loss", branching="none"),
    "ball": FULL.replace(decision_map="ball"),
    "simplex": FULL.replace(decision_map="simplex"),
    "single layer, gradient": POLICIES["single_layer"].replace(update="gradient", decision_map="softmax"),
}
SETTINGS = {"least squares": SINGLE}


@pytest.mark.parametrize("name", some_slow({**SETTINGS, **SLOW_SETTINGS}, *SLOW_SETTINGS))
def test_an_iteration_in_part_of_a_state_is_that_of_a_state_of_this_size(name):
    config = {**SETTINGS, **SLOW_SETTINGS}[name]
    params = jax.tree.map(np.asarray, jax.jit(config.init_params)(KEY))
    # States are donated.
    own = state_of(config, jax.tree.map(jnp.asarray, params), jax.random.key(4))
    wide = state_of(larger(config), padded(params, config), jax.random.key(4))
    for iteration in range(2):
        own, metrics = rmft.iterate(own)
        wide, more = rmft.iterate(wide, Extent(jnp.asarray(ARMS), jnp.asarray(ROUNDS)))
        rtol, atol = (1e-5, 1e-6) if iteration == 0 else (1e-3, 1e-4)
        for field in METRICS:
            own_value, value = getattr(metrics, field), getattr(more, field)
            np.testing.assert_allclose(value, own_value, rtol=rtol, atol=atol, err_msg=field)
    found, expected = wide.params, padded(own.params, config)
    if name == "token":  # These add the same to the logit of every arm: gradients of rounding, which Adam blows up.
        for part in (found["out"], expected["out"], found["out_norm"], expected["out_norm"]):
            part["bias"] = np.zeros_like(part["bias"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected)
    old = padded(jax.tree.map(np.ones_like, params), config)
    jax.tree.map(lambda leaf, is_old: np.testing.assert_allclose(leaf * (1 - is_old), 0, atol=1e-6), found, old)


def test_a_problem_of_another_size_uses_its_own_arms_and_rounds():
    problem = FULL.replace(decision_map="ball", radius=2.0).problem()
    wide = problem.of_size(MORE_ARMS, MORE_ROUNDS)
    assert (wide.num_arms, wide.horizon, wide.rounds) == (MORE_ARMS, MORE_ROUNDS, ROUNDS)
    np.testing.assert_array_equal(wide.arm_mask, np.arange(MORE_ARMS) < ARMS)
    np.testing.assert_array_equal(wide.round_mask, np.arange(MORE_ROUNDS) < ROUNDS)
    assert (wide.regret, wide.points) == (problem.regret, True)
    assert problem.arm_mask.all()
    assert problem.round_mask.all()
    config = larger(BANDIT)
    np.testing.assert_array_equal(config.problem(EXTENT).arm_mask, np.arange(MORE_ARMS) < ARMS)
    assert config.problem().arm_mask.all()


@pytest.mark.parametrize(
    "name", some_slow(Environment.register, "fixed_gap_easy", "abrupt_mirrored", "besbes_first_third", "iid_gaussian")
)
def test_problems_and_rewards_do_not_depend_on_padding(name):
    """What a scenario draws is indexed by round and arm, never by a padded shape."""

    @functools.partial(quick_jit, static_argnums=(0, 1))
    def tables(num_arms: int, horizon: int) -> Any:
        world = dataclasses.replace(get_environment(name), num_arms=num_arms)
        masks = EXTENT.arm_mask(num_arms), EXTENT.round_mask(horizon)

        def scenario(key: Any) -> Any:
            def step(state: Any, round: Any) -> Any:
                before = world.mean_rewards(state, round)
                decision = Decision(round % 2, jax.nn.one_hot(round % 2, num_arms))
                state, outcome = world.step(jax.random.fold_in(key, round), state, decision, round)
                return state, (before, outcome.mean_rewards, outcome.rewards)

            return jax.lax.scan(step, world.reset(key, *masks), jnp.arange(horizon))[1]

        return jax.vmap(scenario)(jax.random.split(KEY, 20))

    for own, wide in zip(tables(ARMS, ROUNDS), tables(MORE_ARMS, MORE_ROUNDS), strict=True):
        np.testing.assert_allclose(wide[:, :ROUNDS, :ARMS], own, atol=1e-5)


def trained(config: RMFTConfig) -> tuple[Agent, Agent]:
    """A policy with large weights, so that it is far from uniform, and the same one padded."""
    params = jax.tree.map(lambda leaf: 3 * leaf, some_params(config))
    return config.agent(params, explore=True), larger(config).agent(padded(params, config), explore=True)


def assert_they_play_alike(config: Environment, agents: dict[str, tuple[Agent, Agent]]) -> None:
    """The first of each pair on the problem itself, the second where it is padded."""

    @functools.partial(quick_jit, static_argnums=(1, 2))
    def play(agents: dict[str, Agent], num_arms: int, horizon: int) -> dict[str, Trajectory]:
        problem = Problem(dataclasses.replace(config, num_arms=num_arms), horizon, EXTENT)
        return {name: play_scenarios(agent, problem, KEY, 20) for name, agent in agents.items()}

    owns = play({name: pair[0] for name, pair in agents.items()}, ARMS, ROUNDS)
    wide = play({name: pair[1] for name, pair in agents.items()}, MORE_ARMS, MORE_ROUNDS)
    for name, own in owns.items():
        more = wide[name]
        np.testing.assert_array_equal(more.actions[:, :ROUNDS], own.actions, err_msg=name)
        np.testing.assert_allclose(more.rewards[:, :ROUNDS], own.rewards, atol=1e-5, err_msg=name)
        for field in ("probabilities", "mean_rewards", "reward_table"):
            table = getattr(more, field)
            np.testing.assert_allclose(
                table[:, :ROUNDS, :ARMS], getattr(own, field), atol=1e-5, err_msg=f"{name}: {field}"
            )
            np.testing.assert_array_equal(table[..., ARMS:], 0, err_msg=f"{name}: {field}")


def classical(config: Environment, names: list[str] | None) -> dict[str, tuple[Agent, Agent]]:
    """They do not know that they are padded, but for one that is refused."""
    agents = make_agents(Problem(dataclasses.replace(config, num_arms=ARMS), ROUNDS), names)
    return {name: (agent, agent) for name, agent in agents.items() if name != "bayes_optimal"}


def test_agents_play_alike_under_bandit_feedback():
    config = get_environment("abrupt")
    assert_they_play_alike(config, classical(config, ["thompson", "exp3", "best_fixed_arm"]))


def test_agents_play_alike_under_full_information():
    config = get_environment("iid_uniform")
    assert_they_play_alike(config, classical(config, ["hedge", "ftpl", "follow_the_leader"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "abrupt", "crowding", "iid_uniform", "iid_gaussian"])
def test_all_agents_play_alike(name):
    config = get_environment(name)
    full = config.feedback == "full"
    policies = ["full", "single_layer"] if full else ["bandit", "learned", "token", "single_layer_bandit"]
    mine = {policy: trained(POLICIES[policy].replace(decision_map="softmax")) for policy in policies}
    assert_they_play_alike(config, classical(config, None) | mine)


@st.composite
def cut_trajectories(draw: st.DrawFn) -> tuple[Trajectory, Trajectory]:
    """A trajectory that is played for its first rounds only, and just these rounds; arms may be absent."""
    horizon, num_arms = 5, 3
    played = draw(st.sampled_from([1, 3]))  # Every length is compiled.
    mask = np.arange(num_arms) < draw(st.integers(1, num_arms))
    # Coarse, so that ties are frequent.
    table = hnp.arrays(np.float32, (horizon, num_arms), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    means, rewards, weights = (draw(table) * mask for _ in range(3))
    probabilities = np.where(mask, weights + 1, 0).astype(np.float32)
    probabilities /= probabilities.sum(-1, keepdims=True)
    actions = draw(hnp.arrays(np.int32, horizon, elements=st.integers(0, int(mask.sum()) - 1)))
    received = rewards[np.arange(horizon), actions]
    parts = [jnp.asarray(part) for part in (actions, received, probabilities, means, rewards)]
    rounds = jnp.arange(horizon) < played
    whole = Trajectory(*parts, scores=None, arm_mask=jnp.asarray(mask), round_mask=rounds)
    return whole, Trajectory(*(part[:played] for part in parts), scores=None, arm_mask=jnp.asarray(mask))


@quick_jit
def measures(trajectory: Trajectory) -> dict[str, Any]:
    regrets = [Regret(kind, form) for kind in get_args(RegretKind) if kind != "ball" for form in get_args(Form)]
    found: dict[str, Any] = {}
    for regret in (*regrets, Regret("ball", "expected", 2.0)):
        name = f"{regret.kind} {regret.form}"
        found |= {name: regret(trajectory), f"final {name}": regret.final(trajectory)}
        found[f"reward {name}"] = regret.reward(trajectory)
    for measure in (diagnostics.last_best_round, diagnostics.min_frac, diagnostics.greedy_frac):
        found[measure.__name__] = measure(trajectory)
    found |= {f"suff_fail from {round}": diagnostics.suff_fail(trajectory, round) for round in (1, 2, 3)}
    return found | {"rank": diagnostics.played_rank(trajectory), "in hindsight": in_hindsight(trajectory).actions}


@settings(deadline=None, max_examples=100)
@given(cut_trajectories())
def test_what_is_measured_of_masked_rounds_is_that_of_a_shorter_trajectory(pair):
    masked, cut = map(measures, pair)
    played = pair[1].actions.shape[0]
    for name, own in cut.items():
        whole = masked[name][:played] if own.ndim else masked[name]
        np.testing.assert_allclose(whole, own, atol=1e-5, err_msg=name)
