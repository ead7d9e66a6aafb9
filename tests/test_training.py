"""The outer loop: what a run leaves behind, and that stopping it in any way changes nothing."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from worlds import TINY_RUN

from rmft_jax import checkpoints, rmft, training
from rmft_jax.checkpoints import Checkpoints
from rmft_jax.config import BanditConfig, SingleLayerConfig, to_dict
from rmft_jax.interruption import InterruptedRunError
from rmft_jax.progress import ProgressReporter
from rmft_jax.storage import RunDirectory, RunError
from rmft_jax.training import RunKeys, TrainingDivergedError, load_agent, train


class Reporter(ProgressReporter):
    def __init__(self):
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))


def last_state(config, path):
    store = Checkpoints(path / "checkpoints", read_only=True)
    restored = store.restore_last(rmft.abstract_state(config.rmft))
    store.close()
    assert restored is not None
    return restored


def assert_same_run(config, first, second):
    """Parameters, optimizer state and metrics, bit for bit."""
    states = [last_state(config, path)[0] for path in (first, second)]
    plain = [
        jax.tree.map(np.asarray, dataclasses.replace(state, key=jax.random.key_data(state.key))) for state in states
    ]
    jax.tree.map(np.testing.assert_array_equal, *plain)
    for name in ("metrics.nc", "evaluation.nc"):
        datasets = [RunDirectory(path).read_dataset(name) for path in (first, second)]
        xr.testing.assert_identical(*datasets)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, to compare with."""
    config = TINY_RUN
    path = tmp_path_factory.mktemp("finished") / "run"
    return config, path, train(config, path, preset="tiny", reporter=Reporter())


def interrupt_after(monkeypatch, chunks: int, number: int = signal.SIGINT):
    """Sends this process a signal while chunk number `chunks` runs."""
    wait, count = training.wait, 0

    def sending(result):
        nonlocal count
        count += 1
        if count == chunks:
            os.kill(os.getpid(), number)
        wait(result)

    monkeypatch.setattr(training, "wait", sending)


def test_a_run_leaves_everything_it_promises(finished):
    config, path, summary = finished
    assert json.loads((path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert set(summary["evaluation"]) == {
        "rmft", "ucb1", "posterior_index", "thompson", "greedy", "epsilon_greedy", "uniform", "best_fixed_arm",
        "best_arm",
    }  # fmt: skip
    keys = {"regret_mean", "regret_ci95", "suff_fail_freq", "min_frac", "greedy_frac"}
    assert all(keys <= set(row) for row in summary["evaluation"].values())
    assert {"preset", "seed", "device", "versions", "wall_seconds", "compile_seconds", "env_steps"} <= set(summary)
    assert summary["env_steps"] == 6 * 8 * 4 * 6
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    metrics = RunDirectory(path).read_dataset("metrics.nc")
    np.testing.assert_array_equal(metrics["iteration"], np.arange(1, 7))
    np.testing.assert_array_equal(metrics["validation_iteration"], [0, 2, 4, 6])
    assert set(training.METRICS) <= set(metrics.data_vars)
    assert RunDirectory(path).read_config() == (config, "tiny")


def test_the_best_checkpoint_is_the_one_of_lowest_validation_regret(finished):
    config, path, summary = finished
    metrics = RunDirectory(path).read_dataset("metrics.nc")
    regret = metrics["validation_regret"].to_numpy()
    best = [i for i in range(len(regret)) if regret[i] <= regret[: i + 1].min()][-1]
    assert summary["checkpoint_iteration"] == int(metrics["validation_iteration"][best])
    agent, iteration = training.load_agent(RunDirectory(path))
    assert iteration == summary["checkpoint_iteration"]
    again = training.evaluate_run(config, agent, RunKeys.create(config.seed).test)
    xr.testing.assert_identical(again, RunDirectory(path).read_dataset("evaluation.nc"))


def test_a_finished_run_is_not_trained_again(finished):
    config, path, summary = finished
    reporter = Reporter()
    assert train(config, path, resume=True, reporter=reporter) == json.loads(json.dumps(summary))
    assert "nothing to resume" in reporter.text.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_leaves_a_run_that_resumes_bit_for_bit(finished, tmp_path, monkeypatch, number):
    config, path, _ = finished
    before, reporter = signal.getsignal(number), Reporter()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, number)
        with pytest.raises(InterruptedRunError, match="stopped at iteration 4; continue with: rmft train") as stop:
            train(config, tmp_path / "run", preset="tiny", reporter=reporter)
    assert stop.value.signal_number == number
    assert signal.getsignal(number) == before
    assert "stopping when this chunk is saved" in reporter.text.getvalue()
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=reporter)
    assert "resuming" in reporter.text.getvalue()
    assert_same_run(config, path, tmp_path / "run")


