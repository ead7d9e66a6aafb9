"""What a run will cost, from a short trial of its programs."""

import dataclasses
import time

import jax

from rmft_jax.agents import make_baselines
from rmft_jax.method.contract import require_contract
from rmft_jax.method.devices import device_name, make_mesh, use_cores
from rmft_jax.method.numerics import pinned
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import TrainState, init
from rmft_jax.running.trainer import RunKeys, RunStepper


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What training is expected to take on these devices, if nothing else runs on them.

    device: what it was tried on.
    compiling: seconds for its two programs, a chunk of iterations and a validation.
    iteration, validation: seconds for one of either.
    training: seconds for all of them.
    memory: bytes that a chunk holds on every device; None where the compiler does not say.
    num_agents: that are compiled and played in the evaluation at the end, which comes besides.
    """

    device: str
    compiling: float
    iteration: float
    validation: float
    training: float
    memory: int | None
    num_agents: int


@pinned()
def rehearse(config: RunConfig, state: TrainState | None = None, num_devices: int | None = None) -> Rehearsal:
    """Compiles a run's programs, with a single iteration per chunk, and times them; writes nothing.

    Args:
      config: the run.
      state: where it would start. None: random weights.
      num_devices: as in `train`.

    Raises:
      ConfigError: if the configuration cannot work, or the scenarios cannot be shared by that many devices.
    """
    config.validate()
    use_cores(num_devices)
    mesh = make_mesh(num_devices, config.rmft.num_scenarios)
    require_contract(config.rmft)
    state = init(config.rmft, RunKeys.create(config.seed).train) if state is None else state
    stepper, seconds = RunStepper(config.replace(chunk_size=1), state, mesh), []
    for run in (False, True):
        for _ in range(2):  # The first one warms up.
            started = time.perf_counter()
            jax.block_until_ready(stepper.advance(run))
            seconds.append(time.perf_counter() - started)
    validation, iteration = seconds[1], max(seconds[3] - seconds[1], 0.0)
    total = config.rmft.num_iterations
    return Rehearsal(
        device=device_name(mesh),
        compiling=stepper.compile_seconds,
        iteration=iteration,
        validation=validation,
        training=iteration * total + validation * (total // config.chunk_size + 1),
        memory=stepper.memory,
        num_agents=len(make_baselines(config.rmft.problem())) + 1,
    )
