"""Everything worth knowing of an accelerator that is at hand for minutes, the most valuable first.

    python -m experiments.accelerator --minutes 8 --out DIR

`tests` runs those that are marked `accelerator`. `throughput` is the table of `experiments.benchmarks.throughput`, with
the share of the memory's speed at which keys and values are read. `headline` trains whole presets, three seeds in one
vmapped program, and evaluates them beside the classical agents. `map` trains quickly over horizons and arm counts. Each
part is a process of its own, so that the next one finds the accelerator's memory free, and writes `DIR/PART.json` and
`DIR/PART.log`; the sweeps are in `DIR/headline/PRESET` and `DIR/map`. What fails says so there, and the next part runs.
The same command again, at any time, takes up what is missing.
"""

import collections
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from rmft_jax.cli.common import parse
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.method.presets import get_preset
from rmft_jax.running.files import RunError, locked, writable, write_json
from rmft_jax.running.progress import Bar, ProgressReporter

# What share of the time that is left a part may take, beside those after it.
_SHARES = {"tests": 2.0, "throughput": 2.0, "headline": 3.0, "map": 2.0}
# Seconds with which it makes sense to begin a part, and those in which one that is stopped has to end.
_LEAST, _GRACE = 15.0, 5.0
_ROOT = Path(__file__).parent.parent
_REFUSED = 2
_Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tests, throughput, headline presets and a map of horizons and arms on this machine's accelerator, in minutes."""

    out: Path
    """Folder of what is found; one that was begun is gone on with."""
    minutes: float = 8.0
    """Time for all of it."""
    parts: tuple[str, ...] = tuple(_SHARES)
    """What is wanted, the most valuable first."""
    sizes: tuple[str, ...] = ("32x50", "64x100")
    """Width x horizon of the throughput."""
    presets: tuple[str, ...] = ("mab", "mab-k5", "fol")
    """What is trained as it is."""
    quick: bool = False
    """Tiny sizes, to see that the command works; the numbers say nothing."""
    part: str = ""
    """Run this part alone, in this process, as the command does with each."""
    until: float = 0.0
    """When the time of --part is over, in seconds since 1970; by default after --minutes."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first argument that cannot work."""
        require(0 < self.minutes < float("inf"), f"--minutes {self.minutes:g}", "more than 0", "--minutes 8")
        require(bool(self.parts), "--parts without a name", f"some of {', '.join(_SHARES)}", "--parts tests")
        for name in (*self.parts, *filter(None, [self.part])):
            require(name in _SHARES, f"part {name!r}", f"one of {', '.join(_SHARES)}", f"--parts {' '.join(_SHARES)}")
        for size in self.sizes:
            ok = re.fullmatch(r"[1-9]\d*x[1-9]\d*", size) is not None
            require(ok, f"--sizes {size}", "width x horizon", "--sizes 32x50 64x100")
        for preset in self.presets:
            get_preset(preset)

    def words(self, part: str, until: float) -> list[str]:
        """The command of a part."""
        flags = ["--part", part, "--until", repr(until), "--out", str(self.out), *["--quick"] * self.quick]
        return [sys.executable, "-u", "-m", "experiments.accelerator", *flags, *self._named("sizes", "presets")]

    def _named(self, *fields: str) -> Iterator[str]:
        for field in fields:
            yield from (f"--{field}", *getattr(self, field))


def command(arguments: Arguments, reporter: ProgressReporter) -> int:
    """Runs the parts that are not done, one after the other; 0, or 3 if one failed."""
    ends, names = time.time() + 60 * arguments.minutes, list(dict.fromkeys(arguments.parts))
    files = {name: arguments.out / f"{name}.json" for name in names}
    for path in files.values():
        content = _read(path)
        if content.get("quick", arguments.quick) != arguments.quick:
            other = "with --quick" if content["quick"] else "without --quick"
            raise RunError(f"{path} was made {other}; try another --out")
    todo = [name for name in names if not _is_done(arguments, files[name])]
    if not todo:
        reporter.note(f"{arguments.out} has {', '.join(names)}: nothing to do")
        return 0
    with reporter.bar("part", len(names), len(names) - len(todo)) as bar:
        for place, name in enumerate(todo):
            left = ends - time.time()
            told = _skip(arguments, files[name], left)
            if told is None:
                share = left * _SHARES[name] / sum(_SHARES[other] for other in todo[place:])
                told = _run(arguments, files[name], time.time() + min(left, max(share, _LEAST)), bar)
            bar.step(f"{name}: {told}", ends - time.time())
    return 3 if any(_read(path).get("failed") for path in files.values()) else 0


