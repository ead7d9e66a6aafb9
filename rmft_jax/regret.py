"""Regret, each definition once. All are cumulative over rounds, in reward units, `[..., T]`.

Absent arms neither count as best nor receive probability. For a stationary bandit the per-round maximum below is the
single best arm, so the pseudo-regret is that of Bubeck and Cesa-Bianchi (2012, section 1.1).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.types import Trajectory


def of_action(table: Float[Array, "*batch T K"], actions: Int[Array, "*batch T"]) -> Float[Array, "*batch T"]:
    """The table's entry at the arm of each round."""
    return jnp.take_along_axis(table, actions[..., None], axis=-1)[..., 0]


def best_mean(trajectory: Trajectory) -> Float[Array, "*batch T"]:
    """Highest expected reward among existing arms, per round."""
    return jnp.max(jnp.where(trajectory.arm_mask[..., None, :], trajectory.mean_rewards, -jnp.inf), axis=-1)


def pseudo_regret(trajectory: Trajectory) -> Float[Array, "*batch T"]:
    """`sum_s max_a r_s(a) - r_s(a_s)`: sampled-action form, the one by which the paper selects."""
    return jnp.cumsum(best_mean(trajectory) - of_action(trajectory.mean_rewards, trajectory.actions), axis=-1)


def expected_regret(trajectory: Trajectory) -> Float[Array, "*batch T"]:
    """`sum_s max_a r_s(a) - <pi_s, r_s>`: expected-action form of the pseudo-regret."""
    expected = jnp.sum(trajectory.probabilities * trajectory.mean_rewards, axis=-1)
    return jnp.cumsum(best_mean(trajectory) - expected, axis=-1)


def realized_regret(trajectory: Trajectory) -> Float[Array, "*batch T"]:
    """`sum_s R_s(a*_s) - R_s(a_s)` with `a*_s` the arm of highest expected reward.

    It can be negative: selecting on it rewards luck. The comparator is the best arm in expectation, the first one
    among equals (ours); the best arm in hindsight belongs to the static regret.
    """
    means = jnp.where(trajectory.arm_mask[..., None, :], trajectory.mean_rewards, -jnp.inf)
    comparator = of_action(trajectory.reward_table, jnp.argmax(means, axis=-1))
    return jnp.cumsum(comparator - trajectory.rewards, axis=-1)


REGRETS: dict[str, Callable[[Trajectory], Float[Array, "*batch T"]]] = {
    "pseudo": pseudo_regret,
    "expected": expected_regret,
    "realized": realized_regret,
}
