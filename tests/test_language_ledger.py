import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

import talking
from rmft_jax.config import ConfigError
from rmft_jax.language.api.budget import Budget, BudgetSpentError, Purse
from rmft_jax.language.api.client import Asker, ChatClient
from rmft_jax.language.api.connection import Connection
from rmft_jax.language.api.faults import FaultError
from rmft_jax.language.api.ledger import Answer, AnswerKey, Ledger
from rmft_jax.language.api.moods import Moods
from rmft_jax.language.api.server import serve
from rmft_jax.running.files import RunError
from talking import ROUNDS, SCENARIOS, by_seed, refusal, round_of, summary, tuned

pytest.importorskip("openai")

TOTAL = SCENARIOS * ROUNDS
KEY = jax.random.key(talking.KEY_NUMBER)

pytestmark = pytest.mark.usefixtures("chat_key")


@pytest.mark.parametrize("limit", ["requests", "total_tokens"])
def test_a_budget_is_never_passed_and_loses_nothing(limit, server, tmp_path):
    whole = talking.play(server.url, tmp_path / "whole").totals
    before = dataclasses.replace(server.counts)
    for part in (1, 2):
        # Requests are held back with the most tokens that they may have.
        more = 0 if limit == "requests" else 1000
        size = {"requests": whole.requests, "total_tokens": whole.all_tokens}[limit] * part // 3 + more
        budget = Budget(**{f"max_{limit}": size})
        message = refusal(server.url, tmp_path / "part", error=BudgetSpentError, budget=budget)
        assert f"max_{limit}={size}" in message
        with Ledger(tmp_path / "part") as ledger:
            spent = ledger.totals
            assert len(ledger) == spent.requests
        assert 0 < {"requests": spent.all_requests, "total_tokens": spent.all_tokens}[limit] <= size
        assert server.counts.answered - before.answered == spent.requests
        if limit == "requests":
            assert spent.requests == size
    played = talking.play(server.url, tmp_path / "part", budget=Budget(max_requests=TOTAL))
    assert played.totals == whole
    assert max(server.counts.paid.values()) == 2


def test_broken_answers_count_against_a_budget(server, tmp_path):
    server.moods = Moods(break_every=2)
    refusal(server.url, tmp_path, error=BudgetSpentError, budget=Budget(max_requests=11))
    assert server.counts.answered + server.counts.broken == server.counts.requests == 11


def test_an_error_of_one_dialogue_lets_the_others_end_what_is_paid(tmp_path):
    def reply(messages, temperature, max_tokens, seed, model):
        if round_of(messages) == 1:
            time.sleep(0.2)
        return by_seed(messages, temperature, max_tokens, seed, model)

    with serve(reply, tuned) as server:
        budget = Budget(max_requests=5)
        refusal(server.url, tmp_path, error=BudgetSpentError, budget=budget)
        assert server.counts.answered == 5
    with Ledger(tmp_path) as ledger:
        assert len(ledger) == 5


def start(url: str, folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, talking.__file__, url, str(folder)], env=environment)


def until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.005)


def test_a_killed_evaluation_goes_on_and_pays_for_nothing_twice(server, tmp_path):
    expected = talking.play(server.url, tmp_path / "whole")
    before = server.counts.answered
    server.moods = Moods(slow_every=1, slow_seconds=0.1)
    process = start(server.url, tmp_path / "killed")
    try:
        until(lambda: server.counts.answered - before >= 7 or process.poll() is not None)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    until(lambda: server.counts.answered + server.counts.refused == server.counts.requests, 5)
    server.moods = Moods()
    killed = server.counts.answered - before
    with Ledger(tmp_path / "killed") as ledger:
        kept = len(ledger)
    # What was under way when it was killed is lost, at most as many requests as are sent at once.
    assert 0 < kept <= killed <= kept + 3
    assert killed < TOTAL
    played = talking.play(server.url, tmp_path / "killed")
    assert summary(played) == summary(expected)
    assert server.counts.answered - before == TOTAL + killed - kept
    assert sum(times > 2 for times in server.counts.paid.values()) == killed - kept


