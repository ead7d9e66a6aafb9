"""Which trajectories are kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

from rmft_jax.config import RMFTConfig
from rmft_jax.devices import ALONE, Shares
from rmft_jax.types import ScalarKey


def select(
    config: RMFTConfig,
    key: ScalarKey,
    regret: Float[Array, "M L"],
    reward: Float[Array, "M L"],
    shares: Shares = ALONE,
) -> Int[Array, "G n"]:
    """The rollouts that are kept, lowest score first: `n = k` of each scenario, or `n = M * k` of all as one group.

    Ranks within a scenario do not tell a large gain from a small one: a policy that commits early wins most
    comparisons by a little, and loses few by much. `advantage` compares what was gained over the scenario's mean.

    Args:
      config: says by what, and how many.
      key: what a random selection draws from.
      regret: `[M, L]` at the horizon.
      reward: `[M, L]` total reward.
      shares: of how many devices these are the scenarios of one.
    """
    match config.selection:
        case "reward":
            return select_lowest(-reward, config.k)
        case "random":
            scores = jax.random.uniform(key, (regret.shape[0] * shares.number, regret.shape[1]))
            return select_lowest(shares.own(scores), config.k)
        case "pooled":
            return select_lowest(regret.reshape(1, -1), regret.shape[0] * config.k)
        case "advantage":
            relative = regret - jnp.mean(regret, axis=1, keepdims=True)
            return select_lowest(relative.reshape(1, -1), regret.shape[0] * config.k)
        case "regret":
            return select_lowest(regret, config.k)


def select_lowest(regret: Float[Array, "M L"], k: int) -> Int[Array, "M k"]:
    """Per scenario, the indices of the `k` rollouts with the lowest regret, lowest first.

    Equal regrets keep the lower index, which favours nobody: rollouts of a scenario are exchangeable.
    """
    return jax.lax.top_k(-regret, k)[1]


def take_rollouts(tree: PyTree[Shaped[Array, "M L ..."]], kept: Int[Array, "G n"]) -> PyTree[Shaped[Array, "N ..."]]:
    """Gathers the kept rollouts of every leaf, and merges scenario and rollout axes: `N = G * n`.

    A group is a scenario, or several in a row, whose rollouts are then counted through.
    """

    def take(leaf: Shaped[Array, "M L ..."]) -> Shaped[Array, "N ..."]:
        grouped = leaf.reshape(kept.shape[0], -1, *leaf.shape[2:])
        index = kept.reshape(kept.shape + (1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(grouped, index, axis=1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(take, tree)
