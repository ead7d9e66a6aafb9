"""What goes over a connection to a chat endpoint, what stops it, and what our own endpoint makes of requests."""

import asyncio
import http.server
import json
import signal
import socket
import threading
import time
from typing import Any, ClassVar

import pytest

import talking
from rmft_jax.language.api.connection import Connection, all_of, finished
from rmft_jax.language.api.desk import RefusedError
from rmft_jax.language.api.server import serve
from rmft_jax.running.files import RunError
from talking import ROUNDS, SCENARIOS, SECRET, refusal, tuned

pytest.importorskip("openai")

pytestmark = pytest.mark.usefixtures("chat_key")


class Heard(http.server.BaseHTTPRequestHandler):
    """Keeps the headers of requests, and answers an error that looks like a success before it answers."""

    heard: ClassVar[list[dict[str, str]]] = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append({name.lower(): value for name, value in self.headers.items()})
        message = {"role": "assistant", "content": "none"}
        answer: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        if len(self.heard) == 1:
            answer = {"error": {"message": "upstream is overloaded", "code": 502}}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "toy", **answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Nothing."""


def test_a_server_learns_nothing_of_this_machine_and_its_failures_are_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setattr(Heard, "heard", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        talking.play(f"http://127.0.0.1:{server.server_port}/v1", tmp_path, concurrency=1)
        server.shutdown()
    assert len(Heard.heard) == SCENARIOS * ROUNDS + 1
    for headers in Heard.heard:
        assert not {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"} & headers.keys()
        assert not [value for value in headers.values() if "secret" in value and SECRET not in value]


def test_a_notebook_that_is_interrupted_sends_nothing_more():
    """In a loop of events that runs already the work is in a thread of its own."""
    sent: list[int] = []

    async def work() -> None:
        connection = Connection("http://127.0.0.1:9/v1")

        async def job(number: int) -> None:
            connection.check()
            sent.append(number)
            await asyncio.sleep(0.2)

        async def one_by_one() -> None:
            for number in range(100):
                await job(number)

        await all_of([one_by_one()], connection)

    async def cell() -> None:
        finished(work)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Which who runs tests may have taken away.
    threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)).start()
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    number = len(sent)
    assert number < 20
    time.sleep(0.5)
    assert len(sent) == number


def test_why_a_server_cannot_be_reached_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    told = refusal(url, tmp_path, error=RunError, timeout=2.0)
    assert "cannot reach" in told
    assert "event loop" not in told


def test_answers_are_cut_where_the_server_says_and_requests_are_looked_at():
    with serve(lambda *_: "one two three four", tuned, models=["m"], most_tokens=4) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 20}
        desk = server._desk
        assert desk.answer(body)["choices"][0]["finish_reason"] == "length"
        for wrong in (
            {"temperature": -1},
            {"temperature": "hot"},
            {"seed": "x"},
            {"max_tokens": "many"},
            {"max_tokens": -3},
        ):
            with pytest.raises(RefusedError) as refused:
                desk.answer(body | wrong)
            assert refused.value.status == 400
        assert desk.answer(body | {"temperature": None, "seed": None, "max_tokens": None})
