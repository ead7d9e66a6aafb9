"""Survivorship: what keeping the best rollouts teaches a table (C1), and why plain RMFT may learn the wrong thing (C2).

Two arms of uniform means, Bernoulli rewards, and a table that is uniform at the start. After some plays of one arm that
all failed, that arm is likely the worse one. But among the kept rollouts that saw this, it is likely the better one:
where it is the worse one, a rollout with that many plays of it had little chance to be kept. Branching after the
failures keeps rollouts in every such scenario alike.

What is run: the package's `iterate` without branching and with uniform branching; and, for branching right after the
failures, the steps of `iteration` (`rollout_scenarios`, `judge`, `keep`, `training_data`, `fine_tune`) with that branch
round in every scenario, because `iterate` itself draws branch rounds.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure
from scipy import integrate, special, stats

from rmft_jax.config import ScalarKey
from rmft_jax.method.judging import judge, training_data
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rmft import iterate
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.selection import select_lowest
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, TrainState, init, make_player
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Stationary
from theory.lemma import order_statistic_mean
from theory.statement import (
    Effort,
    Row,
    Statement,
    at_most,
    closed_form,
    equal,
    standard_error,
    structural_error,
    zeros,
)  # fmt: skip
from theory.tabular import TabularCounts, TabularFit, Tally, cell_of
from theory.walks import QUICK

NAME = "Survivorship"
ROLLOUTS, KEPT = 8, 2
SETTING = RMFTConfig().replace(
    environment=Stationary(num_arms=2, prior="uniform", noise="bernoulli"),
    policy=TabularCounts(),
    update=TabularFit(),
    entropy_weight=0.0,
    num_rollouts=ROLLOUTS,
    k=KEPT,
    rollout_block=8192,
)
WAYS = ("plain", "uniform", "branching")
"""No branching; uniform branch rounds; branching right after the failures."""


class Instance(NamedTuple):
    """A history: so many plays of one arm, all of them failures, at the start of so many rounds."""

    horizon: int
    failures: int


SHORT, LONG, LONGER = Instance(4, 1), Instance(10, 3), Instance(20, 5)
"""The last one is too rare to be measured within seconds: 1 in 200 of the kept rollouts pass through it."""

_no_tilt = structural_error("survivors_are_typical", "without branching, kept rollouts are taken for typical scenarios")
_tilted = structural_error("branching_keeps_the_tilt", "with branching, kept rollouts are taken for those without")


@closed_form
def weight_variance(num_rollouts: int, k: int) -> float:
    """Variance of the rank weight: `(L/k)^2 sum_{i,j<k} C(L-1,i) C(L-1,j) B(i+j+1, 2L-1-i-j) - 1`."""
    n, orders = num_rollouts - 1, np.arange(k)
    ways = np.asarray(special.comb(n, orders))
    total = orders[:, None] + orders
    integral = np.sum(ways[:, None] * ways * special.beta(total + 1, 2 * n - total + 1))
    return (num_rollouts / k) ** 2 * float(integral) - 1


def correlation(num_rollouts: int, k: int) -> float:
    """Correlation of the rank weight with z, how far a normal regret is below its mean: their covariance is c."""
    return order_statistic_mean(num_rollouts, k) / math.sqrt(weight_variance(num_rollouts, k))


@functools.cache
def rank_weights(num_fair: int, num_rollouts: int = ROLLOUTS, k: int = KEPT) -> Float[np.ndarray, "n"]:
    """Mean of `w(u)` for a rollout of so many bad plays, 0 to n, where all others have Bin(n, 1/2): ties at random.

    Given how many others are better and how many are equal, a rollout is kept with certainty, with the share of the
    places left, or not at all.
    """
    bad, others = np.arange(num_fair + 1), num_rollouts - 1
    at, below = stats.binom.pmf(bad, num_fair, 0.5), stats.binom.cdf(bad - 1, num_fair, 0.5)
    weights = np.zeros(num_fair + 1)
    for better in range(k):
        for equal_ones in range(others - better + 1):
            worse = others - better - equal_ones
            ways = special.comb(others, better) * special.comb(others - better, equal_ones)
            chance = ways * below**better * at**equal_ones * np.maximum(1 - below - at, 0) ** worse
            weights += chance * min(1.0, (k - better) / (equal_ones + 1))
    return num_rollouts / k * weights


@functools.cache
def later_weights(num_own: int, decided: int) -> Float[np.ndarray, "j"]:
    """`omega(j)`: the mean weight of a rollout of `num_own` own rounds with j bad plays in the first `decided`."""
    weights, rest = rank_weights(num_own), num_own - decided
    later = np.asarray(stats.binom.pmf(np.arange(rest + 1), rest, 0.5))
    return np.array([np.sum(later * weights[j : j + rest + 1]) for j in range(decided + 1)])


@functools.cache
def kept_decisions(instance: Instance, own_failures: int) -> Float[np.ndarray, "2 2"]:
    """`[arm better or worse, stay or switch]` of kept rollouts after the failures, their last `own_failures` being own.

    Each is `P(arm is better or not | h) Q_s(h, a) / 2`, so that the sum is `V(h)`, or 1 where none of them is own.
    """
    # Of Beta(1, 1 + failures) against Beta(1, 1): the mean of the former.
    posterior = 1 / (instance.failures + 2)
    omega = later_weights(instance.horizon - instance.failures + own_failures, own_failures + 1)
    better, worse = (omega[0], omega[1]), (omega[own_failures + 1], omega[own_failures])
    return np.array([[posterior * w for w in better], [(1 - posterior) * w for w in worse]]) / 2


def decisions(instance: Instance, way: str) -> Float[np.ndarray, "2 2"]:
    """The same by the way of branching, as the planted error at the moment has it."""
    if (way == "plain" and _no_tilt()) or (way == "branching" and not _tilted()):
        return kept_decisions(instance, 0)
    if way == "uniform":
        return np.sum([kept_decisions(instance, own) for own in range(instance.failures + 1)], axis=0)
    return kept_decisions(instance, instance.failures)


@closed_form
def switching(instance: Instance, way: str) -> float:
    """What the exact fit plays of the other arm after the failures; before it was one half."""
    kept = decisions(instance, way)
    return float(kept[:, 1].sum() / kept.sum())


@closed_form
def better_among_kept(instance: Instance, way: str) -> float:
    """Share of the kept rollouts that saw the failures in which that arm is the better one after all."""
    kept = decisions(instance, way)
    return float(kept[0].sum() / kept.sum())


def odds(instance: Instance, way: str) -> float:
    """Odds of switching after the fit; 1 before it."""
    p = switching(instance, way)
    return p / (1 - p)


def _digits(horizon: int) -> list[tuple[int, ...]]:
    """All counts `(failures of arm 0, of arm 1, successes of arm 0, of arm 1)` with which a decision is due."""
    return [digits for digits in itertools.product(range(horizon), repeat=4) if sum(digits) < horizon]


def first_arm_shares(horizon: int) -> Float[np.ndarray, "E"]:
    """What the exact fit without branching plays of arm 0 in every cell that is reached: `Q(h,0) / (Q(h,0) + Q(h,1))`.

    A uniform policy reaches the orders of one cell's counts equally often, whichever arm is the better one, so that the
    cell stands for any of them.
    """
    shares = []
    for f0, f1, s0, s1 in _digits(horizon):
        n0, n1 = f0 + s0, f1 + s1
        q = _first_is_better(f0, f1, s0, s1)
        # Under the planted error the past counts for nothing, as if rollouts had branched here.
        bad0, bad1 = (0, 0) if _no_tilt() else (n0, n1)
        omega = later_weights(horizon - n0 - n1 + bad0 + bad1, bad0 + bad1 + 1)
        first = q * omega[bad1] + (1 - q) * omega[bad0 + 1]
        second = q * omega[bad1 + 1] + (1 - q) * omega[bad0]
        shares.append(first / (first + second))
    return np.array(shares)


@functools.cache
def _first_is_better(f0: int, f1: int, s0: int, s1: int) -> float:
    """`P(mu_0 > mu_1)` after these failures and successes, under uniform priors."""

    def integrand(x: float) -> float:
        return float(stats.beta.pdf(x, 1 + s0, 1 + f0) * stats.beta.cdf(x, 1 + s1, 1 + f1))

    return float(integrate.quad(integrand, 0, 1)[0])


class Measured(NamedTuple):
    """What S independent batches gave; instances by their `label`, ways of branching by name.

    slope: `[S]` mean standardized regret of kept normal rollouts, below the mean.
    variance: `[S]` of their rank weight.
    shares: `[S, E]` what the fit plays of arm 0 in every cell of the shortest instance, without branching.
    visits: `[S, E]` kept decisions in it.
    switched: `[S]` what the fit plays of the other arm after the failures.
    better: `[S]` share of the kept decisions there with the failed arm being the better one.
    by_failures: `[S, F]` the first without branching, after 1 to F failures in the rounds of `LONG`.
    """

    slope: Float[np.ndarray, "S"]
    variance: Float[np.ndarray, "S"]
    shares: Float[np.ndarray, "S E"]
    visits: Float[np.ndarray, "S E"]
    switched: dict[str, Float[np.ndarray, "S"]]
    better: dict[str, Float[np.ndarray, "S"]]
    by_failures: Float[np.ndarray, "S F"]


RUNS: dict[str, tuple[Instance, str]] = {
    f"T={instance.horizon}, failures={instance.failures}, {way}": (instance, way)
    for instance, ways in ((SHORT, WAYS), (LONG, ("plain", "branching")))
    for way in ways
}
_BATCHES, _SCENARIOS, _SHOWN = 8, 2**15, 5


def measure(effort: Effort) -> Measured:
    """One iteration of fresh tables in every batch, and normal regrets that the package's rule selects."""
    batches = effort.times(_BATCHES)
    tallies: dict[str, list[Tally]] = {}
    for name, (instance, way) in RUNS.items():
        effort.note(name)
        branching = "uniform" if way == "uniform" else "none"
        # All of them come to the failures alike where they branch there, and are kept.
        scenarios = _SCENARIOS // 2 if way == "branching" else _SCENARIOS
        config = SETTING.replace(horizon=instance.horizon, num_scenarios=scenarios, branching=branching)
        keys = jax.random.split(effort.key(f"survivorship: {name}"), batches)
        tallies[name] = [_tally(config, key, instance.failures if way == "branching" else None) for key in keys]
    read = {
        name: np.stack([_after(tally, *instance) for tally in tallies[name]]) for name, (instance, _) in RUNS.items()
    }
    cells = np.array([int(cell_of(jnp.array(d).reshape(2, 2), SHORT.horizon)) for d in _digits(SHORT.horizon)])
    played = np.stack([np.asarray(tally.played, np.float64)[cells] for tally in tallies[_name(SHORT, "plain")]])
    long = tallies[_name(LONG, "plain")]
    by_failures = [[_after(tally, LONG.horizon, f + 1)[0] for f in range(_SHOWN)] for tally in long]
    effort.note("rank weights")
    weights = np.stack([_normal_selection(key) for key in jax.random.split(effort.key("survivorship: w"), batches)])
    visits = played.sum(-1)
    return Measured(
        slope=weights[:, 0],
        variance=weights[:, 1],
        shares=played[..., 0] / visits,
        visits=visits,
        switched={name: values[:, 0] for name, values in read.items()},
        better={name: values[:, 1] for name, values in read.items()},
        by_failures=np.array(by_failures),
    )


