"""The register of agents, those of this package and those of users: where each fits, and what tuning sets."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast

import jax

from rmft_jax.agents.base import Agent
from rmft_jax.config import ConfigError, Register, pytree
from rmft_jax.config.checks import first_line, require
from rmft_jax.config.names import TRAINED, is_trained
from rmft_jax.problems import Problem

Build = Callable[[Problem], Agent | None]
Grids = Mapping[str, tuple[float, ...]]
M = TypeVar("M", bound=Callable[..., Any])


class CatalogueEntry(NamedTuple):
    """How an agent is made.

    build: from a problem, with parameters that fit it; None if it does not fit.
    grids: the values that tuning tries, for each of the parameters that it sets.
    fit: whether it fits, for agents that take long to make; None: whatever is made fits.
    """

    build: Build
    grids: Grids = MappingProxyType({})
    fit: Callable[[Problem], bool] | None = None

    def fits(self, problem: Problem) -> bool:
        """Whether the agent can play a problem."""
        return self.build(problem) is not None if self.fit is None else self.fit(problem)


class AgentRegister(Register[CatalogueEntry]):
    """The register of agents: a decorator of their classes, or of functions that make them, name first."""

    def __call__(self, name: str, *, grids: Mapping[str, Iterable[float]] | None = None) -> Callable[[M], M]:
        """Registers an agent, which from then on plays wherever it fits.

        Args:
          name: of the agent.
          grids: the fields that tuning sets, and the values that it tries beside their defaults; of several fields,
            all combinations.

        Returns:
          A decorator of a function that maps a problem to an agent, or to None where it does not fit; or of a class
          with the methods of `Agent` and defaults for all fields, which fits wherever its `feedback` is given.

        Raises:
          ConfigError: if the class lacks a method, or the name is taken or that of a trained policy.
        """
        self.require_name(name)
        require(not is_trained(name), f"agent {name!r}", f"a name that does not begin with {TRAINED}", "my_agent")
        try:
            values = {field: tuple(map(float, grid)) for field, grid in (grids or {}).items()}
        except (TypeError, ValueError):
            need = "numbers for every field"
            raise ConfigError(f"got grids={grids} of agent {name!r}, need {need}; try {{'c': (0.5, 1.0)}}") from None

        def register(made: M) -> M:
            given: Any = made
            is_class = isinstance(given, type)
            build = _builder_of(name, given, values) if is_class else _watched(name, given, values)
            self.add(name, CatalogueEntry(build, values), made)
            return made

        return register


AGENTS = AgentRegister("agent")
_PARTS = ("init", "act", "observe", "feedback")
"""What every agent has."""


def _watched(name: str, function: Callable[[Problem], Any], grids: Iterable[str]) -> Build:
    """A user's function that makes an agent, whose mistakes are told in a line."""

    def build(problem: Problem) -> Agent | None:
        what = f"agent {name!r}"
        try:
            made = function(problem)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"got {what} ({first_line(error)}), need a function that makes it of a problem; "
                "try returning None where it does not fit"
            ) from error
        if made is None:
            return None
        missing = [part for part in _PARTS if not hasattr(made, part)]
        got = f"{made.__name__}, a class, for {what}" if isinstance(made, type) else f"{type(made).__name__} for {what}"
        called = f"return {made.__name__}(...)" if isinstance(made, type) else "return MyAgent(...)"
        require(not missing and not isinstance(made, type), got, "an object with all methods of Agent, or None", called)
        unknown = [field for field in grids if not hasattr(made, field)]
        require(
            not unknown, f"grids of {', '.join(unknown)} for {what}", f"fields of {type(made).__name__}", "grids={}"
        )
        return cast(Agent, made)

    return build


def _builder_of(name: str, made: Any, grids: Iterable[str]) -> Build:
    what = f"agent {name!r} ({made.__name__})"
    abstract = getattr(made, "__abstractmethods__", ())
    missing = [part for part in _PARTS if not hasattr(made, part)] + sorted(abstract)
    advice = "feedback = ('bandit',)" if missing == ["feedback"] else f"def {(*missing, '')[0]}"
    require(not missing, f"{what} without {', '.join(missing)}", "all that an agent has", advice)
    try:
        kind = made if "__dataclass_fields__" in vars(made) else pytree(made)
        default = kind()
    except TypeError as error:
        raise ConfigError(f"got {what} ({error}), need a default for every field; try adding it") from None
    is_pytree = not jax.tree_util.all_leaves([default])
    require(is_pytree, f"{what}, a dataclass unknown to JAX", "one that is a pytree", "it without @dataclass")
    unknown = [field for field in grids if field not in kind.__dataclass_fields__]
    need = f"fields of it ({', '.join(kind.__dataclass_fields__) or 'none'})"
    require(not unknown, f"grids of {', '.join(unknown)} for {what}", need, "grids={}")
    return lambda problem: default if problem.feedback in kind.feedback else None
