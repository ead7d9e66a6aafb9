"""Runs tutorials, and puts what they print and draw into their pages.

A tutorial is a notebook in Markdown. A block of `text` after a cell is what the cell printed; a picture
`figures/TUTORIAL-NAME.png` is the figure that the tutorial saved as NAME.

    python -m experiments.tutorials first-policy ablation
"""

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

from rmft_jax.config import ConfigError
from rmft_jax.running.files import replacing

PAGES = Path(__file__).parent.parent / "docs" / "tutorials"
NAMES = tuple(sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "index"))
_CELL = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)


def main(names: tyro.conf.Positional[tuple[str, ...]] = NAMES) -> None:
    """Runs tutorials at the sizes that they state: minutes each.

    Args:
      names: of the tutorials; all if none is given.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"got tutorial {name!r}, need one of {', '.join(NAMES)}")
        page = PAGES / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            text, _ = played(text)
            for figure in re.findall(rf"\]\(figures/{name}-([\w-]+)\.png\)", text):
                shutil.copy(f"{figure}.png", PAGES / "figures" / f"{name}-{figure}.png")
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


def played(text: str, sizes: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """Runs all cells of a tutorial, one after the other, in the working directory.

    Args:
      text: the tutorial.
      sizes: values of constants of its first cell, in place of those that it states.

    Returns:
      The tutorial with what its cells print now, and its variables.

    Raises:
      ConfigError: for a size that the first cell does not state.
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    parts, end = [], 0
    for cell in _CELL.finditer(text):
        code = _resized(cell[1], sizes or {}) if end == 0 else cell[1]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"<a cell of {os.getcwd()}>", "exec"), names)
        parts += [text[end : cell.start()], f"```python\n{cell[1]}```\n", *_shown(printed.getvalue())]
        end = cell.end()
    return "".join([*parts, text[end:]]), names


def _resized(code: str, sizes: Mapping[str, Any]) -> str:
    for name, value in sizes.items():
        code, found = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", code, flags=re.MULTILINE)
        if not found:
            raise ConfigError(f"got size {name}, need a constant of the first cell")
    return code


def _shown(printed: str) -> Iterator[str]:
    if printed:
        yield f"\n```text\n{printed.rstrip()}\n```\n"


if __name__ == "__main__":
    tyro.cli(main)
