"""What training shows while it runs, for other programs: a line a chunk in `metrics.jsonl`, TensorBoard, W&B."""

import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rmft_jax.config.checks import require
from rmft_jax.method.state import TrainState
from rmft_jax.running.files import read_bytes, replacing, without_nan
from rmft_jax.running.history import History
from rmft_jax.running.storage import RunDirectory

Row = Mapping[str, float | int | None]
"""What a chunk showed (`History.row`), by name, and `seconds`, spent on training so far without compilation."""
Callback = Callable[[Row, TrainState], None]
"""What a user's code is told after a chunk: its row, and the state, whose arrays the next chunk takes: copy what you
keep of them."""
Log = Callable[[Row], None]
_LINES = "metrics.jsonl"


def append_line(run: RunDirectory, row: Row) -> None:
    """Adds a row to `metrics.jsonl`, where readers see it at once.

    Raises:
      OSError: if it cannot be written.
    """
    with (run.path / _LINES).open("a", encoding="utf-8") as file:
        file.write(_line(row))


def restore_lines(run: RunDirectory, history: History) -> list[Row]:
    """Makes `metrics.jsonl` hold the chunks of a history, each once, whatever it held before, and returns its rows.

    How long a chunk took is known from the file alone, None where it was lost.

    Raises:
      OSError: if it cannot be written.
    """
    path, seconds = run.path / _LINES, {}
    for line in read_bytes(path).splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, LookupError, TypeError):  # A line that a kill cut.
            row = json.loads(line)
            seconds[row["iteration"]] = row["seconds"]
    rows = [history.row(number) for number in range(len(history.iterations))]
    whole: list[Row] = [row | {"seconds": seconds.get(row["iteration"])} for row in rows]
    content = "".join(map(_line, whole)).encode()
    if not path.is_file() or read_bytes(path) != content:  # When it was changed says when the run last did something.
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return whole


def _line(row: Row) -> str:
    return json.dumps(without_nan(row), allow_nan=False) + "\n"


@contextlib.contextmanager
def _tensorboard(run: RunDirectory, rows: Sequence[Row]) -> Iterator[Log]:
    """Event files in `tensorboard/`. Those of a run that goes on begin anew: what went before is told again."""
    with importlib.import_module("tensorboardX").SummaryWriter(str(run.path / "tensorboard"), purge_step=0) as writer:

        def log(row: Row) -> None:
            for name, value in row.items():
                if value is not None and name != "iteration":
                    writer.add_scalar(name, value, int(row["iteration"] or 0))
            writer.flush()

        for row in rows:
            log(row)
        yield log


@contextlib.contextmanager
def _wandb(run: RunDirectory, rows: Sequence[Row]) -> Iterator[Log]:
    """A run of Weights & Biases in `wandb/`, offline unless `WANDB_MODE` says otherwise.

    Offline, a run that goes on is told whole again, in a folder of its own: the newest is the one to send.
    """
    record = run.read_record()
    session = importlib.import_module("wandb").init(
        project=os.environ.get("WANDB_PROJECT", "rmft"),
        id=record["id"],
        name=run.path.resolve().name,
        dir=str(run.path),
        config=record["config"] | {"preset": record["preset"]},
        mode=os.environ.get("WANDB_MODE", "offline"),
        resume="allow",
    )
    with session:
        session.define_metric("*", step_metric="iteration")
        known = session.summary.get("iteration", -1)
        for row in rows:
            if (row["iteration"] or 0) > known:
                session.log(dict(row))
        yield lambda row: session.log(dict(row))


LOGS: dict[str, tuple[str, Callable[[RunDirectory, Sequence[Row]], AbstractContextManager[Log]]]] = {
    "tensorboard": ("tensorboardX", _tensorboard),
    "wandb": ("wandb", _wandb),
}
"""By name: the package that it needs, and what opens it with the rows so far."""


def require_logs(names: Sequence[str]) -> None:
    """Raises `ConfigError` for a log that is not known, or whose package is not installed."""
    require(isinstance(names, Sequence), f"log={names!r}", "a sequence of names", "log=()")
    for name in names:
        require(name in LOGS, f"log={name!r}", f"some of {', '.join(LOGS)}", "log=('tensorboard',)")
        package, _ = LOGS[name]
        found = importlib.util.find_spec(package) is not None
        hint = f".venv/bin/pip install '.[{name}]' in the clone"
        require(found, f"log={name!r} without the package {package}", "it", hint)


@contextlib.contextmanager
def opened(names: Sequence[str], run: RunDirectory, rows: Sequence[Row]) -> Iterator[list[Any]]:
    """Some logs of a run, told of the rows so far, for those to come."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(LOGS[name][1](run, rows)) for name in names]
