"""Regret, each definition once. All are cumulative over rounds, in reward units, `[..., T]`.

Two things define a regret: what play is compared with, and in which rewards. The sampled form of each counts the
actions played, `X_s(a_s)`; the expected form counts the policies, `<pi_s, X_s>`. Absent arms neither count as best nor
receive probability.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.config import pytree, static_field
from rmft_jax.config.platforms import platform
from rmft_jax.problems.base import RegretKind
from rmft_jax.problems.types import Trajectory

Form = Literal["sampled", "expected"]


def of_action(table: Float[Array, "*batch T K"], actions: Int[Array, "*batch T"]) -> Float[Array, "*batch T"]:
    """The table's entry at the arm of each round."""
    if platform() == "tpu":  # Whose compiler takes twenty seconds over the gather below at a preset's size.
        played = jax.nn.one_hot(actions, table.shape[-1], dtype=bool)
        return jnp.sum(jnp.where(played, table, 0), axis=-1)
    return jnp.take_along_axis(table, actions[..., None], axis=-1)[..., 0]


def best_mean(trajectory: Trajectory) -> Float[Array, "*batch T"]:
    """Highest expected reward among existing arms, per round."""
    return jnp.max(jnp.where(trajectory.arm_mask[..., None, :], trajectory.mean_rewards, -jnp.inf), axis=-1)


def payoff(trajectory: Trajectory, table: Float[Array, "*batch T K"], form: Form) -> Float[Array, "*batch T"]:
    """What play earns in `table`, per round: `X_s(a_s)` or `<pi_s, X_s>`."""
    if form == "sampled":
        return of_action(table, trajectory.actions)
    return jnp.sum(trajectory.probabilities * table, axis=-1)


def _against_best_fixed_arm(
    trajectory: Trajectory, table: Float[Array, "*batch T K"], form: Form
) -> Float[Array, "*batch T"]:
    # Summing differences keeps the sums small, where float32 is exact enough.
    lost = jnp.cumsum(table - payoff(trajectory, table, form)[..., None], axis=-2)
    return jnp.max(jnp.where(trajectory.arm_mask[..., None, :], lost, -jnp.inf), axis=-1)


def static_regret(trajectory: Trajectory, form: Form = "expected") -> Float[Array, "*batch T"]:
    """`max_a sum_s R_s(a) - sum_s <pi_s, R_s>`: the best fixed arm in hindsight, in realized rewards.

    The regret of online learning (Cesa-Bianchi and Lugosi 2006, section 2.1). It can be negative where play follows
    changes.
    """
    return _against_best_fixed_arm(trajectory, trajectory.reward_table, form)


def pseudo_regret(trajectory: Trajectory, form: Form = "sampled") -> Float[Array, "*batch T"]:
    """`max_a sum_s r_s(a) - r_s(a_s)`: the arm that is best in expectation (Bubeck and Cesa-Bianchi 2012, section 1.1).

    In a stationary bandit it is `sum_s max_a r(a) - r(a_s)`, the regret by which the paper selects; it never falls
    there.
    """
    return _against_best_fixed_arm(trajectory, trajectory.mean_rewards, form)


def dynamic_regret(trajectory: Trajectory, form: Form = "sampled") -> Float[Array, "*batch T"]:
    """`sum_s max_a r_s(a) - r_s(a_s)`: the best arm of every round (Besbes, Gur, Zeevi 2014). It never falls."""
    return jnp.cumsum(best_mean(trajectory) - payoff(trajectory, trajectory.mean_rewards, form), axis=-1)


def realized_regret(trajectory: Trajectory, form: Form = "sampled") -> Float[Array, "*batch T"]:
    """`sum_s R_s(a*_s) - R_s(a_s)` with `a*_s` the arm of highest expected reward.

    It can be negative: selecting on it rewards luck. The comparator is the best arm in expectation, the first one
    among equals (ours); the best arm in hindsight belongs to the static regret.
    """
    means = jnp.where(trajectory.arm_mask[..., None, :], trajectory.mean_rewards, -jnp.inf)
    comparator = of_action(trajectory.reward_table, jnp.argmax(means, axis=-1))
    return jnp.cumsum(comparator - payoff(trajectory, trajectory.reward_table, form), axis=-1)


def swap_regret(trajectory: Trajectory, form: Form = "expected") -> Float[Array, "*batch T"]:
    """`sum_a max_b sum_s pi_s(a) (R_s(b) - R_s(a))`: every arm against its best replacement (Blum and Mansour 2007).

    At least the static regret. It keeps `K^2` sums per round.
    """
    table = trajectory.reward_table
    weights = trajectory.probabilities
    if form == "sampled":
        weights = jax.nn.one_hot(trajectory.actions, table.shape[-1])
    gains = jnp.cumsum(weights[..., None] * (table[..., None, :] - table[..., None]), axis=-3)
    return jnp.sum(jnp.max(jnp.where(trajectory.arm_mask[..., None, None, :], gains, -jnp.inf), axis=-1), axis=-1)


def ball_regret(trajectory: Trajectory, radius: Float[Array, ""] | float) -> Float[Array, "*batch T"]:
    """`radius |sum_s R_s| - sum_s <x_s, R_s>`: static regret of play in a ball, where `probabilities` holds `x_s`."""
    best = radius * jnp.linalg.norm(jnp.cumsum(trajectory.reward_table, axis=-2), axis=-1)
    return best - jnp.cumsum(payoff(trajectory, trajectory.reward_table, "expected"), axis=-1)


REGRETS: dict[str, Callable[[Trajectory, Form], Float[Array, "*batch T"]]] = {
    "static": static_regret,
    "pseudo": pseudo_regret,
    "dynamic": dynamic_regret,
    "realized": realized_regret,
    "swap": swap_regret,
}


@pytree
class Regret:
    """A regret and its form, as a function of trajectories.

    kind: a key of `REGRETS`, or `ball`.
    form: `sampled` or `expected`; a ball has only the latter.
    radius: `[]` of the ball.
    """

    kind: RegretKind = static_field()
    form: Form = static_field()
    radius: Float[Array, ""] | float = 1.0

    def __call__(self, trajectory: Trajectory) -> Float[Array, "*batch T"]:
        """Cumulative regret of each trajectory."""
        if self.kind == "ball":
            return ball_regret(trajectory, self.radius)
        return REGRETS[self.kind](trajectory, self.form)

    def final(self, trajectory: Trajectory) -> Float[Array, "*batch"]:
        """Regret of each trajectory at the horizon."""
        return trajectory.at_horizon(self(trajectory))

    def reward(self, trajectory: Trajectory) -> Float[Array, "*batch"]:
        """Total realized reward of each trajectory, in the regret's form."""
        return jnp.sum(payoff(trajectory, trajectory.reward_table, self.form), axis=-1, where=trajectory.played)
