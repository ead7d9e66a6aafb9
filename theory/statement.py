"""What the modules of the statements share: rows of the table, closed forms that can be sabotaged, and effort."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

P = ParamSpec("P")
M = TypeVar("M")


class Row(NamedTuple):
    """One line of the table: does what was measured agree with what is predicted?

    tolerance: largest admissible distance from the prediction; of a bound, by how much it may be exceeded.
    """

    statement: str
    quantity: str
    predicted: float
    measured: float
    standard_error: float
    tolerance: float
    holds: bool


def close(
    statement: str,
    quantity: str,
    predicted: float,
    measured: float,
    standard_error: float,
    *,
    relative: float | None = None,
) -> Row:
    """A row that holds within `relative` of the prediction, or within four standard errors where none is given."""
    tolerance = 4 * standard_error if relative is None else relative * abs(predicted)
    holds = bool(abs(measured - predicted) <= tolerance)
    return Row(statement, quantity, float(predicted), float(measured), float(standard_error), float(tolerance), holds)


def at_most(
    statement: str, quantity: str, bound: float, measured: float, standard_error: float = 0.0, *, tolerance: float = 0.0
) -> Row:
    """A row that holds where the measurement does not exceed the bound by more than the tolerance."""
    holds = bool(measured <= bound + tolerance)
    return Row(
        statement, f"{quantity}, at most", float(bound), float(measured), float(standard_error), tolerance, holds
    )


def standard_error(values: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "..."]:
    """Standard error of the mean over the first axis."""
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def pooled_error(values: Float[np.ndarray, "S E"]) -> float:
    """Standard error over S runs of the mean of one of E entries that all have the same law: variances are pooled."""
    return float(np.sqrt(values.var(axis=0, ddof=1).mean() / len(values)))


def worst(
    statement: str,
    quantity: str,
    predicted: Float[np.ndarray, "..."],
    measured: Float[np.ndarray, "..."],
    errors: Float[np.ndarray, "..."],
) -> Row:
    """The entry that is furthest from its prediction in standard errors; it holds within four of them."""
    predicted, measured, errors = np.broadcast_arrays(predicted, measured, errors)
    at = np.argmax(np.abs(measured - predicted) / errors)
    return close(statement, quantity, predicted.flat[at], measured.flat[at], errors.flat[at])


CLOSED_FORMS: set[str] = set()
"""Names of the closed forms, each of which can be sabotaged."""
PLANTED_ERROR = 0.7
_sabotaged: set[str] = set()


def closed_form(function: Callable[P, float]) -> Callable[P, float]:
    """Registers a closed form under its name, so that `sabotaged` can plant an error in it."""
    name = function.__name__
    CLOSED_FORMS.add(name)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> float:
        value = float(function(*args, **kwargs))
        return PLANTED_ERROR * value if name in _sabotaged else value

    return wrapper


@contextlib.contextmanager
def sabotaged(name: str | None) -> Iterator[None]:
    """While it lasts, the closed form of this name is three tenths too small: the check must notice. None: no error."""
    if name is not None and name not in CLOSED_FORMS:
        raise ValueError(f"got sabotage of {name!r}, need a closed form: {', '.join(sorted(CLOSED_FORMS))}")
    added = set() if name is None else {name}
    _sabotaged.update(added)
    try:
        yield
    finally:
        _sabotaged.difference_update(added)


class Effort(NamedTuple):
    """How much to measure.

    full: more scenarios and seeds.
    seed: of all randomness.
    note: takes one line about what is going on.
    """

    full: bool = False
    seed: int = 0
    note: Callable[[str], None] = lambda line: None

    def times(self, count: int, more: int = 4) -> int:
        """`count`, or `more` times as many with `full`."""
        return count * more if self.full else count


class Statement(NamedTuple, Generic[M]):
    """A statement of the theory as the check runs it.

    name: as the figure is called.
    measure: the experiment.
    rows: compares what was measured with the closed forms.
    draw: the figure.
    """

    name: str
    measure: Callable[[Effort], M]
    rows: Callable[[M], list[Row]]
    draw: Callable[[M], Figure]


AnyStatement = Statement[Any]
