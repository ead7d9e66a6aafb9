import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import talking
from rmft_jax.agents import Uniform
from rmft_jax.config import ConfigError, pytree
from rmft_jax.language.api.budget import Budget, BudgetSpentError, Purse
from rmft_jax.language.api.client import Asker, ChatClient
from rmft_jax.language.api.connection import Connection
from rmft_jax.language.api.faults import FaultError, asked_wait
from rmft_jax.language.api.ledger import Answer, AnswerKey, Ledger
from rmft_jax.language.api.messages import Script, bare_text, named_arm, said
from rmft_jax.language.api.moods import Moods
from rmft_jax.language.api.play import play_problems
from rmft_jax.language.api.server import serve
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.problems import Adaptive, Problem, Stationary
from rmft_jax.problems.types import Decision
from rmft_jax.running.files import RunError
from talking import ARMS, PROBLEM, ROUNDS, SCENARIOS, TELLINGS, by_seed, names_of, round_of, summary, tellings, tuned

pytest.importorskip("openai")

SECRET = "sk-secret-of-the-tests"
TOTAL = SCENARIOS * ROUNDS
KEY = jax.random.key(talking.KEY_NUMBER)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def server():
    with serve(by_seed, tuned, api_key=SECRET) as server:
        yield server


def refusal(*arguments: Any, error: Any = (ConfigError, RunError), **options: Any) -> str:
    with pytest.raises(error) as caught:
        talking.play(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytree
class Fixed:
    """Plays a given arm in every round."""

    feedback: ClassVar[Any] = ("bandit", "full")
    arms: Any

    def init(self, num_arms, horizon):
        return ()

    def act(self, key, state, context):
        arm = self.arms[context.round]
        return Decision(arm, jax.nn.one_hot(arm, len(context.arm_mask))), state

    def observe(self, state, action, reward, context):
        return state


WORLDS = {
    "bernoulli": Problem(Stationary(num_arms=ARMS), ROUNDS),
    "gaussian": Problem(Stationary(num_arms=ARMS, noise="gaussian"), ROUNDS),
    "full": Problem(Stationary(num_arms=ARMS, noise="uniform", feedback="full"), ROUNDS),
    "adaptive": Problem(Adaptive(num_arms=ARMS, feedback="full"), ROUNDS),
    "fewer arms": Problem.checked(Stationary(num_arms=5), ROUNDS, ARMS),
    "padded": Problem(Stationary(num_arms=ARMS), ROUNDS).of_size(5, ROUNDS + 2),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_plays_a_given_sequence_plays_what_an_agent_plays(world, stream, tmp_path):
    problem = WORLDS[world]
    script = [2, 0, 1, 1]
    known = tellings(3, problem.feedback)

    def reply(messages, temperature, max_tokens, seed, model):
        return names_of(messages, known)[script[round_of(messages)]]

    with serve(reply, tuned) as server, Ledger(tmp_path) as ledger:
        client = ChatClient(server.url, "toy", stream=stream)
        played = play_problems(client, problem, KEY, SCENARIOS, known, ledger=ledger, first_scenario=2)
    agent = Fixed(jnp.asarray([*script, 0, 0]))
    expected = play_scenarios(agent, problem, KEY, SCENARIOS, first_scenario=2)
    played_rounds = np.asarray(expected.round_mask)[0]
    for name in ("actions", "rewards", "probabilities", "mean_rewards", "reward_table"):
        mine, own = (np.asarray(getattr(t, name))[:, played_rounds] for t in (played.trajectory, expected))
        assert mine.dtype == own.dtype
        np.testing.assert_array_equal(mine, own, err_msg=name)
    np.testing.assert_array_equal(played.trajectory.arm_mask, expected.arm_mask)
    np.testing.assert_array_equal(played.trajectory.round_mask, expected.round_mask)
    assert played.num_invalid == 0
    assert np.isfinite(problem.regret.final(played.trajectory)).all()


@pytest.mark.parametrize("shared", [False, True])
def test_rollouts_of_a_scenario_meet_the_noise_of_rollouts_in_one_program(shared, server, tmp_path):
    client = ChatClient(server.url, "toy")
    options: Any = {"num_rollouts": 2, "shared_reward_noise": shared}
    problem = WORLDS["gaussian"]
    with Ledger(tmp_path) as ledger:
        played = play_problems(client, problem, KEY, SCENARIOS, TELLINGS, ledger=ledger, **options)
    expected = rollout_scenarios(Uniform(), problem, RolloutKeys.create(KEY), num_scenarios=SCENARIOS, **options)
    own = np.asarray(expected.reward_table).reshape(2 * SCENARIOS, ROUNDS, ARMS)
    np.testing.assert_allclose(played.trajectory.reward_table, own, atol=2e-6)
    pairs = np.asarray(played.trajectory.actions).reshape(SCENARIOS, 2, ROUNDS)
    assert (pairs[:, 0] != pairs[:, 1]).any(), "seeds of rollouts differ"


def test_answers_without_an_arm_are_played_at_random_and_counted(tmp_path):
    def reply(messages, temperature, max_tokens, seed, model):
        return "I would rather not." if round_of(messages) % 2 else f"Well: {names_of(messages)[1].upper()}!"

    with serve(reply, tuned) as server:
        played = talking.play(server.url, tmp_path / "a")
        again = talking.play(server.url, tmp_path / "b")
    assert summary(played) == summary(again)
    assert played.invalid.tolist() == [2] * SCENARIOS
    actions = np.asarray(played.trajectory.actions)
    assert (actions[:, ::2] == 1).all()
    assert len(np.unique(actions[:, 1::2])) == ARMS
    policies = np.asarray(played.trajectory.probabilities)
    np.testing.assert_allclose(policies[:, 1::2], 1 / ARMS, atol=1e-6)
    random = played.dialogues[0][5]["content"]
    assert "at random" in random
    assert "at random" not in played.dialogues[0][3]["content"]


def test_the_arm_that_is_named_last_counts():
    names = ("red", "dark red", "blue moon")
    assert named_arm("Red.", names) == 0
    assert named_arm("Not red, but **Dark  Red**", names) == 1
    assert named_arm("dark red was bad, blue\nmoon unknown, so I take red", names) == 0
    assert named_arm("_blue moon_", names) == 2
    assert named_arm("reddish, predark redder, blue", names) is None
    assert named_arm("", names) is None


@pytest.mark.parametrize("full", [False, True])
def test_bare_messages_are_the_text_of_a_telling(full):
    telling = tellings(1, "full" if full else "bandit")[0]
    script = Script(telling, full, wording="bare")
    rewards = [0.0, 1.0, 0.0]
    messages = [*script.opening(), said(telling.names[1]), script.following(1, rewards, named=True)]
    told = telling.told(1, 1.0, named=False)
    if full:
        told = telling.revealed + "".join(telling.listed(arm, value) for arm, value in enumerate(rewards))
    assert bare_text(messages) == f"{telling.intro}{telling.ask} {telling.names[1]}{told}{telling.ask}"


def test_dialogues_alternate_and_hold_what_happened(server, tmp_path):
    played = talking.play(server.url, tmp_path)
    for number, dialogue in enumerate(played.dialogues):
        assert [message["role"] for message in dialogue] == ["system", *["user", "assistant"] * ROUNDS]
        telling = TELLINGS[number % len(TELLINGS)]
        for round in range(ROUNDS - 1):
            arm, reward = (int(getattr(played.trajectory, name)[number, round]) for name in ("actions", "rewards"))
            told = telling.told(arm, float(reward), named=True).strip(" .:,")
            assert told[1:] in dialogue[2 * round + 3]["content"]


def test_nothing_is_asked_twice(server, tmp_path):
    steps: list[Any] = []
    first = talking.play(server.url, tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, TOTAL) for done in range(1, TOTAL + 1)]
    again = talking.play(server.url, tmp_path)
    assert summary(first) == summary(again)
    assert server.counts.requests == TOTAL
    totals, counts = again.totals, server.counts
    assert (totals.requests, totals.lost) == (TOTAL, 0)
    assert (totals.prompt_tokens, totals.completion_tokens) == (counts.prompt_tokens, counts.completion_tokens)
    talking.play(server.url, tmp_path, temperature=0.5)
    talking.play(server.url, tmp_path, purpose="other")
    assert server.counts.requests == 3 * TOTAL
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_requests_under_way_are_limited(tmp_path):
    now, most = [0], [0]

    def reply(*arguments):
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.02)
        now[0] -= 1
        return by_seed(*arguments)

    with serve(reply, tuned) as server:
        talking.play(server.url, tmp_path, concurrency=3)
    assert most[0] == 3


