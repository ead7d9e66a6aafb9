"""The files of a sweep.

Every cell that finishes is one netCDF file, written under a temporary name and renamed, and one more is assembled from
them at the end. So a kill leaves every cell whole or absent, cells can be written in any order, and a sweep can be
read while it runs. One HDF5 file that grows would be fewer files, but a kill in the middle of an append can damage
what was there before, and it has one writer. A Zarr store takes many writers, but a cell's region is many files, so a
kill can leave half a cell; its chunks would pay where data exceeds memory, and a sweep of curves is far from that.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from rmft_jax.config import Params, Value
from rmft_jax.config.checks import either, require
from rmft_jax.config.plugins import imported
from rmft_jax.config.settings import shown
from rmft_jax.method.settings import from_dict
from rmft_jax.running.files import RunError, read_dataset, read_if_there, unless_damaged, write_dataset, write_json
from rmft_jax.running.storage import ResultDirectory, RunDirectory, lost_files
from rmft_jax.running.training import load_run
from rmft_jax.running.weights import PREFIX, TrainedPolicy, load_pretrained, read_policy, write_policy
from rmft_jax.sweeps.assembly import CellContent, assemble, read_cell
from rmft_jax.sweeps.growing import grown_cells, joined
from rmft_jax.sweeps.spec import Cell, Sweep, label_of

Warn = Callable[[str], None]

# What reading a damaged file raises, depending on where the damage is.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
_STAMP = "cell"
_SOURCES = "made_from"


class SweepDirectory(ResultDirectory):
    """The files of one sweep.

    `sweep.json` (the specification, every cell's configuration, provenance), `cells/00042.nc` for every cell that
    finished, `weights/00042.npz` with its policy where that is kept, `failures/00042.json` for every one that failed
    last time, `unfinished/` for what is in training, and `sweep.nc`, assembled from the cells.
    """

    kind, command, record_name = "sweep", "rmft sweep", "sweep.json"
    parts = ("cells", "failures", "unfinished", "weights", "figures", "evaluations", "sweep.nc")

    @classmethod
    def create(
        cls, path: str | Path, sweep: Sweep, provenance: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> "SweepDirectory":
        """Starts a sweep directory.

        Args:
          path: the directory.
          sweep: what will run.
          provenance: attributes of the dataset to come, such as versions, commit and device; fit for JSON.
          overwrite: whether a sweep that is there is replaced.

        Raises:
          ConfigError: if the sweep cannot work.
          RunError: if the directory holds a sweep and `overwrite` is false, or holds other files, or cannot be written.
        """
        directory = cls(Path(path))
        content = _content(sweep, provenance or {}, [_record(cell) for cell in sweep.expand()])
        if (directory.path / "config.json").is_file():
            raise RunError(f"{path} holds a run, not a sweep; try another {either('--out', 'directory')}")
        with directory.held(False, overwrite):
            directory.begin(content)
        return directory

    @classmethod
    def open(cls, path: str | Path) -> "SweepDirectory":
        """An existing sweep directory, with the users' code that it needs imported.

        Raises:
          RunError: if there is none at `path`.
        """
        directory = super().open(path)
        with directory._understood():
            return directory

    def grown(self, sweep: Sweep, provenance: Mapping[str, Any] | None = None) -> "SweepDirectory":
        """The directory of a sweep that holds at least the cells that are here; these keep their places and results.

        Raises:
          ConfigError: if the sweep cannot work.
          RunError: if a cell that is here is not one of the sweep's, or other baselines were played beside it.
        """
        spec, here = self._content["spec"], self.cells
        try:
            records = [_record(cell) for cell in grown_cells(here, spec, sweep)]
        except RunError as error:
            remedy = f"try the spec that it holds with more cells, or another {either('--out', 'directory')}"
            raise RunError(f"{self.path} holds another sweep: {error}; {remedy}") from None
        if spec != sweep.to_dict():
            write_json(self.record, _content(sweep, joined(self._content["provenance"], provenance or {}), records))
        return SweepDirectory(self.path)

    @functools.cached_property
    def sweep(self) -> Sweep:
        """What the directory holds."""
        spec = self._content["spec"]
        names = spec.get("import", ())
        with self._understood():
            return Sweep.from_dict(spec | {"import": [name for name in names if name not in lost_files(names)]})

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell by its index, as the sweep began: a preset that has changed since does not change them."""
        with self._understood():
            return [Cell(one["index"], one["coordinates"], from_dict(one["config"])) for one in self._records]

    def finished(self, warn: Warn = print) -> set[int]:
        """Indices of the cells whose files are there and whole; `warn` is called with a line for every damaged one."""
        return set(self._contents(warn))

    def failures(self) -> dict[int, str]:
        """Messages of the cells that failed and have not finished since, by index."""
        messages = {}
        for index in range(len(self._records)):
            path = self._failure_path(index)
            if (stored := read_if_there(path)) is not None and not self._cell_path(index).exists():
                try:
                    messages[index] = str(json.loads(stored)["message"])
                except (ValueError, KeyError, TypeError) as error:
                    messages[index] = f"unknown: {path} cannot be read ({error})"
        return messages

    def write_cell(self, cell: Cell, dataset: xr.Dataset) -> Path:
        """Writes a cell's dataset, stamped with the cell, and forgets that it ever failed."""
        stamped = dataset.reset_coords(drop=True).assign_attrs({_STAMP: json.dumps(self._records[cell.index])})
        path = write_dataset(self._cell_path(cell.index), stamped)
        self._failure_path(cell.index).unlink(missing_ok=True)
        return path

    def write_weights(self, cell: Cell, params: Params) -> Path:
        """Writes a cell's policy."""
        provenance = {"cell": cell.label} | self._content["provenance"]
        path = self.weights_path(cell.index)
        write_policy(path, params, cell.config, self.sweep.preset, provenance)
        return path

    def read_weights(self, cell: int | Mapping[str, Value]) -> TrainedPolicy:
        """The policy of a cell, by its index or by values that no other cell has.

        Raises:
          ConfigError: if there is no such cell, or several.
          RunError: if its policy was not kept.
        """
        found = [c for c in self.cells if (_matches(c, cell) if isinstance(cell, Mapping) else c.index == cell)]
        known = found or self.cells
        labels = ", ".join(f"{c.index} ({c.label})" for c in known[:5]) + ", ..." * (len(known) > 5)
        words = label_of(cell) if isinstance(cell, Mapping) else shown(cell)
        index = known[0].index
        matching = f"{len(found)} cells match" if found else "no cell matches"
        require(
            len(found) == 1,
            f"cell {words}, which {matching}",
            f"one of {labels}",
            either(f"--cell {index}", f"cell={index}"),
        )
        path = self.weights_path(found[0].index)
        if not path.is_file():
            kept = either("--keep-weights", "keep_weights=True")
            raise RunError(f"{self.path} holds no policy of {found[0].label}; try a sweep with {kept} from its start")
        return read_policy(path)

    def weights_path(self, index: int) -> Path:
        """Where the policy of a cell is kept."""
        return self.path / "weights" / f"{index:05d}.npz"

    def write_failure(self, cell: Cell, message: str) -> None:
        """Records why a cell failed."""
        write_json(self._failure_path(cell.index), {"label": cell.label, "message": message})

    def assemble(self, warn: Warn = print) -> xr.Dataset:
        """The dataset of the sweep, as far as it got, in memory.

        Over the dimensions of `Sweep.dimensions` come those of the cells' datasets; NaN where a cell has no such round,
        arm or agent, failed, or is missing. `status` says `finished`, `failed`, `missing`, or
        `absent` of combinations that the sweep does not have.

        Args:
          warn: called with a line for every damaged cell, which counts as missing.
        """
        contents, failures = self._contents(warn), self.failures()
        coordinates = [record["coordinates"] for record in self._records]
        status = dict.fromkeys(failures, "failed") | dict.fromkeys(contents, "finished")
        dataset = assemble(self.sweep.dimensions(coordinates), coordinates, contents, status)
        dataset.attrs |= {name: _attribute(value) for name, value in self._content["provenance"].items()}
        dataset.attrs |= {"preset": self.sweep.preset, "spec": json.dumps(self.sweep.to_dict())}
        if failures:
            messages = {label_of(coordinates[index]): message for index, message in failures.items()}
            dataset.attrs["failures"] = json.dumps(messages)
        return dataset

    def write_assembled(self, warn: Warn = print) -> Path:
        """Writes `sweep.nc` and returns its path."""
        sources = self._sources()  # Before they are read: what changes meanwhile is seen the next time.
        return write_dataset(self._assembled, self.assemble(warn).assign_attrs({_SOURCES: sources}))

    def read_assembled(self) -> xr.Dataset | None:
        """The content of `sweep.nc`; None if it is damaged, or was made from other files than are here now."""
        path = self._assembled
        with unless_damaged():
            dataset = read_dataset(path, "assembling it again")
            # Where only the assembled file was kept, it is all there is.
            if dataset.attrs.pop(_SOURCES, None) == self._sources() or not any(self._cells.glob("*.nc")):
                return dataset
        return None

    def _sources(self) -> str:
        """What the assembled file is made from: a change of any file changes it, whatever the clocks say."""
        paths = [self.record, *sorted(self._cells.glob("*.nc")), *sorted(self._failures.glob("*.json"))]
        known = [(path.name, (told := path.stat()).st_size, told.st_mtime_ns) for path in paths]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    @property
    def unfinished(self) -> Path:
        """Where an executor keeps what it has begun."""
        return self.path / "unfinished"

    @property
    def _assembled(self) -> Path:
        return self.path / "sweep.nc"

    @property
    def _cells(self) -> Path:
        return self.path / "cells"

    @property
    def _failures(self) -> Path:
        return self.path / "failures"

    def _cell_path(self, index: int) -> Path:
        return self._cells / f"{index:05d}.nc"

    def _failure_path(self, index: int) -> Path:
        return self._failures / f"{index:05d}.json"

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        content = self.read_record()
        if not isinstance(content, dict) or not {"spec", "provenance", "cells"} <= content.keys():
            raise RunError(f"cannot read {self.record}: it lacks a part; try {self.anew}")
        return content

    @property
    def _records(self) -> list[dict[str, Any]]:
        return self._content["cells"]

    def _understood(self) -> contextlib.AbstractContextManager[None]:
        return self.understood(self._content)

    def _contents(self, warn: Warn) -> dict[int, CellContent]:
        """What the finished cells hold, by index."""
        contents = {}
        for index, record in enumerate(self._records):
            path = self._cell_path(index)
            if (stored := read_if_there(path)) is None:
                continue
            try:
                content = read_cell(stored)
                if json.loads(content.attrs.pop(_STAMP, "null"))["config"] != record["config"]:
                    raise ValueError("it holds another cell")
                contents[index] = content
            except _DAMAGE as error:
                warn(f"{path} is damaged ({error}): {label_of(record['coordinates'])} counts as not finished")
        return contents


def load_sweep(directory: str | Path, warn: Warn = print) -> xr.Dataset:
    """The dataset of a sweep, finished, running or interrupted.

    Args:
      directory: where the sweep was made.
      warn: called with a line for every damaged cell, which counts as missing.

    Returns:
      See `SweepDirectory.assemble`; from `sweep.nc` where that is newer than all else, and else from the cells.

    Raises:
      RunError: if there is no sweep.
    """
    sweep = SweepDirectory(Path(directory))
    assembled = sweep.read_assembled() if sweep.exists() else None  # Which needs no code of users.
    return SweepDirectory.open(sweep.path).assemble(warn) if assembled is None else assembled


def require_no_results(out: Path) -> None:
    """Raises `ConfigError` for a directory of a run or a sweep: other results there would be taken for theirs."""
    results = any((out / kind.record_name).is_file() for kind in (RunDirectory, SweepDirectory))
    got = f"{either('--out ', 'the directory ')}{out}, which holds a run or a sweep"
    require(not results, got, "a place for results", either("another --out", "another directory"))


def load_policy(
    source: str | Path, cell: int | Mapping[str, Value] | None = None, *, which: str = "best"
) -> TrainedPolicy:
    """A trained policy: of a run, of a sweep's cell, of a file, or one that comes with the package.

    Args:
      source: directory of a run; directory of a sweep that kept its weights; a file of weights; or `pretrained:NAME`.
      cell: of a sweep, its index, or values by which it is the only one, such as `{"num_arms": 3, "seed": 0}`.
      which: of a run, the checkpoint: `best` by validation regret, or `last`.

    Raises:
      ConfigError: if there is no such cell or name.
      RunError: if there is nothing usable at `source`.
    """
    name, path = str(source), Path(source)
    is_sweep = (path / "sweep.json").is_file()
    require(is_sweep == (cell is not None), f"cell {cell} of {source}", "a cell of a sweep", "a sweep and its cell")
    if is_sweep or name.startswith(PREFIX) or path.is_file():
        require(which == "best", f"which={which!r} of {source}", "the one that is kept", "leaving which out")
    if is_sweep and cell is not None:
        return SweepDirectory.open(path).read_weights(cell)
    if name.startswith(PREFIX):
        return load_pretrained(name.removeprefix(PREFIX))
    return read_policy(path) if path.is_file() else load_run(path, which)


def _content(sweep: Sweep, provenance: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": sweep.to_dict(), "provenance": dict(provenance), "import": imported(), "cells": records}


def _record(cell: Cell) -> dict[str, Any]:
    return {"index": cell.index, "coordinates": cell.coordinates, "config": cell.config.flat()}


def _matches(cell: Cell, values: Mapping[str, Value]) -> bool:
    known = cell.config.flat() | cell.coordinates
    return all(known.get(name) == value for name, value in values.items())


def _attribute(value: Any) -> str | int | float:
    """NetCDF attributes are text and numbers."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
