"""The command `rmft runs`: what a folder holds."""

import dataclasses
import json
import os
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from rmft_jax.cli.common import parse, suggest, terminal_width
from rmft_jax.running.files import RunError, UnreadableError, locked, read_if_there
from rmft_jax.running.storage import RunDirectory

_PRESET_WIDTH = 12  # In a narrow terminal.


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
        raise RunError(
            f"{folder} holds no run; try `rmft train quickstart --out {shlex.quote(str(folder / 'quickstart'))}`"
        )
    width = terminal_width()
    Console(highlight=False, width=width or 200).print(_table(found, width), markup=False, soft_wrap=width is None)
    stopped = next((run.path for run in found if run.state == "stopped"), None)
    others = [["train", "--resume", "--out", stopped]] if stopped else []
    done = [run.path for run in found if run.state == "finished"][:2]
    suggest(*others, ["plot", *(done or [found[0].path])])
    return 0


def _table(found: Sequence[_Run], width: int | None) -> Table:
    """A row per run; where a terminal is too narrow for it, paths and presets go on in a next line."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    names = ("run", "preset", "state", "iterations", "regret", "changed")
    rows = [[*map(str, run[:-1]), _age(time.time() - run.changed)] for run in found]
    path, *others = (max(map(len, column)) for column in zip(names, *rows, strict=True))
    between = 3 * len(others)
    wraps = width is not None and path + sum(others) + between > width
    if width is not None and wraps:
        others[0] = min(others[0], _PRESET_WIDTH)
        room = max(width - sum(others) - between, 16)
        rows = [[_broken(run, room), *row] for run, *row in rows]
    for name in names:
        free = wraps and name in ("run", "preset")
        most = _PRESET_WIDTH if free and name == "preset" else None
        justify = "right" if name in names[3:] else "left"
        table.add_column(name, justify=justify, no_wrap=not free, overflow="fold", max_width=most)
    for row in rows:
        table.add_row(*row)
    return table


def _broken(path: str, width: int) -> str:
    """A path as lines of at most so many characters, broken behind slashes where there are any."""
    lines = [""]
    for part in re.findall(r"[^/]*/|[^/]+$", path):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


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
    changed = max((file.stat().st_mtime for file in written if os.access(file, os.F_OK)), default=0.0)
    try:
        record: Any = run.read_record()
        preset, total = str(record["preset"]), int(record["config"]["num_iterations"])
        row = _last_row(path)
        done = int(row.get("iteration", 0))
        regret, state = row.get("validation_regret"), "stopped"
        if (stored := read_if_there(path / "summary.json")) is not None:
            summary = json.loads(stored)
            state, regret, done = "finished", summary["evaluation"]["rmft"]["regret_mean"], total
        elif _is_locked(path):
            state = "training"
    except UnreadableError:
        return _Run(path, "?", "unreadable", "?", "-", changed)
    except (RunError, LookupError, TypeError, ValueError):
        return _Run(path, "?", "damaged", "?", "-", changed)
    return _Run(path, preset, state, f"{done}/{total}", "-" if regret is None else f"{regret:.2f}", changed)


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole line of `metrics.jsonl`; empty if there is none."""
    for line in reversed((read_if_there(path / "metrics.jsonl") or b"").splitlines()):
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
    except UnreadableError:  # Whose lock is another user's.
        raise
    except RunError:
        return True


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
