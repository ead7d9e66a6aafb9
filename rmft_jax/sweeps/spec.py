"""Declares a sweep: a preset, the fields that vary, and those that stay fixed. Imports no JAX, evaluates no code.

Any field of the configuration can be named without a prefix, and so can `environment` (a named environment) and
`policy` (a family of policies, with its default settings); these two are applied before the others.
"""

import dataclasses
import difflib
import functools
import itertools
import math
import numbers
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmft_jax.config import CONFIG_CLASSES, POLICIES, ConfigError, RunConfig
from rmft_jax.config.checks import largest_divisor, require
from rmft_jax.presets import ENVIRONMENTS, get_environment, get_preset

Value = int | float | str | bool
Group = tuple[str, ...]

MAX_CELLS = 100_000
_MAX_SLOTS_PER_CELL = 20
_NAMED: dict[str, Mapping[str, Any]] = {"environment": ENVIRONMENTS, "policy": POLICIES}
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a name"}


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

    def __post_init__(self) -> None:
        require(isinstance(self.preset, str), f"preset={_shown(self.preset)}", "a name", "preset='mab'")
        for name in ("grid", "zip"):
            table = _table(getattr(self, name), f"[{name}]", "horizon = [25, 50]")
            axes = {field: _axis(field, values, f"[{name}]") for field, values in table.items()}
            object.__setattr__(self, name, axes)
        object.__setattr__(self, "override", _point(self.override, "[override]"))
        require(_is_list(self.cells), f"cell={_shown(self.cells)}", "a list of tables", "[[cell]]")
        cells = tuple(_point(cell, "[[cell]]") for cell in self.cells)
        require(all(cells), "a [[cell]] without a field", "at least one", "horizon = 50 below it, or leaving it out")
        object.__setattr__(self, "cells", cells)
        if self.baselines is not None:
            ok = _is_list(self.baselines) and all(isinstance(name, str) for name in self.baselines)
            require(ok, f"baselines={_shown(self.baselines)}", "a list of names", 'baselines = ["thompson"]')
            require(
                len(set(self.baselines)) == len(self.baselines),
                f"baselines={_shown(self.baselines)}",
                "each once",
                f"baselines = {_shown(list(dict.fromkeys(self.baselines)))}",
            )
            object.__setattr__(self, "baselines", tuple(self.baselines))
        self._check_axes()

    def _check_axes(self) -> None:
        for field, values in self.grid.items():
            repeated = next((value for i, value in enumerate(values) if value in values[:i]), None)
            require(repeated is None, f"{field}={_shown(repeated)} twice in [grid]", "different values", "it once")
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
        """A sweep from a file: `preset`, `baselines`, `[grid]`, `[zip]`, `[override]`, and any number of `[[cell]]`.

        Raises:
          ConfigError: if the file cannot be read, is no TOML, or does not describe a sweep.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"got {path} ({error.strerror}), need a sweep in a TOML file; try another path") from None
        except UnicodeDecodeError:
            raise ConfigError(f"got {path}, which is no text, need a sweep in a TOML file; try another path") from None
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"got {path} ({error}), need TOML; try https://toml.io for what it looks like") from None
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sweep":
        """A sweep from the content of such a file.

        Raises:
          ConfigError: if it does not describe a sweep.
        """
        names = {"cell" if field.name == "cells" else field.name: field.name for field in dataclasses.fields(cls)}
        require(isinstance(values, Mapping), _shown(values), "the tables of a sweep", "[grid]")
        for key in values:
            known = ", ".join(names)
            require(key in names, f"{_shown(key)} in the sweep", f"one of {known}", _closest(key, names) or "[grid]")
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
        differ, or `zip` if there is none. Cells that would leave nearly everything else empty (more than 20 slots a
        cell) lie along a single dimension `cell`.

        Args:
          coordinates: those of every cell. None: computed by `expand`.
        """
        if coordinates is None:
            coordinates = [cell.coordinates for cell in self.expand()]
        spans = {
            group: _distinct(tuple(point[field] for field in group) for point in coordinates) for group in self.groups
        }
        if math.prod(map(len, spans.values())) > _MAX_SLOTS_PER_CELL * len(coordinates):
            varied = tuple(field for group in self.groups for field in group)
            return {"cell": _columns(varied, [tuple(point[field] for field in varied) for point in coordinates])}
        dimensions = {}
        for group, rows in spans.items():
            columns = _columns(group, rows)
            distinct = (field for field, values in columns.items() if len(set(values)) == len(values))
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
    kind, default = sweep_fields()[next(iter(_table({field: None}, "words", "horizon")))]
    read: Mapping[type, Any] = {bool: lambda word: {"true": True, "false": False}[word.lower()]}
    try:
        return _axis(field, [read.get(kind, kind)(word) for word in words], "words")
    except (ValueError, KeyError):
        shown = ",".join(words)
        raise ConfigError(f"got {field}={shown}, need {_KINDS[kind]} each time; try {field}={default}") from None


