"""What if only the reward of the played arm is seen, and attention sums importance-weighted estimates of the rest?

Play is softmax of the scores plus noise, an arm is drawn from it, and the layer sees `R_t(a_t) / pi_t(a_t)` at that
arm. Two things change. What the layer sums is far noisier than the rewards, so the fit divides by a larger alpha. And
where regret counts the arms that were drawn, luck in the draw outweighs the noise eps that is imitated; counting the
policies instead (`selection_form="expected"`) removes the draw from selection, not from what is seen.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from rmft_jax.agents import EXP3, Agent, BanditSingleLayer, SingleLayer
from rmft_jax.config import ScalarKey
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Problem, Regret, Stationary
from theory.beyond.exploration import Exploration, Finding, band, best_of, exponents, over_seeds
from theory.statement import Effort
from theory.walks import QUICK, SETTING, walk

NAME = "bandit_feedback"
ARMS = 3
BANDIT = SETTING.replace(
    environment=Stationary(num_arms=ARMS, feedback="bandit", prior="uniform", noise="bernoulli"),
    decision_map="softmax",
    shared_reward_noise=False,
    selection_form="sampled",
    num_scenarios=512,
)
CONFIGS = {
    "full information": BANDIT.replace(feedback="full", shared_reward_noise=True, selection_form="standard"),
    "bandit, expected regret": BANDIT.replace(selection_form="expected"),
    "bandit, sampled regret": BANDIT,
}
NUM_ITERATIONS = 8
HORIZONS = np.array([25, 50, 100, 200, 400])
STEPS = 2.0 ** np.arange(-6, 3)
RATES = 2.0 ** np.arange(3)
_PROJECTION = np.eye(ARMS) - 1 / ARMS


class Measured(NamedTuple):
    """Value matrices, and regret at the horizons.

    paths: `[P, S, n, K, K]` by configuration.
    learned: `[S, G, R]` pseudo-regret of `W = step * d` for the steps of the grid, where d is the direction of each
      seed's last W under expected regret.
    fixed: `[S, R]` that of the last W itself.
    exp3: `[S, Q, R]` that of EXP3, tuned to each horizon, times the rates of the grid.
    """

    paths: Float[np.ndarray, "P S n K K"]
    learned: Float[np.ndarray, "S G R"]
    fixed: Float[np.ndarray, "S R"]
    exp3: Float[np.ndarray, "S Q R"]


def along(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """The step along `I - 11'/K`."""
    return np.sum(paths * _PROJECTION, axis=(-2, -1)) / (ARMS - 1)


def beside_share(paths: Float[np.ndarray, "*batch K K"]) -> Float[np.ndarray, "*batch"]:
    """Norm of what moves play otherwise, relative to the part along `I - 11'/K`.

    What W adds to all arms alike moves nothing under softmax, and is taken off first.
    """
    moving = _PROJECTION @ paths
    rest = moving - along(paths)[..., None, None] * _PROJECTION
    return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(moving - rest, axis=(-2, -1))


def measure(effort: Effort) -> Measured:
    """Trains under the three, then plays what was learned against EXP3 on the same scenarios."""
    paths = []
    for name, config in CONFIGS.items():
        effort.note(name)
        paths.append(walk(config, NUM_ITERATIONS, effort.times(4), effort))
    last = paths[1][:, -1]
    directions = last / along(last)[:, None, None]
    matrices = np.concatenate([last[:, None], STEPS[:, None, None] * directions[:, None]], axis=1)
    learned, exp3 = [], []
    for seed, own in enumerate(matrices):
        effort.note(f"regret against the horizon, seed {seed + 1}")
        key = jax.random.fold_in(jax.random.key(effort.seed + 1), seed)
        learned.append(np.asarray(_learned_regret(jnp.asarray(own, jnp.float32), key)))
        exp3.append(np.asarray(_exp3_regret(jnp.asarray(RATES, jnp.float32), key)))
    regret = np.stack(learned).astype(np.float64)
    return Measured(np.stack(paths), regret[:, 1:], regret[:, 0], np.stack(exp3).astype(np.float64))


def _regret(agent: Agent, key: ScalarKey) -> Float[Array, "T"]:
    played = play_scenarios(agent, Problem(BANDIT.environment, int(HORIZONS[-1])), key, 128)
    return jnp.mean(Regret("pseudo", "expected")(played), axis=0)


@functools.partial(jax.jit, compiler_options=QUICK)
def _learned_regret(matrices: Float[Array, "G K K"], key: ScalarKey) -> Float[Array, "G R"]:
    start = BanditSingleLayer.create(key, SingleLayer(key_size=1), ARMS)
    return jax.vmap(lambda W: _regret(start.with_value(W), key))(matrices)[:, HORIZONS - 1]


@functools.partial(jax.jit, compiler_options=QUICK)
def _exp3_regret(rates: Float[Array, "Q"], key: ScalarKey) -> Float[Array, "Q R"]:
    # The rate of a shorter horizon, played over the longest and read at its own.
    scale = jnp.sqrt(HORIZONS[-1] / HORIZONS)
    table = jax.vmap(lambda rate: _regret(EXP3(rate=rate), key))((rates[:, None] * scale).ravel())
    return jnp.diagonal(table[:, HORIZONS - 1].reshape(len(RATES), len(HORIZONS), -1), axis1=1, axis2=2)


def findings(measured: Measured) -> list[Finding]:
    """Steps along `I - 11'/K`, their linearity, the rest, and regret beside EXP3's."""
    found, half = [], NUM_ITERATIONS // 2
    full = along(measured.paths[0])[:, -1].mean()
    for name, paths in zip(CONFIGS, measured.paths, strict=True):
        values = along(paths)
        found += [
            over_seeds(NAME, f"{name}: step per iteration", values[:, -1] / NUM_ITERATIONS),
            over_seeds(NAME, f"{name}: step relative to full information", values[:, -1] / full),
            over_seeds(
                NAME, f"{name}: W_{NUM_ITERATIONS} over twice W_{half}", values[:, -1] / values[:, half] / 2, 1.0
            ),
            over_seeds(NAME, f"{name}: share of W beside I - 11'/K", beside_share(paths[:, -1])),
        ]
    (steps, best), (_, exp3) = best_of(measured.learned), best_of(measured.exp3)
    at = int(np.flatnonzero(RATES == 1)[0])
    label = f"regret at T={HORIZONS[-1]}"
    return [
        *found,
        Finding(NAME, f"best step at T={HORIZONS[0]}, of a grid", float(STEPS[steps[0]]), 0.0, None),
        Finding(NAME, f"best step at T={HORIZONS[-1]}, of a grid", float(STEPS[steps[-1]]), 0.0, None),
        over_seeds(NAME, f"{label}: best step", best[:, -1]),
        over_seeds(NAME, f"{label}: W_{NUM_ITERATIONS}", measured.fixed[:, -1]),
        over_seeds(NAME, f"{label}: largest step ({STEPS[-1]:g})", measured.learned[:, -1, -1]),
        over_seeds(NAME, f"{label}: EXP3 as published", measured.exp3[:, at, -1]),
        over_seeds(NAME, f"{label}: EXP3 at its best rate", exp3[:, -1]),
        over_seeds(NAME, "exponent of regret in T: best step", exponents(HORIZONS, best)),
        over_seeds(NAME, "exponent of regret in T: EXP3 at its best rate", exponents(HORIZONS, exp3)),
        over_seeds(NAME, "exponent of regret in T: EXP3 as published", exponents(HORIZONS, measured.exp3[:, at])),
    ]


def draw(measured: Measured) -> Figure:
    """Steps over iterations, relative to full information's last one."""
    counts = np.arange(NUM_ITERATIONS + 1)
    with column_figure() as (figure, axes):
        for name, paths, color, ls in zip(CONFIGS, measured.paths, COLORS[3:], ("--", "-", "-."), strict=False):
            band(axes, counts, along(paths), color, ls=ls, label=name)
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("W along $I - 11^{T}/K$")
        axes.legend()
        return figure


EXPLORATION = Exploration(NAME, "Bandit feedback, weighted by importance", measure, findings, draw)