def test_an_interrupted_evaluation_keeps_what_was_under_way(server, tmp_path):
    server.moods = Moods(slow_every=1, slow_seconds=0.1)
    process = start(server.url, tmp_path)
    try:
        until(lambda: server.counts.answered >= 5 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    finally:
        process.kill()
    with Ledger(tmp_path) as ledger:
        assert 5 <= len(ledger) == server.counts.answered == server.counts.requests < TOTAL
        assert ledger.totals.lost == 0


KEYS = [AnswerKey("a", round, "play", "digest") for round in range(3)]


def test_a_ledger_keeps_answers_and_drops_a_torn_line(tmp_path):
    answers = [Answer(f"arm {i} é\u2028\n\ud800", i, 2 * i, "toy", "stop") for i in range(3)]
    with Ledger(tmp_path) as ledger:
        for key, answer in zip(KEYS, answers, strict=True):
            ledger.add(key, answer)
        ledger.lose(KEYS[0], "lost", 7)
        totals = ledger.totals
    assert (totals.requests, totals.lost, totals.lost_tokens, totals.all_tokens) == (3, 1, 7, 16)
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(whole.split(b"\n")) == 5
    for torn in (b'{"dialogue": "a", "ro', b"\0\0\0\0\n", b'{"dialogue": 1}\n'):
        ledger.path.write_bytes(whole + torn)
        with Ledger(tmp_path) as again:
            assert [again.get(key) for key in KEYS] == answers
            assert again.totals == totals
        assert ledger.path.read_bytes() == whole
    ledger.path.write_bytes(whole[:-5])
    with Ledger(tmp_path) as again:
        assert again.totals.lost == 0
        again.add(KEYS[0]._replace(round=9), answers[0])
    with Ledger(tmp_path) as again:
        assert len(again) == 4
    ledger.path.write_bytes(lines[0] + b"{]\n" + lines[1])
    with pytest.raises(RunError, match=r"answers\.jsonl is damaged in line 2"), Ledger(tmp_path):
        pass


def test_a_ledger_is_open_once(tmp_path):
    with Ledger(tmp_path), pytest.raises(RunError, match="in use"), Ledger(tmp_path):
        pass
    with Ledger(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"), Ledger(tmp_path / "file"):
        pass


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    write = os.write
    with Ledger(tmp_path) as ledger:
        ledger.add(KEYS[0], Answer("a", 1, 1))
        whole = ledger.path.read_bytes()

        def full(file: int, data: bytes) -> int:
            if len(data) < 20:
                raise OSError(28, "No space left on device")
            return write(file, data[:10])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(RunError, match="No space left"):
                ledger.add(KEYS[1], Answer("b", 1, 1))
        assert ledger.path.read_bytes() == whole
        assert ledger.get(KEYS[1]) is None
        ledger.add(KEYS[1], Answer("b", 1, 1))
    with Ledger(tmp_path) as again:
        assert len(again) == 2


def test_servers_are_for_this_machine_alone():
    with pytest.raises(ConfigError, match="this machine alone"):
        serve(by_seed, tuned, host="0.0.0.0")
    with serve(by_seed, tuned) as server, pytest.raises(RunError, match="port=0"):
        serve(by_seed, tuned, port=int(server.url.split(":")[2].split("/")[0]))


def test_a_reply_that_fails_is_an_error_of_the_server(tmp_path):
    def reply(*arguments):
        raise ValueError("no such arm")

    with serve(reply, tuned) as server:
        assert "an error of the server (500)" in refusal(server.url, tmp_path, error=RunError, max_retries=1)


def test_a_connection_waits_longer_after_every_failure():
    waits: list[float] = []
    connection = Connection("http://127.0.0.1:9/v1", max_retries=4, first_rest=0.01)

    async def asked() -> None:
        async with connection:
            sleep = connection._sleep

            async def noted(seconds: float) -> None:
                waits.append(seconds)
                await sleep(0.0)

            connection._sleep = noted  # pyright: ignore[reportAttributeAccessIssue]

            async def call(api: Any) -> None:
                raise TimeoutError

            await connection.ask(call)

    with pytest.raises(RunError, match="failed 5 times"):
        asyncio.run(asked())
    assert len(waits) == 4
    assert all(0.005 * 2**i <= wait <= 0.01 * 2**i for i, wait in enumerate(waits))


def test_tokens_of_requests_under_way_are_held_back(tmp_path):
    async def asked(ledger: Ledger) -> list[str]:
        purse, events = Purse(ledger, Budget(max_total_tokens=100)), []

        async def spend(name: str, tokens: int, paid: int) -> None:
            async with purse.reserved(tokens):
                events.append(f"{name} begins")
                await asyncio.sleep(0.01)
                events.append(f"{name} ends")
                ledger.add(KEYS[0]._replace(dialogue=name), Answer("x", paid, 0))

        await asyncio.gather(spend("a", 60, 10), spend("b", 60, 60), spend("c", 40, 20))
        with pytest.raises(BudgetSpentError, match="max_total_tokens=100 allows no further request"):
            await spend("d", 20, 20)
        return events

    with Ledger(tmp_path) as ledger:
        events = asyncio.run(asked(ledger))
        assert ledger.totals.all_tokens == 90
    assert events.index("b begins") > events.index("a ends")
    assert events.index("c begins") < events.index("a ends")


def test_a_server_that_is_busy_is_left_alone_by_all():
    connection = Connection("http://127.0.0.1:9/v1", max_retries=1)
    times: list[float] = []

    async def asked() -> None:
        async def call(api: Any) -> None:
            times.append(time.monotonic())
            if len(times) == 1:
                raise FaultError("busy", wait=0.3)

        async def later() -> None:
            await asyncio.sleep(0.05)
            await connection.ask(call)

        async with connection:
            await asyncio.gather(connection.ask(call), later())

    asyncio.run(asked())
    assert len(times) == 3
    assert all(at - times[0] > 0.28 for at in times[1:])


@pytest.mark.parametrize("finish", ["stop", None])
def test_a_stream_without_an_end_is_no_answer(finish, tmp_path):
    client = ChatClient("http://127.0.0.1:9/v1", "toy", stream=True, max_retries=0)

    class Chunks:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def __aiter__(self):
            for text, end in (("bl", None), ("ue", finish)):
                choice = SimpleNamespace(delta=SimpleNamespace(content=text), finish_reason=end)
                yield SimpleNamespace(choices=[choice], usage=None, model="toy")

    async def create(**request: Any) -> Chunks:
        assert request["stream"]
        return Chunks()

    async def asked(ledger: Ledger) -> Answer:
        async with client.connection() as connection:
            completions = SimpleNamespace(create=create)
            connection._api = SimpleNamespace(
                chat=SimpleNamespace(completions=completions), close=connection._api.close
            )
            asker = Asker(client, connection, ledger, Purse(ledger))
            messages = [{"role": "user", "content": "which?"}]
            return await asker.answer(messages, dialogue="a", round=0, purpose="play", seed=0)

    with Ledger(tmp_path) as ledger:
        if finish is None:
            with pytest.raises(RunError, match="breaks off"):
                asyncio.run(asked(ledger))
            assert (ledger.totals.requests, ledger.totals.lost) == (0, 1)
        else:
            answer = asyncio.run(asked(ledger))
            assert answer.text == "blue"
            # Where the server does not count, upper bounds stand in.
            assert answer.prompt_tokens >= 6
            assert answer.completion_tokens >= 4
