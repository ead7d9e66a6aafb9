"""The command `rmft report`."""

import contextlib
import dataclasses
from pathlib import Path

import tyro

from rmft_jax.cli.common import parse
from rmft_jax.config.checks import require, require_count
from rmft_jax.report.page import library, write_page
from rmft_jax.report.sources import open_sources
from rmft_jax.report.watch import watch
from rmft_jax.running.files import writable
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.statistics.estimates import IntervalName


@dataclasses.dataclass(frozen=True)
class ReportArguments:
    """Writes a report of runs and sweeps, side by side, as one HTML file that needs no network.

    Of what is unfinished or damaged it says what is missing, and shows the rest.
    """

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Directories of runs or sweeps, or netCDF files of either."""
    out: Path = Path("report.html")
    """The file."""
    intervals: IntervalName = "student"
    """Of sweeps over seeds: Student-t, or a hierarchical bootstrap, which is of use from two seeds on."""
    dialogues: bool = True
    """Whether language models play dialogues again, which takes time."""
    scenario: int | None = None
    """Number of the scenario of these dialogues; if not given, the first one of which anything is kept."""
    watch: bool = False
    """Serve the report for this machine alone, and follow the files; nothing is written."""
    port: int = 8765
    """Of --watch: port of this machine; 0: one that is free."""


def report(argv: list[str]) -> int:
    """Writes a report, or serves one until it is stopped."""
    arguments = parse(ReportArguments, "report", argv)
    require_count(arguments.port, "port", 0, 8765)
    require(arguments.port < 2**16, f"port={arguments.port}", "a port below 65536", "--port 8765")
    require_count(arguments.scenario or 0, "scenario", 0, 0)
    out = arguments.out
    require(out.suffix in (".html", ".htm"), f"--out {out}", "an .html file", "--out report.html")
    if arguments.watch:
        with watch(arguments.directories, arguments.port, arguments.intervals) as served:
            print(
                f"following {', '.join(map(str, arguments.directories))} at {served.url}; Ctrl-C stops it", flush=True
            )
            with contextlib.suppress(KeyboardInterrupt):
                served.wait()
        return 0
    library()  # Refused first is what takes no time.
    sources = open_sources(arguments.directories, arguments.intervals)
    with writable(files=[out]), ProgressReporter().status("making the report"):
        missing = write_page(sources, out, dialogues=arguments.dialogues, scenario=arguments.scenario)
    for text in missing:
        print(f"missing: {text}")
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
