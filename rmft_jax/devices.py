"""Several devices: each plays its share of the scenarios, and all make the same update."""

import contextlib
import dataclasses
import os
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree, Shaped

from rmft_jax.config.checks import require

AXIS = "scenarios"
"""Name of the only axis of a mesh."""
_T = TypeVar("_T", bound=PyTree[Shaped[Array, "..."]])


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


def make_mesh(num_devices: int = 0) -> Mesh | None:
    """The first `num_devices` devices of all processes, or all if it is 0; None if that is one.

    Raises:
      ConfigError: if there are fewer.
    """
    devices = jax.devices()
    require(num_devices <= len(devices), f"num_devices={num_devices}", f"at most {len(devices)}", "num_devices=0")
    chosen = devices[: num_devices or len(devices)]
    return Mesh(chosen, (AXIS,)) if len(chosen) > 1 else None


def program_options(mesh: Mesh | None) -> dict[str, Any]:
    """Compiler options of a program that runs on a mesh.

    On CPU, where every core is a device, single operations are not split over threads that are busy with others.
    """
    on_cores = mesh is not None and mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_multi_thread_eigen": False} if on_cores else {}


def use_all_cores() -> None:
    """On CPU, makes every core a device, unless JAX has started already or was told otherwise.

    One device with all cores splits single operations over them; a device per core splits the scenarios, which costs
    nothing.
    """
    told = "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and jax.config.jax_num_cpu_devices < 0:  # pyright: ignore[reportAttributeAccessIssue]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with contextlib.suppress(RuntimeError):  # JAX has started.
            jax.config.update("jax_num_cpu_devices", cores)
