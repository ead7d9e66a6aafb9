"""From scores to play: what agents share that emit one number per arm and explore by Gaussian noise on it."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.agents.base import Number
from rmft_jax.agents.projections import project_ball, project_simplex
from rmft_jax.types import Decision, ScalarKey, pytree, static_field


@pytree
class ScoreMap:
    """Plays `map(z_t + exploration_std * N(0, I))`.

    decision_map: `softmax`; `simplex`, the Euclidean projection; `ball`, the projection on the ball of `radius`; or
      `identity`, the scores themselves. No arm is drawn from the last two, and the action is 0 whatever is played.
    exploration_std: standard deviation of the Gaussian exploration; 0 plays the map of the scores themselves.
    """

    decision_map: Literal["softmax", "simplex", "ball", "identity"] = static_field(default="softmax")
    radius: Number = 1.0
    exploration_std: Number = 0.0

    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        """The map alone; absent arms get 0."""
        match self.decision_map:
            case "softmax":
                return jax.nn.softmax(jnp.where(arm_mask, scores, -jnp.inf))
            case "simplex":
                return project_simplex(scores, arm_mask)
            case "ball":
                return project_ball(jnp.where(arm_mask, scores, 0.0), self.radius)
            case "identity":
                return jnp.where(arm_mask, scores, 0.0)

    def decide(self, key: ScalarKey, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        """Perturbs the scores, maps them, and draws the arm; the scores of absent arms do not matter."""
        noise_key, action_key = jax.random.split(key)
        noise = self.exploration_std * jax.random.normal(noise_key, scores.shape)
        scores = jnp.where(arm_mask, scores + noise, 0.0)
        policy = self.policy(scores, arm_mask)
        action = jnp.asarray(0)
        if self.decision_map in ("softmax", "simplex"):
            action = jax.random.categorical(action_key, jnp.log(policy))
        return Decision(action=action, probabilities=policy, scores=scores)
