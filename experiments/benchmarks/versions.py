"""This version beside another one: rollouts and whole iterations of presets, in turns.

Each version runs in a process of its own, from its own checkout, with the packages of this environment.

    git worktree add ../other 84925c8
    python -m experiments.benchmarks.versions --other ../other [--json OUT] [--presets mab-per-scenario] [--repeats 5]
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import tyro

from experiments.benchmarks.measure import Spread, speedup
from rmft_jax.config import ConfigError
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance

_HERE = Path(__file__).resolve().parents[2]
_PARTS = ("rollout", "iteration")
# Written for versions from 0.6 on, in which modules have moved.
_SERVER = """
import importlib, sys, time
try:
    use_cores = importlib.import_module("rmft_jax.method.devices").use_cores
except ModuleNotFoundError:
    use_cores = importlib.import_module("rmft_jax.devices").use_cores
use_cores()
import rmft_jax
from experiments.benchmarks.throughput import Package
config = rmft_jax.get_preset(sys.argv[1]).rmft
package = Package(config)
package.rollout(), package.iteration()
import jax
size = sum(leaf.size for leaf in jax.tree.leaves(package.state.params))
print("ready", config.num_scenarios, "x", config.num_rollouts, "rollouts,", size, "parameters", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    getattr(package, line.strip())()
    print(time.perf_counter() - started, flush=True)
"""


class Version:
    """A checkout whose code times itself when asked.

    Attributes:
      size: what its preset plays and trains, as text.
    """

    def __init__(self, checkout: Path, preset: str):
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, preset],
            cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ready, _, self.size = self._read().partition(" ")
        if ready != "ready":
            raise ConfigError(f"got {checkout}, need a checkout of version 0.6 or later; try git worktree add")

    def seconds(self, part: str) -> float:
        """Of one call."""
        print(part, file=self._pipe(self._process.stdin), flush=True)
        return float(self._read())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        return self._pipe(self._process.stdout).readline().strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def measure_preset(preset: str, other: Path, repeats: int) -> dict[str, Any]:
    """Seconds of both versions, and how many times faster this one is, turn by turn.

    Raises:
      ConfigError: if the preset is another one there.
    """
    versions = {"this": Version(_HERE, preset), "other": Version(other, preset)}
    here, there = (version.size for version in versions.values())
    if here != there:
        got = f"{preset} of {here} here and of {there} in {other}"
        raise ConfigError(f"got {got}, need a preset that is the same in both; try --presets mab-plain")
    found: dict[str, Any] = {}
    for part in _PARTS:
        times: dict[str, list[float]] = {name: [] for name in versions}
        for _ in range(repeats):
            for name, version in versions.items():
                times[name].append(version.seconds(part))
        found[part] = {name: dataclasses.asdict(Spread.of(values)) for name, values in times.items()}
        found[part]["speedup"] = dataclasses.asdict(speedup(times["this"], times["other"]))
    for version in versions.values():
        version.close()
    return found


def main(
    other: Path,
    json: Path | None = None,
    presets: tuple[str, ...] = ("mab-per-scenario", "mab-plain"),
    repeats: int = 5,
) -> None:
    """Measures and prints the ratios.

    Args:
      other: checkout of the other version.
      json: where the numbers go too.
      presets: what is run.
      repeats: turns of each version.
    """
    results = {}
    for preset in presets:
        results[preset] = measure_preset(preset, other.resolve(), repeats)
        for part, one in results[preset].items():
            ratio, own = one["speedup"], one["this"]["median"]
            spread = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
            print(f"{preset} {part}: {own:.3f} s, {ratio['median']:.2f}x {spread}", flush=True)
    if json is not None:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True, check=False
        ).stdout.strip()
        write_json(json, provenance() | {"other": commit, "presets": results})


if __name__ == "__main__":
    tyro.cli(main)
