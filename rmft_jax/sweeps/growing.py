"""How a sweep that is resumed may differ from the one that is there: it may hold more cells, and nothing else."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rmft_jax.method.settings import differing_settings
from rmft_jax.running.files import RunError
from rmft_jax.sweeps.spec import Cell, Sweep


def grown_cells(here: Sequence[Cell], spec: Mapping[str, Any], sweep: Sweep) -> list[Cell]:
    """The cells of a sweep, of which those that are here keep their indices; new ones follow.

    Args:
      here: the cells that are here, by their indices.
      spec: the specification that is here, as `Sweep.to_dict` has it.
      sweep: what is wanted.

    Raises:
      ConfigError: if the sweep cannot work.
      RunError: if it is not the one that is here, with more cells; the message says why.
    """
    cells = sweep.expand()
    wanted = {cell.config: cell for cell in cells}
    lost = next((cell for cell in here if cell.config not in wanted), None)
    if lost is not None or spec.get("baselines") != sweep.to_dict().get("baselines"):
        raise RunError(_difference(spec, sweep.to_dict()) or _change(lost, cells))
    old = [dataclasses.replace(wanted.pop(cell.config), index=cell.index) for cell in here]
    return old + [dataclasses.replace(cell, index=index) for index, cell in enumerate(wanted.values(), len(here))]


def joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a sweep that was made in several goes: where they differ, a list."""
    both = dict(before)
    for name, value in after.items():
        known = before.get(name, value)
        several = known if isinstance(known, list) else [known]
        both[name] = known if value in several else [*several, value]
    return both


def _difference(here: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The first part of a specification that is neither what it was nor more of it, in words; empty if none is."""
    for part in dict.fromkeys((*here, *given)):
        old, new = here.get(part), given.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            for field in dict.fromkeys((*old, *new)):
                if not _holds(new.get(field), old.get(field)):
                    return f"{field} in [{part}] is {_told(old.get(field))} there and {_told(new.get(field))} now"
        elif (old != new) if part == "baselines" else (part != "import" and not _holds(new, old)):
            return f"{part} is {_told(old)} there and {_told(new)} now"
    return ""


def _change(lost: Cell | None, cells: Sequence[Cell]) -> str:
    """What has become of a cell under a specification that still has it: a preset may have changed since."""
    assert lost is not None
    twin = next((cell for cell in cells if cell.coordinates == lost.coordinates), None)
    if twin is None:
        return f"its cell {lost.label} is not in this one"
    name, before, now = next(differing_settings(lost.config, twin.config))
    return f"{name} of {lost.label} is {_told(before)} there and {_told(now)} now"


def _holds(new: Any, old: Any) -> bool:
    """Whether a part of a specification is what it was, or more of it."""
    return old == new or (isinstance(old, list) and isinstance(new, list) and all(value in new for value in old))


def _told(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:76]} ..."
