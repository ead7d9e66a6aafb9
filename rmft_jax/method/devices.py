"""Several devices: each plays its share of the scenarios, and all make the same update."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from rmft_jax.config.checks import ConfigError, largest_divisor, require, require_count
from rmft_jax.config.platforms import platform

AXIS = "scenarios"
"""Name of the only axis of a mesh."""
_T = TypeVar("_T")
_R = TypeVar("_R")
_EVERYWHERE = P()


@dataclasses.dataclass(frozen=True)
class Shares:
    """What a program that runs on every device of a mesh knows of the others; with a single share there are none.

    number: of devices.
    """

    number: int = 1

    def require_even(self, count: int, name: str) -> None:
        """Raises `ConfigError` if something cannot be dealt out in equal shares."""
        divides = count % self.number == 0
        require(divides, f"{name}={count} on {self.number} devices", "a multiple", f"{name}={self.number * count}")

    def first(self, count: int) -> Int[Array, ""] | int:
        """The first of `count` things that belong to this device."""
        return 0 if self.number == 1 else jax.lax.axis_index(AXIS) * (count // self.number)

    def own(self, tree: _T) -> _T:
        """This device's share of the leading axis of every leaf, which all devices hold."""

        def part(leaf: Any) -> Any:
            return jax.lax.dynamic_slice_in_dim(leaf, self.first(len(leaf)), len(leaf) // self.number)

        return tree if self.number == 1 else jax.tree.map(part, tree)

    def joined(self, tree: _T) -> _T:
        """The shares of all devices, one after the other along the leading axis."""
        return tree if self.number == 1 else jax.lax.all_gather(tree, AXIS, tiled=True)

    def sum(self, tree: _T) -> _T:
        """The sum over all devices."""
        return tree if self.number == 1 else jax.lax.psum(tree, AXIS)

    def mean(self, tree: _T) -> _T:
        """The mean over all devices."""
        return tree if self.number == 1 else jax.lax.pmean(tree, AXIS)


ALONE = Shares()
"""One device."""


def all_devices() -> list[Any]:
    """The devices of all processes.

    Raises:
      ConfigError: if the platform that JAX was told has none.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0] or "it has no device here"
        got = f"platform {os.environ.get('JAX_PLATFORMS', 'of JAX')} ({reason})"
        raise ConfigError(f"got {got}, need one that JAX can start; try JAX_PLATFORMS=cpu") from error


def make_mesh(num_devices: int | None = None, num_scenarios: int = 0) -> Mesh | None:
    """The first `num_devices` devices of all processes; None if that is one.

    Args:
      num_devices: None: as many as there are and share `num_scenarios` evenly, which all do if it is 0.
      num_scenarios: M, what they share.

    Raises:
      ConfigError: if there are fewer devices, or the shares would be uneven, or a process would be left without any.
    """
    devices = all_devices()
    if num_devices is None:
        num_devices = largest_divisor(num_scenarios, len(devices)) if num_scenarios else len(devices)
    require_count(num_devices, "num_devices", 1, len(devices))
    require(num_devices <= len(devices), f"num_devices={num_devices}", f"at most {len(devices)}", "fewer")
    Shares(num_devices).require_even(num_scenarios, "num_scenarios")
    require(
        jax.process_count() == 1 or num_devices == len(devices),
        f"{num_devices} of {len(devices)} devices in {jax.process_count()} processes",
        "all of them",
        f"fewer processes, or num_scenarios a multiple of {len(devices)}",
    )
    return Mesh(devices[:num_devices], (AXIS,)) if num_devices > 1 else None


def on_mesh(mesh: Mesh | None, program: Callable[..., _R], *inputs: Any, out: P = _EVERYWHERE) -> _R:
    """Runs `program(shares, *inputs)`, on every device of a mesh if there is one; all hold the inputs, and the outputs
    unless `out` says otherwise. The program may ask for its `platform()`, which is that of the mesh.
    """
    if mesh is None:
        return program(ALONE, *inputs)
    sharded = functools.partial(program, Shares(mesh.size))
    # Told only where it differs: JAX compiles anew for another default device.
    other = platform(mesh) != platform()
    with jax.default_device(mesh.devices.flat[0]) if other else contextlib.nullcontext():
        return jax.shard_map(sharded, mesh=mesh, in_specs=_EVERYWHERE, out_specs=out, check_vma=False)(*inputs)


def replicated(tree: _T, mesh: Mesh | None) -> _T:
    """The arrays, which every process has, on every device of a mesh, if there is one."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, _EVERYWHERE)

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # Only plain numbers can be put on the devices of other processes.
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf), everywhere)

    return jax.tree.map(put, tree)


def local(tree: _T) -> _T:
    """This process's copy of arrays that all devices hold."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def program_options(mesh: Mesh | None) -> dict[str, Any]:
    """Compiler options of a program that runs on a mesh.

    On CPU, where every core is a device, single operations are not split over threads that are busy with others.
    """
    on_cores = mesh is not None and platform(mesh) == "cpu"
    return {"xla_cpu_multi_thread_eigen": False} if on_cores else {}


def use_cores(num_devices: int | None = None) -> None:
    """On CPU, makes `num_devices` devices, by default one of every core, unless JAX has started or was told already.

    One device with all cores splits single operations over them; a device per core splits the scenarios, which costs
    nothing. The device count that JAX was told is its option `jax_num_cpu_devices` or the flag of XLA.
    """
    if num_devices is not None:
        require_count(num_devices, "num_devices", 1, 2, limit=1025)
    told = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and jax.config.jax_num_cpu_devices < 0:  # pyright: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(RuntimeError):  # JAX has started.
            jax.config.update("jax_num_cpu_devices", int(num_devices or num_cores()))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(mesh: Mesh | None = None) -> str:
    """What computes, in words: the kind of device, and how many of them in how many processes if more than one."""
    device = jax.devices(platform())[0] if mesh is None else mesh.devices.flat[0]
    words = [f"{os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind]
    words += [f"{mesh.size} devices"] if mesh is not None else []
    words += [f"{jax.process_count()} processes"] if jax.process_count() > 1 else []
    return f"{device.platform} ({', '.join(words)})"
