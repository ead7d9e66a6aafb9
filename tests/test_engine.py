"""Sweeps as few programs: what a cell becomes does not depend on its company, its padding, or interruptions."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
import xarray as xr

from rmft_jax import Sweep, load_policy, load_sweep
from rmft_jax.agents import make_agents
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import RESULTS
from rmft_jax.method.evaluation import evaluate
from rmft_jax.running import training
from rmft_jax.running.checkpoints import Checkpoints
from rmft_jax.running.files import RunError
from rmft_jax.running.history import METRICS
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.training import train
from rmft_jax.sweeps import batches
from rmft_jax.sweeps.batches import make_tasks
from rmft_jax.sweeps.run import checked_plan, run_sweep
from sweeping import (
    CHUNKS,
    GRID,
    SWEEP,
    TINY_OVERRIDE,
    KeptPrograms,
    Quiet,
    assert_equal,
    cell_times,
    interrupted,
    run,
)
from worlds import TINY_RUN


@pytest.fixture(scope="module")
def programs() -> KeptPrograms:
    return KeptPrograms()


@pytest.fixture(scope="module")
def compiled() -> list[str]:
    """The names of the programs that were compiled for the sweep."""
    return []


@pytest.fixture(scope="module")
def batched(tmp_path_factory, programs, compiled):
    """The sweep in batches of three, with its path."""

    def listen(event: str, duration_secs: float, **described: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(described["fun_name"]))

    path = tmp_path_factory.mktemp("engine") / "batched"
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        dataset, outcome = run(SWEEP, path, cells_per_batch=3, executor=programs)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert (outcome.finished, outcome.failures, outcome.missing) == (8, {}, 0)
    return dataset, path


def test_three_programs_serve_all_cells_and_nothing_else_compiles(batched, compiled):
    assert compiled == ["jit(_start)", "jit(_advance)", "jit(_evaluate)"]


def test_no_setting_may_have_the_name_of_a_result(batched):
    dataset, _ = batched
    settings = {field for columns in SWEEP.dimensions().values() for field in columns}
    names = {str(name) for name in (*dataset.variables, *dataset.dims)} - settings
    assert {name for name in names if not name.startswith("baseline_")} <= set(RESULTS)


def test_the_dataset_has_what_it_promises(batched):
    dataset, path = batched
    own = {name: dataset[name].dims[3:] for name in dataset.data_vars}
    scalars = {
        "final_regret", "final_regret_sem", "minus_reference", "minus_reference_sem", "trend_p", "sublinear_p",
        "exponent", "exponent_low",
        "exponent_high", "invalid", "min_frac", "greedy_frac", "best_iteration", "wall_seconds", "status",
    }  # fmt: skip
    per_iteration = {
        "training_regret", "selected_regret", "loss", "grad_norm", "entropy", "training_suff_fail_freq",
        "training_invalid", "regret_spread",
    }  # fmt: skip
    assert own == (
        dict.fromkeys(scalars, ())
        | dict.fromkeys(["regret", "regret_sem", "suff_fail_freq", "suff_fail_freq_sem"], ("round",))
        | {"rank_frequency": ("rank", "round")}
        | {
            f"baseline_{name}": ("agent",)
            for name in ("final_regret", "final_regret_sem", "exponent", "trend_p", "sublinear_p")
        }
        | {
            f"baseline_{name}": ("agent", "round")
            for name in ("regret", "regret_sem", "suff_fail_freq", "suff_fail_freq_sem")
        }
        | dict.fromkeys(per_iteration, ("iteration",))
        | dict.fromkeys(["validation_regret", "validation_regret_sem"], ("validation_iteration",))
    )
    assert all(dataset[name].dims[:3] == ("horizon", "num_arms", "seed") for name in own)
    assert dataset["iteration"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert dataset["validation_iteration"].values.tolist() == [0, 2, 4, 6]
    assert (dataset.attrs["regret"], dataset.attrs["reference"]) == ("pseudo", "thompson")
    assert {"versions", "git_commit", "device", "created", "spec", "preset"} <= set(dataset.attrs)
    assert (dataset.wall_seconds > 0).all()
    assert (dataset.status == "finished").all()
    assert {file.name for file in path.iterdir()} == {"sweep.json", "sweep.nc", "cells", ".lock"}


def test_padding_is_not_in_the_dataset(batched):
    dataset, _ = batched
    np.testing.assert_array_equal(dataset.regret.count("round"), np.broadcast_to([[[6]], [[8]]], (2, 2, 2)))
    ranks = dataset.rank_frequency.isel(round=0)
    np.testing.assert_array_equal(ranks.count("rank"), np.broadcast_to([[[3], [4]]], (2, 2, 2)))
    sums = dataset.rank_frequency.sum("rank").where(dataset.regret.notnull(), 1.0)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    for num_arms in (3, 4):
        np.testing.assert_allclose(dataset.entropy.sel(num_arms=num_arms, iteration=1), np.log(num_arms), atol=0.05)
    last = dataset.regret.sel(horizon=6, round=6)
    np.testing.assert_array_equal(dataset.final_regret.sel(horizon=6), last)


@pytest.mark.slow
def test_results_do_not_depend_on_which_cells_share_a_batch(batched, tmp_path):
    one_by_one, _ = run(SWEEP, tmp_path / "sweep", cells_per_batch=1)
    first, second = (dataset.drop_vars(["wall_seconds", "status"]) for dataset in (batched[0], one_by_one))
    xr.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
    for name in ("training_regret", "loss"):
        np.testing.assert_allclose(first[name][..., 0], second[name][..., 0], rtol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One of the cells as a run by itself."""
    path = tmp_path_factory.mktemp("engine") / "alone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_baselines", functools.partial(make_agents, names=SWEEP.baselines))
        summary = train(TINY_RUN.replace(seed=1), path, reporter=Quiet())
    return summary, path


