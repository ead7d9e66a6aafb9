"""The programs that are compiled for accelerators: ten iterations of a preset, on one device or four, or of a sweep."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from experiments.aot.targets import Target, get_devices
from rmft_jax.config import Value
from rmft_jax.method import rmft
from rmft_jax.method.devices import AXIS
from rmft_jax.method.numerics import pinned
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import abstract_state, state_of
from rmft_jax.problems import Extent
from rmft_jax.sweeps import programs as sweeps
from rmft_jax.sweeps.plan import plan
from rmft_jax.sweeps.spec import Sweep

ITERATIONS = 10
_Change = Mapping[str, Value]


@dataclasses.dataclass(frozen=True)
class Job:
    """A program to compile.

    config: of one run in it. runs: of them, side by side. devices: that share it.
    lower: makes it, still to be compiled, for these devices.
    """

    config: RMFTConfig
    runs: int
    devices: int
    lower: Callable[[list[Any]], Any]

    def lowered(self, target: Target) -> Any:
        """The program for this kind of device, to be compiled.

        Raises:
          ConfigError: if the compiler for it is not installed.
        """
        devices = get_devices(target, self.devices)
        # What the program asks of its device is answered for this one, not for the one that compiles.
        with pinned(), jax.default_device(devices[0]):
            return self.lower(devices)


def chunk(preset: str, change: _Change, number: int = 1, blocks: tuple[int, int] = (0, 0)) -> Job:
    """The fused chunk of a preset, its scenarios shared by devices, in given blocks of rollouts and of an update."""
    settings = {"rollout_block": blocks[0], "update_block": blocks[1], **change}
    config = get_preset(preset).replace(**settings).rmft
    state = abstract_state(config)

    def lower(devices: list[Any]) -> Any:
        mesh = Mesh(devices, (AXIS,)) if number > 1 else None
        return rmft.iterate_chunk.lower(_placed(state, devices, mesh), ITERATIONS, None, mesh)

    return Job(config, 1, number, lower)


def sweep(preset: str, change: _Change, cells: int = 4) -> Job:
    """What a sweep runs: a chunk of a batch of cells of two arm counts, padded to the larger, and their validation."""
    override = {"chunk_size": ITERATIONS, **change}
    (group,) = plan(Sweep(preset, override=override, grid={"num_arms": (3, 5), "seed": range(cells // 2)}).expand())
    config = group.config

    def start(key: Any) -> sweeps.Batch:
        state = state_of(config.rmft, config.rmft.init_params(key), key)
        extent = Extent(jnp.int32(0), jnp.int32(0))
        return sweeps.Batch(state, extent, key, jax.random.key_data(key))

    inputs = jax.eval_shape(lambda key: (jax.vmap(start)(jax.random.split(key, cells)), True), jax.random.key(0))

    def lower(devices: list[Any]) -> Any:
        function = functools.partial(sweeps._advance, ITERATIONS, config.num_validation_scenarios)
        return jax.jit(function, donate_argnums=0).lower(*_placed(inputs, devices, None))

    return Job(config.rmft, cells, 1, lower)


def _placed(tree: Any, devices: list[Any], mesh: Mesh | None) -> Any:
    """Shapes that say where their arrays lie: on the first device, or on all of a mesh."""
    place = SingleDeviceSharding(devices[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)


_LARGE: _Change = {"arms": "one_hot", "width": 32, "num_scenarios": 2048, "num_minibatches": 8}
"""Rollouts as many as a device is worth using for, of a network that is told of its arms in a list."""


def _large(
    make: Callable[..., Job], preset: str, own: _Change | None = None, **options: Any
) -> Callable[[_Change], Job]:
    return lambda change: make(preset, {**_LARGE, **(own or {}), **change}, **options)


PROGRAMS: Mapping[str, Callable[[_Change], Job]] = {
    "mab": _large(chunk, "mab"),
    "mab-k5": _large(chunk, "mab-k5"),
    "fol": functools.partial(chunk, "fol"),
    "mab-k5, caches in bfloat16": _large(chunk, "mab-k5", {"cache_dtype": "bfloat16"}),
    "mab, blocks of 4,096 and 64": _large(chunk, "mab", blocks=(4096, 64)),
    "mab, four devices": _large(chunk, "mab", number=4),
    "mab, four cells of a sweep": _large(sweep, "mab"),
}
"""By name; each takes settings to change."""
