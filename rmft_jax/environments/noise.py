"""The law of a reward given its expectation."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.config import EnvironmentConfig
from rmft_jax.types import ScalarKey


def draw_rewards(config: EnvironmentConfig, key: ScalarKey, means: Float[Array, "K"]) -> Float[Array, "K"]:
    """Rewards `[K]` of all arms in one round, independent given their expectations `means`.

    Laws: see `EnvironmentConfig`.
    """
    match config.noise:
        case "none":
            return means
        case "bernoulli":
            return (jax.random.uniform(key, means.shape) < means).astype(jnp.float32)
        case "gaussian":
            return means + config.noise_std * jax.random.normal(key, means.shape)
        case "uniform":
            half_width = math.sqrt(3) * config.noise_std
            return means + half_width * jax.random.uniform(key, means.shape, minval=-1.0)
        case "beta":
            # At expectations 0 and 1 the law is a point, which the sampler does not know.
            inside = jnp.clip(means, 1e-6, 1 - 1e-6)
            drawn = jax.random.beta(key, inside * config.noise_concentration, (1 - inside) * config.noise_concentration)
            return jnp.where((means > 0) & (means < 1), drawn, means)
