import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

import texts
from rmft_jax import cli
from rmft_jax.agents import make_baselines
from rmft_jax.cli import api
from rmft_jax.config import ConfigError
from rmft_jax.language.api.desk import RefusedError
from rmft_jax.language.api.evaluation import told_in
from rmft_jax.language.api.likelihood import TuneSettings
from rmft_jax.language.api.messages import Script
from rmft_jax.language.api.moods import Moods
from rmft_jax.language.api.own import OwnModel, ends_of, pieces
from rmft_jax.language.api.server import serve
from rmft_jax.language.library import tellings_of
from rmft_jax.method.evaluation import evaluate, play_scenarios
from rmft_jax.problems import Problem, Stationary
from rmft_jax.running.files import RunError, read_dataset
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import TrainedPolicy, write_policy
from runs import refused
from texts import TEXT, TEXT_RUN

pytest.importorskip("openai")

SECRET = "sk-never-written"
SMALL = ["--num-arms", "3", "--horizon", "4", "--num-tellings", "3", "--wording", "bare", "--max-tokens", "4"]
ASKED = [*SMALL, "--num-scenarios", "6", "--guided"]
ANSWERS = 6 * 4


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(api, "make_baselines", functools.partial(make_baselines, among=("ucb1",)))


@functools.cache
def policy(**changes: Any) -> TrainedPolicy:
    config = TEXT_RUN.replace(**changes)
    params = config.rmft.init_params(jax.random.key(0))
    return TrainedPolicy(config.rmft.agent(params), config, "text-toy", {})


@pytest.fixture
def own(tmp_path) -> OwnModel:
    return OwnModel(policy(), "tiny", tmp_path / "served")


@pytest.fixture
def server(own) -> Iterator[Any]:
    with serve(own.reply, own.tune, models=own.names, count_tokens=own.count_tokens) as server:
        yield server


def run(*words: object) -> int:
    return cli.main([*map(str, words)])


def rmft(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "rmft_jax.cli", *map(str, words), "--import", texts.__file__]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def evaluation_of(path: Path) -> xr.Dataset:
    return read_dataset(path / "evaluation.nc", "again")


@pytest.mark.slow
def test_a_killed_evaluation_of_a_served_model_goes_on_and_pays_for_nothing_twice(tmp_path, capsys):
    weights = tmp_path / "tiny.npz"
    write_policy(weights, policy().agent.params, TEXT_RUN, "text-toy", {})
    served = rmft("serve", weights, "--port", 0, "--out", tmp_path / "served")
    assert served.stdout is not None
    started = served.stdout.readline()
    assert started.startswith("serving tiny at http://127.0.0.1:"), started
    words = ["evaluate", "api:tiny", "--base-url", started.split()[3].rstrip(";"), *ASKED, "--concurrency", "3"]
    killed = rmft(*words, "--requests-per-minute", "300", "--out", tmp_path / "killed")
    # Meanwhile.
    assert run(*words, "--out", tmp_path / "whole", "--export", tmp_path / "kept.jsonl") == 0
    out = capsys.readouterr().out
    assert "api:tiny" in out
    assert f"answers that named no arm: 0 of {ANSWERS}\nspent in {tmp_path}/whole: {ANSWERS} requests, " in out
    assert f"exported: 6 of 6 dialogues to {tmp_path}/kept.jsonl" in out
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 6
    answers = tmp_path / "killed/answers/answers.jsonl"
    while not answers.exists() or answers.read_bytes().count(b"\n") < 5:
        time.sleep(0.05)
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    kept = answers.read_bytes().count(b"\n")
    assert 5 <= kept < ANSWERS
    assert not (tmp_path / "killed/evaluation.nc").exists()
    assert "holds answers; go on with --resume" in _one_line(capsys, *words, "--out", tmp_path / "killed")
    assert run(*words, "--out", tmp_path / "killed", "--resume") == 0
    xr.testing.assert_identical(evaluation_of(tmp_path / "whole"), evaluation_of(tmp_path / "killed"))
    os.kill(served.pid, signal.SIGTERM)
    given, again = [int(word) for word in served.communicate()[0].split() if word.isdecimal()][:2]
    # Both ask the same. Beyond that there are only those that were under way.
    assert 2 * ANSWERS <= given <= 2 * ANSWERS + 3
    assert again == given - ANSWERS
    assert served.returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def _one_line(capsys: Any, *words: object) -> str:
    capsys.readouterr()
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert SECRET not in err
    lines = [line for line in err.splitlines() if not line.endswith(" answers")]
    assert len(lines) == 1, err
    assert lines[0].startswith("rmft: error: ")
    return lines[0]


