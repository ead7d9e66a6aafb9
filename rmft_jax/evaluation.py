"""Agents on held-out scenarios, all with the same problems and the same reward noise."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from rmft_jax import diagnostics
from rmft_jax.agents import Agent, BestFixedArm
from rmft_jax.config import ConfigError
from rmft_jax.devices import Shares, on_mesh
from rmft_jax.environments.base import Environment
from rmft_jax.regret import Regret, of_action
from rmft_jax.rollout import RolloutKeys, require_feedback, rollout_scenarios
from rmft_jax.types import ScalarKey, Trajectory, pytree

S = TypeVar("S")
T = TypeVar("T")


@pytree
class Play:
    """What an evaluation keeps of one agent's trajectories, one per scenario.

    regret: `[N, T]` cumulative regret.
    action: `[N, T]` arms played.
    rank: `[N, T]` rank of the arm played by expected reward of the round, 0 for a best one.
    last_best_round: `[N]` last round in which a best arm was played, counted from 1; 0 if there is none.
    min_frac: `[N]` K * MinFrac(T).
    greedy_frac: `[N]` GreedyFrac.
    mean_rewards: `[N, K]` expected rewards of the first round.
    """

    regret: Float[Array, "N T"]
    action: Int[Array, "N T"]
    rank: Int[Array, "N T"]
    last_best_round: Int[Array, "N"]
    min_frac: Float[Array, "N"]
    greedy_frac: Float[Array, "N"]
    mean_rewards: Float[Array, "N K"]

    def cut(self, num_arms: int, horizon: int) -> "Play":
        """Without what lies beyond the first arms and rounds."""
        per_round = {name: getattr(self, name)[:, :horizon] for name in ("regret", "action", "rank")}
        return dataclasses.replace(self, **per_round, mean_rewards=self.mean_rewards[:, :num_arms])


def play_scenarios(
    agent: Agent,
    environment: Environment,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
    round_mask: Bool[Array, "T"] | None = None,
    first_scenario: Int[Array, ""] | int = 0,
) -> Trajectory:
    """One trajectory on each of `num_scenarios` scenarios, batch axis `[N]`. `key` fixes problems and rewards."""
    keys = RolloutKeys.create(key)
    played = rollout_scenarios(
        agent,
        environment,
        keys,
        horizon=horizon,
        num_scenarios=num_scenarios,
        first_scenario=first_scenario,
        arm_mask=arm_mask,
        round_mask=round_mask,
    )
    trajectory = jax.tree.map(lambda leaf: leaf[:, 0], played)
    return in_hindsight(trajectory) if isinstance(agent, BestFixedArm) else trajectory


def in_hindsight(trajectory: Trajectory) -> Trajectory:
    """The same rewards, with the arm of the highest sum over all rounds played throughout."""
    earned = jnp.sum(trajectory.reward_table, axis=-2, where=trajectory.played[..., None])
    sums = jnp.where(trajectory.arm_mask, earned, -jnp.inf)
    actions = jnp.broadcast_to(jnp.argmax(sums, axis=-1)[..., None], trajectory.actions.shape)
    return dataclasses.replace(
        trajectory,
        actions=actions,
        rewards=of_action(trajectory.reward_table, actions),
        probabilities=jax.nn.one_hot(actions, trajectory.reward_table.shape[-1]),
    )


@functools.partial(jax.jit, static_argnames=("horizon", "num_scenarios", "mesh"))
def final_regret(
    agent: Agent,
    environment: Environment,
    regret: Regret,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
    round_mask: Bool[Array, "T"] | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "N"]:
    """Regret at the horizon, per scenario; the devices of a mesh deal them out, and play more to fill their shares."""

    def play(
        shares: Shares, agent: Agent, environment: Environment, regret: Regret, key: ScalarKey, *masks: Any
    ) -> Float[Array, "N"]:
        share = -(-num_scenarios // shares.number)
        first = shares.first(share * shares.number)
        played = play_scenarios(agent, environment, key, horizon, share, *masks, first_scenario=first)
        return shares.joined(regret.final(played))[:num_scenarios]

    return on_mesh(mesh, play, agent, environment, regret, key, arm_mask, round_mask)


def play_and_measure(
    agent: Agent,
    environment: Environment,
    regret: Regret,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
) -> Play:
    """Plays one agent and reduces its trajectories to what an evaluation keeps; compiled."""
    program = _compiled_measure(jax.default_backend())
    return program(agent, environment, regret, key, horizon, num_scenarios, arm_mask)


@functools.cache
def _compiled_measure(backend: str) -> Callable[..., Play]:
    # Every agent is a program of its own that runs for about as long as it compiles. On CPU the compiler's lowest
    # level of optimization takes two thirds of the time, and the programs were no slower.
    options = {"xla_backend_optimization_level": 1} if backend == "cpu" else None
    return jax.jit(measure, static_argnums=(4, 5), compiler_options=options)


def measure(
    agent: Agent,
    environment: Environment,
    regret: Regret,
    key: ScalarKey,
    horizon: int,
    num_scenarios: int,
    arm_mask: Bool[Array, "K"] | None = None,
    round_mask: Bool[Array, "T"] | None = None,
) -> Play:
    """What `play_and_measure` compiles."""
    trajectory = play_scenarios(agent, environment, key, horizon, num_scenarios, arm_mask, round_mask)
    return Play(
        regret=regret(trajectory),
        action=trajectory.actions,
        rank=diagnostics.played_rank(trajectory),
        last_best_round=diagnostics.last_best_round(trajectory),
        min_frac=diagnostics.min_frac(trajectory),
        greedy_frac=diagnostics.greedy_frac(trajectory),
        mean_rewards=trajectory.mean_rewards[:, 0],
    )


def in_threads(function: Callable[[S], T], arguments: Iterable[S]) -> list[T]:
    """The function of every argument. Most of the time goes into compilation, which threads share well."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return list(pool.map(function, arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def evaluate(
    agents: Mapping[str, Agent],
    environment: Environment,
    *,
    horizon: int,
    num_scenarios: int,
    key: ScalarKey,
    num_arms: int | None = None,
    regret: Regret | None = None,
) -> xr.Dataset:
    """Plays every agent on the same scenarios with common random numbers.

    Args:
      agents: by name.
      environment: the distribution over problems.
      horizon: rounds T.
      num_scenarios: N.
      key: determines scenarios and reward noise, as far as these do not react to play.
      num_arms: how many of the environment's arms exist, the first ones. None: all.
      regret: what is measured. None: the environment's standard regret.

    Returns:
      A dataset over `agent`, `scenario`, `round` (counted from 1) and `arm`: the arrays of `Play`; of play in a ball,
      those that do not speak of arms.

    Raises:
      ConfigError: if an agent cannot play this many arms or rounds, or under the environment's feedback.
    """
    active = environment.num_arms if num_arms is None else num_arms
    if not 2 <= active <= environment.num_arms:
        raise ConfigError(
            f"got num_arms={active}, need 2 to {environment.num_arms} arms; try num_arms={environment.num_arms}"
        )
    arm_mask = jnp.arange(environment.num_arms) < active
    regret = Regret.of(environment) if regret is None else regret

    def play(agent: Agent) -> Play:
        return jax.device_get(play_and_measure(agent, environment, regret, key, horizon, num_scenarios, arm_mask))

    for agent in agents.values():  # Refused here, before anything compiles.
        require_feedback(agent, environment.feedback)
        jax.eval_shape(functools.partial(agent.init, environment.num_arms, horizon))
    plays = dict(zip(agents, in_threads(play, agents.values()), strict=True))

    dataset = _dataset(plays, regret)
    dataset.attrs |= {"num_arms": active, "feedback": environment.feedback}
    # Play in a ball is no arm.
    return dataset[["regret", "mean_rewards"]] if regret.kind == "ball" else dataset