def test_metrics_beyond_the_checkpoint_are_dropped_and_made_again(finished, tmp_path, monkeypatch):
    """As after a crash between writing the metrics and the checkpoint."""
    config, path, _ = finished
    save, calls = Checkpoints.save, []

    def crash_on_third(self, state, progress):
        calls.append(int(state.iteration))
        if len(calls) == 3:
            raise RuntimeError("crash")
        save(self, state, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", crash_on_third)
        with pytest.raises(RuntimeError, match="crash"):
            train(config, tmp_path / "run", preset="tiny", reporter=Reporter())
    assert RunDirectory(tmp_path / "run").read_dataset("metrics.nc").sizes["iteration"] == 4
    assert last_state(config, tmp_path / "run")[0].iteration == 2
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, tmp_path / "run")


def test_a_crash_between_the_two_saves_of_the_first_checkpoint_can_be_resumed(finished, tmp_path, monkeypatch):
    config, path, _ = finished
    save = checkpoints._save

    def crash_on_last(manager, state, progress):
        if manager.directory.name == "last":
            raise RuntimeError("crash")
        save(manager, state, progress)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_save", crash_on_last)
        with pytest.raises(RuntimeError, match="crash"):
            train(config, tmp_path / "run", preset="tiny", reporter=Reporter())
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, tmp_path / "run")


def test_a_checkpoint_that_cannot_be_written_is_told_in_one_line(finished, tmp_path, monkeypatch):
    config, _, _ = finished

    def full(*args):
        raise ValueError("RESOURCE_EXHAUSTED: no space left on device\nand a long tail")

    monkeypatch.setattr(checkpoints, "_save", full)
    with pytest.raises(OSError, match=r"cannot write checkpoint 0 in .*RESOURCE_EXHAUSTED: no space left") as error:
        train(config, tmp_path / "run", reporter=Reporter())
    assert "\n" not in str(error.value)


def test_reading_a_run_never_changes_it(finished, tmp_path):
    _, path, _ = finished
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(path, copy.path)
    damage(copy.checkpoints / "last/6", "truncate")
    busy = copy.checkpoints / "last/8.orbax-checkpoint-tmp"
    busy.mkdir()
    warnings = []
    _, iteration = training.load_agent(copy, "last", warnings.append)
    assert iteration == 4
    assert "last/6 is damaged" in warnings[0]
    assert (copy.checkpoints / "last/6").exists()
    assert busy.exists()


def test_a_stop_signal_during_a_restore_is_not_taken_for_damage(finished, tmp_path, monkeypatch):
    config, path, _ = finished
    shutil.copytree(path, tmp_path / "run")

    def stopped(*args):
        raise InterruptedRunError(signal.SIGINT, "stopped")

    monkeypatch.setattr(checkpoints, "_restore", stopped)
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path / "run", resume=True, reporter=Reporter())
    assert (tmp_path / "run/checkpoints/last/6").exists()


def damage(folder, how):
    for file in folder.rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            if how == "truncate":
                content = content[: len(content) // 2]
            elif len(content) > 500:
                content[len(content) // 2] ^= 0xFF
            file.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(finished, tmp_path, monkeypatch, how):
    config, path, _ = finished
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(InterruptedRunError):
            train(config, tmp_path / "run", preset="tiny", reporter=Reporter())
    damage(tmp_path / "run/checkpoints/last/4", how)
    reporter = Reporter()
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=reporter)
    text = reporter.text.getvalue()
    assert "last/4 is damaged" in text
    assert "falling back to last/2" in text
    assert "at iteration 2 of 6" in text
    assert_same_run(config, path, tmp_path / "run")


def test_when_every_checkpoint_is_damaged_the_run_says_so(finished, tmp_path, monkeypatch):
    config, _, _ = finished
    interrupt_after(monkeypatch, 1)
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path / "run", reporter=Reporter())
    damage(tmp_path / "run/checkpoints", "truncate")
    with pytest.raises(RunError, match=r"got only damaged checkpoints in .*last/2.*need a whole one; try"):
        train(config, tmp_path / "run", resume=True, reporter=Reporter())


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config = dataclasses.replace(TINY_RUN, rmft=dataclasses.replace(TINY_RUN.rmft, step_size=1e38, max_grad_norm=1e38))
    with pytest.raises(TrainingDivergedError, match=r"NaN or infinite .*the checkpoint of iteration 0 is kept; try"):
        train(config, tmp_path / "run", reporter=Reporter())
    state, _ = last_state(config, tmp_path / "run")
    assert state.iteration == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_changed_configuration_is_not_resumed(finished):
    config, path, _ = finished
    changed = dataclasses.replace(config, seed=9, rmft=dataclasses.replace(config.rmft, k=1))
    with pytest.raises(RunError, match=r"k: the run has 2, got 1; seed: the run has 0, got 9"):
        train(changed, path, resume=True, reporter=Reporter())


