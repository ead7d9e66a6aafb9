"""Accelerators that programs are compiled for where there is none: what XLA must know of them, and their limits."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from rmft_jax.config import ConfigError

# What JAX reports of such a device, as its plugin reads it (`GpuTargetConfigProto`).
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  device_memory_size: 84942979072
  memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device.

    label: its name in tables.
    memory: bytes of a device.
    bandwidth: of that memory, in bytes per second, from the data sheet.
    launch_seconds: the least and the most that a host takes to start an operation; None where a whole program is handed
      over at once.
    devices: as many of them as asked for, known to the compiler only.
    options: compiler options without which a program of so many rounds compiles with a device, but not here.
    """

    label: str
    memory: int
    bandwidth: float
    launch_seconds: tuple[float, float] | None
    devices: Callable[[int], list[Any]]
    options: Callable[[int], dict[str, Any]]


def _v5e(number: int) -> list[Any]:
    # Where there is no TPU, its library would ask the network which one this is.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[:number]


def _h100(number: int) -> list[Any]:
    name, topology = f"h100x{number}", f"1x1x{number}"
    return topologies.get_topology_desc(name, platform="cuda", target_config=_H100, topology=topology).devices


def _h100_options(horizon: int) -> dict[str, Any]:
    """No products by Triton, if the compiler cannot do without a device what it can do with one.

    With a device XLA compiles a product in many tilings, and as a library call, leaves out what does not compile, and
    takes the fastest. Without one it takes Triton's first tiling, whether it compiles or not. That one does not where a
    transpose is merged into the product, and an axis of its tiles, of 16, spans two axes of the transposed array, the
    inner one of a length that 16 does not divide: the gradient of queries, keys and values, [B, 3D, T], made [B T, 3D].
    It is compiled here by itself. At T = 50 it fails, at T = 64 it does not, and neither does a whole program.
    """
    place = jax.sharding.SingleDeviceSharding(_h100(1)[0])
    shapes = ((32, 96, horizon), (32, 96))
    rows, weights = (jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes)
    try:
        jax.jit(lambda rows, weights: jnp.einsum("bft,df->btd", rows, weights)).lower(rows, weights).compile()
    except jax.errors.JaxRuntimeError as error:
        if "Couldn't find output tile sizes" not in str(error):
            raise
        return {"xla_gpu_enable_triton_gemm": False}
    return {}


TARGETS = {
    "h100": Target("NVIDIA H100 (80 GB, SXM)", 80 * 2**30, 3.35e12, (2e-6, 4e-6), _h100, _h100_options),
    "v5e": Target("TPU v5e", 16 * 2**30, 0.82e12, None, _v5e, lambda horizon: {}),
}
"""By name."""


def get_devices(target: Target, number: int) -> list[Any]:
    """Devices of a kind that programs can be compiled for.

    Raises:
      ConfigError: if the compiler for them is not installed.
    """
    try:
        return target.devices(number)
    except (RuntimeError, NotImplementedError) as error:
        got = f"no compiler for {target.label} ({str(error).partition(chr(10))[0]})"
        raise ConfigError(f"{got}, need its plugin; try .venv/bin/pip install '.[aot]' in the clone") from error
