"""Agents on held-out scenarios, all with the same problems and the same reward noise."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from rmft_jax.agents import Agent, BestFixedArm, reference_agent
from rmft_jax.agents.base import RefittedAgent
from rmft_jax.config import ScalarKey, pytree
from rmft_jax.config.checks import require, require_count
from rmft_jax.config.choices import is_built_in
from rmft_jax.config.platforms import platform
from rmft_jax.config.settings import shown
from rmft_jax.method.devices import Shares, on_mesh
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.numerics import pinned
from rmft_jax.method.rollout import require_feedback, rollout_scenarios
from rmft_jax.problems import Problem
from rmft_jax.problems.contract import require_environment
from rmft_jax.problems.regret import Regret, of_action
from rmft_jax.problems.types import Trajectory
from rmft_jax.statistics import diagnostics

S = TypeVar("S")
T = TypeVar("T")
_Array = Array | np.ndarray


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
    invalid: `[N]` fraction of rounds in which what was written named no arm; 0 of agents that do not write.
    """

    regret: Float[_Array, "N T"]
    action: Int[_Array, "N T"]
    rank: Int[_Array, "N T"]
    last_best_round: Int[_Array, "N"]
    min_frac: Float[_Array, "N"]
    greedy_frac: Float[_Array, "N"]
    mean_rewards: Float[_Array, "N K"]
    invalid: Float[_Array, "N"]

    def cut(self, num_arms: int, horizon: int) -> "Play":
        """Without what lies beyond the first arms and rounds."""
        per_round = {name: getattr(self, name)[:, :horizon] for name in ("regret", "action", "rank")}
        return dataclasses.replace(self, **per_round, mean_rewards=self.mean_rewards[:, :num_arms])


def play_scenarios(
    agent: Agent,
    problem: Problem,
    key: ScalarKey,
    num_scenarios: int,
    first_scenario: Int[Array, ""] | int = 0,
) -> Trajectory:
    """One trajectory on each of `num_scenarios` scenarios, batch axis `[N]`. `key` fixes scenarios and rewards."""
    keys = RolloutKeys.create(key)
    played = rollout_scenarios(agent, problem, keys, num_scenarios=num_scenarios, first_scenario=first_scenario)
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