def test_validation_test_and_training_streams_differ():
    keys = RunKeys.create(0)
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in (keys.train, keys.validation, keys.test)}
    assert len(data) == 3


def start_process(config, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    given = path.parent / "given.json"
    given.write_text(json.dumps(to_dict(config)))
    program = (
        "import json, sys, pathlib; from rmft_jax.config import from_dict; from rmft_jax import train;"
        "train(from_dict(json.load(open(sys.argv[1]))), pathlib.Path(sys.argv[2]), preset='tiny', resume=True)"
    )
    return subprocess.Popen([sys.executable, "-P", "-c", program, given, path], stderr=subprocess.DEVNULL)


def kill_when(process, condition, delay):
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.wait()


def test_a_killed_run_resumes_bit_for_bit(finished, tmp_path):
    config, path, _ = finished
    run = tmp_path / "run"
    process = start_process(config, run)
    kill_when(process, (run / "checkpoints/last/2").exists, 0.0)
    assert not (run / "summary.json").exists()
    train(config, run, preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, run)


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_random_moments_resumes_bit_for_bit(finished, tmp_path):
    config, _, _ = finished
    config = dataclasses.replace(config, rmft=dataclasses.replace(config.rmft, num_iterations=60))
    train(config, tmp_path / "whole", preset="tiny", reporter=Reporter())
    rng, run = np.random.default_rng(0), tmp_path / "killed" / "run"
    for _ in range(8):
        process = start_process(config, run)
        kill_when(process, (run / "config.json").exists, 4.0 + 6.0 * rng.random())
    assert start_process(config, run).wait() == 0
    assert_same_run(config, tmp_path / "whole", run)


def test_a_checkpoint_of_version_0_2_is_still_restored(finished, tmp_path, monkeypatch):
    """It holds numbers of the configuration too, those that there were, and its run names no family of policies."""
    config, path, _ = finished
    shutil.copytree(path, tmp_path / "old")
    state, progress = last_state(config, path)
    stored = checkpoints.to_arrays(state) | {
        "config.step_size": np.float32(9),
        "config.environment.gap": np.float32(9),
    }
    monkeypatch.setattr(checkpoints, "to_arrays", lambda _: stored)
    for name in ("best", "last"):
        shutil.rmtree(tmp_path / "old" / "checkpoints" / name)
    store = Checkpoints(tmp_path / "old" / "checkpoints")
    store.save(state, progress)
    store.close()
    monkeypatch.undo()
    values = json.loads((tmp_path / "old" / "config.json").read_text())
    text = json.dumps(values)
    assert '"family": "transformer", ' in text
    (tmp_path / "old" / "config.json").write_text(text.replace('"family": "transformer", ', ""))
    agent, iteration = load_agent(RunDirectory.open(tmp_path / "old"), warn=pytest.fail)
    assert iteration == config.rmft.num_iterations
    jax.tree.map(np.testing.assert_array_equal, agent.params, state.params)
    restored = last_state(config, tmp_path / "old")[0]
    assert restored.config.step_size == np.float32(config.rmft.step_size)


def test_a_single_layer_trains_resumes_and_is_evaluated(tmp_path):
    """Play in a ball has the rivals of a ball, and the exact fit goes through the same runs as Adam."""
    config = dataclasses.replace(
        TINY_RUN,
        rmft=dataclasses.replace(
            TINY_RUN.rmft,
            environment=BanditConfig(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
            policy=SingleLayerConfig(key_size=1),
            decision_map="identity",
            shared_reward_noise=True,
            entropy_weight=0.0,
            update="least_squares",
        ),
    )
    summary = train(config, tmp_path / "run", preset="tiny", reporter=Reporter())
    assert set(summary["evaluation"]) == {"rmft", "ftrl", "follow_the_leader"}
    assert summary["evaluation"]["ftrl"]["regret_mean"] > 0
    assert "minus_reference" in summary["evaluation"]["rmft"]
    agent, _ = load_agent(RunDirectory.open(tmp_path / "run"))
    assert agent.score_map.decision_map == "ball"
    assert np.abs(agent.value).max() > 0
