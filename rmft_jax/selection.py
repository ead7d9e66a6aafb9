"""Which trajectories are kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped


def select_lowest(regret: Float[Array, "M L"], k: int) -> Int[Array, "M k"]:
    """Per scenario, the indices of the `k` rollouts with the lowest regret, lowest first.

    Equal regrets keep the lower index, which favours nobody: rollouts of a scenario are exchangeable.
    """
    return jax.lax.top_k(-regret, k)[1]


def take_rollouts(tree: PyTree[Shaped[Array, "M L ..."]], kept: Int[Array, "M k"]) -> PyTree[Shaped[Array, "N ..."]]:
    """Gathers the kept rollouts of every leaf and merges scenario and rollout axes: `N = M * k`."""

    def take(leaf: Shaped[Array, "M L ..."]) -> Shaped[Array, "N ..."]:
        index = kept.reshape(kept.shape + (1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(leaf, index, axis=1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(take, tree)