def test_a_cell_equals_its_run_by_itself(batched, alone):
    """Though it shares its programs with longer horizons and more arms."""
    summary, path = alone
    curves, played = (RunDirectory(path).read_dataset(f"{name}.nc") for name in ("metrics", "evaluation"))
    cell = batched[0].sel(horizon=6, num_arms=3, seed=1)
    renamed = {name: f"training_{name}" for name in ("regret", "suff_fail_freq", "invalid")}
    for theirs in METRICS:
        own = renamed.get(theirs, theirs)
        np.testing.assert_allclose(cell[own][0], curves[theirs][0], rtol=1e-5)
        np.testing.assert_allclose(cell[own], curves[theirs], rtol=1e-3)
    np.testing.assert_allclose(cell.validation_regret, curves.validation_regret, rtol=1e-4)
    np.testing.assert_allclose(cell.validation_regret_sem, curves.validation_regret_sem, rtol=1e-3)
    assert cell.best_iteration == summary["checkpoint_iteration"]
    row = summary["evaluation"]["rmft"]
    np.testing.assert_allclose(cell.final_regret, row["regret_mean"], rtol=1e-4)
    np.testing.assert_allclose(cell.regret.dropna("round"), played.regret.sel(agent="rmft").mean("scenario"), rtol=1e-4)
    left = played.last_best_round.sel(agent="rmft").values[:, None] < np.arange(1, 7)
    found = cell[["suff_fail_freq", "suff_fail_freq_sem"]].dropna("round")
    np.testing.assert_allclose(found.suff_fail_freq, left.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.suff_fail_freq_sem, left.std(0, ddof=1) / 32**0.5, atol=1e-6)
    for own, theirs in (("min_frac", "min_frac"), ("greedy_frac", "greedy_frac")):
        np.testing.assert_allclose(cell[own], row[theirs], rtol=1e-4)
    for name in ("ucb1", "thompson"):
        regret = summary["evaluation"][name]["regret_mean"]
        np.testing.assert_allclose(cell.baseline_final_regret.sel(agent=name), regret, rtol=1e-5)
    pair = (played.regret.sel(agent=name).isel(round=-1).values.astype(float) for name in ("rmft", "thompson"))
    difference = np.subtract(*pair)
    np.testing.assert_allclose(cell.minus_reference, difference.mean(), rtol=1e-3)
    np.testing.assert_allclose(cell.minus_reference_sem, difference.std(ddof=1) / 32**0.5, rtol=1e-3)


@pytest.fixture(scope="module")
def kept(batched, programs, tmp_path_factory):
    """A copy of the sweep in which two of the cells are made again, and their policies kept."""
    path = tmp_path_factory.mktemp("engine") / "kept"
    shutil.copytree(batched[1], path)
    for index in (1, 2):
        (path / "cells" / f"{index:05d}.nc").unlink()
    told, options = Quiet(), {"cells_per_batch": 3, "executor": programs, "keep_weights": True}
    run_sweep(SWEEP, path, resume=True, reporter=told, **options)
    assert "6 finished cells keep no weights, since they ran without" in told.text.getvalue()
    assert_equal(load_sweep(path), batched[0])
    return path


