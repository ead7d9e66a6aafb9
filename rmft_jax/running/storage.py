"""Every file of a run directory, save the checkpoints.

A file is written under a temporary name and renamed, so that it is whole or absent whatever happens meanwhile.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xarray as xr
from filelock import FileLock, Timeout

from rmft_jax.config import ConfigError
from rmft_jax.config.plugins import import_all, imported
from rmft_jax.method.settings import RunConfig, from_dict

_ENGINE = "h5netcdf"


class RunError(Exception):
    """A run directory that cannot be used as asked. The message says what was found and what to try."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    `config.json`, `metrics.nc`, `evaluation.nc`, `summary.json`, `checkpoints/`, `figures/`, and `evaluations/` for
    evaluations under other settings.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The last two checkpoints."""
        return self.path / "checkpoints"

    @property
    def start(self) -> Path:
        """The weights that the run starts from, if it starts from some."""
        return self.path / "start.npz"

    @property
    def figures(self) -> Path:
        """Figures, each as PNG and PDF."""
        return self.path / "figures"

    @property
    def _config(self) -> Path:
        return self.path / "config.json"

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        preset: str,
        overwrite: bool = False,
        write_start: Callable[[Path], None] | None = None,
    ) -> "RunDirectory":
        """Starts a run directory by writing its configuration.

        Args:
          path: the directory.
          config: of the run.
          preset: the name of the configuration, for the record.
          overwrite: whether a run that is there is replaced.
          write_start: writes the weights that the run starts from, given where. Called before there is a run, so that
            none goes on without them.

        Raises:
          RunError: if the directory holds a run and `overwrite` is false, or holds other files, or cannot be written.
        """
        run = cls(path)
        if run.exists():
            if not overwrite:
                raise RunError(f"{path} already holds a run; try --resume to continue it or --overwrite to replace it")
            with run.lock():
                run._clear()
        elif not is_vacant(path, run.start.name):
            raise RunError(f"{path} exists and is not a run directory; try another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.start.unlink(missing_ok=True)
            if write_start is not None:
                write_start(run.start)
            write_json(run._config, {"preset": preset, "import": imported(), "config": config.flat()})
        except OSError as error:
            raise RunError(f"cannot write to {path}: {error.strerror}; try another --out") from error
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An existing run directory.

        Raises:
          RunError: if there is none at `path`.
        """
        run = cls(path)
        if not run.exists():
            raise RunError(f"{path} is not a run directory (it has no config.json); try one that `rmft train` made")
        return run

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self._config.is_file()

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keeps every other process from training here.

        Raises:
          RunError: if one does.
        """
        return locked(self.path, "training")

    def _clear(self) -> None:
        # The configuration goes last, so that an interrupted clearing still reads as a run.
        for folder in (self.checkpoints, self.figures, self.path / "evaluations"):
            remove_folder(folder)
        for name in ("start.npz", "metrics.nc", "evaluation.nc", "summary.json", "config.json"):
            (self.path / name).unlink(missing_ok=True)

    def read_config(self) -> tuple[RunConfig, str]:
        """The configuration and the name of the preset it came from.

        Raises:
          RunError: if the file is damaged or does not describe a valid configuration.
        """
        values = self._read_json(self._config)
        invalid, lost = f"{self._config} is no valid configuration", []
        try:
            names = values.get("import", ())
            # What has moved may have been imported from its new place already.
            lost = [name for name in names if name.endswith(".py") and not Path(name).is_file()]
            import_all(name for name in names if name not in lost)
            return from_dict(values["config"]), str(values["preset"])
        except ConfigError as error:
            if lost:
                gone = f"needs {' and '.join(lost)}, which {'is' if len(lost) == 1 else 'are'} gone ({error})"
                raise RunError(f"{self._config} {gone}; try --import with the file where it is now") from error
            raise RunError(f"{invalid} ({error}); try --overwrite") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{invalid} ({error}); try --overwrite") from error

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`."""
        write_json(self.path / "summary.json", summary)

    def read_summary(self) -> dict[str, Any]:
        """Reads `summary.json`."""
        return self._read_json(self.path / "summary.json")

    def write_dataset(self, name: str, dataset: xr.Dataset) -> Path:
        """Writes a dataset as compressed netCDF-4 and returns its path."""
        return write_dataset(self.path / name, dataset)

    def read_dataset(self, name: str) -> xr.Dataset:
        """Reads a dataset into memory.

        Raises:
          RunError: if it is missing or damaged.
        """
        path, remedy = self.path / name, f"`rmft train --resume --out {self.path}`"
        if not path.is_file():
            raise RunError(f"{path} does not exist yet; try {remedy}")
        return read_dataset(path, remedy)

    def _read_json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}; try `rmft train --overwrite --out {self.path}`") from error


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it, or the link to one.

    Raises:
      OSError: if something of it stays.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def is_vacant(path: Path, *besides: str) -> bool:
    """Whether there is nothing at `path`, or a directory without visible files but for some, by their names."""
    names = [file.name for file in path.iterdir()] if path.is_dir() else []
    return not path.exists() or (path.is_dir() and all(name.startswith(".") or name in besides for name in names))


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Keeps every other process that asks out of a directory.

    Raises:
      RunError: if one is in it already.
    """
    try:
        with FileLock(path / ".lock", timeout=0):
            yield
    except Timeout:
        raise RunError(f"another process is {doing} in {path}; try again when it has stopped") from None


def read_dataset(path: Path, remedy: str) -> xr.Dataset:
    """Reads a netCDF file into memory.

    Args:
      path: the file.
      remedy: what to try where it is damaged.

    Raises:
      RunError: if it is damaged.
    """
    try:
        with xr.open_dataset(path, engine=_ENGINE) as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}); try {remedy}") from error


def write_dataset(path: Path, dataset: xr.Dataset) -> Path:
    """Writes a dataset as compressed netCDF-4, whole or not at all, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = {name: {"zlib": True} for name, values in dataset.data_vars.items() if values.ndim > 0}
    # Encoded in memory: on a full disk HDF5 does not fail but crash.
    content = dataset.to_netcdf(None, engine=_ENGINE, encoding=encoding)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_json(path: Path, values: Any) -> None:
    """Writes JSON, whole or not at all; numbers that are none become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_without_nan(values), indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place once the block has written it."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _without_nan(values: Any) -> Any:
    """JSON knows no NaN: numbers that are none become null."""
    match values:
        case dict():
            return {key: _without_nan(value) for key, value in values.items()}
        case list() | tuple():
            return [_without_nan(value) for value in values]
        case float() if not math.isfinite(values):
            return None
    return values
