"""What if attention is softmax, so that the layer averages the past rewards instead of summing them?

With a constant query and K = 0 all past rounds weigh the same, and `z_t = V S_{t-1} / (t-1)`. Selection does not mind:
the proof of theorem 1 holds with the features `F_t = S_{t-1} / (t-1)` in place of `S_{t-1}`, so that V_n should be
`n sigma c beta' / alpha' I` with constants of its own. But what is then played is follow-the-regularized-leader with a
step that falls as `1 / (t-1)`: a regularizer that grows in proportion to the rounds played. On a ball that is
cautious against an adversary, and deaf to a signal so faint that `V |S_{t-1} / (t-1)|` never reaches the sphere.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from rmft_jax.agents import FullInformationSingleLayer, SingleLayer
from rmft_jax.plotting.style import COLORS, column_figure
from rmft_jax.problems import Alternating, Ball, Problem, Regret, Stationary, Trajectory
from theory.beyond.exploration import Exploration, Finding, band, beside, best_of, exponents, over_seeds, scenarios
from theory.lemma import order_statistic_mean
from theory.statement import Effort
from theory.theorem1 import step_per_iteration
from theory.walks import QUICK, SETTING, diagonal, walk

NAME = "softmax_attention"
ARMS = 2
LINEAR = SETTING.replace(num_arms=ARMS, num_scenarios=512)
SOFTMAX = LINEAR.replace(attention="softmax")
NUM_ITERATIONS = 8
HORIZONS = np.array([50, 100, 200, 400, 800])
COUNTS = 2.0 ** np.arange(1, 11.5, 0.5)
"""Numbers of iterations at which play is judged; V_n grows in proportion to n, which gives those never run."""
ATTENTIONS: tuple[Literal["linear", "softmax"], ...] = ("linear", "softmax")
PROBLEMS = {
    "Bernoulli": Stationary(num_arms=ARMS, feedback="full", prior="uniform", noise="bernoulli"),
    "alternating": Alternating(num_arms=ARMS, feedback="full", centred=True),
    "faint signal": Stationary(
        num_arms=ARMS, feedback="full", prior="gaussian", prior_std=0.03, noise="gaussian", noise_std=0.3
    ),
}
_SAMPLES = 100_000


class Measured(NamedTuple):
    """Value matrices, their predicted step, and regret against the unit ball.

    paths: `[S, n, K, K]` under softmax attention.
    predicted: `[2]` `sigma c beta' / alpha'` by simulation, twice.
    regret: `[S, A, P, G, R]` by attention, problem, number of iterations and horizon.
    """

    paths: Float[np.ndarray, "S n K K"]
    predicted: Float[np.ndarray, "2"]
    regret: Float[np.ndarray, "S A P G R"]


def simulated_step(seed: int) -> float:
    """`sigma c beta' / alpha'` with the features `S_{t-1} / (t-1)`, where no past is a feature of 0."""
    random, environment = np.random.default_rng(seed), SOFTMAX.environment
    tau, nu = environment.prior_moments()[1], environment.noise_std
    shape = (_SAMPLES, SOFTMAX.horizon, ARMS)
    rewards = tau * random.normal(size=(_SAMPLES, 1, ARMS)) + nu * random.normal(size=shape)
    features = np.zeros(shape)
    features[:, 1:] = np.cumsum(rewards, axis=1)[:, :-1] / np.arange(1, SOFTMAX.horizon)[:, None]
    alpha = np.sum(features**2, axis=(1, 2)).mean()
    beta = (np.sum(features * rewards, axis=(1, 2)) / np.linalg.norm(rewards, axis=(1, 2))).mean()
    c = order_statistic_mean(SOFTMAX.num_rollouts, SOFTMAX.selection.k)
    return float(SOFTMAX.decision_map.exploration_std * c * beta / alpha)


def measure(effort: Effort) -> Measured:
    """Trains with softmax attention, then replays problems under both attentions at many numbers of iterations."""
    effort.note("softmax attention")
    paths = walk(SOFTMAX, NUM_ITERATIONS, effort.times(4), effort)
    predicted = np.array([simulated_step(effort.seed + i) for i in range(2)])
    regret = np.zeros((len(paths), len(ATTENTIONS), len(PROBLEMS), len(COUNTS), len(HORIZONS)))
    linear = np.broadcast_to(step_per_iteration(LINEAR) * np.eye(ARMS), (len(paths), ARMS, ARMS))
    for p, (name, environment) in enumerate(PROBLEMS.items()):
        effort.note(f"regret against the horizon: {name}")
        for s in range(len(paths)):
            key = jax.random.fold_in(jax.random.key(effort.seed + 1), s)
            played = scenarios(Problem(environment, int(HORIZONS[-1])), key, 128)
            for a, per_iteration in enumerate((linear[s], paths[s, -1] / NUM_ITERATIONS)):
                matrices = jnp.asarray(COUNTS[:, None, None] * per_iteration, jnp.float32)
                regret[s, a, p] = _replay(ATTENTIONS[a], matrices, played)
    return Measured(paths, predicted, regret)


@jax.jit(static_argnums=0, compiler_options=QUICK)
def _replay(
    attention: Literal["linear", "softmax"], matrices: Float[Array, "G K K"], played: Trajectory
) -> Float[Array, "G R"]:
    """What was rewarded does not depend on play here, so the same trajectories serve all policies."""
    start = FullInformationSingleLayer.create(jax.random.key(0), SingleLayer(attention=attention, key_size=1), ARMS)
    play = jax.vmap(jax.vmap(Ball().policy, in_axes=(0, None)))

    def regret(matrix: Float[Array, "K K"]) -> Float[Array, "R"]:
        agent = start.with_value(matrix)
        points = play(jax.vmap(agent.outputs)(played), played.arm_mask)
        values = Regret("ball", "expected")(dataclasses.replace(played, probabilities=points))
        return jnp.mean(values[:, HORIZONS - 1], axis=0)

    return jax.lax.map(regret, matrices)


def findings(measured: Measured) -> list[Finding]:
    """The constant, then what one number of iterations for all problems can do, and what each problem costs then."""
    rate = diagonal(measured.paths)[:, -1] / NUM_ITERATIONS
    half = diagonal(measured.paths)[:, NUM_ITERATIONS // 2] / (NUM_ITERATIONS // 2)
    found = [
        over_seeds(
            NAME, "step per iteration of V_n, in units of sigma c beta'/alpha'", rate / measured.predicted.mean(), 1.0
        ),
        over_seeds(NAME, f"V_{NUM_ITERATIONS} over twice V_{NUM_ITERATIONS // 2}", rate / half, 1.0),
        beside(NAME, f"off-diagonal of V_{NUM_ITERATIONS} relative to its diagonal", measured.paths),
    ]
    for a, attention in enumerate(ATTENTIONS):
        for label, chosen in (("Bernoulli and alternating", slice(2)), ("all three problems", slice(3))):
            best, values = best_of(measured.regret[:, a, chosen].max(axis=1))
            name = f"{attention} attention, {label}"
            found += [
                over_seeds(NAME, f"{name}: worst regret at T={HORIZONS[-1]} for the best n", values[:, -1]),
                over_seeds(NAME, f"{name}: its exponent in T", exponents(HORIZONS, values)),
                *(
                    Finding(NAME, f"{name}: best n at T={HORIZONS[r]}, of a grid", float(COUNTS[best[r]]), 0.0, None)
                    for r in (0, -1)
                ),
            ]
    return found


def draw(measured: Measured) -> Figure:
    """Regret at the longest horizon over the number of iterations."""
    with column_figure(3.0) as (figure, axes):
        styles = zip(PROBLEMS, COLORS[3:], strict=False)
        for p, (name, color) in enumerate(styles):
            for a, ls in enumerate(("--", "-")):
                label = name if ls == "-" else None
                band(axes, COUNTS, measured.regret[:, a, p, :, -1], color, ls=ls, label=label)
        axes.plot([], [], color="black", ls="-", label="softmax attention")
        axes.plot([], [], color="black", ls="--", label="linear attention")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("RMFT iterations n")
        axes.set_ylabel(f"regret on the unit ball at T = {HORIZONS[-1]}")
        figure.legend(loc="outside upper center", ncols=2, handlelength=2.4)
        return figure


EXPLORATION = Exploration(NAME, "Softmax attention", measure, findings, draw)
