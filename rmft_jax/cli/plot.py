"""The command `rmft plot`."""

import dataclasses
from pathlib import Path

import tyro

from rmft_jax.cli.common import parse


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draws the figures of a run into DIR/figures."""

    directory: tyro.conf.Positional[Path]
    """Run directory."""


def plot(argv: list[str]) -> int:
    """Draws the figures of a run."""
    arguments = parse(PlotArguments, "plot", argv)
    from rmft_jax.storage import RunDirectory

    run = RunDirectory.open(arguments.directory)
    metrics, evaluation = run.read_dataset("metrics.nc"), run.read_dataset("evaluation.nc")

    from rmft_jax import plotting

    for path in plotting.plot_run(metrics, evaluation, run.figures):
        print(f"figure: {path} (and .pdf)")
    return 0
