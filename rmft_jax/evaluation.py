"""Agents on held-out scenarios, all with the same problems and the same reward noise."""

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int

from rmft_jax import diagnostics
from rmft_jax.agents.base import Agent
from rmft_jax.config import ConfigError
from rmft_jax.environments.base import Environment
from rmft_jax.regret import pseudo_regret
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.types import ScalarKey, Trajectory, pytree


@pytree
class Play:
    """What an evaluation keeps of one agent's trajectories, one per scenario.

    regret: `[N, T]` cumulative pseudo-regret.
    action: `[N, T]` arms played.
    suff_fail: `[N]` whether no best arm is played from round T/2 on.
    min_frac: `[N]` K * MinFrac(T).
    greedy_frac: `[N]` GreedyFrac.
    mean_rewards: `[N, K]` expected rewards of the first round.
    """

    regret: Float[Array, "N T"]
    action: Int[Array, "N T"]
    suff_fail: Bool[Array, "N"]
    min_frac: Float[Array, "N"]
    greedy_frac: Float[Array, "N"]
    mean_rewards: Float[Array, "N K"]


def play_scenarios(
    agent: Agent,
    environment: Environment,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
) -> Trajectory:
    """One trajectory on each of `num_scenarios` scenarios, batch axis `[N]`. `key` fixes problems and rewards."""
    keys = RolloutKeys.create(key)
    played = rollout_scenarios(
        agent, environment, keys, horizon=horizon, num_scenarios=num_scenarios, arm_mask=arm_mask
    )
    return jax.tree.map(lambda leaf: leaf[:, 0], played)


@functools.partial(jax.jit, static_argnames=("horizon", "num_scenarios"))
def final_regret(
    agent: Agent, environment: Environment, key: ScalarKey, horizon: int, num_scenarios: int
) -> Float[Array, "N"]:
    """Pseudo-regret at the horizon, per scenario."""
    return pseudo_regret(play_scenarios(agent, environment, key, horizon, num_scenarios))[:, -1]


@functools.partial(jax.jit, static_argnames=("horizon", "num_scenarios"))
def play_and_measure(
    agent: Agent,
    environment: Environment,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
) -> Play:
    """Plays one agent and reduces its trajectories to what an evaluation keeps."""
    trajectory = play_scenarios(agent, environment, key, horizon, num_scenarios, arm_mask)
    return Play(
        regret=pseudo_regret(trajectory),
        action=trajectory.actions,
        suff_fail=diagnostics.suff_fail(trajectory, diagnostics.half_horizon(horizon)),
        min_frac=diagnostics.min_frac(trajectory),
        greedy_frac=diagnostics.greedy_frac(trajectory),
        mean_rewards=trajectory.mean_rewards[:, 0],
    )


def evaluate(
    agents: Mapping[str, Agent],
    environment: Environment,
    *,
    horizon: int,
    num_scenarios: int,
    key: ScalarKey,
    num_arms: int | None = None,
) -> xr.Dataset:
    """Plays every agent on the same scenarios with common random numbers.

    Args:
      agents: by name.
      environment: the distribution over problems.
      horizon: rounds T.
      num_scenarios: N.
      key: determines scenarios and reward noise.
      num_arms: how many of the environment's arms exist, the first ones. None: all.

    Returns:
      A dataset over `agent`, `scenario`, `round` (counted from 1) and `arm`: the arrays of `Play`.

    Raises:
      ConfigError: if an agent cannot play this many arms or rounds.
    """
    active = environment.num_arms if num_arms is None else num_arms
    if not 2 <= active <= environment.num_arms:
        raise ConfigError(
            f"got num_arms={active}, need 2 to {environment.num_arms} arms; try num_arms={environment.num_arms}"
        )
    arm_mask = jnp.arange(environment.num_arms) < active

    def play(agent: Agent) -> Play:
        return jax.device_get(play_and_measure(agent, environment, key, horizon, num_scenarios, arm_mask))

    for agent in agents.values():  # Refused here, before anything compiles.
        jax.eval_shape(functools.partial(agent.init, environment.num_arms, horizon))
    # Most of the time goes into compilation, which threads share well.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        plays = dict(zip(agents, pool.map(play, agents.values()), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

    def stacked(field: str, dtype: type) -> np.ndarray:
        return np.stack([getattr(play, field) for play in plays.values()]).astype(dtype)

    per_round, per_scenario = ("agent", "scenario", "round"), ("agent", "scenario")
    return xr.Dataset(
        {
            "regret": (per_round, stacked("regret", np.float32), {"long_name": "cumulative pseudo-regret"}),
            "action": (per_round, stacked("action", np.int32), {"long_name": "arm played"}),
            "suff_fail": (per_scenario, stacked("suff_fail", np.int8), {"long_name": "suffix failure at round T/2"}),
            "min_frac": (per_scenario, stacked("min_frac", np.float32), {"long_name": "K * MinFrac(T)"}),
            "greedy_frac": (per_scenario, stacked("greedy_frac", np.float32), {"long_name": "GreedyFrac"}),
            "mean_rewards": (
                ("scenario", "arm"),
                next(iter(plays.values())).mean_rewards.astype(np.float32),
                {"long_name": "expected reward in the first round"},
            ),
        },
        coords={"agent": list(plays), "round": np.arange(1, horizon + 1)},
        attrs={"horizon": horizon, "num_scenarios": num_scenarios, "num_arms": active},
    )
