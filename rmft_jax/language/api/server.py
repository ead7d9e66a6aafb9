"""A server of the chat endpoint on this machine: for tests, and for models that have no service of their own."""

import contextlib
import email
import email.policy
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from rmft_jax.config.checks import require
from rmft_jax.language.api.desk import Desk, RefusedError, Reply, Tune
from rmft_jax.language.api.faults import is_local
from rmft_jax.language.api.moods import Counts, Moods
from rmft_jax.running.files import RunError
from rmft_jax.running.serving import LocalServer

_MOST_BYTES = 256_000_000
_JOBS = "/v1/fine_tuning/jobs"


class Server(LocalServer["_HTTP"]):
    """A running server; a context manager that closes it.

    Args:
      http: listening already.
      desk: what it holds.
    """

    def __init__(self, http: "_HTTP", desk: Desk):
        self._desk = desk
        super().__init__(http)

    @property
    def url(self) -> str:
        """The base_url for clients."""
        return f"{self.address}/v1"

    @property
    def counts(self) -> Counts:
        """What it has done until now."""
        return self._desk.counts

    @property
    def models(self) -> list[str]:
        """Names of the models that it knows."""
        return self._desk.models

    @property
    def moods(self) -> Moods:
        """What goes wrong; may be set while it runs."""
        return self._desk.moods

    @moods.setter
    def moods(self, moods: Moods) -> None:
        self._desk.moods = moods

    def close(self) -> None:
        """Takes no further request, and ends once the jobs at work have ended."""
        super().close()
        self._http.hang_up()
        self._desk.wait()


def serve(
    reply: Reply,
    tune: Tune,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    models: Sequence[str] = ("toy",),
    moods: Moods | None = None,
    api_key: str | None = None,
    count_tokens: Callable[[str], int] | None = None,
    session: str = "",
    most_tokens: int = 2**31 - 1,
) -> Server:
    """Starts a server of this machine alone, in threads of its own.

    It answers `POST /v1/chat/completions` (whole or as a stream), `GET /v1/models`, `POST /v1/files`, and under
    `/v1/fine_tuning/jobs` it starts, shows, lists and cancels jobs.

    Args:
      reply: answers prompts; called in several threads at once.
      tune: makes a model from examples.
      host: address of this machine for itself.
      port: 0: one that is free.
      models: names that it knows from the start.
      moods: what goes wrong; None: nothing.
      api_key: that it asks for; None: any.
      count_tokens: of a text; None: words.
      session: stands in the names of files and jobs, so that those of two servers are not taken for each other.
      most_tokens: of an answer, whatever a request allows.

    Raises:
      ConfigError: if others could reach that address.
      RunError: if the port is taken.
    """
    require(is_local(host), f"host={host!r}", "an address of this machine alone", "host='127.0.0.1'")
    count = count_tokens or (lambda text: len(text.split()))
    desk = Desk(reply, tune, models, moods or Moods(), count, session, most_tokens)
    try:
        return Server(_HTTP((host, port), desk, api_key), desk)
    except OSError as error:
        raise RunError(f"cannot listen on {host}:{port} ({error.strerror}); try port=0") from error


