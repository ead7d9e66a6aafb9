"""Reports as tests look at them: directories that were written and not trained, and pages that are read."""

import functools
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import xarray as xr

from evaluations import made_evaluation
from rmft_jax.method.settings import RunConfig
from rmft_jax.running.storage import RunDirectory
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory
from sweep_data import made_sweep

GRID = {"horizon": [25, 50, 200], "num_arms": [2, 3, 6], "seed": [0, 1]}
RIVALS = {
    "thompson": 0.5, "ucb1": 0.8, "greedy": 0.45, "posterior_index": 0.35, "gittins": 0.28, "exp3": 1.1, "uniform": 1.5,
}  # fmt: skip
_VOID = ("meta", "link", "input", "br", "hr", "img")


def made_metrics() -> xr.Dataset:
    metrics = made_sweep({}).rename(training_regret="regret", regret="rounds")
    return metrics[["regret", "selected_regret", "entropy", "validation_regret", "validation_regret_sem"]]


def run_directory(path: Path, evaluation: xr.Dataset | None = None, **settings: Any) -> RunDirectory:
    """A run of 40 iterations that were never done; without an evaluation it has not ended."""
    run = RunDirectory.create(path, RunConfig().replace(num_iterations=40, **settings), "quickstart")
    run.write_dataset("metrics.nc", made_metrics().assign_attrs(seed=0, horizon=50, device="made up"))
    if evaluation is not None:
        run.write_dataset("evaluation.nc", evaluation)
        run.write_summary({"preset": "quickstart", "device": "made up", "wall_seconds": 12.3456789, "evaluation": {}})
    return run


@functools.cache
def sweep_dataset() -> xr.Dataset:
    return made_sweep(GRID, RIVALS)


def sweep_directory(path: Path) -> SweepDirectory:
    """A sweep of 18 cells with seven rivals, of which the last cell failed."""
    directory = SweepDirectory.create(path, Sweep("quickstart", grid=GRID), {"git_commit": "abcdef", "device": "none"})
    dataset = sweep_dataset().drop_vars("status")
    for cell in directory.cells[:-1]:
        one = dataset.sel(cell.coordinates)
        directory.write_cell(cell, one.isel(round=slice(one["horizon"].item()), rank=slice(one["num_arms"].item())))
    directory.write_failure(directory.cells[-1], "the loss is nan")
    directory.write_assembled()
    return directory


def evaluation(**options: Any) -> xr.Dataset:
    return made_evaluation(horizon=300, num_scenarios=40, **options)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = ET.Element("root")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = ET.SubElement(self._open[-1], tag, {name: value or "" for name, value in attrs})
        if tag not in _VOID:
            self._open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        last = self._open[-1]
        if len(last):
            last[-1].tail = (last[-1].tail or "") + data
        else:
            last.text = (last.text or "") + data


def read(page: str) -> tuple[ET.Element, dict[str, Any]]:
    """A page, in which every element that is opened must be closed, and the data that its script draws."""
    reader = _Reader()
    reader.feed(page)
    assert len(reader._open) == 1
    data = next(one for one in reader.root.iter("script") if one.get("id") == "data")
    return reader.root, json.loads(data.text or "")


def text_of(made: ET.Element) -> str:
    return " ".join(" ".join(made.itertext()).split())


def sections(root: ET.Element) -> dict[str, str]:
    """The text of every section by its name."""
    return {one.get("id", ""): text_of(one) for one in root.iter("section")}


def rows(root: ET.Element, name: str) -> list[list[str]]:
    """The cells of the first table of a section."""
    found = next(one for one in root.iter("section") if one.get("id") == name)
    table = next(found.iter("table"))
    return [[text_of(cell) for cell in row] for row in table.iter("tr")]
