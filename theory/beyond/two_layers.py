"""What does a network that is free to do otherwise learn: two layers, trained by gradient steps?

The setting is the theorem's, with the package's Transformer of two layers in place of the single one. Nothing ties its
scores `z_t` to `S_{t-1}`, let alone by one matrix for all rounds. What selection teaches is known: every fit adds
`sigma c E[R_t / |R|_F | past]` to the scores, and a policy that can express it follows, up to `|R|_F`, the posterior
mean `tau^2 S_{t-1} / (nu^2 + (t-1) tau^2)`: a step that falls with t, of which FTRL's constant step is the best
approximation by one matrix. But the network normalizes its stream before the last layer, which should make the
direction of `S_{t-1}` easier to follow than its length. Here `z_t` is regressed on `S_{t-1}` over held-out
trajectories, in every round and in all of them at once.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmft_jax.agents import Transformer
from rmft_jax.config import Params
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Trajectory
from theory.beyond.exploration import Exploration, Finding, band, over_seeds, scenarios
from theory.statement import Effort
from theory.theorem1 import step_per_iteration
from theory.walks import QUICK, SETTING, diagonal, off_diagonal, walk

NAME = "two_layers"
CONFIG = SETTING.replace(
    policy=Transformer(num_layers=2, width=16, num_heads=2, mlp_ratio=2),
    num_scenarios=48,
    update="gradient",
    num_minibatches=2,
    schedule="constant",
    step_size=2e-3,
)
NUM_ITERATIONS = 200
CHECKPOINTS = (0, 25, 50, 100, 200)
EARLY, LATE = 5, 20
"""Rounds whose steps are compared."""


class Measured(NamedTuple):
    """Regressions on held-out trajectories, by checkpoint and for rounds 2 to T.

    steps: `[S, C, T_1, K, K]` W_t of every round.
    fit: `[S, C, T_1]` share of the variance of z_t that `W_t S_{t-1}` explains.
    pooled_step: `[S, C, K, K]` the one W that fits best in all rounds.
    pooled: `[S, C]` share of the variance in all rounds that it explains.
    posterior, direction: `[S, C]` the same for one matrix times the posterior mean, or times `S_{t-1} / |S_{t-1}|`.
    """

    steps: Float[np.ndarray, "S C T_1 K K"]
    fit: Float[np.ndarray, "S C T_1"]
    pooled_step: Float[np.ndarray, "S C K K"]
    pooled: Float[np.ndarray, "S C"]
    posterior: Float[np.ndarray, "S C"]
    direction: Float[np.ndarray, "S C"]


def posterior_step(rounds: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """`tau^2 / (nu^2 + (t-1) tau^2)`: what S_{t-1} is multiplied with in the posterior mean of mu."""
    tau, nu = CONFIG.environment.prior_moments()[1], CONFIG.environment.noise_std
    return tau**2 / (nu**2 + (rounds - 1) * tau**2)


def spread_step(rounds: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """`1 / sd(S_{t-1})`, in proportion to which the step falls where only the direction of S_{t-1} matters."""
    tau, nu = CONFIG.environment.prior_moments()[1], CONFIG.environment.noise_std
    return 1 / np.sqrt((rounds - 1) * nu**2 + (rounds - 1) ** 2 * tau**2)


def measure(effort: Effort) -> Measured:
    """Trains with the package's iteration, then regresses the scores on held-out trajectories."""
    effort.note("two layers")
    paths = walk(CONFIG, NUM_ITERATIONS, effort.times(3), effort, read=_flat)[:, CHECKPOINTS]
    held_out = scenarios(CONFIG.problem(), jax.random.key(effort.seed + 1), 1024)
    rewards = np.asarray(held_out.reward_table, np.float64)
    sums = np.cumsum(rewards, axis=1)[:, :-1]
    posterior = sums * posterior_step(np.arange(2, CONFIG.horizon + 1))[:, None]
    direction = sums / np.linalg.norm(sums, axis=-1, keepdims=True)
    effort.note("regressions")
    rows = []
    for path in paths:
        outputs = np.asarray(_outputs(jnp.asarray(path, jnp.float32), held_out), np.float64)[:, :, 1:]
        for scores in outputs:
            each = [regression(sums[:, t], scores[:, t]) for t in range(CONFIG.horizon - 1)]
            flat = scores.reshape(-1, scores.shape[-1])
            pooled, *others = (regression(x.reshape(flat.shape), flat) for x in (sums, posterior, direction))
            rows.append((*map(np.stack, zip(*each, strict=True)), *pooled, *(share for _, share in others)))
    shape = (len(paths), len(CHECKPOINTS))
    return Measured(*(np.reshape(x, (*shape, *np.shape(x)[1:])) for x in map(np.stack, zip(*rows, strict=True))))


