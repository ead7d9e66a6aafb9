"""What training tells other programs as it runs: a line a chunk, a callback, TensorBoard, Weights & Biases."""

import importlib.util
import json
import shutil
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.running import logs, training
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import train
from runs import Reporter, refused, train_until
from worlds import TINY_RUN

pytestmark = pytest.mark.usefixtures("few_rivals")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def timeless(rows) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, and what its callback was told: the row, and the files that were there already."""
    path, told = tmp_path_factory.mktemp("logs") / "run", []

    def on_chunk(row, state):
        told.append((dict(row), int(state.iteration), lines(path), sorted((path / "checkpoints").iterdir())[-1].stem))

    train(TINY_RUN, path, reporter=Reporter(), on_chunk=on_chunk)
    return path, told


def test_every_chunk_is_a_line_and_a_call_once_it_is_saved(finished):
    path, told = finished
    rows = lines(path)
    assert [row for row, *_ in told] == rows
    for number, (_, iteration, written, checkpoint) in enumerate(told):
        assert (iteration, written, int(checkpoint)) == (2 * number, rows[: number + 1], 2 * number)
    assert [row["iteration"] for row in rows] == [0, 2, 4, 6]
    assert all(row["seconds"] >= 0 for row in rows)
    metrics = RunDirectory(path).read_dataset("metrics.nc")
    table = pd.read_json(path / "metrics.jsonl", lines=True)
    np.testing.assert_allclose(table["validation_regret"], metrics["validation_regret"], rtol=1e-6)
    for name in ("regret", "entropy", "loss", "grad_norm"):
        means = metrics[name].to_numpy().reshape(3, 2).mean(axis=1)
        np.testing.assert_allclose(table[name], [np.nan, *means], rtol=1e-6)
    best = metrics["validation_regret"].to_numpy().argmin()
    assert rows[-1]["best_iteration"] == metrics["validation_iteration"][best]


def test_a_run_that_goes_on_has_every_line_once(finished, tmp_path):
    """Whatever a kill left: a line of a chunk that is lost, half a line, or none."""
    stopped = train_until(2, TINY_RUN, tmp_path / "stopped")
    kept = (stopped / "metrics.jsonl").read_text()
    assert len(kept.splitlines()) == 3
    beyond = json.dumps(lines(finished[0])[-1] | {"regret": 99.0}) + "\n"
    for number, content in enumerate((kept + beyond, kept + '{"iteration": 6, "re', kept[:40], None)):
        run, told = Path(shutil.copytree(stopped, tmp_path / str(number))), []
        (run / "metrics.jsonl").unlink() if content is None else (run / "metrics.jsonl").write_text(content)

        def on_chunk(row, state, told=told):
            told.append(row)

        train(TINY_RUN, run, resume=True, preset="tiny", reporter=Reporter(), on_chunk=on_chunk)
        assert timeless(lines(run)) == timeless(lines(finished[0]))
        assert [row["iteration"] for row in told] == [6]
        if number < 2:
            assert lines(run)[:3] == [json.loads(line) for line in kept.splitlines()]


def test_a_kill_before_the_last_line_loses_nothing(finished, tmp_path, monkeypatch):
    def killed(run, row):
        if row["iteration"] == 6:
            raise RuntimeError("killed")
        append(run, row)

    append = logs.append_line
    with monkeypatch.context() as patch:
        patch.setattr(training, "append_line", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(TINY_RUN, tmp_path / "run", reporter=Reporter())
    assert len(lines(tmp_path / "run")) == 3
    train(TINY_RUN, tmp_path / "run", resume=True, reporter=Reporter())
    assert timeless(lines(tmp_path / "run")) == timeless(lines(finished[0]))


def test_what_a_callback_raises_ends_a_run_that_goes_on(finished, tmp_path):
    def enough(row, state):
        if row["iteration"] == 4:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(TINY_RUN, tmp_path / "run", reporter=Reporter(), on_chunk=enough)
    train(TINY_RUN, tmp_path / "run", resume=True, reporter=Reporter())
    assert timeless(lines(tmp_path / "run")) == timeless(lines(finished[0]))


def test_a_new_run_begins_its_lines_anew(tmp_path):
    train_until(2, TINY_RUN, tmp_path / "run")
    train_until(1, TINY_RUN.replace(seed=1), tmp_path / "run", overwrite=True)
    assert [row["iteration"] for row in lines(tmp_path / "run")] == [0, 2]


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """By name the steps and values of an event file: records of a length, a checksum, an event, a checksum."""
    event_pb2: Any = pytest.importorskip("tensorboardX.proto.event_pb2")
    content, found = path.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event, content = event_pb2.Event.FromString(content[12 : 12 + length]), content[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_has_every_chunk_once_also_of_a_run_that_went_on(finished, tmp_path):
    pytest.importorskip("tensorboardX")
    run = train_until(2, TINY_RUN, tmp_path / "run", log=["tensorboard"])
    train(TINY_RUN, run, resume=True, preset="tiny", reporter=Reporter(), log=["tensorboard"])
    newest = max((run / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    told = scalars(newest)
    rows = lines(finished[0])
    for name in ("validation_regret", "regret"):
        expected = [(row["iteration"], row[name]) for row in rows if name in row]
        assert [step for step, _ in told[name]] == [step for step, _ in expected]
        assert [value for _, value in told[name]] == pytest.approx([value for _, value in expected])


def fake_wandb(monkeypatch, known: int):
    """The part of W&B that is used, which remembers; `known` is what its server knows of a run that goes on."""
    told = SimpleNamespace(init={}, rows=[], open=0)

    class Session:
        summary = {"iteration": known} if known >= 0 else {}

        def __enter__(self):
            told.open += 1

        def __exit__(self, *error):
            told.open -= 1

        def define_metric(self, name, step_metric):
            told.metric = (name, step_metric)

        def log(self, row):
            told.rows.append(row)

    def init(**words):
        told.init = words
        return Session()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=importlib.util.find_spec("json")))
    return told


def test_wandb_is_told_what_it_does_not_know_and_stays_offline(finished, tmp_path, monkeypatch):
    told, copy = fake_wandb(monkeypatch, known=-1), Path(shutil.copytree(finished[0], tmp_path / "copy"))
    run, rows = RunDirectory(copy), lines(finished[0])
    with logs.opened(["wandb"], run, rows[:3]) as (log,):
        assert told.open == 1
        log(rows[3])
    assert (told.rows, told.open, told.metric) == (rows, 0, ("*", "iteration"))
    assert (told.init["mode"], told.init["id"]) == ("offline", run.read_record()["id"])
    assert told.init["config"]["num_scenarios"] == 8
    monkeypatch.setenv("WANDB_MODE", "online")
    told = fake_wandb(monkeypatch, known=2)
    with logs.opened(["wandb"], run, rows[:3]) as (log,):
        log(rows[3])
    assert [row["iteration"] for row in told.rows] == [4, 6]
    assert told.init["mode"] == "online"


@pytest.mark.slow
def test_the_real_wandb_writes_a_run(tmp_path):
    pytest.importorskip("wandb")
    train(TINY_RUN, tmp_path / "run", reporter=Reporter(), log=["wandb"])
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_log_that_cannot_be_kept_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="got log='mlflow', need some of tensorboard, wandb; try"):
        train(TINY_RUN, tmp_path / "run", log=["mlflow"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"log='wandb' without the package wandb, .*/pip install '\.\[wandb\]'"):
        train(TINY_RUN, tmp_path / "run", log=["tensorboard", "wandb"][1:])
    assert not (tmp_path / "run").exists()
    assert "--log" in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", "--log", "mlflow")
