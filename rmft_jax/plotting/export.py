"""Figures to files. Imports no JAX."""

import csv
import math
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from rmft_jax.plotting.style import SHEETS, DataFigure
from rmft_jax.storage import replacing


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, and the numbers that it shows, if it knows them, as CSV.

    Fonts are embedded in the PDF. Each file is written whole or not at all.

    Args:
      figure: the figure.
      path: without suffix, or with that of a PNG or a PDF, of which both are written all the same.

    Returns:
      The paths of the PNG, the PDF and the CSV.
    """
    stem = path.with_suffix("") if path.suffix in (".png", ".pdf") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    style, caption = (figure.style, figure.caption) if isinstance(figure, DataFigure) else ("paper", "")
    written = []
    with rc_context(SHEETS[style].rc):
        for suffix, said in ((".png", "Description"), (".pdf", "Subject")):
            target = stem.with_name(stem.name + suffix)  # A name such as "k=0.5" has no suffix to replace.
            metadata = ({said: caption} if caption else {}) | ({"CreationDate": None} if suffix == ".pdf" else {})
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=300, metadata=metadata)
            written.append(target)
    if isinstance(figure, DataFigure) and figure.rows:
        written.append(_write_rows(figure, stem.with_name(f"{stem.name}.csv")))
    return written


def _write_rows(figure: DataFigure, target: Path) -> Path:
    with replacing(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(figure.rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in figure.rows)
    return target


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
