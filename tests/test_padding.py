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
from worlds import TINY_RUN

from rmft_jax import diagnostics, rmft
from rmft_jax.agents import Agent, init_params, make_agents, trained_agent
from rmft_jax.agents.padding import pad_params
from rmft_jax.config import BanditConfig, EnvironmentConfig, RegretKind, RMFTConfig, SingleLayerConfig
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import in_hindsight, play_scenarios
from rmft_jax.presets import ENVIRONMENTS
from rmft_jax.regret import Form, Regret
from rmft_jax.training import METRICS
from rmft_jax.types import Decision, Extent, Params, Trajectory

KEY = jax.random.key(3)
ARMS, ROUNDS = 3, 6
MORE_ARMS, MORE_ROUNDS = 5, 9
EXTENT = Extent(ARMS, ROUNDS)
# Programs that run once: what compiles fastest is best.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def changed(config: RMFTConfig, **changes: Any) -> RMFTConfig:
    """A configuration with other settings, those of its policy and environment included."""
    parts = {}
    for name in ("policy", "environment"):
        part = getattr(config, name)
        own = {field: changes.pop(field) for field in list(changes) if field in part.__dataclass_fields__}
        parts[name] = changes.pop(name, dataclasses.replace(part, **own))
    return dataclasses.replace(config, **parts, **changes)


BANDIT = TINY_RUN.rmft
FULL = changed(
    BANDIT,
    environment=BanditConfig(num_arms=ARMS, feedback="full", prior="gaussian", noise="gaussian"),
    shared_reward_noise=True,
    entropy_weight=0.0,
)
SINGLE = changed(FULL, policy=SingleLayerConfig(key_size=2), update="least_squares", decision_map="identity")
POLICIES = {
    "bandit": BANDIT,
    "learned": changed(BANDIT, position="learned"),
    "full": FULL,
    "token": changed(BANDIT, arms="token"),
    "single_layer": changed(SINGLE, policy=SingleLayerConfig(key_size=2, trained="all")),
    "single_layer_bandit": changed(
        BANDIT, policy=SingleLayerConfig(attention="softmax", trained="all"), entropy_weight=0.0
    ),
}


def some_slow(names: Iterable[str], *slow: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def larger(config: RMFTConfig) -> RMFTConfig:
    return changed(config, num_arms=MORE_ARMS, horizon=MORE_ROUNDS)


def shapes(config: RMFTConfig) -> Params:
    return jax.eval_shape(lambda: init_params(config, KEY))


def some_params(config: RMFTConfig) -> Params:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.1 + 0.3 * rng.standard_normal(leaf.shape, np.float32), shapes(config))


@pytest.mark.parametrize("name", POLICIES)
def test_parameters_survive_padding_and_what_is_new_is_zero(name):
    config = POLICIES[name]
    params = some_params(config)
    padded = pad_params(params, config, larger(config))
    jax.tree.map(lambda leaf, new: np.testing.assert_equal(leaf.shape, new.shape), padded, shapes(larger(config)))
    old = jax.tree.map(lambda leaf, new: np.asarray(new)[np.nonzero(new)].reshape(leaf.shape), params, padded)
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
            outputs = trained_agent(config, params).outputs(trajectory)
            return jnp.sum(jnp.where(used, outputs * waves, 0.0)), outputs

        (_, outputs), gradients = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
        return outputs, gradients

    own, gradients = outputs_and_gradients(config, params)
    padded, more = outputs_and_gradients(larger(config), pad_params(params, config, larger(config)))
    np.testing.assert_allclose(padded[:ROUNDS, :ARMS], own, rtol=1e-4, atol=1e-5)
    assert np.isneginf(padded[:, ARMS:]).all()
    expected = pad_params(gradients, config, larger(config))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), more, expected)
    old = pad_params(jax.tree.map(np.ones_like, params), config, larger(config))
    jax.tree.map(lambda leaf, is_old: np.testing.assert_array_equal(leaf * (1 - is_old), 0), more, old)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients)) > 0.01


SLOW_SETTINGS = {
    "full": changed(FULL, branching="none"),
    "branching": changed(BANDIT, branching="uniform"),
    "no branching": changed(BANDIT, branching="none"),
    "learned": POLICIES["learned"],
    "sinusoidal": changed(BANDIT, position="sinusoidal"),
    "token": POLICIES["token"],
    "pooled": changed(BANDIT, selection="pooled"),
    "random": changed(BANDIT, selection="random"),
    "ball": changed(FULL, decision_map="ball"),
    "simplex": changed(FULL, decision_map="simplex"),
    "cross entropy": changed(FULL, full_loss="cross_entropy"),
    "single layer, gradient": changed(POLICIES["single_layer"], update="gradient", decision_map="softmax"),
}
SETTINGS = {"least squares": SINGLE}