def test_the_policy_of_a_cell_plays_as_the_cell_did_and_as_the_run_by_itself(batched, kept, alone):
    assert sorted(file.name for file in (kept / "weights").iterdir()) == ["00001.npz", "00002.npz"]
    policy = load_policy(kept, {"horizon": 6, "num_arms": 3, "seed": 1})
    assert policy.config == TINY_RUN.replace(seed=1)
    assert (policy.preset, policy.provenance["cell"]) == ("quickstart", "horizon=6,num_arms=3,seed=1")
    assert {"versions", "git_commit", "device", "created"} <= set(policy.provenance)
    own = load_policy(alone[1]).agent.params
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), policy.agent.params, own)
    for index, cell in ((1, {"horizon": 6, "num_arms": 3, "seed": 1}), (2, {"horizon": 6, "num_arms": 4, "seed": 0})):
        policy = load_policy(str(kept), index)
        key = RunKeys.create(policy.config.seed).test
        played = evaluate({"rmft": policy.agent}, policy.config.rmft.problem(), num_scenarios=32, key=key)
        expected = batched[0].sel(cell)
        regret = played.regret.mean(("agent", "scenario"))
        np.testing.assert_allclose(regret, expected.regret.dropna("round"), rtol=1e-5)
        for name in ("min_frac", "greedy_frac"):
            np.testing.assert_allclose(played[name].mean(), expected[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        ({"seed": 1}, ConfigError, r"seed=1, which 4 cells match, need one of 1 \(horizon=6,num_arms=3,seed=1\), 3 \("),
        ({"seed": 7}, ConfigError, r"seed=7, which no cell matches, need one of 0 \(.*4 \(.*,seed=0\), \.\.\.; try "),
        ({"sede": 1}, ConfigError, "got cell sede=1, which no cell matches"),
        ({}, ConfigError, "which 8 cells match"),
        (8, ConfigError, "got cell 8, which no cell matches"),
        (-1, ConfigError, "got cell -1, which no cell matches"),
        (None, ConfigError, "got cell None of .*kept, need a cell of a sweep; try a sweep and its cell"),
        (0, RunError, "no policy of horizon=6,num_arms=3,seed=0; try a sweep with keep_weights=True from its start"),
        ({"horizon": 8, "num_arms": 3, "seed": 0}, RunError, "holds no policy of horizon=8,num_arms=3,seed=0"),
    ],
)
def test_a_policy_that_is_not_there_is_told(kept, cell, error, message):
    with pytest.raises(error, match=message) as raised:
        load_policy(kept, cell)
    assert "\n" not in str(raised.value)
    assert "; try " in str(raised.value)


def test_only_sweeps_have_cells(alone, kept):
    for source in (alone[1], kept / "weights" / "00001.npz", kept / "nowhere"):
        with pytest.raises(ConfigError, match=r"got cell 1 of .*, need a cell of a sweep; try a sweep and its cell"):
            load_policy(source, 1)
    assert load_policy(kept / "weights" / "00001.npz").config.seed == 1


FLOATS = Sweep(
    "quickstart",
    zip={"step_size": [2e-3, 1e-30, 1e-3], "temperature": [1.0, 1.0, 1e6], "entropy_weight": [0.0, 0.0, 0.5]},
    override={**TINY_OVERRIDE, "horizon": 8, "num_arms": 4},
    baselines=SWEEP.baselines,
)


def test_float_settings_are_inputs_of_one_program(batched, programs, tmp_path):
    compiled = programs.compiled
    dataset, _ = run(FLOATS, tmp_path / "sweep", cells_per_batch=3, executor=programs)
    assert programs.compiled == compiled
    plain, frozen, hot = (dataset.isel(step_size=i) for i in range(3))
    assert len(np.unique(frozen.validation_regret)) == 1
    assert frozen.best_iteration == 0
    assert len(np.unique(plain.validation_regret)) > 1
    np.testing.assert_allclose(hot.entropy, np.log(4), rtol=1e-5)
    assert (plain.entropy < np.log(4) - 1e-5).all()
    np.testing.assert_allclose(hot.loss[0], np.log(4) / 2, atol=0.02)
    np.testing.assert_allclose(plain.loss[0], np.log(4), atol=0.02)


def test_finished_cells_are_not_run_again(batched, programs, tmp_path):
    dataset, whole = batched
    path = tmp_path / "sweep"
    shutil.copytree(whole, path)
    times, chunks = cell_times(path), programs.chunks
    again, outcome = run(SWEEP, path, resume=True, cells_per_batch=3, executor=programs)
    assert (programs.chunks, cell_times(path), outcome.finished) == (chunks, times, 8)
    xr.testing.assert_identical(again, dataset)
    (path / "cells" / "00004.nc").write_bytes(b"damaged")
    again, outcome = run(SWEEP, path, resume=True, cells_per_batch=3, executor=programs)
    assert (programs.chunks, outcome.finished) == (chunks + CHUNKS, 8)
    assert {name for name, time in cell_times(path).items() if time != times[name]} == {"00004.nc"}
    assert_equal(again, dataset)


