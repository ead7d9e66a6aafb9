"""Requests to one endpoint: how many at once, how fast, and how often they are tried again."""

import asyncio
import concurrent.futures
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rmft_jax.config.checks import ConfigError, require, require_count
from rmft_jax.language.api.faults import FaultError, api_key, host_of, is_local, translated
from rmft_jax.running.files import RunError

T = TypeVar("T")
Guard = Callable[[], contextlib.AbstractAsyncContextManager[Any]]
_LONGEST_REST = 60.0
_CONNECT_SECONDS = 15.0
_TOLD = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


class StoppedError(Exception):
    """A request that was not sent, because the work was stopped meanwhile."""


def need_openai() -> Any:
    """The package `openai`.

    Raises:
      ConfigError: if it is not installed.
    """
    try:
        import openai
    except ImportError:
        hint = ".venv/bin/pip install '.[api]' in the clone"
        raise ConfigError(f"got no package openai, need the package openai for chat endpoints; try {hint}") from None
    return openai


def require_pace(timeout: float, max_retries: int, requests_per_minute: float, concurrency: int) -> None:
    """Raises `ConfigError` unless requests can be sent like this."""
    require(0 < timeout < 1e6, f"timeout={timeout}", "seconds above 0", "timeout=60")
    require_count(max_retries, "max_retries", 0, 6)
    ok = requests_per_minute == 0 or 1e-3 <= requests_per_minute < 1e9
    require(ok, f"requests_per_minute={requests_per_minute}", "a number above 0, or 0 for no limit", "0")
    require_count(concurrency, "concurrency", 1, 8)


class Connection:
    """Sends requests to an endpoint; an asynchronous context manager.

    The key of the service is read when it is entered, and handed to the package `openai` alone.

    Args:
      base_url: of the endpoint, as a rule ending in /v1.
      timeout: seconds that an answer may take, from the request to its last byte.
      max_retries: how often a request is tried again after it failed.
      requests_per_minute: that are sent, at most; 0: as many as there are.
      concurrency: requests under way at once, at most.
      first_rest: seconds of rest after a first failure; it doubles with every further one, and chance varies it.
      reached: whether the server is known to be there. One that is not is no more tried after the first time.

    Raises:
      ConfigError: if it cannot work like this.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 60.0,
        max_retries: int = 6,
        requests_per_minute: float = 0.0,
        concurrency: int = 8,
        first_rest: float = 0.5,
        reached: bool = False,
    ):
        host = host_of(base_url)
        require_pace(timeout, max_retries, requests_per_minute, concurrency)
        self.base_url = base_url
        self._host, self._local = host, is_local(host)
        self._timeout, self._max_retries, self._first_rest = timeout, max_retries, first_rest
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._slots = asyncio.Semaphore(concurrency)
        self._stopping = asyncio.Event()
        self._next = 0.0
        self._reached = reached
        self._api: Any = None

    async def __aenter__(self) -> "Connection":
        openai = need_openai()
        # A server that is there takes a connection at once, however long it thinks.
        timeout = openai.Timeout(self._timeout, connect=min(self._timeout / 2, _CONNECT_SECONDS))
        # Redirects are not followed: the key belongs to this address. A proxy knows no server of this machine.
        http = openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=not self._local, timeout=timeout)
        # What the package tells of this machine is nobody's business.
        untold = dict.fromkeys((f"X-Stainless-{name}" for name in _TOLD), openai.Omit())
        self._api = openai.AsyncOpenAI(
            api_key=api_key(self._host),
            base_url=self.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
            default_headers=untold,
        )
        if not f".{self._host}".endswith(".openai.com"):  # It takes both from the environment, for whatever server.
            self._api.organization = self._api.project = None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()
        self._api = None

    def stop(self) -> None:
        """Lets no further request out; those under way come to their end."""
        self._stopping.set()

    async def ask(self, call: Callable[[Any], Awaitable[T]], guard: Guard = contextlib.nullcontext) -> T:
        """Sends a request until it is answered.

        Args:
          call: makes the request, once, given the client of the package `openai`.
          guard: entered before every try and left after it, with the `FaultError` if it failed.

        Raises:
          ConfigError: if the server refuses it as it is.
          RunError: if the server cannot be reached, or it failed too often.
          StoppedError: if `stop` was called before it was sent.
        """
        attempt = 0
        while True:
            try:
                async with self._slots:
                    await self._pace()
                    async with guard():
                        self.check()
                        return await self._once(call)
            except FaultError as fault:
                if attempt == self._max_retries:
                    raise RunError(self._given_up(fault)) from fault
                last = fault
            await self.rest(attempt, last)
            attempt += 1

    def check(self) -> None:
        """Raises `StoppedError` if nothing may be sent any more."""
        if self._stopping.is_set():
            raise StoppedError

    async def rest(self, attempt: int, fault: FaultError) -> None:
        """Waits after a failure, twice as long as after the one before; too many requests let all others wait too."""
        seconds = min(self._first_rest * 2.0**attempt, _LONGEST_REST) * random.uniform(0.5, 1.0)
        if fault.wait:
            loop = asyncio.get_running_loop()
            self._next = max(self._next, loop.time() + fault.wait)
            seconds = fault.wait * random.uniform(1.0, 1.1)
        await self._sleep(seconds)

    def _given_up(self, fault: FaultError) -> str:
        times = f"{self._max_retries + 1} times" if self._max_retries else "once"
        hint = "try again later, more max_retries, or a smaller concurrency"
        return f"a request to {self.base_url} failed {times}, at last with {fault.reason}; {hint}"

    async def _once(self, call: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                result = await call(self._api)
        except Exception as error:
            meant = translated(error, self.base_url, reached=self._reached)
            if meant is error:
                raise
            raise meant from None
        self._reached = True
        return result

    async def _pace(self) -> None:
        """Until the next request may be sent."""
        loop = asyncio.get_running_loop()
        while (wait := self._next - loop.time()) > 0:
            await self._sleep(wait)
        self._next = loop.time() + self._gap

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        self.check()


def finished(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs asynchronous work to its end, also where a loop of events runs already, as in a notebook."""
    running = True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running = False  # Left before the work begins, whose errors would else seem to come from this one.
    if not running:
        return asyncio.run(work())
    begun: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def main() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        result = pool.submit(lambda: asyncio.run(main()))
        try:
            return result.result()
        except BaseException:
            if not result.done():  # Interrupted here, while the work goes on there: it ends as if interrupted there.
                loop, task = begun.result()
                loop.call_soon_threadsafe(task.cancel)
                concurrent.futures.wait([result])
            raise


async def all_of(jobs: list[Coroutine[Any, Any, None]], connection: Connection) -> None:
    """Runs jobs side by side; the first error, or an interruption, lets those under way end what they have paid for.

    Raises:
      Exception: the first error of a job that is not `StoppedError`.
    """
    first: list[BaseException] = []

    async def watched(job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except StoppedError:
            pass
        except Exception as error:
            first.append(error)
            connection.stop()

    tasks = [asyncio.create_task(watched(job)) for job in jobs]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        connection.stop()
        await asyncio.wait(tasks)
        raise
    if first:
        raise first[0]