@pytest.mark.parametrize("name", some_slow({**SETTINGS, **SLOW_SETTINGS}, *SLOW_SETTINGS))
def test_an_iteration_in_part_of_a_state_is_that_of_a_state_of_this_size(name):
    config = {**SETTINGS, **SLOW_SETTINGS}[name]
    params = jax.tree.map(np.asarray, jax.jit(functools.partial(init_params, config))(KEY))
    # States are donated.
    own = rmft.state_of(config, jax.tree.map(jnp.asarray, params), jax.random.key(4))
    padded = rmft.state_of(larger(config), pad_params(params, config, larger(config)), jax.random.key(4))
    for iteration in range(2):
        own, metrics = rmft.iterate(own)
        padded, more = rmft.iterate(padded, Extent(jnp.asarray(ARMS), jnp.asarray(ROUNDS)))
        rtol, atol = (1e-5, 1e-6) if iteration == 0 else (1e-3, 1e-4)
        for field in METRICS:
            own_value, value = getattr(metrics, field), getattr(more, field)
            np.testing.assert_allclose(value, own_value, rtol=rtol, atol=atol, err_msg=field)
    found, expected = padded.params, pad_params(own.params, config, larger(config))
    if name == "token":  # These add the same to the logit of every arm: gradients of rounding, which Adam blows up.
        for part in (found["out"], expected["out"], found["out_norm"], expected["out_norm"]):
            part["bias"] = np.zeros_like(part["bias"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected)
    old = pad_params(jax.tree.map(np.ones_like, params), config, larger(config))
    jax.tree.map(lambda leaf, is_old: np.testing.assert_allclose(leaf * (1 - is_old), 0, atol=1e-6), found, old)


@pytest.mark.parametrize(
    "name", some_slow(ENVIRONMENTS, "fixed_gap_easy", "abrupt_mirrored", "besbes_first_third", "iid_gaussian")
)
def test_problems_and_rewards_do_not_depend_on_padding(name):
    """What a scenario draws is indexed by round and arm, never by a padded shape."""

    @functools.partial(quick_jit, static_argnums=(0, 1))
    def tables(num_arms: int, horizon: int) -> Any:
        world = make_environment(dataclasses.replace(ENVIRONMENTS[name].config, num_arms=num_arms))
        masks = EXTENT.arm_mask(num_arms), EXTENT.round_mask(horizon)

        def scenario(key: Any) -> Any:
            def step(state: Any, round: Any) -> Any:
                before = world.mean_rewards(state, round)
                decision = Decision(round % 2, jax.nn.one_hot(round % 2, num_arms))
                state, outcome = world.step(jax.random.fold_in(key, round), state, decision, round)
                return state, (before, outcome.mean_rewards, outcome.rewards)

            return jax.lax.scan(step, world.reset(key, *masks), jnp.arange(horizon))[1]

        return jax.vmap(scenario)(jax.random.split(KEY, 20))

    for own, padded in zip(tables(ARMS, ROUNDS), tables(MORE_ARMS, MORE_ROUNDS), strict=True):
        np.testing.assert_allclose(padded[:, :ROUNDS, :ARMS], own, atol=1e-5)


def trained(config: RMFTConfig) -> tuple[Agent, Agent]:
    """A policy with large weights, so that it is far from uniform, and the same one padded."""
    params = jax.tree.map(lambda leaf: 3 * leaf, some_params(config))
    return (
        trained_agent(config, params, explore=True),
        trained_agent(larger(config), pad_params(params, config, larger(config)), explore=True),
    )


def assert_they_play_alike(config: EnvironmentConfig, agents: dict[str, tuple[Agent, Agent]]) -> None:
    """The first of each pair on the problem itself, the second where it is padded."""

    @functools.partial(quick_jit, static_argnums=(1, 2))
    def play(agents: dict[str, Agent], num_arms: int, horizon: int) -> dict[str, Trajectory]:
        world = make_environment(dataclasses.replace(config, num_arms=num_arms))
        masks = EXTENT.arm_mask(num_arms), EXTENT.round_mask(horizon)
        return {name: play_scenarios(agent, world, KEY, horizon, 20, *masks) for name, agent in agents.items()}

    owns = play({name: pair[0] for name, pair in agents.items()}, ARMS, ROUNDS)
    padded = play({name: pair[1] for name, pair in agents.items()}, MORE_ARMS, MORE_ROUNDS)
    for name, own in owns.items():
        more = padded[name]
        np.testing.assert_array_equal(more.actions[:, :ROUNDS], own.actions, err_msg=name)
        np.testing.assert_allclose(more.rewards[:, :ROUNDS], own.rewards, atol=1e-5, err_msg=name)
        for field in ("probabilities", "mean_rewards", "reward_table"):
            table = getattr(more, field)
            np.testing.assert_allclose(
                table[:, :ROUNDS, :ARMS], getattr(own, field), atol=1e-5, err_msg=f"{name}: {field}"
            )
            np.testing.assert_array_equal(table[..., ARMS:], 0, err_msg=f"{name}: {field}")


def classical(config: EnvironmentConfig, names: list[str] | None) -> dict[str, tuple[Agent, Agent]]:
    """They do not know that they are padded, but for one that is refused."""
    agents = make_agents(dataclasses.replace(config, num_arms=ARMS), ROUNDS, names)
    return {name: (agent, agent) for name, agent in agents.items() if name != "bayes_optimal"}


def test_agents_play_alike_under_bandit_feedback():
    config = ENVIRONMENTS["abrupt"].config
    assert_they_play_alike(config, classical(config, ["thompson", "exp3", "best_fixed_arm"]))


def test_agents_play_alike_under_full_information():
    config = ENVIRONMENTS["iid_uniform"].config
    assert_they_play_alike(config, classical(config, ["hedge", "ftpl", "follow_the_leader"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "abrupt", "crowding", "iid_uniform", "iid_gaussian"])
def test_all_agents_play_alike(name):
    config = ENVIRONMENTS[name].config
    full = config.feedback == "full"
    policies = ["full", "single_layer"] if full else ["bandit", "learned", "token", "single_layer_bandit"]
    mine = {policy: trained(changed(POLICIES[policy], decision_map="softmax")) for policy in policies}
    assert_they_play_alike(config, classical(config, None) | mine)


unit = st.floats(0, 1, width=32, allow_subnormal=False)


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
