"""The command `rmft runs`: what a folder holds."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from rmft_jax.cli.common import parse, suggest
from rmft_jax.running.files import RunError, locked
from rmft_jax.running.storage import RunDirectory


@dataclasses.dataclass(frozen=True)
class RunsArguments:
    """Lists the runs in a folder and in those inside it: how far they are, and what their regret is.

    `training` is a run at which a process works; `stopped` one that `rmft train --resume` takes up; `finished` one that
    is evaluated, whose regret is that of the test scenarios and no longer of the validation.
    """

    directory: tyro.conf.Positional[Path] = Path("runs")
    """The folder."""


class _Run(NamedTuple):
    """What is said of a run."""

    path: Path
    preset: str
    state: str
    iterations: str
    regret: str
    changed: float


def runs(argv: list[str]) -> int:
    """Lists runs."""
    folder = parse(RunsArguments, "runs", argv).directory
    if not folder.is_dir():
        raise RunError(f"got {folder}, need a folder of runs; try `rmft train quickstart --out runs/quickstart`")
    found = sorted(map(_look, _runs_in(folder)), key=lambda run: -run.changed)
    if not found:
        raise RunError(f"{folder} holds no run; try `rmft train quickstart --out {folder / 'quickstart'}`")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("run", "preset", "state", "iterations", "regret", "changed"):
        table.add_column(name, justify="right" if name in ("iterations", "regret", "changed") else "left", no_wrap=True)
    for run in found:
        table.add_row(*map(str, run[:-1]), _age(time.time() - run.changed))
    Console(highlight=False, width=200).print(table, markup=False, soft_wrap=True)
    stopped = next((run.path for run in found if run.state == "stopped"), None)
    others = [["train", "--resume", "--out", stopped]] if stopped else []
    done = [run.path for run in found if run.state == "finished"][:2]
    suggest(*others, ["plot", *(done or [found[0].path])])
    return 0


def _runs_in(folder: Path) -> Iterator[Path]:
    """The directories of runs in a folder, at most three levels deep; none is inside another."""
    if (folder / RunDirectory.record_name).is_file():
        yield folder
        return
    for depth in range(1, 4):
        for record in folder.glob("*/" * depth + RunDirectory.record_name):
            yield record.parent


def _look(path: Path) -> _Run:
    run, written = RunDirectory(path), [path / RunDirectory.record_name, path / "metrics.jsonl", path / "summary.json"]
    changed = max(file.stat().st_mtime for file in written if file.is_file())
    try:
        record: Any = run.read_record()
        preset, total = str(record["preset"]), int(record["config"]["num_iterations"])
        row = _last_row(path)
        done = int(row.get("iteration", 0))
        regret, state = row.get("validation_regret"), "stopped"
        if (path / "summary.json").is_file():
            summary = run.read_summary()
            state, regret, done = "finished", summary["evaluation"]["rmft"]["regret_mean"], total
        elif _is_locked(path):
            state = "training"
    except (RunError, LookupError, TypeError, ValueError):
        return _Run(path, "?", "damaged", "?", "-", changed)
    return _Run(path, preset, state, f"{done}/{total}", "-" if regret is None else f"{regret:.2f}", changed)


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole line of `metrics.jsonl`; empty if there is none."""
    file = path / "metrics.jsonl"
    for line in reversed(file.read_bytes().splitlines() if file.is_file() else []):
        try:
            return dict(json.loads(line))
        except ValueError:  # It is being written.
            continue
    return {}


def _is_locked(path: Path) -> bool:
    if not (path / ".lock").exists():
        return False
    try:
        with locked(path, "training"):
            return False
    except RunError:
        return True


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