def _name(instance: Instance, way: str) -> str:
    return next(name for name, run in RUNS.items() if run == (instance, way))


def _after(tally: Tally, horizon: int, failures: int) -> Float[np.ndarray, "2"]:
    """After failures of either arm: share of the other one among kept decisions, and how often the failed is better."""
    rows = failures * horizon ** np.arange(2)
    played, best = (np.asarray(leaf, np.float64)[rows] for leaf in (tally.played, tally.best))
    return np.array([np.trace(played[:, ::-1]), np.trace(best)]) / played.sum()


def _tally(config: RMFTConfig, key: ScalarKey, branch_round: int | None) -> Tally:
    state = init(config, key)
    if branch_round is not None:
        return branching_at(state, jnp.array(branch_round)).opt_state
    structure = jax.tree.structure(state)
    if structure not in _programs:
        _programs[structure] = iterate.lower(state).compile(compiler_options=QUICK)
    return _programs[structure](state)[0].opt_state


_programs: dict[Any, Any] = {}


@functools.partial(jax.jit, compiler_options=QUICK)
def branching_at(state: TrainState, branch_round: Int[Array, ""]) -> TrainState:
    """`iteration` with one branch round for all scenarios in place of drawn ones."""
    config, keys, problem = state.config, IterationKeys.of(state), state.config.problem()
    played = rollout_scenarios(
        make_player(state),
        problem,
        RolloutKeys.create(keys.play),
        num_scenarios=config.num_scenarios,
        num_rollouts=config.num_rollouts,
        branch_rounds=jnp.full(config.num_scenarios, branch_round),
        block=config.rollout_block,
    )
    judged = judge(config, problem, played)
    kept = config.selection.keep(keys.selection, judged)
    own = jnp.broadcast_to(jnp.arange(config.horizon) >= branch_round, (config.num_scenarios, config.horizon))
    return config.update.fine_tune(state, training_data(config, judged, kept, own), keys.update)[0]


