"""Classical agents side by side on one environment, as the papers set them or tuned."""

import functools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import xarray as xr

from rmft_jax.agents import Agent, catalogue
from rmft_jax.config import EnvironmentConfig, environment_to_dict
from rmft_jax.config.checks import require_seed
from rmft_jax.environments import Environment, make_environment
from rmft_jax.evaluation import evaluate, final_regret, in_threads
from rmft_jax.regret import Regret
from rmft_jax.types import ScalarKey

_NUM_TUNING_SCENARIOS = 512


def bench_agents(
    config: EnvironmentConfig,
    *,
    horizon: int,
    num_scenarios: int,
    seed: int = 0,
    agents: Mapping[str, Agent] | None = None,
    tune: bool = False,
) -> tuple[xr.Dataset, dict[str, float]]:
    """Plays the classical agents on the same scenarios.

    Args:
      config: the environment.
      horizon: rounds T.
      num_scenarios: scenarios to play.
      seed: determines scenarios and rewards; tuning has scenarios of its own.
      agents: agents of the catalogue by name, as `make_agents` makes them. None: all that fit.
      tune: whether the free constant of every agent that has one is set first, to the value of lowest mean regret.

    Returns:
      The dataset of `evaluate`, and the free constants by agent.

    Raises:
      ConfigError: if the environment cannot work, or an agent cannot play in it.
    """
    config.validate(horizon)
    require_seed(seed)
    environment = make_environment(config)
    agents = catalogue.make_agents(config, horizon) if agents is None else agents
    play_key, tune_key = jax.random.split(jax.random.key(seed))
    if tune:
        agents = tune_agents(agents, environment, horizon=horizon, key=tune_key)
    dataset = evaluate(agents, environment, horizon=horizon, num_scenarios=num_scenarios, key=play_key)
    constants = {
        name: float(getattr(agent, constant))
        for name, agent in agents.items()
        if (constant := catalogue.AGENTS[name].constant) is not None
    }
    dataset.attrs |= {
        "reference": catalogue.reference_agent(config, horizon),
        "seed": seed,
        "tuned": int(tune),
        "environment": json.dumps(environment_to_dict(config)),
        "constants": json.dumps(constants),
    }
    return dataset, constants


def tune_agents(
    agents: Mapping[str, Agent],
    environment: Environment,
    *,
    horizon: int,
    key: ScalarKey,
    num_scenarios: int = _NUM_TUNING_SCENARIOS,
    regret: Regret | None = None,
) -> dict[str, Agent]:
    """Sets the free constant of each agent of the catalogue to the value of its grid with the lowest mean regret.

    All values of all agents meet the same scenarios and rewards, those of `key`. On the scenarios of an evaluation
    this gives the best constant in hindsight.
    """
    measure = Regret.of(environment) if regret is None else regret

    def tuned(name: str) -> Agent:
        agent, entry = agents[name], catalogue.AGENTS[name]
        if entry.constant is None:
            return agent

        def mean_regret(value: jax.Array) -> jax.Array:
            candidate = catalogue.with_constant(agent, name, value)
            return jnp.mean(final_regret(candidate, environment, measure, key, horizon, num_scenarios))

        means = jax.jit(functools.partial(jax.lax.map, mean_regret))(jnp.asarray(entry.grid))
        return catalogue.with_constant(agent, name, entry.grid[int(jnp.argmin(means))])

    return dict(zip(agents, in_threads(tuned, agents), strict=True))
