"""The compiled programs of a group of cells.

Cells of one structure differ in numbers only: seeds, float settings, and how many of the padded arms and rounds are in
use. These are inputs, stacked along a batch axis over which the programs are vmapped. There are three programs: one
draws the weights of a batch, one runs a chunk of iterations and validates a batch, and one evaluates a cell.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from rmft_jax.agents import Agent
from rmft_jax.config import Fixed, Params, ScalarKey, pytree
from rmft_jax.config.platforms import platform
from rmft_jax.method import rmft
from rmft_jax.method.evaluation import Play, final_regret, measure, quick_to_compile
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, make_agent, state_of
from rmft_jax.problems import Extent, Problem
from rmft_jax.running.trainer import RunKeys
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.spec import Cell


@pytree
class Batch:
    """Cells in training, stacked along the axis `[B]` of every leaf.

    state: where training stands.
    extent: how many of the padded arms and rounds are in use.
    validation_key: `[B]` what validation scenarios are drawn from.
    test_key: `[B, 2]` what test scenarios are drawn from, as plain numbers, which can be indexed without compiling.
    """

    state: TrainState
    extent: Extent
    validation_key: Key[Array, "B"]
    test_key: UInt32[Array, "B 2"]


class Programs:
    """Compiles each program of a group when it is first needed, and keeps it for all further batches.

    compile_seconds: spent on that so far. num_compiled: programs compiled so far. on_compile: told about each.
    """

    def __init__(self, group: Group, on_compile: Callable[[str], None] = lambda line: None):
        self._group, self._on_compile = group, on_compile
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self.compile_seconds, self.num_compiled = 0.0, 0

    def start(self, cells: Sequence[Cell]) -> Batch:
        """Random weights, or those of the theory, for every cell: the very ones of its run by itself."""
        sizes = _sizes(self._group)
        configs = [padded_config(cell, self._group) for cell in cells]
        inputs = (
            jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *configs),
            np.asarray([cell.config.seed for cell in cells], np.uint32),
            np.asarray([sizes.index(_size(cell, self._group)) for cell in cells], np.int32),
            jax.tree.map(lambda *sizes: np.asarray(sizes, np.int32), *map(_extent, cells)),
            jax.tree.map(lambda *leaves: np.stack(leaves), *(config.fixed_params() for config in configs)),
        )
        function = jax.vmap(functools.partial(_start, sizes))
        return self._call(function, *inputs, name="start", compiler_options=quick_to_compile(platform()))

    def advance(self, batch: Batch, run: bool) -> tuple[Batch, IterationMetrics, Float[Array, "B N"], Bool[Array, "B"]]:
        """Runs one chunk of iterations, or none if `run` is false, and validates what came out.

        The given batch is donated. Returns the batch, the metrics `[B, n]` of the chunk (zeros if there was none), the
        regrets of the validation scenarios, and which cells have finite parameters only.
        """
        config = self._group.config
        function = functools.partial(_advance, config.chunk_size, config.num_validation_scenarios)
        return self._call(function, batch, np.asarray(run), name="advance", donate_argnums=0)

    def evaluate(self, agents: Mapping[str, Agent], cell: Cell, key: UInt32[Any, "2"]) -> dict[str, Play]:
        """Every agent on the test scenarios of a cell, which are drawn from the key of these numbers; padded."""
        function = functools.partial(_evaluate, cell.config.num_test_scenarios)
        problem = padded_config(cell, self._group).problem(_extent(cell))
        problem = jax.tree.map(lambda leaf: np.int32(leaf) if isinstance(leaf, int) else np.float32(leaf), problem)
        options = quick_to_compile(platform())
        plays = jax.device_get(
            self._call(function, dict(agents), problem, key, name="evaluate", compiler_options=options)
        )
        return {name: plays[name] for name in agents}  # JAX sorts them.

    def _call(self, function: Callable[..., Any], *inputs: Any, name: str, **options: Any) -> Any:
        shapes = jax.tree.map(jax.typeof, inputs)
        leaves, structure = jax.tree.flatten(shapes)
        identity = (name, structure, tuple(leaves))
        if identity not in self._compiled:
            started = time.perf_counter()
            self._compiled[identity] = jax.jit(function, **options).lower(*inputs).compile()
            seconds = time.perf_counter() - started
            self.compile_seconds += seconds
            self.num_compiled += 1
            rmft = self._group.config.rmft
            sizes = f"T <= {rmft.horizon}, K <= {rmft.environment.num_arms}"
            self._on_compile(f"compiled `{name}` for {sizes} in {seconds:.1f} s")
        return self._compiled[identity](*inputs)


def padded_config(cell: Cell, group: Group) -> RMFTConfig:
    """The algorithm of a cell, at the sizes of its group."""
    padded = group.config.rmft
    return cell.config.rmft.replace(horizon=padded.horizon, num_arms=padded.environment.num_arms)


def _extent(cell: Cell) -> Extent:
    return Extent(cell.config.rmft.environment.num_arms, cell.config.rmft.horizon)


def _size(cell: Cell, group: Group) -> tuple[int, int]:
    """The arms and rounds that the shapes of the weights depend on."""
    own, padded = cell.config.rmft, group.config.rmft
    return own.environment.num_arms, padded.horizon if own.policy.any_horizon else own.horizon


def _sizes(group: Group) -> tuple[tuple[int, int], ...]:
    return tuple(sorted({_size(cell, group) for cell in group.cells}))


def own_problem(config: RMFTConfig, num_arms: int, horizon: int) -> Problem:
    """The problem of a padded configuration at a size of its own."""
    problem = config.problem()
    environment = dataclasses.replace(problem.environment, num_arms=num_arms)
    return dataclasses.replace(problem, environment=environment, horizon=horizon)


def _start(
    sizes: tuple[tuple[int, int], ...],
    config: RMFTConfig,
    seed: UInt32[Array, ""],
    size: Int[Array, ""],
    extent: Extent,
    fixed: Fixed | None,
) -> Batch:
    """The start of one cell, whose weights have the size of that index."""
    keys = RunKeys.create(seed)
    params_key, train_key = jax.random.split(keys.train)  # As `init` has it.
    drawn = []
    for num_arms, horizon in sizes:
        own = own_problem(config, num_arms, horizon)
        drawn.append(config.policy.padded(config.policy.init_params(params_key, own), own, config.problem()))
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves)[size], *drawn)
    return Batch(state_of(config, params, train_key, fixed), extent, keys.validation, jax.random.key_data(keys.test))


def _advance(
    chunk_size: int, num_scenarios: int, batch: Batch, run: Bool[Array, ""]
) -> tuple[Batch, IterationMetrics, Float[Array, "B N"], Bool[Array, "B"]]:
    def chunk(state: TrainState) -> tuple[TrainState, IterationMetrics]:
        return _for_each(lambda one, extent: rmft.iterate_chunk(one, chunk_size, extent))(state, batch.extent)

    def nothing(state: TrainState) -> tuple[TrainState, IterationMetrics]:
        metrics = jax.eval_shape(chunk, state)[1]
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

    def validate(state: TrainState, extent: Extent, key: ScalarKey) -> Float[Array, "N"]:
        return final_regret(make_agent(state), state.config.problem(extent), key, num_scenarios)

    state, metrics = jax.lax.cond(run, chunk, nothing, batch.state)
    regret = _for_each(validate)(state, batch.extent, batch.validation_key)
    finite = jax.vmap(_all_finite)(state.params)
    return dataclasses.replace(batch, state=state), metrics, regret, finite


def _for_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function over the first axis of its arguments. One cell by itself runs faster without an axis of length 1."""

    def mapped(*stacked: Any) -> Any:
        if jax.tree.leaves(stacked)[0].shape[0] > 1:
            return jax.vmap(function)(*stacked)
        return jax.tree.map(lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf[0], stacked)))

    return mapped


def _all_finite(params: Params) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))


def _evaluate(
    num_scenarios: int, agents: dict[str, Agent], problem: Problem, key: UInt32[Array, "2"]
) -> dict[str, Play]:
    test_key = jax.random.wrap_key_data(key)
    return {name: measure(agent, problem, test_key, num_scenarios) for name, agent in agents.items()}


class BatchStepper:
    """The cells of a batch, trained in step by the programs of their group (`running.trainer.Stepper`).

    batch: where they stand.
    """

    def __init__(self, programs: Programs, batch: Batch):
        self._programs, self.batch = programs, batch

    @property
    def state(self) -> TrainState:
        """The training states, stacked over cells."""
        return self.batch.state

    @property
    def compile_seconds(self) -> float:
        """Spent by the programs so far."""
        return self._programs.compile_seconds

    def advance(self, run: bool) -> tuple[IterationMetrics, Float[Array, "B N"], Bool[np.ndarray, "B"]]:
        """See `running.trainer.Stepper`."""
        self.batch, metrics, regret, finite = self._programs.advance(self.batch, run)
        return metrics, regret, np.asarray(finite)
