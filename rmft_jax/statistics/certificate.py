"""The regret that a trained single layer is guaranteed on every sequence of bounded rewards, adaptive ones included.

Theorem 3 with its corollary, and theorems A3 and B2 (theory/README.md, theory/finite_samples.md, theory/attention.md):
what holds for a learned V, which is no multiple of the identity.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from rmft_jax.agents import FullInformationSingleLayer
from rmft_jax.agents.single_layer import Attention
from rmft_jax.config.checks import require, require_count
from rmft_jax.problems import Ball, DecisionMap, Environment, Simplex, Softmax

Matrix = Float[np.ndarray, "K K"]


class Rewards(NamedTuple):
    """Where every reward lies: `low` to `high`."""

    low: float
    high: float

    def norm(self, num_arms: int) -> float:
        """The largest Euclidean norm G of a reward vector."""
        return math.sqrt(num_arms) * max(abs(self.low), abs(self.high))

    def spread(self, matrix: Matrix) -> float:
        """The largest difference of two entries of `matrix R` over all reward vectors R."""
        rows = matrix[:, None, :] - matrix[None, :, :]
        return float(np.max(np.sum(np.where(rows > 0, self.high, self.low) * rows, axis=-1)))


class Certificate(NamedTuple):
    """A bound on the static regret of every sequence.

    regret: the bound, in units of reward.
    horizon: rounds it is for.
    rewards: where rewards may lie.
    """

    regret: float
    horizon: int
    rewards: Rewards

    def __str__(self) -> str:
        low, high = self.rewards
        return f"regret is at most {self.regret:.4g} on every {self.horizon} rounds of rewards in [{low:g}, {high:g}]"


def bounded_rewards(environment: Environment) -> Rewards:
    """Where the rewards of an environment lie.

    Raises:
      ConfigError: if they are not bounded.
    """
    low, high = environment.reward_range  # Where means or noise have no bounds, only where most rewards lie.
    bounded = environment.noise != "gaussian" and all(map(math.isfinite, environment.mean_range))
    got = f"environment={environment.name!r} with noise={environment.noise!r}"
    require(bounded, got, "rewards between bounds, for which alone regret has one", "noise='bernoulli'")
    return Rewards(low, high)


def guarantee(agent: object, rewards: Rewards, horizon: int) -> Certificate:
    """The guarantee of an agent that plays without exploration.

    Raises:
      ConfigError: if it has none.
    """
    require_count(horizon, "horizon", 1, 50)
    got, need = f"agent {type(agent).__name__}", "a single layer under full information, whose scores are linear in V"
    require(isinstance(agent, FullInformationSingleLayer), got, need, "preset single-layer")
    assert isinstance(agent, FullInformationSingleLayer)
    params = {name: np.asarray(value, np.float64) for name, value in agent.params.items()}
    query = params["Q"] @ params["c"] + params["q"]
    linear = not (params["K"].T @ query).any() and not params["v"].any()
    require(linear, "attention that depends on the rewards", need, "trained='value' and init_std=0")
    weight = 1.0 if agent.config.attention == "softmax" else float(params["kappa"] @ query)
    matrix, attention = weight * params["V"], agent.config.attention
    known = type(agent.score_map) in (Ball, Softmax, Simplex) and float(agent.score_map.exploration_std) == 0
    got = f"decision_map={agent.score_map.name!r}, exploration_std={float(agent.score_map.exploration_std):g}"
    require(known, got, "play in a ball or of arms, without exploration", "the policy that training ends with")
    bound = _of_play(agent.score_map, matrix, attention, rewards, horizon, agent.plays_metric)
    return Certificate(bound, horizon, rewards)


def _of_play(
    play: DecisionMap, matrix: Matrix, attention: Attention, rewards: Rewards, horizon: int, metric: bool
) -> float:
    size = len(matrix)
    if isinstance(play, Ball):
        norm, radius = rewards.norm(size), float(play.radius)
        in_ball = metric_bound if metric else euclidean_bound
        return min(in_ball(matrix, attention, radius, norm, horizon), 2 * radius * norm * horizon)
    last, total = _last_and_total(attention, horizon)
    centring = np.eye(size) - 1 / size

    def bound(step: float) -> float:
        relative = matrix / step
        if isinstance(play, Softmax):
            width, least = math.log(size), rewards.spread(relative) ** 2 / 4
        else:  # Of the simplex in the Euclidean norm, and of rewards but for what all arms share.
            reach = (rewards.high - rewards.low) * math.sqrt((size // 2) * -(-size // 2) / size)
            error = float(np.linalg.norm(centring @ (relative - np.eye(size)), 2)) * rewards.norm(size)
            width, least = (1 - 1 / size) / 2, (reach + error) ** 2
        return last * width / step + step / 2 * least * total + rewards.spread(relative - np.eye(size)) * horizon

    return min(_least(bound, matrix), (rewards.high - rewards.low) * horizon)


def lengths(attention: Attention, horizon: int) -> Float[np.ndarray, "T"]:
    """`g_1 .. g_T` of features `S_{t-1} / g_t`: 1, sqrt(t) or t - 1 (theory/attention.md).

    Under softmax attention `g_1` is that of round 2, from which the proof starts: `F_1 = 0` whatever it is.
    """
    t = np.arange(1.0, horizon + 1)
    return {"linear": np.ones(horizon), "anytime": np.sqrt(t), "softmax": np.maximum(t - 1, 1.0)}[attention]


def _last_and_total(attention: Attention, horizon: int) -> tuple[float, float]:
    """`g_T`, and the sum over rounds of `1 / g_t`."""
    g = lengths(attention, horizon)
    return float(g[-1]), float(np.sum(1 / g))


def metric_bound(matrix: Matrix, attention: Attention, radius: float, norm: float, horizon: int) -> float:
    """`rho^2 g_T / (2 l_min) + l_max G^2 sum_t 1/g_t / 2` (A3): of play by the norm of W; infinite if W is no norm."""
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    last, total = _last_and_total(attention, horizon)
    if values[0] <= 0:
        return math.inf
    return float(radius**2 * last / (2 * values[0]) + values[-1] * norm**2 * total / 2)


def euclidean_bound(matrix: Matrix, attention: Attention, radius: float, norm: float, horizon: int) -> float:
    """The corollary of theorem 3 at its best step: of the Euclidean projection of `W F_t`."""
    last, total = _last_and_total(attention, horizon)

    def bound(step: float) -> float:
        error = float(np.linalg.norm(matrix / step - np.eye(len(matrix)), 2))
        curved = step * (1 + error) ** 2 * norm**2 * total / 2
        return radius**2 * last / (2 * step) + curved + 2 * radius * error * norm * horizon

    return _least(bound, matrix)


def _least(bound: Callable[[float], float], matrix: Matrix) -> float:
    """The bound at the step that makes it least; infinite if the diagonal of W is not positive on average."""
    middle = float(np.trace(matrix)) / len(matrix)
    if middle <= 0:
        return math.inf
    found = optimize.minimize_scalar(lambda log: bound(middle * math.exp(log)), bounds=(-3.0, 3.0), method="bounded")
    return float(min(found.fun, bound(middle)))
