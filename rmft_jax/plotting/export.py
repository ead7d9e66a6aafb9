"""Figures to files. Imports no JAX."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from rmft_jax.plotting.style import PAPER
from rmft_jax.storage import replacing


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, each whole or not at all; `path` has no suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(PAPER):
        for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
            target = path.with_suffix(suffix)
            with replacing(target) as temporary:
                figure.savefig(temporary, dpi=300, metadata=metadata)
            written.append(target)
    return written
