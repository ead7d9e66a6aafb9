import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import talking
from rmft_jax.config import ConfigError
from rmft_jax.language.api import loop as loop_module
from rmft_jax.language.api.budget import Budget, BudgetSpentError
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.export import lowest_regret, write_examples
from rmft_jax.language.api.loop import LoopSettings, LoopState, run_loop
from rmft_jax.language.api.moods import Moods
from rmft_jax.language.api.providers import JobStatus, OpenAIProvider
from rmft_jax.language.api.server import serve
from rmft_jax.running.files import RunError
from talking import PROBLEM, ROUNDS, TELLINGS, by_seed, names_of, tuned

pytest.importorskip("openai")

SETTINGS = LoopSettings(num_iterations=2, num_scenarios=3, num_rollouts=4, k=2, poll_seconds=0.01, patience=60.0)
PER_ITERATION = 3 * 4 * ROUNDS


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-tests")


@pytest.fixture
def server():
    with serve(by_seed, tuned) as server:
        yield server


def run(server: Any, folder: Any, provider: Any = None, **options: Any) -> LoopState:
    client = ChatClient(server.url, "toy", first_rest=0.01)
    provider = provider or OpenAIProvider(server.url, first_rest=0.01)
    settings = options.pop("settings", SETTINGS)
    return run_loop(client, provider, PROBLEM, TELLINGS, settings, folder, **options)


