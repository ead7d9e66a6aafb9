"""Servers of this machine, each in a thread of its own."""

import threading
from http.server import ThreadingHTTPServer
from typing import Any, Generic, TypeVar

H = TypeVar("H", bound=ThreadingHTTPServer)
S = TypeVar("S")


class LocalServer(Generic[H]):
    """A server that has started. As a context it is closed at the end.

    Args:
      http: listening already.
    """

    def __init__(self, http: H):
        self._http = http
        options: Any = {"poll_interval": 0.02}
        self._thread = threading.Thread(target=http.serve_forever, kwargs=options, daemon=True)
        self._thread.start()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8765`."""
        host, port = self._http.server_address[:2]
        return f"http://{host}:{port}"

    def wait(self) -> None:
        """Serves until it is closed, or this is interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def close(self) -> None:
        """Takes no further request."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