@functools.partial(jax.jit, static_argnums=1)
def _normal_selection(key: ScalarKey, count: int = 2**18) -> Float[Array, "2"]:
    """Slope and variance of the rank weight of the package's selection among normal regrets.

    One rollout meets two independent groups of others; that both keep it has the probability `E (w k / L)^2`. Its rank
    is spread evenly rather than drawn, which takes most of the noise.
    """
    shift, first, second = jax.random.split(key, 3)
    own = jax.scipy.special.ndtri((jnp.arange(count) + jax.random.uniform(shift, (count,))) / count)
    groups = [
        jnp.concatenate([own[:, None], jax.random.normal(part, (count, ROLLOUTS - 1))], axis=1)
        for part in (first, second)
    ]
    kept = [select_lowest(group, KEPT) for group in groups]
    slope = -jnp.mean(jnp.take_along_axis(groups[0], kept[0], axis=1))
    both = jnp.mean(jnp.any(kept[0] == 0, axis=1) & jnp.any(kept[1] == 0, axis=1))
    return jnp.stack([slope, (ROLLOUTS / KEPT) ** 2 * both - 1])


def rows(measured: Measured) -> list[Row]:
    """C1: the weights, and the fit in all cells; C2: the fit after failures."""
    size = f"L={ROLLOUTS}, k={KEPT}"
    table = [
        equal(NAME, f"{size}: slope of w on standardized regret", order_statistic_mean(ROLLOUTS, KEPT), measured.slope),
        equal(
            NAME,
            f"{size}: correlation of w with standardized regret",
            correlation(ROLLOUTS, KEPT),
            measured.slope / np.sqrt(measured.variance),
        ),
    ]
    shares = first_arm_shares(SHORT.horizon)
    off = (measured.shares - shares) * np.sqrt(measured.visits / (shares * (1 - shares)))
    table.append(zeros(NAME, f"T={SHORT.horizon}, plain: fit minus pi Q / V, all cells, in standard errors", off))
    for name, (instance, way) in RUNS.items():
        table += _after_failures(name, instance, way, measured)
    return table


