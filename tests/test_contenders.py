"""The baselines play and learn what the package does: their speed may be compared, and they check its fast path."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import TINY

from experiments.benchmarks.contenders import obvious, unfused
from experiments.benchmarks.contenders.steps import Draws
from rmft_jax import rmft
from rmft_jax.config import AbruptConfig, BanditConfig, ConfigError, RMFTConfig, SingleLayerConfig, TransformerConfig
from rmft_jax.environments import make_environment
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.types import ScalarKey, TrainState, Trajectory


def tiny(environment: object, layers: int, width: int, heads: int, **changes: object) -> RMFTConfig:
    policy = TransformerConfig(num_layers=layers, width=width, num_heads=heads, mlp_ratio=layers + 1)
    # Where a gradient is of the size of its rounding, Adam turns that into a part of a step: steps are small here.
    return dataclasses.replace(TINY, environment=environment, policy=policy, step_size=2e-4, **changes)


CONFIGS = {
    "uniform": tiny(BanditConfig(num_arms=3), 2, 8, 2, temperature=1.7, entropy_weight=0.1),
    "none": tiny(BanditConfig(num_arms=2), 1, 12, 3, branching="none", num_rollouts=3, num_epochs=2, horizon=9),
    "one head": tiny(
        AbruptConfig(num_arms=4, noise="gaussian"),
        1,
        6,
        1,
        shared_reward_noise=True,
        selection="random",
        k=1,
        temperature=0.6,
    ),
}
CASES = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def start(config: RMFTConfig) -> TrainState:
    """Weights far from the first ones, under which the policy is near uniform and most biases are zero."""
    rng = np.random.default_rng(0)
    shapes = rmft.abstract_state(config).params
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.5, x.shape), jnp.float32), shapes)
    return rmft.state_of(config, params, jax.random.key(0))


@jax.jit
def packages_own(state: TrainState, key: ScalarKey, branch_rounds: jax.Array | None = None) -> Trajectory:
    config = state.config
    return rollout_scenarios(
        rmft.make_agent(state, explore=True),
        make_environment(config.environment),
        RolloutKeys.create(key),
        horizon=config.horizon,
        num_scenarios=config.num_scenarios,
        num_rollouts=config.num_rollouts,
        branch_rounds=branch_rounds,
        shared_reward_noise=config.shared_reward_noise,
    )


@functools.cache
def packages_iterations(name: str) -> list:
    """States and metrics after the first and the second iteration."""
    state, results = start(CONFIGS[name]), []
    for _ in range(2):
        state, metrics = rmft.iterate(state)
        results.append(jax.tree.map(np.asarray, (state.params, state.opt_state, state.iteration, metrics)))
    return results


@CASES
def test_obvious_rollouts_are_the_packages_own(config):
    state = start(config)
    draws = Draws.of(state)
    branch_rounds = draws.branch_rounds if config.branching == "uniform" else None
    ours, theirs = (play(state, draws.play, branch_rounds) for play in (packages_own, obvious.rollouts))
    assert len(np.unique(ours.actions)) == config.environment.num_arms
    assert jnp.std(jnp.log(ours.probabilities), axis=(0, 1, 2)).max() > 0.05, "the policy must depend on the past"
    np.testing.assert_array_equal(theirs.actions, ours.actions)
    np.testing.assert_allclose(theirs.rewards, ours.rewards, rtol=1e-6)
    np.testing.assert_allclose(theirs.mean_rewards, ours.mean_rewards, rtol=1e-6)
    np.testing.assert_allclose(theirs.reward_table, ours.reward_table, rtol=1e-6)
    np.testing.assert_allclose(theirs.probabilities, ours.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(jnp.log(theirs.probabilities), jnp.log(ours.probabilities), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(theirs.arm_mask, ours.arm_mask)
    np.testing.assert_array_equal(theirs.played, ours.played)


@pytest.mark.parametrize(
    ("contender", "name"),
    [*((obvious, name) for name in CONFIGS), (unfused, "none"), (unfused, "one head")],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_iterations_are_the_packages_own(contender, name):
    state = start(CONFIGS[name])
    for expected, atol in zip(packages_iterations(name), (1e-5, 1e-4), strict=True):
        state, metrics = contender.iterate(state)
        params, opt_state, iteration, expected_metrics = expected
        chex.assert_trees_all_close(state.params, params, rtol=0, atol=atol)
        chex.assert_trees_all_close(state.opt_state, opt_state, rtol=1e-4, atol=1e-6)
        assert int(state.iteration) == iteration
        chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [obvious.ObviousJax, unfused.Unfused])
def test_compiled_ahead_of_time_they_train_alike(kind):
    config = CONFIGS["uniform"]
    contender = kind(config, seed=3)
    assert contender.compile_seconds > 0
    if isinstance(contender, obvious.ObviousJax):
        contender.rollout()
    contender.iteration()
    expected, _ = rmft.iterate(rmft.init(config, jax.random.key(3)))
    chex.assert_trees_all_close(contender.state.params, expected.params, rtol=0, atol=1e-5)
    contender.iteration()
    assert int(contender.state.iteration) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": TransformerConfig(position="alibi")}, "position='alibi'"),
        ({"policy": TransformerConfig(arms="token")}, "arms='token'"),
        ({"policy": SingleLayerConfig(), "entropy_weight": 0.0}, "policy=SingleLayerConfig"),
        ({"environment": BanditConfig(feedback="full"), "entropy_weight": 0.0}, "feedback='full'"),
    ],
)
def test_what_the_obvious_does_not_write_out_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        obvious.ObviousJax(dataclasses.replace(TINY, **changes))


def test_what_the_unfused_cannot_update_is_refused():
    least_squares = {"policy": SingleLayerConfig(), "entropy_weight": 0.0, "update": "least_squares"}
    with pytest.raises(ConfigError, match="update='least_squares'"):
        unfused.Unfused(dataclasses.replace(TINY, **least_squares))
    points = {"environment": BanditConfig(feedback="full"), "entropy_weight": 0.0, "decision_map": "ball"}
    with pytest.raises(ConfigError, match="decision_map='ball'"):
        unfused.Unfused(dataclasses.replace(TINY, **points))
