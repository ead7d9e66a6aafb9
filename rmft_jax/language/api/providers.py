"""Services that tune a model on examples."""

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from rmft_jax.language.api.connection import Connection, finished
from rmft_jax.language.api.faults import FaultError, host_of
from rmft_jax.running.files import RunError, read_bytes

T = TypeVar("T")
Status = Literal["running", "succeeded", "failed", "cancelled"]
_OVER: dict[str, Status] = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """How a job stands.

    status: `running` also while it waits.
    model: name of the new model, once it has succeeded.
    error: why it failed.
    """

    status: Status
    model: str | None = None
    error: str | None = None


@runtime_checkable
class Provider(Protocol):
    """A service that tunes models. Its calls block; they raise `ConfigError` and `RunError` in one line."""

    def upload(self, path: Path) -> str:
        """Hands a file of examples over; returns its name there."""
        ...

    def start(self, file: str, model: str) -> str:
        """Starts to tune a model on a file, once, whatever the connection does; returns the name of the job."""
        ...

    def find(self, file: str) -> str | None:
        """The job of a file that runs or has succeeded, if there is one: it need not be paid for again."""
        ...

    def poll(self, job: str) -> JobStatus:
        """How a job stands."""
        ...

    def cancel(self, job: str) -> None:
        """Gives a job up."""
        ...


class OpenAIProvider:
    """A service with the files and fine-tuning jobs of OpenAI.

    The key is taken from the environment variable OPENAI_API_KEY with every call.

    Args:
      base_url: of the service, as a rule ending in /v1.
      timeout: seconds that an answer may take.
      max_retries: how often a request is tried again.
      first_rest: seconds of rest after a first failure; it doubles with every further one.

    Raises:
      ConfigError: if it cannot work.
    """

    def __init__(self, base_url: str, *, timeout: float = 300.0, max_retries: int = 6, first_rest: float = 0.5):
        host_of(base_url)
        self.base_url = base_url
        self._pace = {"timeout": timeout, "max_retries": max_retries, "first_rest": first_rest}
        self._reached = False

    def upload(self, path: Path) -> str:
        """See `Provider`."""
        content = read_bytes(path)

        async def call(api: Any) -> str:
            return (await api.files.create(file=(path.name, content), purpose="fine-tune")).id

        return self._ask(call)

    def start(self, file: str, model: str) -> str:
        """See `Provider`."""
        tries = 0

        async def call(api: Any) -> str:
            nonlocal tries
            tries += 1
            # A try that failed may have started it all the same.
            if tries > 1 and (job := await _job_of(api, file)) is not None:
                return job
            return (await api.fine_tuning.jobs.create(training_file=file, model=model)).id

        return self._ask(call)

    def find(self, file: str) -> str | None:
        """See `Provider`."""

        async def call(api: Any) -> str | None:
            return await _job_of(api, file)

        return self._ask(call)

    def poll(self, job: str) -> JobStatus:
        """See `Provider`."""

        async def call(api: Any) -> JobStatus:
            return _standing(await api.fine_tuning.jobs.retrieve(job))

        return self._ask(call)

    def cancel(self, job: str) -> None:
        """See `Provider`."""

        async def call(api: Any) -> None:
            await api.fine_tuning.jobs.cancel(job)

        self._ask(call)

    def _ask(self, call: Callable[[Any], Awaitable[T]]) -> T:
        async def work() -> T:
            async with Connection(self.base_url, reached=self._reached, **self._pace) as connection:
                return await connection.ask(call)

        result = finished(work)
        self._reached = True
        return result


async def _job_of(api: Any, file: str) -> str | None:
    """The newest job of a file, if it has not failed."""
    page = await api.fine_tuning.jobs.list(limit=100)
    if not isinstance(getattr(page, "data", None), list):
        raise FaultError("no list of jobs")
    for job in page.data:
        if job.training_file == file and job.status not in ("failed", "cancelled"):
            return job.id
    return None


def _standing(job: Any) -> JobStatus:
    status = _OVER.get(job.status, "running")
    error = getattr(job.error, "message", None) if job.error else None
    if status == "succeeded" and not job.fine_tuned_model:
        return JobStatus("failed", error="the service named no new model")
    return JobStatus(status, job.fine_tuned_model, error)


def require_succeeded(job: str, status: JobStatus) -> str:
    """The name of the new model.

    Raises:
      RunError: if the job did not succeed.
    """
    if status.status != "succeeded" or status.model is None:
        why = " ".join((status.error or "the service gives no reason").split())
        raise RunError(f"the job {job} {'was cancelled' if status.status == 'cancelled' else 'failed'} ({why})")
    return status.model
