"""Theorem 4: gradient training of the regret-loss (Park et al. 2024) arrives at FTRL as well.

For i.i.d. zero-mean isotropic rewards the minimizer of `E[(rho |S_T| - sum_t <W S_{t-1}, R_t>)^2]` is `w* I`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy import special

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.config import ScalarKey
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Identity, Problem, Stationary
from theory.statement import Effort, Row, Statement, close, closed_form, pooled_error, standard_error, worst
from theory.walks import diagonal, off_diagonal

NUM_STEPS = 240
RADIUS = 1.0


class Setting(NamedTuple):
    """Dimension, horizon, and standard deviation of the rewards."""

    num_arms: int
    horizon: int
    noise_std: float


SETTINGS = (Setting(3, 20, 1.0), Setting(2, 40, 0.5))


@closed_form
def regret_loss_minimizer(num_arms: int, horizon: int, noise_std: float) -> float:
    """`w* = rho E[|S_T| q] / E[q^2]`, `q = sum_t <S_{t-1}, R_t>`; for Gaussian rewards `rho E[chi_K] / (nu K sqrt(T))`.

    With `q = (|S_T|^2 - |R|_F^2) / 2` and the independent parts of R that theorem 1 uses,
    `E[|S_T| q] = nu^3 sqrt(T) (T-1) E[chi_K] / 2`, and `E[q^2] = nu^4 K T (T-1) / 2`, because its terms are
    uncorrelated.
    """
    K = num_arms
    mean_chi = math.sqrt(2) * math.exp(special.gammaln((K + 1) / 2) - special.gammaln(K / 2))
    return RADIUS * mean_chi / (noise_std * K * math.sqrt(horizon))


class Measured(NamedTuple):
    """W over gradient steps, by setting and seed."""

    paths: dict[Setting, Float[np.ndarray, "S n K K"]]


@functools.partial(jax.jit, static_argnums=(0, 2))
def train(setting: Setting, key: ScalarKey, num_scenarios: int) -> Float[Array, "n K K"]:
    """Adam on the squared regret of the package's own rollouts, from W = 0; all entries of W are free."""
    environment = Stationary(
        num_arms=setting.num_arms, feedback="full", prior="constant", noise="gaussian", noise_std=setting.noise_std
    )
    problem = Problem(environment, setting.horizon, radius=RADIUS)
    agent = FullInformationSingleLayer.ftrl(setting.num_arms, 0.0, Identity(0.0, RADIUS))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, NUM_STEPS))

    def loss(value: Float[Array, "K K"], key: ScalarKey) -> Float[Array, ""]:
        played = play_scenarios(agent.with_value(value), problem, key, num_scenarios)
        return jnp.mean(jnp.square(problem.regret(played)[:, -1]))

    def step(carry: tuple[Array, optax.OptState], key: ScalarKey) -> tuple[tuple[Array, optax.OptState], Array]:
        value, state = carry
        updates, state = optimizer.update(jax.grad(loss)(value, key), state)
        value = jnp.asarray(optax.apply_updates(value, updates))
        return (value, state), value

    start = agent.value
    _, path = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, NUM_STEPS))
    return jnp.concatenate([start[None], path])


def measure(effort: Effort) -> Measured:
    """Trains in both settings."""
    paths = {}
    for setting in SETTINGS:
        runs = []
        for seed in range(effort.times(4)):
            effort.note(f"regret-loss, K={setting.num_arms}, T={setting.horizon}, seed {seed + 1}")
            key = jax.random.fold_in(jax.random.key(effort.seed + 2), seed)
            runs.append(np.asarray(train(setting, key, effort.times(512)), np.float64))
        paths[setting] = np.stack(runs)
    return Measured(paths)


def rows(measured: Measured) -> list[Row]:
    """The W that training ends with."""
    table = []
    for setting, paths in measured.paths.items():
        name, last = f"K={setting.num_arms}, T={setting.horizon}", paths[:, -1]
        values, rest = diagonal(last), off_diagonal(last)
        minimum = regret_loss_minimizer(*setting)
        error = float(standard_error(values))
        table.append(close("Theorem 4", f"{name}: diagonal of W", minimum, values.mean(), error, relative=0.03))
        pooled = np.asarray(pooled_error(rest))
        table.append(worst("Theorem 4", f"{name}: off-diagonal of W, worst entry", np.zeros(1), rest.mean(0), pooled))
    return table


def draw(measured: Measured) -> Figure:
    """Entries of W over gradient steps."""
    with column_figure() as (figure, axes):
        for color, (setting, paths) in zip(COLORS[4:], measured.paths.items(), strict=False):
            minimum = regret_loss_minimizer(*setting)
            label = f"K = {setting.num_arms}, T = {setting.horizon}: w* = {minimum:.4f}"
            axes.axhline(minimum, color=color, lw=0.8, ls="--")
            axes.plot(diagonal(paths).T, color=color, lw=0.6)
            axes.plot([], [], color=color, lw=1, label=label)
            axes.plot(off_diagonal(paths).mean(axis=0), color=color, lw=0.4, alpha=0.6)
        axes.plot([], [], color="grey", lw=0.4, label="off-diagonal entries")
        axes.set_xlabel("gradient step on the regret-loss")
        axes.set_ylabel("entries of W")
        axes.set_ylim(top=0.36)  # Room for the legend.
        axes.legend(loc="upper right")
        return figure


STATEMENT = Statement("theorem4", measure, rows, draw)
