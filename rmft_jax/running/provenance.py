"""Where numbers come from: versions, commit, device, time."""

import datetime
import platform
import subprocess
from importlib import metadata
from typing import Any

from rmft_jax.method.devices import device_name


def versions() -> dict[str, str]:
    """Versions of everything that may change a number."""
    packages = ("rmft-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def provenance() -> dict[str, Any]:
    """Versions, commit, device and time."""
    try:
        arguments = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {
        "versions": versions(),
        "git_commit": commit,
        "device": device_name(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
