"""Stopping a run: by a signal, where nothing is lost."""

import _thread
import contextlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rmft_jax.running import processes


class InterruptedRunError(KeyboardInterrupt):
    """The run was asked to stop and can be resumed.

    Not an `Exception`: no handler of errors may take it for one.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number


def wait(result: Any) -> None:
    """Until the array is computed. Polling instead of blocking lets signal handlers run, so Ctrl-C acts at once."""
    while not getattr(result, "is_ready", lambda: True)():
        time.sleep(0.005)


def _interrupt_main_thread(number: int) -> None:
    """As if the signal came from outside."""
    main_thread = threading.main_thread().ident
    if main_thread is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread, number)  # It ends waiting for the system, too.
    else:
        _thread.interrupt_main(signal.Signals(number))


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Inside it no stop is lost.

    Python drops what is raised while it collects garbage, where a signal may be met as anywhere. A stop that is dropped
    so comes again a moment later, without a word of it.
    """

    def drop(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        number = getattr(dropped.exc_value, "signal_number", signal.SIGINT)
        again = threading.Timer(0.02, _interrupt_main_thread, [number])
        again.daemon = True
        again.start()

    before, sys.unraisablehook = sys.unraisablehook, drop
    try:
        yield
    finally:
        sys.unraisablehook = before


class StopSignals:
    """SIGINT and SIGTERM: at once, or, inside `deferred`, at the next `check`; a second one is always at once.

    Args:
      directory: of the run, to say how it goes on.
      note: told when a signal is held back.
    """

    def __init__(self, directory: Path, note: Callable[[str], None]):
        self._resume = f"continue with: rmft train --resume --out {shlex.quote(str(directory))}"
        self._note = note
        self._deferred = False
        self._pending: int | None = None

    def __enter__(self) -> "StopSignals":
        numbers = (signal.SIGINT, signal.SIGTERM)
        # Only the main thread receives signals, and only there may handlers be set.
        in_main = threading.current_thread() is threading.main_thread()
        self._previous = {number: signal.signal(number, self._handle) for number in numbers} if in_main else {}
        self._heeded = heeded()
        self._heeded.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._heeded.__exit__(None, None, None)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds the first signal back until `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self, message: str) -> None:
        """Stops here if a signal came, to any process of the run: all of them ask this at the same time."""
        if number := processes.highest(self._pending or 0):
            raise InterruptedRunError(number, f"{message}; {self._resume}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._pending is not None or not self._deferred:
            raise InterruptedRunError(number, f"stopped at once; {self._resume}")
        self._pending = number
        self._note("stopping when this chunk is saved; once more to stop at once")
