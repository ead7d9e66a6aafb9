"""Draws from Beta distributions without rejection, for Thompson sampling.

A Beta(a, b) variate X has the odds `X / (1 - X) = G_a / G_b`, of two independent Gamma variates (Devroye 1986, IX.3).
These are drawn by inversion: `G_a = a exp(q(z, a))` with a standard normal z, where `a exp(q)` is the quantile function
of Gamma(a) at Phi(z). Temme (1992) expands it in `y = z / sqrt(a)` and `r = 1 / a`, and it is smooth down to r = 0. For
a >= 1 and |z| <= 5.43, beyond which no z is drawn, this is

    q = t (A(w, r) + t B(w, r)) + r C(r)  with  t = y / 5.43,  w = 2 t^2 - 1

and polynomials A, B, C, fitted to SciPy's quantiles by least squares (`tests/test_beta_draws.py`). For these z and
shapes up to 1e6 the relative error of G_a is at most 2.1e-6, and 4.6e-6 in float32; no probability of a G_a is off by
more than 1e-6.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from rmft_jax.config import Number, ScalarKey

REACH = 5.43
"""No normal variate is larger: 24 bits reach 5.42."""
# Coefficients by power of w, and in every row of `2 r - 1`; those of C by power of `2 r - 1` alone.
_A = (
    (8.035373, 0.43174896, -0.005776181, -1.055579e-4, 3.8054724e-5),
    (1.913152, -0.04106882, -0.0038708278, 5.722211e-4, 4.9244678e-5),
    (-0.26579037, -0.006228845, 0.008261509, -0.004046409, 0.00161453),
    (0.060890313, 0.014533019, -1.0040832e-4, -0.004058055, 0.0014740834),
    (-0.0047307177, -0.02259129, 0.013999827, -0.005444792),
    (-0.008234014, 0.009650987, 0.0012039881, -0.0029642412),
    (0.013866243, -0.012863871, 0.0013802975, 0.0010808556),
    (-0.010644414, 0.002028925, 0.006408482),
    (0.004954388, 0.001332399, 4.9682476e-5),
    (9.976422e-4, -0.0070181675),
    (1.6962038e-4, -9.5571263e-4),
    (0.0018387048,),
)
_B = (
    (-6.3633404, -0.34628388, 0.020400528, -6.012282e-4, -8.413094e-5),
    (-0.46356985, 0.14923465, -0.008086867, -6.7070156e-4, 1.3671211e-4),
    (0.24723351, -0.066483594, -0.0024141604, 0.004621174, -0.0018546042),
    (-0.13016106, 0.025369324, -0.002890181, 0.005038136, -8.594573e-4),
    (0.05868364, 0.01003404, -0.02042413, 0.008511154),
    (-0.024534138, -0.004962097, 0.0070807296, -0.0057975748),
    (0.0039035163, 0.009833862, 0.004586363, -0.008867393),
    (0.010437079, -0.023169417, 0.012721555),
    (-0.011004988, -0.0017830675, 0.012244611),
    (0.006097085, -0.0048417402),
    (0.0057299957, -0.008819881),
    (0.0015340112,),
)
_C = (-0.3506731, -0.016634572, 7.618288e-4, 3.4917357e-5)
# A whole number of a processor's vectors. Loops over the few arms that are left over take longer than all others.
_LANES = 8


def log_odds(key: ScalarKey, a: Float[Array, "K"], b: Float[Array, "K"], least: Number) -> Float[Array, "K"]:
    """`ln(X / (1 - X))` of independent Beta(a, b) variates X. What is drawn for the first arms is the same for any K.

    Args:
      key: randomness.
      a: `[K]` first parameters.
      b: `[K]` second parameters.
      least: a number above 0 that no parameter is below. It decides about the method, and has to be the same for all
        that is vmapped over, or both methods are computed.
    """
    count = 2 * a.shape[0]
    shapes = jnp.pad(jnp.stack([a, b], axis=1).reshape(-1), (0, -count % _LANES), constant_values=1.0)
    keys = jax.random.split(key, 1 + shapes.shape[0] // 2)
    # Keys are random bits, twice as many as `jax.random.bits` gives for the same work.
    bits = jax.random.key_data(keys[1:]).reshape(-1)[: shapes.shape[0]]
    # A branch is a loop of its own, over whole vectors. A compiler that knew the condition would undo this.
    small = jax.lax.optimization_barrier(jnp.asarray(least) < 1.0)
    drawn = jax.lax.cond(small, _draw_any, _draw, keys[0], bits, shapes)[:count].reshape(-1, 2)
    return jnp.log(a / b) + drawn[:, 0] - drawn[:, 1]


def _draw(key: ScalarKey, bits: UInt[Array, "n"], shape: Float[Array, "n"]) -> Float[Array, "n"]:
    """`ln(G / shape)` of Gamma variates G, for shapes of at least 1."""
    del key
    middle = (2 * (bits >> 8).astype(jnp.int32) + (1 - 2**24)).astype(jnp.float32) / 2**24
    return log_quantile(np.float32(np.sqrt(2)) * jax.lax.erf_inv(middle), shape)


def _draw_any(key: ScalarKey, bits: UInt[Array, "n"], shape: Float[Array, "n"]) -> Float[Array, "n"]:
    """The same for all shapes: G of shape a is `U^(1 / a)` times G of shape a + 1 (Marsaglia and Tsang 2000)."""
    power = jax.random.exponential(key, shape.shape) / shape
    return _draw(key, bits, shape + 1.0) + jnp.log1p(1.0 / shape) - power


def log_quantile(z: Float[Array, "*n"], shape: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """`ln(G / shape)` for the quantile G of Gamma(shape) at Phi(z); |z| up to `REACH`, shapes of at least 1."""
    root = jax.lax.rsqrt(shape)
    ratio, t = root * root, z * root / REACH
    w, rho = 2.0 * t * t - 1.0, 2.0 * ratio - 1.0
    a, b = (_horner([_horner(row, rho) for row in rows], w) for rows in (_A, _B))
    return t * (a + t * b) + ratio * _horner(_C, rho)


def _horner(coefficients: Sequence[Any], x: Float[Array, "*n"]) -> Any:
    return functools.reduce(lambda value, coefficient: value * x + coefficient, reversed(coefficients))
