"""For which kind of device a program is made."""

import jax
from jax.sharding import Mesh


def platform(mesh: Mesh | None = None) -> str:
    """Of the devices that a program runs on, "cpu", "gpu" or "tpu": what blocks and compiler options are chosen by.

    The devices are those of its mesh; else the default device that JAX was told, `with jax.default_device("tpu")` say,
    so that a program can be lowered for a device that this process does not have; else JAX's own choice.
    """
    if mesh is not None:
        return mesh.devices.flat[0].platform
    told = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if told is None:
        return jax.default_backend()
    return told if isinstance(told, str) else told.platform
