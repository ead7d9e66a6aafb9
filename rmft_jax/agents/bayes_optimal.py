"""The policy that no other can beat on average: exact dynamic programming for two Bernoulli arms with Beta priors."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.special
from jaxtyping import Array, Float, Int8

from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent
from rmft_jax.config import ScalarKey, pytree, static_field
from rmft_jax.config.checks import require
from rmft_jax.problems.types import Context

MAX_HORIZON = 100
_TIE, _TOLERANCE = 2, 1e-12


@pytree
class BayesOptimal(StatisticsAgent):
    """Maximizes the expected sum of T rewards for two Bernoulli arms with independent Beta(alpha, beta) means.

    `V(s1, f1, s2, f2) = max_a p_a (1 + V(s_a + 1)) + (1 - p_a) V(f_a + 1)` over successes and failures of the arms,
    with the posterior mean `p_a = (alpha + s_a) / (alpha + beta + s_a + f_a)` and V = 0 after T rounds. Where both
    arms attain the maximum one is drawn at random. Rewards must be 0 or 1. Make it with `create`.

    decisions: `[C(T + 3, 4)]` the best arm in every state, or 2 for both, ordered by `_position`.
    horizon: T, for which alone it is optimal.
    """

    decisions: Int8[Array, "N"]
    horizon: int = static_field()

    @classmethod
    def create(cls, horizon: int, alpha: float = 1.0, beta: float = 1.0) -> "BayesOptimal":
        """Solves the dynamic program.

        Raises:
          ConfigError: for more than 100 rounds, or a prior that is none.
        """
        _check(horizon, alpha, beta)
        levels = [decisions for decisions, _ in _solve(horizon, alpha, beta)]
        return cls(decisions=jnp.asarray(np.concatenate(levels[::-1])), horizon=horizon)

    def init(self, num_arms: int, horizon: int) -> ArmStatistics:
        """Nothing seen yet.

        Raises:
          ConfigError: if there are not two arms, or not the rounds that the program was solved for.
        """
        require(num_arms == 2, f"num_arms={num_arms}", "2 for BayesOptimal", "BetaIndex, which comes close")
        need = f"the {self.horizon} rounds that BayesOptimal was solved for"
        require(horizon == self.horizon, f"horizon={horizon}", need, f"BayesOptimal.create({horizon})")
        return super().init(num_arms, horizon)

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        successes, failures = jnp.round(state.sums), jnp.round(state.pulls - state.sums)
        counts = jnp.stack([successes[0], failures[0], successes[1], failures[1]]).astype(jnp.int32)
        decision = self.decisions[_position(*counts)]
        return jnp.where(decision == _TIE, 0.0, jax.nn.one_hot(decision, 2))


def bayes_optimal_regret(horizon: int, alpha: float = 1.0, beta: float = 1.0) -> float:
    """The mean pseudo-regret of `BayesOptimal` over its prior: `T E[max(mean_1, mean_2)] - V(0, 0, 0, 0)`.

    Raises:
      ConfigError: for more than 100 rounds, or a prior that is none.
    """
    _check(horizon, alpha, beta)
    *_, (_, value) = _solve(horizon, alpha, beta)
    below, _ = scipy.integrate.quad(lambda mean: scipy.special.betainc(alpha, beta, mean) ** 2, 0.0, 1.0)
    return horizon * (1.0 - below) - value


def _check(horizon: int, alpha: float, beta: float) -> None:
    need = f"1 to {MAX_HORIZON} for BayesOptimal, whose states grow as horizon^4"
    suggestion = f"horizon={MAX_HORIZON}, or BetaIndex, which comes close"
    require(1 <= horizon <= MAX_HORIZON, f"horizon={horizon}", need, suggestion)
    positive = 0 < alpha < np.inf and 0 < beta < np.inf
    require(positive, f"alpha={alpha}, beta={beta}", "positive numbers", "alpha=1, beta=1")


def _solve(horizon: int, alpha: float, beta: float) -> Iterator[tuple[np.ndarray, float]]:
    """For n = T - 1, ..., 0 rounds played: the decisions of the level's states, and the value of its first state.

    A level is an array over `u = s1 + f1 + s2`, `v = s1 + f1` and `w = s1`, of which the entries with `w <= v <= u`
    are states; they depend on no others.
    """
    value = np.zeros((horizon + 1,) * 3)
    for n in range(horizon - 1, -1, -1):
        u, v, w = np.ogrid[: n + 1, : n + 1, : n + 1]
        # Clipped for the entries that are no states.
        first = np.clip((alpha + w) / (alpha + beta + v), 0, 1)
        second = np.clip((alpha + u - v) / (alpha + beta + n - v), 0, 1)
        play_first = first * (1 + value[1:, 1:, 1:]) + (1 - first) * value[1:, 1:, :-1]
        play_second = second * (1 + value[1:, :-1, :-1]) + (1 - second) * value[:-1, :-1, :-1]
        advantage = play_first - play_second
        decisions = (advantage < 0).astype(np.int8)
        decisions[np.abs(advantage) <= _TOLERANCE] = _TIE
        value = np.maximum(play_first, play_second)
        yield decisions[(w <= v) & (v <= u)], float(value[0, 0, 0])


def _position(s1: Array, f1: Array, s2: Array, f2: Array) -> Array:
    """Where a state stands in the table: states are ordered by n, then u, v and w of `_solve`."""
    w, v = s1, s1 + f1
    u = v + s2
    n = u + f2
    return n * (n + 1) * (n + 2) * (n + 3) // 24 + u * (u + 1) * (u + 2) // 6 + v * (v + 1) // 2 + w
