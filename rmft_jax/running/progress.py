"""Progress on the terminal: a live bar, or plain lines where there is no terminal."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class IterationBar:
    """Shows how far training is, with its regret and the time left."""

    def __init__(self, console: Console, bar: Progress, total: int, done: int):
        self._console, self._bar, self._total, self._start = console, bar, total, done
        self._started = time.perf_counter()
        self._task = bar.add_task("training", total=total, completed=done, figures="", left="")

    def update(self, done: int, validation_regret: float, regret: float, entropy: float) -> None:
        """Moves the bar to `done` iterations."""
        left = (time.perf_counter() - self._started) / (done - self._start) * (self._total - done)
        figures = f"held-out regret {validation_regret:.2f} · rollout regret {regret:.2f} · entropy {entropy:.3f}"
        time_left = f"{int(left) // 60}:{int(left) % 60:02d} left"
        self._bar.update(self._task, completed=done, figures=figures, left=time_left)
        if not self._console.is_terminal:
            self._console.print(f"iteration {done}/{self._total} · {figures} · {time_left}", soft_wrap=True)


class SweepBar:
    """Shows how many cells of a sweep are done, what is running, and the time left."""

    def __init__(self, console: Console, bar: Progress, total: int, done: int):
        self._console, self._bar, self._total, self._done, self._start = console, bar, total, done, done
        self._started = time.perf_counter()
        self._task = bar.add_task("sweep", total=total, completed=done, figures="", left="")

    def figures(self, words: str) -> None:
        """Says what is running."""
        self._bar.update(self._task, figures=words)

    def add(self, label: str, regret: float) -> None:
        """Counts a cell that finished."""
        self._count(f"{label} · regret {regret:.2f}")

    def fail(self, label: str, message: str) -> None:
        """Counts a cell that failed."""
        self._console.print(f"failed: {label}: {message}", soft_wrap=True, markup=False)
        self._count(f"{label} · failed")

    def _count(self, figures: str) -> None:
        self._done += 1
        seconds = (time.perf_counter() - self._started) / (self._done - self._start) * (self._total - self._done)
        time_left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
        self._bar.update(self._task, completed=self._done, figures=figures, left=time_left)
        if not self._console.is_terminal:
            self._console.print(f"{self._done}/{self._total} · {figures} · {time_left}", soft_wrap=True, markup=False)


class ProgressReporter:
    """Where a run says what it does; standard error by default, so that output can be piped."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True, highlight=False)

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
    def iterations(self, total: int, done: int) -> Iterator[IterationBar]:
        """A bar over iterations, starting at `done`."""
        with self._progress() as bar:
            yield IterationBar(self._console, bar, total, done)

    @contextlib.contextmanager
    def sweep(self, total: int, done: int) -> Iterator[SweepBar]:
        """A bar over cells, starting at `done`."""
        with self._progress() as bar:
            yield SweepBar(self._console, bar, total, done)

    def _progress(self) -> Progress:
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal)
