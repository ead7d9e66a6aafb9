"""Adversaries that react to play."""

import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import ScalarKey, pytree
from rmft_jax.problems.base import Environment, Noise, RegretKind
from rmft_jax.problems.types import Decision, Outcome


@pytree
class AdaptiveState:
    """What the adversary remembers.

    pulls: `[K]` times each arm was played.
    arm_mask: `[K]` true where the arm exists.
    total: `[K]` sum of the expectations so far; before the first round, where `turning` will go first.
    reach: `[]` largest norm of what was played.
    """

    pulls: Float[Array, "K"]
    arm_mask: Bool[Array, "K"]
    total: Float[Array, "K"]
    reach: Float[Array, ""]


@Environment.register("adaptive")
class Adaptive(Environment):
    """An adversary that reacts to play.

    `favourite`: the arm to which the policy of the round gives most weight has expectation 0, the others 1, so that
    committing costs everything; V_T <= T - 1. An agent that draws before it reports its policy, as Thompson sampling
    and FTPL do, shows this adversary the very arm that it will play. `crowding`: an arm earns 1 minus the fraction of
    past rounds in which it was played; V_T <= sum_{t < T} 1/t. `orthogonal`: the expectations are a unit vector at a
    right angle to the policy, or the point of a ball, that is played, so that play earns nothing; V_T <= 2 (T - 1).
    In a ball of radius rho it forces regret rho sqrt(T) on follow-the-regularized-leader, all that its bound allows
    (theory/README.md, theorem 3). `turning`: unit vectors whose sum goes outwards, along a line drawn for the scenario,
    until play follows it no further, and then turns in a circle, against the side to which play deviates from it;
    V_T <= 2 (T - 1). It finds out a policy whose scores are not quite in proportion to the sum
    (theory/finite_samples.md, A4).
    """

    noise: Noise = "none"
    """Law of a reward given its expectation."""
    adversary: Literal["favourite", "crowding", "orthogonal", "turning"] = "favourite"
    """What it punishes."""

    bandit_regret: ClassVar[RegretKind] = "static"

    @property
    def reacts(self) -> bool:
        """Of `crowding` alone it is settled beforehand which arm is best."""
        return self.adversary != "crowding"

    @property
    def mean_range(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.adversary in ("orthogonal", "turning") else (0.0, 1.0)

    def variation_budget(self, horizon: int) -> float:
        if self.adversary == "crowding":
            return math.fsum(1 / t for t in range(1, horizon))
        return horizon - 1.0 if self.adversary == "favourite" else 2.0 * (horizon - 1)

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> AdaptiveState:
        zeros = jnp.zeros(self.num_arms)
        first = zeros
        if self.adversary == "turning":  # One draw of shape [K], of which absent arms do not change what is kept.
            first = jnp.where(arm_mask, jax.random.normal(key, (self.num_arms,)), 0.0)
        return AdaptiveState(pulls=zeros, arm_mask=arm_mask, total=first, reach=jnp.zeros(()))

    def mean_rewards(self, state: AdaptiveState, round: Int[Array, ""]) -> Float[Array, "K"]:
        """Settled before the decision by `crowding`; NaN for the others, which wait for it."""
        if self.adversary != "crowding":
            return jnp.full(self.num_arms, jnp.nan)
        return jnp.where(state.arm_mask, 1 - state.pulls / jnp.maximum(round, 1), 0.0)

    def step(
        self, key: ScalarKey, state: AdaptiveState, decision: Decision, round: Int[Array, ""]
    ) -> tuple[AdaptiveState, Outcome]:
        match self.adversary:
            case "favourite":
                weight = jnp.where(state.arm_mask, decision.probabilities, -jnp.inf)
                means = jnp.where(state.arm_mask & (jnp.arange(self.num_arms) != jnp.argmax(weight)), 1.0, 0.0)
            case "orthogonal":
                means = _orthogonal(decision.probabilities, state.arm_mask)
            case "crowding":
                means = self.mean_rewards(state, round)
            case "turning":
                means = _turning(decision.probabilities, state, round)
        state = AdaptiveState(
            pulls=state.pulls + jax.nn.one_hot(decision.action, self.num_arms),
            arm_mask=state.arm_mask,
            total=jnp.where(round > 0, state.total, 0.0) + means,
            reach=jnp.maximum(state.reach, jnp.linalg.norm(decision.probabilities)),
        )
        return state, Outcome(mean_rewards=means, rewards=self.draw_rewards(key, means))


def _orthogonal(point: Float[Array, "K"], arm_mask: Bool[Array, "K"]) -> Float[Array, "K"]:
    """A unit vector at a right angle to `point`: what is left of the axis along which it reaches least.

    NaN where there is none, because a single arm exists.
    """
    norm = jnp.linalg.norm(point)
    direction = point / jnp.where(norm > 0, norm, 1.0)
    axis = jax.nn.one_hot(jnp.argmin(jnp.where(arm_mask, jnp.abs(direction), jnp.inf)), point.shape[0])
    rest = axis - jnp.dot(axis, direction) * direction
    return rest / jnp.linalg.norm(rest)


def _turning(point: Float[Array, "K"], state: AdaptiveState, round: Int[Array, ""]) -> Float[Array, "K"]:
    """Outwards while the norm of `point` changes, then on the circle, against the side of the sum where `point` is."""
    norm, radius = jnp.linalg.norm(point), jnp.linalg.norm(state.total)
    outward = state.total / radius
    beside = point - jnp.dot(point, outward) * outward
    deviation = jnp.linalg.norm(beside)
    side = jnp.where(
        deviation > 1e-6 * norm, beside / jnp.where(deviation > 0, deviation, 1.0), _orthogonal(outward, state.arm_mask)
    )
    # A unit step from one point of the circle to another: half its angle has this sine.
    half = 0.5 / jnp.maximum(radius, 0.5)
    along = -jnp.sqrt(1 - jnp.square(half)) * side - half * outward
    turns = (round > 1) & (jnp.abs(norm - state.reach) <= 1e-4 * state.reach)
    return jnp.where(turns, along, outward)
