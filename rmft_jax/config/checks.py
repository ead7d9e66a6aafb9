"""How a setting is refused: eagerly, in one line that says what was got, what is needed and what to try."""

import contextlib
import numbers
from collections.abc import Iterator
from contextvars import ContextVar

_on_command_line = ContextVar("on_command_line", default=False)


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Inside it messages speak of options of the command line, outside of arguments of functions."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def either(option: str, argument: str) -> str:
    """An option of the command line, or what it is called in Python: whichever the reader of a message uses."""
    return option if _on_command_line.get() else argument


class ConfigError(ValueError):
    """A setting that cannot work. The message says what was got, what is needed and what to try."""


def first_line(error: BaseException) -> str:
    """Which error of others' code it is, and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def require(ok: bool, got: str, need: str, suggestion: str) -> None:
    """Raises `ConfigError` unless `ok`."""
    if not ok:
        raise ConfigError(f"got {got}, need {need}; try {suggestion}")


def require_count(value: object, name: str, minimum: int, suggestion: int, *, limit: int = 2**31) -> None:
    """Raises `ConfigError` unless `value` is a whole number of at least `minimum`, and below what arrays can count."""
    number = int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else minimum - 1
    require(number >= minimum, f"{name}={value}", f"a whole number of at least {minimum}", f"{name}={suggestion}")
    require(number < limit, f"{name}={value}", f"a number below {limit}", f"{name}={suggestion}")


def require_seed(seed: int) -> None:
    """Raises `ConfigError` unless a key can be made from `seed` that is no other seed's."""
    require_count(seed, "seed", 0, 0, limit=2**64)
    require(seed < 2**32, f"seed={seed}", "a seed below 2**32", "seed=0")


def fits_float32(value: float) -> bool:
    """Whether a number is finite, and not lost, in float32; also false for NaN and infinity."""
    return value == 0 or 2.0**-126 <= abs(value) < 2.0**128


def require_number(value: float, name: str, need: str, ok: bool, suggestion: float) -> None:
    """Raises `ConfigError` unless `ok` holds and `value` is finite, and not lost, in float32."""
    require(fits_float32(value) and ok, f"{name}={value}", f"a finite number {need} in float32", f"{name}={suggestion}")


def require_shape(array: object, what: str, shape: tuple[int, ...], need: str, suggestion: str) -> None:
    """Raises `ConfigError` unless what somebody's code returned has this shape; `need` says it in words."""
    got = getattr(array, "shape", ())
    require(got == shape, f"{what} of shape {got}", f"{need}, {shape}", suggestion)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def block_of(number: int, limit: int) -> int:
    """How many of a number of like things to take at a time, at most `limit`.

    Blocks of equal size, if they need not be smaller than half of that; else full ones and a remainder.
    """
    fitting = largest_divisor(number, limit)
    return fitting if 2 * fitting >= limit else min(number, limit)
