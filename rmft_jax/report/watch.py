"""A report that follows its files, served on this machine for itself alone."""

import hashlib
import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either
from rmft_jax.report.page import library, make_page
from rmft_jax.report.sources import open_sources
from rmft_jax.running.files import RunError, as_text
from rmft_jax.running.serving import LocalServer
from rmft_jax.statistics.estimates import IntervalName

_HOST = "127.0.0.1"
# What a report reads; checkpoints change too, but never without these.
_FILES = ("*.json", "*.nc", "cells/*.nc", "failures/*.json")
_REMINDER = "Dialogues are not played again while the page follows its files."


class Watch(LocalServer[ThreadingHTTPServer]):
    """A report that is being served."""

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"{self.address}/"


def watch(paths: Sequence[str | Path], port: int = 0, intervals: IntervalName = "student") -> Watch:
    """Serves a report that is made again whenever its files have changed, at 127.0.0.1 and nowhere else.

    Args:
      paths: as `write_report` takes them; runs may be in training.
      port: 0: one that is free.
      intervals: of sweeps over seeds.

    Raises:
      ConfigError: if there is nothing to report on, or the package that draws is not installed.
      RunError: if rmft made nothing at one of the paths, or the port is taken.
    """
    library()
    open_sources(paths, intervals)  # Refuses what cannot be shown, before anybody looks.
    kept = _Kept(paths, intervals)

    class Handler(_Handler):
        pages = kept

    try:
        return Watch(ThreadingHTTPServer((_HOST, port), Handler))
    except OSError as error:
        raise RunError(
            f"cannot listen on {_HOST}:{port} ({error.strerror}); try {either('--port 0', 'port=0')}"
        ) from error


class _Kept:
    """The newest page, which is made when somebody asks for it and its files have changed."""

    def __init__(self, paths: Sequence[str | Path], intervals: IntervalName):
        self._paths = [Path(path) for path in paths]
        self._intervals: IntervalName = intervals
        self._lock = threading.Lock()
        self._made = "", ""

    def version(self) -> str:
        """What the files are now: a change of any changes it."""
        found = [path for place in self._paths for one in _FILES for path in sorted(place.glob(one))]
        known = []
        for path in [*self._paths, *found]:
            try:
                told = path.stat()
                known.append((as_text(path), told.st_size, told.st_mtime_ns))
            except OSError:  # It was replaced in between.
                continue
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]

    def page(self) -> str:
        """The page of the files as they are now."""
        with self._lock:
            version = self.version()  # Before they are read: what changes meanwhile is seen the next time.
            if self._made[0] != version:
                sources = open_sources(self._paths, self._intervals)
                for source in sources:
                    source.missing += [_REMINDER] if source.writes else []
                self._made = version, make_page(sources, dialogues=False, watch=version)[0]
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    pages: _Kept

    def do_GET(self) -> None:
        """Answers with the page or its version; other sites, whose names may lead here, get nothing."""
        assert isinstance(self.server, ThreadingHTTPServer)
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            self._answer(HTTPStatus.FORBIDDEN, "this page is for this machine alone\n")
        elif self.path not in ("/", "/version"):
            self._answer(HTTPStatus.NOT_FOUND, "there is / and /version\n")
        else:
            try:
                page = self.path == "/"
                self._answer(HTTPStatus.OK, self.pages.page() if page else self.pages.version(), page)
            except (ConfigError, RunError) as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")

    def _answer(self, status: HTTPStatus, text: str, is_page: bool = False) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"text/{'html' if is_page else 'plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a page asks every other second."""