def _dataset(plays: Mapping[str, Play], regret: Regret) -> xr.Dataset:
    def stacked(field: str, dtype: type) -> np.ndarray:
        return np.stack([getattr(play, field) for play in plays.values()]).astype(dtype)

    per_round, per_scenario = ("agent", "scenario", "round"), ("agent", "scenario")
    num_scenarios, horizon = next(iter(plays.values())).regret.shape
    means = stacked("mean_rewards", np.float32)
    return xr.Dataset(
        {
            "regret": (per_round, stacked("regret", np.float32), {"long_name": f"cumulative {regret.kind} regret"}),
            "action": (per_round, stacked("action", np.int16), {"long_name": "arm played"}),
            "rank": (per_round, stacked("rank", np.int16), {"long_name": "rank of the arm played, 0 is best"}),
            "last_best_round": (
                per_scenario,
                stacked("last_best_round", np.int32),
                {"long_name": "last round with a best arm, 0 if none"},
            ),
            "min_frac": (per_scenario, stacked("min_frac", np.float32), {"long_name": "K * MinFrac(T)"}),
            "greedy_frac": (per_scenario, stacked("greedy_frac", np.float32), {"long_name": "GreedyFrac"}),
            "mean_rewards": (
                ("scenario", "arm"),
                np.where((means == means[0]).all(axis=0), means[0], np.nan),
                {"long_name": "expected reward in the first round, NaN where it depends on the agent"},
            ),
        },
        coords={"agent": list(plays), "round": np.arange(1, horizon + 1)},
        attrs={
            "horizon": horizon,
            "num_scenarios": num_scenarios,
            "regret": regret.kind,
            "regret_form": regret.form,
        },
    )
