"""How the benchmarks measure: interleaved repeats, the machine's own limit, and counted operations."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from rmft_jax.agents import Transformer
from rmft_jax.method import rollout
from rmft_jax.method.devices import Shares, on_mesh, program_options, replicated
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.settings import RMFTConfig

GEMM_SIZE = 2048
READ_BYTES, READ_TIMES = 8_000_000, 50
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Spread:
    """Rates of several repeats, per second: median, lowest, highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """That of some values."""
        return cls(statistics.median(values), min(values), max(values))


def interleaved(tasks: Mapping[str, Callable[[], None]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of every task, `repeats` times in turn, so that what slows the machine down slows all of them.

    Args:
      tasks: calls that return when their work is done. Each is called once beforehand.
      repeats: how often each has its turn.
      seconds: how long a turn should take; short tasks are called several times in it.
    """
    calls = {}
    for name, task in tasks.items():
        task()
        started = time.perf_counter()
        task()
        calls[name] = max(1, round(seconds / (time.perf_counter() - started)))
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                task()
            found[name].append((time.perf_counter() - started) / calls[name])
    return found


def speedup(own: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times faster the first is than the second, pair by pair, given seconds."""
    return Spread.of([slow / fast for fast, slow in zip(own, other, strict=True)])


def gemm() -> Callable[[], None]:
    """A product of two square float32 matrices of `GEMM_SIZE`, on one device with all of its threads.

    At full float32 precision, which on GPUs is not the default.
    """
    matrix = jax.random.normal(jax.random.key(0), (GEMM_SIZE, GEMM_SIZE))
    with jax.default_matmul_precision("highest"):
        product = jax.jit(jnp.dot).lower(matrix, matrix).compile()
    return lambda: jax.block_until_ready(product(matrix, matrix))


def rollout_flops(config: RMFTConfig) -> float:
    """Floating-point operations of all rollouts of an iteration, as the algorithm needs them.

    A round costs `2 (2K + 1) D` for the token, `24 D^2 + 4 D t` per layer (with an MLP of ratio 4; its own scores and
    sums over the t rounds so far), and `2 D K` for the logits; a multiplication and an addition count as two. Norms,
    softmax and noise are left out, and so is whatever is computed on padding: what wastes work has a lower rate.
    """
    policy, horizon = config.policy, config.horizon
    assert isinstance(policy, Transformer)
    # The policy counts a round that reads a whole cache; here the first reads one round, the last T, and the cost of
    # the others lies on a line between. It leaves out the start marker of the token.
    problem = config.problem()
    ends = [policy.round_flops(dataclasses.replace(problem, horizon=seen)) for seen in (1, horizon)]
    return env_steps(config) * (sum(ends) / 2 + 2 * policy.width)


def iteration_flops(config: RMFTConfig) -> float:
    """Those of a whole iteration: the rollouts, and three forward passes' worth for every imitated trajectory."""
    assert isinstance(config.update, GradientSteps)
    share = 3 * config.update.num_epochs * config.selection.k / config.num_rollouts
    return rollout_flops(config) * (1 + share)


def env_steps(config: RMFTConfig) -> int:
    """Rounds played in an iteration."""
    return config.num_scenarios * config.num_rollouts * config.horizon


def peak_memory(compiled: Any) -> int | None:
    """Bytes that a compiled program needs at once, by XLA's own account: inputs, outputs and temporaries."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    return int(
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
    )


def read_bytes(config: RMFTConfig) -> float:
    """Bytes of keys and values that all rollouts of an iteration must read: those of the rounds up to each."""
    policy = config.policy
    assert isinstance(policy, Transformer)
    size = jnp.dtype(policy.cache_dtype).itemsize
    return env_steps(config) * policy.num_layers * 2 * size * policy.width * (config.horizon + 1) / 2


def reading(mesh: Mesh | None, num_bytes: int = READ_BYTES) -> Callable[[], None]:
    """Every device reads an array `READ_TIMES` times: x'v, with new v; on accelerators the sum of x'v.

    Args:
      mesh: the devices; None: one.
      num_bytes: of the array. By default about the states of a block of rollouts, which a CPU's cache holds; the memory
        itself is measured by arrays that no cache holds.
    """
    # A CPU reads fastest by a product with a vector. How an accelerator's libraries do that is their choice; a sum is a
    # plain pass over the memory.
    on_cpu = jax.default_backend() == "cpu"
    width = 64 if on_cpu else 1024
    rows = jnp.ones((num_bytes // (4 * width), width))

    def program(shares: Shares, rows: Float[Array, "n d"]) -> Float[Array, "d"]:
        del shares

        def once(_: int, vector: Float[Array, "d"]) -> Float[Array, "d"]:
            return vector + 1e-30 * ((rows @ vector)[:width] if on_cpu else jnp.sum(rows * vector[None]))

        return jax.lax.fori_loop(0, READ_TIMES, once, jnp.ones(width))

    given = replicated(rows, mesh)
    compiled = jax.jit(functools.partial(on_mesh, mesh, program)).lower(given).compile(program_options(mesh))
    return lambda: jax.block_until_ready(compiled(given))


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """The seconds of every program that XLA compiles inside the block, or has from a cache on file."""
    found: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def own_pasts() -> Iterator[None]:
    """Inside it, programs are traced in which rollouts that branch do not share the rounds before."""

    def one_group(num_scenarios: int, num_rollouts: int, block: int) -> rollout.Grouping:
        return rollout.Grouping(
            num_scenarios, num_rollouts, block, 1, 1, num_scenarios
        )  # It begins at the first round.

    with mock.patch.object(rollout.Grouping, "of", one_group):
        jax.clear_caches()  # JAX remembers what it traced.
        yield
    jax.clear_caches()


def error_line(error: BaseException) -> str:
    """An error in one line: its kind, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}".removesuffix(": ")
