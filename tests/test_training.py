"""The outer loop: what a run leaves behind, and that stopping it in any way changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from rmft_jax.agents import SingleLayer
from rmft_jax.problems import Ball, Stationary
from rmft_jax.running import history, training
from rmft_jax.running.checkpoints import Checkpoints
from rmft_jax.running.files import RunError
from rmft_jax.running.interruption import InterruptedRunError, StopSignals
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys, TrainingDivergedError
from rmft_jax.running.training import evaluate_run, load_run, train
from runs import (
    Reporter,
    assert_same_run,
    content,
    damage,
    files_of,
    interrupt_after,
    last,
    train_until,
)
from worlds import TINY_RUN

pytestmark = pytest.mark.usefixtures("few_rivals")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, to compare with."""
    config = TINY_RUN
    path = tmp_path_factory.mktemp("finished") / "run"
    return config, path, train(config, path, preset="tiny", reporter=Reporter())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same run, stopped after its second chunk; to be copied."""
    return train_until(2, TINY_RUN, tmp_path_factory.mktemp("stopped") / "run")


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of the stopped run."""
    return shutil.copytree(stopped, tmp_path / "run")


def test_a_run_leaves_everything_it_promises(finished):
    config, path, summary = finished
    assert json.loads((path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert set(summary["evaluation"]) == {"rmft", "ucb1", "posterior_index"}
    keys = {"regret_mean", "regret_ci95", "suff_fail_freq", "min_frac", "greedy_frac"}
    assert all(keys <= set(row) for row in summary["evaluation"].values())
    assert {"preset", "seed", "device", "versions", "wall_seconds", "compile_seconds", "env_steps"} <= set(summary)
    assert summary["env_steps"] == 6 * 8 * 4 * 6
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    metrics = RunDirectory(path).read_dataset("metrics.nc")
    np.testing.assert_array_equal(metrics["iteration"], np.arange(1, 7))
    np.testing.assert_array_equal(metrics["validation_iteration"], [0, 2, 4, 6])
    assert set(history.METRICS) <= set(metrics.data_vars)
    assert RunDirectory(path).read_config() == (config, "tiny")
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == ["00000004.npz", "00000006.npz"]


def test_the_best_checkpoint_is_the_one_of_lowest_validation_regret(finished, monkeypatch):
    (config, path, summary), asked = finished, []
    metrics = RunDirectory(path).read_dataset("metrics.nc")
    regret = metrics["validation_regret"].to_numpy()
    best = [i for i in range(len(regret)) if regret[i] <= regret[: i + 1].min()][-1]
    assert summary["checkpoint_iteration"] == int(metrics["validation_iteration"][best])
    policy = load_run(path)
    assert policy.provenance == {"iteration": summary["checkpoint_iteration"]}
    assert (policy.config, policy.preset) == (config, "tiny")
    again = evaluate_run(config, policy.agent, RunKeys.create(config.seed).test)
    xr.testing.assert_identical(again, RunDirectory(path).read_dataset("evaluation.nc"))
    monkeypatch.setattr(training, "make_baselines", lambda problem: asked.append(problem) or {})
    evaluate_run(config, policy.agent, RunKeys.create(config.seed).test, num_arms=2)
    assert [problem.existing.num_arms for problem in asked] == [2], "rivals know how many arms there are"
    assert load_run(path, "last").provenance == {"iteration": 6}
    state, _ = last(config, path)
    jax.tree.map(np.testing.assert_array_equal, load_run(path, "last").agent.params, state.params)


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


@pytest.mark.parametrize(("crash", "metrics", "saved"), [(3, 4, 2), (1, 0, None)])
def test_metrics_beyond_the_checkpoint_are_dropped_and_made_again(
    finished, tmp_path, monkeypatch, crash, metrics, saved
):
    """As after a crash between writing the metrics and the checkpoint."""
    config, path, _ = finished
    save, calls = Checkpoints.save, []

    def crashing(self, state, past):
        calls.append(past.done)
        if len(calls) == crash:
            raise RuntimeError("crash")
        save(self, state, past)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", crashing)
        with pytest.raises(RuntimeError, match="crash"):
            train(config, tmp_path / "run", preset="tiny", reporter=Reporter())
    assert RunDirectory(tmp_path / "run").read_dataset("metrics.nc").sizes["iteration"] == metrics
    if saved is not None:
        assert last(config, tmp_path / "run")[0].iteration == saved
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, tmp_path / "run")


def test_metrics_that_are_lost_are_made_from_the_checkpoint(finished, copy):
    config, path, _ = finished
    (copy / "metrics.nc").write_bytes(b"no netCDF")
    train(config, copy, preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, copy)


def test_a_full_disk_leaves_the_checkpoints_before(finished, copy, monkeypatch):
    config, path, _ = finished
    before = files_of(copy / "checkpoints")

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            train(config, copy, preset="tiny", resume=True, reporter=Reporter())
    assert files_of(copy / "checkpoints") == before
    train(config, copy, preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, path, copy)


@pytest.mark.parametrize("how", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(finished, copy, how):
    config, path, _ = finished
    damage(copy / "checkpoints/00000004.npz", how)
    reporter = Reporter()
    train(config, copy, preset="tiny", resume=True, reporter=reporter)
    text = reporter.text.getvalue()
    assert "checkpoint 00000004.npz is damaged (" in text
    assert "; falling back to 00000002.npz" in text
    assert "at iteration 2 of 6" in text
    assert_same_run(config, path, copy)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(finished, tmp_path):
    config = finished[0].replace(step_size=1e38, max_grad_norm=1e38)
    match = r"NaN or infinite (at|by) iteration \d; try a smaller step_size.*; the checkpoint before it is kept"
    with pytest.raises(TrainingDivergedError, match=match):
        train(config, tmp_path / "run", reporter=Reporter())
    state, past = last(config, tmp_path / "run")
    assert (state.iteration, past.done) == (0, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 9, "k": 1}, "(k: the run has 2, got 1; seed: the run has 0, got 9)"),
        (
            {"selection": "advantage"},
            "(selection: the run has 'regret', got 'advantage'; selection_temperature: the run has None, got 0.0)",
        ),
        (
            {"objective": "dpt"},
            "(objective: the run has 'imitation', got 'dpt'; behavior: the run has None, got 'policy')",
        ),
        (
            {"environment": "abrupt"},
            "(environment: the run has 'stationary', got 'abrupt'; prior: ",
        ),
    ],
)
def test_a_changed_configuration_is_not_resumed(finished, changes, message):
    config, path, _ = finished
    with pytest.raises(RunError) as error:
        train(config.replace(**changes), path, resume=True, reporter=Reporter())
    assert f"cannot resume {path} with a changed configuration" in str(error.value)
    assert message in str(error.value)


