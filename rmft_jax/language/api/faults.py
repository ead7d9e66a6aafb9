"""What can go wrong with a request: what is tried again, and what is refused in one line."""

import datetime
import email.utils
import ipaddress
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
_PASSING = (408, 409, 425, 429)
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


class UnknownError(ConfigError):
    """The server does not know what it is asked for."""


def api_key(host: str) -> str:
    """The key of the service, from the environment; any word for a server of this machine, if there is none.

    Args:
      host: to which it will be sent.

    Raises:
      ConfigError: if there is none, or it is none that can be sent.
    """
    key = os.environ.get(KEY, "").strip() or ("none" if is_local(host) else "")
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
    ok = parts.scheme in ("http", "https") and bool(host) and "@" not in parts.netloc and not parts.query
    # What stands before an @ may be a password.
    shown = base_url.rsplit("@", 1)[-1]
    require(ok, f"base_url={shown!r}", "http:// or https://, a host and a path", "base_url='https://HOST/v1'")
    return host


def is_local(host: str) -> bool:
    """Whether a host is this machine, where nobody else can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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

    if isinstance(error, openai.APIStatusError):
        return _of_status(error, base_url)
    causes = list(_causes(error))
    why = one_line(causes[-1]) or type(causes[-1]).__name__
    if any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in causes):
        if reached:
            return FaultError(f"a server that is gone ({why})")
        return RunError(f"cannot reach {base_url} ({why}); try another base_url, or again when the server is up")
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return FaultError("no answer in time", maybe_paid=True)
    if isinstance(error, openai.APIError) or any(_of_transport(cause) for cause in causes):
        return FaultError(f"an answer that breaks off ({why})", maybe_paid=True)
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on; the first of all comes last."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_transport(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "json", "ssl")


def _of_status(error: Any, base_url: str) -> Exception:
    """What an answer means that says that there is none."""
    status, headers = error.status_code, error.response.headers
    body = error.body if isinstance(error.body, dict) else {}
    said = one_line(body.get("message") or error.message)
    if status == 429 and getattr(error, "code", None) == "insufficient_quota":
        return RunError(f"nothing is left to pay for answers of {base_url} ({said}); try again when there is")
    if status in _PASSING or status >= 500:
        return _to_wait_for(status, headers, base_url)
    match status:
        case 401:  # What it says may hold the key.
            got, need, hint = "a refused key", "a valid one", f"another {KEY}"
        case 403:
            got, need, hint = said, "the right to do this", "another model, or another key"
        case 404:
            hint = "a model of the server's list (GET /models), or a base_url that ends in /v1"
            got, need = said, "an address and a model that exist"
            return UnknownError(f"got {got} from {base_url} ({status}), need {need}; try {hint}")
        case _ if status < 400:
            got = f"a redirect to {one_line(headers.get('location', 'nowhere')).split('?')[0]}"
            need, hint = "the endpoint itself, as a key is sent nowhere else", "the base_url where it leads"
        case _:
            got, need, hint = said, "settings that the server takes", "others"
    return ConfigError(f"got {got} from {base_url} ({status}), need {need}; try {hint}")


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
