"""Figures to files."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from rmft_jax.plotting.style import SHEETS, DataFigure
from rmft_jax.running.storage import replacing
from rmft_jax.statistics.tables import csv_text


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
    # A name such as "k=0.5" has no suffix to replace.
    png, pdf, numbers = (stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf", ".csv"))
    known = figure if isinstance(figure, DataFigure) else DataFigure()
    with rc_context(SHEETS[known.style].rc):
        caption = known.caption or None
        for target, metadata in ((png, {"Description": caption}), (pdf, {"Subject": caption, "CreationDate": None})):
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=300, metadata=metadata)
    if not known.rows:
        return [png, pdf]
    with replacing(numbers) as temporary:
        temporary.write_text(csv_text(known.rows), newline="\n")
    return [png, pdf, numbers]
