"""Whether all parts of a configuration fit together, found out by tracing small shapes, before anything compiles."""

import contextlib
import dataclasses
import textwrap
from collections.abc import Container, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError, ScalarKey
from rmft_jax.config.checks import require
from rmft_jax.config.choices import Choice, is_built_in
from rmft_jax.method.evaluation import require_decisions
from rmft_jax.method.judging import Judged, judge
from rmft_jax.method.rmft import iteration, play_rollouts
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, TrainState, init
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
        if not is_built_in(type(config.selection)):
            _require_rollouts(config, state)
    if before != after:
        raise ConfigError(f"got {names}, after which the parameters have other shapes; try parameters of float32")


def _require_rollouts(config: RMFTConfig, state: TrainState) -> None:
    """Lets the rule of selection choose among a few made-up rollouts: numbers that are none would be found as NaN."""
    num_scenarios = min(config.num_scenarios, 8)

    def made_up(key: ScalarKey, leaf: jax.ShapeDtypeStruct) -> Array:
        shape = (num_scenarios, *leaf.shape[1:])
        return jax.random.normal(key, shape) if leaf.dtype == jnp.float32 else jnp.ones(shape, leaf.dtype)

    def judged(state: TrainState) -> Judged:
        problem = state.config.problem()
        return judge(state.config, problem, play_rollouts(state, problem, IterationKeys.of(state))[0])

    leaves, form = jax.tree.flatten(jax.eval_shape(judged, state))
    drawn = map(made_up, jax.random.split(jax.random.key(0), len(leaves)), leaves)
    kept = np.asarray(jax.jit(config.selection.keep)(jax.random.key(1), jax.tree.unflatten(form, drawn)))
    among = num_scenarios * config.num_rollouts // kept.shape[0]
    outside = kept[(kept < 0) | (kept >= among)]
    got, need = f"rollout {outside[:1]} from {type(config.selection).__name__}", f"numbers of 0 to {among - 1}"
    require(not outside.size, got, need, "jax.lax.top_k(-judged.final, self.k)[1], which keeps the lowest regrets")


def require_agents_of_users(problem: Problem, names: Container[str] | None = None) -> None:
    """Makes the agents that users brought, and looks at what they decide in a problem where they fit.

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
                require_decisions(name, agent, problem)


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
