"""Golden results: what the package computes on tiny problems, as a flat dictionary from names to arrays.

`golden.npz` has those of a fixed day in compact form; `test_golden.py` compares them with today's. Run as a script,

    PYTHONPATH=. python tests/golden.py OUT.npz [--full] [--optimized] [--devices N] [--only NAME ...]

it writes those of the package in `PYTHONPATH`, with `--full` for a comparison bit for bit. Whatever a redesign may
change is in the adapters at the top. All else uses the names of the package that stay: those of settings, as a sweep
has them, and `init`, `iterate_chunk`, `make_agent`, `make_baselines`, `evaluate`, `run_sweep`, `load_sweep`, `train`.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from golden_cases import (
    EVALUATIONS,
    ITERATIONS,
    METRICS,
    ON_TWO_DEVICES,
    RUNS,
    SWEEP,
    SWEEP_GRID,
    SWEPT_AGENTS,
    WHOLE_PARAMS,
    Settings,
)

Arrays = dict[str, np.ndarray]

# Compiled with little optimization: in a sixth of the time, and the programs run for a moment only.
QUICK = {"xla_backend_optimization_level": 0}
compiler_options: dict[str, Any] = dict(QUICK)


# Adapters: the only places that know how the package is laid out.


def configuration(preset: str, settings: Settings) -> Any:
    """The configuration of a run, from a preset and settings by their names."""
    import rmft_jax

    name = settings.get("environment")
    if name is not None and hasattr(rmft_jax, "Environment"):  # On the fixed day none kept arms and feedback.
        own = rmft_jax.Environment.register[name].choice
        settings = {"num_arms": own.num_arms, "feedback": own.feedback, **settings}
    return rmft_jax.Sweep(preset, override=settings).expand()[0].config


def algorithm(config: Any) -> Any:
    """The part of a run's configuration that `init` takes."""
    return config.rmft


def parameters(state: Any) -> np.ndarray:
    """All parameters of the policy of a state, in the order of the leaves of their tree."""
    import jax

    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(state.params)])


def baselines(config: Any) -> dict[str, Any]:
    """The agents that a policy is compared with on the problems of a configuration."""
    import rmft_jax

    environment, horizon = algorithm(config).environment, algorithm(config).horizon
    if hasattr(rmft_jax, "Problem"):
        return rmft_jax.make_baselines(rmft_jax.Problem(environment, horizon=horizon))
    make: Any = rmft_jax.make_baselines
    return make(environment, horizon)


def evaluate(agents: Mapping[str, Any], config: Any, num_scenarios: int) -> Any:
    """The dataset of an evaluation on the problems of a configuration."""
    import jax

    import rmft_jax

    environment, horizon = algorithm(config).environment, algorithm(config).horizon
    options: dict[str, Any] = {"num_scenarios": num_scenarios, "key": jax.random.key(1)}
    if hasattr(rmft_jax, "Problem"):
        return rmft_jax.evaluate(agents, rmft_jax.Problem(environment, horizon=horizon), **options)
    old: Any = rmft_jax
    return old.evaluate(agents, old.make_environment(environment), horizon=horizon, **options)


def on_devices(state: Any, num_devices: int, num_scenarios: int) -> tuple[Any, Any]:
    """The state on a mesh of this many devices, and the mesh."""
    for module in ("rmft_jax.method.devices", "rmft_jax.devices"):
        try:
            devices = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        mesh = devices.make_mesh(num_devices, num_scenarios)
        return devices.replicated(state, mesh), mesh
    raise ModuleNotFoundError("the module of `make_mesh`")


def names(num_devices: int = 1) -> list[str]:
    """Every case; with two devices, those that take two as well."""
    alone = [*ITERATIONS, *EVALUATIONS, "sweep", *RUNS]
    return alone + [f"two-devices/{name}" for name in (*ON_TWO_DEVICES, *RUNS)] * (num_devices > 1)


def compute(name: str, *, full: bool = False) -> Arrays:
    """The arrays of a case, whose names begin with its own.

    Args:
      name: one of `names()`.
      full: whether all that there is; else what `compact` leaves.
    """
    plain = name.removeprefix("two-devices/")
    num_devices = 2 if plain != name else 1
    if plain in ITERATIONS:
        found = _trained(plain, num_devices)
    elif plain in EVALUATIONS:
        found = _evaluated(*EVALUATIONS[plain])
    elif plain == "sweep":
        found = _swept()
    else:
        found = _run(*RUNS[plain], num_devices)
    found = {f"{name}/{key}": np.asarray(value) for key, value in found.items()}
    return found if full else compact(found)


def compact(arrays: Arrays) -> Arrays:
    """The same with less of what is large.

    Of parameters: the first 64, their digest, and all of a few cases. Of an evaluation: regret at the horizon.
    """
    found = {}
    for name, array in arrays.items():
        case, _, kind = name.rpartition("/")
        if kind == "params":
            found[f"{name}-digest"] = digest(array)
            found[name] = array if case in WHOLE_PARAMS else array[:64]
        elif kind == "regret" and case.startswith(("evaluation", "run")) and array.ndim == 3:
            found[f"{case}/final_regret"] = array[..., -1]
        else:
            found[name] = array
    return found


