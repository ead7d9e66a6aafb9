"""From scores to play: what agents share that emit one number per arm and explore by Gaussian noise on it."""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import Choice, ScalarKey
from rmft_jax.config.checks import require_number
from rmft_jax.problems.projections import project_ball, project_simplex
from rmft_jax.problems.types import Decision


class DecisionMap(Choice, kind="decision_map"):
    """Plays `map(z_t + exploration_std * N(0, I))`.

    points: whether what is played is a point of a ball, or of the space, from which no arm is drawn; the action is
      then 0 whatever is played.
    """

    points: ClassVar[bool] = False

    exploration_std: float = 0.5
    """Where there are scores, rollouts play map(z_t + exploration_std * N(0, I)); 0 plays the map of the scores."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work in rollouts that explore."""
        self.require_types()
        require_number(self.exploration_std, "exploration_std", "above 0", self.exploration_std > 0, 0.5)

    @property
    def still(self) -> "DecisionMap":
        """The map of the trained policy, which does not explore."""
        return dataclasses.replace(self, exploration_std=0.0)

    @abc.abstractmethod
    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        """The map alone; absent arms get 0."""

    def decide(self, key: ScalarKey, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Decision:
        """Perturbs the scores, maps them, and draws the arm; the scores of absent arms do not matter."""
        noise_key, action_key = jax.random.split(key)
        noise = self.exploration_std * jax.random.normal(noise_key, scores.shape)
        scores = jnp.where(arm_mask, scores + noise, 0.0)
        policy = self.policy(scores, arm_mask)
        action = jnp.asarray(0) if self.points else jax.random.categorical(action_key, jnp.log(policy))
        return Decision(action=action, probabilities=policy, scores=scores)


@DecisionMap.register("softmax")
class Softmax(DecisionMap):
    """Softmax of the scores."""

    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        return jax.nn.softmax(jnp.where(arm_mask, scores, -jnp.inf))


@DecisionMap.register("simplex")
class Simplex(DecisionMap):
    """Euclidean projection onto the simplex."""

    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        return project_simplex(scores, arm_mask)


@DecisionMap.register("ball")
class Ball(DecisionMap):
    """Projection onto a ball."""

    points: ClassVar[bool] = True

    radius: float = 1.0
    """Radius of the ball."""

    def validate(self) -> None:
        super().validate()
        require_number(self.radius, "radius", "above 0", self.radius > 0, 1.0)

    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        return project_ball(jnp.where(arm_mask, scores, 0.0), self.radius)


@DecisionMap.register("identity")
class Identity(Ball):
    """The scores themselves, judged against a ball, as in the theorems; the trained policy plays their projection."""

    @property
    def still(self) -> DecisionMap:
        """The projection onto the ball."""
        return Ball(exploration_std=0.0, radius=self.radius)

    def policy(self, scores: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
        return jnp.where(arm_mask, scores, 0.0)
