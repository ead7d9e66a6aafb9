"""The parts of `experiments.accelerator`, each for a process of its own."""

import contextlib
import dataclasses
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import xarray as xr

from experiments.benchmarks import measure, throughput
from experiments.benchmarks.measure import Spread, error_line
from experiments.common import QUICK, Trained, describe_seeds
from rmft_jax.config import ConfigError, Value
from rmft_jax.method.devices import all_devices, make_mesh, use_cores
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.running.files import RunError, remove, write_json
from rmft_jax.running.provenance import provenance
from rmft_jax.sweeps.batches import Result, Task, Watch, run_task
from rmft_jax.sweeps.plan import PROGRAMS_PER_GROUP
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.run import Jobs, run_sweep
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory, load_sweep

_TESTS = Path(__file__).parent.parent / "tests"
# What --quick makes of the parts: one test, and one small layer.
_QUICK_TEST = "test_the_trajectory_is_what_was_played"
_QUICK: Mapping[str, Value] = {**QUICK, "num_layers": 1, "width": 8}
# Seconds for what follows the tests: their report, and JAX, which starts to say where it was.
_ENDING = 12.0
_SEEDS = (0, 1, 2)
# Bytes per second that the maker names, by a part of the device's name.
_NOMINAL = {
    "H200": 4.8e12, "H100 80GB HBM3": 3.35e12, "A100-SXM4-80GB": 2.0e12, "TPU v5 lite": 0.82e12, "TPU v5e": 0.82e12,
}  # fmt: skip
# On an accelerator: trajectories of an iteration, which fill it, and bytes of a plain read, which no cache of it holds.
_ROLLOUTS, _READ_BYTES = 32_768, 1_000_000_000
# Horizons of the map: first those that say most of how regret grows.
_HORIZONS, _ARMS = (50, 200, 100, 25), (2, 5, 10, 20)
_TRAINING: Mapping[str, Value] = {"num_iterations": 100, "num_scenarios": 1024}
_BASELINES = ("gittins", "thompson", "ucb1", "uniform")
_CACHED = "/jax/compilation_cache/cache_hits"


class OutOfTimeError(Exception):
    """Something would not be ready in the time that is left."""


