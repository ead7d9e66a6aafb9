"""Which cells of a sweep share a compiled program.

Cells that differ in nothing that fixes shapes or structure, in seeds and in numbers such as the step size, are one
program with other inputs. Horizons and arm counts do fix shapes; they can be padded to larger ones and masked, which
wastes work but saves compilations. A group is padded where that is estimated to be the cheaper of the two.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from rmft_jax.config import Value
from rmft_jax.method.settings import RunConfig, differing_settings
from rmft_jax.problems.contract import require_environment
from rmft_jax.sweeps.spec import Cell

PROGRAMS_PER_GROUP = 3
# Rough, of two CPU cores. They decide about padding only, which changes results by rounding alone, and are constants so
# that a sweep has the same plan, and the same bits, whenever and wherever it is resumed.
_COMPILE_SECONDS = 20.0
_FLOPS_PER_SECOND = 2e10
_NEGLIGIBLE_WASTE = 0.1
_PADDED = ("horizon", "num_arms")


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that one set of compiled programs serves.

    cells: in the order of the sweep.
    config: what they share, with the largest horizon and arm count among them.
    reason: why they are together, and apart from others; one line each.
    """

    cells: tuple[Cell, ...]
    config: RunConfig
    reason: tuple[str, ...]

    @property
    def arm_counts(self) -> tuple[int, ...]:
        """The different arm counts of the cells, rising."""
        return tuple(sorted({arms(cell.config) for cell in self.cells}))

    @property
    def horizons(self) -> tuple[int, ...]:
        """The different horizons of the cells, rising."""
        return tuple(sorted({cell.config.rmft.horizon for cell in self.cells}))


def arms(config: RunConfig) -> int:
    """The arm count K."""
    return config.rmft.environment.num_arms


def plan(cells: Sequence[Cell], *, pad: bool = True) -> list[Group]:
    """Groups of cells that share their programs, in the order of their first cells.

    Args:
      cells: of one sweep.
      pad: whether cells of different horizons or arm counts may share a program.
    """
    structures: dict[tuple[tuple[str, Value], ...], list[Cell]] = {}
    for cell in cells:
        structures.setdefault(tuple(structure(cell.config, without=_PADDED).items()), []).append(cell)
    groups = []
    for members in structures.values():
        apart = _differences(members[0], cells[0])
        # Who plays in place of the policy is made for the rounds and arms that there are.
        fits = pad and members[0].config.rmft.policy.paddable and not members[0].config.rmft.objective.plays
        parts = [part for by_horizon in _split(members, _horizon, fits) for part in _split(by_horizon, _arms, fits)]
        groups += [_group(part, apart, len(parts) > 1, pad) for part in parts]
    return sorted(groups, key=lambda group: group.cells[0].index)


def require_filled_up(group: Group) -> None:
    """Raises `ConfigError` if the environment is a user's and other in the arrays of the group than in its own.

    Cells of fewer arms or rounds than the largest are played in arrays for that one.
    """
    largest = (arms(group.config), group.config.rmft.horizon)
    smaller = [cell for cell in group.cells if (arms(cell.config), cell.config.rmft.horizon) != largest]
    for cell in smaller[:1]:
        require_environment(cell.config.rmft.problem(), filled_up=True)


def describe(groups: Sequence[Group]) -> list[str]:
    """The plan in words: for every group its cells, its shapes, and why it was formed."""
    cells = sum(len(group.cells) for group in groups)
    count = f"{len(groups)} group{'s' * (len(groups) > 1)}"
    lines = [f"{cells} cells in {count}, {PROGRAMS_PER_GROUP * len(groups)} programs to compile"]
    for number, group in enumerate(groups, 1):
        rmft = group.config.rmft
        horizons, arm_counts = (",".join(map(str, sizes)) for sizes in (group.horizons, group.arm_counts))
        shape = f"[M={rmft.num_scenarios}, L={rmft.num_rollouts}, T={rmft.horizon}, K={_arms(group.config)}]"
        lines.append(f"group {number}: {len(group.cells)} cells, T = {horizons}, K = {arm_counts}, as {shape}")
        lines += [f"  {reason}" for reason in group.reason]
    return lines


