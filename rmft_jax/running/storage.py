"""Directories of results, and how their files are written, read and removed.

A file is written under a temporary name and renamed, so that it is whole or absent whatever happens meanwhile.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import xarray as xr
from filelock import FileLock, Timeout

from rmft_jax.config import ConfigError
from rmft_jax.config.plugins import import_all, imported
from rmft_jax.method.settings import RunConfig, from_dict

_ENGINE = "h5netcdf"
D = TypeVar("D", bound="ResultDirectory")


class RunError(Exception):
    """A run directory that cannot be used as asked. The message says what was found and what to try."""


@dataclasses.dataclass(frozen=True)
class ResultDirectory:
    """A directory of results, which has a record of what they are: written first, removed last.

    path: where it is.
    kind: what they are results of; command: what makes them.
    record_name: of the record; parts: names of all else.
    early: names of what is there before the record, and left by a beginning that was killed.
    """

    path: Path
    kind: ClassVar[str]
    command: ClassVar[str]
    record_name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    early: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls: type[D], path: Path) -> D:
        """An existing directory.

        Raises:
          RunError: if there is none at `path`.
        """
        found = cls(path)
        if not found.exists():
            lacking = f"{path} is not a {cls.kind} directory (it has no {cls.record_name})"
            raise RunError(f"{lacking}; try one that `{cls.command}` made")
        return found

    def exists(self) -> bool:
        """Whether anything was ever started here."""
        return self.record.is_file()

    @property
    def record(self) -> Path:
        """The record."""
        return self.path / self.record_name

    @property
    def anew(self) -> str:
        """The command that makes it again from nothing."""
        return f"`{self.command} --overwrite --out {self.path}`"

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keeps every other process from writing here, and every other thread; whoever has it may take it again.

        Raises:
          RunError: if one does.
        """
        return locked(self.path, f"another process works in {self.path}; try again when it has stopped")

    @contextlib.contextmanager
    def held(self, resume: bool, overwrite: bool) -> Iterator[bool]:
        """Has the lock from before the first look at what is here, until the last write; makes the directory.

        Args:
          resume: whether results that are here may go on.
          overwrite: whether they may be replaced.

        Yields:
          Whether there are results that go on.

        Raises:
          RunError: if the directory has results and neither is allowed, or holds other files, or is in use or cannot be
            made.
        """
        self._require_free(resume or overwrite)  # Also before there is a lock, which is a file.
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_written(error) from error
        with self.lock():
            self._require_free(resume or overwrite)
            yield resume and self.exists()

    def begin(self, content: Any, prepare: Callable[[], None] = lambda: None) -> None:
        """Clears the directory, which is `held`, and writes the record.

        Args:
          content: of the record, fit for JSON.
          prepare: writes what must be there before the record is.

        Raises:
          RunError: if something cannot be removed or written.
        """
        try:
            for name in (*self.parts, self.record_name) if self.exists() else self.early:
                remove(self.path / name)
            prepare()
            write_json(self.record, content)
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> RunError:
        return RunError(f"cannot write to {self.path}: {error.strerror}; try another --out")

    def _require_free(self, known: bool) -> None:
        """Refuses a directory of something else, and one that has results unless that is known."""
        if self.exists():
            if not known:
                remedy = "try --resume to continue it or --overwrite to replace it"
                raise RunError(f"{self.path} already holds a {self.kind}; {remedy}")
        elif self.path.exists() and not self._is_vacant():
            raise RunError(f"{self.path} exists and is not a {self.kind} directory; try another --out")

    def _is_vacant(self) -> bool:
        """Whether there is a directory that has nothing visible but what a killed beginning leaves."""
        names = [file.name for file in self.path.iterdir()] if self.path.is_dir() else [""]
        return all(name.startswith(".") or name in self.early for name in names)

    def read_record(self) -> Any:
        """The record.

        Raises:
          RunError: if it is missing or damaged.
        """
        return self._read_json(self.record_name)

    @contextlib.contextmanager
    def understood(self, record: Any) -> Iterator[None]:
        """Inside it the users' code that a record names is imported, and what it says is made sense of.

        Raises:
          RunError: if that fails.
        """
        lost = []
        try:
            names = list(record.get("import", ()))
            lost = lost_files(names)
            import_all(name for name in names if name not in lost)
            yield
        except (ConfigError, LookupError, TypeError, AttributeError) as error:
            gone = f"--import with {' and '.join(lost)} where it is now, since that is gone"
            remedy = gone if lost else self.anew
            raise RunError(f"{self.record} is of no use here ({error}); try {remedy}") from error

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / name}: {error}; try {self.anew}") from error


class RunDirectory(ResultDirectory):
    """The files of one run.

    `config.json`, `metrics.nc`, `evaluation.nc`, `summary.json`, `checkpoints/`, `figures/`, and `evaluations/` for
    evaluations under other settings.
    """

    kind, command, record_name = "run", "rmft train", "config.json"
    early = ("start.npz",)
    parts = (*early, "checkpoints", "figures", "evaluations", "metrics.nc", "evaluation.nc", "summary.json")

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
          RunError: if the directory holds a run and `overwrite` is false, or holds other files, is in use or cannot be
            written.
        """
        run = cls(path)
        record = {"preset": preset, "import": imported(), "config": config.flat()}
        with run.held(False, overwrite):
            run.begin(record, lambda: write_start(run.start) if write_start else None)
        return run

    def read_config(self) -> tuple[RunConfig, str]:
        """The configuration and the name of the preset it came from.

        Raises:
          RunError: if the file is damaged or does not describe a valid configuration.
        """
        record = self.read_record()
        with self.understood(record):
            return from_dict(record["config"]), str(record["preset"])

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`."""
        write_json(self.path / "summary.json", summary)

    def read_summary(self) -> dict[str, Any]:
        """Reads `summary.json`."""
        return self._read_json("summary.json")

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


def remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or a link and not what it links to; or nothing.

    Raises:
      OSError: if something of it stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lost_files(imports: Sequence[str]) -> list[str]:
    """Users' files that are not where they were; they may have been imported from their new place."""
    return [name for name in imports if name.endswith(".py") and not Path(name).is_file()]


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps every other process and thread that asks out of a folder.

    Raises:
      RunError: if one is in it already; with the message `refusal`.
    """
    try:
        with FileLock(folder / ".lock", timeout=0, is_singleton=True):
            yield
    except Timeout:
        raise RunError(refusal) from None


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
    encoding = {name: {"zlib": True} for name, values in dataset.data_vars.items() if values.ndim > 0}
    # Encoded in memory: on a full disk HDF5 does not fail but crash.
    content = dataset.to_netcdf(None, engine=_ENGINE, encoding=encoding)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_json(path: Path, values: Any) -> None:
    """Writes JSON, whole or not at all; numbers that are none become null."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_without_nan(values), indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose folder is made, that takes its place once the block has written it."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
