"""What is made of the rollouts: their regrets, and the training data of those that are kept."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from rmft_jax.config import pytree
from rmft_jax.config.checks import require, require_shape
from rmft_jax.problems import Problem, Trajectory

if TYPE_CHECKING:
    from rmft_jax.method.settings import RMFTConfig


@pytree
class Judged:
    """All rollouts of an iteration, and how they fared.

    trajectory: batch axes `[M, L]`.
    regret: `[M, L, T]` cumulative, that by which the selection goes.
    final: `[M, L]` the same at the horizon.
    reward: `[M, L]` total reward, in the form of that regret.
    setting_regret: `[M, L]` the regret of the setting at the horizon.
    """

    trajectory: Trajectory
    regret: Float[Array, "M L T"]
    final: Float[Array, "M L"]
    reward: Float[Array, "M L"]
    setting_regret: Float[Array, "M L"]


@pytree
class KeptBatch:
    """The trajectories that are learned from, as teacher-forced training data.

    trajectory: batch axis `[B]`.
    weights: `[B, T]` 1 where the decision counts, 0 in the shared past before the branch round.
    advantages: `[B, T]` of the decisions, for the policy gradients; else None.
    """

    trajectory: Trajectory
    weights: Float[Array, "*batch T"]
    advantages: Float[Array, "*batch T"] | None = None


def judge(config: "RMFTConfig", problem: Problem, played: Trajectory) -> Judged:
    """The regrets of all rollouts, `[M, L]`."""
    by = config.selection.regret(problem)
    return Judged(played, by(played), by.final(played), by.reward(played), problem.regret.final(played))


def training_data(
    config: "RMFTConfig", judged: Judged, kept: Int[Array, "G n"], own_rounds: Bool[Array, "M T"]
) -> KeptBatch:
    """The kept rollouts, in which the rounds count that a rollout does not share with all others of its scenario.

    Raises:
      ConfigError: if the rule of selection or the objective returned something of a wrong shape.
    """
    num_scenarios, k = judged.final.shape[0], config.selection.k
    require(
        kept.shape in ((num_scenarios, k), (1, num_scenarios * k)) and jnp.issubdtype(kept.dtype, jnp.integer),
        f"an array {kept.dtype}{list(kept.shape)} of kept rollouts from {type(config.selection).__name__}",
        f"their numbers, of shape {(num_scenarios, k)} or {(1, num_scenarios * k)}",
        "jax.lax.top_k(-judged.final, self.k)[1], which keeps the lowest regrets",
    )
    weights = (own_rounds[:, None, :] & judged.trajectory.played).astype(jnp.float32)
    advantages = config.objective.advantages(judged)
    if advantages is not None:
        what, need = f"advantages from {type(config.objective).__name__}", "one for every decision"
        require_shape(advantages, what, judged.regret.shape, need, "jnp.broadcast_to")
    return take_rollouts(KeptBatch(judged.trajectory, weights, advantages), kept)


def take_rollouts(tree: PyTree[Shaped[Array, "M L ..."]], kept: Int[Array, "G n"]) -> PyTree[Shaped[Array, "N ..."]]:
    """Gathers the kept rollouts of every leaf, and merges scenario and rollout axes: `N = G * n`.

    A group is a scenario, or several in a row, whose rollouts are then counted through.
    """

    def take(leaf: Shaped[Array, "M L ..."]) -> Shaped[Array, "N ..."]:
        grouped = leaf.reshape(kept.shape[0], -1, *leaf.shape[2:])
        index = kept.reshape(kept.shape + (1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(grouped, index, axis=1).reshape(-1, *leaf.shape[2:])

    return jax.tree.map(take, tree)