def structure(config: RunConfig, without: Sequence[str] = ()) -> dict[str, Value]:
    """What fixes shapes and structure of a configuration: all settings but fractions, the seed, and `without`."""
    settings = config.flat().items()
    return {name: value for name, value in settings if type(value) is not float and name not in ("seed", *without)}


def run_flops(config: RunConfig, num_arms: int, horizon: int) -> float:
    """Rough floating-point operations of a run that is padded to these sizes.

    Training passes cost three times a forward pass.
    """
    rmft = config.rmft
    per_round = rmft.policy.round_flops(rmft.problem().of_size(num_arms, horizon))
    played = rmft.num_iterations * rmft.num_scenarios * rmft.num_rollouts
    epochs = getattr(rmft.update, "num_epochs", 1)
    trained = 3 * rmft.num_iterations * rmft.num_scenarios * rmft.selection.k * epochs
    evaluated = config.num_validation_scenarios * (rmft.num_iterations // config.chunk_size + 1)
    return (played + trained + evaluated + config.num_test_scenarios) * horizon * per_round


def _horizon(config: RunConfig) -> int:
    return config.rmft.horizon


_arms = arms


def _seconds(cells: Sequence[Cell]) -> tuple[float, float]:
    """Estimated seconds of cells of their own sizes, and padded to the largest among them."""
    horizon, num_arms = (max(size(cell.config) for cell in cells) for size in (_horizon, _arms))
    own = sum(run_flops(cell.config, _arms(cell.config), _horizon(cell.config)) for cell in cells)
    return own / _FLOPS_PER_SECOND, sum(run_flops(cell.config, num_arms, horizon) for cell in cells) / _FLOPS_PER_SECOND


def _split(cells: Sequence[Cell], size: Callable[[RunConfig], int], pad: bool) -> list[list[Cell]]:
    """The cheapest way to cut the cells, in order of their size, into parts that share their programs."""
    sizes = sorted({size(cell.config) for cell in cells})
    by_size = {value: [cell for cell in cells if size(cell.config) == value] for value in sizes}
    if not pad:
        return list(by_size.values())
    # best[j]: cost of the first j sizes, and where the last part of their best cut begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(sizes) + 1):
        costs = []
        for start in range(end):
            own, padded = _seconds([cell for value in sizes[start:end] for cell in by_size[value]])
            seconds = padded if padded > (1 + _NEGLIGIBLE_WASTE) * own else own
            costs.append((best[start][0] + _COMPILE_SECONDS + seconds, start))
        best.append(min(costs))
    cuts = [len(sizes)]
    while cuts[-1] > 0:
        cuts.append(best[cuts[-1]][1])
    bounds = itertools.pairwise(reversed(cuts))
    chosen = [{*sizes[start:end]} for start, end in bounds]
    return [[cell for cell in cells if size(cell.config) in values] for values in chosen]


def _group(cells: Sequence[Cell], apart: str, shares_structure: bool, pad: bool) -> Group:
    largest = max(cells, key=lambda cell: _horizon(cell.config)).config
    config = largest.replace(num_arms=max(_arms(cell.config) for cell in cells))
    reason = [apart] if apart else []
    own, padded = _seconds(cells)
    waste = padded / own - 1
    if waste > 0:
        reason.append(f"padded: about {waste:.0%} more work, which is cheaper than more programs")
    if shares_structure:
        why = ": to pad them would cost more than further programs" if pad else ", as asked"
        reason.append(f"apart from other sizes{why}")
    inputs = sorted({name for cell in cells for name, *_ in differing_settings(cell.config, cells[0].config)})
    reason.append(f"one program, with {', '.join(inputs)} as inputs" if inputs else "a single cell")
    return Group(tuple(cells), config, tuple(reason))


def _differences(cell: Cell, first: Cell) -> str:
    """What keeps a cell out of the first cell's programs."""
    own, others = (structure(c.config, without=_PADDED) for c in (cell, first))
    shown = [f"{name}={value}" for name, value in own.items() if value != others.get(name)]
    return f"{', '.join(shown)} {'fix' if len(shown) > 1 else 'fixes'} shapes or structure" if shown else ""
