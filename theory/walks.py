"""Training runs of the single layer as paths of its value matrix, by the package's own compiled iteration."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rmft_jax import BanditConfig, RMFTConfig, SingleLayerConfig, init, iterate
from theory.statement import Effort

SETTING = RMFTConfig(
    environment=BanditConfig(
        num_arms=3, feedback="full", prior="gaussian", prior_std=0.7, noise="gaussian", noise_std=1.0
    ),
    policy=SingleLayerConfig(key_size=1),
    horizon=20,
    num_scenarios=4096,
    num_rollouts=8,
    k=2,
    branching="none",
    shared_reward_noise=True,
    decision_map="identity",
    exploration_std=0.5,
    entropy_weight=0.0,
    update="least_squares",
)
"""The setting of the lemma and of theorem 1: full information, shared rewards, linear payoff, exact fit."""


def with_environment(config: RMFTConfig, **changes: Any) -> RMFTConfig:
    """The setting with another environment."""
    return dataclasses.replace(config, environment=dataclasses.replace(config.environment, **changes))


def walk(
    config: RMFTConfig,
    num_iterations: int,
    num_seeds: int,
    effort: Effort,
    start: Float[np.ndarray, "K K"] | None = None,
) -> Float[np.ndarray, "S n K K"]:
    """The value matrices `W_0 .. W_n` of `num_seeds` runs of `iterate`, from `start` or from 0."""
    paths = []
    for seed in range(num_seeds):
        state = init(config, jax.random.fold_in(jax.random.key(effort.seed), seed))
        if start is not None:
            params = {**state.params, "V": jnp.asarray(start, jnp.float32)}
            state = dataclasses.replace(state, params=params)
        path = [np.asarray(state.params["V"])]
        for n in range(num_iterations):
            state, _ = iterate(state)
            path.append(np.asarray(state.params["V"]))
            effort.note(f"seed {seed + 1}/{num_seeds}, iteration {n + 1}: W[1,1] = {path[-1][0, 0]:.4f}")
        paths.append(np.stack(path))
    return np.stack(paths).astype(np.float64)


def diagonal(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """The mean of the diagonal."""
    return np.trace(paths, axis1=-2, axis2=-1) / paths.shape[-1]


def off_diagonal(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch E"]:
    """The entries beside the diagonal."""
    size = paths.shape[-1]
    return paths[..., ~np.eye(size, dtype=bool)]