@functools.cache
def sweep_fields() -> dict[str, tuple[type, Any]]:
    """Every field that a sweep can name: its type (int, float, str or bool), and a value that works somewhere."""
    fields: dict[str, tuple[type, Any]] = {name: (str, next(iter(known))) for name, known in _NAMED.items()}
    for kind in CONFIG_CLASSES:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            hint = str if typing.get_origin(hints[field.name]) is typing.Literal else hints[field.name]
            if hint in _KINDS:
                fields.setdefault(field.name, (hint, field.default))
    return fields


def _configure(base: RunConfig, values: Mapping[str, Value], fit_chunks: bool) -> RunConfig:
    environment, policy = base.rmft.environment, base.rmft.policy
    if "environment" in values:
        environment = get_environment(str(values["environment"]))
    if "policy" in values:
        name = str(values["policy"])
        require(name in POLICIES, f"policy={name!r}", f"one of {', '.join(POLICIES)}", "policy='transformer'")
        policy = POLICIES[name]()
    plain = {field: value for field, value in values.items() if field not in _NAMED}
    iterations = plain.get("num_iterations")
    if fit_chunks and isinstance(iterations, int) and iterations > 0:
        plain.setdefault("chunk_size", largest_divisor(iterations, base.chunk_size))
    present = {field.name for part in (environment, policy, base.rmft, base) for field in dataclasses.fields(part)}
    for field in plain:
        owners = [kind.__name__ for kind in CONFIG_CLASSES if field in kind.__dataclass_fields__]
        require(
            field in present,
            f"{field} with {type(environment).__name__} and {type(policy).__name__}",
            f"{' or '.join(owners)}, which has it",
            "another environment or policy",
        )
    parts = {"environment": _replaced(environment, plain), "policy": _replaced(policy, plain)}
    return _replaced(base, {**plain, "rmft": _replaced(base.rmft, {**plain, **parts})})


def _replaced(part: Any, values: Mapping[str, Any]) -> Any:
    return dataclasses.replace(part, **{name: values[name] for name in part.__dataclass_fields__ if name in values})


def _all_values(base: RunConfig, config: RunConfig) -> dict[str, Value]:
    """The value of every field, of the environment and of the policy, as a sweep would name them."""
    kinds = {kind: name for name, kind in POLICIES.items()}
    named = (name for name, entry in ENVIRONMENTS.items() if entry.config == base.rmft.environment)
    found: dict[str, Value] = {"environment": next(named, "preset"), "policy": kinds[type(config.rmft.policy)]}
    for part in (config, config.rmft, config.rmft.environment, config.rmft.policy):
        names = part.__dataclass_fields__.keys() & sweep_fields().keys() - _NAMED.keys()
        found |= {name: getattr(part, name) for name in names}
    return found


def _table(values: Any, where: str, example: str) -> Mapping[str, Any]:
    require(isinstance(values, Mapping), f"{where} = {_shown(values)}", "a table of fields", example)
    fields = sweep_fields()
    for field in values:
        if field not in fields:
            outside = f"{field} = ... above the first table" if field in ("preset", "baselines") else ""
            suggestion = outside or _closest(field, fields) or "`rmft train --help`, which lists most"
            raise ConfigError(f"got {_shown(field)} in {where}, need a field of the configuration; try {suggestion}")
    return values


def _point(values: Any, where: str) -> dict[str, Value]:
    table = _table(values, where, "horizon = 50")
    return {field: _value(field, value, where) for field, value in table.items()}


def _axis(field: str, values: Any, where: str) -> tuple[Value, ...]:
    default = sweep_fields()[field][1]
    got, suggestion = f"{field}={_shown(values)} in {where}", f"{field} = [{_shown(default)}]"
    require(_is_list(values), got, "a list of values", suggestion)
    require(len(values) > 0, got, "at least one value", suggestion)
    return tuple(_value(field, value, where) for value in values)


def _value(field: str, value: Any, where: str) -> Value:
    kind, default = sweep_fields()[field]
    # The abstract types know the numbers of NumPy.
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) < 2**63
    fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) and math.isfinite(value)
    ok = {bool: isinstance(value, bool), int: whole, float: whole or fraction, str: isinstance(value, str)}[kind]
    require(ok, f"{field}={_shown(value)} in {where}", _KINDS[kind], f"{field}={_shown(default)}")
    return kind(value)


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _closest(name: Any, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(str(name), known, n=1)), "")


def _distinct(rows: Iterable[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    return list(dict.fromkeys(rows))


def _columns(fields: Group, rows: Sequence[tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    return dict(zip(fields, zip(*rows, strict=True), strict=True))
