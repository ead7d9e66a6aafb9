"""Runs the tasks of a sweep on a Ray cluster. Ray is an optional extra, and imported only when it is asked for."""

import collections
import contextlib
import dataclasses
import importlib
import importlib.util
import logging
import os
import pickle
import socket
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, no_type_check

import jax

from rmft_jax.config.checks import either, require, require_number
from rmft_jax.config.plugins import import_all, imported
from rmft_jax.method.numerics import pinned
from rmft_jax.running.files import RunError
from rmft_jax.sweeps.batches import Result, Task, run_task
from rmft_jax.sweeps.plan import Group
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.run import Jobs
from rmft_jax.sweeps.spec import Cell

MAX_RETRIES = 3
# Results are some hundred kilobytes, and are fetched as they come.
_OBJECT_STORE_BYTES = 150_000_000
_POLL_SECONDS = 1.0
_CONNECT_SECONDS = 10.0
_ACCELERATORS = ("GPU", "TPU")


def require_ray(cpus_per_task: float = 1.0, gpus_per_task: float | None = None) -> None:
    """Refuses what `run_on_ray` cannot work with, before anything is started.

    Raises:
      ConfigError: if Ray is not installed, RAY_ADDRESS is that of a Ray client, or a number makes no sense.
    """
    if importlib.util.find_spec("ray") is None:
        got, other = either("--executor ray", "run_on_ray"), either("--executor local", "run_locally")
        require(False, got, "the package ray", f".venv/bin/pip install '.[ray]' in the clone, or {other}")
    address = os.environ.get("RAY_ADDRESS", "")
    require(
        not address.startswith("ray://"),
        f"RAY_ADDRESS={address}",
        "the host:port of the cluster's head",
        "RAY_ADDRESS=auto on one of its nodes",
    )
    require_number(cpus_per_task, "cpus_per_task", "above 0", cpus_per_task > 0, 1.0)
    if gpus_per_task is not None:
        ok = 0 <= gpus_per_task < 1 or float(gpus_per_task).is_integer()
        require_number(gpus_per_task, "gpus_per_task", "between 0 and 1, or whole", ok and gpus_per_task >= 0, 1.0)


def run_on_ray(
    jobs: Jobs, *, cpus_per_task: float = 1.0, gpus_per_task: float | None = None
) -> Generator[Result, None, None]:
    """Every task of a sweep as one Ray task, whose results come back one by one as its cells finish.

    The cluster is the one that this process is connected to, else that of RAY_ADDRESS, else one that is started on this
    machine, bound to loopback, and stopped at the end. A task whose worker dies is run again on another one,
    `MAX_RETRIES` times; the cells that it still misses have failed after that. Closing the generator cancels what is
    pending.

    Args:
      jobs: what to run. Work in training is kept in `jobs.unfinished` by the workers that can write beside it.
      cpus_per_task: CPUs that a task reserves, which bounds how many run at once; it does not limit their threads.
      gpus_per_task: GPUs that a task reserves. None: 1 if the cluster has any; else a TPU chip if it has any.

    Raises:
      ConfigError: as `require_ray`, and if this machine is too small for a task.
      RunError: if RAY_ADDRESS cannot be reached.
      Exception: whatever a task raises that is no fault of its cells.
    """
    require_ray(cpus_per_task, gpus_per_task)
    with _connected() as (ray, is_local):
        needs = _needs(ray.cluster_resources(), cpus_per_task, gpus_per_task)
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
        if not _slots(ray.nodes(), needs):
            fewer = either("--cpus-per-task 1", "cpus_per_task=1")
            require(not is_local, f"tasks of {wanted} each", "no more than this machine has", fewer)
            jobs.note(f"waiting for a node that has {wanted}")
        yield from _drive(ray, jobs, needs)


@contextlib.contextmanager
def _connected() -> Iterator[tuple[Any, bool]]:
    """The module `ray`, connected to a cluster, and whether that was started for the occasion."""
    address = os.environ.get("RAY_ADDRESS") or "local"  # Empty is unset, as for Ray.
    is_local = address == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_local:
        # Anybody who reaches a port of Ray can run code. By this variable, read on import, Ray stays on loopback.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray, False
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if is_local:
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        if ":" in address:  # Ray would try for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        with warnings.catch_warnings():
            # Ray forks to start its processes, which JAX, having threads, warns of; but what is forked soon is Ray.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            ray.init(address=address, **settings)
    except OSError as error:
        advice = "try the address that `ray start --head` printed, and its RAY_AUTH_MODE and token if it has one"
        raise RunError(f"cannot reach the Ray cluster at RAY_ADDRESS={address}; {advice}") from error
    try:
        yield ray, is_local
    finally:
        ray.shutdown()


def _needs(totals: Mapping[str, float], cpus: float, gpus: float | None) -> dict[str, float]:
    """What a task reserves, by the name of Ray's resource."""
    needs = {"CPU": cpus}
    if gpus is not None:
        return needs | ({"GPU": gpus} if gpus else {})
    # A batch is trained on one device, so a host of several TPU chips runs as many tasks.
    return needs | next(({name: 1.0} for name in _ACCELERATORS if totals.get(name, 0) >= 1), {})