def regression(
    x: Float[np.ndarray, "N K"], y: Float[np.ndarray, "N K"]
) -> tuple[Float[np.ndarray, "K K"], Float[np.ndarray, ""]]:
    """The W of the least-squares fit `y = W x + w_0`, and the share of the variance of y that it explains."""
    x, y = x - x.mean(0), y - y.mean(0)
    matrix = np.linalg.lstsq(x, y, rcond=None)[0].T
    return matrix, 1 - np.sum((y - x @ matrix.T) ** 2) / np.sum(y**2)


def _flat(params: Params) -> Float[np.ndarray, "P"]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


@functools.partial(jax.jit, compiler_options=QUICK)
def _outputs(params: Float[Array, "C P"], held_out: Trajectory) -> Float[Array, "C N T K"]:
    template = jax.eval_shape(CONFIG.init_params, jax.random.key(0))
    leaves, structure = jax.tree.flatten(template)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def outputs(flat: Float[Array, "P"]) -> Float[Array, "N T K"]:
        parts = zip(jnp.split(flat, ends), leaves, strict=True)
        agent = CONFIG.agent(jax.tree.unflatten(structure, [part.reshape(x.shape) for part, x in parts]))
        return jax.vmap(agent.outputs)(held_out)

    return jax.lax.map(outputs, params)


def findings(measured: Measured) -> list[Finding]:
    """How much one matrix explains, how isotropic it is, and how the step depends on the round."""
    found, at = [], [EARLY - 2, LATE - 2]
    early, late = np.moveaxis(diagonal(measured.steps)[..., at], -1, 0)
    spread = np.linalg.norm(off_diagonal(measured.pooled_step), axis=-1)
    steps = diagonal(measured.pooled_step) / step_per_iteration(SETTING)
    spread /= np.linalg.norm(np.diagonal(measured.pooled_step, axis1=-2, axis2=-1), axis=-1)
    for c, n in enumerate(CHECKPOINTS):
        name = f"iteration {n}"
        of_z = f"{name}: share of z_t explained by one matrix times"
        found += [
            over_seeds(NAME, f"{of_z} S_t-1", measured.pooled[:, c], 1.0),
            over_seeds(NAME, f"{of_z} the posterior mean", measured.posterior[:, c]),
            over_seeds(NAME, f"{of_z} S_t-1 / |S_t-1|", measured.direction[:, c]),
            over_seeds(NAME, f"{name}: by a W_t for every round times S_t-1", measured.fit[:, c].mean(-1), 1.0),
        ]
        if n == 0:  # Random weights have no step to speak of.
            continue
        found += [
            over_seeds(NAME, f"{name}: off-diagonal relative to the diagonal of the one W", spread[:, c], 0.0),
            over_seeds(NAME, f"{name}: diagonal of the one W / (n eta_0)", steps[:, c] / n, 1.0),
            over_seeds(NAME, f"{name}: step of round {LATE} over that of round {EARLY}", late[:, c] / early[:, c], 1.0),
        ]
    return found


def draw(measured: Measured) -> Figure:
    """The step in every round, relative to that of an early one."""
    rounds = np.arange(2, CONFIG.horizon + 1)
    steps = diagonal(measured.steps)
    with column_figure() as (figure, axes):
        axes.axhline(1, color="black", lw=0.8, ls="--", label="FTRL")
        for name, curve, ls in (("posterior mean", posterior_step, "-"), ("direction of S", spread_step, ":")):
            reference = curve(rounds)
            axes.plot(rounds, reference / reference[EARLY - 2], color="black", lw=0.8, ls=ls, label=name, zorder=4)
        for c, color, ls in zip((1, 4), COLORS[4:], ("--", "-"), strict=False):
            values = steps[:, c] / steps[:, c, [EARLY - 2]]
            band(axes, rounds, values, color, ls=ls, label=f"iteration {CHECKPOINTS[c]}")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("round t")
        axes.set_ylabel(f"diagonal of $W_t$, relative to $W_{EARLY}$")
        axes.legend()
        return figure


EXPLORATION = Exploration(NAME, "Two layers", measure, findings, draw)
