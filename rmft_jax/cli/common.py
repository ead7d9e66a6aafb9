"""What the commands share: arguments from words, complaints in one line, the table of an evaluation."""

import contextlib
import io
import itertools
import sys
from typing import Any, TypeVar

import tyro

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require

_T = TypeVar("_T")
_TABLE_WIDTH = 120


def fail(message: str, code: int) -> int:
    """Prints an error as one line; returns the exit code."""
    print(f"rmft: error: {message}", file=sys.stderr)
    return code


def parse(kind: type[_T], command: str, argv: list[str], default: _T | None = None) -> _T:
    """Parses arguments with tyro; what it has to complain about becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=f"rmft {command}",
                args=argv,
                config=(tyro.conf.OmitArgPrefixes,),
                default=default if default is not None else tyro.MISSING_NONPROP,
            )
    except SystemExit as error:
        if error.code in (0, None):
            raise
        # Tyro draws a box, of lines or of blanks: a title, the complaint, a rule, and where to find help.
        rows = [line.strip("│ ") for line in complaint.getvalue().splitlines()[1:]]
        rows = itertools.dropwhile(lambda row: not _has_words(row), rows)
        text = " ".join(itertools.takewhile(_has_words, rows))
        raise ConfigError(f"{text.rstrip('.')}; try `rmft {command} --help`") from None


def without_imports(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words without `--import NAME`, every option with `-` where it may have `_`, and the names.

    Raises:
      ConfigError: for the option without a name.
    """
    rest, names, words = [], [], iter(argv)
    for word in words:
        option, equals, name = word.partition("=")
        if option != "--import":
            # With `_` in place of `-`, tyro takes an option too; who looks for one before tyro need not know.
            rest.append(option.replace("_", "-") + equals + name if option.startswith("--") else word)
            continue
        name = name if equals else next(words, "")
        require(bool(name) and not name.startswith("-"), "--import without a name", "a file or module", "a.py")
        names.append(name)
    return rest, names


def value_of(argv: list[str], option: str) -> str:
    """The value of an option, written with a blank or with `=`; empty if it is not there."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith(f"{option}=") else [word])]
    return dict(itertools.pairwise(words)).get(option, "")


def gathered(argv: list[str], *options: str) -> list[str]:
    """The words with those after each of some options in one place: `--a 1 --a 2` becomes `--a 1 2`."""
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    current = rest
    for word in argv:
        name, equals, value = word.partition("=")
        if name in options:
            current = found.setdefault(name, [])
            current += [value] if equals else []
        elif word.startswith("--"):
            current = rest
            rest.append(word)
        else:
            current.append(word)
    return rest + [word for option, values in found.items() for word in (option, *values)]


def _has_words(row: str) -> bool:
    return any(map(str.isalnum, row))


def print_summary(summary: dict[str, dict[str, Any]], title: str, attributes: dict[str, Any]) -> None:
    """Prints the table of an evaluation, whose attributes name the regret and the reference."""
    from rich.console import Console

    from rmft_jax.statistics.report import table

    # A pipe has no width, and a table cut to a narrow terminal would lose digits: wide lines wrap instead.
    rows = table(summary, title, attributes["regret"], attributes["reference"])
    Console(highlight=False, width=_TABLE_WIDTH).print(rows, soft_wrap=True)
