"""What no policy can be better than, for any number of Bernoulli arms: a bound on the Bayes regret from below."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmft_jax.agents.bayes_optimal import best_mean
from rmft_jax.config.checks import require, require_count, require_seed

_PRICES, _PILOT, _BLOCK = np.linspace(0.5, 0.98, 25), 1000, 500


class RegretBound(NamedTuple):
    """A bound that is a mean over simulated scenarios.

    value: pseudo-regret at the horizon that no policy goes below on average.
    sem: standard error of the mean.
    """

    value: float
    sem: float


def bayes_regret_bound(
    horizon: int, num_arms: int, *, alpha: float = 1.0, beta: float = 1.0, num_scenarios: int = 20_000, seed: int = 0
) -> RegretBound:
    """A lower bound on the mean pseudo-regret of every policy, for independent Beta(alpha, beta) means.

    Whoever knows all rewards beforehand earns more than any policy. An information relaxation (Brown, Smith, Sun 2010)
    takes from it what it owes to that knowledge: a sum of deviations whose mean is 0 for a policy that cannot foresee.
    Here they are those of the reward of every pull from its posterior mean, and those of V_λ of the arm (see
    `index_tables`), the value of its further pulls beside a price λ, from the expectation before the pull. What is
    left depends on nothing but how often every arm is pulled, so that the best numbers of pulls are found by dynamic
    programming. The price is the one with the highest bound on 1000 other scenarios.

    To relax the constraint of one pull a round alone (Lagrange) gives no bound above 0 for five uniform arms or fewer:
    where all arms are good it pulls them all.

    Args:
      horizon: rounds T.
      num_arms: K.
      alpha: of the prior; 1, with `beta` 1, is uniform.
      beta: of the prior.
      num_scenarios: that are simulated.
      seed: of them.

    Raises:
      ConfigError: if one of the numbers cannot be.
    """
    require_count(horizon, "horizon", 1, 50)
    require_count(num_arms, "num_arms", 2, 5)
    require_count(num_scenarios, "num_scenarios", 2, 20_000)
    require_seed(seed)
    positive = 0 < alpha < np.inf and 0 < beta < np.inf
    require(positive, f"alpha={alpha}, beta={beta}", "positive numbers", "alpha=1, beta=1")
    pilot, main = np.random.default_rng(seed).spawn(2)
    count = min(_PILOT, num_scenarios)
    scenarios = list(_scenarios(pilot, horizon, num_arms, alpha, beta, count))
    earned = {price: np.concatenate([_most(wins, _Arm(horizon, price, alpha, beta)) for _, wins in scenarios])
              for price in _PRICES}  # fmt: skip
    price = min(_PRICES, key=lambda price: float(earned[price].mean()))
    # What is earned varies with the best mean, whose own mean is known: a control variate.
    best = np.concatenate([means.max(axis=1) for means, _ in scenarios])
    slope = np.polyfit(best, earned[price], 1)[0]
    known, arm = best_mean(num_arms, alpha, beta), _Arm(horizon, price, alpha, beta)
    regrets = [
        horizon * known - (_most(wins, arm) - slope * (means.max(axis=1) - known))
        for means, wins in _scenarios(main, horizon, num_arms, alpha, beta, num_scenarios)
    ]
    regret = np.concatenate(regrets)
    return RegretBound(float(regret.mean()), float(regret.std(ddof=1) / len(regret) ** 0.5))


class _Arm:
    """The value of one arm beside a price, for all that it may show.

    value: `[n, s]` V_λ after n pulls with s successes and T - n pulls left.
    expected: `[n, s]` its expectation after one pull more.
    mean: `[n, s]` of the posterior.
    """

    def __init__(self, horizon: int, price: float, alpha: float, beta: float):
        pulls, wins = np.ogrid[: horizon + 1, : horizon + 1]
        self.mean = np.minimum((alpha + wins) / (alpha + beta + pulls), 1.0)
        self.value, self.expected = np.zeros((horizon + 1,) * 2), np.zeros((horizon + 1,) * 2)
        # Of m pulls left and n made, n + m <= T; only n + m = T is kept.
        value = np.zeros((horizon + 2,) * 2)
        for made in range(horizon - 1, -1, -1):
            size = made + 1
            chance = self.mean[:size, :size]
            expected = chance * value[1 : size + 1, 1 : size + 1] + (1 - chance) * value[1 : size + 1, :size]
            value = np.maximum(chance - price + expected, 0.0)
            self.value[made, :size], self.expected[made, :size] = value[made], expected[made]


def _scenarios(
    generator: np.random.Generator, horizon: int, num_arms: int, alpha: float, beta: float, number: int
) -> Iterator[tuple[Float[np.ndarray, "N K"], Int[np.ndarray, "N K T1"]]]:
    """In blocks: the means of the arms, and the successes in their first 0, 1, ..., T pulls."""
    for start in range(0, number, _BLOCK):
        size = min(_BLOCK, number - start)
        means = generator.beta(alpha, beta, (size, num_arms))
        rewards = generator.random((size, num_arms, horizon)) < means[..., None]
        yield means, np.cumsum(np.pad(rewards, ((0, 0), (0, 0), (1, 0))), axis=-1)


def _most(wins: Int[np.ndarray, "N K T1"], arm: _Arm) -> Float[np.ndarray, "N"]:
    """In every scenario, the most that T pulls can earn without what is owed to knowledge."""
    pulls = np.arange(wins.shape[-1])
    value, before = arm.value[pulls, wins], (pulls[:-1], wins[..., :-1])
    gain = arm.mean[before] - (value[..., 1:] - arm.expected[before])
    gains = np.pad(np.cumsum(gain, axis=-1), ((0, 0), (0, 0), (1, 0)))
    best = gains[:, 0]  # Of the first arms, by their number of pulls.
    for own in np.moveaxis(gains[:, 1:-1], 1, 0):
        best = np.stack([(best[:, : n + 1] + own[:, n::-1]).max(axis=1) for n in pulls], axis=1)
    return (best + gains[:, -1, ::-1]).max(axis=1)
