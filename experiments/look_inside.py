"""What the policy `mab-k2` learned: when it plays a second arm, beside Bayes-optimal play, Thompson sampling and UCB1.

One of two Bernoulli arms was played ten times and paid five times. The figure has the probability that the other one is
played next, over how often it was played and how often it paid. The Transformer sees the order of what happened too, so
its probability is the mean over random orders. Beside it stands how often each player plays a Bayes-optimal arm in the
histories that it meets in its own play. Writes `look_inside.json`, `.csv`, `.png` and `.pdf` into
`experiments/results`.

    python -m experiments.look_inside
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.stats
import tyro

from experiments.common import RESULTS
from rmft_jax.agents import UCB, BayesOptimal, TrainedAgent, make_agents
from rmft_jax.agents.statistics import ArmStatistics, StatisticsAgent
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import DataFigure, sheet
from rmft_jax.problems.types import Context, Trajectory
from rmft_jax.running.files import write_json
from rmft_jax.running.weights import load_pretrained

KNOWN = (10, 5)  # Pulls and successes of the other arm.
MOST_PULLS, NUM_ORDERS, NUM_SCENARIOS = 20, 64, 1024
OTHERS = ("posterior_index", "thompson", "greedy", "ucb1")
Record = tuple[int, int]


@pinned()
def main(seed: int = 0) -> None:
    """Computes the probabilities and draws them.

    Args:
      seed: of the random orders.
    """
    policy = load_pretrained("mab-k2")
    horizon = policy.config.rmft.horizon
    players: dict[str, Callable[[Record], float]] = {
        "RMFT": functools.partial(trained, policy.agent, np.random.default_rng(seed)),
        "Bayes-optimal": functools.partial(classical, BayesOptimal.create(horizon), horizon),
        "Thompson": thompson,
        "UCB1": functools.partial(classical, UCB(), horizon),
    }
    records = [(pulls, wins) for pulls in range(1, MOST_PULLS + 1) for wins in range(pulls + 1)]
    found = {name: {record: player(record) for record in records} for name, player in players.items()}
    save_figure(draw(found), RESULTS / "look_inside")
    optimal = found["Bayes-optimal"]
    clear = [record for record in records if optimal[record] in (0.0, 1.0)]
    agreement = {
        name: float(np.mean([abs(values[record] - optimal[record]) < 0.5 for record in clear]))
        for name, values in found.items()
    }
    problem, key = policy.config.rmft.problem(), jax.random.key(seed)
    agents = {"rmft": policy.agent, **make_agents(problem, OTHERS)}
    own_play = {
        name: optimal_share(play_scenarios(agent, problem, key, NUM_SCENARIOS)) for name, agent in agents.items()
    }
    result = {
        "known_arm": KNOWN,
        "num_orders": NUM_ORDERS,
        "num_scenarios": NUM_SCENARIOS,
        "seed": seed,
        "agreement_with_bayes_optimal": agreement,
        "optimal_share_in_own_play": own_play,
    }
    write_json(RESULTS / "look_inside.json", result)
    print((RESULTS / "look_inside.json").read_text())


def trained(agent: TrainedAgent, rng: np.random.Generator, record: Record) -> float:
    """Mean over random orders of the probability that a Transformer gives to the second arm."""
    actions = np.repeat([0, 1], [KNOWN[0], record[0]])
    rewards = np.concatenate([np.arange(pulls) < wins for pulls, wins in (KNOWN, record)])
    orders = rng.permuted(np.tile(np.arange(len(actions)), (NUM_ORDERS, 1)), axis=1)
    # All are as long as the longest, so that one program serves them; a row of outputs sees only what is before it.
    room = ((0, 0), (0, KNOWN[0] + MOST_PULLS + 1 - len(actions)))
    past = [jnp.asarray(np.pad(values[orders], room)) for values in (actions, rewards.astype(np.float32))]
    return float(np.mean(second_arm(agent, past[0], past[1], len(actions))))


@jax.jit
def second_arm(agent: Any, actions: jax.Array, rewards: jax.Array, round: int) -> jax.Array:
    """`[orders]` the probability of the second arm in a round, at the temperature at which the policy plays."""

    def one(actions: jax.Array, rewards: jax.Array) -> jax.Array:
        table = jnp.zeros((len(actions), 2))
        past = Trajectory(actions, rewards, table, table, table, None, arm_mask=jnp.ones(2, bool))
        return jax.nn.softmax(agent.outputs(past)[round] / agent.temperature)[1]

    return jax.vmap(one)(actions, rewards)


def classical(agent: StatisticsAgent, horizon: int, record: Record) -> float:
    """1 where an index policy plays the second arm, 0 where the first, 1/2 where it draws one."""
    pulls, wins = (jnp.asarray(column, jnp.float32) for column in zip(KNOWN, record, strict=True))
    round = jnp.asarray(KNOWN[0] + record[0])
    context = Context(round, jnp.asarray(horizon), jnp.ones(2, bool), jnp.zeros(2))
    decision, _ = agent.act(jax.random.key(0), ArmStatistics(pulls, wins), context)
    return float(decision.probabilities[1])


def thompson(record: Record) -> float:
    """Probability that a draw from the posterior of the second arm is the higher one, with uniform priors."""
    first, second = ((1 + wins, 1 + pulls - wins) for pulls, wins in (KNOWN, record))
    density, below = scipy.stats.beta.pdf, scipy.stats.beta.cdf
    return float(scipy.integrate.quad(lambda mean: density(mean, *second) * below(mean, *first), 0.0, 1.0)[0])


def optimal_share(played: Trajectory) -> float:
    """Share of the rounds of two-armed trajectories, batch axis `[N]`, in which a Bayes-optimal arm is played."""
    horizon = played.actions.shape[-1]
    optimal, mask = BayesOptimal.create(horizon), jnp.ones(2, bool)

    @jax.jit
    def is_optimal(actions: jax.Array, rewards: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(actions, 2)
        pulls, wins = (jnp.cumsum(each, axis=0) - each for each in (one_hot, one_hot * rewards[:, None]))
        rounds = jnp.arange(horizon)

        def share(pulls: jax.Array, wins: jax.Array, round: jax.Array, action: jax.Array) -> jax.Array:
            context = Context(round, jnp.asarray(horizon), mask, jnp.zeros(2))
            return optimal.act(jax.random.key(0), ArmStatistics(pulls, wins), context)[0].probabilities[action] > 0

        return jax.vmap(share)(pulls, wins, rounds, actions)

    return float(jnp.mean(jax.vmap(is_optimal)(played.actions, played.rewards)))


def draw(found: dict[str, dict[Record, float]]) -> DataFigure:
    """A panel per player: the probability of the second arm, a column per number of pulls, a cell per successes."""
    with sheet("paper", 3.6) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        mesh: Any = None
        for axes, (name, values) in zip(panels.flat, found.items(), strict=True):
            axes.grid(visible=False)
            for (pulls, wins), probability in values.items():
                low, high = wins / (pulls + 1), (wins + 1) / (pulls + 1)
                column = np.asarray([[probability]])
                edges = ([pulls - 0.5, pulls + 0.5], [low, high])
                mesh = axes.pcolormesh(*edges, column, vmin=0, vmax=1, cmap="cividis", rasterized=True)
            axes.plot([0.5, MOST_PULLS + 0.5], [0.5, 0.5], color="white", linestyle=":", linewidth=0.8)
            axes.set_title(name)
        figure.supxlabel("pulls of the second arm")
        figure.supylabel("share of successes of the second arm")
        figure.colorbar(mesh, ax=panels, label="probability of the second arm", shrink=0.8)
        figure.rows = [
            {"player": name, "pulls": pulls, "wins": wins, "probability": probability}
            for name, values in found.items()
            for (pulls, wins), probability in values.items()
        ]
        return figure


if __name__ == "__main__":
    tyro.cli(main)