class _HTTP(ThreadingHTTPServer):
    """Knows its open connections, so that it can close them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], desk: Desk, api_key: str | None):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.desk, self.api_key = desk, api_key
        self._open: set[Any] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        self._open.add(request)
        return request, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""

    def hang_up(self) -> None:
        """Ends the connections that are still open; their threads close them."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _desk(self) -> Desk:
        return cast(_HTTP, self.server).desk

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what was asked is nobody else's business."""

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, work: Callable[[str, bytes], None]) -> None:
        """Does the work; what it refuses is told."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 <= length <= _MOST_BYTES:
                self.close_connection = True
                raise RefusedError(413, "too large")
            body = self.rfile.read(length)
            if to := self._desk.moods.redirect:
                self._send(307, {}, {"Location": to})
                return
            self._admit()
            work(self.path.split("?")[0].rstrip("/"), body)
        except RefusedError as error:
            self._send(error.status, {"error": {"message": error.message, "type": "refused", "code": None}})

    def _admit(self) -> None:
        """Raises `RefusedError` without the key."""
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        wanted = cast(_HTTP, self.server).api_key
        if not given or (wanted is not None and not hmac.compare_digest(given.encode(), wanted.encode())):
            raise RefusedError(401, "no valid key")

    def _get(self, path: str, _: bytes) -> None:
        if path == "/v1/models":
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in self._desk.models]
            self._send(200, {"object": "list", "data": models})
        elif path == _JOBS:
            jobs = [job.shown() for job in self._desk.jobs()]
            self._send(200, {"object": "list", "data": jobs, "has_more": False})
        elif path.startswith(f"{_JOBS}/"):
            self._send(200, self._desk.job(path.rsplit("/", 1)[-1]).shown())
        else:
            raise RefusedError(404, f"nothing at {path}")

    def _post(self, path: str, body: bytes) -> None:
        if path == "/v1/chat/completions":
            self._chat(_json(body))
        elif path == "/v1/files":
            self._send(200, self._desk.take(*_uploaded(self.headers.get("Content-Type") or "", body)))
        elif path == _JOBS:
            self._send(200, self._desk.start(_json(body)).shown())
        elif path.startswith(f"{_JOBS}/") and path.endswith("/cancel"):
            self._send(200, self._desk.cancel(path.split("/")[-2]).shown())
        else:
            raise RefusedError(404, f"nothing at {path}")

    def _chat(self, body: dict[str, Any]) -> None:
        moods = self._desk.moods
        mood = moods.of(self._desk.next_number())
        try:
            if mood == "busy":
                self._desk.refuse()
                error = {"error": {"message": "too many requests", "type": "requests", "code": "rate_limit_exceeded"}}
                self._send(429, error, {"Retry-After": f"{moods.retry_after:g}"})
                return
            if mood == "fail":
                raise RefusedError(500, "it was told to fail")
            if mood == "slow":
                time.sleep(moods.slow_seconds)
            answer = self._reply(body)
        except RefusedError:
            self._desk.refuse()
            raise
        whole = mood != "break"
        self._desk.charge(answer, whole=whole)
        if body.get("stream"):
            self._stream(answer, whole)
        elif whole:
            self._send(200, answer)
        else:
            self._start(200, {"Content-Type": "application/json", "Content-Length": "1000000"})
            self.wfile.write(json.dumps(answer).encode()[:20])
            self.close_connection = True

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._desk.answer(body)
        except RefusedError:
            raise
        except Exception as error:  # Of the function that was given.
            raise RefusedError(500, f"{type(error).__name__}: {error}") from error

    def _stream(self, answer: dict[str, Any], whole: bool) -> None:
        self._start(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        events = list(_events(answer))
        for event in events if whole else events[: len(events) // 2]:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def _send(self, status: int, values: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(values).encode()
        self._start(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise RefusedError(400, "the body is no JSON object")
    return values


def _uploaded(kind: str, body: bytes) -> tuple[str, bytes]:
    """Name and content of the file in a form."""
    head = f"Content-Type: {kind}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    form = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    for part in form.iter_parts() if form.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "file":
            content = part.get_payload(decode=True)
            return part.get_filename() or "file", content if isinstance(content, bytes) else b""
    raise RefusedError(400, "no file in the form")


def _events(answer: dict[str, Any]) -> Iterator[str]:
    """The answer in pieces, as a stream tells it; the second half without its end is a broken one."""
    shared = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    text = answer["choices"][0]["message"]["content"]
    middle = (len(text) + 1) // 2
    for piece in ({"role": "assistant", "content": ""}, {"content": text[:middle]}, {"content": text[middle:]}):
        yield json.dumps({**shared, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]})
    yield json.dumps(
        {**shared, "choices": [{"index": 0, "delta": {}, "finish_reason": answer["choices"][0]["finish_reason"]}]}
    )
    yield json.dumps({**shared, "choices": [], "usage": answer["usage"]})
    yield "[DONE]"
