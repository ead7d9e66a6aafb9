"""What lies outside of a file or a process costs no result, and is told in a line: disks, permissions, variables."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from evaluations import made_evaluation
from rmft_jax import ConfigError, Sweep, cli, load_sweep
from rmft_jax.method.settings import RunConfig
from rmft_jax.running import storage, training
from rmft_jax.running.files import TEMPORARY, RunError, UnreadableError, as_text, write_dataset
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import load_run, train
from rmft_jax.sweeps import batches
from rmft_jax.sweeps.plan import plan
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.store import SweepDirectory
from runs import Reporter, assert_same_run, few_baselines, files_of, make_run, refused
from worlds import TINY_RUN

EVALUATED = ("--num-scenarios", 16)


@pytest.fixture(scope="module", autouse=True)
def _few():
    with few_baselines("ucb1", "uniform"):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train(TINY_RUN, path, preset="tiny", reporter=Reporter())
    return path


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", TINY_RUN)[0]


def unreadable(monkeypatch, number: int, *names: str) -> None:
    """Files of these names cannot be read from now on."""
    read = Path.read_bytes

    def fails(path):
        if path.name in names:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)


# What can be made again is.


@pytest.mark.parametrize(
    "names", [["metrics.nc"], ["metrics.jsonl"], ["summary.json", "metrics.nc"], ["evaluation.nc"]]
)
def test_what_a_finished_run_lacks_is_made_again(names, finished, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    for name in names:
        (path / name).unlink()
    train(TINY_RUN, path, preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(TINY_RUN, path, finished)
    lines = [(one / "metrics.jsonl").read_text().splitlines() for one in (path, finished)]
    kept, whole = ([json.loads(line) | {"seconds": 0} for line in one] for one in lines)
    assert kept == whole


def test_a_run_that_has_nothing_to_do_changes_nothing(finished):
    before = {path: (finished / path).stat().st_mtime_ns for path in files_of(finished)}
    train(TINY_RUN, finished, preset="tiny", resume=True, reporter=Reporter())
    assert {path: (finished / path).stat().st_mtime_ns for path in files_of(finished)} == before


# What is replaced is replaced as a whole, or not at all.


def fails_at(name: str, number: int):
    def fails(path, target):
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return os.rename(path, target)

    return fails


@pytest.mark.parametrize("name", ["figures", "summary.json", "config.json"])
def test_a_run_of_which_one_part_is_held_stays_whole(name, run, monkeypatch):
    (run.path / "figures").mkdir()
    run.write_summary({"seed": 0})
    before = files_of(run.path)
    monkeypatch.setattr(Path, "rename", fails_at(name, errno.EBUSY))  # As one that is mounted there.
    with pytest.raises(RunError, match=os.strerror(errno.EBUSY)):
        RunDirectory.create(run.path, RunConfig(seed=7), "mab", overwrite=True)
    assert files_of(run.path) == before
    load_run(run.path)


def test_a_run_stays_whole_where_there_is_no_room_for_the_next(run, monkeypatch):
    def full(path, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    before = files_of(run.path)
    monkeypatch.setattr(storage, "write_json", full)
    start: Any = lambda path: path.write_bytes(b"another start")  # noqa: E731
    with pytest.raises(RunError, match=os.strerror(errno.ENOSPC)):
        RunDirectory.create(run.path, TINY_RUN, "tiny", True, start)
    assert files_of(run.path) == before


def test_what_cannot_be_removed_is_no_part_of_the_next_run(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)
        RunDirectory.create(run.path, RunConfig(seed=7), "mab", overwrite=True)
        assert any(run.path.glob(TEMPORARY))
    assert run.read_config()[0].seed == 7
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_run(run.path)
    with run.held(resume=True, overwrite=False):
        assert not any(run.path.glob(TEMPORARY))


def test_halves_of_killed_writers_go_where_others_may_be_writing_once_they_are_old(run):
    halves = [run.path / "figures" / f".{name}.1-2.tmp.pdf" for name in ("young", "old")]
    halves[0].parent.mkdir()
    for half in halves:
        half.touch()
    os.utime(halves[1], (time.time() - 4000, time.time() - 4000))
    with run.held(resume=True, overwrite=False):
        assert [half.exists() for half in halves] == [True, False]


def test_results_are_not_written_under_the_name_of_a_run_that_came_meanwhile(run, monkeypatch, capsys):
    evaluate_run = training.evaluate_run

    def slowly(*args, **options):
        RunDirectory.create(run.path, TINY_RUN.replace(seed=7), "mab", overwrite=True)
        return evaluate_run(*args, **options)

    monkeypatch.setattr(training, "evaluate_run", slowly)
    assert cli.main(["evaluate", str(run.path), *map(str, EVALUATED)]) == 2
    assert "was replaced meanwhile: nothing is written" in capsys.readouterr().err
    assert not files_of(run.path / "evaluations")


# What cannot be read is not taken for damaged or missing.


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_sweeps_are_not_begun_anew_where_cells_cannot_be_read(number, tmp_path, monkeypatch):
    sweep = SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart", grid={"seed": [0]}))
    sweep.write_cell(sweep.cells[0], made_evaluation())
    whole = sweep.write_assembled()
    with monkeypatch.context() as patch:
        unreadable(patch, number, "00000.nc")
        with pytest.raises(UnreadableError, match=os.strerror(number)):
            sweep.finished()
    shutil.rmtree(sweep.path / "cells")
    assert load_sweep(sweep.path).status == "finished"
    unreadable(monkeypatch, number, whole.name)
    with pytest.raises(UnreadableError, match=os.strerror(number)):
        load_sweep(sweep.path)


class Unstarted(Programs):
    """Programs that compile nothing."""

    def __init__(self):
        pass

    def start(self, cells) -> Any:
        return SimpleNamespace(state=None)


def test_what_a_sweep_has_begun_is_not_thrown_away_where_it_cannot_be_read(tmp_path, monkeypatch):
    sweep = Sweep("quickstart", grid={"seed": [0]})
    (task,) = batches.make_tasks(plan(sweep.expand()), 1, (), ())
    begun = tmp_path / "unfinished" / "00000"
    begun.mkdir(parents=True)
    monkeypatch.setattr(batches.Checkpoints, "restore", _cannot)
    with pytest.raises(UnreadableError):
        batches._train(task, Unstarted(), begun, lambda *_: None)
    assert begun.exists()


def _cannot(self, like):
    raise UnreadableError("cannot read it")


def test_results_of_another_policy_are_not_replaced_where_they_cannot_be_read(run, tmp_path, monkeypatch, capsys):
    place = tmp_path / "place"
    write_dataset(place / "evaluations" / "num_scenarios=16.nc", made_evaluation())
    unreadable(monkeypatch, errno.EACCES, "num_scenarios=16.nc")
    assert "Permission denied" in refused(capsys, "evaluate", run.path, "--out", place, *EVALUATED)


def test_a_run_whose_checkpoints_cannot_be_looked_at_is_not_one_without(run, monkeypatch):
    def fails(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(UnreadableError, match="Permission denied"):
        load_run(run.path)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", ".lock"])
def test_the_list_of_runs_says_what_it_cannot_read(name, run, monkeypatch, capsys):
    for file in ("metrics.jsonl", "summary.json", ".lock"):
        (run.path / file).touch()
    if name == ".lock":
        (run.path / "summary.json").unlink()
        monkeypatch.setattr("fcntl.flock", lambda *_: _raise(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))))
    else:
        unreadable(monkeypatch, errno.EACCES, name)
    assert cli.main(["runs", str(run.path.parent)]) == 0
    told = capsys.readouterr().out
    assert "unreadable" in told
    assert "training" not in told
    assert "damaged" not in told


def _raise(error):
    raise error


# Where results go is known before they are made.

BENCH = ("bench-agents", "bernoulli", "--horizon", 4, "--num-scenarios", 8, "--agents", "uniform")


def test_agents_played_in_another_way_have_a_place_of_their_own(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rmft_jax.cli.bench.plot_run", lambda *_: [])
    place = tmp_path / "agents"
    for _ in range(2):
        assert cli.main([*map(str, BENCH), "--out", str(place)]) == 0
    before = (place / "agents.nc").read_bytes()
    capsys.readouterr()
    for more in (["--seed", 1], ["--num-arms", 3], ["--horizon", 5], ["--num-scenarios", 9], ["--agents", "ucb1"]):
        said = refused(capsys, *BENCH, *more, "--out", place)
        assert f"which has other {'environment' if more[0] == '--num-arms' else more[0][2:].replace('-', '_')}" in said
    assert (place / "agents.nc").read_bytes() == before
    assert "holds a run or a sweep" in refused(capsys, *BENCH, "--out", run.path)


def test_a_folder_in_the_place_of_a_file_is_seen_before_anything_is_played(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rmft_jax.running.benchmark.bench_agents", None)
    (tmp_path / "x.json").mkdir()
    (tmp_path / "out" / "agents.nc").mkdir(parents=True)
    assert "it is a folder" in refused(capsys, *BENCH, "--json", tmp_path / "x.json")
    assert "cannot read" in refused(capsys, *BENCH, "--out", tmp_path / "out")


def test_a_path_may_hold_any_bytes(run, tmp_path):
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4ufe")
    shutil.copytree(run.path, strange)
    assert as_text(strange).endswith("l\\xe4ufe")
    assert cli.main(["evaluate", strange, "--out", str(tmp_path / "out"), *map(str, EVALUATED)]) == 0
    assert cli.main(["report", strange, "--out", str(tmp_path / "report.html"), "--no-dialogues"]) == 0


# What no array can count, and what Python hands over.


@pytest.mark.parametrize("words", [
    ["bench-agents", "bernoulli", "--num-scenarios", 10**12], ["bench-agents", "bernoulli", "--horizon", 3 * 10**9],
    ["evaluate", "pretrained:mab-k2", "--num-scenarios", 2**31], ["train", "quickstart", "--num-devices", 10**5],
])  # fmt: skip
def test_counts_beyond_those_of_arrays_are_refused(words, capsys, tmp_path):
    assert "need a number below" in refused(capsys, *words, "--out", tmp_path / "out")


@pytest.mark.parametrize(("given", "named"), [
    ({"preset": Path("q")}, "preset"), ({"start": "pretrained:mab"}, "start"), ({"log": None}, "log"),
    ({"on_chunk": 5}, "on_chunk"), ({"num_devices": "1"}, "num_devices"),
])  # fmt: skip
def test_arguments_of_another_kind_are_refused_before_anything_is_made(given, named, tmp_path):
    with pytest.raises(ConfigError, match=f"got {named}="):
        train(TINY_RUN, tmp_path / "run", **given)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [jnp.asarray([0.5]), jnp.asarray([0.5, 1.0]), np.asarray([0.5, 1.0])])
def test_a_setting_is_one_number(value):
    with pytest.raises(ConfigError, match="got temperature="):
        TINY_RUN.replace(temperature=value).validate()


@pytest.mark.parametrize(("value", "code"), [("", 0), ("bogus", 2)])
def test_variables_of_jax_may_be_empty_and_others_are_told_in_a_line(value, code):
    environment = os.environ | {"JAX_DEFAULT_PRNG_IMPL": value, "JAX_ENABLE_X64": ""}
    command = [sys.executable, "-P", "-m", "rmft_jax.cli", "presets"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert ("jax_default_prng_impl" in done.stderr) == (code == 2)


def test_settings_of_matplotlib_in_another_encoding_are_told_in_a_line(tmp_path, finished):
    (tmp_path / "matplotlibrc").write_bytes("text.usetex: True".encode("utf-16"))
    command = [sys.executable, "-P", "-m", "rmft_jax.cli", "plot", finished, "--out", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("rmft: error: got a matplotlibrc that is no text")
    assert "Traceback" not in done.stderr
