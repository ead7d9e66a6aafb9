"""The baselines play and learn what the package does: their speed may be compared, and they check its fast path."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.contenders import obvious, unfused
from rmft_jax.agents import SingleLayer, Transformer
from rmft_jax.config import ConfigError
from rmft_jax.method import rmft
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, abstract_state, init, state_of
from rmft_jax.problems import Abrupt, Ball, Environment, Stationary
from worlds import TINY


def tiny(environment: Environment, layers: int, width: int, heads: int, **changes: object) -> RMFTConfig:
    policy = Transformer(num_layers=layers, width=width, num_heads=heads, mlp_ratio=layers + 1)
    # Where a gradient is of the size of its rounding, Adam turns that into a part of a step: steps are small here.
    return TINY.replace(environment=environment, policy=policy, step_size=2e-4, **changes)


GAUSSIAN = Abrupt(num_arms=4, noise="gaussian")
CONFIGS = {
    "uniform": tiny(Stationary(num_arms=3), 2, 8, 2, temperature=1.7, entropy_weight=0.1),
    "none": tiny(Stationary(num_arms=2), 1, 12, 3, branching="none", num_rollouts=3, num_epochs=2, horizon=9),
    "one head": tiny(GAUSSIAN, 1, 6, 1, shared_reward_noise=True, selection="random", k=1, temperature=0.6),
}
CASES = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def start(config: RMFTConfig) -> TrainState:
    """Weights far from the first ones, under which the policy is near uniform and most biases are zero."""
    rng = np.random.default_rng(0)
    shapes = abstract_state(config).params
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.5, x.shape), jnp.float32), shapes)
    return state_of(config, params, jax.random.key(0))


@functools.cache
def packages_iterations(name: str) -> list:
    """States and metrics after the first and the second iteration."""
    state, results = start(CONFIGS[name]), []
    for _ in range(2):
        state, metrics = rmft.iterate(state)
        results.append(jax.tree.map(np.asarray, (state.params, state.opt_state, state.iteration, metrics)))
    return results


@pytest.mark.accelerator
@CASES
def test_obvious_rollouts_are_the_packages_own(config):
    state = start(config)
    ours, theirs = rmft.play(state), obvious.play(state)
    assert len(np.unique(ours.actions)) == config.environment.num_arms
    assert jnp.std(jnp.log(ours.probabilities), axis=(0, 1, 2)).max() > 0.05, "the policy must depend on the past"
    np.testing.assert_array_equal(theirs.actions, ours.actions)
    np.testing.assert_allclose(theirs.rewards, ours.rewards, rtol=1e-6)
    np.testing.assert_allclose(theirs.mean_rewards, ours.mean_rewards, rtol=1e-6)
    np.testing.assert_allclose(theirs.reward_table, ours.reward_table, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(theirs.probabilities, ours.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(jnp.log(theirs.probabilities), jnp.log(ours.probabilities), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(theirs.arm_mask, ours.arm_mask)
    np.testing.assert_array_equal(theirs.played, ours.played)


@pytest.mark.parametrize(
    ("contender", "name"),
    [
        *(pytest.param(obvious, name, marks=[pytest.mark.slow] * (name != "none")) for name in CONFIGS),
        (unfused, "none"),
        pytest.param(unfused, "one head", marks=pytest.mark.slow),
    ],
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


@pytest.mark.parametrize("kind", [pytest.param(obvious.ObviousJax, marks=pytest.mark.slow), unfused.Unfused])
def test_compiled_ahead_of_time_they_train_alike(kind):
    config = CONFIGS["uniform"]
    contender = kind(config, seed=3)
    assert contender.compile_seconds > 0
    if isinstance(contender, obvious.ObviousJax):
        contender.rollout()
    contender.iteration()
    expected, _ = rmft.iterate(init(config, jax.random.key(3)))
    chex.assert_trees_all_close(contender.state.params, expected.params, rtol=0, atol=1e-5)
    contender.iteration()
    assert int(contender.state.iteration) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": "alibi"}, "position='alibi'"),
        ({"arms": "token"}, "arms='token'"),
        ({"policy": SingleLayer(), "entropy_weight": 0.0}, "policy='single_layer'"),
        ({"environment": Stationary(feedback="full"), "entropy_weight": 0.0}, "feedback='full'"),
        ({"objective": "grpo", "k": 4}, "objective='grpo'"),
        ({"kl_reference": "previous", "kl_weight": 0.1}, "kl_reference='previous'"),
        ({"refresh_every": 2}, "refresh_every=2"),
    ],
)
def test_what_the_obvious_does_not_write_out_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        obvious.ObviousJax(TINY.replace(**changes))


def test_the_unfused_programs_know_all_that_the_package_does():
    points = {"environment": Stationary(num_arms=3, feedback="full"), "entropy_weight": 0.0, "decision_map": Ball(0.5)}
    config = TINY.replace(policy=SingleLayer(), update="least_squares", num_iterations=2, **points)
    state, metrics = unfused.iterate(init(config, jax.random.key(1)))
    expected = rmft.iterate(init(config, jax.random.key(1)))
    chex.assert_trees_all_close((state.params, metrics), (expected[0].params, expected[1]), rtol=1e-5, atol=1e-6)
