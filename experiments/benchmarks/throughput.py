"""Environment steps per second, beside the obvious JAX, PyTorch, and the machine's own rate of matrix products.

For each size, a width and a horizon, all contenders play the same problem with the same network: rollouts alone, and
whole iterations. They take turns in one process. The package also plays without sharing the past of rollouts that
branch. The configuration is the default one (two layers, heads of
16, five Bernoulli arms, branching, 8 rollouts per scenario of which 2 are kept).

    python -m experiments.benchmarks.throughput [--json OUT] [--sizes 32x50 64x100 128x200 64x1000] [--repeats 5]

PyTorch is measured where it is installed (`pip install '.[bench]'`).
"""

import dataclasses
import gc
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments.benchmarks import measure
from experiments.benchmarks.contenders.obvious import ObviousJax
from experiments.benchmarks.contenders.unfused import Unfused
from experiments.benchmarks.measure import Spread, error_line
from rmft_jax.agents import Transformer
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.method import rmft
from rmft_jax.method.devices import device_name, make_mesh, program_options, replicated, use_cores
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance

# Rollouts M * L of an iteration, fewer where one would take minutes.
_ROLLOUTS = {(128, 200): 1024, (64, 1000): 256}
_DEFAULT_ROLLOUTS = 4096
_Task = Callable[[], None]


class Package:
    """`rmft_jax` as its users run it: on all devices, rollouts and iterations compiled ahead of time.

    Attributes:
      compile_seconds: of the iteration.
      peak_memory: bytes of its program on one device; None where XLA does not say.
    """

    def __init__(self, config: RMFTConfig, seed: int = 0):
        mesh = make_mesh()
        state = init(config, jax.random.key(seed))
        self.state = replicated(state, mesh)
        options = program_options(mesh)
        self._play = rmft.play.lower(self.state, mesh).compile(options)
        started = time.perf_counter()
        self._iterate = rmft.iterate.lower(self.state, None, mesh).compile(options)
        self.compile_seconds = time.perf_counter() - started
        self.peak_memory = measure.peak_memory(self._iterate)

    def rollout(self) -> None:
        """All rollouts of an iteration."""
        jax.block_until_ready(self._play(self.state))

    def iteration(self) -> None:
        """One iteration."""
        self.state, _ = jax.block_until_ready(self._iterate(self.state, None))


class OwnPasts(Package):
    """The package, but that each rollout plays its own past, as those of the contenders do."""

    def __init__(self, config: RMFTConfig, seed: int = 0):
        with measure.own_pasts():
            super().__init__(config, seed)


