"""Statistics of how an agent explores (Krishnamurthy et al. 2024). All take batches of trajectories."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.problems.regret import best_mean, of_action
from rmft_jax.problems.types import Trajectory


def last_best_round(trajectory: Trajectory) -> Int[Array, "*batch"]:
    """The last round, counted from 1, in which a best arm is played; 0 if there is none.

    Best is meant of that round, so that it also holds where the best arm changes. Where several arms are best, any of
    them counts.
    """
    plays_best = of_action(trajectory.mean_rewards, trajectory.actions) == best_mean(trajectory)
    plays_best &= trajectory.played
    rounds_since = jnp.argmax(plays_best[..., ::-1], axis=-1)
    return jnp.where(jnp.any(plays_best, axis=-1), plays_best.shape[-1] - rounds_since, 0)


def suff_fail(trajectory: Trajectory, round: Int[Array, ""] | int) -> Bool[Array, "*batch"]:
    """Suffix failure: no best arm is played in rounds `round .. T`, both counted from 1.

    Its mean over runs is SuffFailFreq(round), which does not decrease with `round`.
    """
    return last_best_round(trajectory) < round


def min_frac(trajectory: Trajectory, round: int | None = None) -> Float[Array, "*batch"]:
    """`K * MinFrac(t) = K * min_a n_a(t) / t`, in [0, 1], over the existing arms.

    Args:
      trajectory: a batch of plays.
      round: t, counted from 1. None: the horizon T.
    """
    actions, rounds = trajectory.actions[..., :round], trajectory.played[..., :round]
    played = jax.nn.one_hot(actions, trajectory.mean_rewards.shape[-1]) * rounds[..., None]
    pulls = jnp.where(trajectory.arm_mask, jnp.sum(played, axis=-2), jnp.inf)
    return jnp.sum(trajectory.arm_mask, axis=-1) * jnp.min(pulls, axis=-1) / jnp.sum(rounds, axis=-1)


def greedy_frac(trajectory: Trajectory) -> Float[Array, "*batch"]:
    """Fraction of rounds that play an arm with the highest empirical mean among the arms played before.

    Ties count as greedy, an arm never played before does not, and the first round is left out (ours). NaN if T = 1.
    """
    played = jax.nn.one_hot(trajectory.actions, trajectory.mean_rewards.shape[-1])
    pulls = jnp.cumsum(played, axis=-2)[..., :-1, :]
    sums = jnp.cumsum(played * trajectory.rewards[..., None], axis=-2)[..., :-1, :]
    means = jnp.where(pulls > 0, sums / jnp.maximum(pulls, 1.0), -jnp.inf)
    chosen = of_action(means, trajectory.actions[..., 1:])
    greedy = (chosen == jnp.max(means, axis=-1)) & trajectory.played[..., 1:]
    return jnp.sum(greedy, axis=-1) / jnp.sum(trajectory.played[..., 1:], axis=-1)


def played_rank(trajectory: Trajectory) -> Int[Array, "*batch T"]:
    """Rank of the played arm by expected reward, per round among the existing arms; 0 is a best one.

    It counts the arms that are better in that round, so arms that tie share the better rank.
    """
    played = of_action(trajectory.mean_rewards, trajectory.actions)
    better = trajectory.arm_mask[..., None, :] & (trajectory.mean_rewards > played[..., None])
    return jnp.sum(better, axis=-1)


def invalid_frac(trajectory: Trajectory) -> Float[Array, "*batch"]:
    """Fraction of the rounds in which what an agent wrote named no arm; 0 of agents that do not write."""
    invalid = getattr(trajectory.notes, "invalid", None)
    if invalid is None:
        return jnp.zeros(trajectory.actions.shape[:-1])
    return jnp.mean(invalid, axis=-1, where=trajectory.played, dtype=jnp.float32)