def test_requests_per_minute_are_limited(server, tmp_path):
    begin = time.monotonic()
    talking.play(server.url, tmp_path, requests_per_minute=3000.0)
    assert time.monotonic() - begin > (TOTAL - 1) * 0.02


MOODS = {
    "busy": (Moods(busy_every=3), 0),
    "failing": (Moods(fail_every=3), 0),
    "broken": (Moods(break_every=3), 1),
    "slow": (Moods(slow_every=5, slow_seconds=1.0), 1),
    "all": (Moods(busy_every=4, fail_every=5, break_every=3), 1),
}


@pytest.mark.parametrize("mood", MOODS)
@pytest.mark.parametrize("stream", [False, True])
def test_moods_of_a_server_change_nothing(mood, stream, server, tmp_path):
    calm = talking.play(server.url, tmp_path / "calm")
    before = dataclasses.replace(server.counts)
    server.moods, lossy = MOODS[mood]
    moody = talking.play(server.url, tmp_path / "moody", stream=stream, timeout=0.5, max_retries=20)
    assert summary(calm) == summary(moody)
    assert TOTAL < server.counts.requests - before.requests <= 4 * TOTAL
    lost = server.counts.broken - before.broken + server.counts.answered - before.answered - TOTAL
    assert moody.totals.requests == TOTAL
    assert (moody.totals.lost == lost) or mood == "slow"
    assert bool(moody.totals.lost) == bool(lossy)


