"""`rmft sweep`: a grid of configurations."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, Literal

import tyro
import xarray as xr

from rmft_jax.cli.common import duration, fail, free_place, imports, parse, suggest, table_text
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require_count
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.sweeps.estimate import estimate
from rmft_jax.sweeps.plan import describe
from rmft_jax.sweeps.ray_executor import require_ray, run_on_ray
from rmft_jax.sweeps.run import checked_plan, run_locally, run_sweep
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import load_sweep


@dataclasses.dataclass(frozen=True)
class SweepArguments:
    """Trains and evaluates every cell of a sweep, and gathers them in one dataset.

    A sweep is a TOML file: `preset`, a table [grid] of axes (their product), a table [zip] of columns (walked
    together), [[cell]] for further cells, [override] for what stays fixed, and `baselines`, the classical agents played
    beside.
    """

    spec: tyro.conf.Positional[Path]
    """TOML file that says what varies."""
    out: Path | None = None
    """Sweep directory to make (required, but with --dry-run)."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say which cells share a program and why, and how long all would take, after a short trial; run nothing."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run what is missing or failed in --out, and what is new where the sweep has grown; begin there if there is
    nothing."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the sweep in --out."""
    executor: Literal["local", "ray"] = "local"
    """Who runs the cells: this process, or a Ray cluster (RAY_ADDRESS, else one that is started on this machine)."""
    cpus_per_task: float | None = None
    """CPUs that a task on Ray reserves, 1 by default: as many tasks run at once as fit."""
    gpus_per_task: float | None = None
    """GPUs that a task on Ray reserves, 1 by default if the cluster has any; a fraction shares one."""
    keep_weights: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the policy of every cell that finishes, for --from, evaluate and load_policy."""
    max_failures: int | None = None
    """Stop when so many cells have failed."""
    cells_per_batch: int = 0
    """Cells trained at once, vmapped. 0 chooses: 1 on CPU, else as many as fit into memory."""


def sweep(argv: list[str]) -> int:
    """Runs `rmft sweep`: 0 if all cells are finished, 3 if some failed."""
    arguments = parse(SweepArguments, "sweep", argv)
    declared = Sweep.from_toml(arguments.spec)
    if arguments.out is None and not arguments.dry_run:
        raise ConfigError(f"got no --out, need a directory for the sweep; try --out {free_place(arguments.spec.stem)}")
    if arguments.max_failures is not None:
        require_count(arguments.max_failures, "max_failures", 1, 1)
    require_count(arguments.cells_per_batch, "cells_per_batch", 0, 0)
    executor = _executor(arguments)
    groups = checked_plan(declared.expand(), declared.baselines)
    print("\n".join(describe(groups)))
    if arguments.dry_run:
        with ProgressReporter().status("trying the largest program"):
            expected = estimate(groups, declared.baselines, arguments.cells_per_batch)
        print(
            f"about {duration(expected.compiling + expected.running)} on this device, of which "
            f"{duration(expected.compiling)} compilation, if nothing else runs (by a trial of "
            f"{duration(expected.trial)})"
        )
        words = [*imports(), *["--executor", "ray"] * (arguments.executor == "ray")]
        words += ["--keep-weights"] * arguments.keep_weights
        suggest(["sweep", arguments.spec, "--out", arguments.out or free_place(arguments.spec.stem), *words])
        return 0
    assert arguments.out is not None
    names = ("resume", "overwrite", "max_failures", "cells_per_batch", "keep_weights")
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    outcome = run_sweep(declared, arguments.out, executor=executor, **options)
    if outcome.finished:
        print(_short_table(load_sweep(arguments.out)))
    print(f"{outcome.finished} cells finished in {duration(outcome.seconds)}; dataset: {arguments.out / 'sweep.nc'}")
    if outcome.failures:
        left = f", {outcome.missing} not run" if outcome.missing else ""
        first = next(f"{label}: {message}" for label, message in outcome.failures.items())
        return fail(f"{len(outcome.failures)} cells failed{left}; --resume tries them again; the first one, {first}", 3)
    suggest(["plot", arguments.out], ["table", arguments.out])
    return 0


def _short_table(dataset: xr.Dataset) -> str:
    """Regret by setting, of the trained policy and of its reference where that was played."""
    reference = dataset.attrs.get("reference")
    return table_text(dataset, baselines=None if reference is None else [reference])


def _executor(arguments: SweepArguments) -> Any:
    asked = {name: getattr(arguments, name) for name in ("cpus_per_task", "gpus_per_task")}
    given = {name: value for name, value in asked.items() if value is not None}
    if arguments.executor == "ray":
        # JAX in this process takes no more of the GPUs than it needs: they are for the workers.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        require_ray(**given)
        return functools.partial(run_on_ray, **given)
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        raise ConfigError(f"got {option} {value:g} with --executor local, need --executor ray; try without {option}")
    return run_locally
