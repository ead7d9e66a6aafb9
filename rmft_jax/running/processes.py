"""Several processes, on one host or many, that train one policy together."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from rmft_jax.config import ConfigError
from rmft_jax.config.checks import either

# Those who leave wait for each other that long.
_LEAVE_SECONDS = 300


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several; all that is None is found out, under Slurm, Open MPI, Kubernetes or on TPUs.

    Args:
      coordinator_address: host and port of the first process.
      num_processes: how many there are.
      process_id: which of them this is, counted from 0.

    Raises:
      ConfigError: if something is missing, or the others cannot be reached.
    """
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, shutdown_timeout_seconds=_LEAVE_SECONDS
        )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        tried = either(
            "--coordinator-address HOST:PORT --num-processes N --process-id I",
            "coordinator_address='HOST:PORT', num_processes=N, process_id=I",
        )
        raise ConfigError(
            f"cannot join the other processes ({reason}), need every process to know the address of the first; "
            f"try {tried}"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def from_first(tree: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """The first process's arrays, in all processes; the others give arrays of the same shapes."""
    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


def highest(number: int) -> int:
    """The highest of the processes' numbers, in all of them."""
    return int(np.max(multihost_utils.process_allgather(np.asarray(number)))) if jax.process_count() > 1 else number


def meet() -> None:
    """Waits for all processes to come here."""
    highest(0)
