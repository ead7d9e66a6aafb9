"""Anytime attention has no regret at all horizons at once (B2), where softmax attention fails at a fixed W (B3).

`Pi_rho(w S_{t-1} / g_t)` has regret of at most `rho^2 g_T / (2 w) + (w / 2) sum_t |R_t|^2 / g_t`. At `g_t = sqrt(t)`
and `w = rho / (sqrt(2) G)` that is `sqrt(2) rho G sqrt(T)` for every T, so that one stopping time serves all. Rewards
are in units of G here, by which W is divided in play: one policy meets all opponents.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from rmft_jax.agents import FullInformationSingleLayer, SingleLayer
from rmft_jax.agents.single_layer import Attention, AttentionMemory
from rmft_jax.method.evaluation import in_threads
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Ball, Problem
from rmft_jax.problems.types import Context
from rmft_jax.statistics.certificate import lengths, metric_bound
from theory.attention import SETTINGS, attention_step
from theory.metric import HORIZONS
from theory.play import EUCLIDEAN, METRIC, horizon_axis, regrets_of
from theory.statement import Effort, Row, Statement, at_most, closed_form, equal, exact, structural_error
from theory.theorem3 import OPPONENTS, RADIUS
from theory.walks import QUICK, walk

Regrets = Float[np.ndarray, "S H N"]
TUNED_FOR = 200
"""The horizon of the linear layer that is played for comparison."""
SOFTMAX_STEP = 4.0
"""W of the softmax layer that meets constant rewards."""
BEST = RADIUS / math.sqrt(2)
"""The step that makes the anytime bound least, for rewards of norm at most 1."""
TRAINING = SETTINGS[3, "anytime"].replace(exploration_std=0.2)
NUM_SEEDS = 4
BY_NORM: tuple[str, ...] = ("orthogonal", "turning")
"""Those that play in the norm of W meets: the one that comes nearest to the bound, and the one that turns against W."""
_half = structural_error("anytime_bound_half", "B2: the anytime bound without its second term")
_fixed = structural_error("anytime_bound_fixed", "B2: the anytime bound does not grow with the horizon")
_no_logarithm = structural_error("softmax_bound_logarithm", "B2: softmax attention has the bound of linear attention")


@closed_form
def alternating_loss(attention: Attention, step: float, horizon: int) -> float:
    """Regret of `step S_{t-1} / g_t` on the centred alternating sequence with rewards of norm 1, from round 2 on.

    It is `rho |s| + 2 |s| sum_{t>=2} min(step |s| / g_t, rho)` with `|s| = 1/2`, because the sums are s and -s in turn.
    """
    points = np.minimum(step / 2 / lengths(attention, horizon)[1:], RADIUS)
    return RADIUS / 2 + float(np.sum(points))


@closed_form
def constant_loss(step: float, horizon: int) -> float:
    """Regret of softmax attention on constant rewards of norm `rho / (2 step)`: `(T + 1) rho^2 / (4 step)` (B3)."""
    return (horizon + 1) * RADIUS**2 / (4 * step)


def anytime_bound(step: float, horizon: int) -> float:
    """`rho^2 sqrt(T) / (2 w) + w sqrt(T)`, at the best step `sqrt(2 T) rho`, or what sabotage makes of it."""
    terms = (RADIUS**2 / (2 * step), 0.0 if _half() else step)
    return sum(terms) * (1.0 if _fixed() else math.sqrt(horizon))


def softmax_step(horizon: int) -> float:
    """The step that makes the softmax bound least: `rho sqrt((T-1) / (2 + ln(T-1)))`."""
    return RADIUS * math.sqrt((horizon - 1) / (2 + math.log(horizon - 1)))


def softmax_bound(horizon: int) -> float:
    """`rho sqrt((T-1) (2 + ln(T-1)))`, the softmax bound at its best step, or what sabotage makes of it."""
    return RADIUS * math.sqrt((horizon - 1) * (1.0 if _no_logarithm() else 2 + math.log(horizon - 1)))


def own_bound(value: Float[np.ndarray, "K K"], horizon: int) -> float:
    """The bound of play in the norm of W, from its eigenvalues, or what sabotage makes of it."""
    return metric_bound(value, "anytime", RADIUS, 1.0, HORIZONS[0] if _fixed() else horizon)


class Measured(NamedTuple):
    """Regret in units of G, at each of `HORIZONS`, over training seeds and scenarios.

    values: `[S, K, K]` the anytime matrices where their training stopped.
    iterations: n*, which knows no horizon.
    anytime: by opponent.
    metric: of play in the norm of W, against those of `BY_NORM`.
    linear: `[H]` of linear attention with the best step for `TUNED_FOR`, on the alternating sequence.
    constant: `[H]` of softmax attention with `SOFTMAX_STEP`, on constant rewards.
    softmax: `[2]` at the last horizon, of softmax attention with the best step for it: on constant rewards, and on the
      alternating sequence.
    """

    values: Float[np.ndarray, "S K K"]
    iterations: int
    anytime: dict[str, Regrets]
    metric: dict[str, Regrets]
    linear: Float[np.ndarray, "H"]
    constant: Float[np.ndarray, "H"]
    softmax: Float[np.ndarray, "2"]


def regrets(policy: SingleLayer, name: str, values: Float[np.ndarray, "S K K"], effort: Effort) -> Regrets:
    """Regret of anytime layers of these matrices in the ball, in units of G, against one of the opponents."""
    environment, norm = OPPONENTS[name]
    policy = dataclasses.replace(policy, attention="anytime")
    scaled, problem = jnp.asarray(values / norm, jnp.float32), Problem(environment, HORIZONS[-1], radius=RADIUS)
    key, count = effort.key(f"anytime against {name}"), effort.times(32)
    regret = regrets_of(policy, scaled, Ball(0.0, RADIUS), problem, key, count, HORIZONS)
    return np.asarray(regret, np.float64).swapaxes(1, 2) / norm


@jax.jit(compiler_options=QUICK)
def _play_on(
    agent: FullInformationSingleLayer, values: Float[Array, "P K K"], rewards: Float[Array, "P T K"]
) -> Float[Array, "P T K"]:
    """The points that layers of these matrices play, each on a sequence of its own."""
    mask = jnp.ones(rewards.shape[-1], bool)

    def play_one(value: Float[Array, "K K"], sequence: Float[Array, "T K"]) -> Float[Array, "T K"]:
        layer = agent.with_value(value)

        def step(state: AttentionMemory, reward: Float[Array, "K"]) -> tuple[AttentionMemory, Float[Array, "K"]]:
            context = Context(jnp.zeros((), int), jnp.asarray(len(sequence)), mask, jnp.zeros_like(reward))
            decision, state = layer.act(jax.random.key(0), state, context)
            return layer.observe(state, decision.action, reward, context), decision.probabilities

        return jax.lax.scan(step, layer.init(len(mask), len(sequence)), sequence)[1]

    return jax.vmap(play_one)(values, rewards)


def known_regrets(
    attention: Attention, steps: Sequence[float], sequences: Sequence[Float[np.ndarray, "T K"]]
) -> Float[np.ndarray, "P H"]:
    """Regret of layers with `W = step I` in the ball, each on a sequence of its own."""
    rewards, size = np.stack(sequences), sequences[0].shape[-1]
    agent = FullInformationSingleLayer.create(jax.random.key(0), SingleLayer(attention=attention, key_size=1), size)
    agent = dataclasses.replace(agent, score_map=Ball(0.0, RADIUS))
    values = np.asarray(steps)[:, None, None] * np.eye(size)
    points = _play_on(agent, jnp.asarray(values, jnp.float32), jnp.asarray(rewards, jnp.float32))
    best = RADIUS * np.linalg.norm(np.cumsum(rewards, axis=1), axis=-1)
    earned = np.cumsum(np.sum(np.asarray(points, np.float64) * rewards, axis=-1), axis=1)
    return (best - earned)[:, np.asarray(HORIZONS) - 1]


def constant_sequence(size: float) -> Float[np.ndarray, "T 2"]:
    """Rewards that are the same vector of this norm in all rounds."""
    return np.full((HORIZONS[-1], 2), size / math.sqrt(2))


def alternating_sequence() -> Float[np.ndarray, "T 2"]:
    """The centred alternating sequence of rewards of norm at most 1: `s, -2s, 2s, -2s, ..` with `|s| = 1/2`."""
    signs = np.where(np.arange(HORIZONS[-1]) % 2, -1.0, 1.0)
    signs[0] = 0.5
    return signs[:, None] * np.asarray([1.0, -1.0]) / math.sqrt(2)


def measure(effort: Effort) -> Measured:
    """Trains once per seed, stops at n*, and plays on; then the layers whose regret is known exactly."""
    iterations = round(BEST / attention_step(TRAINING))
    values = walk(TRAINING, iterations, effort.times(NUM_SEEDS, 2), effort, stream="anytime")[:, -1]
    effort.note("playing")
    plays = [
        *((EUCLIDEAN, name) for name in OPPONENTS), *((METRIC, name) for name in BY_NORM)
    ]  # fmt: skip
    results = in_threads(lambda play: regrets(*play, values, effort), plays)
    linear = known_regrets("linear", [RADIUS / math.sqrt(TUNED_FOR)], [alternating_sequence()])[0]
    best = softmax_step(HORIZONS[-1])
    sequences = [constant_sequence(RADIUS / (2 * w)) for w in (SOFTMAX_STEP, best)] + [alternating_sequence()]
    constant, *softmax = known_regrets("softmax", [SOFTMAX_STEP, best, best], sequences)
    played = dict(zip(OPPONENTS, results, strict=False))
    by_norm = dict(zip(BY_NORM, results[len(played) :], strict=True))
    return Measured(values, iterations, played, by_norm, linear, constant, np.stack(softmax)[:, -1])


def rows(measured: Measured) -> list[Row]:
    """All opponents at all horizons, then what is known exactly of linear, anytime and softmax attention."""
    step, last = measured.iterations * attention_step(TRAINING), HORIZONS[-1]
    roots = np.sqrt(HORIZONS)
    bounds, table = np.asarray([anytime_bound(step, T) for T in HORIZONS]), []
    for name, regret in measured.anytime.items():
        if name == "turning":  # Of the projection of a W that is no multiple of I nothing is proved here; it is drawn.
            continue
        largest = regret.max(axis=(0, 2))
        h = int(np.argmax(largest / bounds))  # The horizon that comes nearest to its bound.
        quantity = f"anytime attention, {name}: regret / (rho G sqrt T), all T to {last}"
        table.append(at_most("Theorem B2", quantity, bounds[h] / roots[h], largest[h] / roots[h]))
    own = np.asarray([[own_bound(value, T) for T in HORIZONS] for value in measured.values])
    for name, regret in measured.metric.items():
        quantity = f"the same in the norm of W, {name}: share of its own bound, all T"
        table.append(at_most("Theorem B2", quantity, 1.0, float(np.max(regret.max(axis=-1) / own))))
    late = measured.anytime["alternating"][:, -1].mean(axis=-1)
    predicted = alternating_loss("anytime", step, last)
    table.append(equal("Theorem B2", f"anytime attention, alternating, T={last}: regret / G", predicted, late))
    predicted = alternating_loss("linear", RADIUS / math.sqrt(TUNED_FOR), last) / roots[-1]
    quantity = f"linear attention for T={TUNED_FOR}, alternating, T={last}: regret / (rho G sqrt T)"
    table.append(exact("Theorem B2", quantity, predicted, measured.linear[-1] / roots[-1]))
    predicted = alternating_loss("softmax", softmax_step(last), last)
    quantity = f"softmax attention for T={last}, alternating: regret / G"
    table.append(exact("Theorem B2", quantity, predicted, measured.softmax[1]))
    quantity = f"softmax attention for T={last}: largest regret / G"
    table.append(at_most("Theorem B2", quantity, softmax_bound(last), float(measured.softmax.max())))
    for h in (0, -1):
        quantity = f"softmax attention, w={SOFTMAX_STEP:g}, constant rewards, T={HORIZONS[h]}: regret"
        predicted = constant_loss(SOFTMAX_STEP, HORIZONS[h])
        table.append(exact("Theorem B3", quantity, predicted, measured.constant[h]))
    return table


def draw(measured: Measured) -> Figure:
    """Regret over the horizon, in units of `rho G sqrt(T)`, of layers that were stopped once for all horizons."""
    roots = np.sqrt(HORIZONS)
    with column_figure(3.4) as (figure, axes):
        for color, marker, (name, regret) in zip(COLORS, "os^vDPX", measured.anytime.items(), strict=False):
            look: Any = {"ms": 6, "mfc": "none"} if name == "arms" else {"ms": 3}  # Under the sines.
            axes.plot(HORIZONS, regret.max(axis=(0, 2)) / roots, marker=marker, color=color, label=name, **look)
        label = f"linear, tuned for T = {TUNED_FOR}, alternating"
        axes.plot(HORIZONS, measured.linear / roots, "s--", ms=3, color="black", label=label)
        label = f"softmax, w = {SOFTMAX_STEP:g}, constant rewards"
        axes.plot(HORIZONS, measured.constant / roots, "x-.", ms=4, color="black", label=label)
        axes.axhline(math.sqrt(2), color="black", lw=0.8, ls=":")
        axes.annotate("√2: bound", (HORIZONS[0], math.sqrt(2)), (0, 2), textcoords="offset points", fontsize=7)
        axes.set_yscale("log")
        horizon_axis(axes, HORIZONS)
        axes.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        axes.set_ylabel("largest regret / (ρ G √T)")
        figure.legend(loc="outside upper center", ncols=2, fontsize=6)
        return figure


STATEMENT = Statement("anytime", measure, rows, draw)
