"""Several devices, in processes that have them: this one has a single one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.method.devices import ALONE, device_name, make_mesh, num_cores

HERE = Path(__file__).parent


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "JAX_NUM_CPU"))}
    command = [sys.executable, *words]
    return subprocess.run(command, check=False, env=kept | environment, capture_output=True, text=True)


# Those that train compile a program per case and number of devices: five minutes. The others come with every run.
@pytest.mark.parametrize(
    "which", [pytest.param("test_", marks=pytest.mark.slow), "share_evenly or counts or operations or validation"]
)
def test_eight_devices(which):
    words = ["-m", "pytest", "-q", "-n", "0", "--durations=5", str(HERE / "many_devices.py"), "-k", which]
    done = python(*words, JAX_NUM_CPU_DEVICES="8")
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout


USED = "from rmft_jax.method.devices import use_cores; use_cores({}); import jax; print(jax.device_count())"


@pytest.mark.parametrize(
    ("asked", "environment", "devices"),
    [
        ("", {}, num_cores()),
        ("3", {}, 3),
        ("", {"JAX_NUM_CPU_DEVICES": "5"}, 5),
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4),
    ],
)
def test_every_core_is_a_device_unless_told_otherwise(asked, environment, devices):
    assert int(python("-c", USED.format(asked), **environment).stdout) == devices


def test_once_jax_has_started_the_devices_stay():
    assert int(python("-c", "import jax; jax.devices(); " + USED.format(7)).stdout) == 1


def test_one_device_needs_no_mesh():
    assert make_mesh() is None
    assert make_mesh(None, 12) is None
    with pytest.raises(ConfigError, match="got num_devices=2, need at most 1"):
        make_mesh(2, 8)
    assert device_name() == f"cpu ({os.cpu_count()} cores)"


def test_one_device_has_all():
    everything = {"rows": jax.numpy.arange(6.0)}
    assert ALONE.own(everything) is ALONE.joined(everything) is ALONE.sum(everything) is ALONE.mean(everything)
    assert ALONE.first(6) == 0
