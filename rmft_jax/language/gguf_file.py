"""GGUF files: what stands in their header, and their tensors as float32.

The header is read here and not by the package `gguf`, which takes a truncated file for a whole one, and may read a
damaged one for ever. The package unpacks the quantized numbers.
"""

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rmft_jax.config.checks import ConfigError, require
from rmft_jax.language.packages import first_line, optional

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_AXES = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The number of a type in the file, and its letter in `struct` and in NumPy."""


class _Damage(Exception):  # noqa: N818 - it is caught in this file
    """What is wrong with a file, in words."""


def _expect(ok: bool, what: str) -> None:
    if not ok:
        raise _Damage(what)


@dataclasses.dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: Any
    """How its numbers are packed, a `gguf.GGMLQuantizationType`."""
    row_bytes: int
    offset: int


class _Cursor:
    """Reads a header from front to back, and never beyond the end of the file."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> np.ndarray:
        _expect(size <= len(self._data) - self.position, "it ends within its header")
        self.position += size
        return self._data[self.position - size : self.position]

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)).tobytes())[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).tobytes().decode()
        except UnicodeDecodeError as error:
            raise _Damage("a text in its header is not UTF-8") from error

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _ARRAY:
            return self._array()
        return self._one(kind)

    def _one(self, kind: int) -> Any:
        _expect(kind == _STRING or kind in _SCALARS, f"a value of its header has type {kind}")
        return self.text() if kind == _STRING else self.number(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, length = self.number("I"), self.number("Q")
        if kind != _STRING:
            _expect(kind in _SCALARS, f"a list of its header has type {kind}")
            dtype = np.dtype("<" + _SCALARS[kind])
            return self.take(length * dtype.itemsize).view(dtype).tolist()
        # A text takes at least the 8 bytes of its length: no loop for ever where the number of them is damaged.
        _expect(8 * length <= len(self._data) - self.position, "it ends within its header")
        return [self.text() for _ in range(length)]


class GGUFFile:
    """A GGUF file: its metadata, the shapes of its tensors, and the tensors themselves when they are asked for."""

    metadata: dict[str, Any]

    def __init__(self, path: Path) -> None:
        """Reads the header, and checks that every tensor lies within the file.

        Raises:
          ConfigError: if the file cannot be read, is no GGUF file, is damaged or shorter than its header says, or if
            the package `gguf` is missing.
        """
        self._gguf = optional("gguf", str(path))
        optional("gguf.quants", str(path))
        self.path = path
        try:
            self._data = np.memmap(path, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        except OSError as error:
            message = f"got {path}, need a file that can be read ({first_line(error)}); try another path"
            raise ConfigError(message) from error
        try:
            self.metadata, self._tensors = self._read_header()
        except _Damage as error:
            raise self._damaged(str(error)) from error
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def _damaged(self, what: str) -> ConfigError:
        return ConfigError(f"got the damaged file {self.path} ({what}), need a whole GGUF file; try to get it again")

    def _read_header(self) -> tuple[dict[str, Any], dict[str, _Tensor]]:
        cursor = _Cursor(self._data)
        _expect(len(self._data) >= 4 and cursor.take(4).tobytes() == _MAGIC, "it does not begin with GGUF")
        version = cursor.number("I")
        need = " or ".join(map(str, _VERSIONS))
        require(
            version in _VERSIONS, f"{self.path} of GGUF version {version}", f"version {need}", "to convert it again"
        )
        num_tensors, num_values = cursor.number("Q"), cursor.number("Q")
        metadata = {}
        for _ in range(num_values):
            key = cursor.text()
            _expect(key not in metadata, f"{key!r} stands twice in its header")
            metadata[key] = cursor.value()
        tensors = {}
        for _ in range(num_tensors):
            name = cursor.text()
            _expect(name not in tensors, f"tensor {name!r} stands twice in its header")
            tensors[name] = self._read_tensor(cursor, name)
        alignment = metadata.get("general.alignment", 32)
        _expect(isinstance(alignment, int) and alignment > 0, f"its alignment is {alignment!r}")
        start = -(-cursor.position // alignment) * alignment
        for name, tensor in tensors.items():
            end = start + tensor.offset + math.prod(tensor.shape[:-1]) * tensor.row_bytes
            _expect(end <= len(self._data), f"tensor {name!r} ends at byte {end} of {len(self._data)}")
        placed = {name: dataclasses.replace(t, offset=start + t.offset) for name, t in tensors.items()}
        return metadata, placed

    def _read_tensor(self, cursor: _Cursor, name: str) -> _Tensor:
        axes = cursor.number("I")
        _expect(1 <= axes <= _MAX_AXES, f"tensor {name!r} has {axes} axes")
        shape = tuple(cursor.number("Q") for _ in range(axes))[::-1]
        number, offset = cursor.number("I"), cursor.number("Q")
        _expect(all(shape), f"tensor {name!r} has shape {shape}")
        try:
            kind = self._gguf.GGMLQuantizationType(number)
        except ValueError as error:
            raise _Damage(f"tensor {name!r} has type {number}") from error
        block, block_bytes = self._gguf.GGML_QUANT_SIZES[kind]
        _expect(shape[-1] % block == 0, f"tensor {name!r} has rows of {shape[-1]} numbers in blocks of {block}")
        return _Tensor(shape, kind, shape[-1] // block * block_bytes, offset)

    def read(self, name: str) -> Float[np.ndarray, "..."]:
        """A tensor as float32, rows first: a matrix is [outputs, inputs]. It may share memory with the file.

        Raises:
          ConfigError: if the package `gguf` cannot unpack its type.
        """
        tensor = self._tensors[name]
        rows = math.prod(tensor.shape[:-1])
        packed = np.asarray(self._data[tensor.offset : tensor.offset + rows * tensor.row_bytes])
        try:
            unpacked = self._gguf.quants.dequantize(packed.reshape(rows, tensor.row_bytes), tensor.kind)
        except NotImplementedError as error:
            got = f"{self.path} with {name} of type {tensor.kind.name}"
            message = f"got {got}, need a type that the package gguf unpacks; try a file in Q8_0, Q4_1 or F16"
            raise ConfigError(message) from error
        return unpacked.reshape(tensor.shape)
