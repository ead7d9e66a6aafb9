"""Directories of results: what is where in them, and whose they are."""

import contextlib
import dataclasses
import json
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import xarray as xr

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either
from rmft_jax.config.plugins import import_all, imported
from rmft_jax.method.settings import RunConfig, from_dict
from rmft_jax.running.files import (
    TEMPORARY,
    RunError,
    locked,
    not_written,
    read_bytes,
    read_dataset,
    remove,
    replaced,
    write_dataset,
    write_json,
)
from rmft_jax.running.weights import founded, require_same_foundation

D = TypeVar("D", bound="ResultDirectory")

_SHARED, _HOUR = ("figures", "evaluations"), 3600.0


@dataclasses.dataclass(frozen=True)
class ResultDirectory:
    """A directory of results, which has a record of what they are: written first, removed last.

    path: where it is.
    kind: what they are results of; command: what makes them.
    record_name: of the record; parts: names of all else.
    early: names of what is there before the record, and left by a beginning that was killed.
    """

    path: Path  # A `str` is made one.
    kind: ClassVar[str]
    command: ClassVar[str]
    record_name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    early: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    def open(cls: type[D], path: str | Path) -> D:
        """An existing directory.

        Raises:
          RunError: if there is none at `path`.
        """
        found = cls(Path(path))
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
        return f"`{self.command} --overwrite --out {shlex.quote(str(self.path))}`"

    @property
    def further(self) -> str:
        """The command that goes on with it."""
        return f"`{self.command} --resume --out {shlex.quote(str(self.path))}`"

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
            raise not_written(self.path, error) from error
        with self.lock():
            self._require_free(resume or overwrite)
            self._remove_halves()
            yield resume and self.exists()

    def begin(self, content: Any, prepare: Callable[[], None] = lambda: None) -> None:
        """Clears the directory, which is `held`, and writes the record; where that fails, all is as it was.

        Args:
          content: of the record, fit for JSON.
          prepare: writes what must be there before the record is.

        Raises:
          RunError: if something cannot be removed or written.
        """
        try:
            names = (*self.parts, self.record_name) if self.exists() else self.early
            with replaced([self.path / name for name in names], self.path):
                prepare()
                write_json(self.record, content)
        except OSError as error:
            raise not_written(self.path, error) from error

    def _remove_halves(self) -> None:
        """Removes what processes left that were killed as they wrote."""
        found = [("", path) for path in self.path.glob(TEMPORARY)]
        for name in self.parts:
            found += [(name, path) for path in (self.path / name).rglob(TEMPORARY) if name != "wandb"]
        for name, path in found:
            with contextlib.suppress(OSError):
                # Into some folders others write without the lock.
                if name not in _SHARED or time.time() - path.lstat().st_mtime > _HOUR:
                    remove(path)

    def _require_free(self, known: bool) -> None:
        """Refuses a directory of something else, and one that has results unless that is known."""
        vacant = not self.path.exists() or self._is_vacant()  # First: who begins meanwhile is seen as a run.
        if self.exists():
            if not known:
                ways = either("--resume", "resume=True"), either("--overwrite", "overwrite=True")
                remedy = f"try {ways[0]} to continue it or {ways[1]} to replace it"
                raise RunError(f"{self.path} already holds a {self.kind}; {remedy}")
        elif not vacant:
            raise RunError(
                f"{self.path} exists and is not a {self.kind} directory; try another {either('--out', 'one')}"
            )

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
            try:
                import_all(name for name in names if name not in lost)
            except ConfigError as error:
                told = str(error).split("; try")[0]
                needed = "its users' code, which cannot be imported here"
                hint = "try to mend or install that code, and to leave out an import of the same from another place"
                raise RunError(f"{self.record} needs {needed} ({told}); {hint}") from error
            yield
        except (ConfigError, LookupError, TypeError, AttributeError) as error:
            gone = f"{either('--import', 'import_code')} with {' and '.join(lost)} where it is now, since that is gone"
            remedy = gone if lost else self.anew
            raise RunError(f"{self.record} is of no use here ({error}); try {remedy}") from error

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(read_bytes(path))
        except ValueError as error:
            raise RunError(f"cannot read {path}: {error}; try {self.anew}") from error


class RunDirectory(ResultDirectory):
    """The files of one run.

    `config.json`, `metrics.nc`, `metrics.jsonl`, `evaluation.nc`, `summary.json`, `checkpoints/`, `figures/`,
    `evaluations/` for evaluations under other settings, and where they were asked for `tensorboard/` and `wandb/`.
    """

    kind, command, record_name = "run", "rmft train", "config.json"
    early = ("start.npz",)
    parts = (
        *early, "checkpoints", "figures", "evaluations", "metrics.nc", "metrics.jsonl", "evaluation.nc", "summary.json",
        "tensorboard", "wandb",
    )  # fmt: skip

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
        path: str | Path,
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
        run = cls(Path(path))
        record = {"preset": preset, "import": imported(), "id": uuid.uuid4().hex, "config": config.flat()}
        record |= founded(config)
        with run.held(False, overwrite):
            run.begin(record, lambda: write_start(run.start) if write_start else None)
        return run

    def read_config(self) -> tuple[RunConfig, str]:
        """The configuration and the name of the preset it came from.

        Raises:
          RunError: if the file is damaged or does not describe a valid configuration, or the policy is built upon other
            files than it was.
        """
        record = self.read_record()
        with self.understood(record):
            config = from_dict(record["config"])
            require_same_foundation(record, config)
            return config, str(record["preset"])

    def identity(self) -> dict[str, Any]:
        """Whose a checkpoint of this run is: its settings, seed among them, and its name, which no other run has."""
        record = self.read_record()
        return {"config": record["config"], "id": record.get("id")}

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
        path, remedy = self.path / name, self.further
        if not path.is_file():
            raise RunError(f"{path} does not exist yet; try {remedy}")
        return read_dataset(path, remedy)


def lost_files(imports: Sequence[str]) -> list[str]:
    """Users' files that are not where they were; they may have been imported from their new place."""
    return [name for name in imports if name.endswith(".py") and not Path(name).is_file()]