class Part:
    """A part at work, and its file `NAME.json`.

    Args:
      name: of the part.
      out: folder of the file.
      until: when its time is over, in seconds since 1970.
      quick: whether sizes are tiny.
    """

    def __init__(self, name: str, out: Path, until: float, quick: bool):
        self.name, self.quick, self.folder, self._until = name, quick, out / name, until
        self._path, self._started = out / f"{name}.json", time.perf_counter()
        self._before: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._before = json.loads(self._path.read_text(encoding="utf-8"))
        self._failed: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        begun = {**self._before.get("failed", {}), **self._before.get("left_out", {})}
        self.results = {item: found for item, found in self._before.get("results", {}).items() if item not in begun}
        self._compiled: list[float] = []
        self._from_cache = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return self._until - time.time()

    @functools.cached_property
    def _origin(self) -> dict[str, Any]:
        all_devices()  # Which says in one line that there is none.
        return provenance() | {"xla_flags": os.environ.get("XLA_FLAGS", "")}

    def require_same_origin(self) -> None:
        """That what is finished was made as it would be here; what is not finished, and was not, is begun anew.

        Raises:
          RunError: if it comes from another device, version, commit, or flags of XLA.
        """
        here = {name: value for name, value in self._origin.items() if name != "created"}
        names = [name for name, value in here.items() if self._before.get(name, value) != value]
        if names and self.results:
            differing = ", ".join(f"{name} {self._before[name]!r}" for name in names)
            raise RunError(f"got {self._path} of {differing}, need the same as here; try another --out")
        if names:
            remove(self.folder)
        self._write("running")

    def each(self, items: Iterable[str], run: Callable[[str], Any]) -> None:
        """Finds the result of every item that has none; one that fails, or finds no time, does not stop the others."""
        for item in items:
            if item in self.results:
                continue
            say(item)
            try:
                if self.left <= 0:
                    raise OutOfTimeError("no time was left")
                self.results[item] = run(item)
            except OutOfTimeError as reason:
                self._left_out[item] = str(reason)
                say(f"{item}: {reason}")
            except Exception as error:
                traceback.print_exc()
                self._failed[item] = error_line(error)
            self._write("running")
        self._write("failed" if self._failed else "unfinished" if self._left_out else "done")

    def _write(self, status: str) -> None:
        total, compiling = time.perf_counter() - self._started, sum(self._compiled)
        seconds, spent = {"compile": compiling, "run": total - compiling}, self._before.get("seconds", {})
        memory = jax.local_devices()[0].memory_stats() or {}
        content = {
            "part": self.name,
            "status": status,
            "quick": self.quick,
            **self._origin,
            "num_devices": jax.device_count(),
            "memory_bytes": {"limit": memory.get("bytes_limit"), "peak": memory.get("peak_bytes_in_use")},
            "seconds": {name: value + spent.get(name, 0.0) for name, value in seconds.items()},
            "programs": {"compiled": len(self._compiled) - self._from_cache, "from_cache": self._from_cache},
            "failed": self._failed,
            "left_out": self._left_out,
            "results": self.results,
        }
        write_json(self._path, content)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Counts what is compiled inside the block."""

        def count(event: str, **_: Any) -> None:
            self._from_cache += event == _CACHED

        jax.monitoring.register_event_listener(count)
        try:
            with measure.compilations() as self._compiled:
                yield
        finally:
            jax.monitoring.unregister_event_listener(count)


def say(words: str) -> None:
    """A line for the command, which shows it."""
    print(words, flush=True)


def run(part: Part, sizes: Sequence[str], presets: Sequence[str]) -> int:
    """Runs a part; 0, or 2 if it cannot be begun, with a line that says why."""
    runners = {
        "tests": lambda: tests(part),
        "throughput": lambda: rates(part, sizes),
        "headline": lambda: headline(part, presets),
        "map": lambda: trained_map(part),
    }
    try:
        with part.watched():
            runners[part.name]()
    except (ConfigError, RunError) as error:
        say(str(error))
        return 2
    return 0


def tests(part: Part) -> None:
    """Those marked `accelerator`. JAX starts here after them only: some accelerators serve one process at a time."""
    report = part.folder.with_suffix(".xml")

    def run(item: str) -> dict[str, Any]:
        report.unlink(missing_ok=True)
        word = _QUICK_TEST if part.quick else "mark.accelerator"
        files = [str(path) for path in sorted(_TESTS.glob("test_*.py")) if word in path.read_text()]
        options = ["-n", "0", "-v", "-p", "no:cacheprovider", "-m", "accelerator", f"--junitxml={report}"]
        options += ["--noconftest", "-k", _QUICK_TEST] if part.quick else []
        process = subprocess.Popen([sys.executable, "-m", item, *options, *files], cwd=_TESTS.parent)
        try:
            process.wait(max(part.left - _ENDING, 0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # So that it reports what it has.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(part.left - _ENDING / 2, 0))
            raise OutOfTimeError("its time was over before all tests had run") from None
        finally:
            process.kill()
            if report.is_file():
                part.results[item] = counted(report)
        if not report.is_file():
            raise RunError(f"{item} ended with exit code {process.returncode} and without a report; see tests.log")
        found = part.results[item]
        if found["failed"] or not found["passed"]:
            raise RunError(f"{found['failed']} tests failed and {found['passed']} passed")
        return found

    part.each(["pytest"], run)


def counted(report: Path) -> dict[str, Any]:
    """What a report of pytest says: how many tests passed, failed and were skipped, and by name why they failed."""
    cases, failures, skipped = list(ElementTree.parse(report).iter("testcase")), {}, 0
    for case in cases:
        skipped += case.find("skipped") is not None
        for problem in (*case.findall("failure"), *case.findall("error")):
            name = f"{case.get('classname')}.{case.get('name')}"
            failures[name] = problem.get("message", "").partition("\n")[0][:300]
    counts = {"passed": len(cases) - len(failures) - skipped, "failed": len(failures), "skipped": skipped}
    return counts | {"failures": failures, "seconds": sum(float(case.get("time", 0)) for case in cases)}


def rates(part: Part, sizes: Sequence[str]) -> None:
    """The table of throughput, and the share of the memory's speed at which rollouts read keys and values."""
    use_cores()
    part.require_same_origin()
    on_cpu = jax.default_backend() == "cpu"
    repeats, seconds = (2, 0.0) if part.quick else (5, 0.3)
    rollouts = 64 if part.quick else 0 if on_cpu else _ROLLOUTS
    took = 0.0

    def size(item: str) -> dict[str, Any]:
        nonlocal took
        if took > part.left:
            raise OutOfTimeError(f"the size before took {took:.0f} s, {part.left:.0f} s are left")
        started = time.perf_counter()
        width, horizon = map(int, item.split("x"))
        config = throughput.sized(width, horizon, rollouts)
        config = config.replace(num_layers=1) if part.quick else config
        row = throughput.measure_size(config, repeats, seconds)
        say(f"{throughput.line(row, 'rollout')}\n{throughput.line(row, 'iteration')}")
        gc.collect()
        jax.clear_caches()
        took = time.perf_counter() - started
        return row | {"decode": decoding(row, config, part.results.get("reading"))}

    def run(item: str) -> dict[str, Any]:
        num_bytes = measure.READ_BYTES if on_cpu or part.quick else _READ_BYTES
        return reading(num_bytes, repeats, seconds) if item == "reading" else size(item)

    part.each(["reading", *sizes], run)


