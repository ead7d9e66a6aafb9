"""Declares a sweep: a preset, the settings that vary, and those that stay fixed. Evaluates no code.

Any setting can be named without a prefix, and so can every choice, such as `environment` or `selection`; choices are
applied before the others.
"""

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmft_jax.config import ConfigError, Value
from rmft_jax.config.checks import largest_divisor, require
from rmft_jax.config.choices import closest, setting_types
from rmft_jax.config.plugins import import_all
from rmft_jax.config.settings import KINDS, checked, shown
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.problems import Environment

Group = tuple[str, ...]

MAX_CELLS = 100_000
_MAX_SLOTS_PER_CELL = 20
# What a field is called in a file, where that is no name for a variable, or one of several.
_KEYS = {"cells": "cell", "imports": "import"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    index: its place in the sweep, from 0.
    coordinates: the value of every varied field.
    config: the whole configuration, validated.
    """

    index: int
    coordinates: dict[str, Value]
    config: RunConfig

    @property
    def label(self) -> str:
        """Such as `horizon=25,num_arms=2,seed=0`."""
        return label_of(self.coordinates)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Configurations that differ from a preset in a few fields.

    The cells are the product of the axes of `grid` and of the rows of `zip`, in order, and each of `cells` besides; a
    cell that does not name a varied field has the value of preset and `override` there. If nothing varies there is
    one cell. Where `num_iterations` is named and `chunk_size` is not, `chunk_size` becomes the largest divisor of it
    up to that of the preset. Values are checked for their type when a sweep is made, for their sense by `expand`.

    Raises:
      ConfigError: on an unknown field, a wrong type, an empty or repetitive axis, columns of unequal length, or a
        field that both varies along an axis and is fixed.
    """

    preset: str = "quickstart"
    """Named configuration to start from."""
    grid: Mapping[str, Sequence[Value]] = dataclasses.field(default_factory=dict)
    """Axes; every combination of their values is a cell."""
    zip: Mapping[str, Sequence[Value]] = dataclasses.field(default_factory=dict)
    """Columns of equal length, walked together: one dimension."""
    cells: Sequence[Mapping[str, Value]] = ()
    """Further cells, each by the fields in which it differs."""
    override: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """Fields that stay fixed, but in `cells` that name them."""
    baselines: Sequence[str] | None = None
    """Classical agents to play beside. None leaves the choice to the engine."""
    imports: Sequence[str] = ()
    """Files and modules of users' code that bring what is named here; they are imported first."""

    def __post_init__(self) -> None:
        ok = _is_list(self.imports) and all(isinstance(name, str) for name in self.imports)
        require(ok, f"import={shown(self.imports)}", "a list of files and modules", 'import = ["worlds.py"]')
        # Absolute, because the sweep may be read again from elsewhere.
        names = (str(Path(name).resolve()) if name.endswith(".py") else name for name in self.imports)
        object.__setattr__(self, "imports", tuple(names))
        import_all(self.imports)
        require(isinstance(self.preset, str), f"preset={shown(self.preset)}", "a name", "preset='mab'")
        for name in ("grid", "zip"):
            table = _table(getattr(self, name), f"[{name}]", "horizon = [25, 50]")
            axes = {field: _axis(field, values, f"[{name}]") for field, values in table.items()}
            object.__setattr__(self, name, axes)
        object.__setattr__(self, "override", _point(self.override, "[override]"))
        require(_is_list(self.cells), f"cell={shown(self.cells)}", "a list of tables", "[[cell]]")
        cells = tuple(_point(cell, "[[cell]]") for cell in self.cells)
        require(all(cells), "a [[cell]] without a field", "at least one", "horizon = 50 below it, or leaving it out")
        object.__setattr__(self, "cells", cells)
        if self.baselines is not None:
            ok = _is_list(self.baselines) and all(isinstance(name, str) for name in self.baselines)
            require(ok, f"baselines={shown(self.baselines)}", "a list of names", 'baselines = ["thompson"]')
            require(
                len(set(self.baselines)) == len(self.baselines),
                f"baselines={shown(self.baselines)}",
                "each once",
                f"baselines = {shown(list(dict.fromkeys(self.baselines)))}",
            )
            object.__setattr__(self, "baselines", tuple(self.baselines))
        self._check_axes()

    def _check_axes(self) -> None:
        for field, values in self.grid.items():
            repeated = next((value for i, value in enumerate(values) if value in values[:i]), None)
            require(repeated is None, f"{field}={shown(repeated)} twice in [grid]", "different values", "it once")
        lengths = {field: len(values) for field, values in self.zip.items()}
        require(
            len(set(lengths.values())) <= 1,
            f"{' and '.join(f'{field} of length {n}' for field, n in lengths.items())} in [zip]",
            "the same length, since they are walked together",
            "[grid] for every combination",
        )
        tables = {"[grid]": self.grid, "[zip]": self.zip, "[override]": self.override}
        for (first, a), (second, b) in itertools.combinations(tables.items(), 2):
            for field in a:
                require(field not in b, f"{field} in both {first} and {second}", "it in one", f"without it in {second}")

    @classmethod
    def from_toml(cls, path: str | Path) -> "Sweep":
        """A sweep from a file: `preset`, `baselines`, `import`, `[grid]`, `[zip]`, `[override]`, and any `[[cell]]`.

        Files to import are looked for beside this one first.

        Raises:
          ConfigError: if the file cannot be read, is no TOML, or does not describe a sweep.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(f"got {path} ({error.strerror}), need a sweep in a TOML file; try another path") from None
        except UnicodeDecodeError:
            raise ConfigError(f"got {path}, which is no text, need a sweep in a TOML file; try another path") from None
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"got {path} ({error}), need TOML; try https://toml.io for what it looks like") from None
        names = values.get("import")
        if isinstance(names, list):
            beside = [Path(path).parent / str(name) for name in names]
            values["import"] = [str(b) if b.is_file() else name for b, name in zip(beside, names, strict=True)]
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sweep":
        """A sweep from the content of such a file.

        Raises:
          ConfigError: if it does not describe a sweep.
        """
        names = {_KEYS.get(field.name, field.name): field.name for field in dataclasses.fields(cls)}
        require(isinstance(values, Mapping), shown(values), "the tables of a sweep", "[grid]")
        for key in values:
            known = ", ".join(names)
            require(key in names, f"{shown(key)} in the sweep", f"one of {known}", closest(key, names) or "[grid]")
        return cls(**{names[key]: value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that fit into JSON, for `from_dict`."""
        values: dict[str, Any] = {
            "preset": self.preset,
            "grid": {field: list(axis) for field, axis in self.grid.items()},
            "zip": {field: list(axis) for field, axis in self.zip.items()},
            "cell": [dict(cell) for cell in self.cells],
            "override": dict(self.override),
        }
        if self.imports:
            values["import"] = list(self.imports)
        return values if self.baselines is None else values | {"baselines": list(self.baselines)}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The varied fields, in order, grouped by the dimension that they share."""
        named = (*self.grid, *self.zip)
        extra = dict.fromkeys(field for cell in self.cells for field in cell if field not in named)
        zipped = (tuple(self.zip),) if self.zip else ()
        return (*((field,) for field in self.grid), *zipped, *((field,) for field in extra))

    def expand(self, base: RunConfig | None = None) -> list[Cell]:
        """Every cell, with its validated configuration.

        Args:
          base: what to start from. None: the preset.

        Raises:
          ConfigError: if a cell's configuration cannot work (the message starts with the cell's label), if two cells
            are the same, or if there are more than `MAX_CELLS`.
        """
        base = base or get_preset(self.preset)
        rows = next((len(values) for values in self.zip.values()), 1)
        count = math.prod(map(len, self.grid.values())) * rows + len(self.cells)
        require(count <= MAX_CELLS, f"{count} cells", f"at most {MAX_CELLS}", "shorter axes")
        cells: list[Cell] = []
        seen: dict[RunConfig, Cell] = {}
        for index, point in enumerate(self._points()):
            cell = self._cell(index, base, point)
            if (twin := seen.setdefault(cell.config, cell)) is not cell:
                names = cell.label if cell.label == twin.label else f"{twin.label} and {cell.label}"
                raise ConfigError(f"got the same cell twice ({names}), need different ones; try it once")
            cells.append(cell)
        return cells

    def _points(self) -> Iterator[dict[str, Value]]:
        if self.grid or self.zip or not self.cells:
            rows = [dict(zip(self.zip, row, strict=True)) for row in zip(*self.zip.values(), strict=True)] or [{}]
            for values in itertools.product(*self.grid.values()):
                for row in rows:
                    yield dict(zip(self.grid, values, strict=True)) | row
        yield from map(dict, self.cells)

    def _cell(self, index: int, base: RunConfig, point: dict[str, Value]) -> Cell:
        values = {**self.override, **point}
        varied = [field for group in self.groups for field in group]
        try:
            config = _configure(base, values, fit_chunks="chunk_size" not in varied)
            config.validate()
            found = _all_values(base, config) | values
            for field in varied:
                require(field in found, f"no {field}", "a varied field that every cell has", "another [[cell]]")
        except ConfigError as error:
            label = label_of({field: values[field] for field in varied if field in values})
            raise ConfigError(f"{label}: {error}") from None
        return Cell(index, {field: found[field] for field in varied}, config)

    def dimensions(
        self, coordinates: Sequence[Mapping[str, Value]] | None = None
    ) -> dict[str, dict[str, tuple[Value, ...]]]:
        """What the cells span: for every dimension its fields, each with its values along the dimension.

        A grid's axis is a dimension. The columns of `zip` share one, named after the first of them whose values all
        differ, or `zip` if there is none. Values come in the order of the axis, then those of further cells. Cells that
        would leave nearly everything else empty (more than 20 slots a cell) lie along a single dimension `cell`.

        Args:
          coordinates: those of every cell. None: computed by `expand`.
        """
        if coordinates is None:
            coordinates = [cell.coordinates for cell in self.expand()]
        declared: dict[Group, list[tuple[Value, ...]]] = {
            (field,): [(value,) for value in values] for field, values in self.grid.items()
        }
        declared[tuple(self.zip)] = list(zip(*self.zip.values(), strict=True))
        spans = {
            group: _distinct(
                [*declared.get(group, ()), *(tuple(point[field] for field in group) for point in coordinates)]
            )
            for group in self.groups
        }
        if math.prod(map(len, spans.values())) > _MAX_SLOTS_PER_CELL * len(coordinates):
            varied = tuple(field for group in self.groups for field in group)
            return {"cell": _columns(varied, [tuple(point[field] for field in varied) for point in coordinates])}
        dimensions = {}
        for group, rows in spans.items():
            columns = _columns(group, rows)
            # Means are taken over `seed`, so that what varies with it must have another name.
            names = [field for field in columns if field != "seed"] or columns
            distinct = (field for field in names if len(set(columns[field])) == len(columns[field]))
            dimensions[next(distinct, "zip")] = columns
        return dimensions


def label_of(coordinates: Mapping[str, Value]) -> str:
    """Such as `horizon=25,num_arms=2,seed=0`; `preset` where nothing varies."""
    return ",".join(f"{field}={value}" for field, value in coordinates.items()) or "preset"


def parsed_axis(field: str, words: Sequence[str]) -> tuple[Value, ...]:
    """The values of an axis that is written in words.

    Raises:
      ConfigError: for an unknown field, or a word that is no value of it.
    """
    hint, default = _settings()[next(iter(_table({field: None}, "words", "horizon")))]
    read: Mapping[Any, Any] = {bool: lambda word: {"true": True, "false": False}[word.lower()], int: int, float: float}
    try:
        return _axis(field, [read.get(hint, str)(word) for word in words], "words")
    except (ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        shown = ",".join(words)
        raise ConfigError(f"got {field}={shown}, need {KINDS[hint]} each time; try {field}={default}") from None


def _settings() -> dict[str, tuple[Any, Any]]:
    """Every setting that a sweep can name: its type, and a value that works somewhere."""
    return setting_types(RMFTConfig, RunConfig)


def _configure(base: RunConfig, values: Mapping[str, Value], fit_chunks: bool) -> RunConfig:
    iterations = values.get("num_iterations")
    if fit_chunks and isinstance(iterations, int) and iterations > 0:
        values = {"chunk_size": largest_divisor(iterations, base.chunk_size), **values}
    return base.replace(**values)


def _all_values(base: RunConfig, config: RunConfig) -> dict[str, Value]:
    """The value of every setting, as a sweep would name it; of a named environment, its name."""
    register = Environment.register
    named = (name for name in register if register[name].choice == base.rmft.environment)
    return config.flat() | {"environment": next(named, "preset")}


def _table(values: Any, where: str, example: str) -> Mapping[str, Any]:
    require(isinstance(values, Mapping), f"{where} = {shown(values)}", "a table of settings", example)
    known = _settings()
    for field in values:
        if field not in known:
            outside = f"{field} = ... above the first table" if field in ("preset", "baselines", "import") else ""
            suggestion = outside or closest(field, known) or "`rmft train --help`, which lists most"
            raise ConfigError(f"got {shown(field)} in {where}, need the name of a setting; try {suggestion}")
    return values


def _point(values: Any, where: str) -> dict[str, Value]:
    table, known = _table(values, where, "horizon = 50"), _settings()
    return {field: checked(field, value, *known[field], f" in {where}") for field, value in table.items()}


def _axis(field: str, values: Any, where: str) -> tuple[Value, ...]:
    hint, default = _settings()[field]
    shown_as = shown(default if isinstance(values, Sequence | Mapping) and not isinstance(values, str) else values)
    got, suggestion = f"{field}={shown(values)} in {where}", f"{field} = [{shown_as}]"
    require(_is_list(values), got, "a list of values", suggestion)
    require(len(values) > 0, got, "at least one value", suggestion)
    return tuple(checked(field, value, hint, default, f" in {where}") for value in values)


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def _distinct(rows: Iterable[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    return list(dict.fromkeys(rows))


def _columns(fields: Group, rows: Sequence[tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    return dict(zip(fields, zip(*rows, strict=True), strict=True))
