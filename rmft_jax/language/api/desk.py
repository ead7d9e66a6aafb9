"""What a server of this machine holds: models, files and jobs, apart from how it is spoken to."""

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rmft_jax.language.api.moods import Counts, Moods

_OVER = ("succeeded", "failed", "cancelled")


Reply = Callable[..., str]
"""Answers a prompt, given messages, temperature, the most tokens, a seed and the name of the model; and `choices`, the
answers that there are, where a request limits them."""
Tune = Callable[[list[dict[str, Any]], str], str]
"""Makes a model from examples, each with `messages`, and the name of the model to start with; returns its name."""


class RefusedError(Exception):
    """A request that the server does not take.

    Args:
      status: of the answer.
      message: what is wrong.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclasses.dataclass
class Job:
    """A model being tuned.

    id, model, file: its name, the model it starts with, and the file of examples.
    status: as the service that it copies names it.
    made: name of the new model.
    error: why it failed.
    """

    id: str
    model: str
    file: str
    status: str = "queued"
    made: str | None = None
    error: str | None = None
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        error = {"code": "job_failed", "message": self.error, "param": None} if self.error else None
        return {
            "id": self.id,
            "object": "fine_tuning.job",
            "created_at": self.created,
            "model": self.model,
            "training_file": self.file,
            "status": self.status,
            "fine_tuned_model": self.made,
            "error": error,
            "hyperparameters": {},
            "organization_id": "local",
            "result_files": [],
            "seed": 0,
            "validation_file": None,
            "trained_tokens": None,
            "finished_at": int(time.time()) if self.status in _OVER else None,
        }


class Desk:
    """Takes what a server is asked for.

    Args:
      reply: answers prompts.
      tune: makes models from examples.
      models: names that it knows from the start.
      moods: what goes wrong.
      count_tokens: of a text.
      session: stands in the names of files and jobs, so that those of two servers are not taken for each other.
      most: tokens of an answer, whatever a request allows.
    """

    def __init__(
        self,
        reply: Reply,
        tune: Tune,
        models: Sequence[str],
        moods: Moods,
        count_tokens: Callable[[str], int],
        session: str = "",
        most: int = 2**31 - 1,
    ):
        self._most = most
        self._session = session
        self._reply, self._tune, self._count = reply, tune, count_tokens
        self.models, self.moods, self.counts = list(models), moods, Counts()
        self.lock = threading.Lock()
        self._files: dict[str, list[dict[str, Any]]] = {}
        self._jobs: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []

    def next_number(self) -> int:
        """Counts a chat request that has come."""
        with self.lock:
            self.counts.requests += 1
            return self.counts.requests

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a chat request, as JSON.

        Raises:
          RefusedError: if it is none that can be answered.
        """
        messages, model = body.get("messages"), body.get("model")
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise RefusedError(400, "messages must be a list of role and content")
        if model not in self.models:
            raise RefusedError(404, f"the model {model!r} does not exist")
        limit = min(_number(body, "max_completion_tokens", "max_tokens", kind=int, least=1, default=64), self._most)
        seed = _number(body, "seed", kind=int, default=None)
        temperature = _number(body, "temperature", kind=float, least=0.0, default=1.0)
        options = {"choices": choices} if (choices := _choices(body)) else {}
        text = self._reply(messages, temperature, limit, seed, model, **options)
        prompt = sum(self._count(str(message["content"])) for message in messages)
        completion = self._count(text)
        finish = "length" if completion >= limit and not choices else "stop"
        digest = hashlib.sha256(json.dumps({**body, "stream": None, "stream_options": None}, sort_keys=True).encode())
        return {
            "id": f"chatcmpl-{digest.hexdigest()[:16]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish},
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }

    def charge(self, answer: dict[str, Any], *, whole: bool) -> None:
        """Counts an answer that is being sent."""
        with self.lock:
            counts, name = self.counts, "answered" if whole else "broken"
            setattr(counts, name, getattr(counts, name) + 1)
            counts.prompt_tokens += answer["usage"]["prompt_tokens"]
            counts.completion_tokens += answer["usage"]["completion_tokens"]
            if whole:
                counts.paid[answer["id"]] = counts.paid.get(answer["id"], 0) + 1

    def refuse(self) -> None:
        """Counts a chat request that got an error."""
        with self.lock:
            self.counts.refused += 1

    def take(self, name: str, content: bytes) -> dict[str, Any]:
        """Takes a file of examples, as chat JSONL.

        Raises:
          RefusedError: if it is none.
        """
        try:
            lines = [json.loads(line) for line in content.decode().split("\n") if line.strip()]
        except ValueError:
            raise RefusedError(400, "the file is no JSONL") from None
        if not lines or not all(_is_example(line) for line in lines):
            raise RefusedError(400, "every line must hold messages, of which the last one is the assistant's")
        with self.lock:
            self.counts.uploads += 1
            file = f"file-{self._session}{self.counts.uploads}"
            self._files[file] = lines
        return {
            "id": file,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": "fine-tune",
            "status": "processed",
        }

    def start(self, body: dict[str, Any]) -> Job:
        """Starts to tune a model.

        Raises:
          RefusedError: if there is no such model or file.
        """
        model, file = body.get("model"), body.get("training_file")
        if model not in self.models or file not in self._files:
            raise RefusedError(400, f"no model {model!r} or no file {file!r}")
        with self.lock:
            self.counts.jobs += 1
            number = self.counts.jobs
            name = f"ftjob-{self._session}{number}"
            job = self._jobs[name] = Job(name, str(model), str(file))
        thread = threading.Thread(target=self._work, args=(job, number <= self.moods.failing_jobs), daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def _work(self, job: Job, fails: bool) -> None:
        with self.lock:
            if job.status == "queued":
                job.status = "running"
        try:
            made = "" if fails else self._tune(self._files[job.file], job.model)
            error = "it was told to fail" if fails else None
        except Exception as caught:  # Whatever goes wrong is the job's failure, not the server's.
            made, error = "", f"{type(caught).__name__}: {caught}"
        with self.lock:
            if job.status != "running":
                return
            job.status, job.error = ("failed", error) if error else ("succeeded", None)
            if not error:
                job.made = made
                if made not in self.models:
                    self.models.append(made)

    def job(self, name: str) -> Job:
        """A job.

        Raises:
          RefusedError: if there is none of this name.
        """
        if name not in self._jobs:
            raise RefusedError(404, f"no job {name!r}")
        return self._jobs[name]

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return list(self._jobs.values())[::-1]

    def cancel(self, name: str) -> Job:
        """Gives a job up, if it is not over.

        Raises:
          RefusedError: if there is none of this name.
        """
        job = self.job(name)
        with self.lock:
            if job.status not in _OVER:
                job.status = "cancelled"
        return job

    def wait(self) -> None:
        """Until no job is at work."""
        for thread in self._threads:
            thread.join()


def _choices(body: dict[str, Any]) -> list[str]:
    """The answers that a request allows, as vLLM takes them; none: any.

    Raises:
      RefusedError: if they are limited in another way.
    """
    shape = body.get("structured_outputs")
    if shape is None:
        return []
    choices = shape.get("choice") if isinstance(shape, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise RefusedError(400, "structured_outputs must hold a list of texts under choice")
    return choices


def _number(body: dict[str, Any], *names: str, kind: type[Any], default: Any, least: float | None = None) -> Any:
    """The first of some numbers that a request has; what is null counts as not given.

    Raises:
      RefusedError: if it is none, or too small.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        if not fits or (least is not None and value < least):
            need = "a whole number" if kind is int else "a number"
            bound = "" if least is None else f" of at least {least:g}"
            raise RefusedError(400, f"{name} must be {need}{bound}")
        return kind(value)
    return default


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message


def _is_example(line: Any) -> bool:
    messages = line.get("messages") if isinstance(line, dict) else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        return False
    return messages[-1]["role"] == "assistant"
