"""Euclidean projections onto decision sets: exact, differentiable, and safe for absent arms."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import Number


def project_simplex(scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
    """The point of the probability simplex over the existing arms nearest to `scores`.

    It is `max(scores - tau, 0)`, where `tau` makes it sum to 1 and follows from the sorted scores. Absent arms get
    exactly 0. The derivative is that of the projection onto the face on which the point lies: `I - 11'/n` on its `n`
    arms, 0 elsewhere.
    """
    # Only differences matter, and an arm that is 1 below the best gets nothing.
    existing = jnp.where(arm_mask, scores, -jnp.inf)
    centred = jnp.maximum(existing - jnp.max(existing), -1.0)
    descending = -jnp.sort(-jax.lax.stop_gradient(centred))
    counts = jnp.arange(1, scores.shape[0] + 1)
    size = jnp.sum(counts * descending > jnp.cumsum(descending) - 1.0)
    # Those above `tau`, and not those that equal a sorted score: what a compiler computes twice may round twice.
    support = arm_mask & (centred > (jnp.sum(jnp.where(counts <= size, descending, 0.0)) - 1.0) / size)
    tau = (jnp.sum(jnp.where(support, centred, 0.0)) - 1.0) / jnp.sum(support)
    return jnp.where(support, jnp.maximum(centred - tau, 0.0), 0.0)


def project_ball(scores: Float[Array, "K"], radius: Number) -> Float[Array, "K"]:
    """The point of the ball of this radius about the origin nearest to `scores`: `scores min(1, radius / norm)`."""
    square = jnp.sum(jnp.square(scores))
    outside = square > jnp.square(radius)
    return jnp.where(outside, radius / jnp.sqrt(jnp.where(outside, square, 1.0)), 1.0) * scores
