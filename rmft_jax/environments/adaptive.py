"""Adversaries that react to play."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import AdaptiveConfig
from rmft_jax.environments.base import ConfiguredEnvironment
from rmft_jax.environments.noise import draw_rewards
from rmft_jax.types import Decision, Outcome, ScalarKey, pytree


@pytree
class AdaptiveState:
    """What the adversary remembers.

    pulls: `[K]` times each arm was played.
    arm_mask: `[K]` true where the arm exists.
    """

    pulls: Float[Array, "K"]
    arm_mask: Bool[Array, "K"]


@pytree
class Adaptive(ConfiguredEnvironment[AdaptiveConfig]):
    """Punishes the favourite of the round, the arms that were played much, or all play; laws in `AdaptiveConfig`."""

    config: AdaptiveConfig

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> AdaptiveState:
        """Nothing is drawn: all scenarios are alike until something is played."""
        del key, round_mask
        return AdaptiveState(pulls=jnp.zeros(self.num_arms), arm_mask=arm_mask)

    def mean_rewards(self, state: AdaptiveState, round: Int[Array, ""]) -> Float[Array, "K"]:
        """Settled before the decision by `crowding`; NaN for the others, which wait for it."""
        if self.config.adversary != "crowding":
            return jnp.full(self.num_arms, jnp.nan)
        return jnp.where(state.arm_mask, 1 - state.pulls / jnp.maximum(round, 1), 0.0)

    def step(
        self, key: ScalarKey, state: AdaptiveState, decision: Decision, round: Int[Array, ""]
    ) -> tuple[AdaptiveState, Outcome]:
        """Settles the expectations and draws the rewards."""
        match self.config.adversary:
            case "favourite":
                weight = jnp.where(state.arm_mask, decision.probabilities, -jnp.inf)
                means = jnp.where(state.arm_mask & (jnp.arange(self.num_arms) != jnp.argmax(weight)), 1.0, 0.0)
            case "orthogonal":
                means = _orthogonal(decision.probabilities, state.arm_mask)
            case "crowding":
                means = self.mean_rewards(state, round)
        state = AdaptiveState(state.pulls + jax.nn.one_hot(decision.action, self.num_arms), state.arm_mask)
        return state, Outcome(mean_rewards=means, rewards=draw_rewards(self.config, key, means))


def _orthogonal(point: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
    """A unit vector at a right angle to `point`: what is left of the axis along which it reaches least.

    NaN where there is none, because a single arm exists.
    """
    norm = jnp.linalg.norm(point)
    direction = point / jnp.where(norm > 0, norm, 1.0)
    axis = jax.nn.one_hot(jnp.argmin(jnp.where(arm_mask, jnp.abs(direction), jnp.inf)), point.shape[0])
    rest = axis - jnp.dot(axis, direction) * direction
    return rest / jnp.linalg.norm(rest)
