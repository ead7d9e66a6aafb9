"""What the modules of the statements share: rows of the table, closed forms that can be sabotaged, and effort."""

import contextlib
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats

from rmft_jax.config import ScalarKey

P = ParamSpec("P")
M = TypeVar("M")

LARGEST_SCORE = 4.0
"""Of a normal variable in size: above it a row fails. Under a true statement it is, in one row of 16,000."""
LARGEST_ERROR = 0.01
"""Above this relative distance from its prediction a row fails, however uncertain it is."""
ROUNDING = 1e-3
"""Relative distance that single precision may cause over thousands of rounds."""
LEAST_PROBABILITY = 1e-4
"""Of a sum of squared scores at least as large, if all statements are true."""


class Row(NamedTuple):
    """One line of the table: does what was measured agree with what is predicted?

    relation: `=`, or `≤` of a bound.
    standard_error: 0 where nothing is random, or where a bound leaves no room for chance.
    score: the distance from the prediction as a standard normal variable would have it, by the law of Student or of
      Fisher; NaN where nothing is random.
    """

    statement: str
    quantity: str
    relation: Literal["=", "≤"]
    predicted: float
    measured: float
    standard_error: float
    score: float
    holds: bool


def equal(
    statement: str, quantity: str, predicted: float, samples: Float[np.ndarray, "S"], near: float = LARGEST_ERROR
) -> Row:
    """The mean of independent samples, all of one law, is as predicted.

    It holds within `LARGEST_SCORE` and within the relative distance `near`, which does not apply to a prediction of 0.
    """
    error, dof = float(standard_error(samples)), len(samples) - 1
    return estimated(statement, quantity, predicted, float(np.mean(samples)), error, dof, near)


def estimated(
    statement: str,
    quantity: str,
    predicted: float,
    measured: float,
    error: float,
    degrees_of_freedom: float,
    near: float = LARGEST_ERROR,
) -> Row:
    """The same for an estimate with its standard error, which has so many degrees of freedom."""
    predicted, distance = float(predicted), float(measured) - float(predicted)
    student = distance / error if error > 0 else math.copysign(math.inf, distance) if distance else 0.0
    score = _normal_score(float(stats.t.logsf(abs(student), degrees_of_freedom))) * math.copysign(1, distance)
    is_near = predicted == 0 or abs(distance) <= near * abs(predicted)
    holds = bool(abs(score) <= LARGEST_SCORE and is_near)
    return Row(statement, quantity, "=", predicted, float(measured), float(error), score, holds)


def zeros(statement: str, quantity: str, samples: Float[np.ndarray, "S E"], planted: float = 0.0) -> Row:
    """E entries with uncorrelated means of 0 and one variance: root mean square of the means, by Fisher's law.

    Args:
      statement: what it belongs to.
      quantity: what the row is about.
      samples: S independent draws of the entries.
      planted: of a sabotage: what every entry is said to be.
    """
    count, size = samples.shape
    error = pooled_error(samples)
    off = samples.mean(axis=0) - planted
    ratio = float(np.mean(off**2)) / error**2
    score = _normal_score(float(stats.f.logsf(ratio, size, size * (count - 1))) - math.log(2))
    measured = float(np.sqrt(np.mean(off**2)))
    return Row(statement, quantity, "=", planted, measured, error, score, bool(abs(score) <= LARGEST_SCORE))


def exact(statement: str, quantity: str, predicted: float, measured: float) -> Row:
    """Nothing is random: equal but for rounding."""
    holds = bool(abs(measured - predicted) <= ROUNDING * abs(predicted))
    return Row(statement, quantity, "=", float(predicted), float(measured), 0.0, math.nan, holds)


def at_most(statement: str, quantity: str, bound: float, measured: float) -> Row:
    """The largest of what was measured does not exceed the bound, but for rounding."""
    holds = bool(measured <= bound * (1 + 1e-5))
    return Row(statement, quantity, "≤", float(bound), float(measured), 0.0, math.nan, holds)


def _normal_score(log_tail: float) -> float:
    """The size of a standard normal variable that is exceeded, on one side, with this probability."""
    return float(max(0.0, -stats.norm.ppf(math.exp(log_tail)))) if log_tail > -700 else 37.0


def all_together(rows: Sequence[Row]) -> Row:
    """The sum of all squared scores, which is chi-squared if every statement is true and no error is understated."""
    scores = np.asarray([row.score for row in rows if math.isfinite(row.score)])
    total, count = float(np.sum(scores**2)), len(scores)
    largest = float(stats.chi2.isf(LEAST_PROBABILITY, count)) if count else 0.0
    quantity = f"sum of the squared scores of {count} rows, whose mean is {count}"
    return Row("All", quantity, "≤", largest, total, 0.0, math.nan, bool(total <= largest))


def standard_error(values: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "..."]:
    """Standard error of the mean over the first axis."""
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def pooled_error(values: Float[np.ndarray, "S E"]) -> float:
    """Standard error over S runs of the mean of one of E entries that all have the same law: variances are pooled."""
    return float(np.sqrt(values.var(axis=0, ddof=1).mean() / len(values)))


CLOSED_FORMS: set[str] = set()
"""Names of the closed forms."""
STRUCTURAL: dict[str, str] = {}
"""Errors of another kind than a factor, with what they say."""
PLANTED_ERROR = 0.05
_factors: dict[str, float] = {}
_structural: set[str] = set()


def closed_form(function: Callable[P, float]) -> Callable[P, float]:
    """Registers a closed form under its name, so that `sabotaged` can plant an error in it."""
    name = function.__name__
    CLOSED_FORMS.add(name)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> float:
        return _factors.get(name, 1.0) * float(function(*args, **kwargs))

    return wrapper


def structural_error(name: str, meaning: str) -> Callable[[], bool]:
    """Registers an error of structure; the function says whether it is planted at the moment."""
    STRUCTURAL[name] = meaning
    return lambda: name in _structural


def sabotages() -> list[str]:
    """All errors that can be planted: `NAME+` and `NAME-` for closed forms, and the names of those of structure."""
    return sorted([f"{name}{sign}" for name in CLOSED_FORMS for sign in "+-"] + list(STRUCTURAL))


@contextlib.contextmanager
def sabotaged(name: str | None) -> Iterator[None]:
    """While it lasts, a closed form is 5% too large or too small, or a structure is wrong. None: no error."""
    if name is not None and name not in sabotages():
        raise ValueError(f"got sabotage of {name!r}, need one of {', '.join(sabotages())}")
    if name in STRUCTURAL:
        _structural.add(name)
    elif name is not None:
        _factors[name[:-1]] = 1 + (PLANTED_ERROR if name[-1] == "+" else -PLANTED_ERROR)
    try:
        yield
    finally:
        _factors.clear()
        _structural.clear()


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

    def key(self, purpose: str) -> ScalarKey:
        """A key of its own for every purpose, so that what two settings show is independent."""
        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(purpose.encode()))

    def generator(self, purpose: str) -> np.random.Generator:
        """NumPy's counterpart of `key`."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])


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
