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

from rmft_jax import rmft
from rmft_jax.agents import Agent, init_params
from rmft_jax.agents.padding import pad_params
from rmft_jax.config import RMFTConfig
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import Play, final_regret, measure
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.spec import Cell
from rmft_jax.training import RunKeys
from rmft_jax.types import Extent, IterationMetrics, Params, ScalarKey, TrainState, pytree


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
        )
        function = jax.vmap(functools.partial(_start, sizes))
        return self._call(function, *inputs, name="start", compiler_options=_quick_to_compile())

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
        padded = jax.tree.map(np.float32, padded_config(cell, self._group))
        inputs = (dict(agents), padded, jax.tree.map(np.int32, _extent(cell)), key)
        plays = jax.device_get(self._call(function, *inputs, name="evaluate", compiler_options=_quick_to_compile()))
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


def _quick_to_compile() -> dict[str, Any] | None:
    """For programs that run for about as long as they compile; see `evaluation`."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def padded_config(cell: Cell, group: Group) -> RMFTConfig:
    """The algorithm of a cell, at the sizes of its group."""
    own, padded = cell.config.rmft, group.config.rmft
    environment = dataclasses.replace(own.environment, num_arms=padded.environment.num_arms)
    return dataclasses.replace(own, horizon=padded.horizon, environment=environment)


def _extent(cell: Cell) -> Extent:
    return Extent(cell.config.rmft.environment.num_arms, cell.config.rmft.horizon)


def _size(cell: Cell, group: Group) -> tuple[int, int]:
    """The arms and rounds that the shapes of the weights depend on."""
    policy, horizon = cell.config.rmft.policy, group.config.rmft.horizon
    if getattr(policy, "position", None) == "learned":
        horizon = cell.config.rmft.horizon
    return cell.config.rmft.environment.num_arms, horizon


def _sizes(group: Group) -> tuple[tuple[int, int], ...]:
    return tuple(sorted({_size(cell, group) for cell in group.cells}))


def _start(
    sizes: tuple[tuple[int, int], ...],
    config: RMFTConfig,
    seed: UInt32[Array, ""],
    size: Int[Array, ""],
    extent: Extent,
) -> Batch:
    """The start of one cell, whose weights have the size of that index."""
    keys = RunKeys.create(seed)
    params_key, train_key = jax.random.split(keys.train)  # As `rmft.init` has it.
    drawn = []
    for num_arms, horizon in sizes:
        environment = dataclasses.replace(config.environment, num_arms=num_arms)
        own = dataclasses.replace(config, environment=environment, horizon=horizon)
        drawn.append(pad_params(init_params(own, params_key), own, config))
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves)[size], *drawn)
    return Batch(rmft.state_of(config, params, train_key), extent, keys.validation, jax.random.key_data(keys.test))


def _advance(
    chunk_size: int, num_scenarios: int, batch: Batch, run: Bool[Array, ""]
) -> tuple[Batch, IterationMetrics, Float[Array, "B N"], Bool[Array, "B"]]:
    def chunk(state: TrainState) -> tuple[TrainState, IterationMetrics]:
        return jax.vmap(lambda one, extent: rmft.iterate_chunk(one, chunk_size, extent))(state, batch.extent)

    def nothing(state: TrainState) -> tuple[TrainState, IterationMetrics]:
        metrics = jax.eval_shape(chunk, state)[1]
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

    def validate(state: TrainState, extent: Extent, key: ScalarKey) -> Float[Array, "N"]:
        config = state.config
        return final_regret(
            rmft.make_agent(state),
            make_environment(config.environment),
            rmft.setting_regret(config),
            key,
            config.horizon,
            num_scenarios,
            extent.arm_mask(config.environment.num_arms),
            extent.round_mask(config.horizon),
        )

    state, metrics = jax.lax.cond(run, chunk, nothing, batch.state)
    regret = jax.vmap(validate)(state, batch.extent, batch.validation_key)
    finite = jax.vmap(_all_finite)(state.params)
    return dataclasses.replace(batch, state=state), metrics, regret, finite


def _all_finite(params: Params) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))


def _evaluate(
    num_scenarios: int, agents: dict[str, Agent], config: RMFTConfig, extent: Extent, key: UInt32[Array, "2"]
) -> dict[str, Play]:
    environment, regret = make_environment(config.environment), rmft.setting_regret(config)
    arm_mask, round_mask = extent.arm_mask(config.environment.num_arms), extent.round_mask(config.horizon)
    return {
        name: measure(
            agent,
            environment,
            regret,
            jax.random.wrap_key_data(key),
            config.horizon,
            num_scenarios,
            arm_mask,
            round_mask,
        )
        for name, agent in agents.items()
    }