def test_a_model_plays_beside_agents_on_the_same_problems(server, tmp_path):
    words = ["evaluate", "api:tiny", "--base-url", server.url, *SMALL, "--num-scenarios", 6]
    assert run(*words, "--out", tmp_path / "free", "--num-rollouts", 2) == 0
    dataset = evaluation_of(tmp_path / "free")
    assert list(dataset["agent"].values) == ["api:tiny", "ucb1"]
    assert server.counts.answered == 2 * ANSWERS
    problem = TEXT.problem()
    agents = make_baselines(problem, among=("ucb1",))
    key = RunKeys.create(0).test
    expected = evaluate(agents, problem, num_scenarios=6, key=key)
    xr.testing.assert_identical(
        dataset.sel(agent=["ucb1"]).drop_vars("mean_rewards"), expected.drop_vars("mean_rewards")
    )
    assert np.isfinite(dataset["mean_rewards"]).all()
    # The tiny model has no idea. What it plays then is drawn.
    assert float(dataset["invalid"].sel(agent="api:tiny").mean()) > 0.5
    assert len(np.unique(dataset["action"].sel(agent="api:tiny"))) == 3
    # One that goes on may be larger; what is there is not asked again.
    assert run(*words[:-1], 7, "--out", tmp_path / "free", "--num-rollouts", 2, "--resume") == 0
    assert server.counts.answered == 2 * ANSWERS + 8
    larger = evaluation_of(tmp_path / "free")["action"].sel(scenario=slice(0, 6), agent="api:tiny")
    np.testing.assert_array_equal(larger, dataset["action"].sel(agent="api:tiny"))


def test_a_loop_outlives_a_job_that_fails_and_a_service_that_forgets(own, tmp_path, capsys):
    words = ["train", "api:tiny", *SMALL, "--guided", "--num-scenarios", 2, "--num-rollouts", 2, "--k", 1]
    words += ["--num-iterations", 2, "--poll-seconds", 0.05, "--out", tmp_path / "run"]
    with serve(own.reply, own.tune, models=own.names, moods=Moods(failing_jobs=1)) as server:
        capsys.readouterr()
        assert run(*words, "--base-url", server.url) == 2
        assert "the job ftjob-1 failed (it was told to fail); go on with --resume" in capsys.readouterr().err
        port = server.url.split(":")[2].removesuffix("/v1")
        counts = server.counts
    assert (counts.answered, counts.jobs) == (16, 1)
    # Started again, it has neither the file nor the job.
    with serve(own.reply, own.tune, port=int(port), models=own.names, session="b-") as server:
        assert run(*words, "--base-url", server.url, "--resume") == 0
        out = capsys.readouterr().out
        assert (server.counts.answered, server.counts.uploads, server.counts.jobs) == (16, 2, 2)
        assert run(*words, "--base-url", server.url, "--resume") == 0
        assert (server.counts.answered, server.counts.jobs) == (16, 2)
    state = json.loads((tmp_path / "run/state.json").read_text())
    assert [row["model"] for row in state["history"]] == ["tiny", state["history"][0]["made"]]
    for row in state["history"]:
        assert f"{row['regret']:.3f}" in out
    assert out.endswith(f"last model: {state['model']}\n")
    assert set(OwnModel(policy(), "tiny", own.folder).names) == {"tiny", *(row["made"] for row in state["history"])}


