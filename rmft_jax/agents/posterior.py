"""Agents that hold a conjugate posterior over every mean reward, and sample from it or add deviations to its mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents.beta_draws import log_odds
from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent
from rmft_jax.config import Number, ScalarKey, pytree
from rmft_jax.problems.types import Context


def beta_posterior(state: ArmStatistics, alpha: Number, beta: Number) -> tuple[Float[Array, "K"], Float[Array, "K"]]:
    """The two parameters of the Beta posterior after rewards in [0, 1]."""
    return alpha + state.sums, beta + state.pulls - state.sums


def gaussian_posterior(
    state: ArmStatistics, prior_mean: Number, prior_std: Number, noise_std: Number
) -> tuple[Float[Array, "K"], Float[Array, "K"]]:
    """Mean and standard deviation of the posterior of a Gaussian mean, given Gaussian rewards of known deviation."""
    # Written with the variance ratio, so that rewards without noise need no division by zero.
    ratio = jnp.square(noise_std / prior_std)
    shrink = jnp.maximum(state.pulls + ratio, jnp.finfo(jnp.float32).tiny)
    mean = jnp.where(state.pulls + ratio > 0, (state.sums + ratio * prior_mean) / shrink, prior_mean)
    return mean, jnp.where(state.pulls > 0, noise_std / jnp.sqrt(shrink), prior_std)


@pytree
class BetaThompson(StatisticsAgent):
    """Thompson sampling for Bernoulli rewards: the arm with the largest draw from its Beta posterior.

    alpha, beta: the prior; 1, 1 is uniform (Thompson 1933; Chapelle and Li 2011). Rewards must lie in [0, 1].
    """

    alpha: Number = 1.0
    beta: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        # Odds grow with what is drawn, and near 1, where draws are rounded to 1, they still differ.
        return log_odds(key, *beta_posterior(state, self.alpha, self.beta), jnp.minimum(self.alpha, self.beta))


@pytree
class BetaIndex(StatisticsAgent):
    """Posterior mean + constant * posterior standard deviation, for the posteriors of `BetaThompson` (ours).

    The idea is that of Bayes-UCB (Kaufmann, Cappe, Garivier 2012), with a fixed number of deviations in place of a
    growing quantile.

    constant: deviations added to the mean.
    alpha, beta: the prior; 1, 1 is uniform. Rewards must lie in [0, 1].
    """

    constant: Number = 1.0
    alpha: Number = 1.0
    beta: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        a, b = beta_posterior(state, self.alpha, self.beta)
        mean = a / (a + b)
        return mean + self.constant * jnp.sqrt(mean * (1.0 - mean) / (a + b + 1.0))


@pytree
class GaussianThompson(StatisticsAgent):
    """Thompson sampling with a Gaussian prior and Gaussian rewards of known variance.

    prior_mean, prior_std: the prior of every mean reward.
    noise_std: standard deviation (not variance) of a reward.
    """

    prior_mean: Number = 0.0
    prior_std: Number = 1.0
    noise_std: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        mean, std = gaussian_posterior(state, self.prior_mean, self.prior_std, self.noise_std)
        return mean + std * jax.random.normal(key, state.pulls.shape)


@pytree
class GaussianIndex(StatisticsAgent):
    """Posterior mean + constant * posterior standard deviation, for the posteriors of `GaussianThompson` (ours).

    constant: deviations added to the mean.
    prior_mean, prior_std: the prior of every mean reward.
    noise_std: standard deviation (not variance) of a reward.
    """

    constant: Number = 1.0
    prior_mean: Number = 0.0
    prior_std: Number = 1.0
    noise_std: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        mean, std = gaussian_posterior(state, self.prior_mean, self.prior_std, self.noise_std)
        return mean + self.constant * std
