"""What can go wrong with a request: what is tried again, and what is refused in one line."""

import datetime
import email.utils
import math
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.running.files import RunError

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key of the service; the only place from which it is taken."""
LONGEST_WAIT = 600.0
"""Seconds that a server may ask to wait. Whoever asks for more is not waited for."""
_MAYBE_PAID = (408, 504, 524)  # Somebody in between lost patience; the server may have answered.


class FaultError(Exception):
    """A request that failed and may be tried again.

    Args:
      reason: in a few words.
      wait: seconds that the server asks to wait; 0 if it asks for nothing.
      maybe_paid: whether the server may have answered, and charged for it, although nothing arrived.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, maybe_paid: bool = False):
        super().__init__(reason)
        self.reason, self.wait, self.maybe_paid = reason, wait, maybe_paid


def api_key() -> str:
    """The key of the service, from the environment.

    Raises:
      ConfigError: if there is none, or it is none that can be sent.
    """
    key = os.environ.get(KEY, "").strip()
    suggestion = f"export {KEY}=..., with any word where the server asks for none"
    require(bool(key), f"no {KEY} in the environment", "the key of the service there", suggestion)
    plain = key.isascii() and key.isprintable() and " " not in key
    require(plain, f"an {KEY} with spaces or signs that no key has", "the key alone", suggestion)
    return key


def host_of(base_url: str) -> str:
    """The host of an endpoint.

    Raises:
      ConfigError: if this is no address of an endpoint.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    ok = parts.scheme in ("http", "https") and bool(host) and not parts.username and not parts.query
    # What stands before an @ may be a password.
    shown = base_url.rsplit("@", 1)[-1]
    require(ok, f"base_url={shown!r}", "http:// or https://, a host and a path", "base_url='https://HOST/v1'")
    return host


def one_line(text: object) -> str:
    """Words of others in one short line, without the key."""
    words = " ".join(str(text).split())
    if key := os.environ.get(KEY, "").strip():
        words = words.replace(key, "***")
    return words if len(words) <= 300 else words[:297] + "..."


def translated(error: Exception, base_url: str, *, reached: bool) -> Exception:
    """What an error of the package `openai`, or of what it stands on, means.

    Args:
      error: as it was raised.
      base_url: of the endpoint.
      reached: whether the server has ever answered; one that has will come back.

    Returns:
      A `FaultError` where to try again makes sense; a `ConfigError` or a `RunError` where not; other errors as they
      are.
    """
    import openai

    match error:
        case FaultError() | ConfigError() | RunError():
            return error
        case openai.APIStatusError():
            return _of_status(error, base_url)
        case TimeoutError() | openai.APITimeoutError():
            return FaultError("no answer in time", maybe_paid=True)
        case openai.APIError() if not isinstance(error, openai.APIConnectionError):
            return FaultError(f"a broken answer ({one_line(error)})", maybe_paid=True)
    causes = list(_causes(error))
    if any("ConnectError" in type(cause).__name__ for cause in causes):
        why = one_line(causes[-1]) or type(causes[-1]).__name__
        if not reached:
            return RunError(f"cannot reach {base_url} ({why}); try another base_url, or again when the server is up")
        return FaultError(f"the server is gone ({why})")
    if isinstance(error, openai.APIConnectionError) or any(_of_transport(cause) for cause in causes):
        return FaultError(f"a broken connection ({one_line(causes[-1])})", maybe_paid=True)
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on; the first of all comes last."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _of_transport(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "json", "ssl")


def _of_status(error: Any, base_url: str) -> Exception:
    """What an answer means that says that there is none."""
    status, headers, said = error.status_code, error.response.headers, one_line(error.message)
    match status:
        case 401:
            return ConfigError(f"got a key that {base_url} refuses (401), need a valid one; try another {KEY}")
        case 403:
            need = "one that may use this model"
            return ConfigError(f"got no right to do this at {base_url} (403: {said}), need a key with it; try {need}")
        case 404:
            hint = "a model of the server's list (GET /models), or a base_url that ends in /v1"
            return ConfigError(f"got 404 from {base_url} ({said}), need an address and a model that exist; try {hint}")
        case 429 if getattr(error, "code", None) == "insufficient_quota":
            return RunError(f"nothing is left to pay for answers of {base_url} ({said}); try again when there is")
        case 408 | 409 | 425 | 429:
            return _to_wait_for(status, headers, base_url)
        case _ if status >= 500:
            return _to_wait_for(status, headers, base_url)
        case _ if status < 400:
            to = one_line(headers.get("location", "nowhere")).split("?")[0]
            need = "an endpoint that answers itself, since a key is sent nowhere else"
            return ConfigError(f"got {status} from {base_url}, to {to}, need {need}; try the base_url where it leads")
    return ConfigError(f"got {status} from {base_url} ({said}), need settings that the server takes; try others")


def _to_wait_for(status: int, headers: Any, base_url: str) -> Exception:
    wait = asked_wait(headers.get("retry-after"))
    if wait > LONGEST_WAIT:
        return RunError(f"{base_url} asks to wait for {wait:.0f} seconds ({status}); try again then")
    reason = "too many requests (429)" if status == 429 else f"an error of the server ({status})"
    return FaultError(reason, wait=wait, maybe_paid=status in _MAYBE_PAID)


def asked_wait(value: str | None) -> float:
    """Seconds to wait by the header Retry-After, which holds seconds or a date; 0 where it says nothing."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        seconds = (date - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
