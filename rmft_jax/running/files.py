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
from collections.abc import Iterator
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
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps every other process and thread that asks out of a folder.

    Raises:
      RunError: if one is in it already, with the message `refusal`; or if there can be no lock.
    """
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        held = lock.acquire()
    except Timeout:
        raise RunError(refusal) from None
    except OSError as error:
        advice = f"try again when that is mended, or {either('--out', 'a directory')} on another file system"
        raise RunError(f"cannot lock {folder}: {error.strerror}; {advice}") from error
    with held:
        yield


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
      RunError: if it cannot be read, for a reason that lies outside of it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; try again when it can be read") from error


def not_written(path: Path, error: OSError) -> RunError:
    """The error of a place that cannot be written."""
    return RunError(f"cannot write to {path}: {error.strerror}; try another {either('--out', 'directory')}")


@contextlib.contextmanager
def writable(*folders: Path) -> Iterator[None]:
    """Makes folders and tries whether a file can be written there, before the work in the block and not after it.

    Where the block refuses the work, with a `ConfigError`, what was made is removed.

    Raises:
      RunError: if one cannot be made or written.
    """
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
    # A name of its own, for others may be writing the same file.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
