"""How files of results are written, read, locked and removed.

A file is written under a temporary name and renamed, so that it is whole or absent whatever happens meanwhile.
"""

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from filelock import FileLock, Timeout

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either

TEMPORARY = ".*.[0-9]*-[0-9]*.tmp*"
"""Names of files that are being written."""
_ENGINE = "h5netcdf"


class RunError(Exception):
    """A run directory that cannot be used as asked. The message says what was found and what to try."""


class UnreadableError(RunError):
    """A file that cannot be read for a reason that lies outside of it: it may well be whole, and is never replaced."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> "UnreadableError":
        """The error of a file or folder."""
        return cls(f"cannot read {path}: {error.strerror}; try again when it can be read")


@contextlib.contextmanager
def unless_damaged() -> Iterator[None]:
    """Ends its block where a file is missing or damaged, and can be made again.

    Raises:
      UnreadableError: if one is there and cannot be read.
    """
    try:
        yield
    except UnreadableError:
        raise
    except RunError:
        return


def remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or a link and not what it links to; or nothing.

    Raises:
      OSError: if something of it stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced(paths: Sequence[Path], folder: Path) -> Iterator[None]:
    """Takes files and folders away, for good if the block ends well; if not, they stand there as before.

    Args:
      paths: in `folder`, each there or not; moved in this order.
      folder: gets a hidden folder for them. What of it cannot be removed afterwards belongs to nothing.

    Raises:
      OSError: if one cannot be moved.
    """
    aside, moved = _temporary(folder / "replaced"), list[Path]()
    try:
        for path in paths:
            if path.exists() or path.is_symlink():
                aside.mkdir(exist_ok=True)
                path.rename(aside / path.name)
                moved.append(path)
        try:
            yield
        except BaseException:
            for path in paths:
                remove(path)  # What the block has made of it.
            raise
    except BaseException:
        for path in reversed(moved):
            (aside / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps every other process and thread that asks out of a folder.

    Raises:
      RunError: if one is in it already, with the message `refusal`.
      UnreadableError: if there can be no lock.
    """
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        held = lock.acquire()
    except Timeout:
        raise RunError(refusal) from None
    except OSError as error:
        advice = f"try again when that is mended, or {either('--out', 'a directory')} on another file system"
        raise UnreadableError(f"cannot lock {folder}: {error.strerror}; {advice}") from error
    with held:
        yield


def read_if_there(path: Path) -> bytes | None:
    """What a file holds; None if there is none.

    Raises:
      UnreadableError: if it cannot be read.
    """
    with unless_damaged():
        return read_bytes(path)
    return None


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
      RunError: if there is none.
      UnreadableError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; try again when it is there") from error
    except OSError as error:
        raise UnreadableError.of(path, error) from error


def not_written(path: Path, error: OSError) -> RunError:
    """The error of a place that cannot be written."""
    return RunError(f"cannot write to {path}: {error.strerror}; try another {either('--out', 'directory')}")


def as_text(path: str | Path) -> str:
    """A path as Unicode, whatever the file system and the terminal take its bytes for."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def writable(*folders: Path, files: Sequence[Path] = ()) -> Iterator[None]:
    """Makes folders and tries whether a file can be written there, before the work in the block and not after it.

    Where the block refuses the work, with a `ConfigError`, what was made is removed.

    Args:
      folders: some.
      files: which will be written; their folders are made too.

    Raises:
      RunError: if one cannot be made or written.
    """
    for file in files:
        if file.is_dir():
            raise RunError(f"cannot write to {file}: it is a folder; try another name")
    folders = (*folders, *(file.parent for file in files))
    new = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise not_written(folder, error) from error
    try:
        yield
    except ConfigError:
        for path in sorted(new, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def read_dataset(path: Path, remedy: str) -> xr.Dataset:
    """Reads a netCDF file into memory.

    Args:
      path: the file.
      remedy: what to try where it is damaged.

    Raises:
      RunError: if it is damaged, or cannot be read.
    """
    # Not by HDF5, which takes a file that is open elsewhere for a damaged one.
    content = read_bytes(path)
    try:
        with xr.open_dataset(io.BytesIO(content), engine=_ENGINE, decode_times=False) as dataset:
            return dataset.load()
    except Exception as error:  # Of many kinds, depending on where the damage is.
        raise RunError(f"{path} is damaged ({error or type(error).__name__}); try {remedy}") from error


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
        temporary.write_text(json.dumps(without_nan(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose folder is made, that takes its place once the block has written it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name of one's own, for others may be writing the same file."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix}")


def without_nan(values: Any) -> Any:
    """JSON knows no NaN: numbers that are none become null."""
    match values:
        case dict():
            return {key: without_nan(value) for key, value in values.items()}
        case list() | tuple():
            return [without_nan(value) for value in values]
        case float() if not math.isfinite(values):
            return None
    return values
