"""Settings of JAX that change numbers, at the values for which results are stated."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.experimental

# Beside those that have contexts of their own; some versions of JAX lack one or another.
_VALUES = {
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Inside it the same seed gives the same numbers whatever JAX was told: float32, Threefry keys, default precision.

    Also a decorator. What `JAX_ENABLE_X64`, `JAX_DEFAULT_PRNG_IMPL` and their like say holds again outside.
    """
    with contextlib.ExitStack() as stack:
        older: Any = jax.experimental
        stack.enter_context(jax.enable_x64(False) if hasattr(jax, "enable_x64") else older.disable_x64())
        stack.enter_context(jax.default_prng_impl("threefry2x32"))
        stack.enter_context(jax.threefry_partitionable(True))
        stack.enter_context(jax.default_matmul_precision(None))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        for name, value in _VALUES.items():
            if (told := jax.config.values.get(name, value)) != value:  # pyright: ignore[reportAttributeAccessIssue]
                stack.callback(jax.config.update, name, told)
                jax.config.update(name, value)
        yield
