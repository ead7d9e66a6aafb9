import json
import os

import numpy as np
import pytest
import xarray as xr

from rmft_jax.config import RunConfig
from rmft_jax.storage import RunDirectory, RunError

DATASET = xr.Dataset({"regret": (("round",), np.arange(5.0))}, attrs={"seed": 3})


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", RunConfig(seed=4), "mab")


def test_the_configuration_survives(run):
    assert RunDirectory.open(run.path).read_config() == (RunConfig(seed=4), "mab")


def test_datasets_survive(run):
    run.write_dataset("evaluation.nc", DATASET)
    xr.testing.assert_identical(run.read_dataset("evaluation.nc"), DATASET)


def test_a_run_is_not_replaced_unless_asked(run):
    run.write_dataset("metrics.nc", DATASET)
    with pytest.raises(RunError, match="already holds a run; try --resume to continue it or --overwrite"):
        RunDirectory.create(run.path, RunConfig(), "mab")
    assert (run.path / "metrics.nc").exists()
    replaced = RunDirectory.create(run.path, RunConfig(), "quickstart", overwrite=True)
    assert not (run.path / "metrics.nc").exists()
    assert replaced.read_config() == (RunConfig(), "quickstart")


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="is not a run directory"):
        RunDirectory.create(tmp_path, RunConfig(), "mab", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"
    with pytest.raises(RunError, match=r"is not a run directory \(it has no config.json\)"):
        RunDirectory.open(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(run, monkeypatch):
    run.write_summary({"value": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_summary({"value": 2})
    assert run.read_summary() == {"value": 1}
    assert {path.name for path in run.path.iterdir()} == {"config.json", "summary.json"}


def test_what_a_killed_first_write_leaves_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".config.tmp.json").write_text("{")
    RunDirectory.create(tmp_path, RunConfig(), "mab")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_only_one_process_trains_in_a_directory(run):
    with run.lock():
        with pytest.raises(RunError, match="another process is training in"), RunDirectory(run.path).lock():
            pass
        with pytest.raises(RunError, match="another process"):
            RunDirectory.create(run.path, RunConfig(), "mab", overwrite=True)
    with run.lock():
        pass


def test_numbers_that_are_none_become_null(run):
    run.write_summary({"a": float("nan"), "b": [1.0, float("inf")]})
    assert json.loads((run.path / "summary.json").read_text()) == {"a": None, "b": [1.0, None]}


def test_damage_and_absence_are_told(run):
    with pytest.raises(RunError, match="does not exist yet"):
        run.read_dataset("metrics.nc")
    (run.path / "metrics.nc").write_bytes(b"not netcdf")
    with pytest.raises(RunError, match="is damaged"):
        run.read_dataset("metrics.nc")
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        run.read_config()
    (run.path / "config.json").write_text('{"preset": "mab", "config": {"nonsense": 1}}')
    with pytest.raises(RunError, match=r"config.json is no valid configuration .*nonsense.*; try --overwrite"):
        run.read_config()
    for text in ('{"preset": "mab", "config": null}', "[]", '{"preset": "mab"}'):
        (run.path / "config.json").write_text(text)
        with pytest.raises(RunError, match="is no valid configuration"):
            run.read_config()


def test_a_path_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write to"):
        RunDirectory.create(tmp_path / "file" / "run", RunConfig(), "mab")