def test_validation_test_and_training_streams_differ():
    keys = RunKeys.create(0)
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in (keys.train, keys.validation, keys.test)}
    assert len(data) == 3


# Stops in the middle of writing the checkpoint of iteration 4, half of which is there.
HANGING = """
import time
import numpy as np
savez, calls = np.savez, []
def hanging(file, **arrays):
    calls.append(file)
    if len(calls) == 3:
        file.write(b"half"), file.flush(), time.sleep(600)
    savez(file, **arrays)
np.savez = hanging
"""
TRAINING = """
import sys
from pathlib import Path
from typing import Any
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import train
config, preset = RunDirectory.open(Path(sys.argv[1])).read_config()
train(config, sys.argv[1], preset=preset, resume=True)
"""


def start_process(config, path, before=""):
    """A process that trains the run in this directory."""
    if not path.exists():
        RunDirectory.create(path, config, "tiny")
    with path.with_suffix(".log").open("w") as log:
        return subprocess.Popen([sys.executable, "-P", "-c", before + TRAINING, path], stderr=log)


def kill_when(process, condition, delay):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 300, "what it waits for never comes"
        assert process.poll() is None, Path(process.args[-1]).with_suffix(".log").read_text()
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.wait()


def test_a_killed_run_resumes_bit_for_bit(finished, tmp_path):
    config, path, _ = finished
    run, half = tmp_path / "run", lambda: list((tmp_path / "run/checkpoints").glob(".00000004.*.tmp.npz"))
    kill_when(start_process(config, run, HANGING), lambda: half() and half()[0].stat().st_size, 0.0)
    assert [path.read_bytes() for path in half()] == [b"half"]
    reporter = Reporter()
    train(config, run, preset="tiny", resume=True, reporter=reporter)
    assert "at iteration 2 of 6" in reporter.text.getvalue()
    assert_same_run(config, path, run)
    assert not half()


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_random_moments_resumes_bit_for_bit(finished, tmp_path):
    config = finished[0].replace(num_iterations=2000)
    assert start_process(config, tmp_path / "whole").wait() == 0
    rng, run, kills = np.random.default_rng(0), tmp_path / "run", 0
    newest = lambda: max((run / "checkpoints").glob("[0-9]*.npz"), default=None)  # noqa: E731
    while kills < 8 and not (run / "summary.json").exists():
        process, before = start_process(config, run), newest()
        # As it begins, as it trains, and between the two.
        condition = (lambda before=before: newest() != before) if kills % 2 else (run / "config.json").exists
        kill_when(process, condition, 4.0 * rng.random())
        kills += 1
    assert kills > 3
    assert start_process(config, run).wait() == 0
    assert_same_run(config, tmp_path / "whole", run)