def examples(folder: Any) -> list[list[Any]]:
    files = sorted(folder.glob("examples-*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in files]


def test_a_loop_plays_keeps_tunes_and_goes_on_with_the_new_model(server, tmp_path):
    lines: list[str] = []
    state = run(server, tmp_path, note=lines.append)
    assert (state.model, state.iteration) == ("toy++", 2)
    assert [row["model"] for row in state.history] == ["toy", "toy+"]
    assert [row["made"] for row in state.history] == ["toy+", "toy++"]
    assert all(row["kept_regret"] < row["regret"] and row["kept"] == 6 for row in state.history)
    assert server.counts.answered == 2 * PER_ITERATION
    assert (server.counts.uploads, server.counts.jobs) == (2, 2)
    assert max(server.counts.paid.values()) == 1
    first, second = examples(tmp_path)
    assert len(first) == len(second) == 6
    for lines_of, telling in ((first, TELLINGS[0]), (second, TELLINGS[1])):
        # The second iteration goes on in the tellings after the three of the first.
        assert lines_of[0]["messages"][0]["content"].startswith(telling.intro)
    assert len(lines) == 8
    # The same end, and nothing to do.
    assert run(server, tmp_path, resume=True) == state
    assert server.counts.answered == 2 * PER_ITERATION


def test_a_run_may_be_made_longer(server, tmp_path):
    run(server, tmp_path / "long", settings=dataclasses.replace(SETTINGS, num_iterations=3))
    before = server.counts.answered
    run(server, tmp_path / "short")
    longer = run(server, tmp_path / "short", settings=dataclasses.replace(SETTINGS, num_iterations=3), resume=True)
    assert longer.model == "toy+++"
    assert server.counts.answered - before == 3 * PER_ITERATION
    assert examples(tmp_path / "short") == examples(tmp_path / "long")


class Killed(BaseException):
    pass


class Frail(OpenAIProvider):
    """A service whose client is killed at a call, before or after it."""

    def __init__(self, url: str, at: str, after: bool):
        super().__init__(url)
        self._at, self._after = at, after

    def upload(self, path: Path) -> str:
        return self._called("upload", super().upload, path)

    def start(self, file: str, model: str) -> str:
        return self._called("start", super().start, file, model)

    def poll(self, job: str) -> JobStatus:
        return self._called("poll", super().poll, job)

    def _called(self, name: str, call: Any, *arguments: Any) -> Any:
        result = call(*arguments) if name != self._at or self._after else None
        if name == self._at:
            raise Killed
        return result


@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("at", ["upload", "start", "poll"])
def test_a_run_killed_at_any_call_goes_on_and_pays_for_nothing_twice(at, after, server, tmp_path):
    whole = run(server, tmp_path / "whole")
    with pytest.raises(Killed):
        run(server, tmp_path / "killed", Frail(server.url, at, after))
    state = run(server, tmp_path / "killed", resume=True)
    same = ("model", "regret", "kept_regret", "kept", "invalid", "requests", "tokens", "made")
    assert [[row[name] for name in same] for row in state.history] == [
        [row[name] for name in same] for row in whole.history
    ]
    assert examples(tmp_path / "killed") == examples(tmp_path / "whole")
    assert server.counts.jobs == 4
    assert server.counts.answered == 4 * PER_ITERATION


@pytest.mark.parametrize("number", [pytest.param(n, marks=[pytest.mark.slow] * (n % 2)) for n in range(1, 9)])
def test_a_run_killed_at_any_writing_goes_on_and_pays_for_nothing_twice(number, server, tmp_path, monkeypatch):
    """Where a step is done but was not written down."""
    write, times = loop_module._write, [0]

    def killed(*arguments: Any) -> None:
        times[0] += 1
        if times[0] == number + 1:
            raise Killed
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "_write", killed)
        with pytest.raises(Killed):
            run(server, tmp_path)
    assert run(server, tmp_path, resume=True).model == "toy++"
    assert server.counts.jobs == 2
    assert server.counts.answered == 2 * PER_ITERATION


def test_a_failed_job_is_said_in_a_line_and_the_run_goes_on_from_there(server, tmp_path):
    server.moods = Moods(failing_jobs=1)
    with pytest.raises(
        RunError, match=r"^the job ftjob-1 failed \(it was told to fail\); go on with resume=True"
    ) as caught:
        run(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert server.counts.answered == PER_ITERATION
    state = run(server, tmp_path, resume=True)
    assert state.model == "toy++"
    assert (server.counts.jobs, server.counts.uploads) == (3, 2)
    assert server.counts.answered == 2 * PER_ITERATION


def test_a_job_that_takes_too_long_is_waited_for_again(tmp_path):
    gate = threading.Event()

    def slow(lines: Any, model: str) -> str:
        gate.wait(30)
        return tuned(lines, model)

    with serve(by_seed, slow) as server:
        impatient = dataclasses.replace(SETTINGS, patience=0.05)
        with pytest.raises(RunError, match="still runs"):
            run(server, tmp_path, settings=impatient)
        gate.set()
        assert run(server, tmp_path, resume=True).model == "toy++"
        assert server.counts.jobs == 2


def test_a_job_that_was_given_up_is_started_anew(tmp_path):
    gate = threading.Event()

    def slow(lines: Any, model: str) -> str:
        gate.wait(30)
        return tuned(lines, model)

    class Canceller(OpenAIProvider):
        def poll(self, job: str) -> JobStatus:
            self.cancel(job)
            return super().poll(job)

    with serve(by_seed, slow) as server:
        with pytest.raises(RunError, match="ftjob-1 was cancelled"):
            run(server, tmp_path, Canceller(server.url))
        gate.set()
        assert run(server, tmp_path, resume=True).model == "toy++"
        assert server.counts.jobs == 3


def test_a_job_whose_start_went_unheard_is_found_again(server, tmp_path):
    provider = OpenAIProvider(server.url, first_rest=0.01, max_retries=2)
    path = tmp_path / "examples.jsonl"
    write_examples(path, [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]])
    file = provider.upload(path)
    ask, tries = provider._ask, [0]

    def deaf(call: Any) -> Any:
        async def once(api: Any) -> Any:
            tries[0] += 1
            answer = await call(api)
            if tries[0] == 1:
                raise TimeoutError
            return answer

        return ask(once)

    provider._ask = deaf  # pyright: ignore[reportAttributeAccessIssue]
    assert provider.start(file, "toy") == "ftjob-1"
    assert tries[0] == 2
    assert server.counts.jobs == 1
    assert provider.find(file) == "ftjob-1"
    assert provider.find("file-7") is None


def test_a_budget_stops_a_run_which_goes_on_with_a_larger_one(server, tmp_path):
    with pytest.raises(BudgetSpentError, match="larger max_requests"):
        run(server, tmp_path, budget=Budget(max_requests=PER_ITERATION + 5))
    assert server.counts.answered == PER_ITERATION + 5
    assert run(server, tmp_path, budget=Budget(max_requests=2 * PER_ITERATION), resume=True).model == "toy++"
    assert server.counts.answered == 2 * PER_ITERATION


def test_examples_that_were_removed_are_written_again(server, tmp_path):
    with pytest.raises(Killed):
        run(server, tmp_path, Frail(server.url, "upload", False))
    (tmp_path / "examples-0.jsonl").unlink()
    assert run(server, tmp_path, resume=True).model == "toy++"
    assert server.counts.answered == 2 * PER_ITERATION


def test_runs_are_refused_where_they_do_not_fit(server, tmp_path):
    with pytest.raises(RunError, match="holds no run; begin without resume=True"):
        run(server, tmp_path, resume=True)
    run(server, tmp_path)
    with pytest.raises(RunError, match="holds a run; go on with resume=True"):
        run(server, tmp_path)
    with pytest.raises(ConfigError, match="got k=1, need k=2, with which it was begun"):
        run(server, tmp_path, settings=dataclasses.replace(SETTINGS, k=1), resume=True)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        run(server, tmp_path, resume=True)
    wrong: Any
    for wrong in ({"k": 9}, {"num_iterations": 0}, {"poll_seconds": 0.0}, {"patience": -1.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            LoopSettings(**wrong)


def test_a_model_that_names_no_arm_leaves_nothing_to_keep(tmp_path):
    with serve(lambda *_: "hm", tuned) as server:
        with pytest.raises(RunError, match="no dialogue of toy can be kept"):
            run(server, tmp_path)
        assert server.counts.jobs == 0


def test_dialogues_of_lowest_regret_are_kept():
    regret = np.asarray([3.0, 1.0, 2.0, 0.0, 0.0, 5.0], np.float32)
    assert lowest_regret(regret, 3, 1) == [1, 3]
    assert lowest_regret(regret, 3, 2) == [1, 2, 3, 4]
    invalid = np.asarray([0, 1, 0, 2, 1, 0])
    assert lowest_regret(regret, 3, 1, invalid=invalid, max_invalid=0) == [2, 5]
    assert lowest_regret(regret, 3, 2, invalid=invalid, max_invalid=1) == [1, 2, 4, 5]
    with pytest.raises(ConfigError, match="k=4"):
        lowest_regret(regret, 3, 4)
    with pytest.raises(ConfigError, match="6 dialogues"):
        lowest_regret(regret, 4, 1)


def test_examples_are_what_was_said(server, tmp_path):
    played = talking.play(server.url, tmp_path)
    path = tmp_path / "deep" / "examples.jsonl"
    assert write_examples(path, played.dialogues, [4, 1]) == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"messages": played.dialogues[4]}, {"messages": played.dialogues[1]}]
    assert write_examples(path, played.dialogues) == len(played.dialogues)
    names = names_of(played.dialogues[0])
    arms = [names.index(message["content"]) for message in played.dialogues[0] if message["role"] == "assistant"]
    assert arms == np.asarray(played.trajectory.actions)[0].tolist()
    for wrong in ([], [99], [-1]):
        with pytest.raises(ConfigError):
            write_examples(path, played.dialogues, wrong)
    with pytest.raises(ConfigError, match="without a last answer"):
        write_examples(path, [[{"role": "user", "content": "a"}]])
    with pytest.raises(RunError, match="cannot write"):
        write_examples(path / "under a file", played.dialogues)


def test_a_service_refuses_what_is_no_example(server, tmp_path):
    provider = OpenAIProvider(server.url)
    path = tmp_path / "examples.jsonl"
    for content in ("", "{", '{"messages": [{"role": "user", "content": "a"}]}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match="400"):
            provider.upload(path)
    with pytest.raises(ConfigError, match="no file"):
        provider.start("file-9", "toy")
    with pytest.raises(ConfigError, match="404"):
        provider.poll("ftjob-9")
    with pytest.raises(RunError, match="cannot read"):
        provider.upload(tmp_path / "none")


def test_a_tuning_that_fails_is_the_jobs_failure(tmp_path):
    def broken(lines: Any, model: str) -> str:
        raise ValueError("no\ngradient")

    with serve(by_seed, broken) as server, pytest.raises(RunError, match=r"failed \(ValueError: no gradient\)"):
        run(server, tmp_path)
