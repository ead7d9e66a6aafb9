"""How an error of a command ends: with a command that works."""

import re
import shlex
from collections.abc import Sequence

_SETTING = re.compile(r"; try (\w+)=('[^']*'|[\w.+-]+)(?: or .*)?$")
_WITH_SETTINGS = ("train", "bench-agents")


def with_command(message: str, argv: Sequence[str]) -> str:
    """The message; where it ends without a command, with the one that was typed and the setting that it names.

    Args:
      message: of an error.
      argv: what was typed after `rmft`.
    """
    if re.search(r"`rmft [^`]*`", message.rpartition("; try ")[2]):
        return message
    name = argv[0] if argv else ""
    found = _SETTING.search(message)
    if found and name in _WITH_SETTINGS and found[2] not in ("True", "False"):
        words = _with_option(argv, f"--{found[1].replace('_', '-')}", found[2].strip("'"))
        return f"{message}: `rmft {shlex.join(words)}`"
    return f"{message}; see `rmft {name} --help`" if name else message


def _with_option(argv: Sequence[str], option: str, value: str) -> list[str]:
    """The words with an option at this value, wherever it stood."""
    kept, words = [], iter(argv)
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag.replace("_", "-") != option:
            kept.append(word)
        elif not equals:
            next(words, None)
    return [*kept, option, value]