def digest(vector: np.ndarray) -> np.ndarray:
    """Sum, sum of squares, and eight fixed projections that look random, in float64.

    All are divided by the square root of the number of entries, so that independent errors keep the size that they
    have in a single entry.
    """
    entries = vector.astype(np.float64)
    position = np.arange(len(entries), dtype=np.float64)
    projections = [np.cos(which * position**2) @ entries for which in range(1, 9)]
    return np.array([entries.sum(), (entries**2).sum(), *projections]) / np.sqrt(len(entries))


def _after_three_iterations(config: Any, num_devices: int = 1) -> tuple[Any, Any]:
    """State and metrics."""
    import jax

    import rmft_jax

    state = rmft_jax.init(algorithm(config), jax.random.key(0))
    state, mesh = on_devices(state, num_devices, algorithm(config).num_scenarios)
    program = rmft_jax.iterate_chunk.lower(state, 3, None, mesh).compile(compiler_options)
    return program(state, None)


def _trained(name: str, num_devices: int) -> Arrays:
    state, metrics = _after_three_iterations(configuration(*ITERATIONS[name]), num_devices)
    found = {metric: np.asarray(getattr(metrics, metric)) for metric in METRICS}
    return {"params": parameters(state), **found}


def _evaluated(preset: str, settings: Settings, some: Sequence[str]) -> Arrays:
    import rmft_jax

    config = configuration(preset, settings)
    agents = baselines(config)
    if some:
        agents = {name: agents[name] for name in some}
    else:
        agents = {"rmft": rmft_jax.make_agent(_after_three_iterations(config)[0]), **agents}
    return _numbers(evaluate(agents, config, 64))


def _swept() -> Arrays:
    import rmft_jax

    sweep = rmft_jax.Sweep("quickstart", grid=SWEEP_GRID, override=SWEEP, baselines=SWEPT_AGENTS)
    with tempfile.TemporaryDirectory() as directory:
        rmft_jax.run_sweep(sweep, Path(directory) / "sweep")
        return _numbers(rmft_jax.load_sweep(Path(directory) / "sweep"))


def _run(preset: str, settings: Settings, num_devices: int) -> Arrays:
    import rmft_jax

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run"
        rmft_jax.train(configuration(preset, settings), path, num_devices=num_devices)
        run = rmft_jax.RunDirectory(path)
        datasets = {name: _numbers(run.read_dataset(f"{name}.nc")) for name in ("metrics", "evaluation")}
    return {f"{name}/{key}": value for name, numbers in datasets.items() for key, value in numbers.items()}


def _numbers(dataset: Any) -> Arrays:
    """The numeric variables of a dataset, but for how long it took."""
    variables = {str(name): np.asarray(array) for name, array in dataset.data_vars.items() if name != "wall_seconds"}
    return {name: values for name, values in variables.items() if values.dtype.kind in "biuf"}


def compute_all(chosen: Sequence[str], *, full: bool) -> tuple[Arrays, dict[str, Exception]]:
    """The arrays of many cases, and what went wrong in others; cases that write no files share the cores."""
    import jax

    found: Arrays = {}
    failed: dict[str, Exception] = {}

    def add(name: str) -> None:
        try:
            found.update(compute(name, full=full))
        except Exception as error:
            failed[name] = error

    training = [name for name in chosen if name in ITERATIONS]
    playing = [name for name in chosen if name in EVALUATIONS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(training), 16):
            list(pool.map(add, training[first : first + 16]))
            jax.clear_caches()  # Hundreds of programs would fill the memory.
        list(pool.map(add, playing))
    for name in chosen:
        if name not in training and name not in playing:
            add(name)
    return dict(sorted(found.items())), failed


def main(words: Sequence[str] | None = None) -> bool:
    """Writes the golden results of the package that is imported; returns whether a case failed."""
    parser = argparse.ArgumentParser(description="Writes the golden results of the package that is imported.")
    parser.add_argument("out", type=Path, help="the file that is written, OUT.npz")
    parser.add_argument("--full", action="store_true", help="all arrays, for a comparison bit for bit")
    parser.add_argument("--optimized", action="store_true", help="programs as a user compiles them: takes much longer")
    parser.add_argument("--devices", type=int, default=1, help="2 adds cases that take two")
    parser.add_argument("--only", nargs="+", default=[""], help="cases, or beginnings of their names")
    given = parser.parse_args(words)

    if given.optimized:
        compiler_options.clear()
    else:
        flags = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"
    import jax

    jax.config.update("jax_num_cpu_devices", given.devices)
    jax.config.update("jax_platforms", "cpu")
    import rmft_jax

    chosen = [name for name in names(given.devices) if name.startswith(tuple(given.only))]
    started = time.perf_counter()
    arrays, failed = compute_all(chosen, full=given.full)
    save: Callable[..., None] = np.savez_compressed
    save(given.out, **arrays)
    for name, error in failed.items():
        print(f"{name} failed: {type(error).__name__}: {error}")
    seconds, size = time.perf_counter() - started, given.out.stat().st_size
    print(f"{len(chosen)} cases, {len(arrays)} arrays, {size} bytes in {seconds:.0f} s: {rmft_jax.__file__}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
