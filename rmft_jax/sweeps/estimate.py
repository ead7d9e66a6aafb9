"""How long a sweep will take, from a short trial of its largest program."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from rmft_jax.method.numerics import pinned
from rmft_jax.sweeps.plan import Group, run_flops
from rmft_jax.sweeps.programs import Programs, padded_config
from rmft_jax.sweeps.results import baselines_of
from rmft_jax.sweeps.run import batch_size


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds that a sweep is expected to take on this device, one task after the other.

    compiling: for all groups, if each takes as long as that of the trial.
    running: for all cells, in proportion to their operations.
    trial: what the trial itself took.
    """

    compiling: float
    running: float
    trial: float


@pinned()
def estimate(groups: Sequence[Group], baselines: Sequence[str] | None, cells_per_batch: int = 0) -> Estimate:
    """Compiles the programs of the group with the largest cells, with a single iteration per chunk, and times them."""
    started = time.perf_counter()
    largest = max(groups, key=_cell_flops)
    group = dataclasses.replace(largest, config=dataclasses.replace(largest.config, chunk_size=1))
    width = min(cells_per_batch or batch_size(group.config), len(group.cells))
    programs, cells = Programs(group), (group.cells * width)[:width]
    batch = programs.start(cells)
    seconds = []
    for run in (False, True):  # The first one validates only.
        for _ in range(2):
            begun = time.perf_counter()
            batch, *_ = jax.block_until_ready(programs.advance(batch, run))
            seconds.append(time.perf_counter() - begun)
    validation = seconds[1]
    iteration = max(seconds[3] - validation, 0.0)
    cell, padded = cells[0], jax.device_put(jax.tree.map(np.float32, padded_config(cells[0], group)))
    params = jax.tree.map(lambda leaf: leaf[0], jax.device_get(batch.state.params))
    agents = {"rmft": padded.agent(params), **baselines_of(cell, group, baselines)}
    programs.evaluate(agents, cell, np.asarray(batch.test_key)[0])  # Compiles.
    begun = time.perf_counter()
    programs.evaluate(agents, cell, np.asarray(batch.test_key)[0])
    evaluation = time.perf_counter() - begun
    rmft, chunk = largest.config.rmft, largest.config.chunk_size
    per_cell = (iteration * rmft.num_iterations + validation * (rmft.num_iterations // chunk + 1)) / width + evaluation
    running = per_cell * sum(_cell_flops(group) * len(group.cells) for group in groups) / _cell_flops(largest)
    return Estimate(programs.compile_seconds * len(groups), running, time.perf_counter() - started)


def _cell_flops(group: Group) -> float:
    config = group.config
    return run_flops(config, config.rmft.environment.num_arms, config.rmft.horizon)
