"""Lemma: what selection does to the noise of the kept trajectories.

`E[eps_t | kept, R] = c_{L,k} R_t / |R|_F`, where `c_{L,k}` is the mean of the k largest of L standard normals.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import integrate, stats

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.method.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.method.selection import select_lowest
from rmft_jax.plotting.style import COLORS, column_figure
from theory.statement import Effort, Row, Statement, close, closed_form, standard_error, worst
from theory.walks import SETTING

SELECTIONS = ((2, 1), (4, 1), (8, 2), (16, 4), (16, 12), (8, 8))
_STEP = 0.05  # An arbitrary policy: the lemma holds whatever is played.


@closed_form
def order_statistic_mean(num_rollouts: int, k: int) -> float:
    """`c_{L,k}`: mean of the k largest of L independent standard normals.

    One of them is among the k largest if at most `k - 1` of the others exceed it, so the mean is
    `(L / k) int z phi(z) P(Bin(L - 1, 1 - Phi(z)) <= k - 1) dz`.
    """

    def integrand(z: float) -> float:
        return float(z * stats.norm.pdf(z) * stats.binom.cdf(k - 1, num_rollouts - 1, stats.norm.sf(z)))

    return num_rollouts / k * float(integrate.quad(integrand, -np.inf, np.inf, epsabs=1e-12)[0])


class Measured(NamedTuple):
    """Per selection `(L, k)` and scenario.

    along: `[M]` mean over the kept of `sum_t <eps_t, R_t> / |R|_F`.
    rounds: `[M, T]` the same of each round: `<eps_t, R_t> / |R|_F`.
    shares: `[M, T]` what the lemma says of it, up to c: `|R_t|^2 / |R|_F^2`.
    across: `[M]` the kept noise along a direction at a right angle to R.
    """

    along: dict[tuple[int, int], Float[np.ndarray, "M"]]
    rounds: dict[tuple[int, int], Float[np.ndarray, "M T"]]
    shares: Float[np.ndarray, "M T"]
    across: dict[tuple[int, int], Float[np.ndarray, "M"]]


def measure(effort: Effort) -> Measured:
    """Plays, selects by the regret of the package, and reads the noise off the kept scores."""
    problem = SETTING.replace(horizon=10).problem()
    agent = FullInformationSingleLayer.ftrl(problem.num_arms, _STEP, SETTING.decision_map)
    play = jax.jit(
        lambda key: rollout_scenarios(
            agent,
            problem,
            RolloutKeys.create(key),
            num_scenarios=effort.times(8192),
            num_rollouts=max(L for L, _ in SELECTIONS),
            shared_reward_noise=True,
        )
    )
    effort.note("rollouts")
    played = play(jax.random.key(effort.seed))
    scores = jax.jit(jax.vmap(jax.vmap(agent.outputs)))(played)
    assert played.scores is not None
    noise = np.asarray((played.scores - scores) / agent.score_map.exploration_std, np.float64)
    rewards = np.asarray(played.reward_table[:, 0], np.float64)
    unit = rewards / np.linalg.norm(rewards, axis=(1, 2), keepdims=True)
    other = np.random.default_rng(effort.seed).normal(size=unit.shape)
    other -= np.sum(other * unit, axis=(1, 2), keepdims=True) * unit
    other /= np.linalg.norm(other, axis=(1, 2), keepdims=True)
    regret = problem.regret(played)[..., -1]
    along, rounds, across = {}, {}, {}
    for L, k in SELECTIONS:
        kept = np.asarray(select_lowest(regret[:, :L], k))
        kept_noise = np.take_along_axis(noise, kept[:, :, None, None], axis=1).mean(axis=1)
        rounds[L, k] = np.sum(kept_noise * unit, axis=-1)
        along[L, k] = rounds[L, k].sum(axis=-1)
        across[L, k] = np.sum(kept_noise * other, axis=(1, 2))
    return Measured(along, rounds, np.sum(unit**2, axis=-1), across)


def rows(measured: Measured) -> list[Row]:
    """Along R, round by round, and across R."""
    table = []
    for (L, k), along in measured.along.items():
        c, name = order_statistic_mean(L, k), f"L={L}, k={k}: kept noise"
        table.append(close("Lemma", f"{name} along R", c, along.mean(), float(standard_error(along))))
        errors = measured.rounds[L, k] - c * measured.shares
        label = f"{name} minus c R_t/|R|, worst round"
        table.append(worst("Lemma", label, np.zeros(1), errors.mean(0), standard_error(errors)))
        across = measured.across[L, k]
        table.append(close("Lemma", f"{name} across R", 0.0, across.mean(), float(standard_error(across))))
    return table


def draw(measured: Measured) -> Figure:
    """`c_{L,k}` against the share that is kept, as predicted and as measured."""
    with column_figure() as (figure, axes):
        for color, L in zip(COLORS, sorted({L for L, _ in SELECTIONS}), strict=False):
            means = [order_statistic_mean(L, k) for k in range(1, L + 1)]
            axes.plot(np.arange(1, L + 1) / L, means, color=color, lw=1, label=f"L = {L}")
        for L, k in SELECTIONS:
            along = measured.along[L, k]
            axes.errorbar(
                k / L, along.mean(), 4 * standard_error(along), fmt="o", ms=3.5, color="black", capsize=2, zorder=3
            )
        axes.errorbar([], [], [], fmt="o", ms=3.5, color="black", capsize=2, label="measured, ±4 SE")
        axes.set_xlabel("share of the rollouts kept, k/L")
        axes.set_ylabel("kept noise along the rewards\n(standard deviations)")
        axes.legend()
        return figure


STATEMENT = Statement("lemma", measure, rows, draw)