def sized(width: int, horizon: int, rollouts: int = 0) -> RMFTConfig:
    """The configuration of a size, with M * L rollouts an iteration; 0: as many as fit two CPU cores."""
    base = RMFTConfig()
    rollouts = rollouts or _ROLLOUTS.get((width, horizon), _DEFAULT_ROLLOUTS)
    scenarios = rollouts // base.num_rollouts
    return base.replace(width=width, num_heads=width // 16, horizon=horizon, num_scenarios=scenarios)


def contenders_of(config: RMFTConfig, only: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """The package and those beside it, compiled and tried; and of those that do not work here, why, by name.

    Raises:
      ConfigError: if `only` names somebody whom nobody knows.
    """
    makers: dict[str, Callable[[RMFTConfig], Any]] = dict(_MAKERS)
    for name in only:
        require(name in makers, f"contender {name!r}", f"one of {', '.join(makers)}", "--only pytorch")
    if importlib.util.find_spec("torch") is None:
        del makers["pytorch"]
    if only:
        makers = {name: make for name, make in makers.items() if name in only}
    found: dict[str, Any] = {"rmft_jax": Package(config)}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            one = make(config)
            for part in ("rollout", "iteration"):
                getattr(one, part, lambda: None)()
            found[name] = one
        except Exception as error:  # Of many kinds: memory, compilers, libraries that do not go together.
            missing[name] = error_line(error)
    return found, missing


def _pytorch(config: RMFTConfig) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks.contenders.pytorch import PyTorchContender

    if jax.default_backend() != "cpu" and not torch.cuda.is_available():
        raise ConfigError("got a PyTorch without CUDA, need one that sees the accelerator; try another build of it")
    return PyTorchContender(config, compiled=True)


_MAKERS: dict[str, Callable[[RMFTConfig], Any]] = {
    "own_pasts": OwnPasts,
    "obvious_jax": ObviousJax,
    "unfused": Unfused,
    "pytorch": _pytorch,
}


def measure_size(config: RMFTConfig, repeats: int, seconds: float, only: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the table says of one size."""
    contenders, missing = contenders_of(config, only)
    tasks: dict[str, _Task] = {"gemm": measure.gemm()}
    for part in ("rollout", "iteration"):
        tasks |= {f"{part} {name}": getattr(one, part) for name, one in contenders.items() if hasattr(one, part)}
    found = measure.interleaved(tasks, repeats, seconds)
    package, steps = contenders["rmft_jax"], measure.env_steps(config)
    policy = config.policy
    assert isinstance(policy, Transformer)
    result: dict[str, Any] = {
        "width": policy.width,
        "horizon": config.horizon,
        "rollouts": config.num_scenarios * config.num_rollouts,
        "missing": missing,
        "compile_seconds": package.compile_seconds,
        "peak_memory_bytes": package.peak_memory,
        "gemm_flops_per_second": dataclasses.asdict(_rate(2 * measure.GEMM_SIZE**3, found["gemm"])),
    }
    flops = {"rollout": measure.rollout_flops(config), "iteration": measure.iteration_flops(config)}
    for part, count in flops.items():
        own = found[f"{part} rmft_jax"]
        per_gemm = count / (2 * measure.GEMM_SIZE**3)
        fraction = Spread.of([per_gemm * limit / time for limit, time in zip(found["gemm"], own, strict=True)])
        result[f"gemm_fraction_{part}"] = fraction.median
        names = [name for name in contenders if f"{part} {name}" in found]
        result[part] = {name: _rate(steps, found[f"{part} {name}"]).median for name in names}
        result[f"{part}_spread"] = {name: dataclasses.asdict(_rate(steps, found[f"{part} {name}"])) for name in names}
        result[f"{part}_speedup"] = {
            name: dataclasses.asdict(measure.speedup(own, found[f"{part} {name}"])) for name in names[1:]
        }
    return result


def _rate(work: float, times: list[float]) -> Spread:
    return Spread.of([work / time for time in times])


def line(result: dict[str, Any], part: str) -> str:
    """What was measured of rollouts or iterations of a size, in words; of contenders that do not work, why."""
    speedups = ", ".join(
        f"{one['median']:.1f}x {name} [{one['low']:.1f}, {one['high']:.1f}]"
        for name, one in result[f"{part}_speedup"].items()
    )
    fraction, own = result[f"gemm_fraction_{part}"], result[part]["rmft_jax"]
    size = f"{result['width']}x{result['horizon']}"
    missing = "".join(f"; no {name}: {why}" for name, why in result["missing"].items())
    return f"{size} {part}: {own:,.0f} env-steps/s, {fraction:.2f} of the GEMM rate; {speedups}{missing}"


def main(
    json: Path | None = None,
    sizes: tuple[str, ...] = ("32x50", "64x100", "128x200", "64x1000"),
    repeats: int = 5,
    seconds: float = 1.0,
    only: tuple[str, ...] = (),
) -> None:
    """Measures every size and prints the table.

    Args:
      json: where the numbers go too.
      sizes: width x horizon.
      repeats: turns of every contender.
      seconds: length of a turn, about.
      only: the contenders beside the package, by name; by default all.
    """
    use_cores()
    results = []
    for size in sizes:
        width, horizon = (int(number) for number in size.split("x"))
        results.append(measure_size(sized(width, horizon), repeats, seconds, only))
        print(line(results[-1], "rollout"), line(results[-1], "iteration"), sep="\n", flush=True)
        gc.collect()
        jax.clear_caches()
    if json is not None:
        found = {**provenance(), "device": device_name(make_mesh())}
        limit = max(result["gemm_flops_per_second"]["median"] for result in results)
        write_json(json, found | {"gemm_flops_per_second": limit, "sizes": results})


if __name__ == "__main__":
    tyro.cli(main)
