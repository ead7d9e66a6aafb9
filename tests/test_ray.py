import contextlib
import dataclasses
import importlib
import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xarray as xr

from rmft_jax import Sweep, load_sweep
from rmft_jax.cli import main
from rmft_jax.config import ConfigError
from rmft_jax.running.files import RunError
from rmft_jax.sweeps import ray_executor
from rmft_jax.sweeps.ray_executor import require_ray, run_on_ray
from rmft_jax.sweeps.run import Jobs, run_sweep

# Ray is imported where it is started, because it reads the environment then.
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

OVERRIDE = {
    "num_iterations": 2,
    "num_scenarios": 8,
    "num_rollouts": 4,
    "k": 2,
    "num_minibatches": 2,
    "num_validation_scenarios": 8,
    "num_test_scenarios": 16,
    "width": 8,
    "num_layers": 1,
    "horizon": 4,
}
SWEEP = Sweep(preset="mab", grid={"num_arms": [2, 3], "seed": [0, 1]}, override=OVERRIDE, baselines=["uniform"])
# Long enough to be hit in training.
LONG = dataclasses.replace(
    SWEEP, grid={"num_arms": [2, 3], "seed": [0, 1, 2]}, override=OVERRIDE | {"num_iterations": 1000, "chunk_size": 20}
)