def test_a_single_layer_trains_resumes_and_is_evaluated(tmp_path):
    """Play in a ball has the rivals of a ball, and the exact fit goes through the same runs as Adam.

    The policy that plays is neither the newest nor the best, and is remembered too.
    """
    config = TINY_RUN.replace(
        environment=Stationary(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
        policy=SingleLayer(key_size=1),
        decision_map="identity",
        shared_reward_noise=True,
        entropy_weight=0.0,
        update="least_squares",
        refresh_every=3,
    )
    summary = train(config, tmp_path / "whole", preset="tiny", reporter=Reporter())
    assert set(summary["evaluation"]) == {"rmft", "ftrl", "follow_the_leader"}
    assert summary["evaluation"]["ftrl"]["regret_mean"] > 0
    assert "minus_reference" in summary["evaluation"]["rmft"]
    agent: Any = load_run(tmp_path / "whole").agent
    assert isinstance(agent.score_map, Ball)
    assert np.abs(agent.value).max() > 0
    train_until(2, config, tmp_path / "run")
    arrays = content(config, tmp_path / "run")
    player = [name for name in arrays if name.startswith("state.memory.player.")]
    assert any((arrays[name] != arrays[name.replace("memory.player", "params")]).any() for name in player)
    train(config, tmp_path / "run", preset="tiny", resume=True, reporter=Reporter())
    assert_same_run(config, tmp_path / "whole", tmp_path / "run")


def test_signals_are_held_back_once_and_only_where_asked():
    notes: list[str] = []
    with StopSignals(Path("there"), notes.append) as stop:
        with pytest.raises(
            InterruptedRunError, match="stopped at once; continue with: rmft train --resume --out there"
        ):
            os.kill(os.getpid(), signal.SIGTERM)
        with stop.deferred():
            stop.check("nothing came")
            os.kill(os.getpid(), signal.SIGTERM)
            assert notes == ["stopping when this chunk is saved; once more to stop at once"]
            with pytest.raises(InterruptedRunError, match="saved; continue with: rmft train --resume") as held:
                stop.check("saved")
            with pytest.raises(InterruptedRunError, match="stopped at once") as second:
                os.kill(os.getpid(), signal.SIGINT)
    assert (held.value.signal_number, second.value.signal_number) == (signal.SIGTERM, signal.SIGINT)


def test_another_thread_leaves_signals_alone():
    before, inside = signal.getsignal(signal.SIGINT), []

    def enter():
        with StopSignals(Path("there"), print):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]