def _slots(nodes: Sequence[Mapping[str, Any]], needs: Mapping[str, float]) -> int:
    """How many tasks fit onto the living nodes at once."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    # The tiny number is for fractions: ten tasks of 0.1 CPU do fit onto one.
    return sum(min(int(has.get(name, 0) / amount + 1e-6) for name, amount in needs.items()) for has in alive)


@dataclasses.dataclass
class _Remote:
    """A task that was handed to Ray.

    missing: its cells without a result so far, by index.
    node: where it began; None as long as it has not.
    """

    missing: dict[int, Cell]
    node: str | None = None


def _drive(ray: Any, jobs: Jobs, needs: Mapping[str, float]) -> Iterator[Result]:
    """Hands out tasks in order, one more than can run so that no worker waits, and yields what comes back."""
    amounts = {"CPU": "num_cpus", "GPU": "num_gpus"}
    options: dict[str, Any] = {amounts[name]: amount for name, amount in needs.items() if name in amounts}
    options["resources"] = {name: amount for name, amount in needs.items() if name not in amounts}
    # A process cannot change its accelerator, and holds its memory, so it serves one task; others serve many.
    options["max_calls"] = 1 if any(name in needs for name in _ACCELERATORS) else 0
    work = ray.remote(num_returns="streaming", max_retries=MAX_RETRIES, retry_exceptions=False, **options)(_work)
    folder = str(jobs.unfinished.absolute())
    waiting, running = collections.deque(jobs.tasks), {}
    group, group_ref = None, None
    try:
        while waiting or running:
            while waiting and len(running) <= _slots(ray.nodes(), needs):
                task = waiting.popleft()
                if task.group is not group:  # It holds all of its cells, so it is sent once.
                    group, group_ref = task.group, ray.put(pickle.dumps(task.group))
                rest = pickle.dumps((task.cells, task.wanted, task.baselines, task.keep_weights))
                stream = work.remote(imported(), group_ref, rest, folder)
                running[stream] = _Remote({task.cells[slot].index: task.cells[slot] for slot in task.wanted})
            ready, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            for stream in ready:
                yield from _receive(ray, stream, running)
            jobs.watch(_words(running.values()))
    finally:
        for stream in running:
            ray.cancel(stream, force=True)


def _receive(ray: Any, stream: Any, running: dict[Any, _Remote]) -> Iterator[Result]:
    """Takes the next item of a task that has one; forgets the task if it has ended."""
    remote = running[stream]
    try:
        item = ray.get(next(stream))
    except StopIteration:
        del running[stream]
    except ray.exceptions.RayTaskError as error:  # Raised by our code, which would raise it again.
        del running[stream]
        raise error.cause from error
    except ray.exceptions.RayError as error:
        del running[stream]
        option = either("--cpus-per-task", "cpus_per_task")
        advice = f"try more {option}, which runs fewer at once, fewer num_scenarios, or a rollout_block"
        message = f"its worker was lost {MAX_RETRIES + 1} times ({type(error).__name__}); {advice}"
        yield from (Result(cell, failure=message) for cell in remote.missing.values())
    else:
        if isinstance(item, str):
            remote.node = item
        # A task that is run again repeats the results that it has delivered.
        elif remote.missing.pop(item.cell.index, None) is not None:
            yield item


def _words(remotes: Any) -> str:
    nodes = [remote.node for remote in remotes if remote.node is not None]
    if not nodes:
        return "waiting for a worker"
    count = len(set(nodes))
    return f"{len(nodes)} tasks running on {count} node{'s' if count > 1 else ''}"


# What follows runs in the workers.

# Only the latest: tasks come group by group, and programs hold memory.
_programs: list[tuple[Group, Programs]] = []


@no_type_check  # Whatever checks types would hide that it is a generator, which Ray asks for.
def _work(imports: list[str], pickled_group: bytes, rest: bytes, folder: str) -> Iterator[str | Result]:
    """The name of the node, then a result per wanted cell: as many items however often it is run, as Ray demands.

    What is pickled may be of classes that users' code defines, which is imported first.
    """
    import_all(imports)
    group, rest_of_task = pickle.loads(pickled_group), pickle.loads(rest)
    context = importlib.import_module("ray").get_runtime_context()
    yield context.get_node_id()
    if any(context.get_accelerator_ids().get(name) for name in _ACCELERATORS):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # The device may be shared.
        _keep_compiled()
    if not _programs or _programs[0][0] != group:
        _programs[:] = [(group, Programs(group))]
    reachable = os.access(Path(folder).parent, os.W_OK)
    task = Task(group, *rest_of_task)
    with pinned():
        yield from run_task(task, _programs[0][1], Path(folder) if reachable else None, lambda done, regret: None)


def _keep_compiled() -> None:
    """Lets the processes of this node share compiled programs, unless JAX was told where to keep them."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(tempfile.gettempdir()) / f"rmft-jax-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():  # Programs of others are not to be trusted.
            jax.config.update("jax_compilation_cache_dir", str(folder))
