"""What hurt users of comparable tools, kind by kind: nothing is lost, and nothing stands under another's name."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

from evaluations import made_evaluation
from rmft_jax import Sweep, load_sweep
from rmft_jax.agents import UCB
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.settings import RunConfig
from rmft_jax.plotting import plot_final_regret, save_figure
from rmft_jax.problems import Problem, Stationary
from rmft_jax.running.files import RunError, UnreadableError, read_dataset, writable, write_dataset
from rmft_jax.running.interruption import InterruptedRunError, StopSignals, heeded
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import load_run, train
from rmft_jax.running.weights import read_policy, write_policy
from rmft_jax.sweeps import ray_executor
from rmft_jax.sweeps.store import SweepDirectory
from runs import TINY_WORDS, Reporter, assert_same_run, elsewhere, few_baselines, make_run, refused
from worlds import TINY_RUN

BENCH = [
    "bench-agents",
    "bernoulli",
    "--num-arms",
    "3",
    "--horizon",
    "6",
    "--num-scenarios",
    "16",
    "--agents",
    "thompson",
]
ROOTED = Path("/proc/nothing-can-be-made-here")


def rmft(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-P", "-m", "rmft_jax.cli", *map(str, words)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


# A run is its own.


def test_checkpoints_of_a_run_of_the_same_settings_are_not_this_runs(tmp_path):
    for name in ("one", "other"):
        make_run(tmp_path / name, TINY_RUN)
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "one" / "checkpoints")
    with pytest.raises(RunError, match="belongs to another run"):
        load_run(tmp_path / "one")


def test_a_run_that_goes_on_under_other_versions_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("rmft_jax.running.checkpoints.versions", lambda: {"jax": "0.7.0", "numpy": np.__version__})
        make_run(tmp_path / "run", TINY_RUN)
    told = []
    load_run(tmp_path / "run", warn=told.append)
    assert len(told) == 1
    assert f"(jax 0.7.0 then, {jax.__version__} now)" in told[0]


def test_what_cannot_be_removed_is_told_and_stays_what_it_was(tmp_path, monkeypatch):
    run, _, _ = make_run(tmp_path / "run", TINY_RUN)

    def fails(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(RunError, match=r"cannot write to .*: Permission denied"):
        RunDirectory.create(run.path, RunConfig(seed=7), "mab", overwrite=True)
    assert run.read_config() == (TINY_RUN, "tiny")
    load_run(run.path)


# Who comes first has it, from the first look to the last write.


def test_of_two_who_begin_at_once_one_has_it(tmp_path):
    for attempt in range(20):
        path, together, won, lost = tmp_path / str(attempt), threading.Barrier(2), [], []

        def begin(seed, path=path, together=together, won=won, lost=lost):
            together.wait()
            try:
                RunDirectory.create(path, RunConfig(seed=seed), "mab")
                won.append(seed)
            except RunError as error:
                lost.append(str(error))

        threads = [threading.Thread(target=begin, args=(seed,)) for seed in (0, 1)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert (len(won), len(lost)) == (1, 1)
        assert "works in" in lost[0] or "already holds a run" in lost[0]
        assert RunDirectory.open(path).read_config()[0].seed == won[0]


def test_nobody_replaces_a_run_between_its_beginning_and_its_end(tmp_path):
    run = RunDirectory(tmp_path)
    with run.held(resume=False, overwrite=False), elsewhere() as submit:
        RunDirectory.create(tmp_path, RunConfig(), "mab")
        with pytest.raises(RunError, match="works in"):
            submit(RunDirectory.create, tmp_path, RunConfig(seed=1), "mab", overwrite=True)


# Errors of the surroundings are no damage.


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES, errno.ESTALE, errno.EIO])
def test_what_cannot_be_read_is_not_called_damaged(number, tmp_path, monkeypatch):
    run, _, _ = make_run(tmp_path / "run", TINY_RUN)
    run.write_dataset("evaluation.nc", made_evaluation())
    sweep = SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart", grid={"seed": [0]}))
    write_dataset(sweep.path / "cells" / "00000.nc", made_evaluation())

    def fails(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", fails)
    for action in (
        run.read_config, lambda: run.read_dataset("evaluation.nc"), sweep.finished, lambda: load_run(run.path),
        lambda: read_policy(tmp_path / "run" / "start.npz"),
    ):  # fmt: skip
        with pytest.raises(RunError, match=os.strerror(number)) as error:
            action()
        assert "damaged" not in str(error.value)
        assert "overwrite" not in str(error.value)


def test_checkpoints_that_cannot_be_read_stop_a_run_and_are_not_replaced(tmp_path, monkeypatch):
    run, _, _ = make_run(tmp_path / "run", TINY_RUN)
    before = {path: path.read_bytes() for path in run.checkpoints.iterdir()}
    read = Path.read_bytes

    def fails(path):
        if path.suffix == ".npz":
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(UnreadableError, match=os.strerror(errno.EAGAIN)):
            train(TINY_RUN, run.path, preset="tiny", resume=True, reporter=Reporter())
    assert {path: path.read_bytes() for path in run.checkpoints.iterdir()} == before


def test_a_file_that_is_open_elsewhere_is_read(tmp_path):
    path = write_dataset(tmp_path / "a.nc", made_evaluation())
    with h5py.File(path, "a"):
        assert read_dataset(path, "nothing").identical(made_evaluation())


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", fails)
    with pytest.raises(RunError, match=f"cannot lock .*{os.strerror(errno.ENOLCK)}"), RunDirectory(tmp_path).lock():
        pass


# Numbers are the program's, whatever JAX, matplotlib or the terminal were told.


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_and_figures_in_any_surroundings(tmp_path):
    rc = tmp_path / "matplotlibrc"
    rc.write_text("text.usetex: True\nfigure.dpi: 300\nfont.size: 30\n", encoding="utf-8")
    strange = {
        "JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_RANDOM_SEED_OFFSET": "3", "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict", "MATPLOTLIBRC": str(rc), "MPLBACKEND": "module://of_a_notebook",
        "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0",
    }  # fmt: skip
    done = [rmft(*BENCH, "--out", tmp_path / name, **more) for name, more in (("plain", {}), ("strange", strange))]
    assert [one.returncode for one in done] == [0, 0], done[1].stderr
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert {"agents.nc", "regret.png", "regret.csv"} <= set(names)
    plain, strange_ones = ([(tmp_path / name / file).read_bytes() for file in names] for name in ("plain", "strange"))
    for file, one, other in zip(names, plain, strange_ones, strict=True):
        if not file.endswith(".nc"):
            assert one == other, file
    datasets = [read_dataset(tmp_path / name / "agents.nc", "nothing") for name in ("plain", "strange")]
    assert datasets[0].identical(datasets[1])


def test_a_run_is_the_same_under_double_precision_and_other_keys(tmp_path):
    with few_baselines("ucb1"):
        train(TINY_RUN, tmp_path / "plain", reporter=Reporter())
        with jax.enable_x64(True), jax.default_prng_impl("rbg"), jax.default_matmul_precision("bfloat16"):
            train(TINY_RUN, tmp_path / "strange", reporter=Reporter())
            assert jnp.ones(()).dtype == np.float64  # What the caller chose holds again.
    assert_same_run(TINY_RUN, tmp_path / "plain", tmp_path / "strange")


def test_a_platform_that_is_not_there_is_told_in_one_line(tmp_path):
    done = rmft(*BENCH, "--json", tmp_path / "x.json", JAX_PLATFORMS="cuda")
    assert done.returncode == 2
    assert "try JAX_PLATFORMS=cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_do_not_depend_on_what_the_caller_set(tmp_path):
    save_figure(plot_final_regret(made_evaluation()), tmp_path / "plain")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 20, "axes.facecolor": "red"}):
        save_figure(plot_final_regret(made_evaluation()), str(tmp_path / "strange"))
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "strange.png").read_bytes()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_stopped_as_it_compiles_it_ends_in_order(number, code, tmp_path):
    command = [
        sys.executable,
        "-P",
        "-m",
        "rmft_jax.cli",
        "train",
        "quickstart",
        *TINY_WORDS,
        "--out",
        str(tmp_path / "run"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    started = time.monotonic()
    while not (tmp_path / "run" / "config.json").exists():
        assert process.poll() is None
        assert time.monotonic() - started < 120
        time.sleep(0.01)
    time.sleep(0.7)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert RunDirectory(tmp_path / "run").read_config()[0].rmft.horizon == 6


def test_a_stop_that_python_drops_is_not_lost(tmp_path, capsys):
    """What is raised in a callback of the garbage collector goes nowhere."""

    number = signal.SIGTERM

    def stop(phase, info):
        gc.callbacks.remove(stop)
        signal.raise_signal(number)

    def wait():
        gc.callbacks.append(stop)
        gc.collect()
        time.sleep(20)

    with StopSignals(tmp_path, print):
        with pytest.raises(InterruptedRunError, match="at once; continue with: rmft train --resume") as stopped:
            wait()
        assert stopped.value.signal_number == signal.SIGTERM
    number = signal.SIGINT
    before = signal.signal(number, signal.default_int_handler)  # What is started in the background may ignore it.
    try:
        with heeded(), pytest.raises(KeyboardInterrupt):  # As commands have it that do not train.
            wait()
    finally:
        signal.signal(number, before)
    assert "Traceback" not in capsys.readouterr().err


# Settings survive their own file.

NUMBERS = st.one_of(
    st.integers(1, 5), st.floats(0.1, 5.0), st.floats(0.1, 5.0).map(np.float32),
    st.sampled_from([0.5, 1.0, 2.0]).map(jnp.float32), st.floats(0.1, 5.0).map(np.asarray),
)  # fmt: skip
COUNTS = st.one_of(st.integers(4, 9), st.integers(4, 9).map(np.int64), st.integers(4, 9).map(np.asarray))


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    temperature=NUMBERS, step_size=NUMBERS, noise_std=NUMBERS, num_arms=COUNTS, horizon=COUNTS,
    shared_reward_noise=st.sampled_from([True, np.False_]),
    selection=st.sampled_from(["regret", "advantage", "random"]),
    environment=st.sampled_from(["stationary", "abrupt", "sinusoidal"]),
)  # fmt: skip
def test_settings_survive_their_file(tmp_path_factory, environment, selection, **changes):
    config = TINY_RUN.replace(environment=environment, selection=selection, noise="gaussian", **changes)
    config.validate()
    path = tmp_path_factory.mktemp("run")
    run = RunDirectory.create(path, config, "tiny")
    assert run.read_config()[0] == config
    assert all(type(value) in (int, float, bool, str, type(None)) for value in config.flat().values())


# Results have a place before there are any, and a name that says what they are.


def test_a_cell_that_arrives_with_an_old_time_counts(tmp_path):
    sweep = SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart", grid={"seed": [0, 1]}, baselines=()))
    dataset = made_evaluation()[["regret"]].isel(agent=0, scenario=0, drop=True)
    dataset = dataset.assign(final_regret=dataset["regret"][-1], status="finished").assign_attrs(reference="ucb1")
    sweep.write_cell(sweep.cells[0], dataset)
    sweep.write_assembled()
    assert load_sweep(sweep.path)["status"].values.tolist() == ["finished", "missing"]
    os.utime(sweep.write_cell(sweep.cells[1], dataset), (1e9, 1e9))
    assert load_sweep(sweep.path)["status"].values.tolist() == ["finished", "finished"]


def test_evaluations_of_other_values_have_other_names(tmp_path, monkeypatch):
    from rmft_jax.cli import main

    named = []
    monkeypatch.setattr("rmft_jax.cli.evaluate._grid", lambda *given: named.append(given[5]) or 0)
    long = ",".join(map(str, range(1, 80)))
    for values in ("horizon=5,8", "horizon=10,20", f"horizon={long}", f"horizon={long},99"):
        assert main(["evaluate", "pretrained:mab-k2", "--grid", values, "--out", str(tmp_path)]) == 0
    assert len(set(named)) == 4
    assert named[0] == "horizon=5+8"
    assert max(map(len, named)) < 200


def test_where_nothing_can_be_written_nothing_is_played(capsys, monkeypatch):
    monkeypatch.setattr("rmft_jax.running.training.evaluate_run", pytest.fail)
    monkeypatch.setattr("rmft_jax.running.benchmark.bench_agents", pytest.fail)
    for words in (["evaluate", "pretrained:mab-k2"], BENCH):
        assert "cannot write to" in refused(capsys, *words, "--out", ROOTED)


def test_a_place_that_was_made_for_refused_work_is_removed(tmp_path):
    from rmft_jax.config import ConfigError

    with pytest.raises(ConfigError), writable(tmp_path / "a" / "b", tmp_path / "c"):
        raise ConfigError("no")
    assert not list(tmp_path.iterdir())
    with writable(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()


# Edges.


def test_an_empty_address_of_a_cluster_is_none(monkeypatch):
    told = {}
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **words: told.update(words), shutdown=lambda: None)
    monkeypatch.setattr("importlib.import_module", lambda name: ray)
    monkeypatch.setenv("RAY_ADDRESS", "")
    with ray_executor._connected() as (_, is_local):
        assert is_local
    assert told["address"] == "local"


def test_forty_thousand_arms_have_their_numbers():
    problem = Problem.checked(Stationary(num_arms=40_000), 4)
    played = evaluate({"ucb1": UCB()}, problem, num_scenarios=8, key=jax.random.key(0))
    assert played["action"].min() >= 0
    assert played["action"].max() > np.iinfo(np.int16).max
    assert played["rank"].min() >= 0


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[grid]\nseed = [0, 1]\n")
    assert Sweep.from_toml(tmp_path / "a.toml").grid == {"seed": (0, 1)}


def test_paths_may_be_text(tmp_path):
    run = RunDirectory.create(str(tmp_path / "run"), RunConfig(), "mab")
    assert json.loads(run.record.read_text())["preset"] == "mab"
    assert RunDirectory.open(str(tmp_path / "run")).path == tmp_path / "run"
    sweep = SweepDirectory.create(str(tmp_path / "sweep"), Sweep("quickstart"))
    assert SweepDirectory.open(str(sweep.path)).path == sweep.path
    policy = read_policy(Path(__file__).parent.parent / "rmft_jax" / "running" / "policies" / "mab-k2.npz")
    write_policy(str(tmp_path / "a.npz"), policy.agent.params, policy.config, "mab-k2", {})
    assert read_policy(str(tmp_path / "a.npz")).preset == "mab-k2"
