"""Drift: what a policy loses that is fitted to its own decisions, without a signal (C3) and against one (C4).

Everything here has one round, so that the table has one row and an iteration is one generation: N scenarios, one kept
decision of each. Without a signal all arms are worth the same, all regrets are 0, and selection keeps whichever rollout
comes first, which says nothing of its arm. With a signal, arm 0 is worth more in every scenario, and the better
realized of two noisy rollouts is kept.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats

from rmft_jax.config import ScalarKey
from rmft_jax.method.rmft import iteration
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, state_of
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Stationary
from rmft_jax.statistics import drift
from theory.statement import Effort, Row, Statement, at_most, closed_form, equal, standard_error, structural_error
from theory.tabular import LastingLead, TabularCounts, TabularFit
from theory.walks import QUICK

NAME = "Drift"
SIGNAL = RMFTConfig().replace(
    environment=LastingLead(num_arms=2, noise="gaussian"),
    policy=TabularCounts(),
    update=TabularFit(),
    entropy_weight=0.0,
    horizon=1,
    num_rollouts=2,
    k=1,
    selection_regret="realized",
    branching="none",
)
"""One round, in which arm 0 is the better one; of two rollouts that of the higher realized reward is kept."""
NO_SIGNAL = SIGNAL.replace(
    environment=Stationary(num_arms=2, prior="constant", prior_mean=0.5, noise="bernoulli"), selection_regret="standard"
)
"""One round, in which all arms are worth the same."""

_diffusion = structural_error(
    "loss_as_by_diffusion", "the diffusion's exponent 2 N p0 s is taken for that of the bound on the better arm's loss"
)
_sampling = structural_error("drift_by_scenario", "N counts all rollouts rather than the kept ones")


class Chance(NamedTuple):
    """A setting without a signal: where the policy starts, N, the step, iterations in all and until a row is read."""

    p0: tuple[float, ...]
    num_kept: int
    step: float
    num_iterations: int
    read_after: int


class Contest(NamedTuple):
    """A setting with a signal: share of the better arm at the start, N, the growth of its odds, and iterations."""

    p0: float
    num_kept: int
    growth: float
    num_iterations: int


FIXATION, ENTROPY = "K=3, N=2, step 1", "K=8, N=30, step 0.6"
SHRINKING = {
    FIXATION: Chance((0.25, 0.35, 0.4), 2, 1.0, 16, 1),
    "K=3, N=2, step 1/2": Chance((0.25, 0.35, 0.4), 2, 0.5, 5, 5),
    ENTROPY: Chance((0.125,) * 8, 30, 0.6, 3, 3),
}
"""In the last, what entropy loses beyond the first order is 2e-5 of it; elsewhere up to 1/3."""
CONTESTS = {
    "N=10, p0=0.2, s=0.5": Contest(0.2, 10, 0.5, 8),
    "N=10, p0=0.1, s=0.8": Contest(0.1, 10, 0.8, 8),
}
_LEAD = 0.2
_SHOWN = 8


@closed_form
def entropy_loss(setting: Chance) -> float:
    """Nats that one iteration without a signal takes from the policy, to first order in `1 / N`."""
    return drift.entropy_loss(len(setting.p0), setting.num_kept, setting.step)


@closed_form
def remaining_heterozygosity(setting: Chance, num_iterations: int) -> float:
    """Mean of `1 - sum_a p(a)^2` in units of its start, after some iterations without a signal."""
    start = np.asarray(setting.p0)
    kept = setting.num_kept * NO_SIGNAL.num_rollouts if _sampling() else setting.num_kept
    rest = drift.heterozygosity(start, kept, num_iterations, setting.step)
    return rest / float(1 - np.sum(start**2))


@closed_form
def loss_probability(setting: Chance, arm: int) -> float:
    """Probability that the policy ends without an arm, where nothing is to be learned: `1 - p0(a)`."""
    return 1 - setting.p0[arm]


@closed_form
def survival_probability(setting: Contest) -> float:
    """Probability that the better arm is not lost before it has one half, within the iterations watched.

    By powers of the exact transition matrix: of two rollouts with different arms the better one is kept with
    probability `(1 + s) / 2`, so that a kept decision is for the better arm with `p^2 + p (1 - p) (1 + s)`.
    """
    size, p = setting.num_kept, np.arange(setting.num_kept + 1) / setting.num_kept
    kept = p**2 + p * (1 - p) * (1 + setting.growth)
    transition = stats.binom.pmf(np.arange(size + 1), size, kept[:, None])
    transition[p > 0.5] = np.eye(size + 1)[p > 0.5]
    after = np.linalg.matrix_power(transition, setting.num_iterations)
    return 1 - float(after[round(setting.p0 * size), 0])


def loss_bound(setting: Contest) -> float:
    """`exp(-N p0 s / (1 + s))`: the better arm is lost before it has one half with at most this probability."""
    s = setting.growth
    rate = 2 * s if _diffusion() else s / (1 + s)
    return math.exp(-setting.num_kept * setting.p0 * rate)


class Measured(NamedTuple):
    """What S independent runs of the package's iteration did, by setting.

    diversity: `[S, n + 1]` of `1 - sum_a p(a)^2` in units of its start.
    fixed: `[S, K]` probabilities at the end, without a signal.
    entropy: `[S]` nats lost in the first iteration, without a signal.
    lost: `[S, n + 1]` whether the better arm was lost, by the iteration, before it had more than one half.
    """

    diversity: dict[str, Float[np.ndarray, "S n"]]
    fixed: Float[np.ndarray, "S K"]
    entropy: Float[np.ndarray, "S"]
    lost: dict[str, Float[np.ndarray, "S n"]]


def paths(
    config: RMFTConfig, p0: tuple[float, ...], num_iterations: int, num_runs: int, key: ScalarKey
) -> Float[np.ndarray, "S n K"]:
    """The policy of independent runs of the package's iteration, before and after each iteration."""
    config.validate()
    table = jnp.asarray(p0, jnp.float32)[None]
    states = jax.vmap(lambda key: state_of(config, {"table": table}, key))(jax.random.split(key, num_runs))
    walked = [np.asarray(states.params["table"][:, 0], np.float64)]
    for _ in range(num_iterations):
        states = _step(states)
        walked.append(np.asarray(states.params["table"][:, 0], np.float64))
    return np.stack(walked, axis=1)


