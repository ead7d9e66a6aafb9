"""Length-normalised attention walks the path of FTRL too (B1), and nothing but `bV` is learned if all is free (B4).

With features `F_t = S_{t-1} / g_t`, where `g_t` is 1, sqrt(t) or t - 1 under linear, anytime or softmax attention,
`W_n = n eta_g I` with `eta_g = sigma c_{L,k} beta_g / alpha_g`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from rmft_jax.agents import FullInformationSingleLayer, SingleLayer
from rmft_jax.agents.single_layer import Attention
from rmft_jax.config import ScalarKey
from rmft_jax.method.evaluation import in_threads
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.selection import select_lowest
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.statistics.certificate import lengths
from theory.lemma import order_statistic_mean
from theory.statement import Effort, Row, Statement, closed_form, structural_error, zeros
from theory.theorem1 import beta
from theory.walks import QUICK, STRONG, diagonal, increments, multiple_of_identity, off_diagonal, walk

NAMES = "Theorem B1", "Theorem B4"
NUM_ITERATIONS = 20
NUM_REPLICATES = 32
ATTENTIONS: tuple[Attention, ...] = ("linear", "anytime", "softmax")
SHORT = STRONG.replace(horizon=5, num_scenarios=4096)
"""Of the same cost, and more precise."""
SETTINGS: dict[tuple[int, Attention], RMFTConfig] = {
    (2, "anytime"): SHORT.replace(num_arms=2, attention="anytime"),
    (2, "softmax"): SHORT.replace(num_arms=2, attention="softmax"),
    (3, "linear"): STRONG,  # As in other statements, so that it is compiled once; theorem 1 has more of its kind.
    (3, "anytime"): SHORT.replace(attention="anytime"),
    (3, "softmax"): SHORT.replace(attention="softmax"),
}
"""By number of arms and attention."""
LIFTED = SHORT
"""The setting of B4, under linear attention."""
VALUE = np.asarray([[0.2, -0.1, 0.3], [0.1, 0.3, 0.0], [-0.2, 0.1, -0.1]])
"""W of B4. It has neither symmetry nor a sign, because the statement asks for none."""
_even_part = structural_error("attention_even_part", "B4: the even features earn 5% of what the sums earn")


@closed_form
def attention_alpha(attention: Attention, horizon: int, prior_std: float, noise_std: float) -> float:
    """`sum_t E[F_t F_t'] = alpha_g I`: `sum_t ((t-1) nu^2 + (t-1)^2 tau^2) / g_t^2`."""
    past = np.arange(horizon)
    squares = past * noise_std**2 + past**2 * prior_std**2
    return float(np.sum(squares / lengths(attention, horizon) ** 2))


@closed_form
def attention_beta(attention: Attention, dimension: int, horizon: int, prior_std: float, noise_std: float) -> float:
    """`sum_t E[R_t F_t' / |R|_F] = beta_g I`, where pairs of different rounds all earn the same part of beta."""
    share = 2 * np.sum(np.arange(horizon) / lengths(attention, horizon)) / (horizon * (horizon - 1))
    return float(share * beta(dimension, horizon, prior_std, noise_std))


@closed_form
def attention_step(config: RMFTConfig) -> float:
    """`eta_g = sigma c_{L,k} beta_g / alpha_g` of a Gaussian setting of the single layer."""
    assert isinstance(config.policy, SingleLayer)
    g, tau, nu = config.policy.attention, config.environment.prior_moments()[1], config.environment.noise_std
    c = order_statistic_mean(config.num_rollouts, config.selection.k)
    ratio = attention_beta(g, config.environment.num_arms, config.horizon, tau, nu)
    ratio /= attention_alpha(g, config.horizon, tau, nu)
    return config.decision_map.exploration_std * c * ratio


class Lifted(NamedTuple):
    """Coefficients of fits over R replicates.

    sums: `[R, K, K]` of `S_{t-1}`, less W.
    even: `[R, K, F]` of the even features, in a basis in which they are uncorrelated with a mean square of 1.
    size: root mean square of an entry of `S_{t-1}`.
    """

    sums: Float[np.ndarray, "R K K"]
    even: Float[np.ndarray, "R K F"]
    size: float


class Measured(NamedTuple):
    """Paths of the value matrix by number of arms and attention, and the fit over all that a free layer can express."""

    paths: dict[tuple[int, Attention], Float[np.ndarray, "S n K K"]]
    lifted: Lifted


def measure(effort: Effort) -> Measured:
    """Runs the package's iteration in every setting, and the lifted fit on its kept rollouts."""

    def path(setting: tuple[int, Attention]) -> Float[np.ndarray, "S n K K"]:
        seeds = 2 * 4096 // SETTINGS[setting].num_scenarios  # As many scenarios in every setting.
        return walk(SETTINGS[setting], NUM_ITERATIONS, effort.times(seeds), effort, stream=f"attention {setting}")

    paths = dict(zip(SETTINGS, in_threads(path, SETTINGS), strict=True))
    effort.note("lifted fit")
    return Measured(paths, lifted_fit(effort.times(NUM_REPLICATES), effort))


