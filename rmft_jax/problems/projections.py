"""Projections onto decision sets, safe for absent arms; the Euclidean ones are exact and differentiable."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import Number

_NEWTON_STEPS = 12  # Of eigenvalues that differ by a factor of 10,000, half of them are enough for single precision.


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


def project_ball_metric(scores: Float[Array, "K"], matrix: Float[Array, "K K"], radius: Number) -> Float[Array, "K"]:
    """The point of the ball nearest to `scores` in the norm `x' W^-1 x` of a symmetric matrix W.

    Where `scores = W s`, it maximizes `<x, s> - x' W^-1 x / 2` over the ball (theory/finite_samples.md, A3). It is
    `(I + l W)^-1 scores`, where `l >= 0` makes it reach the sphere; `1 / norm` is concave in l, so that Newton's method
    comes to it from below without overshooting (More and Sorensen 1983). Along eigenvectors of W whose eigenvalue is
    not positive it is 0.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    along = jnp.where(values > 0, scores @ vectors, 0.0)
    values = jnp.maximum(values, 0.0)

    def improved(_: Int[Array, ""], multiplier: Float[Array, ""]) -> Float[Array, ""]:
        shrunk = 1 + multiplier * values
        square = jnp.maximum(jnp.sum(jnp.square(along / shrunk)), tiny)
        slope = jnp.sum(jnp.square(along) * values / shrunk**3) / square  # Of the norm, relative to it.
        step = (jnp.sqrt(square) / radius - 1) / jnp.maximum(slope, tiny)
        return jnp.maximum(multiplier + step, 0.0)

    tiny = jnp.finfo(scores.dtype).tiny
    multiplier = jax.lax.fori_loop(0, _NEWTON_STEPS, improved, jnp.zeros((), scores.dtype))
    point = vectors @ (along / (1 + multiplier * values))
    return project_ball(point, radius)  # Of what rounding leaves outside.