@functools.partial(jax.jit, compiler_options=QUICK)
def _step(states: TrainState) -> TrainState:
    return jax.vmap(lambda state: iteration(state)[0])(states)


def _by_chance(setting: Chance, num_runs: int, key: ScalarKey) -> Float[np.ndarray, "S n K"]:
    config = NO_SIGNAL.replace(num_arms=len(setting.p0), num_scenarios=setting.num_kept, fit_step=setting.step)
    return paths(config, setting.p0, setting.num_iterations, num_runs, key)


def _contested(setting: Contest, num_runs: int, key: ScalarKey) -> Float[np.ndarray, "S n"]:
    # A rollout of the better arm has no realized regret, one of the other N(lead, 2 noise_std^2).
    noise = _LEAD / (math.sqrt(2) * float(stats.norm.ppf((1 + setting.growth) / 2)))
    config = SIGNAL.replace(lead=_LEAD, noise_std=noise, num_scenarios=setting.num_kept)
    share = paths(config, (setting.p0, 1 - setting.p0), setting.num_iterations, num_runs, key)[..., 0]
    undecided = np.cumsum(share > 0.5, axis=1) == 0
    return np.cumsum((share == 0) & undecided, axis=1) > 0


def _entropy(p: Float[np.ndarray, "*batch K"]) -> Float[np.ndarray, "*batch"]:
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def measure(effort: Effort) -> Measured:
    """Many runs of the package's iteration at once."""
    runs, walked = effort.times(2**16), {}
    for name, setting in SHRINKING.items():
        effort.note(name)
        walked[name] = _by_chance(setting, runs, effort.key(f"drift: {name}"))
    left = {name: 1 - np.sum(path**2, axis=-1) for name, path in walked.items()}
    diversity = {name: values / values[:, :1] for name, values in left.items()}
    entropy = _entropy(walked[ENTROPY][:, 0]) - _entropy(walked[ENTROPY][:, 1])
    lost = {}
    for name, setting in CONTESTS.items():
        effort.note(name)
        lost[name] = _contested(setting, runs, effort.key(f"drift: {name}")).astype(np.float64)
    return Measured(diversity, walked[FIXATION][:, -1], entropy, lost)


def rows(measured: Measured) -> list[Row]:
    """Shrinkage, fixation and entropy without a signal; the better arm's loss with one."""
    table = []
    for name, setting in SHRINKING.items():
        n, values = setting.read_after, measured.diversity[name]
        label = f"{name}: 1 - sum of p^2 after {n} iterations, of its start"
        table.append(equal(NAME, label, remaining_heterozygosity(setting, n), values[:, n]))
    for arm, p in enumerate(SHRINKING[FIXATION].p0[:-1]):  # The last share is what the others leave.
        label = f"{FIXATION}: the arm that starts at {p} is lost in the end"
        lost = (measured.fixed[:, arm] == 0).astype(np.float64)
        table.append(equal(NAME, label, loss_probability(SHRINKING[FIXATION], arm), lost))
    label = f"{ENTROPY}: entropy lost in an iteration (nats)"
    table.append(equal(NAME, label, entropy_loss(SHRINKING[ENTROPY]), measured.entropy))
    for name, setting in CONTESTS.items():
        lost, label = measured.lost[name][:, -1], f"{name}: better arm"
        within = f"within {setting.num_iterations} iterations"
        table.append(equal(NAME, f"{label} not lost {within}", survival_probability(setting), 1 - lost))
        table.append(at_most(NAME, f"{label} lost {within}", loss_bound(setting), float(np.mean(lost))))
    return table


def draw(measured: Measured) -> Figure:
    """What is left of the policy's diversity over the iterations, and how often the better arm is lost."""
    with column_figure(2.9) as (figure, axes):
        plot: Any = {"ms": 3, "capsize": 1.5, "ls": ""}
        for color, marker, (name, setting) in zip(COLORS, "os^", SHRINKING.items(), strict=False):
            counts = np.arange(min(setting.num_iterations, _SHOWN) + 1)
            values = measured.diversity[name][:, : len(counts)]
            axes.plot(counts, [remaining_heterozygosity(setting, int(n)) for n in counts], color=color, lw=0.8)
            bars = 4 * standard_error(values)
            axes.errorbar(counts, values.mean(0), bars, fmt=marker, color=color, label=name, **plot)
        for color, marker, (name, setting) in zip(COLORS[3:], "Dv", CONTESTS.items(), strict=False):
            values = measured.lost[name][:, : _SHOWN + 1]
            counts = np.arange(values.shape[1])
            label = f"better arm lost, {name}"
            axes.errorbar(
                counts, values.mean(0), 4 * standard_error(values), fmt=marker, color=color, label=label, **plot
            )
            axes.axhline(loss_bound(setting), color=color, lw=0.8, ls="--")
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("share left of 1 − Σp², or\nprobability of loss (bound: dashed)")
        axes.set_ylim(-0.03, 1.6)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.legend(loc="upper center", fontsize=6)
        return figure


STATEMENT = Statement("drift", measure, rows, draw)
