"""The blocks of code in README.md and on the pages of the site."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.name != "index.md")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
    *(ROOT / "experiments" / name / "README.md" for name in ("", "ablations", "benchmarks")),
    *sorted((ROOT / "theory").glob("*.md")),
]
_BLOCK = re.compile(r"(?:^<!-- not run: (.*?) -->\n)?^(```+)(\w*)\n(.*?)^\2$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code: what it is, and why it is not run, if it is not."""

    place: str
    language: str
    code: str
    excuse: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The words of its lines, those that go on in the next one joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """Those of a page."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    return [
        Block(f"{name}:{text[: found.start(2)].count(chr(10)) + 1}", found[3], found[4], found[1])
        for found in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