def test_the_server_says_how_long_to_wait(server, tmp_path):
    server.moods = Moods(busy_every=8, retry_after=0.3)
    begin = time.monotonic()
    talking.play(server.url, tmp_path)
    refused = server.counts.refused
    assert refused == TOTAL // 7
    assert time.monotonic() - begin > 0.3
    server.moods = Moods(busy_every=1, retry_after=5000)
    assert "5000 seconds" in refusal(server.url, tmp_path / "b", error=RunError)
    assert server.counts.refused - refused <= 3


def test_waits_are_read_from_seconds_and_dates():
    assert asked_wait("2.5") == 2.5
    assert asked_wait(None) == asked_wait("soon") == asked_wait("nan") == asked_wait("-3") == 0
    assert asked_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert asked_wait("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9


def test_a_server_that_fails_for_good_is_given_up(server, tmp_path):
    server.moods = Moods(fail_every=1)
    message = refusal(server.url, tmp_path, error=RunError, max_retries=2, concurrency=1)
    assert "failed 3 times" in message
    assert server.counts.requests == 3


def test_wrong_settings_are_refused_in_one_line(server, tmp_path, monkeypatch):
    def said_of(url: str = server.url, model: str = "toy", **options: Any) -> str:
        client = ChatClient(url, model, **options)
        with Ledger(tmp_path) as ledger, pytest.raises((ConfigError, RunError)) as caught:
            play_problems(client, PROBLEM, KEY, 2, TELLINGS, ledger=ledger)
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
        return f"{type(caught.value).__name__}: {caught.value}"

    assert "UnknownError: got the model 'none' does not exist" in said_of(model="none")
    assert "/v1" in said_of(server.url.removesuffix("/v1"))
    assert "RunError: cannot reach http://127.0.0.1:9" in said_of("http://127.0.0.1:9/v1")
    server.moods = Moods(redirect="http://127.0.0.1:9/elsewhere?key=1")
    assert "ConfigError: got a redirect to http://127.0.0.1:9/elsewhere from" in said_of()
    monkeypatch.setenv("OPENAI_API_KEY", "another key")
    assert "need the key alone" in said_of()
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    server.moods = Moods()
    assert "ConfigError: got a refused key" in said_of()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "ConfigError: got no OPENAI_API_KEY in the environment" in said_of("https://192.0.2.1/v1")
    # A server of this machine may need none; this one does.
    assert "ConfigError: got a refused key" in said_of()
    assert server.counts.answered == 0


def test_a_server_that_takes_no_connection_is_refused_at_once(tmp_path):
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # Fill the queue, so that further ones wait for ever.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        begin = time.monotonic()
        assert "cannot reach" in refusal(url, tmp_path, error=RunError, timeout=1.0)
        assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "localhost:80"}, "base_url"),
        ({"base_url": "ftp://a/v1"}, "base_url"),
        ({"base_url": "http://user:pass@a/v1"}, "got base_url='a/v1'"),
        ({"model": " "}, "model"),
        ({"temperature": -1.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"timeout": 0.0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"requests_per_minute": -1.0}, "requests_per_minute"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_clients_that_cannot_work_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ChatClient(**{"base_url": "http://127.0.0.1/v1", "model": "toy", **options})


def test_the_key_is_no_part_of_a_client():
    client = ChatClient("http://127.0.0.1/v1", "toy")
    connection = client.connection()

    async def entered() -> str:
        async with connection:
            return repr(connection) + repr(vars(connection))

    shown = [repr(client), repr(vars(client)), json.dumps(dataclasses.asdict(client)), asyncio.run(entered())]
    assert not [text for text in shown if SECRET in text]


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "rmft-jax[api]" in refusal("http://127.0.0.1:9/v1", tmp_path, error=ConfigError)


def test_problems_that_cannot_be_told_are_refused(tmp_path):
    client = ChatClient("http://127.0.0.1:9/v1", "toy")

    def refused(problem: Problem, known: Any) -> str:
        with Ledger(tmp_path) as ledger, pytest.raises(ConfigError) as caught:
            play_problems(client, problem, KEY, 2, known, ledger=ledger)
        return str(caught.value)

    assert "ball" in refused(dataclasses.replace(PROBLEM, radius=1.0), TELLINGS)
    assert "no tellings" in refused(PROBLEM, [])
    assert "a telling of 4 arms" in refused(PROBLEM, tellings(num_arms=4))


def test_a_notebook_can_play(server, tmp_path):
    async def cell() -> Any:
        return talking.play(server.url, tmp_path)

    assert summary(asyncio.run(cell())) == summary(talking.play(server.url, tmp_path / "b"))


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
