"""The stationary bandit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import BanditConfig
from rmft_jax.types import Decision, Outcome, ScalarKey, pytree


@pytree
class StationaryBandit:
    """K arms whose mean rewards are drawn once per scenario.

    Law: `r ~ prior` on the existing arms, then `R_t(a) ~ noise(r(a))` independently over rounds and arms.
    The rewards of all arms are drawn in every round, so that agents which are handed the same key meet the same
    rewards, whatever they play. Variation budget: 0. Priors: uniform on [0, 1]; Gaussian; fixed gap (best arm
    `1/2 + gap/2`, the others `1/2 - gap/2`, the best arm uniform; Krishnamurthy et al. 2024).

    The state of a scenario is its vector of mean rewards, `[K]`, zero where an arm is absent.
    """

    config: BanditConfig

    @property
    def num_arms(self) -> int:
        """Number of arms K."""
        return self.config.num_arms

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], horizon: int) -> Float[Array, "K"]:
        """Draws the mean rewards of one scenario."""
        del horizon
        config = self.config
        match config.prior:
            case "uniform":
                means = jax.random.uniform(key, (self.num_arms,))
            case "gaussian":
                means = config.prior_mean + config.prior_std * jax.random.normal(key, (self.num_arms,))
            case "fixed_gap":
                best = jax.random.categorical(key, jnp.where(arm_mask, 0.0, -jnp.inf))
                side = jnp.where(jnp.arange(self.num_arms) == best, 0.5, -0.5)
                means = 0.5 + config.gap * side
        return jnp.where(arm_mask, means, 0.0)

    def mean_rewards(self, state: Float[Array, "K"], round: Int[Array, ""]) -> Float[Array, "K"]:
        """The same in every round."""
        del round
        return state

    def step(
        self, key: ScalarKey, state: Float[Array, "K"], decision: Decision, round: Int[Array, ""]
    ) -> tuple[Float[Array, "K"], Outcome]:
        """Draws the rewards of all arms; neither the decision nor the round matters."""
        match self.config.noise:
            case "bernoulli":
                rewards = (jax.random.uniform(key, (self.num_arms,)) < state).astype(jnp.float32)
            case "gaussian":
                rewards = state + self.config.noise_std * jax.random.normal(key, (self.num_arms,))
        return state, Outcome(mean_rewards=state, rewards=rewards)
