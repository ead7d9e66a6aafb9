"""The policy that no other can beat on average: exact dynamic programming for Bernoulli arms with Beta priors."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.special
from jaxtyping import Array, Float, Int, UInt8

from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent
from rmft_jax.config import ScalarKey, pytree, static_field
from rmft_jax.config.checks import require, require_count
from rmft_jax.problems.types import Context

MAX_HORIZONS = {2: 100, 3: 50}
"""By number of arms, how many rounds can be solved: 4.4 and 29 million states, a byte each."""
_TOLERANCE = 1e-12


@pytree
class BayesOptimal(StatisticsAgent):
    """Maximizes the expected sum of T rewards for two or three Bernoulli arms with independent Beta(alpha, beta) means.

    `V(s, f) = max_a p_a (1 + V(s_a + 1)) + (1 - p_a) V(f_a + 1)` over successes and failures of the arms, with the
    posterior mean `p_a = (alpha + s_a) / (alpha + beta + s_a + f_a)` and V = 0 after T rounds. Where several arms
    attain the maximum one of them is drawn at random. Rewards must be 0 or 1. Make it with `create`.

    decisions: `[C(T + 2K - 1, 2K)]` the best arms in every state, of which the a-th is bit a; by rounds played, and
      among those of a round as `_binomials` says.
    horizon: T, for which alone it is optimal.
    arms: K.
    """

    decisions: UInt8[Array, "N"]
    horizon: int = static_field()
    arms: int = static_field()

    @classmethod
    def create(cls, horizon: int, num_arms: int = 2, *, alpha: float = 1.0, beta: float = 1.0) -> "BayesOptimal":
        """Solves the dynamic program, in seconds at most.

        Raises:
          ConfigError: for more arms or rounds than can be solved, or a prior that is none.
        """
        _check(horizon, num_arms, alpha, beta)
        return cls(jnp.asarray(_solved(horizon, num_arms, float(alpha), float(beta))[0]), horizon, num_arms)

    def init(self, num_arms: int, horizon: int) -> ArmStatistics:
        """Nothing seen yet.

        Raises:
          ConfigError: if there are not the arms and rounds that the program was solved for.
        """
        require(num_arms == self.arms, f"num_arms={num_arms}", f"{self.arms} for BayesOptimal", "BetaGittins")
        need = f"the {self.horizon} rounds that BayesOptimal was solved for"
        require(horizon == self.horizon, f"horizon={horizon}", need, f"BayesOptimal.create({horizon})")
        return super().init(num_arms, horizon)

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        wins, losses = jnp.round(state.sums), jnp.round(state.pulls - state.sums)
        counts = jnp.stack([wins, losses], axis=1).ravel().astype(jnp.int32)
        sums = jnp.cumsum(counts)
        choose = jnp.asarray(_binomials(2 * self.arms, self.horizon))
        place = jnp.sum(choose[jnp.arange(1, 2 * self.arms + 1), sums])
        return (self.decisions[place] >> jnp.arange(self.arms, dtype=jnp.uint8) & 1).astype(jnp.float32)


def bayes_optimal_regret(horizon: int, num_arms: int = 2, *, alpha: float = 1.0, beta: float = 1.0) -> float:
    """The mean pseudo-regret of `BayesOptimal` over its prior: `T E[max_a mean_a] - V(0)`.

    Raises:
      ConfigError: for more arms or rounds than can be solved, or a prior that is none.
    """
    _check(horizon, num_arms, alpha, beta)
    return horizon * best_mean(num_arms, alpha, beta) - _solved(horizon, num_arms, float(alpha), float(beta))[1]


def best_mean(num_arms: int, alpha: float = 1.0, beta: float = 1.0) -> float:
    """The expected largest of so many means that are independent and Beta(alpha, beta)."""
    below, _ = scipy.integrate.quad(lambda mean: scipy.special.betainc(alpha, beta, mean) ** num_arms, 0.0, 1.0)
    return 1.0 - below


def _check(horizon: int, num_arms: int, alpha: float, beta: float) -> None:
    got = f"num_arms={num_arms}"
    require(num_arms in MAX_HORIZONS, got, "2 or 3 for BayesOptimal", "BetaGittins, which comes close, for any number")
    most = MAX_HORIZONS[num_arms]
    need = f"1 to {most} for BayesOptimal of {num_arms} arms, whose states grow as horizon^{2 * num_arms}"
    require_count(horizon, "horizon", 1, most)
    require(horizon <= most, f"horizon={horizon}", need, f"horizon={most}, or BetaGittins, which comes close")
    positive = 0 < alpha < np.inf and 0 < beta < np.inf
    require(positive, f"alpha={alpha}, beta={beta}", "positive numbers", "alpha=1, beta=1")


@functools.lru_cache(maxsize=4)
def _solved(horizon: int, num_arms: int, alpha: float, beta: float) -> tuple[UInt8[np.ndarray, "N"], float]:
    """The decisions of all states, and the value of the first."""
    levels = list(_solve(horizon, num_arms, alpha, beta))
    return np.concatenate([decisions for decisions, _ in reversed(levels)]), levels[-1][1]


def _solve(horizon: int, num_arms: int, alpha: float, beta: float) -> Iterator[tuple[np.ndarray, float]]:
    """For n = T - 1, ..., 0 rounds played: the decisions of the level's states, and the value of its first state."""
    choose = _binomials(2 * num_arms, horizon + 1)
    value = np.zeros(choose[2 * num_arms - 1, horizon + 1])
    for n in range(horizon - 1, -1, -1):
        sums = _sums(2 * num_arms - 1, n)
        best, worths = np.full(len(sums[0]), -np.inf), []
        for arm in range(num_arms):
            before = sums[2 * arm - 1] if arm else np.zeros(1, np.int16)
            wins = sums[2 * arm] - before
            pulls = (sums[2 * arm + 1] if arm < num_arms - 1 else np.int16(n)) - before
            mean = (alpha + wins) / (alpha + beta + pulls)
            # One more of a count moves all sums from there on.
            won, lost = (
                value[sum(choose[i + 1][total + (i >= first)] for i, total in enumerate(sums))]
                for first in (2 * arm, 2 * arm + 1)
            )
            worth = mean * (1 + won) + (1 - mean) * lost
            best = np.maximum(best, worth)
            worths.append(worth)
        decisions = sum((best - worth <= _TOLERANCE).astype(np.uint8) << arm for arm, worth in enumerate(worths))
        value = best
        yield np.asarray(decisions, np.uint8), float(value[0])


