"""What fused programs would do on an H100 and a TPU v5e, by what XLA compiles for them without one. Nothing is run.

Each program is compiled in a process of its own, with the flags that XLA has by default.

    python -m experiments.aot.compiled [--targets h100 v5e] [--programs mab fol] [--json OUT]
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from json import loads
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import tyro

from experiments.aot.hlo import Loop, Program
from experiments.aot.programs import ITERATIONS, PROGRAMS, Job
from experiments.aot.targets import TARGETS, Target
from experiments.benchmarks import measure
from rmft_jax.config import Value
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance, versions
from rmft_jax.statistics.tables import markdown_table

_P = ParamSpec("_P")
_R = TypeVar("_R")
# What would make the compiler another than a user's, or let it read its results from a file.
_TOLD = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES")


def main(
    json: Path | None = None,
    targets: Sequence[str] = tuple(TARGETS),
    programs: Sequence[str] = tuple(PROGRAMS),
    texts: Path | None = None,
) -> None:
    """Compiles, counts, and prints a table.

    Args:
      json: where the numbers go too; what is there of other programs and devices stays.
      targets: devices.
      programs: programs.
      texts: folder for what was compiled, as text.
    """
    found = read(json)
    for name in programs:
        for target in targets:
            found["programs"].setdefault(name, {})[target] = apart(measured, name, target, {}, texts)
            print(table({"programs": {name: {target: found["programs"][name][target]}}}).splitlines()[-1], flush=True)
            if json is not None:
                write_json(json, found)
    print(table(found))


def read(json: Path | None) -> dict[str, Any]:
    """What a file says already, if it was found with the versions that are installed."""
    packages = ("libtpu", "jax-cuda12-plugin")
    own = versions() | {name: metadata.version(name) for name in packages}
    if json is not None and json.exists():
        found = loads(json.read_text(encoding="utf-8"))
        if found["versions"] == own:
            return found
    return {"versions": own, "programs": {}}


def apart(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """The function's result, from a new process that sees no accelerator and was told nothing about compilation."""
    context = multiprocessing.get_context("spawn")
    with _default_flags(), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


@contextlib.contextmanager
def _default_flags() -> Iterator[None]:
    before = dict(os.environ)
    for name in _TOLD:
        os.environ.pop(name, None)
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def measured(name: str, target: str, change: Mapping[str, Value], texts: Path | None = None) -> dict[str, Any]:
    """What is known of a program once it is compiled for a device.

    Args:
      name: of `PROGRAMS`.
      target: of `TARGETS`.
      change: settings that differ from the preset's.
      texts: folder for what was compiled.

    Raises:
      ConfigError: if the compiler for the device is not installed.
    """
    job, device = PROGRAMS[name](change), TARGETS[target]
    lowered, options = job.lowered(device), device.options(job.config.horizon)
    started, busy = time.perf_counter(), time.process_time()
    compiled = lowered.compile(options)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    text, memory = compiled.as_text(), compiled.memory_analysis()
    program = Program(text)
    if texts is not None:
        texts.mkdir(parents=True, exist_ok=True)
        (texts / f"{target} {name}.txt").write_text(text, encoding="utf-8")
    found = {
        "git_commit": provenance()["git_commit"],
        "options": options,
        "compile_seconds": seconds,
        "compile_cpu_seconds": cpu_seconds,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": measure.peak_memory(compiled),
        "host_traffic": program.host_traffic(),
        **counted(program.whole, job.config.horizon),
    }
    return found | limits(job, device, found["launches_per_iteration"])


def counted(whole: Loop, horizon: int) -> dict[str, int]:
    """Operations that a device is given, from the loops of a program.

    launches_per_round: in the body of the innermost loop of the rollouts; the largest, if there are several.
    launches_per_update: in the body of the loop over optimizer updates; 0 if there is none.
    launches_per_iteration: of a whole iteration. A loop whose trip count the compiler does not know is counted as
      `horizon` passes, which no loop over rounds exceeds.
    unknown_loops: of these there are so many.
    """
    chunk = next(loop for loop in whole.all() if loop.trips == ITERATIONS)
    rounds = [
        loop
        for loop in chunk.all()
        if loop.source == "rollout" and all(inner.source != "rollout" for inner in loop.loops)
    ]
    updates = [loop for loop in chunk.loops if loop.source == "fine_tuning"]
    return {
        "launches_per_round": max(loop.one_pass(1) for loop in rounds),
        "launches_per_update": max((loop.one_pass(1) for loop in updates), default=0),
        "launches_per_iteration": chunk.one_pass(horizon),
        "unknown_loops": sum(loop.trips is None for loop in chunk.all()),
    }


def limits(job: Job, device: Target, launches: int) -> dict[str, Any]:
    """What an iteration cannot be faster than, in seconds, and the env-steps per second that follow.

    read_bytes: R, of keys and values that a device must read in an iteration (`measure.read_bytes`), of all runs and
      its share of the scenarios.
    env_steps: S, that all devices play in an iteration (`measure.env_steps`).
    memory_seconds: R / bandwidth.
    launch_seconds: launches of an iteration, times the least and the most that one takes; none where a device is handed
      a whole program at once.
    most_env_steps_per_second: S / max(memory_seconds, least launch_seconds): kernels that run for longer than a launch
      hide it, so that the two do not add up.
    """
    read = job.runs * measure.read_bytes(job.config) / job.devices
    steps = job.runs * measure.env_steps(job.config)
    memory = read / device.bandwidth
    launching = [launches * seconds for seconds in device.launch_seconds or ()]
    return {
        "read_bytes": read,
        "env_steps": steps,
        "memory_seconds": memory,
        "launch_seconds": launching,
        "most_env_steps_per_second": steps / max([memory, *launching[:1]]),
    }


def table(found: Mapping[str, Any]) -> str:
    """A row for every program and device."""
    head = (
        "program",
        "device",
        "launches a round",
        "an update",
        "an iteration",
        "launching, ms",
        "keys and values, GB",
        "reading, ms",
        "env-steps/s at most",
        "temporaries, GB",
        "compilation, s of a core",
    )
    rows = []
    for name, targets in found["programs"].items():
        for target, one in targets.items():
            launching = " to ".join(f"{1e3 * seconds:.1f}" for seconds in one["launch_seconds"]) or "–"
            counts = [one[f"launches_per_{unit}"] for unit in ("round", "update", "iteration")]
            rows.append(
                [
                    name,
                    TARGETS[target].label,
                    *(f"{count:,}" for count in counts),
                    launching,
                    f"{one['read_bytes'] / 1e9:.1f}",
                    f"{1e3 * one['memory_seconds']:.1f}",
                    f"{one['most_env_steps_per_second'] / 1e6:.0f}M",
                    f"{one['temporary_bytes'] / 1e9:.2f}",
                    f"{one['compile_cpu_seconds']:.0f}",
                ]
            )
    return markdown_table(head, rows, 2)


if __name__ == "__main__":
    tyro.cli(main)
