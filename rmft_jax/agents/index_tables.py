"""Tables of finite-horizon Gittins indices: by how much the index of an arm exceeds its posterior mean.

An arm that was pulled n times is offered beside a price λ for each of at most m further pulls, and can be given up for
good at any time. Its index is the price at which that is worth nothing (Gittins 1979; for a finite horizon Niño-Mora
2011). Tables begin with the arms and rounds of the smallest `n + m`, so that a table is the beginning of longer ones.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import platformdirs
import scipy.special
from jaxtyping import Float

LONGEST = 400
"""Rounds of the longest table."""
_SIZES = (50, 100, 200, LONGEST)  # Few, so that horizons share tables, and programs the shapes of tables.
_KEPT_FROM = 200  # Smaller ones take less than a few seconds.
_PRICES, _NODES, _REACH = 1024, 481, 6.0


def table_rounds(horizon: int) -> int:
    """Rounds of the table for a horizon: a few more, or the longest."""
    return next((size for size in _SIZES if size >= horizon), LONGEST)


@functools.lru_cache(maxsize=4)
def bernoulli_bonus(rounds: int, alpha: float, beta: float) -> Float[np.ndarray, "N"]:
    """What is added to the mean of a posterior after Bernoulli rewards under a Beta(alpha, beta) prior.

    The index of s successes in n pulls with m rounds left is the λ at which
    `V_λ(s, n, m) = max(0, p - λ + p V_λ(s + 1, n + 1, m - 1) + (1 - p) V_λ(s, n + 1, m - 1))` becomes 0, with the
    posterior mean p. V is computed for 1024 prices, and the zero found by linear interpolation between two of them:
    with errors of up to 1e-4, as compared with bisection.

    Long tables are kept in the user's folder of caches, which may be deleted.

    Returns:
      An array over `n + m`, then n, then s, where `n + m` is at most `rounds`.
    """
    kept = platformdirs.user_cache_path("rmft_jax") / f"gittins-1-{rounds}-{alpha!r}-{beta!r}.npy"
    if rounds >= _KEPT_FROM and (table := _read(kept, rounds * (rounds + 1) * (rounds + 2) // 6)) is not None:
        return table
    pulls, successes = np.ogrid[:rounds, :rounds]
    mean = np.minimum((alpha + successes) / (alpha + beta + pulls), 1.0)  # More successes than pulls are no state.
    # Closest together at 0 and 1, where the zeros are.
    prices = (1 - np.cos(np.pi * np.linspace(0, 1, _PRICES + 1))) / 2
    workers = min(os.cpu_count() or 1, 4)
    cuts = [_PRICES * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda i: _zeros(prices[cuts[i] : cuts[i + 1] + 1], mean), range(workers)))
    zeros = [np.fmax.reduce(squares) for squares in zip(*parts, strict=True)]
    rows = [zeros[total - n - 1][n, : n + 1] - mean[n, : n + 1] for total in range(1, rounds + 1) for n in range(total)]
    table = np.concatenate(rows).astype(np.float32)
    if rounds >= _KEPT_FROM:
        _keep(kept, table)
    return table


def _zeros(prices: Float[np.ndarray, "P"], mean: Float[np.ndarray, "T T"]) -> Sequence[Float[np.ndarray, "S S"]]:
    """For m = 1, 2, ... rounds left: `[n, s]` where V becomes 0 between the prices, NaN if not there."""
    rounds = len(mean)
    zeros = [np.full((rounds - left,) * 2, np.nan) for left in range(rounds)]
    before: list[np.ndarray] = []
    for i, price in enumerate(prices):
        value, now = np.zeros((rounds + 1,) * 2), []
        for left, zero in enumerate(zeros):
            size = rounds - left
            chance = mean[:size, :size]
            worth = value[1 : size + 1, 1 : size + 1] - value[1 : size + 1, :size]
            worth *= chance
            worth += value[1 : size + 1, :size]
            worth += chance - price
            if i:
                ends = (before[left] > 0) & (worth <= 0)
                last, first = before[left][ends], worth[ends]
                zero[ends] = prices[i - 1] + (price - prices[i - 1]) * last / (last - first)
            now.append(worth)
            value = np.maximum(worth, 0)
        before = now
    return zeros


@functools.lru_cache(maxsize=8)
def gaussian_bonus(rounds: int, ratio: float) -> Float[np.ndarray, "N"]:
    """What is added to the mean of a posterior after Gaussian rewards, in standard deviations of the prior.

    After n pulls the posterior variance is `v_n = ratio / (ratio + n)`, and one pull moves the mean by a normal
    deviation of variance `v_n - v_{n+1}`. The value of a price z below the mean is
    `V(z, n, m) = max(0, z + E V(z', n + 1, m - 1))`; it is kept as a piecewise linear function of z on 481 nodes,
    whose expectation is exact, with slope m beyond them.

    Args:
      rounds: the largest `n + m`.
      ratio: variance of a reward over that of the prior.

    Returns:
      An array over `n + m`, then n.
    """
    ratio = max(ratio, 1e-9)
    reach = np.linspace(-_REACH, _REACH, _NODES)
    variance = ratio / (ratio + np.arange(rounds + 1))
    bonus = np.full((rounds + 1, rounds), np.nan)  # By rounds left and pulls.
    nodes, value = reach, np.zeros((1, _NODES))
    for n in range(rounds - 1, -1, -1):
        left = np.arange(rounds - n + 1)[:, None]  # 0 to T - n; the value of 0 rounds is 0.
        deviation = np.sqrt(variance[n] - variance[n + 1])
        own = reach * np.sqrt(variance[n] - variance[rounds])  # How far the mean can still move.
        bends = np.diff(np.diff(value) / np.diff(nodes), prepend=0.0, append=left[:-1])
        distance = (own[:, None] - nodes) / deviation
        # E max(0, own + deviation N(0, 1) - node), for every bend.
        hinge = deviation * (np.exp(-(distance**2) / 2) / np.sqrt(2 * np.pi) + distance * scipy.special.ndtr(distance))
        worth = own + value[:, :1] + bends @ hinge.T
        at = np.argmax(worth > 0, axis=1)
        row = np.arange(len(worth))
        below, above = worth[row, at - 1], worth[row, at]
        bonus[1 : len(worth) + 1, n] = -(own[at - 1] + (own[at] - own[at - 1]) * -below / (above - below))
        nodes, value = own, np.concatenate([np.zeros((1, _NODES)), np.maximum(worth, 0)])
    table = [bonus[total - n, n] for total in range(1, rounds + 1) for n in range(total)]
    return np.asarray(table, np.float32)


def _read(path: Path, size: int) -> Float[np.ndarray, "N"] | None:
    """A kept table, if it is there and whole."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        table = np.load(path, allow_pickle=False)
        return table if table.shape == (size,) and table.dtype == np.float32 and np.isfinite(table).all() else None
    return None


def _keep(path: Path, table: Float[np.ndarray, "N"]) -> None:
    """Writes a table, if that is possible: whole, or not at all."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, table)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
