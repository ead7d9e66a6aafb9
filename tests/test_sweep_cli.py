"""`rmft sweep`, from words and a file to a directory and an exit code."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import runs
from rmft_jax import Sweep, cli, load_sweep
from rmft_jax.cli import sweep as command
from rmft_jax.sweeps import batches
from rmft_jax.sweeps.store import SweepDirectory
from sweeping import GRID, SWEEP, TINY_OVERRIDE, KeptPrograms, assert_equal, cell_times

SHORT = {**TINY_OVERRIDE, "num_iterations": 2, "chunk_size": 1}


def toml(**tables) -> str:
    """A specification; values are written as Python does, which is TOML too, but for booleans."""
    lines = [f"{name} = {value!r}" for name, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            head = "[[cell]]" if name.startswith("cell") else f"[{name}]"
            lines += [head, *(f"{field} = {value!r}" for field, value in table.items())]
    return "\n".join(lines) + "\n"


GOOD = toml(preset="quickstart", baselines=["ucb1"], grid={"horizon": [6, 8], "num_arms": [3, 4]}, override=SHORT)
# Its last cell fails.
FAILING = toml(
    preset="quickstart", baselines=["ucb1"], grid={"horizon": [6, 8], "num_arms": [3, 4]}, override=SHORT,
    cell={"step_size": 1e30, "horizon": 8, "num_arms": 4},
)  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> KeptPrograms:
    return KeptPrograms()


@pytest.fixture
def kept(programs, monkeypatch) -> KeptPrograms:
    """The command runs locally, with programs that are compiled once for all tests."""
    monkeypatch.setattr(command, "run_locally", programs)
    return programs


@pytest.fixture
def spec(tmp_path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(GOOD)
    return path


def rmft(*words: object) -> int:
    return cli.main(["sweep", *map(str, words)])


def refused(capsys, *words: object) -> str:
    return runs.refused(capsys, "sweep", *words)


def test_a_sweep_from_a_file_to_a_dataset(kept, capsys, tmp_path, spec):
    assert rmft(spec, "--out", tmp_path / "sweep") == 0
    out, err = capsys.readouterr()
    assert "4 cells in 1 group, 3 programs to compile" in out
    assert "one program, with horizon, num_arms as inputs" in out
    assert "4 cells finished in " in out
    assert out.endswith(f"dataset: {tmp_path / 'sweep' / 'sweep.nc'}\n")
    assert "4/4 · horizon=8,num_arms=4 · regret " in err
    assert (tmp_path / "sweep" / "sweep.nc").is_file()
    dataset = load_sweep(tmp_path / "sweep")
    told = out[out.index("num_arms = 3") :].splitlines()
    assert [f"{value:.2f} " in told[2] for value in dataset.final_regret.sel(horizon=6).values] == [True, True]
    assert dataset.final_regret.dims == ("horizon", "num_arms")
    assert dataset.final_regret.notnull().all()
    assert dataset.agent.values.tolist() == ["ucb1"]
    times, chunks = cell_times(tmp_path / "sweep"), kept.chunks
    assert rmft(spec, "--out", tmp_path / "sweep", "--resume") == 0
    assert (cell_times(tmp_path / "sweep"), kept.chunks) == (times, chunks)
    assert "4 cells finished" in capsys.readouterr().out
    refused_again = "already holds a sweep; try --resume to continue it or --overwrite"
    assert rmft(spec, "--out", tmp_path / "sweep") == 2
    assert refused_again in capsys.readouterr().err
    assert rmft(spec, "--out", tmp_path / "sweep", "--overwrite") == 0
    assert kept.chunks == 2 * chunks
    assert_equal(load_sweep(tmp_path / "sweep"), dataset)


def test_failed_cells_are_told_and_tried_again(kept, capsys, tmp_path, spec):
    spec.write_text(FAILING)
    assert rmft(spec, "--out", tmp_path / "sweep") == 3
    out, err = capsys.readouterr()
    assert "4 cells finished" in out
    last = err.splitlines()[-1]
    label = "horizon=8,num_arms=4,step_size=1e+30"
    told = (
        f"rmft: error: 1 cells failed; --resume tries them again; the first one, {label}: loss or parameters became NaN"
    )
    assert last.startswith(told)
    dataset = load_sweep(tmp_path / "sweep")
    assert (dataset.status == "failed").sum() == 1
    assert label in dataset.attrs["failures"]
    times, chunks = cell_times(tmp_path / "sweep"), kept.chunks
    assert rmft(spec, "--out", tmp_path / "sweep", "--resume") == 3
    assert cell_times(tmp_path / "sweep") == times
    assert kept.chunks == chunks + 2


def test_max_failures_stops_and_says_what_was_not_run(kept, capsys, tmp_path, spec):
    grid = {"step_size": [1e30, 1e-3, 1e-4]}
    spec.write_text(toml(baselines=["ucb1"], grid=grid, override={**SHORT, "horizon": 8, "num_arms": 4}))
    assert rmft(spec, "--out", tmp_path / "sweep", "--max-failures", 1) == 3
    assert "1 cells failed, 2 not run; --resume tries them again" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(capsys, tmp_path, spec):
    before = {*tmp_path.iterdir()}
    assert rmft(spec, "--dry-run", "--out", tmp_path / "sweep") == 0
    out, _ = capsys.readouterr()
    first, *_, last = out.splitlines()
    assert first == "4 cells in 1 group, 3 programs to compile"
    assert last.startswith("about ")
    assert "compilation, if nothing else runs (by a trial of " in last
    assert {*tmp_path.iterdir()} == before


def test_what_is_proposed_overwrites_nothing(capsys, tmp_path, spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("spec", "spec-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert "; try --out runs/spec-3" in refused(capsys, spec)
    assert rmft(spec, "--dry-run") == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("--out runs/spec-3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (toml(grid={"horizons": [6]}), "got 'horizons' in [grid], need the name of a setting; try horizon"),
        (toml(grid={"horizon": []}), "got horizon=[] in [grid], need at least one value"),
        (toml(grid={"horizon": [6, 6]}), "got horizon=6 twice in [grid]"),
        (toml(grid={"horizon": [6]}, cell={"horizon": 6}), "got the same cell twice (horizon=6)"),
        (toml(grid={"horizon": ["six"]}), "got horizon='six' in [grid], need a whole number"),
        (toml(grid={"horizon": 6}), "got horizon=6 in [grid], need a list of values"),
        (toml(zip={"horizon": [6, 8], "num_arms": [2]}), "got horizon of length 2 and num_arms of length 1 in [zip]"),
        (toml(grid={"horizon": [6]}, override={"horizon": 8}), "got horizon in both [grid] and [override]"),
        (toml(grid={"k": [2, 9]}), "k=9: got k=9 with num_rollouts=8"),
        (toml(preset="nope"), "got preset 'nope', need one of quickstart"),
        (toml(grids={}), "got 'grids' in the sweep, need one of"),
        (toml(baselines=["hedge"]), "got agent 'hedge' for Stationary under 'bandit' feedback"),
        ("grid = [", "need TOML"),
    ],
)
def test_bad_specifications_are_refused_in_one_line(capsys, tmp_path, spec, text, message):
    spec.write_text(text)
    assert message in refused(capsys, spec, "--out", tmp_path / "sweep")
    assert {*tmp_path.iterdir()} == {spec}
    assert message in refused(capsys, spec, "--dry-run")


def test_bad_options_are_refused_in_one_line(kept, capsys, tmp_path, spec):
    out = tmp_path / "sweep"
    assert "got no --out, need a directory for the sweep; try --out runs/spec" in refused(capsys, spec)
    assert "No such file" in refused(capsys, tmp_path / "none.toml", "--out", out)
    assert "got max_failures=0" in refused(capsys, spec, "--out", out, "--max-failures", 0)
    assert "got cells_per_batch=-1" in refused(capsys, spec, "--out", out, "--cells-per-batch", -1)
    assert "--executor" in refused(capsys, spec, "--out", out, "--executor", "slurm")
    assert {*tmp_path.iterdir()} == {spec}


def refused_after_the_plan(capsys, *words: object) -> str:
    assert rmft(*words) == 2
    line, *more = capsys.readouterr().err.splitlines()
    assert not more
    assert line.startswith("rmft: error: ")
    assert "; try " in line
    return line


def test_directories_that_do_not_fit_are_refused_in_one_line(kept, capsys, tmp_path, spec):
    out = tmp_path / "sweep"
    both = refused_after_the_plan(capsys, spec, "--out", out, "--resume", "--overwrite")
    assert "got both --resume and --overwrite" in both
    assert not out.exists()
    for path in (spec / "sweep", Path("/proc/sweep")):
        assert f"cannot write to {path}: " in refused_after_the_plan(capsys, spec, "--out", path)
    assert "exists and is not a sweep directory" in refused_after_the_plan(capsys, spec, "--out", tmp_path)
    SweepDirectory.create(out, Sweep.from_toml(spec))
    spec.write_text(GOOD.replace("num_scenarios = 8", "num_scenarios = 16"))
    changed = refused_after_the_plan(capsys, spec, "--out", out, "--resume")
    assert "holds another sweep: num_scenarios in [override] is 8 there and 16 now" in changed


def test_a_full_disk_is_told_in_one_line_and_damages_nothing(kept, capsys, tmp_path, spec, monkeypatch):
    writes, sync = [], os.fsync

    def full(file: int) -> None:
        writes.append(file)
        if len(writes) > 3:  # The specification and two cells.
            raise OSError(28, "No space left on device")
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "_SAVE_SECONDS", float("inf"))  # Cells are all that is written.
        patch.setattr(os, "fsync", full)
        assert rmft(spec, "--out", tmp_path / "sweep") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("rmft: error: [Errno 28] No space left on device; files written before are whole; try again")
    times = cell_times(tmp_path / "sweep")
    assert list(times) == ["00000.nc", "00001.nc"]
    assert (load_sweep(tmp_path / "sweep", pytest.fail).status == "finished").sum() == 2
    assert rmft(spec, "--out", tmp_path / "sweep", "--resume") == 0
    assert {name: time for name, time in cell_times(tmp_path / "sweep").items() if name in times} == times


def test_ctrl_c_is_told_with_how_to_go_on(kept, capsys, tmp_path, spec):
    kept.interrupt_after = 5
    assert rmft(spec, "--out", tmp_path / "sweep") == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("rmft: stopped; ")
    assert "continue with the same command and --resume" in last
    assert (load_sweep(tmp_path / "sweep").status == "finished").sum() == 1


def start_process(spec: Path, out: Path) -> subprocess.Popen:
    program = (
        "import sys; from rmft_jax import cli; from rmft_jax.sweeps import batches; batches._SAVE_SECONDS = 0.05;"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-P", "-c", program, "sweep", spec, "--out", out, "--resume"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen, out: Path, cells: int, seconds: float) -> None:
    """Kills it some time after so many cells are there."""
    while cells and len(list((out / "cells").glob("[0-9]*.nc"))) < cells:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_at_random_moments_is_the_same_in_the_end(tmp_path, spec):
    override = {**TINY_OVERRIDE, "num_iterations": 2000, "chunk_size": 20}
    grid = {**GRID, "seed": [0, 1, 2]}
    spec.write_text(toml(preset="quickstart", baselines=list(SWEEP.baselines or ()), grid=grid, override=override))
    assert start_process(spec, tmp_path / "whole").wait() == 0
    rng, path, begun = np.random.default_rng(0), tmp_path / "killed", False
    times: dict[str, int] = {}
    for kill in range(10):
        # Every third one hits wherever the start happens to be; the others, training, evaluation or a write.
        cells, seconds = (0, 10 * rng.random()) if kill % 3 == 0 else (len(times) + 1, 2 * rng.random())
        kill_after(start_process(spec, path), path, cells, seconds)
        begun |= any((path / "unfinished").glob("[0-9]*.npz")) if (path / "unfinished").exists() else False
        now = cell_times(path) if (path / "cells").exists() else {}
        now = {name: stamp for name, stamp in now.items() if not name.startswith(".")}
        assert {name: stamp for name, stamp in now.items() if name in times} == times
        times = now
    assert begun, "no kill left a cell in the middle of its training"
    assert start_process(spec, path).wait() == 0
    assert {name: stamp for name, stamp in cell_times(path).items() if name in times} == times
    assert_equal(load_sweep(path, pytest.fail), load_sweep(tmp_path / "whole", pytest.fail))
