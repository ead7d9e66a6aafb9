"""Answers that were paid for, kept on disk: a piece of work that was killed goes on and pays for nothing twice."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from rmft_jax.running.files import RunError, not_written, read_bytes


class AnswerKey(NamedTuple):
    """What an answer is an answer to.

    dialogue: its name.
    round: counted from 0.
    purpose: what it was asked for, such as "iteration 2".
    prompt: digest of everything that was sent.
    """

    dialogue: str
    round: int
    purpose: str
    prompt: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said.

    text: the words.
    prompt_tokens, completion_tokens: what was paid for, as the server says; else upper bounds.
    model: that answered, as the server says.
    finish: why it ended.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    model: str = ""
    finish: str = ""


@dataclasses.dataclass(frozen=True)
class Totals:
    """What was paid for.

    requests: answers that are kept.
    lost: requests that may have been paid for, but whose answers never arrived.
    prompt_tokens, completion_tokens: of the answers.
    lost_tokens: of the lost ones, at most.
    """

    requests: int = 0
    lost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lost_tokens: int = 0

    @property
    def all_requests(self) -> int:
        """Requests that count against a budget."""
        return self.requests + self.lost

    @property
    def all_tokens(self) -> int:
        """Tokens that count against a budget."""
        return self.prompt_tokens + self.completion_tokens + self.lost_tokens


class Ledger:
    """A folder with the answers, one line of JSON each, that are only ever added to; a context manager.

    Every line is on the disk before `add` returns. A last line that is torn, by a kill or a power cut, is dropped.

    Args:
      folder: made where it is not there.

    Raises:
      RunError: on entry, if another has it open, or if it is damaged or cannot be written.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.totals = Totals()
        self._answers: dict[AnswerKey, Answer] = {}
        self._file: int | None = None

    @property
    def path(self) -> Path:
        """The file of the answers."""
        return self.folder / "answers.jsonl"

    def __enter__(self) -> "Ledger":
        # A lock of its own: the one of `files.locked` lets the thread in that has it.
        self._lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise RunError(f"{self.folder} is in use by another process; try another folder, or wait") from None
        except OSError as error:
            raise not_written(self.folder, error) from error
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: AnswerKey) -> Answer | None:
        """The answer, if it is kept."""
        return self._answers.get(key)

    def add(self, key: AnswerKey, answer: Answer) -> None:
        """Keeps an answer, on disk when this returns.

        Raises:
          RunError: if it cannot be written.
        """
        self._write({**key._asdict(), **dataclasses.asdict(answer)})
        self._take(key, answer)

    def lose(self, key: AnswerKey, reason: str, tokens: int) -> None:
        """Notes a request that may have been paid for, but whose answer never arrived.

        Raises:
          RunError: if it cannot be written.
        """
        self._write({**key._asdict(), "lost": reason, "lost_tokens": tokens})
        self._miss(tokens)

    def _take(self, key: AnswerKey, answer: Answer) -> None:
        self._answers[key] = answer
        self.totals = dataclasses.replace(
            self.totals,
            requests=self.totals.requests + 1,
            prompt_tokens=self.totals.prompt_tokens + answer.prompt_tokens,
            completion_tokens=self.totals.completion_tokens + answer.completion_tokens,
        )

    def _miss(self, tokens: int) -> None:
        lost, lost_tokens = self.totals.lost + 1, self.totals.lost_tokens + tokens
        self.totals = dataclasses.replace(self.totals, lost=lost, lost_tokens=lost_tokens)

    def _open(self) -> None:
        """Reads what is there, and makes ready to add to it."""
        self.totals, self._answers = Totals(), {}
        content = read_bytes(self.path) if self.path.exists() else b""
        lines = content.split(b"\n")
        whole = 0
        for number, line in enumerate(lines[:-1], 1):
            try:
                self._read(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # Nothing stands behind it: it was being written.
                if number == len(lines) - 1 and not lines[-1]:
                    break
                raise RunError(f"{self.path} is damaged in line {number}; try to remove that line") from error
            whole += len(line) + 1
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
            _sync_folder(self.folder)
        except OSError as error:
            raise not_written(self.path, error) from error
        self._length = whole

    def _read(self, line: dict[str, Any]) -> None:
        key = AnswerKey(*(line.pop(name) for name in AnswerKey._fields))
        if "lost" in line:
            self._miss(int(line["lost_tokens"]))
        else:
            self._take(key, Answer(**line))

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            raise RunError(f"{self.folder} is closed; try it inside its with statement")
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            _write_all(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            # Half a line in the middle would be damage; at the end it is dropped.
            os.ftruncate(self._file, self._length)
            raise not_written(self.path, error) from error
        self._length += len(data)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    """Puts the name of a new file on the disk too; where folders cannot be opened, the system does it itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
