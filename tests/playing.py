"""Agents on recorded tables of rewards: the compiled play, and slow loops that must agree with it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmft_jax.method.noise import NoiseStreams
from rmft_jax.method.rollout import Rollout
from rmft_jax.problems import Trajectory
from worlds import TableWorld

RUNS, HORIZON, ARMS = 1000, 60, 4
MEANS = np.asarray([0.3, 0.6, 0.55, 0.1], np.float32)
KEYS = jax.random.split(jax.random.key(3), RUNS)


def bernoulli_tables(means: np.ndarray, seed: int = 7) -> np.ndarray:
    """`[RUNS, HORIZON, ARMS]` rewards for `[ARMS]` means, or for `[RUNS, ARMS]`."""
    means = np.broadcast_to(means, (RUNS, ARMS))
    return (np.random.default_rng(seed).random((RUNS, HORIZON, ARMS)) < means[:, None]).astype(np.float32)


BERNOULLI = bernoulli_tables(MEANS)


# Runs for longer than it compiles.
@functools.partial(jax.jit, static_argnames="feedback", compiler_options={"xla_backend_optimization_level": 2})
def play_tables(agent: Any, tables: Any, means: Any, keys: Any, arm_mask: Any, feedback: Any = "bandit") -> Trajectory:
    def one(table: Any, mean: Any, key: Any) -> Trajectory:
        world: Any = TableWorld(mean, table, feedback)
        stream = NoiseStreams(pair := jnp.stack([key, key]), pair, jnp.zeros(2, jnp.int32))
        rounds = jnp.ones(len(table), bool)
        played = Rollout(agent, world, stream, arm_mask, rounds, telling=key)
        return played.trajectory(played.play(played.fresh(world.reset(key, arm_mask, rounds)), 0, len(table)))

    return jax.vmap(one)(tables, means, keys)


def play(agent: Any, tables: np.ndarray, mask: Any = None, means: Any = None, keys: Any = KEYS) -> Any:
    """Plays every table once, with its own key; the feedback is the first that the agent can use."""
    runs, _, arms = tables.shape
    mask = np.ones(arms, bool) if mask is None else np.asarray(mask)
    means = np.broadcast_to(np.resize(MEANS, arms) if means is None else means, (runs, arms)).astype(np.float32)
    played = play_tables(agent, jnp.asarray(tables, jnp.float32), means, keys[:runs], mask, agent.feedback[0])
    return jax.tree.map(np.asarray, played)


class Seen(NamedTuple):
    """What a rule may use of an arm: its own past, its random draw, and everyone's pulls."""

    t: int
    times: list[int]
    rewards: list[float]
    draw: Any
    arm: int
    pulls: list[int]

    @property
    def mean(self) -> float:
        return sum(self.rewards) / len(self.rewards)


def twin_actions(
    index: Callable[[Seen], float], draws: Callable[..., Any] | None, key: Any, table: np.ndarray, full: bool = False
) -> list[int]:
    """A slow, plain loop. `draws` gets the key of the index, the pulls and the sums of all arms."""
    arms = table.shape[1]
    times: list[list[int]] = [[] for _ in range(arms)]
    rewards: list[list[float]] = [[] for _ in range(arms)]
    actions = []
    for t in range(len(table)):
        index_key, tie_key = jax.random.split(jax.random.fold_in(key, t))
        pulls = [len(r) for r in rewards]
        draw = draws(index_key, pulls, [sum(r) for r in rewards]) if draws else np.zeros(arms)
        scores = [np.float32(index(Seen(t, times[a], rewards[a], draw[a], a, pulls))) for a in range(arms)]
        ties = np.asarray(jax.random.uniform(tie_key, (arms,)))
        action = max(range(arms), key=lambda a: (scores[a], ties[a]))
        for a in range(arms) if full else [action]:
            times[a].append(t)
            rewards[a].append(float(table[t, a]))
        actions.append(action)
    return actions


def slow_attention(params: Any, attention: str, seen: Any) -> tuple[np.ndarray, np.ndarray]:
    """The single layer from its formula, in float64: features `[T, K]` of what was seen, and sums of weights `[T]`."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    seen = np.asarray(seen, np.float64)
    features, sums = np.zeros_like(seen), np.zeros(len(seen))
    for t in range(1, len(seen)):
        scores = np.asarray([(p["K"] @ row + p["kappa"]) @ (p["Q"] @ p["c"] + p["q"]) for row in seen[:t]])
        weights = scores
        if attention == "softmax":
            weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        if attention == "anytime":
            weights = scores / np.sqrt(t + 1)
        features[t], sums[t] = weights @ seen[:t], weights.sum()
    return features, sums


def slow_estimates(actions: Any, rewards: Any, probabilities: Any) -> np.ndarray:
    """Importance-weighted estimates of the reward vectors `[T, K]` of one trajectory."""
    estimates = np.zeros(np.shape(probabilities))
    for t, action in enumerate(actions):
        estimates[t, action] = float(rewards[t]) / float(probabilities[t, action])
    return estimates


def static_regret(played: Any) -> np.ndarray:
    """`[R]` expected-action static regret of every run, in float64."""
    table = np.asarray(played.reward_table, np.float64)
    return table.sum(1).max(-1) - (played.probabilities * table).sum((1, 2))


def oblivious_tables(horizon: int, arms: int) -> dict[str, np.ndarray]:
    """Sequences that were fixed before anyone played, with rewards in [0, 1]."""
    t, a = np.arange(horizon)[:, None], np.arange(arms)[None]
    return {
        "iid": np.random.default_rng(0).random((horizon, arms)),
        "alternating": (t + a) % 2 * 1.0,
        "one_good_arm": np.broadcast_to(1.0 * (a == 0), (horizon, arms)),
        "sine": 0.5 + 0.5 * np.sin(2 * np.pi * (3 * t / horizon + a / arms)),
    }
