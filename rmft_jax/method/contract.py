"""Whether all parts of a configuration fit together, found out by tracing small shapes, before anything compiles."""

import contextlib
import dataclasses
import functools
import textwrap
from collections.abc import Container, Iterator

import jax
import numpy as np

from rmft_jax.agents.base import Agent
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.config.choices import Choice, is_built_in
from rmft_jax.method.evaluation import measure, play_scenarios
from rmft_jax.method.rmft import iteration
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init
from rmft_jax.problems.contract import require_environment
from rmft_jax.problems.problem import Problem


def require_contract(config: RMFTConfig) -> None:
    """Traces an iteration with the parts that users brought, if there are any.

    Raises:
      ConfigError: if the environment does not do what `require_environment` asks for, or a part returns other shapes or
        types than its base class says, or fails; the message names the parts that are not this package's.
    """
    parts = [getattr(config, field.name) for field in dataclasses.fields(config)]
    foreign = [part for part in parts if isinstance(part, Choice) and not is_built_in(type(part))]
    if not foreign:
        return
    require_environment(config.problem())
    names = " and ".join(f"{part.kind} {part.name or type(part).__name__!r}" for part in foreign)
    with _told(names, "jax.eval_shape(rmft_jax.iterate, state), which shows where"):
        state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
        before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.params)
        after = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), jax.eval_shape(iteration, state)[0].params)
    if before != after:
        raise ConfigError(f"got {names}, after which the parameters have other shapes; try parameters of float32")


def require_agents_of_users(problem: Problem, names: Container[str] | None = None) -> None:
    """Makes the agents that users brought, and traces their play of a problem where they fit.

    Args:
      problem: what training ends with the play of; in a ball none of them plays.
      names: which of them, among others. None: all.

    Raises:
      ConfigError: if one of them fails.
    """
    for name in AGENTS.of_users():
        if problem.points or (names is not None and name not in names):
            continue
        with _told(f"agent {name!r}", f"rmft_jax.evaluate of it alone, with rmft_jax.make_agents(problem, [{name!r}])"):
            agent = AGENTS[name].build(problem)
            if agent is not None:
                jax.eval_shape(functools.partial(measure, agent, problem, num_scenarios=2), jax.random.key(0))
                _require_decisions(name, agent, problem)


def _require_decisions(name: str, agent: Agent, problem: Problem) -> None:
    """Plays a little: numbers that are no decision would become a regret like any other."""
    play = functools.partial(play_scenarios, agent, problem, num_scenarios=4)
    trajectory = jax.jit(play)(jax.random.key(0))
    actions, chances = (np.asarray(array) for array in (trajectory.actions, trajectory.probabilities))
    outside = actions[(actions < 0) | (actions >= problem.num_arms)]
    need = f"one of its {problem.num_arms} arms"
    require(not outside.size, f"action {outside[:1]} of agent {name!r}", need, "an index from 0 to K - 1")
    sums = chances.sum(axis=-1)
    wrong = sums[~(np.isfinite(sums) & (np.abs(sums - 1) < 1e-3) & (chances >= 0).all(axis=-1))]
    got = f"probabilities of agent {name!r} with sum {wrong[:1]}"
    require(not wrong.size, got, "none below 0, and the sum 1", "jax.nn.softmax or jax.nn.one_hot")


@contextlib.contextmanager
def _told(names: str, advice: str) -> Iterator[None]:
    """What fails within is told as a mistake of the named parts."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
        need = "what the docstrings of its base class say"
        raise ConfigError(f"got {names} ({reason}), need {need}; try {advice}") from error
