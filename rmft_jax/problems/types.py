"""What environments, agents and their trajectories exchange: frozen pytrees whose fields start with their shape.

Axis letters: `M` scenarios, `L` rollouts of each, `T` rounds, `K` arms. Leading batch axes come from `jax.vmap`, so
every type is written for a single trajectory.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from rmft_jax.config import pytree

PerArm = Float[Array, "K"]
Reward = Float[Array, ""] | PerArm
"""What a round shows: the reward of the arm that was played (bandit feedback), or those of all arms."""


@pytree
class Context:
    """What holds when a decision is due.

    round: `[]` the round, counted from 0.
    horizon: `[]` number of rounds T.
    arm_mask: `[K]` true where the arm exists.
    mean_rewards: `[K]` expected rewards `r_t` of this round. Privileged: only reference policies (the best arm) may
      read it.
    """

    round: Int[Array, ""]
    horizon: Int[Array, ""]
    arm_mask: Bool[Array, "K"]
    mean_rewards: Float[Array, "K"]


@pytree
class Decision:
    """A policy and the arm drawn from it.

    action: `[]` the arm played, `a_t ~ pi_t`.
    probabilities: `[K]` the policy `pi_t`, given everything the agent drew before it (so an agent that randomizes
      inside, as Thompson sampling does, reports a point mass). Where the decision set is a ball, its point `x_t`.
    scores: `[K]` what the policy was mapped from, `z_t + sigma eps_t`, for an agent that explores there; else None.
    notes: what else the agent did in the round, as what it wrote: any pytree of arrays; else None.
    """

    action: Int[Array, ""]
    probabilities: Float[Array, "K"]
    scores: Float[Array, "K"] | None = None
    notes: Any = None


@pytree
class Outcome:
    """One round of the environment, before the feedback mode decides what the agent sees.

    mean_rewards: `[K]` expected rewards `r_t`.
    rewards: `[K]` realized rewards `R_t`.
    """

    mean_rewards: Float[Array, "K"]
    rewards: Float[Array, "K"]


@pytree
class Trajectory:
    """One agent's play of one scenario.

    actions: `[T]` arms played.
    rewards: `[T]` rewards received, `R_t(a_t)`.
    probabilities: `[T, K]` policies `pi_t`.
    mean_rewards: `[T, K]` expected rewards `r_t`.
    reward_table: `[T, K]` realized rewards `R_t` of every arm, played or not.
    scores: `[T, K]` what the policies were mapped from, for an agent that explores there; else None.
    arm_mask: `[K]` true where the arm exists; the tables hold 0 elsewhere.
    round_mask: `[T]` true where the round is played, the first ones; what stands in the others means nothing. None: all
      are.
    notes: `[T, ...]` what else the agent did; None where it notes nothing.
    """

    actions: Int[Array, "*batch T"]
    rewards: Float[Array, "*batch T"]
    probabilities: Float[Array, "*batch T K"]
    mean_rewards: Float[Array, "*batch T K"]
    reward_table: Float[Array, "*batch T K"]
    scores: Float[Array, "*batch T K"] | None
    arm_mask: Bool[Array, "*batch K"]
    round_mask: Bool[Array, "*batch T"] | None = None
    notes: Any = None

    @property
    def played(self) -> Bool[Array, "*batch T"]:
        """True where the round is played."""
        return jnp.ones(self.actions.shape, bool) if self.round_mask is None else self.round_mask

    def at_horizon(self, per_round: Shaped[Array, "*batch T"]) -> Shaped[Array, "*batch"]:
        """The entry of the last round that is played."""
        if self.round_mask is None:
            return per_round[..., -1]
        last = jnp.sum(self.round_mask, axis=-1, keepdims=True) - 1
        return jnp.take_along_axis(per_round, last, axis=-1)[..., 0]


@pytree
class Extent:
    """How much of padded shapes is in use: the first arms, and the first rounds.

    num_arms: `[]` arms that exist.
    horizon: `[]` rounds that are played.
    """

    num_arms: Int[Array, ""] | int
    horizon: Int[Array, ""] | int

    def arm_mask(self, size: int) -> Bool[Array, "K"]:
        """`[size]` true where the arm exists."""
        return jnp.arange(size) < self.num_arms

    def round_mask(self, size: int) -> Bool[Array, "T"]:
        """`[size]` true where the round is played."""
        return jnp.arange(size) < self.horizon
