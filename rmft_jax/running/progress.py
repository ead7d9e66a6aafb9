"""Progress: a live bar in a terminal or a notebook, plain lines elsewhere."""

import contextlib
import html
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column


class Bar:
    """Shows how far work is, with words about the last step and the time left.

    Args:
      console: for lines.
      what: is counted.
      total: how many there are; done: of which that many are behind it.
      draw: draws the bar, given how many are done, the words and the time left. None: each step is a line.
    """

    def __init__(
        self, console: Console, what: str, total: int, done: int, draw: Callable[[int, str, str], None] | None
    ):
        self._console, self._draw, self._total, self._done, self._start = console, draw, total, done, done
        self._started, self._what, self._left = time.perf_counter(), what, ""

    def figures(self, words: str) -> None:
        """Says what is running."""
        if self._draw is not None:
            self._draw(self._done, words, self._left)

    def say(self, words: str) -> None:
        """The same, as a line of its own where there is no bar."""
        self.figures(words)
        if self._draw is None:
            self._line(words)

    def update(self, done: int, validation_regret: float, regret: float, entropy: float) -> None:
        """Moves the bar of a run to `done` iterations."""
        words = f"validation regret {validation_regret:.2f} · rollout regret {regret:.2f} · entropy {entropy:.3f}"
        self._move(done, words)

    def tick(self, label: str) -> None:
        """Counts what is done."""
        self._move(self._done + 1, label)

    def add(self, label: str, regret: float) -> None:
        """Counts a cell or an agent that finished."""
        self._move(self._done + 1, f"{label} · regret {regret:.2f}")

    def fail(self, label: str, message: str) -> None:
        """Counts a cell that failed."""
        self._line(f"failed: {label}: {message}")
        self._move(self._done + 1, f"{label} · failed")

    def step(self, words: str, seconds_left: float) -> None:
        """Counts what ended, with a line about it; how much time is left is said by whoever knows."""
        if self._draw is not None:
            self._line(words)
        self._move(self._done + 1, words, max(seconds_left, 0.0))

    def _move(self, done: int, figures: str, seconds_left: float | None = None) -> None:
        self._done = done
        seconds = (time.perf_counter() - self._started) / (done - self._start) * (self._total - done)
        seconds = seconds if seconds_left is None else seconds_left
        self._left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
        self.figures(figures)
        if self._draw is None:
            self._line(f"{self._what} {done}/{self._total} · {figures} · {self._left}".lstrip())

    def _line(self, words: str) -> None:
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

    def status(self, message: str, lines: bool = True) -> AbstractContextManager[object]:
        """A spinner while the block runs; where there is no terminal a line, or nothing without `lines`."""
        if self._console.is_terminal:
            return self._console.status(message)
        if lines:
            self.note(message)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def bar(self, what: str, total: int, done: int) -> Iterator[Bar]:
        """A bar over iterations, cells or agents, starting at `done`."""
        if self._console.is_jupyter:
            yield Bar(self._console, what, total, done, _notebook_bar(what, total, done))
            return
        if not self._console.is_terminal:
            yield Bar(self._console, what, total, done, None)
            return
        whole, flexible = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            BarColumn(min(24, self._console.width // 8), table_column=whole),
            MofNCompleteColumn(table_column=whole.copy()),
            TimeElapsedColumn(table_column=whole.copy()),
            TextColumn("{task.fields[left]}", table_column=whole.copy()),
            TextColumn("{task.fields[figures]}", markup=False, table_column=flexible),
        )
        with Progress(*columns, console=self._console, expand=True) as bar:
            task = bar.add_task(what, total=total, completed=done, figures="", left="")

            def draw(done: int, figures: str, left: str) -> None:
                bar.update(task, completed=done, figures=figures, left=left)

            yield Bar(self._console, what, total, done, draw)


def _notebook_bar(what: str, total: int, done: int) -> Callable[[int, str, str], None]:
    """A bar in the output of a notebook's cell, with what every notebook has: rich would need a further package."""
    display = importlib.import_module("IPython.display")

    def shown(done: int, figures: str, left: str) -> object:
        words = html.escape(" · ".join(filter(None, (f"{what} {done}/{total}".lstrip(), figures, left))))
        return display.HTML(f'<progress value="{done}" max="{total}"></progress> {words}')

    handle = display.display(shown(done, "", ""), display_id=True)
    return lambda done, figures, left: handle.update(shown(done, figures, left))