def _after_failures(name: str, instance: Instance, way: str, measured: Measured) -> list[Row]:
    """Switching in the short instance by its value; of the rest less was seen: its distance from the prediction."""
    switched, better = measured.switched[name], measured.better[name]
    predicted, posterior = switching(instance, way), better_among_kept(instance, way)
    seen_odds = switched / (1 - switched)
    label = f"{name}: failed arm is better, among the kept, minus predicted"
    table = [equal(NAME, label, 0.0, better - posterior)]
    if instance == SHORT:
        table.append(equal(NAME, f"{name}: probability of switching", predicted, switched))
    else:
        off = np.log(seen_odds) - math.log(predicted / (1 - predicted))
        table.append(equal(NAME, f"{name}: log odds of switching, minus predicted", 0.0, off))
    if (instance, way) in ((SHORT, "plain"), (SHORT, "branching"), (LONG, "branching")):
        side = seen_odds if predicted < 0.5 else 1 / seen_odds
        label = f"{name}: odds of switching move to the side predicted, by 4 standard errors"
        table.append(at_most(NAME, label, 1.0, float(np.mean(side) + 4 * standard_error(side))))
    return table


def draw(measured: Measured) -> Figure:
    """Odds of switching after failures, of which they were 1 before, against the number of failures."""
    counts = np.arange(1, _SHOWN + 1)
    with column_figure() as (figure, axes):
        axes.axhline(1.0, color="black", lw=0.6)
        labels = {"plain": "no branching", "uniform": "uniform branch rounds", "branching": "branching after them"}
        for color, ls, (way, label) in zip(
            (COLORS[5], COLORS[6], COLORS[4]), ("-", ":", "--"), labels.items(), strict=True
        ):
            predicted = [odds(Instance(LONG.horizon, int(f)), way) for f in counts]
            axes.plot(counts, predicted, color=color, ls=ls, lw=1.2, label=f"{label}, predicted")
        plain = measured.by_failures / (1 - measured.by_failures)
        bars: Any = {"fmt": "o", "ms": 3, "capsize": 2, "zorder": 3}
        axes.errorbar(
            counts, plain.mean(0), 4 * standard_error(plain), color=COLORS[5], label="measured, ±4 SE", **bars
        )
        branched = measured.switched[_name(LONG, "branching")]
        branched = branched / (1 - branched)
        axes.errorbar(LONG.failures, branched.mean(), 4 * float(standard_error(branched)), color=COLORS[4], **bars)
        axes.set_xticks(counts)
        axes.set_ylim(0.5, 2.8)
        axes.set_xlabel(f"failures of one arm at the start of {LONG.horizon} rounds")
        axes.set_ylabel("odds of playing the other arm next\n(before the fit: 1)")
        axes.legend(loc="upper left")
        return figure


STATEMENT = Statement("survivorship", measure, rows, draw)
