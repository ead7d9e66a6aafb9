"""Agents that see the rewards of all arms.

Only differences between arms matter to them, so rewards may lie in any interval of length `width`; regret bounds are
in units of it. K counts the existing arms, T is the horizon, `t` counts rounds from 1, and S sums the reward vectors
of the rounds before. `rate` multiplies the rate of the source and is the one free constant: 1 is the source's.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rmft_jax.agents.gains import PolicyAgent, exponential_weights
from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent, num_existing
from rmft_jax.config import Number, ScalarKey, pytree, static_field
from rmft_jax.problems import Feedback
from rmft_jax.problems.projections import project_simplex
from rmft_jax.problems.types import Context, PerArm, Reward


@pytree
class _FullInformationPolicy(PolicyAgent):
    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)
    rate: Number = 1.0
    width: Number = 1.0

    def _gain(self, probabilities: PerArm, action: Int[Array, ""], reward: Reward, context: Context) -> PerArm:
        return jnp.broadcast_to(reward / self.width, probabilities.shape)


@pytree
class Hedge(_FullInformationPolicy):
    """Exponential weights, `pi_t = softmax(eta S)` (Cesa-Bianchi and Lugosi 2006).

    With `eta = rate sqrt(8 ln K / T) / width` static regret is at most `sqrt(T ln K / 2)` (Theorem 2.2).

    anytime: whether eta is `rate sqrt(8 ln K / t) / width` instead, which needs no horizon; the bound is then
      `2 sqrt(T ln K / 2) + sqrt(ln K / 8)` for every T (Theorem 2.3).
    """

    anytime: bool = static_field(default=False)

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        rounds = context.round + 1.0 if self.anytime else context.horizon
        eta = self.rate * jnp.sqrt(8.0 * jnp.log(num_existing(context)) / rounds)
        return exponential_weights(eta * totals, context)


@pytree
class FTRL(_FullInformationPolicy):
    """Follow the regularized leader with `|pi|^2 / (2 eta)`: the Euclidean projection of `eta S` on the simplex.

    With `eta = rate sqrt((1 - 1 / K) / (K T)) / width` static regret is at most
    `(1 - 1 / K) / (2 eta) + eta K T / 2 = sqrt((K - 1) T)`, since the regularizer has range `(1 - 1 / K) / 2` and
    a reward vector in `[0, 1]^K` has norm at most sqrt(K) (Orabona, A Modern Introduction to Online Learning, FTRL
    with strongly convex regularizers; the tuning for the simplex is ours).
    """

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        arms = num_existing(context)
        eta = self.rate * jnp.sqrt((1.0 - 1.0 / arms) / (arms * context.horizon))
        return project_simplex(eta * totals, context.arm_mask)


@pytree
class FTPL(StatisticsAgent):
    """Follow the perturbed leader (Kalai and Vempala 2005): the arm with the largest `S + u`.

    u is drawn afresh every round, uniformly from `[0, width / epsilon]^K` with `epsilon = rate sqrt(2 / (K T))`.
    Expected static regret is at most `2 sqrt(2 K T)` (their Theorem 1.1, with D = 2, R = 1 and A = K). The reported
    policy is a point mass, because the perturbation is drawn before it; against an adversary that sees the policy of
    the round the bound does not hold.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)
    rate: Number = 1.0
    width: Number = 1.0

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> PerArm:
        epsilon = self.rate * jnp.sqrt(2.0 / (num_existing(context) * context.horizon))
        return state.sums + self.width / epsilon * jax.random.uniform(key, state.sums.shape)


@pytree
class FollowTheLeader(StatisticsAgent):
    """The arm with the largest S, ties at random. Its static regret can be linear in T: see the alternating sequence.

    If the first round gives 1/2 to one arm, and the next ones 1 to the other arm and to it in turn, the leader is
    always wrong (Cesa-Bianchi and Lugosi 2006, section 3.2 treats when it is not).
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("full",)

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> PerArm:
        return state.sums
