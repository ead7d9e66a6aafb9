"""From what was played to the dataset of a cell."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from rmft_jax.agents import Agent, make_agents, make_baselines, reference_agent
from rmft_jax.method.evaluation import Play
from rmft_jax.running.history import History
from rmft_jax.statistics.growth import growth_exponent, regression_test, suff_fail_freq, trend_test
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.spec import Cell

PLAYED_TOO = ("regret", "suff_fail_freq", "invalid")
"""Metrics of training that have the names of results."""
# Of the baselines of a setting, those that a sweep plays in every cell unless it names others.
_DEFAULT = (
    "gittins", "posterior_index", "thompson", "ucb1", "greedy", "change_point_index", "discounted_index",
    "sliding_window_ucb", "rexp3", "exp3", "hedge", "follow_the_leader", "uniform",
)  # fmt: skip
# Of what is measured, that which is kept of the classical agents too.
_COMPARED = (
    "final_regret", "final_regret_sem", "regret", "regret_sem", "exponent", "trend_p", "sublinear_p", "suff_fail_freq",
    "suff_fail_freq_sem",
)  # fmt: skip


def baselines_of(cell: Cell, group: Group, names: Sequence[str] | None) -> dict[str, Agent]:
    """The classical agents beside which a cell's policy is evaluated, by name.

    Raises:
      ConfigError: if one of `names` does not exist, does not fit, or cannot play padded rounds.
    """
    problem, padded = cell.config.rmft.problem(), group.config.rmft
    size = padded.environment.num_arms
    if names is None or problem.points:
        agents = make_baselines(problem, among=_DEFAULT, size=size)
    else:
        agents = make_agents(problem, names)
    for agent in agents.values():
        jax.eval_shape(functools.partial(agent.init, size, padded.horizon))
    return agents


def cell_dataset(cell: Cell, plays: Mapping[str, Play], history: History, slot: int, seconds: float) -> xr.Dataset:
    """Everything that a sweep keeps of a cell: means over the test scenarios, and how it was trained.

    Args:
      cell: whose.
      plays: of the trained policy, `rmft`, and of the baselines, as large as their group.
      history: of its batch.
      slot: its place there.
      seconds: what it took.
    """
    trained = history.dataset(slot).rename({name: f"training_{name}" for name in PLAYED_TOO})
    own = {"best_iteration": ((), int(history.best_iteration[slot])), "wall_seconds": ((), seconds)}
    return played_dataset(cell, plays).assign(dict(trained.data_vars)).assign(own)


def played_dataset(cell: Cell, plays: Mapping[str, Play]) -> xr.Dataset:
    """What the trained policy, `rmft`, and the baselines did on the test scenarios of a cell."""
    problem = cell.config.rmft.problem()
    num_arms, horizon = problem.num_arms, problem.horizon
    cut = {name: play.cut(num_arms, horizon) for name, play in plays.items()}
    own, others = cut.pop("rmft"), cut
    regret = problem.regret
    attrs = {"regret": regret.kind, "regret_form": regret.form}
    data = dict(_measures(own, num_arms, problem.points))
    _, low, high, _ = growth_exponent(np.asarray(own.regret))
    data |= {"exponent_low": ((), low), "exponent_high": ((), high)}
    measured = {name: _measures(play, num_arms, problem.points) for name, play in others.items()}
    for field in _COMPARED:
        rows = [measures[field] for measures in measured.values() if field in measures]
        if rows:
            data[f"baseline_{field}"] = ("agent", *rows[0][0]), np.stack([values for _, values in rows])
    reference = reference_agent(problem)
    if reference in others:
        attrs["reference"] = reference
        mean, sem = _mean_and_sem(own.regret[:, -1] - others[reference].regret[:, -1])
        data |= {"minus_reference": ((), mean), "minus_reference_sem": ((), sem)}
    coords = {"round": np.arange(1, horizon + 1), "agent": np.asarray(list(others), dtype=str)}
    if "rank_frequency" in data:
        coords["rank"] = np.arange(num_arms)
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _measures(play: Play, num_arms: int, points: bool) -> dict[str, tuple[Any, Any]]:
    """What is known of one agent's play on the test scenarios."""
    regret, horizon = play.regret, play.regret.shape[1]
    mean, sem = _mean_and_sem(regret)
    growth = regression_test(mean)
    found = {
        "regret": (("round",), mean),
        "regret_sem": (("round",), sem),
        "final_regret": ((), mean[-1]),
        "final_regret_sem": ((), sem[-1]),
        "invalid": ((), np.mean(play.invalid, dtype=np.float64)),
        "exponent": ((), growth.exponent),
        "trend_p": ((), trend_test(mean).p_value),
        "sublinear_p": ((), growth.sublinear_p),
    }
    if not points:
        ranks = np.stack([(play.rank == rank).mean(axis=0) for rank in range(num_arms)])
        frequency = suff_fail_freq(np.asarray(play.last_best_round), horizon)
        found |= {
            "suff_fail_freq": (("round",), frequency),
            "suff_fail_freq_sem": (("round",), np.sqrt(frequency * (1 - frequency) / (len(regret) - 1))),
            "min_frac": ((), np.mean(play.min_frac, dtype=np.float64)),
            "greedy_frac": ((), np.mean(play.greedy_frac, dtype=np.float64)),
            "rank_frequency": (("rank", "round"), ranks.astype(np.float32)),
        }
    return found


def _mean_and_sem(values: Float[Any, "N ..."]) -> tuple[Any, Any]:
    """Mean and its standard error over scenarios."""
    values = np.asarray(values)
    mean = values.mean(axis=0, dtype=np.float64)
    return mean, values.std(axis=0, ddof=1, dtype=np.float64) / len(values) ** 0.5
