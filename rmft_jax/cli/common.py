"""What the commands share: arguments from words, complaints in one line, the table of an evaluation."""

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
import shutil
import sys
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import xarray as xr
from rich.console import Console

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.config.choices import Choice, Group, closest, owners_of
from rmft_jax.config.plugins import imported
from rmft_jax.statistics import estimates, tables
from rmft_jax.statistics.report import table

_T = TypeVar("_T")
API = "api:"
"""What stands before the name of a model behind a chat endpoint."""
_TABLE_WIDTH, _NAME_LENGTH = 112, 150
# Options of several words, which may be repeated: a group of words for each time.
Groups = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]


def fail(message: str, code: int) -> int:
    """Prints an error as one line; returns the exit code."""
    print(f"rmft: error: {as_typed(message)}", file=sys.stderr)
    return code


def as_typed(message: str) -> str:
    """A message whose commands begin with what to type for this program."""
    return re.sub(r"(?<=`)rmft(?= )|(?<=continue with: )rmft(?= )", lambda _: program(), message)


def suggest(*commands: Sequence[object]) -> None:
    """Says on standard error how one may go on: each a command by its words, without that of the program."""
    sys.stdout.flush()
    for number, words in enumerate(commands):
        print(f"{'     ' if number else 'next:'} {program()} {shlex.join(map(str, words))}", file=sys.stderr)


def program() -> str:
    """What to type for this program: `rmft` where the shell finds it under that name, else how it was called."""
    called, found = Path(sys.argv[0]), shutil.which("rmft")
    by_name = called.name != "rmft" or (found is not None and Path(found).resolve() == called.resolve())
    return "rmft" if by_name else shlex.quote(str(called))


def parse(
    kind: type[_T], command: str, argv: list[str], default: Any = tyro.MISSING_NONPROP, program: str = "rmft"
) -> _T:
    """Parses the arguments of a command of a program with tyro; what it has to complain about becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = (tyro.conf.OmitArgPrefixes,)
            return tyro.cli(kind, prog=f"{program} {command}", args=argv, config=config, default=default)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        # Tyro draws a box, of lines or of blanks: a title, the complaint, a rule, and where to find help.
        rows = [line.strip("│ ") for line in complaint.getvalue().splitlines()[1:]]
        rows = itertools.dropwhile(lambda row: not _has_words(row), rows)
        text = " ".join(itertools.takewhile(_has_words, rows)).rstrip(".")
        unknown = re.match(r"Unrecognized options?: --([\w-]+)", text)
        advice = unknown and _meant(unknown[1].replace("-", "_"), kind, default)
        if number := re.match(r"Error parsing (--[\w-]+): invalid literal for int\(\) with base 10: '(.*)'", text):
            text, advice = f"got {number[1]} {number[2]}, need a whole number", f"{number[1]} 10"
        raise ConfigError(f"{text}; try {advice or f'`{program} {command} --help`'}") from None


def _meant(name: str, kind: type[Any], default: Any) -> str:
    """The option of a command that somebody meant by another name; empty if it is not known."""
    config = getattr(default, "config", None)
    settings = config.flat() if isinstance(config, Group | Choice) else {}
    owners = owners_of(name) if settings else []
    if owners and owners[0].kind in settings:
        return f"{owners[0].kind.replace('_', ' ')} {owners[0].name!r}, which has it"
    known = [*settings, *(field.name for field in dataclasses.fields(kind))]
    return f"--{close.replace('_', '-')}" if (close := closest(name, known)) else ""


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


def values_by_name(option: str, groups: Groups, need: str, example: str) -> dict[str, str]:
    """The values of an option whose words are `NAME=VALUE`, or several of them with commas between, by name.

    Raises:
      ConfigError: for a word that is not what they `need` to be, with an example, or a name that is there twice.
    """
    found: dict[str, str] = {}
    for word in itertools.chain(*(re.split(r",(?=\w+=)", words) for words in itertools.chain(*groups))):
        name, equals, value = word.partition("=")
        require(bool(name and equals and value), f"{option} {word}", need, f"{option} {example}")
        tried = f"{option} {name}={found.get(name)},{value}"
        require(name not in found, f"{option} {name} twice", "each name once", tried)
        found[name] = value
    return found


def duration(seconds: float) -> str:
    """A time in the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def imports() -> list[str]:
    """The options that import again what users' code was imported."""
    return [word for path in imported() for word in ("--import", path)]


def short_name(words: str) -> str:
    """The words; of those that are too long for a name of a file the first, and a number that stands for all."""
    return words if len(words) <= _NAME_LENGTH else f"{words[:_NAME_LENGTH]}-{zlib.crc32(words.encode()):08x}"


def _has_words(row: str) -> bool:
    return any(map(str.isalnum, row))


def table_text(
    dataset: xr.Dataset,
    rows: str | None = None,
    columns: str | None = None,
    format: tables.Format = "text",
    *,
    select: Mapping[str, Any] | None = None,
    baselines: Sequence[str] | None = None,
) -> str:
    """The table of a run or a sweep, as text as wide as the terminal.

    Of a sweep whose dimensions are not given the first two are its rows and columns, and of further ones the last value
    is shown, which is said on standard error.
    """
    if estimates.is_sweep(dataset) and not rows and not columns:
        chosen = estimates.select(dataset, select or {})
        rows, columns, *others = [*estimates.open_dims(chosen), None, None]
        fixed = {dim: chosen[dim].values[-1] for dim in others if dim}
        if fixed:
            words = " ".join(estimates.selection_of(dim, value) for dim, value in fixed.items())
            print(f"of more than two dimensions the last value: --select {words}", file=sys.stderr)
        select = {**(select or {}), **fixed}
    width = terminal_width()
    return tables.table(dataset, rows, columns, format, select=select, baselines=baselines, width=width)


def terminal_width() -> int | None:
    """How many columns there are; none where what is printed goes to a file or to another program."""
    terminal = Console(highlight=False)
    return terminal.width if terminal.is_terminal else None


def wrapped(text: str, head: str = "") -> str:
    """A text behind a head as lines that the terminal has room for, all but the first one indented by the head."""
    width, indent = terminal_width(), " " * len(head)
    if width is None or len(head) + len(text) <= width:
        return head + text
    return textwrap.fill(
        text, width, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def free_place(name: str) -> Path:
    """`runs/NAME`, or where there is one already the first of `runs/NAME-2`, `runs/NAME-3`, ... that is free."""
    places = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(place for place in places if not place.exists())


def print_summary(summary: dict[str, dict[str, Any]], title: str, attributes: dict[str, Any]) -> None:
    """Prints the table of an evaluation, whose attributes name the regret and the reference."""
    # A pipe has no width. In a narrow terminal the table has two parts, for wrapped lines cannot be read.
    width = terminal_width()
    narrow = width is not None and width < _TABLE_WIDTH
    parts: tuple[Any, ...] = ("regret", "growth") if narrow else (None,)
    for part in parts:
        rows = table(summary, title, attributes["regret"], attributes["reference"], part)
        Console(highlight=False, width=width if narrow else 120).print(rows, soft_wrap=not narrow)
    for name, row in summary.items():
        if row.get("invalid"):
            print(f"answers of {name} that named no arm: {row['invalid']:.2%}")
