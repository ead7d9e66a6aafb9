"""Expected rewards that change at once."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require, require_count
from rmft_jax.problems.base import Environment
from rmft_jax.problems.oblivious import ObliviousEnvironment


@Environment.register("abrupt")
class Abrupt(ObliviousEnvironment):
    """Piecewise constant: `num_changes` distinct change points, uniform among rounds 2..T. V_T <= num_changes.

    The first expected rewards are uniform on [0, 1]. A change draws fresh ones, or mirrors them: r becomes 1 - r.
    """

    num_changes: int = 3
    """Change points m; fewer than the horizon."""
    change: Literal["fresh", "mirrored"] = "fresh"
    """What a change does."""

    def validate_law(self, horizon: int) -> None:
        require_count(self.num_changes, "num_changes", 0, 3)
        require(
            self.num_changes < horizon,
            f"num_changes={self.num_changes} with horizon={horizon}",
            "fewer change points than rounds",
            f"num_changes={max(0, min(3, horizon - 1))}",
        )

    def variation_budget(self, horizon: int) -> float:
        return float(self.num_changes)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        num_changes = self.num_changes
        change_key, mean_key = jax.random.split(key)
        # The m highest of T - 1 scores: distinct change points, all sets equally likely.
        scores = jnp.where(round_mask[1:], jax.random.uniform(change_key, (round_mask.shape[0] - 1,)), -1.0)
        _, changes = jax.lax.top_k(scores, num_changes)
        segment = jnp.cumsum(jnp.zeros(round_mask.shape[0], jnp.int32).at[changes + 1].set(1))
        index = jnp.arange(num_changes + 1)
        match self.change:
            case "fresh":
                means = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(mean_key, i), (self.num_arms,)))(index)
            case "mirrored":
                first = jax.random.uniform(jax.random.fold_in(mean_key, 0), (self.num_arms,))
                means = jnp.where(index[:, None] % 2 == 0, first[None], 1 - first[None])
        return means[segment]
