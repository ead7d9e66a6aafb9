"""Training runs of the single layer as paths of its value matrix, by the package's own compiled iteration."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rmft_jax.agents import SingleLayer
from rmft_jax.config import Params
from rmft_jax.config.platforms import platform
from rmft_jax.method.evaluation import quick_to_compile
from rmft_jax.method.rmft import iterate
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, init
from rmft_jax.problems import Stationary
from theory.statement import Effort, Row, equal, structural_error, zeros

SETTING = RMFTConfig().replace(
    environment=Stationary(
        num_arms=3, feedback="full", prior="gaussian", prior_std=0.7, noise="gaussian", noise_std=1.0
    ),
    policy=SingleLayer(key_size=1),
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
STRONG = SETTING.replace(prior_std=1.0, noise_std=0.3, horizon=10, exploration_std=0.1, num_scenarios=2048)
"""Short horizons and a strong signal train cheaply and precisely; what is learned plays any horizon."""


QUICK = quick_to_compile(platform())
"""Compiler options for programs that compile for about as long as they run; on CPU they were no slower."""
_programs: dict[Any, Callable[[TrainState], tuple[TrainState, Any]]] = {}


def _compiled_iterate(state: TrainState) -> Callable[[TrainState], tuple[TrainState, Any]]:
    """The package's `iterate`, compiled quickly, once for all settings of the same shapes and choices."""
    structure = jax.tree.structure(state)
    if structure not in _programs:
        _programs[structure] = iterate.lower(state).compile(compiler_options=QUICK)
    return _programs[structure]


def walk(
    config: RMFTConfig,
    num_iterations: int,
    num_seeds: int,
    effort: Effort,
    start: Float[np.ndarray, "K K"] | None = None,
    read: Callable[[Params], Float[np.ndarray, "*shape"]] = lambda params: np.asarray(params["V"]),
    stream: str = "",
) -> Float[np.ndarray, "S n *shape"]:
    """The value matrices `W_0 .. W_n` of `num_seeds` runs of `iterate`, from `start` or from 0.

    Args:
      config: the setting.
      num_iterations: n.
      num_seeds: S.
      effort: for its seed and its note.
      start: `W_0`.
      read: what is taken from the parameters in place of the value matrix.
      stream: name of the random stream. Walks of one stream share their random numbers, which is for comparisons of
        settings with each other; what is to be independent has a name of its own.
    """
    paths, key = [], effort.key(stream) if stream else jax.random.key(effort.seed)
    for seed in range(num_seeds):
        state = init(config, jax.random.fold_in(key, seed))
        if start is not None:
            params = {**state.params, "V": jnp.asarray(start, jnp.float32)}
            state = dataclasses.replace(state, params=params)
        path = [read(state.params)]
        for n in range(num_iterations):
            state, _ = _compiled_iterate(state)(state)
            path.append(read(state.params))
            effort.note(f"seed {seed + 1}/{num_seeds}, iteration {n + 1}: {path[-1].flat[0]:.4f}")
        paths.append(np.stack(path))
    return np.stack(paths).astype(np.float64)


def increments(paths: Float[np.ndarray, "S n K K"]) -> Float[np.ndarray, "N K K"]:
    """All steps `W_n - W_{n-1}`, which are independent and have one law (theorem A1)."""
    return np.diff(paths, axis=1).reshape(-1, *paths.shape[2:])


_lopsided = structural_error("lopsided", "beside the diagonal W has a twentieth of it, the same on both sides")
_turned = structural_error("turned", "W turns: beside the diagonal it has a twentieth of it, of opposite signs")


def multiple_of_identity(statement: str, name: str, size: float, matrices: Float[np.ndarray, "N K K"]) -> list[Row]:
    """Rows that say that independent matrices of one law are on average `size I`.

    Args:
      statement: what they belong to.
      name: of what the matrices are.
      size: what is predicted.
      matrices: the samples; in pairs across the diagonal, entries are uncorrelated (`mirrored`).
    """
    planted = np.sqrt(2) / 20 * size
    return [
        equal(statement, f"{name}, diagonal", size, diagonal(matrices)),
        zeros(statement, f"{name}, symmetric part of the rest", mirrored(matrices, 1), planted * _lopsided()),
        zeros(statement, f"{name}, antisymmetric part", mirrored(matrices, -1), planted * _turned()),
    ]


def diagonal(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """The mean of the diagonal."""
    return np.trace(paths, axis1=-2, axis2=-1) / paths.shape[-1]


def off_diagonal(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch E"]:
    """The entries beside the diagonal."""
    size = paths.shape[-1]
    return paths[..., ~np.eye(size, dtype=bool)]


def mirrored(paths: Float[np.ndarray, "*batch K K"], sign: float) -> Float[np.ndarray, "*batch E"]:
    """Of pairs of entries across the diagonal the sum (`sign` 1) or the difference (-1), over the root of 2.

    Where the law does not change with permutations and signs of the arms, these are uncorrelated.
    """
    rows, columns = np.triu_indices(paths.shape[-1], 1)
    return (paths[..., rows, columns] + sign * paths[..., columns, rows]) / np.sqrt(2)