def reading(num_bytes: int, repeats: int, seconds: float) -> dict[str, Any]:
    """How fast all devices together read their memory, and how fast their maker says they do."""
    times = measure.interleaved({"read": measure.reading(make_mesh(), num_bytes)}, repeats, seconds)["read"]
    count, kind = jax.device_count(), jax.devices()[0].device_kind
    nominal = next((count * rate for name, rate in _NOMINAL.items() if name in kind), None)
    rates = Spread.of([num_bytes * measure.READ_TIMES * count / time for time in times])
    return {
        "bytes": num_bytes,
        "bytes_per_second": dataclasses.asdict(rates),
        "nominal_bytes_per_second": nominal,
    }


def decoding(row: Mapping[str, Any], config: RMFTConfig, read: Mapping[str, Any] | None) -> dict[str, Any]:
    """At what rate rollouts read keys and values, and the share of a plain read's and of the nominal rate."""
    rate = row["rollout"]["rmft_jax"] * measure.read_bytes(config) / measure.env_steps(config)
    limits = {"of_reading": read and read["bytes_per_second"]["median"]}
    limits |= {"of_nominal": read and read["nominal_bytes_per_second"]}
    return {"bytes_per_second": rate} | {name: limit and rate / limit for name, limit in limits.items()}


def headline(part: Part, presets: Sequence[str]) -> None:
    """Whole presets on three seeds in one vmapped program, beside the classical agents."""
    part.require_same_origin()

    def run(preset: str) -> dict[str, Any]:
        small = {"override": _QUICK, "baselines": ("uniform",)} if part.quick else {}
        sweep = Sweep(preset, grid={"seed": _SEEDS}, **small)
        directory = part.folder / preset
        swept(part, sweep, directory, cells_per_batch=len(_SEEDS), keep_weights=True)
        dataset, files = load_sweep(directory), SweepDirectory.open(directory)
        trained = Trained(dataset, [files.read_weights({"seed": seed}) for seed in _SEEDS])
        cost, played = trained.cost(), dataset["baseline_final_regret"].transpose("agent", "seed")
        classical = {
            str(agent): describe_seeds(played.sel(agent=agent).values.tolist()) for agent in played["agent"].values
        }
        return {
            "regret": describe_seeds(trained.per_seed("final_regret")),
            "classical": dict(sorted(classical.items(), key=lambda item: item[1]["mean"])),
            **cost,  # Of a seed.
            "env_steps_per_second": len(_SEEDS) * cost["env_steps"] / sum(cost["wall_seconds"]),
        }

    part.each(presets, run)


