"""The sequence that fools the leader."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import ScalarKey
from rmft_jax.problems.base import Environment, Noise, RegretKind
from rmft_jax.problems.oblivious import ObliviousEnvironment, random_ranks


@Environment.register("alternating")
class Alternating(ObliviousEnvironment):
    """The sequence on which follow-the-leader has linear regret (Shalev-Shwartz 2012, section 2.2).

    Two arms, drawn per scenario: the first earns 1/2 in round 1; after that the second and the first earn 1 in turn.
    Everything else earns 0, so the leader is always the arm that earns nothing. V_T <= T - 1.
    """

    noise: Noise = "none"
    """Law of a reward given its expectation."""
    centred: bool = False
    """Whether half the sum of the two rewards is taken off both, so that they are opposite and in the long run earn 0
    like all other arms. In a ball it is this form that fools the leader."""

    bandit_regret: ClassVar[RegretKind] = "static"

    @property
    def mean_range(self) -> tuple[float, float]:
        return (-0.5, 0.5) if self.centred else (0.0, 1.0)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        rank = random_ranks(key, arm_mask)[None]
        round = jnp.arange(round_mask.shape[0])[:, None]
        means = jnp.where(round == 0, 0.5 * (rank == 0), 1.0 * (rank == round % 2))
        if self.centred:
            means -= jnp.where(rank < 2, jnp.sum(means, axis=-1, keepdims=True) / 2, 0.0)
        return means