@functools.partial(jax.jit, static_argnames=("num_scenarios", "mesh"))
def final_regret(
    agent: Agent, problem: Problem, key: ScalarKey, num_scenarios: int, mesh: Mesh | None = None
) -> Float[Array, "N"]:
    """Regret at the horizon, per scenario; the devices of a mesh deal them out, and play more to fill their shares."""

    def play(shares: Shares, agent: Agent, problem: Problem, key: ScalarKey) -> Float[Array, "N"]:
        share = -(-num_scenarios // shares.number)
        played = play_scenarios(agent, problem, key, share, shares.first(share * shares.number))
        return shares.joined(problem.regret.final(played))[:num_scenarios]

    return on_mesh(mesh, play, agent, problem, key)


def play_and_measure(agent: Agent, problem: Problem, key: ScalarKey, num_scenarios: int) -> Play:
    """Plays one agent and reduces its trajectories to what an evaluation keeps; compiled."""
    return _compiled_measure(platform())(agent, problem, key, num_scenarios)


@functools.cache
def _compiled_measure(on: str) -> Callable[..., Play]:
    return jax.jit(measure, static_argnums=3, compiler_options=quick_to_compile(on))


def quick_to_compile(on: str) -> dict[str, Any] | None:
    """Compiler options of programs that run for about as long as they compile, such as one agent's evaluation.

    On CPU the compiler's lowest level of optimization takes two thirds of the time, and the programs were no slower.

    Args:
      on: the `platform` of their devices.
    """
    return {"xla_backend_optimization_level": 1} if on == "cpu" else None


def require_decisions(name: str, agent: Agent, problem: Problem) -> None:
    """Plays a little: numbers that are no decision would become a regret like any other.

    Raises:
      ConfigError: if an action is no arm that exists, or probabilities are none.
    """
    play = functools.partial(play_scenarios, agent, problem, num_scenarios=4)
    trajectory = jax.jit(play, compiler_options=quick_to_compile(platform()))(jax.random.key(0))
    actions, chances = (np.asarray(array) for array in (trajectory.actions, trajectory.probabilities))
    active = int(problem.arm_mask.sum())  # The first ones.
    outside = actions[(actions < 0) | (actions >= active)]
    got, need = f"action {outside[:1]} of agent {name!r}", f"one of its {active} arms"
    require(not outside.size, got, need, f"an index from 0 to {active - 1}")
    sums = chances.sum(axis=-1)
    wrong = sums[~(np.isfinite(sums) & (np.abs(sums - 1) < 1e-3) & (chances >= 0).all(axis=-1))]
    got = f"probabilities of agent {name!r} with sum {wrong[:1]}"
    require(not wrong.size, got, "none below 0, and the sum 1", "jax.nn.softmax or jax.nn.one_hot")


def measure(agent: Agent, problem: Problem, key: ScalarKey, num_scenarios: int) -> Play:
    """What `play_and_measure` compiles."""
    return measured(problem, play_scenarios(agent, problem, key, num_scenarios))


def measured(problem: Problem, trajectory: Trajectory) -> Play:
    """What an evaluation keeps of trajectories with one batch axis."""
    return Play(
        regret=problem.regret(trajectory),
        action=trajectory.actions,
        rank=diagnostics.played_rank(trajectory),
        last_best_round=diagnostics.last_best_round(trajectory),
        min_frac=diagnostics.min_frac(trajectory),
        greedy_frac=diagnostics.greedy_frac(trajectory),
        mean_rewards=trajectory.mean_rewards[:, 0],
        invalid=diagnostics.invalid_frac(trajectory),
    )


def in_threads(
    function: Callable[[S], T], arguments: Iterable[S], watch: Callable[[S, T], None] = lambda argument, result: None
) -> list[T]:
    """The function of every argument. Most of the time goes into compilation, which threads share well.

    `watch` is called in this thread with an argument and its result, in the order in which they come.
    """
    pool, pinned_function = ThreadPoolExecutor(os.cpu_count()), pinned()(function)  # JAX's settings are a thread's.
    try:
        futures = {pool.submit(pinned_function, argument): argument for argument in arguments}
        for future in as_completed(futures):
            watch(futures[future], future.result())
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@pinned()
def evaluate(
    agents: Mapping[str, Agent],
    problem: Problem,
    *,
    num_scenarios: int,
    key: ScalarKey,
    given: Mapping[str, Trajectory] | None = None,
    watch: Callable[[str, float], None] = lambda name, regret: None,
) -> xr.Dataset:
    """Plays every agent on the same scenarios with common random numbers.

    Args:
      agents: by name. Who is told of the problem in words is told of this one.
      problem: the distribution over scenarios, and how long they are played.
      num_scenarios: N.
      key: determines scenarios and reward noise, as far as these do not react to play.
      given: by name, what others played on the same scenarios elsewhere; they come first.
      watch: called with the name of every agent, and its mean regret at the horizon, when it has played.

    Returns:
      A dataset over `agent`, `scenario`, `round` (counted from 1) and `arm`: the arrays of `Play`; of play in a ball,
      those that do not speak of arms.

    Raises:
      ConfigError: if the problem or an argument cannot work, the environment does not do what its base class says,
        or an agent cannot play this many arms or rounds, or under the problem's feedback, or what it decides is no
        decision.
    """

    def play(name: str) -> Play:
        if not (problem.points or is_built_in(type(agents[name]))):
            require_decisions(name, agents[name], problem)
        return jax.device_get(play_and_measure(agents[name], problem, key, num_scenarios))

    got = type(agents).__name__
    require(isinstance(agents, Mapping), f"agents={got}", "agents by name", f"{{'mine': {got.lower()}}}")
    require(bool(agents) or bool(given), "no agents", "one at least", "make_baselines(problem)")
    problem.validate()
    require_count(num_scenarios, "num_scenarios", 1, 1000)
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    require(is_key, f"key={shown(key)}", "one key", "jax.random.key(0)")
    require_environment(problem)
    if any(isinstance(agent, RefittedAgent) for agent in agents.values()):
        problem = problem.existing  # Arms that do not exist would be told of.
        made = (one.refitted(problem) if isinstance(one, RefittedAgent) else one for one in agents.values())
        agents = dict(zip(agents, made, strict=True))
    for agent in agents.values():  # Refused here, before anything compiles.
        require_feedback(agent, problem.feedback)
        jax.eval_shape(functools.partial(agent.init, problem.num_arms, problem.horizon))
    others = {name: jax.device_get(measured(problem, played)) for name, played in (given or {}).items()}
    told = in_threads(play, agents, lambda name, played: watch(name, float(played.regret[:, -1].mean())))
    plays = others | dict(zip(agents, told, strict=True))

    dataset = _dataset(plays, problem.regret)
    active = problem.num_arms if problem.extent is None else int(problem.extent.num_arms)
    dataset.attrs |= {"num_arms": active, "feedback": problem.feedback, "reference": reference_agent(problem)}
    # Play in a ball is no arm.
    return dataset[["regret", "mean_rewards"]] if problem.points else dataset


def _dataset(plays: Mapping[str, Play], regret: Regret) -> xr.Dataset:
    def stacked(field: str, dtype: Any) -> np.ndarray:
        return np.stack([getattr(play, field) for play in plays.values()]).astype(dtype)

    per_round, per_scenario = ("agent", "scenario", "round"), ("agent", "scenario")
    num_scenarios, horizon = next(iter(plays.values())).regret.shape
    means = stacked("mean_rewards", np.float32)
    arm = np.min_scalar_type(-means.shape[-1])  # The smallest that holds every arm.
    arm = np.promote_types(arm, np.int16)
    return xr.Dataset(
        {
            "regret": (per_round, stacked("regret", np.float32), {"long_name": f"cumulative {regret.kind} regret"}),
            "action": (per_round, stacked("action", arm), {"long_name": "arm played"}),
            "rank": (per_round, stacked("rank", arm), {"long_name": "rank of the arm played, 0 is best"}),
            "last_best_round": (
                per_scenario,
                stacked("last_best_round", np.int32),
                {"long_name": "last round with a best arm, 0 if none"},
            ),
            "min_frac": (per_scenario, stacked("min_frac", np.float32), {"long_name": "K * MinFrac(T)"}),
            "greedy_frac": (per_scenario, stacked("greedy_frac", np.float32), {"long_name": "GreedyFrac"}),
            "invalid": (
                per_scenario,
                stacked("invalid", np.float32),
                {"long_name": "share of answers that name no arm"},
            ),
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