def run_and_load(sweep: Sweep, path: Path, cells_per_batch: int = 1) -> xr.Dataset:
    assert run_sweep(sweep, path, cells_per_batch=cells_per_batch).failures == {}
    return load_sweep(path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> xr.Dataset:
    return run_and_load(SWEEP, tmp_path_factory.mktemp("local") / "sweep", cells_per_batch=2)


def assert_equal(path: Path, expected: xr.Dataset) -> None:
    """But for the time that it took."""
    xr.testing.assert_equal(load_sweep(path).drop_vars("wall_seconds"), expected.drop_vars("wall_seconds"))


def descendants() -> set[int]:
    """Processes that this one started, and those that they started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    found, front = set(), {os.getpid()}
    while front:
        front = {pid for pid, parent in parents.items() if parent in front}
        found |= front
    return found


def workers() -> set[int]:
    """Processes of Ray that have a task."""
    found = set()
    for pid in descendants():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::_work"):
                found.add(pid)
    return found


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    before = descendants()
    yield
    assert not importlib.import_module("ray").is_initialized()
    assert not descendants() - before


@with_ray
@pytest.mark.slow
def test_a_sweep_on_a_local_ray(tmp_path, expected):
    words = []

    def executor(jobs):
        # Half a CPU each: both tasks at once on any machine.
        return run_on_ray(dataclasses.replace(jobs, watch=words.append), cpus_per_task=0.5)

    with nothing_left_behind():
        outcome = run_sweep(SWEEP, tmp_path / "sweep", executor=executor, cells_per_batch=2)
    assert (outcome.finished, outcome.failures, outcome.missing) == (4, {}, 0)
    assert_equal(tmp_path / "sweep", expected)
    assert "2 tasks running on 1 node" in words


def killing_after_the_first_result(victims: set[int], count: int | None = None) -> Callable:
    def executor(jobs):
        for number, result in enumerate(run_on_ray(jobs, cpus_per_task=0.5)):
            if number == 0:
                time.sleep(0.2)  # The worker that was done has its next task by now.
                victims.update(sorted(workers())[:count])
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
            yield result

    return executor


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("cells_per_batch", [1, 2])
def test_killed_workers_change_nothing(tmp_path, cells_per_batch):
    victims, expected = set(), run_and_load(LONG, tmp_path / "local", cells_per_batch)
    with nothing_left_behind():
        executor = killing_after_the_first_result(victims)
        outcome = run_sweep(LONG, tmp_path / "sweep", executor=executor, cells_per_batch=cells_per_batch)
    assert victims
    assert (outcome.finished, outcome.failures, outcome.missing) == (6, {}, 0)
    assert_equal(tmp_path / "sweep", expected)


@with_ray
@pytest.mark.slow
def test_who_loses_its_worker_too_often_has_failed_and_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "MAX_RETRIES", 0)
    victims, path = set(), tmp_path / "sweep"
    outcome = run_sweep(LONG, path, executor=killing_after_the_first_result(victims, 1))
    assert len(victims) == len(outcome.failures) == 1
    assert outcome.finished == 5
    assert "its worker was lost 1 times (WorkerCrashedError); try" in next(iter(outcome.failures.values()))
    outcome = run_sweep(LONG, path, executor=run_on_ray, resume=True)
    assert outcome.finished == 6
    assert_equal(path, run_and_load(LONG, tmp_path / "local"))


@with_ray
@pytest.mark.slow
def test_an_error_of_a_task_is_raised_once(tmp_path):
    def executor(jobs):
        tasks = [dataclasses.replace(task, baselines=("nonsense",)) for task in jobs.tasks]
        return run_on_ray(dataclasses.replace(jobs, tasks=tasks))

    with nothing_left_behind(), pytest.raises(ConfigError, match="nonsense"):
        run_sweep(SWEEP, tmp_path / "sweep", executor=executor)


@with_ray
@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning")
def test_accelerators_are_reserved_and_a_running_ray_is_left_alone(tmp_path, expected, monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Loopback, if Ray was not imported yet.
    ray = importlib.import_module("ray")
    settings = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 150_000_000}
    ray.init("local", num_cpus=2, num_gpus=2, **settings)
    try:
        assert ray_executor._needs(ray.cluster_resources(), 1.0, None) == {"CPU": 1.0, "GPU": 1.0}
        run_sweep(SWEEP, tmp_path / "sweep", executor=run_on_ray, cells_per_batch=2)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert_equal(tmp_path / "sweep", expected)


@with_ray
@pytest.mark.slow
def test_closing_cancels_and_stops(tmp_path):
    def executor(jobs):
        results = run_on_ray(jobs, cpus_per_task=0.5)
        try:
            yield next(results)
            raise KeyboardInterrupt
        finally:
            results.close()

    with nothing_left_behind(), pytest.raises(KeyboardInterrupt, match="resume=True"):
        run_sweep(LONG, tmp_path / "sweep", executor=executor)
    assert int((load_sweep(tmp_path / "sweep").status == "finished").sum()) == 1


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"cpus_per_task": 0.0}, "got cpus_per_task=0.0, need a finite number above 0"),
        ({"cpus_per_task": float("nan")}, "got cpus_per_task=nan"),
        ({"gpus_per_task": 1.5}, "got gpus_per_task=1.5, need a finite number between 0 and 1, or whole"),
        ({"gpus_per_task": -1.0}, "got gpus_per_task=-1.0"),
    ],
)
@with_ray
def test_bad_numbers_are_refused(numbers, message):
    with pytest.raises(ConfigError, match=message):
        require_ray(**numbers)


@with_ray
def test_a_client_address_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="got RAY_ADDRESS=ray://head:10001, need the host:port"):
        require_ray()


@with_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port"])
def test_an_unreachable_cluster_is_one_clear_line(monkeypatch, tmp_path, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # For the tests after this one, since Ray is imported.
    with pytest.raises(RunError, match=f"^cannot reach the Ray cluster at RAY_ADDRESS={address}; try the address"):
        next(run_on_ray(Jobs([], tmp_path, print, print)))


def test_the_command_says_how_to_install_ray(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    spec = tmp_path / "spec.toml"
    spec.write_text('preset = "mab"\n')
    assert main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--executor", "ray"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "need the package ray; try .venv/bin/pip install '.[ray]' in the clone" in error
    assert not (tmp_path / "out").exists()


def test_options_of_ray_are_refused_without_it(tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text('preset = "mab"\n')
    assert main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--gpus-per-task", "1"]) == 2
    assert "got --gpus-per-task 1 with --executor local, need --executor ray" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_reserves_one_accelerator_if_there_are_any():
    assert ray_executor._needs({"CPU": 4.0}, 0.5, None) == {"CPU": 0.5}
    assert ray_executor._needs({"CPU": 4.0, "GPU": 2.0}, 1.0, None) == {"CPU": 1.0, "GPU": 1.0}
    assert ray_executor._needs({"CPU": 4.0, "TPU": 4.0}, 1.0, None) == {"CPU": 1.0, "TPU": 1.0}
    assert ray_executor._needs({"CPU": 4.0, "GPU": 2.0}, 1.0, 0.0) == {"CPU": 1.0}
    assert ray_executor._needs({"CPU": 4.0, "GPU": 2.0}, 1.0, 0.5) == {"CPU": 1.0, "GPU": 0.5}


def test_as_many_tasks_run_as_the_living_nodes_hold():
    big, small = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}
    nodes = [{"Alive": alive, "Resources": has} for alive, has in [(True, big), (True, small), (False, big)]]
    assert ray_executor._slots(nodes, {"CPU": 2.0}) == 4 + 1
    assert ray_executor._slots(nodes, {"CPU": 1.0, "GPU": 1.0}) == 2
    assert ray_executor._slots(nodes[1:2], {"CPU": 0.1}) == 30
    assert ray_executor._slots(nodes, {"CPU": 1.0, "TPU": 1.0}) == 0
