"""What the text of a compiled program says: its loops, how much they launch, and whether it talks to the host.

XLA's optimized text lists computations, and in each the operations that a device runs, in their order. A loop is an
operation that names another computation as its body; its metadata say from which of our files it came.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence

# Operations that name, cut or wait for what is there already, and start nothing on the device.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency"),
    *("partition-id", "replica-id", "opt-barrier", "domain"),
)
# Calls that only tell the compiler something.
_NOTES = ("AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")
_HOST_OPERATIONS = ("infeed", "outfeed", "send", "recv")
# Calls into Python, and to move arrays to the memory of the host or back.
_HOST_CALLS = re.compile(r"callback|movetohost|movetodevice|annotate_device_placement|tohost|fromhost", re.IGNORECASE)
# How XLA writes arrays in the memory of the host.
_HOST_MEMORY = re.compile(r"S\(5\)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = ")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation. opcode: what it is. text: the line. frame: number of the call stack it came from."""

    opcode: str
    text: str

    def named(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.text)
        return found and found[1]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop, with those inside it.

    source: the innermost of our files that made it, such as "rollout"; the whole program is "".
    trips: how often its body runs; None where only the device knows. A GPU's host then asks before every pass.
    launches: operations that a pass starts, without those of the loops inside.
    loops: these.
    """

    source: str
    trips: int | None
    launches: int
    loops: tuple["Loop", ...]

    def one_pass(self, unknown: int) -> int:
        """Operations that a pass starts, with those of the loops inside, whose unknown trip counts are `unknown`."""
        return self.launches + sum(loop.total(unknown) for loop in self.loops)

    def total(self, unknown: int) -> int:
        """Operations that all passes start together."""
        return (unknown if self.trips is None else self.trips) * self.one_pass(unknown)

    def all(self) -> Iterator["Loop"]:
        """This loop and all inside it."""
        yield self
        for loop in self.loops:
            yield from loop.all()


class Program:
    """The text of a compiled program, read.

    entry: the computation that runs first. computations: all of them, by name.
    """

    def __init__(self, text: str):
        self._frames, self.computations, self.entry = _Frames(text), {}, ""
        operations: list[Operation] = []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                operations = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif opcode := _opcode(line.strip()):
                operations.append(Operation(opcode, line.strip()))

    @functools.cached_property
    def whole(self) -> Loop:
        """The program as a loop of one pass."""
        return self._loop("", 1, [self.entry])

    def _loop(self, source: str, trips: int | None, names: Sequence[str]) -> Loop:
        launches, loops = 0, []
        for name in names:
            more, inner = self._counted(name)
            launches, loops = launches + more, loops + inner
        return Loop(source, trips, launches, tuple(loops))

    def _counted(self, name: str) -> tuple[int, list[Loop]]:
        launches, loops = 0, []
        for operation in self.computations[name]:
            if operation.opcode == "while":
                source, trips = self._frames.source(operation.text), self._trips(operation)
                # Where the number of passes is known, nobody looks at the condition.
                parts = ("condition", "body") if trips is None else ("body",)
                loops.append(self._loop(source, trips, [name for name in map(operation.named, parts) if name]))
            elif operation.opcode in ("call", "conditional"):
                choices = [self._counted(choice) for choice in _called(operation)]
                # Of branches, the one that starts most.
                more, inner = max(choices, key=lambda counts: _weight(*counts), default=(0, []))
                launches, loops = launches + more, loops + inner
            else:
                launches += _starts(operation)
        return launches, loops

    def _trips(self, loop: Operation) -> int | None:
        """How often the body of a loop runs: as XLA says, or by its condition, `round < 50`; JAX counts from 0."""
        if told := _TRIPS.search(loop.text):
            return int(told[1])
        condition = self.computations[loop.named("condition") or ""]
        root = next(operation.text for operation in condition if operation.text.startswith("ROOT "))
        if limit := re.search(r" compare\(.*%([\w.\-]+)\), direction=LT", root):
            for operation in condition:
                value = re.search(r" constant\((\d+)\)", operation.text)
                if value and operation.text.startswith(f"%{limit[1]} = "):
                    return int(value[1])
        return None

    def host_traffic(self) -> list[str]:
        """The operations that reach for the host: callbacks, feeds, transfers, and arrays in its memory."""
        found = []
        for operation in (operation for operations in self.computations.values() for operation in operations):
            target = re.search(r'custom_call_target="([^"]*)"', operation.text)
            feed = operation.opcode.removesuffix("-start").removesuffix("-done") in _HOST_OPERATIONS
            if feed or (target and _HOST_CALLS.search(target[1])) or _HOST_MEMORY.search(_type(operation.text)):
                found.append(operation.text)
        return found


def _weight(launches: int, loops: Sequence[Loop]) -> int:
    return launches + sum(loop.total(1) for loop in loops)


def _called(operation: Operation) -> list[str]:
    if operation.opcode == "call":
        return [name for name in (operation.named("to_apply"),) if name]
    branches = re.search(r"branch_computations=\{([^}]*)\}", operation.text)
    if branches:
        return [name.strip().lstrip("%") for name in branches[1].split(",")]
    return [name for name in map(operation.named, ("true_computation", "false_computation")) if name]


def _starts(operation: Operation) -> int:
    """1 if the device is given something to do; the two halves of what runs beside others count once."""
    if operation.opcode in _FREE or operation.opcode.endswith(("-done", "-update")):
        return 0
    return 0 if any(f'custom_call_target="{note}"' in operation.text for note in _NOTES) else 1


def _opcode(line: str) -> str | None:
    """The opcode of an operation's line; None if it is another line."""
    if not (start := _OPERATION.match(line)):
        return None
    rest = line[start.end() :]
    found = re.match(r"([\w\-]+)\(", rest[len(_type(line)) :].strip())
    return found and found[1]


def _type(line: str) -> str:
    """The type of an operation's result: without spaces, or a tuple of such in parentheses."""
    start = _OPERATION.match(line)
    rest = line[start.end() :] if start else line
    if not rest.startswith("("):
        return rest.partition(" ")[0]
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return rest[: place + 1]
    return rest


class _Frames:
    """The tables of call stacks before the computations: which of our files an operation came from."""

    def __init__(self, text: str):
        tables: dict[str, dict[int, str]] = {}
        rows: dict[int, str] = {}
        for line in text.splitlines():
            if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
                rows = tables.setdefault(line, {})
            elif row := re.match(r"^(\d+) (.*)$", line):
                rows[int(row[1])] = row[2]
        self._tables = tables

    def source(self, text: str) -> str:
        """The innermost file of the package that an operation came from, without its ending; "" if none is known."""
        found = re.search(r"stack_frame_id=(\d+)", text)
        frame, seen = int(found[1]) if found else 0, set[int]()
        while frame and frame not in seen:
            seen.add(frame)
            row = self._tables.get("StackFrames", {}).get(frame, "")
            location = self._tables.get("FileLocations", {}).get(_number("file_location_id", row), "")
            file = self._tables.get("FileNames", {}).get(_number("file_name_id", location), "").strip('"')
            if "rmft_jax/" in file:
                return file.rpartition("/")[2].removesuffix(".py")
            frame = _number("parent_frame_id", row)
        inline = re.search(r'source_file="[^"]*rmft_jax/[^"]*?(\w+)\.py"', text)
        return inline[1] if inline else ""


def _number(name: str, row: str) -> int:
    found = re.search(rf"{name}=(\d+)", row)
    return int(found[1]) if found else 0