def _sums(number: int, most: int) -> Sequence[Int[np.ndarray, "N"]]:
    """All that `0 <= a_1 <= a_2 <= ... <= a_number <= most` can be, in the order of states: an array for each a_i."""
    last = np.arange(most + 1, dtype=np.int16)
    found = [last]
    for _ in range(number - 1):
        # Below every a_i of the smallest that are found, all values up to it.
        repeats = found[0].astype(np.int64) + 1
        ends = np.cumsum(repeats)
        below = np.arange(ends[-1]) - np.repeat(ends - repeats, repeats)
        found = [below.astype(np.int16), *(np.repeat(sums, repeats) for sums in found)]
    return found


@functools.cache
def _binomials(number: int, most: int) -> Int[np.ndarray, "I A"]:
    """`[i, a]` of `C(a + i - 1, i)`: a state with the sums `a_1 <= a_2 <= ...` stands at the sum of `[i, a_i]`.

    The sums are those of the first i of its counts (the successes and the failures of each arm in turn). Before it
    stand the states with fewer rounds, among those of its round the ones with a smaller last sum but one, and so on.
    """
    table = np.zeros((number + 1, most + 1), np.int64)
    table[0] = 1
    for i, a in itertools.product(range(1, number + 1), range(1, most + 1)):
        table[i, a] = table[i, a - 1] + table[i - 1, a]
    return table.astype(np.int32)
