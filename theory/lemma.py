"""Lemma: what selection does to the noise of the kept trajectories.

`E[eps_t | kept, R] = c_{L,k} R_t / |R|_F`, where `c_{L,k}` is the mean of the k largest of L standard normals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import integrate, stats

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.selection import select_lowest
from rmft_jax.plotting.style import COLORS, column_figure
from theory.statement import Effort, Row, Statement, closed_form, equal, standard_error, structural_error
from theory.walks import SETTING

SELECTIONS = ((4, 1), (8, 2), (16, 4), (16, 8), (8, 8))
_STEP = 0.05  # An arbitrary policy: the lemma holds whatever is played.
_NUM_SCENARIOS, _NUM_ROLLOUTS = 24_576, max(L for L, _ in SELECTIONS)
_one_too_many = structural_error("kept", "the lemma is told that one more trajectory is kept than is")
_evenly = structural_error("rounds", "the lemma spreads the kept noise evenly over rounds, not by |R_t|^2")
_tilted = structural_error("across", "of the kept noise 0.05 is at a right angle to R")


@closed_form
def order_statistic_mean(num_rollouts: int, k: int) -> float:
    """`c_{L,k}`: mean of the k largest of L independent standard normals.

    One of them is among the k largest if at most `k - 1` of the others exceed it, so the mean is
    `(L / k) int z phi(z) P(Bin(L - 1, 1 - Phi(z)) <= k - 1) dz`.
    """
    if k == num_rollouts:  # Without selection there is no signal.
        return 0.0

    def integrand(z: float) -> float:
        return float(z * stats.norm.pdf(z) * stats.binom.cdf(k - 1, num_rollouts - 1, stats.norm.sf(z)))

    return num_rollouts / k * float(integrate.quad(integrand, -np.inf, np.inf, epsabs=1e-12)[0])


class Measured(NamedTuple):
    """Per selection `(L, k)` and group of L rollouts, of which a scenario has several; given R they are independent.

    along: `[N]` mean over the kept of `sum_t <eps_t, R_t> / |R|_F`.
    rounds: `[N, T]` the same of each round: `<eps_t, R_t> / |R|_F`.
    shares: `[M, T]` of the scenarios, what the lemma says of the rounds, up to c: `|R_t|^2 / |R|_F^2`.
    across: `[N]` the kept noise along a direction at a right angle to R.
    """

    along: dict[tuple[int, int], Float[np.ndarray, "N"]]
    rounds: dict[tuple[int, int], Float[np.ndarray, "N T"]]
    shares: Float[np.ndarray, "M T"]
    across: dict[tuple[int, int], Float[np.ndarray, "N"]]


def measure(effort: Effort) -> Measured:
    """Plays, selects by the regret of the package, and reads the noise off the kept scores."""
    problem = SETTING.replace(horizon=10).problem()
    agent = FullInformationSingleLayer.ftrl(problem.num_arms, _STEP, SETTING.decision_map)
    play = jax.jit(
        lambda key: rollout_scenarios(
            agent,
            problem,
            RolloutKeys.create(key),
            num_scenarios=effort.times(_NUM_SCENARIOS),
            num_rollouts=_NUM_ROLLOUTS,
            shared_reward_noise=True,
        )
    )
    effort.note("rollouts")
    played = play(effort.key("lemma"))
    scores = jax.jit(jax.vmap(jax.vmap(agent.outputs)))(played)
    assert played.scores is not None
    noise = np.asarray(played.scores - scores) / agent.score_map.exploration_std
    rewards = np.asarray(played.reward_table[:, 0])
    unit = rewards / np.linalg.norm(rewards, axis=(1, 2), keepdims=True)
    other = effort.generator("across").normal(size=unit.shape)
    other -= np.sum(other * unit, axis=(1, 2), keepdims=True) * unit
    other /= np.linalg.norm(other, axis=(1, 2), keepdims=True)
    # Of each rollout, round by round: the noise along R, and in all the noise across R.
    along_rounds = np.einsum("mltk,mtk->mlt", noise, unit)
    across_all = np.einsum("mltk,mtk->ml", noise, other)
    regret = np.asarray(problem.regret(played)[..., -1])
    along, rounds, across = {}, {}, {}
    for L, k in SELECTIONS:
        kept = np.asarray(select_lowest(jnp.asarray(regret.reshape(-1, L)), k))
        rounds[L, k] = np.take_along_axis(along_rounds.reshape(-1, L, problem.horizon), kept[..., None], 1).mean(axis=1)
        along[L, k] = rounds[L, k].sum(axis=-1, dtype=np.float64)
        across[L, k] = np.take_along_axis(across_all.reshape(-1, L), kept, 1).mean(axis=1)
    return Measured(along, rounds, np.sum(unit**2, axis=-1), across)


def rows(measured: Measured) -> list[Row]:
    """Along R, over rounds, and across R."""
    table = []
    for (L, k), along in measured.along.items():
        c, name = order_statistic_mean(L, k - 1 if _one_too_many() and k > 1 else k), f"L={L}, k={k}: kept noise"
        table.append(equal("Lemma", f"{name} along R", c, along))
        # What is left of a round beside its share is at a right angle to R, so that no share explains it.
        shares = np.repeat(measured.shares, len(along) // len(measured.shares), axis=0)
        spread = 1 / shares.shape[1] if _evenly() else shares
        rest = measured.rounds[L, k] - along[:, None] * spread
        samples = np.sum(rest * (shares - 1 / shares.shape[1]), axis=-1)
        if c > 1e-9:
            table.append(equal("Lemma", f"{name} of a round against its share of |R|^2, slope", 0.0, samples))
        tilt = 0.05 if _tilted() else 0.0
        table.append(equal("Lemma", f"{name} across R", tilt, measured.across[L, k]))
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
