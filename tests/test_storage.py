import json
import os
import shlex

import numpy as np
import pytest
import xarray as xr

from rmft_jax.agents import SingleLayer
from rmft_jax.method.presets import PRESETS
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Stationary
from rmft_jax.running.files import RunError
from rmft_jax.running.interruption import StopSignals
from rmft_jax.running.storage import RunDirectory
from runs import elsewhere

DATASET = xr.Dataset({"regret": (("round",), np.arange(5.0))}, attrs={"seed": 3})


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", RunConfig(seed=4), "mab")


def test_the_configuration_survives(run):
    assert RunDirectory.open(run.path).read_config() == (RunConfig(seed=4), "mab")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives(tmp_path, name):
    config = PRESETS[name][1].replace(step_size=0.1 + 0.2) if name == "nsmab" else PRESETS[name][1]
    run = RunDirectory.create(tmp_path, config, name)
    assert run.read_config() == (config, name)
    content = json.loads((tmp_path / "config.json").read_text())
    assert set(content) == {"preset", "import", "id", "config"}
    assert not any(isinstance(value, dict) for value in content["config"].values())
    assert content["config"]["environment"] == config.rmft.environment.name


# As version 0.6 wrote `rmft train single-layer`.
_OF_0_6 = """{"preset": "single-layer", "config": {"rmft": {"environment": {"family": "bandit", "num_arms": 3,
"feedback": "full", "noise": "gaussian", "noise_std": 1.0, "noise_concentration": 4.0, "prior": "gaussian",
"prior_mean": 0.0, "prior_std": 0.7, "gap": 0.2}, "policy": {"family": "single_layer", "attention": "linear",
"key_size": 8, "trained": "value", "init_std": 0.0}, "horizon": 50, "num_iterations": 100, "num_scenarios": 1024,
"num_rollouts": 8, "k": 2, "objective": "rmft", "behavior": "policy", "refresh_every": 1, "selection": "regret",
"branching": "none", "shared_reward_noise": true, "selection_regret": "standard", "selection_form": "standard",
"temperature": 1.0, "decision_map": "softmax", "radius": 1.0, "exploration_std": 1.0, "full_loss": "squared_error",
"update": "least_squares", "l2_penalty": 0.0, "num_epochs": 1, "num_minibatches": 4, "step_size": 0.002,
"schedule": "cosine", "max_grad_norm": 1.0, "entropy_weight": 0.0, "kl_reference": "none", "kl_weight": 0.0,
"replay": 0, "average_window": 0, "rollout_block": 0, "update_block": 0}, "seed": 7, "chunk_size": 10,
"num_validation_scenarios": 1024, "num_test_scenarios": 4096}}"""


def test_what_version_0_6_wrote_is_read(tmp_path):
    (tmp_path / "config.json").write_text(_OF_0_6)
    config, preset = RunDirectory.open(tmp_path).read_config()
    assert (preset, config) == ("single-layer", PRESETS["single-layer"][1].replace(seed=7))
    assert config.rmft.policy == SingleLayer(key_size=8)
    assert isinstance(config.rmft.environment, Stationary)
    (tmp_path / "config.json").write_text(_OF_0_6.replace('"replay": 0', '"replay": 4'))
    with pytest.raises(RunError, match=r"got replay=4, need a setting that is still there; try rmft-jax==0\.6\.0"):
        RunDirectory.open(tmp_path).read_config()


def test_datasets_survive(run):
    run.write_dataset("evaluation.nc", DATASET)
    xr.testing.assert_identical(run.read_dataset("evaluation.nc"), DATASET)


def test_a_run_is_not_replaced_unless_asked(run):
    run.write_dataset("metrics.nc", DATASET)
    with pytest.raises(RunError, match="already holds a run; try resume=True to continue it or overwrite=True"):
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
    assert {path.name for path in run.path.iterdir()} == {".lock", "config.json", "summary.json"}


def test_what_a_killed_first_write_leaves_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".config.17-3.tmp.json").write_text("{")
    RunDirectory.create(tmp_path, RunConfig(), "mab")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}


def test_only_one_process_trains_in_a_directory(run):
    with run.lock(), elsewhere() as submit:
        with pytest.raises(RunError, match="another process works in"):
            submit(RunDirectory.create, run.path, RunConfig(), "mab", overwrite=True)
        with RunDirectory(run.path).lock():  # Who has it may take it again.
            pass
    with elsewhere() as submit:
        submit(RunDirectory.create, run.path, RunConfig(), "mab", overwrite=True)


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
    with pytest.raises(RunError, match=r"config.json is of no use here .*nonsense.*; try `rmft train --overwrite"):
        run.read_config()
    for text in ('{"preset": "mab", "config": null}', "[]", "3", '{"preset": "mab"}', '{"import": 3}', "null"):
        (run.path / "config.json").write_text(text)
        with pytest.raises(RunError, match="is of no use here"):
            run.read_config()


def test_a_path_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write to"):
        RunDirectory.create(tmp_path / "file" / "run", RunConfig(), "mab")


def test_weights_to_start_from_are_there_before_the_run_is(tmp_path):
    """So that a run which is killed as it begins never goes on from other weights."""

    def killed(path):
        path.write_text("whole")
        assert not (tmp_path / "config.json").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunDirectory.create(tmp_path, RunConfig(), "mab", write_start=killed)
    assert not RunDirectory(tmp_path).exists()
    assert not RunDirectory.create(tmp_path, RunConfig(), "mab").start.exists()
    run = RunDirectory.create(tmp_path, RunConfig(), "mab", overwrite=True, write_start=lambda path: path.touch())
    assert run.start.exists()
    assert not RunDirectory.create(tmp_path, RunConfig(), "mab", overwrite=True).start.exists()


def test_a_link_to_checkpoints_is_removed_and_not_what_it_links_to(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").write_text("x")
    run.checkpoints.symlink_to(tmp_path / "elsewhere")
    RunDirectory.create(run.path, RunConfig(), "mab", overwrite=True)
    assert not run.checkpoints.exists()
    assert (tmp_path / "elsewhere" / "thesis.tex").read_text() == "x"


def test_code_that_cannot_be_imported_is_no_reason_to_train_anew(run):
    record = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps(record | {"import": ["worlds_that_are_not_here"]}))
    with pytest.raises(RunError, match=r"cannot be imported here .*worlds_that_are_not_here.*mend or install") as told:
        run.read_config()
    assert "overwrite" not in str(told.value)


def test_commands_that_are_proposed_can_be_pasted_whatever_a_directory_is_called(tmp_path):
    run = RunDirectory(tmp_path / "my runs")
    for command in (run.anew, run.further):
        assert shlex.split(command.strip("`"))[-1] == str(run.path)
    assert shlex.split(StopSignals(run.path, print)._resume)[-1] == str(run.path)
