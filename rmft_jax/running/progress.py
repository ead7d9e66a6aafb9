"""Progress on the terminal: a live bar, or plain lines where there is no terminal."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column


class Bar:
    """Shows how far work is, with words about the last step and the time left."""

    def __init__(self, console: Console, bar: Progress, what: str, total: int, done: int):
        self._console, self._bar, self._total, self._done, self._start = console, bar, total, done, done
        self._started, self._what = time.perf_counter(), what
        self._task = bar.add_task(what, total=total, completed=done, figures="", left="")

    def figures(self, words: str) -> None:
        """Says what is running."""
        self._bar.update(self._task, figures=words)

    def say(self, words: str) -> None:
        """The same, as a line of its own where there is no terminal."""
        self.figures(words)
        if not self._console.is_terminal:
            self._console.print(words, soft_wrap=True, markup=False)

    def update(self, done: int, validation_regret: float, regret: float, entropy: float) -> None:
        """Moves the bar of a run to `done` iterations."""
        self._move(
            done, f"held-out regret {validation_regret:.2f} · rollout regret {regret:.2f} · entropy {entropy:.3f}"
        )

    def tick(self, label: str) -> None:
        """Counts what is done."""
        self._move(self._done + 1, label)

    def add(self, label: str, regret: float) -> None:
        """Counts a cell or an agent that finished."""
        self._move(self._done + 1, f"{label} · regret {regret:.2f}")

    def fail(self, label: str, message: str) -> None:
        """Counts a cell that failed."""
        self._console.print(f"failed: {label}: {message}", soft_wrap=True, markup=False)
        self._move(self._done + 1, f"{label} · failed")

    def step(self, words: str, seconds_left: float) -> None:
        """Counts what ended, with a line about it; how much time is left is said by whoever knows."""
        if self._console.is_terminal:
            self._console.print(words, soft_wrap=True, markup=False)
        self._move(self._done + 1, words, max(seconds_left, 0.0))

    def _move(self, done: int, figures: str, seconds_left: float | None = None) -> None:
        self._done = done
        seconds = (time.perf_counter() - self._started) / (done - self._start) * (self._total - done)
        seconds = seconds if seconds_left is None else seconds_left
        left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
        self._bar.update(self._task, completed=done, figures=figures, left=left)
        if not self._console.is_terminal:
            words = f"{self._what} {done}/{self._total} · {figures} · {left}".lstrip()
            self._console.print(words, soft_wrap=True, markup=False)


class ProgressReporter:
    """Where a run says what it does; standard error by default, so that output can be piped."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True, highlight=False)

    @classmethod
    def silent(cls) -> "ProgressReporter":
        """One that says nothing."""
        return cls(Console(quiet=True))

    def note(self, message: str) -> None:
        """One line."""
        self._console.print(message, soft_wrap=True, markup=False)

    def status(self, message: str) -> AbstractContextManager[object]:
        """A spinner while the block runs."""
        if self._console.is_terminal:
            return self._console.status(message)
        self.note(message)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def bar(self, what: str, total: int, done: int) -> Iterator[Bar]:
        """A bar over iterations, cells or agents, starting at `done`."""
        whole, flexible = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            BarColumn(min(24, self._console.width // 6), table_column=whole),
            MofNCompleteColumn(table_column=whole.copy()),
            TimeElapsedColumn(table_column=whole.copy()),
            TextColumn("{task.fields[left]}", table_column=whole.copy()),
            TextColumn("{task.fields[figures]}", markup=False, table_column=flexible),
        )
        hidden = not self._console.is_terminal
        with Progress(*columns, console=self._console, disable=hidden, expand=True) as bar:
            yield Bar(self._console, bar, what, total, done)
