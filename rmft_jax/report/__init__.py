"""Reports of runs and sweeps: one HTML file, or a page that follows a run."""

from rmft_jax.report.page import make_page, write_report
from rmft_jax.report.sources import Source, open_sources

__all__ = ["Source", "make_page", "open_sources", "write_report"]
