"""Puts the datasets of cells side by side, along the dimensions of their sweep."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr

from rmft_jax.sweeps.spec import Value

_DESCRIPTIONS = ("long_name", "units")
# What a dataset of cells under different settings is labelled with.
_JOINED = ("regret", "regret_form")
_NO_COORDINATE = b"This is a netCDF dimension but not a netCDF variable"


class Variable(NamedTuple):
    """One array of a cell: the names of its axes, its values, and what describes it."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, str]


class CellContent(NamedTuple):
    """A cell's file, in memory: variables, coordinates along its own dimensions, and attributes."""

    variables: dict[str, Variable]
    coordinates: dict[str, np.ndarray]
    attrs: dict[str, Any]


def content_of(dataset: xr.Dataset) -> CellContent:
    """What the file of a cell with this dataset would hold."""
    variables = {
        str(name): Variable(tuple(map(str, array.dims)), array.to_numpy(), {}) for name, array in dataset.items()
    }
    coordinates = {str(dim): dataset[dim].to_numpy() for dim in dataset.dims}
    return CellContent(variables, coordinates, dict(dataset.attrs))


def read_cell(stored: bytes) -> CellContent:
    """The content of a file of `files.write_dataset`, read an order of magnitude faster than xarray does.

    A damaged one raises whatever HDF5 and NumPy make of it.
    """
    variables, coordinates = {}, {}
    with h5py.File(io.BytesIO(stored), "r") as file:
        attrs = {name: _attribute(value) for name, value in file.attrs.items() if name != "_NCProperties"}
        for name, item in file.items():
            values = np.asarray(item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()])
            if item.is_scale:
                counted = item.attrs["NAME"].startswith(_NO_COORDINATE)
                coordinates[name] = np.arange(len(values)) if counted else values
            else:
                dims = tuple(Path(axis[0].name).name for axis in item.dims)
                described = {key: str(item.attrs[key]) for key in _DESCRIPTIONS if key in item.attrs}
                variables[name] = Variable(dims, values, described)
    return CellContent(variables, coordinates, attrs)


def _attribute(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return ""
    # NetCDF has no scalars here, only arrays of one.
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def assemble(
    dimensions: Mapping[str, Mapping[str, Sequence[Value]]],
    cells: Sequence[Mapping[str, Value]],
    contents: Mapping[int, CellContent],
    status: Mapping[int, str],
) -> xr.Dataset:
    """One dataset over the sweep's dimensions, and after them over those of the cells.

    Args:
      dimensions: of the sweep, as `Sweep.dimensions` has them.
      cells: coordinates of every cell.
      contents: of the cells that finished, by index.
      status: of every cell that is not missing, by index.

    Returns:
      The variables of all cells, with NaN (or an empty string) wherever a cell has no value, and `status`. Whole
      numbers become float64. What is in no cell is `absent`. Attributes are those on which all cells agree,
      and the kinds of regret of all.
    """
    shape = tuple(len(next(iter(columns.values()))) for columns in dimensions.values())
    places = _places(dimensions, cells)
    inner = _inner_coordinates(contents.values())
    positions = {index: _positions(content, inner) for index, content in contents.items()}

    data: dict[str, Any] = {}
    for name in dict.fromkeys(name for content in contents.values() for name in content.variables):
        having = {index: content.variables[name] for index, content in contents.items() if name in content.variables}
        first = next(iter(having.values()))
        values = _empty((*shape, *(len(inner[dim]) for dim in first.dims)), having.values())
        for index, variable in having.items():
            target = values[(*places[index], ...)]
            target[np.ix_(*(positions[index][dim] for dim in variable.dims))] = variable.values
        data[name] = ((*dimensions, *first.dims), values, first.attrs)
    outcome = np.full(shape, "absent", "<U8")
    for index, place in enumerate(places):
        outcome[place] = status.get(index, "missing")
    data["status"] = (tuple(dimensions), outcome, {"long_name": "finished, failed, missing or absent"})
    return xr.Dataset(data, coords=_coordinates(dimensions) | inner, attrs=_common_attributes(contents.values()))


def _places(
    dimensions: Mapping[str, Mapping[str, Sequence[Value]]], cells: Sequence[Mapping[str, Value]]
) -> list[tuple[int, ...]]:
    lines = [
        (tuple(columns), {row: place for place, row in enumerate(zip(*columns.values(), strict=True))})
        for columns in dimensions.values()
    ]
    return [tuple(places[tuple(cell[field] for field in fields)] for fields, places in lines) for cell in cells]


def _coordinates(dimensions: Mapping[str, Mapping[str, Sequence[Value]]]) -> dict[str, Any]:
    return {
        field: (dim, np.asarray(values)) for dim, columns in dimensions.items() for field, values in columns.items()
    }


def _inner_coordinates(contents: Iterable[CellContent]) -> dict[str, np.ndarray]:
    """All values along every dimension of the cells: numbers in their order, names in that of appearance."""
    found: dict[str, dict[Any, None]] = {}
    for content in contents:
        for dim, values in content.coordinates.items():
            found.setdefault(dim, {}).update(dict.fromkeys(values.tolist()))
    names = {dim for dim, values in found.items() if any(isinstance(value, str) for value in values)}
    return {dim: np.asarray(list(values) if dim in names else sorted(values)) for dim, values in found.items()}


def _positions(content: CellContent, inner: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    places = {dim: {value: i for i, value in enumerate(inner[dim].tolist())} for dim in content.coordinates}
    return {dim: [places[dim][value] for value in values.tolist()] for dim, values in content.coordinates.items()}


def _empty(shape: tuple[int, ...], variables: Iterable[Variable]) -> np.ndarray:
    dtype = np.result_type(*(variable.values.dtype for variable in variables))
    if dtype.kind in "OU":
        return np.full(shape, "", object)
    return np.full(shape, np.nan, dtype if dtype.kind == "f" else np.float64)


def _common_attributes(contents: Iterable[CellContent]) -> dict[str, Any]:
    tables = [content.attrs for content in contents]
    common = {}
    for name, first in (tables[0] if tables else {}).items():
        if all(name in table and np.array_equal(table[name], first) for table in tables):
            common[name] = first
        elif name in _JOINED:
            common[name] = " or ".join(dict.fromkeys(str(table.get(name)) for table in tables))
    return common