def test_nothing_is_sent_without_a_key(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("rmft_jax.language.api.connection.Connection.__aenter__", lambda _: pytest.fail("it was sent"))
    for command in ("evaluate", "train"):
        words = [command, "api:x", "--base-url", "https://192.0.2.1/v1", "--out", tmp_path / "run"]
        assert "got no OPENAI_API_KEY in the environment" in refused(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_what_cannot_work_is_said_in_a_line(own, tmp_path, capsys, monkeypatch):
    out = ["--out", tmp_path / "run"]
    asked = ["--base-url", "http://127.0.0.1:9/v1", *ASKED, *out]
    assert "cannot reach http://127.0.0.1:9/v1" in _one_line(capsys, "evaluate", "api:x", *asked)
    other = [*asked, "--resume", "--temperature", "0.5"]
    assert "client.temperature=1.0, with which it was begun" in _one_line(capsys, "evaluate", "api:x", *other)
    with serve(own.reply, own.tune, models=own.names, api_key="sk-right") as server:
        asked = ["--base-url", server.url, *ASKED, "--out", tmp_path / "refused"]
        assert "a refused key" in _one_line(capsys, "evaluate", "api:tiny", *asked)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
        spent = _one_line(capsys, "evaluate", "api:tiny", *asked, "--resume", "--max-requests", 5)
        assert "the budget max_requests=5 allows no further request" in spent
        assert server.counts.answered == 5
        assert "without a name" in refused(capsys, "evaluate", "api:", *asked)
    local = ["--base-url", "http://127.0.0.1:9/v1"]
    for words, said in (
        (["evaluate", "api:x", *out], "no --base-url"),
        (["train", "api:x", *local], "no --out"),
        (["evaluate", "api:x", *local, *out, "--num-scenarios", "1"], "num_scenarios=1"),
        (["evaluate", "api:x", *local, *out, "--k", "2"], "k=2"),
        (["evaluate", "api:x", *local, *out, "--num-arms", "0"], "num_arms=0"),
        (["evaluate", "api:x", *local, *out, "--preset", "none"], "preset 'none'"),
        (["train", "api:x", *local, *out, "--max-total-tokens", "-1"], "max_total_tokens=-1"),
        (["serve", "pretrained:mab-k5", "--port", "0"], "need a policy that writes text"),
        (["serve", "text-toy", "--port", "70000"], "port=70000"),
        (["serve", "text-toy", "--epochs", "0"], "epochs=0"),
    ):
        assert said in refused(capsys, *words), words


def test_choices_are_said_as_the_policy_decides(own):
    agent, config = policy().agent, TEXT
    problem, key = config.problem(), RunKeys.create(0).test
    played = play_scenarios(agent, problem, key, 5)
    tellings = tellings_of(problem, "trained", 3)
    words = told_in(tellings, key, 5)
    assert [tellings.index(one) for one in words] == np.asarray(played.notes.telling)[:, 0].tolist()
    likeliest = np.argmax(np.asarray(jax.vmap(agent.outputs)(played)), axis=-1)
    for scenario, telling in enumerate(words):
        script = Script(telling, wording="bare")
        messages: list[Any] = script.opening()
        for round in range(problem.horizon):
            said = own.reply(messages, 0.0, 4, 1, "tiny", choices=telling.names)
            assert said == telling.names[likeliest[scenario, round]]
            arm, rewards = int(played.actions[scenario, round]), np.asarray(played.reward_table[scenario, round])
            messages.append({"role": "assistant", "content": telling.names[arm]})
            messages.append(script.following(arm, rewards.tolist(), named=True))
    with pytest.raises(RefusedError, match="different tokens"):
        own.reply([{"role": "user", "content": "A"}], 1.0, 4, 1, "tiny", choices=["red", "red wine"])


def test_replies_end_where_others_speak_and_come_again_with_their_seed(own):
    tokenizer = texts.tiny_model().tokenizer
    answer, thought = ends_of(tokenizer, tokenizer.vocab_size + 2)
    assert answer[-2:].all(), "rows of an embedding beyond the tokens say nothing"
    assert thought[-2:].all()
    for text, ends in (("\n", (1, 1)), (":", (1, 0)), (".", (1, 0)), ("gave", (1, 0)), ("red", (0, 0)), (",", (0, 0))):
        token = tokenizer.encode(text)[0]
        assert (bool(answer[token]), bool(thought[token])) == (bool(ends[0]), bool(ends[1])), text
    messages: list[Any] = [{"role": "user", "content": "red green blue"}]
    replies = [own.reply(messages, 1.0, 5, seed, "tiny") for seed in range(8)]
    assert replies == [own.reply(messages, 1.0, 5, seed, "tiny") for seed in range(8)]
    assert len(set(replies)) == 8
    assert max(own.count_tokens(reply) for reply in replies) == 5
    longer = [own.reply(messages, 1.0, 8, seed, "tiny") for seed in range(8)]
    assert all(new.startswith(old) for new, old in zip(longer, replies, strict=True))
    with pytest.raises(RefusedError, match="together"):
        own.reply([{"role": "user", "content": "red " * 4095}], 1.0, 5, 0, "tiny")
    assert pieces([*messages, {"role": "assistant", "content": "red"}], "chat")[1] == ("red\n", True)


def test_a_model_that_thinks_is_asked_for_a_thought_and_then_for_an_answer(tmp_path):
    own = OwnModel(policy(reasoning=8), "tiny", tmp_path / "served")
    asked: list[Any] = []

    def reply(messages, temperature, max_tokens, seed, model, choices=()):
        asked.append((messages[-1]["content"], list(choices)))
        return own.reply(messages, temperature, max_tokens, seed, model, choices=choices)

    with serve(reply, own.tune, models=own.names) as server:
        words = ["--base-url", server.url, *ASKED, "--reasoning", "--concurrency", 1, "--out", tmp_path / "run"]
        assert run("evaluate", "api:tiny", *words, "--export", tmp_path / "kept.jsonl") == 0
    assert len(asked) == 2 * ANSWERS
    thinks, asks = asked[0::2], asked[1::2]
    assert all(not choices for _, choices in thinks)
    assert all(len(choices) == 3 for _, choices in asks)
    messages = json.loads((tmp_path / "kept.jsonl").read_text().splitlines()[0])["messages"]
    assert [message["role"] for message in messages[:6]] == ["system", *["user", "assistant"] * 2, "user"]
    assert len(messages) == 1 + 4 * 4
    assert messages[3]["content"].startswith("\n")
    assert run("evaluate", "api:tiny", *words[:-2], "--wording", "chat", "--out", tmp_path / "other") == 2


def test_tuning_learns_what_the_assistant_says(own, capsys):
    def line(asked: str, said: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"\n{asked}:"}, {"role": "assistant", "content": said}]
        return {"messages": [*messages, {"role": "user", "content": ": 1 point"}]}

    lines = [line("Choice", "red"), line("I choose", "blue")] * 8
    eager = OwnModel(policy(), "tiny", own.folder, settings=TuneSettings(epochs=20, step_size=2e-2, batch_size=6))
    name = eager.tune(lines, "tiny")
    assert name.startswith("tiny-")
    said = [eager.reply(lines[n]["messages"][:1], 0.0, 4, 0, name) for n in range(2)]
    assert said == ["red", "blue"]
    assert eager.tune(lines, "tiny") == name
    further = eager.tune(lines, name)
    assert eager.names == ["tiny", name, further]
    again = OwnModel(policy(), "tiny", own.folder)
    assert set(again.names) == {"tiny", name, further}
    assert again.reply(lines[0]["messages"][:1], 0.0, 4, 0, name) == "red"
    # Of another model, or no model at all.
    (own.folder / "broken.npz").write_bytes(b"nothing")
    assert OwnModel(policy(answer="free", num_tellings=2), "tiny", own.folder).names[0] == "tiny"
    assert "cannot use the policy" in capsys.readouterr().out
    with pytest.raises(RunError, match="cannot write to"):
        OwnModel(policy(), "tiny", own.folder / "broken.npz").tune(lines, "tiny")


def test_adapters_are_tuned_beside_weights_that_stay(tmp_path):
    own = OwnModel(policy(tuned="lora", lora_rank=2), "tiny", tmp_path)
    lines = [{"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}]}] * 4
    name = own.tune(lines, "tiny")
    assert own.reply(lines[0]["messages"][:1], 1.0, 4, 0, name) is not None
    with np.load(tmp_path / f"{name}.npz") as arrays:
        assert sum(arrays[key].size for key in arrays.files if key != "about") < 1000


def test_a_model_is_told_of_as_it_was_trained_or_says_that_it_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="history='summary', need history='full'"):
        OwnModel(policy(history="summary"), "tiny", tmp_path)
    told: list[str] = []
    OwnModel(policy(answer="free", num_tellings=2), "tiny", tmp_path, note=told.append)
    assert len(told) == 1
    for reasoning in (0, 8):
        own = OwnModel(policy(reasoning=reasoning), "tiny", tmp_path)
        asked = {text: [{"role": "user", "content": f"Two arms.{text}"}] for text in ("\nThought:", "\nChoice:")}
        assert {text: own._thinks(messages) for text, messages in asked.items()} == {
            "\nThought:": True,
            "\nChoice:": False,
        }


def test_whoever_is_told_of_a_problem_is_told_of_the_one_that_is_played():
    agent: Any = policy().agent
    problem = Problem(Stationary(num_arms=2, noise="gaussian"), 3)
    played, told = (
        evaluate({"toy": one}, problem, num_scenarios=4, key=jax.random.key(0))
        for one in (agent, agent.refitted(problem))
    )
    xr.testing.assert_equal(played, told)
    fewer = Problem.checked(Stationary(num_arms=3), 3, 2)
    assert int(evaluate({"toy": agent}, fewer, num_scenarios=4, key=jax.random.key(0))["action"].max()) <= 1