def kept_rollouts(
    agent: FullInformationSingleLayer, config: RMFTConfig, key: ScalarKey
) -> tuple[Float[Array, "M T K"], Float[Array, "M T K"]]:
    """Rewards of the package's rollouts, and the mean of the kept decisions, which is all that a fit sees of them."""
    problem, k = config.problem(), config.selection.k
    played = rollout_scenarios(
        agent, problem, RolloutKeys.create(key), num_scenarios=config.num_scenarios,
        num_rollouts=config.num_rollouts, shared_reward_noise=True,
    )  # fmt: skip
    assert played.scores is not None
    kept = select_lowest(problem.regret(played)[..., -1], k)
    decisions = jax.vmap(lambda scores, chosen: scores[chosen].mean(axis=0))(played.scores, kept)
    return played.reward_table[:, 0], decisions


def even_features(rewards: Float[np.ndarray, "M T K"]) -> Float[np.ndarray, "M T F"]:
    """What a free layer sums beside `S_{t-1}`: products of two arms' rewards, and 1. Signs of R do not change them."""
    first, second = np.triu_indices(rewards.shape[-1])
    products = rewards[..., first] * rewards[..., second]
    return past_sums(np.concatenate([products, np.ones((*rewards.shape[:2], 1))], axis=-1))


def past_sums(values: Float[np.ndarray, "M T F"]) -> Float[np.ndarray, "M T F"]:
    """Sums over the rounds before."""
    return np.cumsum(values, axis=1) - values


def lifted_fit(num_replicates: int, effort: Effort) -> Lifted:
    """Fits the kept decisions of independent batches of scenarios by all features of a free layer at once."""
    config = LIFTED
    agent = FullInformationSingleLayer.ftrl(3, 1.0, config.decision_map).with_value(jax.numpy.asarray(VALUE))
    play = jax.jit(kept_rollouts, compiler_options=QUICK)
    grams, moments, key = [], [], effort.key("attention lifted")
    for replicate in range(num_replicates):
        batch = play(agent, config, jax.random.fold_in(key, replicate))
        rewards, decisions = (np.asarray(values, np.float64) for values in batch)
        features = np.concatenate([past_sums(rewards), even_features(rewards)], axis=-1)
        grams.append(np.einsum("mti,mtj->ij", features, features) / features[..., 0].size)
        moments.append(np.einsum("mti,mtj->ij", features, decisions) / features[..., 0].size)
    fits = np.linalg.solve(np.stack(grams), np.stack(moments)).swapaxes(1, 2)
    gram = np.mean(grams, axis=0)
    basis = np.linalg.cholesky(gram[3:, 3:])  # One basis for all replicates, so that these stay independent.
    return Lifted(fits[..., :3] - VALUE, fits[..., 3:] @ basis, float(np.sqrt(np.trace(gram[:3, :3]) / 3)))


def rows(measured: Measured) -> list[Row]:
    """The step in every setting, then the coefficients of the lifted fit."""
    table = []
    for (num_arms, attention), paths in measured.paths.items():
        eta, steps = attention_step(SETTINGS[num_arms, attention]), increments(paths)
        table += multiple_of_identity(NAMES[0], f"K={num_arms}, {attention} attention: step of W", eta, steps)
    eta, (sums, even, size) = attention_step(LIFTED), measured.lifted
    name = "fit with all parameters free"
    table += multiple_of_identity(NAMES[1], f"{name}: bV - W", eta, sums)
    planted = 0.05 * eta * size * _even_part()
    return [*table, zeros(NAMES[1], f"{name}: even features", even.reshape(len(even), -1), planted)]


def draw(measured: Measured) -> Figure:
    """Entries of W over iterations, as predicted and as measured."""
    with column_figure(3.0) as (figure, axes):
        counts = np.arange(NUM_ITERATIONS + 1)
        every = counts[::4]
        marks = {"linear": (COLORS[4], "s"), "anytime": (COLORS[2], "o"), "softmax": (COLORS[3], "^")}
        for (num_arms, attention), paths in measured.paths.items():
            eta, (color, marker) = attention_step(SETTINGS[num_arms, attention]), marks[attention]
            axes.plot(counts, eta * counts, color=color, lw=0.8, ls="-" if num_arms == 2 else "--")
            spread = diagonal(increments(paths)).std(ddof=1)  # Of one step; W_n is a sum of n independent ones.
            bars: Any = {"fmt": marker, "ms": 3.5, "color": color, "capsize": 1.5, "lw": 0.8}
            bars["mfc"] = color if num_arms == 2 else "white"
            errors = 4 * spread * np.sqrt(every / len(paths))
            label = f"{attention}, K = {num_arms}"
            axes.errorbar(every, diagonal(paths)[:, every].mean(axis=0), errors, label=label, **bars)
            axes.plot(counts, off_diagonal(paths).mean(axis=0), color=color, lw=0.4)
        axes.plot([], [], color="black", lw=0.8, label="predicted: $n η_g$ (K = 3: dashed)")
        axes.plot([], [], color="grey", lw=0.4, label="off-diagonal entries")
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("entries of W (1 / reward)")
        axes.set_xticks(every)
        figure.legend(loc="outside upper center", ncols=2)
        return figure


STATEMENT = Statement("attention", measure, rows, draw)
