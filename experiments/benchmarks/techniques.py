"""What single techniques buy: the package beside itself without one of them.

All variants of a size are compiled first and then take turns; ratios are formed turn by turn, the package's rate over
that of the variant.

    python -m experiments.benchmarks.techniques [--json OUT] [--sizes 32x50 64x100 64x1000] [--repeats 5]
"""

import contextlib
import dataclasses
import gc
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import tyro
from jax.sharding import Mesh

from experiments.benchmarks import measure
from experiments.benchmarks.throughput import sized
from rmft_jax.agents import network
from rmft_jax.method import rmft, rollout
from rmft_jax.method.devices import device_name, make_mesh, program_options, replicated, use_cores
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance

_LONG = 10**9
_PLAY = inspect.unwrap(rmft.play)


def play(config: RMFTConfig, mesh: Mesh | None) -> Callable[[], None]:
    """The rollouts of an iteration, compiled."""
    state = replicated(init(config, jax.random.key(0)), mesh)
    # A function of its own, because JAX remembers what it traced.
    program = jax.jit(lambda given: _PLAY(given, mesh)).lower(state).compile(program_options(mesh))
    return lambda: jax.block_until_ready(program(state))


def iterate(config: RMFTConfig, mesh: Mesh | None) -> Callable[[], None]:
    """A whole iteration, compiled."""
    held = [replicated(init(config, jax.random.key(0)), mesh)]
    step = jax.jit(lambda given: rmft.iteration(given, None, mesh), donate_argnums=0)
    program = step.lower(held[0]).compile(program_options(mesh))

    def once() -> None:
        held[0], _ = jax.block_until_ready(program(held[0]))

    return once


@contextlib.contextmanager
def without(module: Any, name: str) -> Iterator[None]:
    """With a threshold of the package so high that what it is for never happens."""
    with mock.patch.object(module, name, _LONG):
        yield


def variants(config: RMFTConfig) -> tuple[dict[str, Callable[[], None]], dict[str, Callable[[], None]]]:
    """Rollouts and iterations of one size, the package's own first."""
    mesh = make_mesh()
    everything = config.replace(rollout_block=config.num_scenarios * config.num_rollouts)
    rollouts = {"package": play(config, mesh)}
    if mesh is not None:
        rollouts["one device"] = play(config, None)
    rollouts["all rollouts at once"] = play(everything, mesh)
    with measure.own_pasts():
        rollouts["every rollout plays its own past"] = play(config, mesh)
    with without(rollout, "_SEGMENT_ROUNDS"):
        rollouts["caches of full length"] = play(config, mesh)
    iterations = {"package": iterate(config, mesh)}
    iterations["updates in blocks of 64"] = iterate(config.replace(update_block=64), mesh)
    with without(network, "_PART_ROUNDS"):
        iterations["long windows in one part"] = iterate(config, mesh)
    return rollouts, iterations


def measure_size(config: RMFTConfig, repeats: int, seconds: float) -> dict[str, Any]:
    """Ratios of the package's rate to that of every variant."""
    found: dict[str, Any] = {"width": getattr(config.policy, "width", None), "horizon": config.horizon}
    for part, tasks in zip(("rollout", "iteration"), variants(config), strict=True):
        times = measure.interleaved(tasks, repeats, seconds)
        own = times.pop("package")
        found[part] = {name: dataclasses.asdict(measure.speedup(own, other)) for name, other in times.items()}
    return found


def main(
    json: Path | None = None,
    sizes: tuple[str, ...] = ("32x50", "64x100", "64x1000"),
    repeats: int = 5,
    seconds: float = 1.0,
) -> None:
    """Measures every size and prints the ratios.

    Args:
      json: where the numbers go too.
      sizes: width x horizon.
      repeats: turns of every variant.
      seconds: length of a turn, about.
    """
    use_cores()
    results = []
    for size in sizes:
        results.append(measure_size(sized(*map(int, size.split("x"))), repeats, seconds))
        for part in ("rollout", "iteration"):
            for name, one in results[-1][part].items():
                print(f"{size} {part}, {name}: {one['median']:.2f}x [{one['low']:.2f}, {one['high']:.2f}]", flush=True)
        gc.collect()
        jax.clear_caches()
    if json is not None:
        write_json(json, {**provenance(), "device": device_name(make_mesh()), "sizes": results})


if __name__ == "__main__":
    tyro.cli(main)
