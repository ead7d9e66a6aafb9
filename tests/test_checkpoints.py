"""Checkpoints: what is restored is what was saved, by whom it was saved, or nothing."""

import dataclasses
import shutil
import signal

import jax
import numpy as np
import pytest

from rmft_jax.method.state import TrainState, abstract_state, init
from rmft_jax.running import checkpoints, weights
from rmft_jax.running.checkpoints import Checkpoints, stored
from rmft_jax.running.files import RunError
from rmft_jax.running.history import History, least
from rmft_jax.running.interruption import InterruptedRunError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import load_run, train
from runs import Reporter, content, damage, files_of, last, make_run
from worlds import TINY_RUN

CONFIG = TINY_RUN.replace(refresh_every=2, kl_reference="initial", kl_weight=0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run", CONFIG)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0].path, tmp_path / "run")


def test_what_is_restored_is_what_was_saved(made):
    run, state, past = made
    restored, again = last(CONFIG, run.path)
    assert isinstance(restored, TrainState)
    assert jax.tree.structure(restored) == jax.tree.structure(init(CONFIG.rmft, jax.random.key(3)))
    saved = weights.named(stored(state))
    assert {"memory.initial", "memory.player"} <= {".".join(name.split(".")[:2]) for name in saved}
    for name, value in weights.named(stored(restored)).items():
        np.testing.assert_array_equal(value, saved[name], err_msg=name)
        assert value.dtype == saved[name].dtype
    for field in dataclasses.fields(History):
        jax.tree.map(np.testing.assert_array_equal, getattr(again, field.name), getattr(past, field.name))
    assert (again.done, again.seconds) == (4, 4.5)


def test_only_the_last_two_stay(made):
    assert sorted(made[0].checkpoints.iterdir()) == [made[0].checkpoints / f"0000000{n}.npz" for n in (2, 4)]


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    store = Checkpoints(tmp_path, CONFIG.flat(), pytest.fail)
    assert store.restore(abstract_state(CONFIG.rmft)) is None
    (tmp_path / ".00000002.tmp.npz").write_bytes(b"half")  # What a kill leaves.
    assert store.restore(abstract_state(CONFIG.rmft)) is None
    RunDirectory.create(tmp_path / "run", CONFIG, "tiny")
    with pytest.raises(RunError, match="has no checkpoint yet; try `rmft train --resume --out"):
        load_run(tmp_path / "run")


def test_reading_a_run_never_changes_it(copy):
    damage(copy / "checkpoints/00000004.npz", "truncate")
    (copy / "checkpoints/.00000006.tmp.npz").write_bytes(b"half")
    before, warnings = files_of(copy), []
    policy = load_run(copy, "last", warnings.append)
    assert policy.provenance == {"iteration": 2}
    assert len(warnings) == 1
    assert "checkpoint 00000004.npz is damaged (" in warnings[0]
    assert "; falling back to 00000002.npz" in warnings[0]
    assert files_of(copy) == before


def test_a_stop_signal_during_a_restore_is_not_taken_for_damage(copy, monkeypatch):
    def interrupted(*_):
        raise InterruptedRunError(signal.SIGINT, "stopped")

    before = files_of(copy)
    monkeypatch.setattr(checkpoints, "read_arrays", interrupted)
    with pytest.raises(InterruptedRunError):
        train(CONFIG, copy, resume=True, reporter=Reporter())
    assert files_of(copy) == before


def test_whatever_bit_is_flipped_nothing_else_is_restored(copy):
    """Some bits say nothing, such as those of a date: then all is as it was."""
    path, like = copy / "checkpoints/00000004.npz", abstract_state(CONFIG.rmft)
    whole, before = path.read_bytes(), content(CONFIG, copy)
    older = weights.read_arrays(copy / "checkpoints/00000002.npz")[0]["validation"]
    rng, found = np.random.default_rng(0), 0
    for place in rng.choice(8 * len(whole), 100, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        warnings = []
        restored = Checkpoints(copy / "checkpoints", RunDirectory(copy).identity(), warnings.append).restore(like)
        assert restored is not None
        if warnings:
            found += 1
            np.testing.assert_array_equal(restored[1].validation, older)
        else:
            path_arrays = weights.named(stored(restored[0]), "state.") | dict(restored[1].metrics)
            for name, value in path_arrays.items():
                np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert found > 60


def test_when_every_checkpoint_is_damaged_the_run_says_so(copy):
    damage(copy / "checkpoints", "flip")
    before, names = files_of(copy), r"\(00000004.npz, 00000002.npz\)"
    match = rf"got only damaged checkpoints in .*checkpoints {names}, need a whole one; try .*overwrite=True"
    with pytest.raises(RunError, match=match):
        train(CONFIG, copy, resume=True, reporter=Reporter())
    with pytest.raises(RunError, match=match):
        load_run(copy, warn=lambda line: None)
    assert files_of(copy) == before


def test_the_checkpoints_of_another_run_are_refused(made, tmp_path):
    """Even where all shapes agree."""
    config = CONFIG.replace(step_size=1e-3)
    RunDirectory.create(tmp_path / "run", config, "tiny")
    shutil.copytree(made[0].checkpoints, tmp_path / "run" / "checkpoints")
    before = files_of(tmp_path)
    match = r"00000004\.npz belongs to another run; try another directory for this one"
    with pytest.raises(RunError, match=match):
        train(config, tmp_path / "run", resume=True, reporter=Reporter())
    with pytest.raises(RunError, match=match):
        load_run(tmp_path / "run")
    assert files_of(tmp_path) == before


def test_the_checkpoints_of_version_0_6_are_refused(tmp_path):
    RunDirectory.create(tmp_path, CONFIG, "tiny")
    (tmp_path / "checkpoints/last/4").mkdir(parents=True)
    match = (
        r"holds checkpoints of version 0\.6 or before, which this one cannot read; try rmft-jax==0\.6\.0 for this run"
    )
    with pytest.raises(RunError, match=match):
        train(CONFIG, tmp_path, resume=True, reporter=Reporter())
    with pytest.raises(RunError, match=match):
        load_run(tmp_path)
    assert (tmp_path / "checkpoints/last/4").is_dir()


def test_a_network_of_another_shape_is_told_as_damage(copy):
    """As when a user's policy has changed under its name."""
    warnings: list[str] = []
    like = abstract_state(CONFIG.replace(width=16).rmft)
    with pytest.raises(RunError, match="got only damaged checkpoints"):
        Checkpoints(copy / "checkpoints", RunDirectory(copy).identity(), warnings.append).restore(like)
    assert "is damaged (got shape (" in warnings[0]
    assert ", need shape (" in warnings[0]


def test_what_is_no_number_is_never_the_lowest():
    assert least(np.asarray([3.0, np.nan, 2.0, 2.0])) == 2
    assert least(np.asarray([np.nan, np.nan])) == 0
    past, params = History.fresh(1), {"weight": np.zeros((1, 1))}
    for iteration, regret in enumerate([3.0, np.nan, 2.0]):
        past.add_validation(iteration, np.asarray([[regret, regret]]), {"weight": params["weight"] + iteration})
    assert past.best_iteration.tolist() == [2], "one that is no number is not in the way of later ones"
    assert past.best is not None
    assert past.best_of()["weight"].item() == 2.0
