"""Statistics of how an agent explores (Krishnamurthy et al. 2024). All take batches of trajectories."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.regret import best_mean, of_action
from rmft_jax.types import Trajectory


def suff_fail(trajectory: Trajectory, round: int) -> Bool[Array, "*batch"]:
    """Suffix failure: no best arm is played in rounds `round .. T`, both counted from 1.

    Its mean over runs is SuffFailFreq(round), which does not decrease with `round`. Where several arms are best, any
    of them counts.
    """
    plays_best = of_action(trajectory.mean_rewards, trajectory.actions) == best_mean(trajectory)
    return ~jnp.any(plays_best[..., round - 1 :], axis=-1)


def half_horizon(horizon: int) -> int:
    """The round T/2, counted from 1, at which suffix failure is reported."""
    return max(1, horizon // 2)


def min_frac(trajectory: Trajectory) -> Float[Array, "*batch"]:
    """`K * MinFrac(T) = K * min_a n_a(T) / T`, in [0, 1], over the existing arms."""
    horizon = trajectory.actions.shape[-1]
    played = jax.nn.one_hot(trajectory.actions, trajectory.mean_rewards.shape[-1])
    pulls = jnp.where(trajectory.arm_mask, jnp.sum(played, axis=-2), jnp.inf)
    return jnp.sum(trajectory.arm_mask, axis=-1) * jnp.min(pulls, axis=-1) / horizon


def greedy_frac(trajectory: Trajectory) -> Float[Array, "*batch"]:
    """Fraction of rounds that play an arm with the highest empirical mean among the arms played before.

    Ties count as greedy, an arm never played before does not, and the first round is left out (ours). NaN if T = 1.
    """
    played = jax.nn.one_hot(trajectory.actions, trajectory.mean_rewards.shape[-1])
    pulls = jnp.cumsum(played, axis=-2)[..., :-1, :]
    sums = jnp.cumsum(played * trajectory.rewards[..., None], axis=-2)[..., :-1, :]
    means = jnp.where(pulls > 0, sums / jnp.maximum(pulls, 1.0), -jnp.inf)
    chosen = of_action(means, trajectory.actions[..., 1:])
    return jnp.mean(chosen == jnp.max(means, axis=-1), axis=-1)