def trained_map(part: Part) -> None:
    """Policies of horizons and arm counts, trained quickly: all arm counts of a horizon, then the next one."""
    part.require_same_origin()
    horizons, arms, training, baselines = _HORIZONS, _ARMS, _TRAINING, _BASELINES
    if part.quick:
        training = {name: value for name, value in _QUICK.items() if name != "horizon"}
        horizons, arms, baselines = (10,), (2, 3, 5), ("uniform",)  # Of the shapes of the preset `mab`: compiled once.
    grid = {"horizon": sorted(horizons), "num_arms": arms}
    sweep = Sweep("mab", grid=grid, override=training, baselines=baselines)

    def run(item: str) -> list[dict[str, Any]]:
        horizon = int(item.removeprefix("T="))
        swept(part, sweep, part.folder, horizon, cells_per_batch=len(arms) if part.quick else 0)
        dataset = load_sweep(part.folder).sel(horizon=horizon)
        return [{"num_arms": count, **_cell(dataset.sel(num_arms=count))} for count in arms]

    part.each([f"T={horizon}" for horizon in horizons], run)


def _cell(cell: xr.Dataset) -> dict[str, Any]:
    """Regret at the horizon of a cell of a sweep and of the classical agents, with standard errors over scenarios."""
    agents, names = cell["agent"].values.tolist(), ("baseline_final_regret", "baseline_final_regret_sem")
    classical = zip(agents, *(cell[name].values.tolist() for name in names), strict=True)
    return {
        "regret": float(cell["final_regret"]),
        "sem": float(cell["final_regret_sem"]),
        "classical": {agent: {"regret": regret, "sem": sem} for agent, regret, sem in classical},
        "wall_seconds": float(cell["wall_seconds"]),
    }


def swept(part: Part, sweep: Sweep, directory: Path, horizon: int = 0, **options: Any) -> None:
    """Runs what is missing of a sweep, or of one of its horizons.

    Raises:
      OutOfTimeError: as soon as it is clear that it cannot be ready in time; what is finished is kept.
      RunError: if a cell failed.
    """

    def execute(jobs: Jobs) -> Generator[Result, None, None]:
        group, programs = None, None
        for task in jobs.tasks:
            if horizon in (0, task.group.config.rmft.horizon):
                if programs is None or task.group is not group:
                    group, programs = task.group, Programs(task.group, on_compile=say)
                yield from run_task(task, programs, jobs.unfinished, in_time(part, task, programs))

    outcome = run_sweep(sweep, directory, resume=True, executor=execute, **options)
    for label, message in outcome.failures.items():
        raise RunError(f"{label}: {message}")


def in_time(part: Part, task: Task, programs: Programs) -> Watch:
    """Says how far a task is trained, and ends it where the time left is too short for the rest."""
    total, seen = task.group.config.rmft.num_iterations, list[tuple[int, float]]()

    def watch(done: int, regret: float) -> None:
        say(f"{task.label} · iteration {done}/{total} · validation regret {regret:.2f}")
        seen.append((done, time.perf_counter()))
        (first, began), (last, now) = seen[0], seen[-1]
        if first < last < total:
            # The evaluation, if it is still to be compiled, takes about as long for that as the training did.
            compiling = programs.compile_seconds if programs.num_compiled < PROGRAMS_PER_GROUP else 0.0
            need = (now - began) / (last - first) * (total - last) + compiling
            if need > part.left:
                raise OutOfTimeError(f"{task.label} needs about {need:.0f} s more, {part.left:.0f} s are left")

    return watch
