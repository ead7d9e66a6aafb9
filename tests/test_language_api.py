import asyncio
import contextlib
import dataclasses
import json
import socket
import sys
import time
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import talking
from rmft_jax.agents import Uniform
from rmft_jax.config import ConfigError, pytree
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.faults import asked_wait
from rmft_jax.language.api.ledger import Ledger
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
from talking import (
    ARMS,
    PROBLEM,
    ROUNDS,
    SCENARIOS,
    SECRET,
    TELLINGS,
    by_seed,
    names_of,
    refusal,
    round_of,
    summary,
    tellings,
    tuned,
)

pytest.importorskip("openai")

TOTAL = SCENARIOS * ROUNDS
KEY = jax.random.key(talking.KEY_NUMBER)

pytestmark = pytest.mark.usefixtures("chat_key")


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
@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
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
        # Two programs may round reward noise differently; all else is the same.
        rounding = 1e-6 if name in ("rewards", "reward_table") else 0.0
        np.testing.assert_allclose(mine, own, rtol=0, atol=rounding, err_msg=name)
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
        ({"base_url": "http://:pass@a/v1"}, "got base_url='a/v1'"),
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
    assert "'.[api]'" in refusal("http://127.0.0.1:9/v1", tmp_path, error=ConfigError)


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


def test_an_answer_that_was_cut_off_decides_nothing(tmp_path):
    """A model that thinks names arms on its way, and may not come to an end."""

    def wordy(messages: Any, temperature: float, max_tokens: int, seed: int | None, model: str) -> str:
        names = names_of(messages)
        return f"{names[0]}, or rather" if round_of(messages) else names[0]

    with serve(wordy, tuned, api_key=SECRET, count_tokens=lambda text: 9 if "rather" in text else 1) as server:
        played = talking.play(server.url, tmp_path / "cut", max_tokens=9)
        whole = talking.play(server.url, tmp_path / "whole", max_tokens=10)
    assert played.cut.tolist() == played.invalid.tolist() == [ROUNDS - 1] * SCENARIOS
    assert whole.cut.tolist() == whole.invalid.tolist() == [0] * SCENARIOS


def test_a_play_of_nothing_but_beginnings_is_stopped(tmp_path):
    count = iter(range(10_000))

    def silent(messages: Any, temperature: float, max_tokens: int, seed: int | None, model: str) -> str:
        next(count)
        return ""

    with serve(silent, tuned, api_key=SECRET, count_tokens=lambda text: 99) as server:
        told = refusal(server.url, tmp_path, num_rollouts=4)
    assert "the first 20 answers cut off at max_tokens=64, need whole ones; try a larger max_tokens" in told
    assert next(count) < 30