def test_a_sweep_is_neither_replaced_nor_mixed_with_another(batched, programs):
    _, path = batched
    with pytest.raises(RunError, match="already holds a sweep"):
        run(SWEEP, path, executor=programs)
    with pytest.raises(RunError, match="got both resume and overwrite"):
        run(SWEEP, path, resume=True, overwrite=True, executor=programs)
    with pytest.raises(RunError, match="holds another sweep: seed in"):
        run(dataclasses.replace(SWEEP, grid={**GRID, "seed": [0]}), path, resume=True, executor=programs)


# Two batches, of which the second one is filled up.
PART = dataclasses.replace(SWEEP, grid={**GRID, "seed": [0]})


def test_an_interrupted_batch_goes_on_where_it_was_left_bit_for_bit(batched, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, CHUNKS + 3, PART)
    left = [str(file.relative_to(tmp_path)) for file in (tmp_path / "sweep" / "unfinished").rglob("*.npz")]
    # The last chunk was not saved: it was interrupted before.
    assert sorted(left) == ["sweep/unfinished/00003/00000000.npz", "sweep/unfinished/00003/00000002.npz"]
    chunks = programs.chunks
    dataset, outcome = run(PART, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert programs.chunks == chunks + 2
    assert outcome.finished == 4
    assert_part(dataset, batched[0])
    assert not (tmp_path / "sweep" / "unfinished").exists()


def assert_part(dataset, whole) -> None:
    """It says that it is `PART`, and in all else is what the whole sweep says of that seed."""
    assert json.loads(dataset.attrs["spec"]) == PART.to_dict()
    assert_equal(dataset, whole.sel(seed=[0]).assign_attrs(spec=dataset.attrs["spec"]))


def truncated(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_batch(folder):
    shutil.move(folder, folder.with_name("00003"))


def of_other_settings(folder):
    """With more iterations done than will be saved soon."""
    for path in folder.iterdir():
        with np.load(path) as arrays:
            content = dict(arrays)
        content["about"] = np.asarray(str(content["about"]).replace('"step_size": 0.002', '"step_size": 0.001', 1))
        path.unlink()
        np.savez(path.with_name("00000099.npz"), **content)


@pytest.mark.parametrize("change", [truncated, of_another_batch, of_other_settings])
def test_unfinished_work_that_is_damaged_or_of_others_is_begun_anew(batched, programs, tmp_path, monkeypatch, change):
    """And what is saved from then on can be resumed."""
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, 3, PART)
    change(tmp_path / "sweep" / "unfinished" / "00000")
    interrupted(tmp_path / "sweep", programs, 3, PART, resume=True)
    chunks = programs.chunks
    dataset, _ = run(PART, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert programs.chunks == chunks + 2 + CHUNKS
    assert_part(dataset, batched[0])


def test_wherever_unfinished_work_is_damaged_it_is_noticed(batched, programs, tmp_path, monkeypatch):
    """Every read gives what was written, or nothing."""
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, 3, PART)
    path = tmp_path / "sweep" / "unfinished" / "00000" / "00000002.npz"
    path.with_name("00000000.npz").unlink()
    task = make_tasks(checked_plan(PART.expand(), PART.baselines), 3, (), None)[0]
    start = programs.of(task).start(task.cells).state
    content, rng, lost = path.read_bytes(), np.random.default_rng(0), 0
    with np.load(path) as arrays:
        identity = json.loads(str(arrays["about"]))["identity"]
    checkpoints = Checkpoints(path.parent, identity, warn=lambda line: None)
    whole = checkpoints.restore(start)
    assert whole is not None
    for _ in range(40):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = checkpoints.restore(start)
        except RunError:
            lost += 1
            continue
        assert loaded is not None
        jax.tree.map(np.testing.assert_array_equal, loaded[0].params, whole[0].params)
        np.testing.assert_equal(dataclasses.asdict(loaded[1]), dataclasses.asdict(whole[1]))
    assert lost > 25
    for rubbish in (b"", b"rubbish", b"PK\x03\x04"):
        path.write_bytes(rubbish)
        with pytest.raises(RunError, match="only damaged checkpoints"):
            checkpoints.restore(start)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(RunError, match="only damaged checkpoints"):
        checkpoints.restore(start)
