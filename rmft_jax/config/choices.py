"""Choices: settings of which one kind is taken by name, with its own fields, checks and code.

Every kind of choice (environment, policy, selection, ...) is a base class with a register. What is registered there,
by this package or by a user's file, can be named everywhere a setting can.
"""

import abc
import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from rmft_jax.config.checks import ConfigError, either, require
from rmft_jax.config.plugins import imported, load_optional, load_plugins
from rmft_jax.config.settings import KINDS, Settings, Value, checked, hints_of, is_settings, shown
from rmft_jax.config.words import plain_doc

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S", bound=Settings)
T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Register(Generic[E]):
    """Things of one kind by name, those of this package and those of users."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, E] = {}
        self._makers: dict[str, Any] = {}

    def add(self, name: str, entry: E, maker: Any) -> None:
        """Registers something under a name. What is defined again, as in a notebook, takes its former place.

        Raises:
          ConfigError: if the name is no name, or taken by something else.
        """
        self.require_name(name)
        taken = self._makers.get(name)
        require(
            taken is None or origin_of(taken) == origin_of(maker),
            f"{self.kind} {name!r} from {'.'.join(origin_of(maker))}, which {'.'.join(origin_of(taken))} has taken",
            "a name of its own",
            f"'my_{name}'",
        )
        self._entries[name], self._makers[name] = entry, maker

    def require_name(self, name: object) -> None:
        """Raises `ConfigError` if something is no name, as where a decorator stands without one."""
        ok = isinstance(name, str) and bool(_NAME.fullmatch(name))
        need = "a name of small letters, digits and _"
        require(ok, f"{self.kind} {shown(name)}", need, f"@register_{self.kind}('my_name')")

    def __getitem__(self, name: str) -> E:
        """What is registered under a name.

        Raises:
          ConfigError: if nothing is.
        """
        if name not in self._entries:
            load_plugins()
            load_optional(self.kind, name)
        if name not in self._entries:
            known = ", ".join(self.names())
            close = closest(name, self._entries) or next(iter(self._entries))
            code = either("--import FILE.py that has it", "import_code of the file that has it")
            if imported() and not self.of_users():  # The likeliest reason is a file without its decorator.
                code = f"@register_{self.kind}({name!r}) above its class in {imported()[-1]}"
            raise ConfigError(f"got {self.kind} {shown(name)}, need one of {known}; try {close!r}, or {code}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    def names(self) -> list[str]:
        """All names, those of installed plugins and of optional parts included."""
        load_plugins()
        load_optional(self.kind)
        return list(self._entries)

    def items(self) -> list[tuple[str, E]]:
        """All names, and what is registered under them."""
        return [(name, self._entries[name]) for name in self.names()]

    def of_users(self) -> list[str]:
        """The names that do not come with this package."""
        return [name for name in self.names() if not is_built_in(self._makers[name])]


def origin_of(maker: Any) -> tuple[str, str]:
    """Module and name of a class or function."""
    return str(getattr(maker, "__module__", "")), str(getattr(maker, "__qualname__", repr(maker)))


def is_built_in(maker: Any) -> bool:
    """Whether a class or function comes with this package."""
    return origin_of(maker)[0].split(".")[0] == "rmft_jax"


class Named(NamedTuple):
    """A choice under a name: its settings there, and what it is, in a line."""

    choice: Any
    description: str


class ChoiceRegister(Register[Named], Generic[C]):
    """The register of a kind of choice: a decorator of its classes, name first."""

    kinds: ClassVar[dict[str, "ChoiceRegister[Any]"]] = {}

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kinds[kind] = self

    def __call__(self, name: str) -> Callable[[type[T]], type[T]]:
        """Registers a class under a name.

        Raises:
          ConfigError: if the class lacks a method, a default or a plain type, if the name is taken, or if one of its
            settings has the name of another kind's.
        """
        self.require_name(name)

        def register(cls: type[T]) -> type[T]:
            made: Any = cls
            _require_complete(self.kind, name, made)
            description = inspect.cleandoc(plain_doc(made) or name).splitlines()[0].rstrip(".")
            self.add(name, Named(made(), description), made)
            made.name = name
            return cls

        return register

    def preset(self, name: str, choice: C, description: str) -> None:
        """Gives a name to some settings of a class that is registered."""
        self.add(name, Named(choice, description), type(choice))

    def classes(self) -> dict[str, type[C]]:
        """The classes by their names."""
        return {name: type(self[name].choice) for name in self if self[name].choice.name == name}


class Choice(Settings, abc.ABC):
    """The base of all choices. A kind of choice derives from it as `class Policy(Choice, kind="policy")`.

    kind: the name of the setting that it fills.
    name: under which the class is registered.
    carries: whether settings that the former choice has too keep their values where another one is named.
    kept: those that do so otherwise, but where the one that is named has a value of its own: not that of the kind.
    """

    kind: ClassVar[str]
    name: ClassVar[str] = ""
    carries: ClassVar[bool] = True
    kept: ClassVar[tuple[str, ...]] = ()
    register: ClassVar[ChoiceRegister[Any]]

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = ""  # Not that of a registered class from which it derives.
        if kind:
            cls.kind, cls.register = kind, ChoiceRegister(kind)

    def flat(self) -> dict[str, Value]:
        """Its name under that of its kind, and its own settings."""
        return {self.kind: _name_of(self)} | self.values()


class Group(Settings):
    """Settings that contain choices: all that is in them is reached by its own name."""

    def replace(self: S, **changes: Any) -> S:
        """The settings with some of them at other values, each by its own name, wherever it stands.

        A choice is named, or given as an object, and comes before all others: `replace(selection="random", k=4)`.

        Raises:
          ConfigError: for an unknown name, or a value that is none of its setting.
        """
        replaced = _replaced(self, changes)
        present = dict(_walk(replaced))
        for name in changes:
            if name not in present:
                _refuse(name, present)
        return replaced

    def flat(self) -> dict[str, Value]:
        """Every setting by its own name, choices by theirs: what `replace` takes."""
        return {name: _name_of(value) if isinstance(value, Choice) else value for name, value in _walk(self)}


def setting_types(*groups: type[Settings]) -> dict[str, tuple[Any, Any]]:
    """Every setting of some groups and of all choices that there are: its type, and a value that works somewhere."""
    load_plugins()
    found: dict[str, tuple[Any, Any]] = {
        kind: (str, next(iter(register))) for kind, register in ChoiceRegister.kinds.items()
    }
    choices = [cls for register in ChoiceRegister.kinds.values() for cls in register.classes().values()]
    for cls in (*groups, *choices):
        for field in dataclasses.fields(cls):
            hint = hints_of(cls)[field.name]
            if not is_settings(hint):
                found.setdefault(field.name, (hint, field.default))
    return found


def owners_of(name: str) -> list[Choice]:
    """The choices that have a setting of this name."""
    registers = ChoiceRegister.kinds.values()
    return [r[own].choice for r in registers for own, cls in r.classes().items() if name in hints_of(cls)]


def closest(name: Any, known: Iterable[str]) -> str:
    """The most similar of some names; empty if none is."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), "")


