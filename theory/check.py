"""Checks the statements of the theory on the code that trains, and prints what is predicted and what is measured.

    python -m theory.check [--json OUT] [--beyond] [--full] [--seed N] [--sabotage NAME]

Exit code 0 if every statement holds, 1 if one fails, 2 for wrong input. Figures go to `theory/figures`.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require_seed
from rmft_jax.method.devices import device_name
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import versions
from theory import (
    anytime,
    attention,
    drift,
    finite_samples,
    hedge,
    hedge_regret,
    lemma,
    metric,
    survivorship,
    theorem1,
    theorem2,
    theorem3,
    theorem4,
)
from theory.beyond import EXPLORATIONS
from theory.beyond.exploration import Finding
from theory.statement import STRUCTURAL, AnyStatement, Effort, Row, all_together, sabotaged, sabotages

FIGURES = Path(__file__).parent / "figures"
STATEMENTS: tuple[AnyStatement, ...] = tuple(
    module.STATEMENT
    for module in (
        lemma,
        theorem1,
        theorem2,
        theorem3,
        hedge,
        hedge_regret,
        theorem4,
        finite_samples,
        metric,
        attention,
        anytime,
        survivorship,
        drift,
    )
)
PARTS = {part.name: part for part in (*STATEMENTS, *EXPLORATIONS)}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Checks the theory on the code that trains."""

    json: Path | None = None
    """File for the rows."""
    full: tyro.conf.FlagCreatePairsOff[bool] = False
    """More scenarios and seeds."""
    beyond: tyro.conf.FlagCreatePairsOff[bool] = False
    """Explores what lies beyond the simplified setting as well, where nothing is claimed."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Which statements and explorations to run, by name; all statements if none is named."""
    seed: int = 0
    """Seed of all randomness."""
    sabotage: str | None = None
    """Plants an error, which the check must then find: NAME+ and NAME- make a closed form 5% too large or too small,
    other names spoil a structure. No figures are drawn."""
    figures: Path = FIGURES
    """Directory for the figures."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first argument that cannot work, before anything is measured."""
        require_seed(self.seed)
        for noun, got, known in (("--only", self.only, PARTS), ("--sabotage", (self.sabotage,), sabotages())):
            for name in got:
                if name is not None and name not in known:
                    raise ConfigError(
                        f"got {noun} {name}, need one of {', '.join(sorted(known))}; try {noun} {min(known)}"
                    )
        # Found out now, not after minutes of measuring.
        for path in (self.json.parent if self.json else None, self.figures):
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)


class Result(NamedTuple):
    """Rows of the statements, findings of the explorations, and the seconds that each part took."""

    rows: list[Row]
    findings: list[Finding]
    seconds: dict[str, float]


def run(arguments: Arguments, console: Console) -> Result:
    """Measures part by part, drawing each figure as soon as its part is measured."""
    result = Result([], [], {})
    standard = PARTS if arguments.beyond else [part.name for part in STATEMENTS]
    parts = [part for name, part in PARTS.items() if name in (arguments.only or standard)]
    columns = (
        BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(parts))
        for part in parts:
            started = time.perf_counter()

            def note(line: str, name: str = part.name) -> None:
                bar.update(task, description=f"{name}: {line}")

            measured = part.measure(Effort(arguments.full, arguments.seed, note))
            with sabotaged(arguments.sabotage):  # Only the comparison: what is measured is as always.
                summary = _add(result, part, measured)
            if arguments.sabotage is None:
                save_figure(part.draw(measured), arguments.figures / part.name)
            result.seconds[part.name] = time.perf_counter() - started
            bar.advance(task)
            line = f"{part.name}: {summary}, {result.seconds[part.name]:.0f} s"
            bar.console.print(line, soft_wrap=True, markup=False)
    if result.rows:
        result.rows.append(all_together(result.rows))
    return result


def _add(result: Result, part: Any, measured: Any) -> str:
    if part not in STATEMENTS:
        findings = part.findings(measured)
        result.findings.extend(findings)
        return f"{len(findings)} findings"
    rows = part.rows(measured)
    result.rows.extend(rows)
    return f"{sum(row.holds for row in rows)} of {len(rows)} hold"


def table(rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    heads = ("predicted", "measured", "standard error", "z", "holds")
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    result.add_column("statement", no_wrap=True)
    result.add_column("quantity", overflow="fold")
    for head in heads:
        result.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        score = "-" if math.isnan(row.score) else f"{row.score:+.1f}"
        result.add_row(
            row.statement,
            row.quantity,
            f"{row.relation} {row.predicted:.4g}",
            f"{row.measured:.4g}",
            f"{row.standard_error:.2g}" if row.standard_error else "-",
            score,
            "yes" if row.holds else "NO",
            style=None if row.holds else "bold red",
        )
    return result


def findings_table(findings: Sequence[Finding]) -> Table:
    """What was measured beyond the setting of the theorems, for the terminal."""
    title = "Beyond the simplified setting: measured, nothing claimed"
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    result.add_column("exploration", no_wrap=True)
    result.add_column("quantity", overflow="fold")
    for head in ("measured", "standard error", "theorem's"):
        result.add_column(head, justify="right", no_wrap=True)
    for finding in findings:
        reference = "-" if finding.reference is None else f"{finding.reference:.4g}"
        numbers = f"{finding.value:.4g}", f"{finding.standard_error:.4g}", reference
        result.add_row(finding.exploration, finding.quantity, *numbers)
    return result


@pinned()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check."""
    arguments = tyro.cli(Arguments, prog="python -m theory.check", args=argv)
    progress = Console(stderr=True, highlight=False)
    compile_seconds = 0.0

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        nonlocal compile_seconds
        if event == "/jax/core/compile/backend_compile_duration":
            compile_seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        arguments.validate()
        result = run(arguments, progress)
        _print(arguments, result, compile_seconds)
        if arguments.json is not None:
            _write(arguments.json, arguments, result)
    except ConfigError as error:
        print(f"theory.check: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"theory.check: error: {error}; try another --json or --figures", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("theory.check: stopped; finished figures are in place, `--only` runs single parts", file=sys.stderr)
        return 130
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return 0 if all(row.holds for row in result.rows) else 1


def _print(arguments: Arguments, result: Result, compile_seconds: float) -> None:
    output = Console(highlight=False)
    if not output.is_terminal:
        output = Console(highlight=False, width=140)
    if result.rows:
        if arguments.sabotage is not None:
            output.print(
                f"planted: {STRUCTURAL.get(arguments.sabotage, f'{arguments.sabotage[-1]}5% in the closed form')}"
            )
        output.print(table(result.rows))
    if result.findings:
        output.print(findings_table(result.findings))
    holding, total = sum(row.holds for row in result.rows), sum(result.seconds.values())
    # Opponents of one policy are compiled in threads, so this may be more than passed by.
    output.print(
        f"{holding} of {len(result.rows)} rows hold; {total:.0f} s on {device_name()}; "
        f"compilation: {compile_seconds:.0f} s, summed over threads"
    )


def _write(path: Path, arguments: Arguments, result: Result) -> None:
    values = {
        "rows": [row._asdict() for row in result.rows],
        "beyond": [finding._asdict() for finding in result.findings],
        "seed": arguments.seed,
        "full": arguments.full,
        "sabotage": arguments.sabotage,
        "seconds": result.seconds,
        "device": device_name(),
        "versions": versions(),
    }
    write_json(path, values)


if __name__ == "__main__":
    sys.exit(main())
