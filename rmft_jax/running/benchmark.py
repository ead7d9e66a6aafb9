"""Classical agents side by side on one environment, as the papers set them or tuned."""

import functools
import json
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import xarray as xr

from rmft_jax.agents import Agent, catalogue
from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require_seed
from rmft_jax.method.evaluation import evaluate, final_regret, in_threads
from rmft_jax.method.numerics import pinned
from rmft_jax.problems import Environment, Problem
from rmft_jax.running.progress import ProgressReporter

_NUM_TUNING_SCENARIOS = 512


@pinned()
def bench_agents(
    environment: Environment,
    *,
    horizon: int,
    num_scenarios: int,
    seed: int = 0,
    agents: Mapping[str, Agent] | None = None,
    tune: bool = False,
    reporter: ProgressReporter | None = None,
) -> tuple[xr.Dataset, dict[str, dict[str, float]]]:
    """Plays the classical agents on the same scenarios.

    Args:
      environment: what is played.
      horizon: rounds T.
      num_scenarios: scenarios to play.
      seed: determines scenarios and rewards; tuning has scenarios of its own.
      agents: agents of the catalogue by name, as `make_agents` makes them. None: all that fit.
      tune: whether the free constants of every agent that has some are set first, to those of lowest mean regret.
      reporter: where progress is shown. None: nowhere.

    Returns:
      The dataset of `evaluate`, and the free constants by agent and name.

    Raises:
      ConfigError: if the environment cannot work, or an agent cannot play in it.
    """
    problem = Problem.checked(environment, horizon)
    require_seed(seed)
    agents = catalogue.make_agents(problem) if agents is None else agents
    play_key, tune_key = jax.random.split(jax.random.key(seed))
    reporter = reporter or ProgressReporter.silent()
    if tune:
        with reporter.bar("tuned", len(agents), 0) as bar:
            agents = tune_agents(agents, problem, key=tune_key, watch=bar.tick)
    with reporter.bar("agent", len(agents), 0) as bar:
        dataset = evaluate(agents, problem, num_scenarios=num_scenarios, key=play_key, watch=bar.add)
    constants = {name: found for name, agent in agents.items() if (found := catalogue.constants(agent, name))}
    dataset.attrs |= {
        "seed": seed,
        "tuned": int(tune),
        "environment": json.dumps(environment.flat()),
        "constants": json.dumps(constants),
    }
    return dataset, constants


@pinned()
def tune_agents(
    agents: Mapping[str, Agent],
    problem: Problem,
    *,
    key: ScalarKey,
    num_scenarios: int = _NUM_TUNING_SCENARIOS,
    watch: Callable[[str], None] = lambda name: None,
) -> dict[str, Agent]:
    """Sets the free constants of each agent of the catalogue to the values of its grid with the lowest mean regret.

    The grid holds the values that the agent has, and of several constants all combinations. All values of all agents
    meet the same scenarios and rewards, those of `key`. On the scenarios of an evaluation this gives the best constants
    in hindsight. `watch` is called with the name of every agent when its constants are set.
    """

    def tuned(name: str) -> Agent:
        agent = agents[name]
        grid = catalogue.tuning_grid(agent, name)
        if len(grid) == 1:
            return agent

        def mean_regret(values: dict[str, jax.Array]) -> jax.Array:
            candidate = catalogue.with_constants(agent, values)
            return jnp.mean(final_regret(candidate, problem, key, num_scenarios))

        values = {field: jnp.asarray([point[field] for point in grid]) for field in grid[0]}
        means = jax.jit(functools.partial(jax.lax.map, mean_regret))(values)
        return catalogue.with_constants(agent, grid[int(jnp.argmin(jnp.where(jnp.isnan(means), jnp.inf, means)))])

    return dict(zip(agents, in_threads(tuned, agents, lambda name, agent: watch(name)), strict=True))