def _name_of(choice: Choice) -> str:
    need = f"{choice.kind}s that can be found by name to write them down"
    require(bool(choice.name), type(choice).__name__, need, f"@rmft_jax.register_{choice.kind}('my_name')")
    return choice.name


def _walk(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Names and values of all settings; a choice comes as itself, before its own."""
    for name in hints_of(type(settings)):
        value = getattr(settings, name)
        if isinstance(value, Choice) or not isinstance(value, Settings):
            yield name, value
        if isinstance(value, Settings):
            yield from _walk(value)


def _replaced(settings: S, changes: Mapping[str, Any]) -> S:
    new: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        name, old = field.name, getattr(settings, field.name)
        if isinstance(old, Settings):
            chosen = _chosen(old, changes[name]) if isinstance(old, Choice) and name in changes else old
            new[name] = _replaced(chosen, changes)
        elif name in changes:
            new[name] = checked(name, changes[name], hints_of(type(settings))[name], field.default)
    return dataclasses.replace(settings, **new)


def _chosen(old: Choice, wanted: Any) -> Choice:
    if isinstance(wanted, Choice) and wanted.kind == old.kind:
        return wanted
    require(isinstance(wanted, str), f"{old.kind}={shown(wanted)}", "a name, or an object of its kind", repr(old.name))
    new = old.register[str(wanted)].choice
    if old.carries:
        shared = hints_of(type(old)).keys() & hints_of(type(new)).keys()
    else:
        kind = next(cls for cls in type(new).__mro__ if Choice in cls.__bases__)
        shared = {name for name in new.kept if getattr(new, name) == getattr(kind, name)}
    return dataclasses.replace(new, **{name: getattr(old, name) for name in shared})


def _refuse(name: str, present: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a setting that is not there: of another choice, or of none."""
    for kind in ChoiceRegister.kinds:
        load_optional(kind)
    owners = owners_of(name)
    if owners:
        kind = owners[0].kind
        names = " or ".join(owner.name for owner in owners)
        advice = f"{kind}={owners[0].name!r}"
        raise ConfigError(f"got {name} with {kind} {present[kind].name!r}, need {names}, which has it; try {advice}")
    close = closest(name, setting_types()) or closest(name, present) or "`rmft train --help`, which lists most"
    raise ConfigError(f"got {shown(name)}, need the name of a setting; try {close}")


def _require_complete(kind: str, name: str, cls: type[Choice]) -> None:
    """Raises `ConfigError` if a class cannot be a choice."""
    what = f"{kind} {name!r} ({cls.__name__})"
    base = kind.title().replace("_", "")
    ok = getattr(cls, "kind", None) == kind
    require(ok, what, f"a class that derives from {base}", f"class {cls.__name__}({base})")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    require(not missing, f"{what} without {', '.join(missing)}", "every method of its base", f"def {(*missing, '')[0]}")
    for attribute, value in vars(cls).items():
        plain = type(value) in KINDS and not attribute.startswith("_") and attribute != "name"
        of_base = any(hasattr(base, attribute) for base in cls.__mro__[1:])
        typed = attribute in inspect.get_annotations(cls)
        need = f"{attribute}: {type(value).__name__} = {value!r}"
        require(not plain or of_base or typed, f"{attribute} without a type in {what}", "one for every setting", need)
    for field in dataclasses.fields(cls):
        _require_setting(kind, name, what, field, hints_of(cls)[field.name])


def _require_setting(kind: str, name: str, what: str, field: dataclasses.Field[Any], hint: Any) -> None:
    """Raises `ConfigError` if a field of a choice cannot be a setting."""
    named = f"{field.name} in {what}"
    names = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    plain = hint in KINDS or (bool(names) and all(isinstance(name, str) for name in names))
    text = getattr(hint, "__name__", str(hint)) if hint in KINDS else str(hint)
    require(plain, f"{field.name}: {text} in {what}", "bool, int, float, str or a Literal of names", "one of these")
    missing = field.default is dataclasses.MISSING
    require(not missing, f"{named} without a default", "one for every setting", f"{field.name} = ...")
    checked(field.name, field.default, hint, hint(1) if hint in KINDS else field.default, where=f" in {what}")
    for other in owners_of(field.name):
        if other.kind == kind and other.name != name:
            as_there = hints_of(type(other))[field.name]
            need = f"the type that it has in {kind} {other.name!r}"
            require(hint == as_there, f"{field.name}: {text} in {what}", need, f"{name}_{field.name}")
    others = [other for other in owners_of(field.name) if other.kind != kind]
    taken = f"{others[0].kind} {others[0].name!r}" if others else RESERVED.get(field.name)
    need = "a name that no other kind of setting has"
    require(not taken, f"{named}, which {taken} has", need, f"{name}_{field.name}")


RESULTS = (
    "agent", "arm", "best_iteration", "cell", "entropy", "exponent", "exponent_high", "exponent_low", "final_regret",
    "final_regret_sem", "grad_norm", "greedy_frac", "invalid", "iteration", "loss", "mean_rewards", "min_frac",
    "minus_reference", "minus_reference_sem", "rank", "rank_frequency", "regret", "regret_sem", "regret_spread",
    "round", "run", "scenario", "selected_regret", "status", "sublinear_p", "suff_fail_freq", "suff_fail_freq_sem",
    "training_invalid", "training_regret", "training_suff_fail_freq", "trend_p", "validation_iteration",
    "validation_regret", "validation_regret_sem", "wall_seconds", "zip",
)  # fmt: skip
"""What the dataset of a sweep calls its results and their dimensions, beside those that begin with `baseline_`."""
_OPTIONS = (
    "agents", "coordinator_address", "distributed", "dry_run", "from", "from_cell", "help", "import", "json", "log",
    "num_devices", "num_processes", "out", "overwrite", "preset", "process_id", "resume", "start", "tune", "version",
)  # fmt: skip
_TOLD = ("mean", "low", "high", "interval", "num_seeds", "column", "variable", "share", "relative_to")
RESERVED: dict[str, str] = dict.fromkeys(("kind", "name", "carries", "kept", "register"), "every choice")
RESERVED |= dict.fromkeys(_OPTIONS, "a command, as an option,")
RESERVED |= dict.fromkeys(RESULTS, "the dataset of every sweep") | dict.fromkeys(_TOLD, "every table of results")
"""Names that no setting of a choice may have, by what has them."""
