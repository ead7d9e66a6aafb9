"""Agents for adversarial bandits: exponential weights and mirror descent on estimated gains.

All take rewards in `[low, high]`, which are mapped to `x` in `[0, 1]` and clipped, so regret bounds are in units of
`high - low`. K counts the existing arms, T is the horizon, and `t` counts rounds from 1. `rate` multiplies the rate
of the paper and is each agent's one free constant: 1 is the paper's.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.agents.gains import Gains, PolicyAgent, exponential_weights
from rmft_jax.agents.statistics import num_existing
from rmft_jax.config import Number, ScalarKey, pytree
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context, Decision, PerArm, Reward

_NEWTON_STEPS = 8


@pytree
class _BanditPolicy(PolicyAgent):
    """Estimates the gains of all arms from the reward of one, which is 0 for the arms that were not played."""

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)
    rate: Number = 1.0
    low: Number = 0.0
    high: Number = 1.0

    def _gain(self, probabilities: PerArm, action: Int[Array, ""], reward: Reward, context: Context) -> PerArm:
        played = jax.nn.one_hot(action, probabilities.shape[0])
        unit = jnp.clip((reward - self.low) / (self.high - self.low), 0.0, 1.0)
        return self._estimate(played * unit, played, probabilities, context)

    def _estimate(self, x: PerArm, played: PerArm, probabilities: PerArm, context: Context) -> PerArm:
        """The estimated gains: by default the losses `1 - x`, negated and weighted by importance."""
        return _ratio(x - played, probabilities)


def _ratio(x: PerArm, probabilities: PerArm) -> PerArm:
    """The quotient, or 0 for arms that cannot be played."""
    possible = probabilities > 0
    return jnp.where(possible, x / jnp.where(possible, probabilities, 1.0), 0.0)


@pytree
class EXP3(_BanditPolicy):
    """Exp3 (Auer, Cesa-Bianchi, Freund, Schapire 2002): exponential weights with uniform exploration.

    `p = (1 - gamma) softmax(gamma G / K) + gamma / K`, where G sums the estimates `x 1{played} / p` and
    `gamma = min(1, rate sqrt(K ln K / ((e - 1) T)))`. Expected static regret is at most
    `2 sqrt(e - 1) sqrt(T K ln K)` (their Corollary 3.2).
    """

    def _rounds(self, context: Context) -> Float[Array, ""]:
        """The rounds that gamma is tuned for."""
        return context.horizon.astype(jnp.float32)

    def _exploration(self, context: Context) -> Float[Array, ""]:
        arms = num_existing(context)
        ratio = arms * jnp.log(arms) / ((math.e - 1) * self._rounds(context))
        return jnp.minimum(self.rate * jnp.sqrt(ratio), 1.0)

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        arms, gamma = num_existing(context), self._exploration(context)
        return (1.0 - gamma) * exponential_weights(gamma / arms * totals, context) + gamma / arms

    def _estimate(self, x: PerArm, played: PerArm, probabilities: PerArm, context: Context) -> PerArm:
        return _ratio(x, probabilities)


@pytree
class Rexp3(EXP3):
    """Rexp3 (Besbes, Gur, Zeevi 2014): Exp3 that starts afresh every B rounds, for means that drift.

    `B = ceil((K ln K)^(1/3) (T / V)^(2/3))`, at most T, and gamma is that of Exp3 for B rounds. Dynamic regret is at
    most `C (K ln K V)^(1/3) T^(2/3)` for a constant C and V between 1 / K and T / K (their Theorem 2).

    variation_budget: V, in units of `high - low`; 0 makes a single batch (ours), which is Exp3.
    """

    variation_budget: Number = 1.0

    def act(self, key: ScalarKey, state: Gains, context: Context) -> tuple[Decision, Gains]:
        """As Exp3, from no gains at the start of a batch."""
        fresh = context.round % self._rounds(context) == 0
        return super().act(key, dataclasses.replace(state, totals=jnp.where(fresh, 0.0, state.totals)), context)

    def _rounds(self, context: Context) -> Float[Array, ""]:
        arms = num_existing(context)
        drift = jnp.maximum(self.variation_budget / context.horizon, jnp.finfo(jnp.float32).tiny)
        batch = jnp.ceil((arms * jnp.log(arms)) ** (1 / 3) * drift ** (-2 / 3))
        return jnp.clip(batch, 1.0, context.horizon.astype(jnp.float32))


@pytree
class EXP3P(EXP3):
    """Exp3.P (Auer, Cesa-Bianchi, Freund, Schapire 2002): Exp3 on upper confidence bounds of the gains.

    `p = (1 - gamma) softmax(gamma G / (3 K)) + gamma / K`, where G sums `(x 1{played} + alpha / sqrt(K T)) / p`,
    `alpha = 2 sqrt(ln(K T / delta))` and `gamma = min(3 / 5, 2 rate sqrt((3 / 5) K ln K / T))`. With probability
    1 - delta static regret is at most
    `4 sqrt(K T ln(K T / delta)) + 4 sqrt((5 / 3) K T ln K) + 8 ln(K T / delta)` (their Theorem 6.3).

    delta: 0.05 is ours; the paper leaves it to the user.
    """

    delta: Number = 0.05

    def _exploration(self, context: Context) -> Float[Array, ""]:
        arms = num_existing(context)
        return jnp.minimum(2.0 * self.rate * jnp.sqrt(0.6 * arms * jnp.log(arms) / context.horizon), 0.6)

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        return super()._policy(totals / 3.0, context)

    def _estimate(self, x: PerArm, played: PerArm, probabilities: PerArm, context: Context) -> PerArm:
        draws = num_existing(context) * context.horizon
        return _ratio(x + 2.0 * jnp.sqrt(jnp.log(draws / self.delta) / draws), probabilities)


@pytree
class EXP3IX(_BanditPolicy):
    """EXP3-IX (Neu 2015): exponential weights whose implicit exploration is in the estimates.

    `p = softmax(-eta L)`, where L sums the estimates `(1 - x) 1{played} / (p + eta / 2)` and
    `eta = rate sqrt(2 ln K / (K T))`. With probability 1 - delta static regret is at most
    `2 sqrt(2 K T ln K) + (sqrt(2 K T / ln K) + 1) ln(2 / delta)` (his Theorem 1).
    """

    def _eta(self, context: Context) -> Float[Array, ""]:
        arms = num_existing(context)
        return self.rate * jnp.sqrt(2.0 * jnp.log(arms) / (arms * context.horizon))

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        return exponential_weights(self._eta(context) * totals, context)

    def _estimate(self, x: PerArm, played: PerArm, probabilities: PerArm, context: Context) -> PerArm:
        return _ratio(x - played, probabilities + self._eta(context) / 2.0)


@pytree
class TsallisINF(_BanditPolicy):
    """Tsallis-INF (Zimmert and Seldin 2021): mirror descent with the 1/2-Tsallis entropy, for any kind of bandit.

    `p = 4 / (eta (L - z))^2`, where L sums the estimates `(1 - x) 1{played} / p`, z makes p sum to 1, and
    `eta = 2 rate / sqrt(t)` needs no horizon. Expected static regret is at most `4 sqrt(K T) + 1` against an
    adversary, and logarithmic in T for stochastic rewards (their Theorem 1, for estimates weighted by importance).
    """

    def _policy(self, totals: PerArm, context: Context) -> PerArm:
        eta = 2.0 * self.rate / jnp.sqrt(context.round + 1.0)
        return tsallis_policy(jnp.where(context.arm_mask, -eta / 2.0 * totals, jnp.inf))


def tsallis_policy(gaps: PerArm) -> PerArm:
    """`p = (gaps + u)^-2` with the u for which p sums to 1, for gaps whose smallest is 0.

    `sum(p)^(-1/2)` is increasing and concave in u, and at most 1 at u = 1, so that Newton's method on it climbs to the
    solution from there without overshooting; it is exact at once when all gaps are 0 (ours).
    """
    u = jnp.ones(())
    for _ in range(_NEWTON_STEPS):
        inverse = 1.0 / (gaps + u)
        total = jnp.sum(jnp.square(inverse))
        u += (jnp.sqrt(total) - 1.0) * total / jnp.sum(inverse**3)
    return 1.0 / jnp.square(gaps + u)
