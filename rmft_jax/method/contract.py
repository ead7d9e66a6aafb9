"""Whether all parts of a configuration fit together, found out by tracing small shapes, before anything compiles."""

import dataclasses
import textwrap

import jax

from rmft_jax.config import ConfigError
from rmft_jax.config.choices import Choice, is_built_in
from rmft_jax.method.rmft import iteration
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init
from rmft_jax.problems.contract import require_environment


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
    try:
        state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
        before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.params)
        after = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), jax.eval_shape(iteration, state)[0].params)
    except ConfigError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
        raise ConfigError(
            f"got {names} ({reason}), need what the docstrings of its base class say; "
            "try jax.eval_shape(rmft_jax.iterate, state), which shows where"
        ) from error
    if before != after:
        raise ConfigError(f"got {names}, after which the parameters have other shapes; try parameters of float32")