def _is_done(arguments: Arguments, path: Path) -> bool:
    content, wanted = _read(path), {"throughput": arguments.sizes, "headline": arguments.presets}.get(path.stem, ())
    return content.get("status") == "done" and set(wanted) <= content["results"].keys()


def _skip(arguments: Arguments, path: Path, left: float) -> str | None:
    """That a part is left out, if there is no time for it; nothing, if there is."""
    if left >= _LEAST:
        return None
    why = f"{max(left, 0):.0f} s are left, need at least {_LEAST:.0f}"
    if (content := _read(path)).get("status", "running") == "running":
        head = {"part": path.stem, "status": "skipped", "quick": arguments.quick}
        write_json(path, content | head | {"left_out": {path.stem: why}})
    return f"skipped, {why}"


def _run(arguments: Arguments, path: Path, until: float, bar: Bar) -> str:
    """Runs a part in a process of its own; what became of it, in words."""
    name, seconds, before = path.stem, until - time.time(), _read(path)
    write_json(path, {"part": name, **before, "status": "running", "quick": arguments.quick})
    lines: collections.deque[str] = collections.deque([""], maxlen=1)

    def say(line: str) -> None:
        lines.append(line)
        bar.say(f"{name} · {line}"[:200])

    outcome, why = "unfinished", "stopped"
    try:
        code = _watched(arguments.words(name, until), until, path.with_suffix(".log"), say)
        why = f"its {seconds:.0f} s were over"
        if code is not None:
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            outcome, why = "failed", f"ended with {ended}; {lines[-1]}".removesuffix("; ")
    finally:
        content = _read(path)
        if content.get("status") == "running":  # It did not live to say how it ended.
            reason = "failed" if outcome == "failed" else "left_out"
            content = content | {"status": outcome, reason: {**content.get(reason, {}), name: why}}
            write_json(path, content)
    if code == _REFUSED:
        write_json(path, before or content)
        raise RunError(lines[-1])
    reasons = [f"{item}: {text}" for kind in ("failed", "left_out") for item, text in content.get(kind, {}).items()]
    return "; ".join([str(content["status"]), *reasons])


def _watched(words: list[str], until: float, log: Path, say: _Say) -> int | None:
    """Runs a command, with every line that it says; its exit code, or nothing where its time was over."""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(log.parent / "compiled")} | os.environ
    process = subprocess.Popen(
        words, cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    reader = threading.Thread(target=_follow, args=(process.stdout, log, say), daemon=True)
    reader.start()
    try:
        return process.wait(max(until - time.time(), 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            _end(process)
        reader.join(_GRACE)


def _follow(stream: IO[str], log: Path, say: _Say) -> None:
    with log.open("a", encoding="utf-8") as file, stream:
        for line in stream:
            file.write(line)
            file.flush()
            if line.strip():
                say(line.strip())


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process and whatever it started: first so that it can write what it has, then at once."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_GRACE)


def _read(path: Path) -> dict[str, Any]:
    """What is there of a part; nothing where the file is none of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def main(argv: list[str]) -> int:
    """The command; returns an exit code.

    Raises:
      ConfigError: for an argument that cannot work.
      RunError: for a folder that cannot be used.
    """
    arguments = parse(Arguments, "experiments.accelerator", argv, program="python -m")
    arguments.validate()
    arguments = dataclasses.replace(arguments, out=arguments.out.absolute())
    if arguments.part:
        from experiments import accelerator_parts  # JAX starts there and nowhere else.

        until = arguments.until or time.time() + 60 * arguments.minutes
        one = accelerator_parts.Part(arguments.part, arguments.out, until, arguments.quick)
        return accelerator_parts.run(one, arguments.sizes, arguments.presets)
    refusal = f"{arguments.out} is in use by another process; try another --out, or wait for it"
    with writable(arguments.out), locked(arguments.out, refusal):
        return command(arguments, ProgressReporter())


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        sys.exit(main(sys.argv[1:]))
    except (ConfigError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(_REFUSED)
    except KeyboardInterrupt:
        print("stopped" if "--part" in sys.argv else "stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
