"""Sweeps as few programs: what a cell becomes does not depend on its company, its padding, or interruptions."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
import xarray as xr
from sweeping import GRID, SWEEP, TINY_OVERRIDE, CountedPrograms, KeptPrograms, Quiet, assert_equal, cell_times, run
from worlds import TINY_RUN

from rmft_jax import Sweep, training
from rmft_jax.agents import make_agents
from rmft_jax.engine import batches, unfinished
from rmft_jax.engine.batches import make_tasks
from rmft_jax.engine.sweep import checked_plan
from rmft_jax.interruption import InterruptedRunError
from rmft_jax.storage import RunDirectory, RunError
from rmft_jax.sweeps.store import SweepDirectory
from rmft_jax.training import METRICS, train

CHUNKS = 1 + 3  # The first one only validates.


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


def test_the_dataset_has_what_it_promises(batched):
    dataset, path = batched
    own = {name: dataset[name].dims[3:] for name in dataset.data_vars}
    scalars = {
        "final_regret", "final_regret_sem", "minus_reference", "minus_reference_sem", "exponent", "exponent_low",
        "exponent_high", "min_frac", "greedy_frac", "best_iteration", "wall_seconds", "status",
    }  # fmt: skip
    per_iteration = {
        "training_regret", "selected_regret", "loss", "grad_norm", "entropy", "training_suff_fail_freq",
    }  # fmt: skip
    assert own == (
        dict.fromkeys(scalars, ())
        | dict.fromkeys(["regret", "regret_sem", "suff_fail_freq", "suff_fail_freq_sem"], ("round",))
        | {"rank_frequency": ("rank", "round")}
        | {f"baseline_{name}": ("agent",) for name in ("final_regret", "final_regret_sem", "exponent")}
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
    assert not list((path / "unfinished").iterdir()) if (path / "unfinished").exists() else True


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


def test_a_cell_equals_its_run_by_itself(batched, tmp_path, monkeypatch):
    """Though it shares its programs with longer horizons and more arms."""
    monkeypatch.setattr(training, "make_baselines", functools.partial(make_agents, names=SWEEP.baselines))
    summary = train(dataclasses.replace(TINY_RUN, seed=1), tmp_path / "run", reporter=Quiet())
    alone, played = (RunDirectory(tmp_path / "run").read_dataset(f"{name}.nc") for name in ("metrics", "evaluation"))
    cell = batched[0].sel(horizon=6, num_arms=3, seed=1)
    renamed = {"regret": "training_regret", "suff_fail_freq": "training_suff_fail_freq"}
    for theirs in METRICS:
        own = renamed.get(theirs, theirs)
        np.testing.assert_allclose(cell[own][0], alone[theirs][0], rtol=1e-5)
        np.testing.assert_allclose(cell[own], alone[theirs], rtol=1e-3)
    np.testing.assert_allclose(cell.validation_regret, alone.validation_regret, rtol=1e-4)
    np.testing.assert_allclose(cell.validation_regret_sem, alone.validation_regret_sem, rtol=1e-3)
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
    with pytest.raises(RunError, match="got both --resume and --overwrite"):
        run(SWEEP, path, resume=True, overwrite=True, executor=programs)
    with pytest.raises(RunError, match="holds another sweep: seed in"):
        run(dataclasses.replace(SWEEP, grid={**GRID, "seed": [0]}), path, resume=True, executor=programs)


def interrupted(path, programs, after: int) -> None:
    programs.interrupt_after = after
    with pytest.raises(InterruptedRunError, match="keeps what is finished; continue with the same command"):
        run(SWEEP, path, cells_per_batch=3, executor=programs)


def test_an_interrupted_batch_goes_on_where_it_was_left_bit_for_bit(batched, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, CHUNKS + 3)
    assert [file.name for file in (tmp_path / "sweep" / "unfinished").iterdir()] == ["00003.npz"]
    chunks = programs.chunks
    dataset, outcome = run(SWEEP, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert programs.chunks == chunks + 2 + CHUNKS
    assert outcome.finished == 8
    assert_equal(dataset, batched[0])
    assert not list((tmp_path / "sweep" / "unfinished").iterdir())


def other_batch(path):
    shutil.copy(path, path.with_name("00006.npz"))
    path.unlink()
    return 2


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return 4


def other_settings(path):
    with np.load(path) as arrays:
        content = dict(arrays)
    content["notes"] = np.asarray(str(content["notes"]).replace("step_size=0.002", "step_size=0.001", 1))
    np.savez(path, **content)
    return 4


@pytest.mark.parametrize("change", [other_batch, truncated, other_settings])
def test_unfinished_work_that_is_damaged_or_of_others_is_ignored(batched, programs, tmp_path, monkeypatch, change):
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, 3)
    change(tmp_path / "sweep" / "unfinished" / "00000.npz")
    chunks = programs.chunks
    dataset, _ = run(SWEEP, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert programs.chunks == chunks + 3 * CHUNKS
    assert_equal(dataset, batched[0])


def test_wherever_unfinished_work_is_damaged_it_is_noticed(batched, programs, tmp_path, monkeypatch):
    """Every read gives what was written, or nothing."""
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    interrupted(tmp_path / "sweep", programs, 3)
    path = tmp_path / "sweep" / "unfinished" / "00000.npz"
    task = make_tasks(checked_plan(SWEEP), 3, (), None)[0]
    start = programs.of(task).start(task.cells)
    content, rng, lost = path.read_bytes(), np.random.default_rng(0), 0
    with np.load(path) as arrays:
        identity = unfinished.json.loads(str(arrays["notes"]))["identity"]
    whole = unfinished.load(path, identity, start)
    assert whole is not None
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 0xFF
        path.write_bytes(damaged)
        loaded = unfinished.load(path, identity, start)
        lost += loaded is None
        if loaded is not None:
            jax.tree.map(np.testing.assert_array_equal, loaded[0].state.params, whole[0].state.params)
            np.testing.assert_equal(dataclasses.asdict(loaded[1]), dataclasses.asdict(whole[1]))
    assert lost > 40
    for rubbish in (b"", b"rubbish", b"PK\x03\x04"):
        path.write_bytes(rubbish)
        assert unfinished.load(path, identity, start) is None
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert unfinished.load(path, identity, start) is None


def with_step_sizes(*sizes: float) -> Sweep:
    override = {**TINY_OVERRIDE, "horizon": 8, "num_arms": 4}
    return Sweep("quickstart", grid={"step_size": sizes}, override=override, baselines=SWEEP.baselines)


def test_a_cell_that_fails_is_recorded_and_touches_no_other(batched, programs, tmp_path):
    path = tmp_path / "sweep"
    good, _ = run(with_step_sizes(1e-3, 2e-3, 3e-3), tmp_path / "good", cells_per_batch=3, executor=programs)
    sweep = with_step_sizes(1e-3, 1e30, 3e-3)
    dataset, outcome = run(sweep, path, cells_per_batch=3, executor=programs)
    assert (outcome.finished, outcome.missing) == (2, 0)
    assert list(outcome.failures) == ["step_size=1e+30"]
    message = outcome.failures["step_size=1e+30"]
    assert message.startswith("loss or parameters became NaN or infinite ")
    assert message.endswith(" iteration 1; try a smaller step_size, max_grad_norm or exploration_std")
    assert dataset.status.values.tolist() == ["finished", "failed", "finished"]
    assert np.isnan(dataset.final_regret[1])
    ok = dataset.isel(step_size=[0, 2]).drop_vars("wall_seconds")
    xr.testing.assert_equal(ok, good.isel(step_size=[0, 2]).drop_vars("wall_seconds"))
    times, chunks = cell_times(path), programs.chunks
    _, outcome = run(sweep, path, resume=True, cells_per_batch=3, executor=programs)
    assert (outcome.finished, list(outcome.failures)) == (2, ["step_size=1e+30"])
    assert cell_times(path) == times
    assert programs.chunks == chunks + 2, "once nobody is left who could learn, training ends"


def test_a_failure_is_remembered_through_an_interruption(batched, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    sweep, programs.interrupt_after = with_step_sizes(1e-3, 1e30, 3e-3), 4
    with pytest.raises(InterruptedRunError):
        run(sweep, tmp_path / "sweep", cells_per_batch=3, executor=programs)
    _, outcome = run(sweep, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert (outcome.finished, outcome.missing) == (2, 0)
    assert " iteration 1; try" in outcome.failures["step_size=1e+30"]


def test_a_failure_that_was_bad_luck_is_made_good(batched, programs, tmp_path, monkeypatch):
    dataset, _ = batched
    path, advance, calls = tmp_path / "sweep", CountedPrograms.advance, []

    def fails_once(self, batch, run):
        calls.append(run)
        if len(calls) == CHUNKS + 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long tail")
        return advance(self, batch, run)

    with monkeypatch.context() as patch:
        patch.setattr(CountedPrograms, "advance", fails_once)
        failed, outcome = run(SWEEP, path, cells_per_batch=3, executor=programs)
    assert (outcome.finished, len(outcome.failures), outcome.missing) == (5, 3, 0)
    assert all("RESOURCE_EXHAUSTED: out of memory; try fewer" in text for text in outcome.failures.values())
    assert (failed.status == "failed").sum() == 3
    times, chunks = cell_times(path), programs.chunks
    again, outcome = run(SWEEP, path, resume=True, cells_per_batch=3, executor=programs)
    assert (outcome.finished, outcome.failures, programs.chunks) == (8, {}, chunks + CHUNKS)
    assert {name: time for name, time in cell_times(path).items() if name in times} == times
    assert_equal(again, dataset)
    assert SweepDirectory.open(path).failures() == {}


def test_a_sweep_stops_after_so_many_failures(batched, programs, tmp_path):
    sweep, chunks = with_step_sizes(1e30, 1e31, 1e32, 2e-3, 1e-3, 3e-3), programs.chunks
    dataset, outcome = run(sweep, tmp_path / "sweep", cells_per_batch=3, executor=programs, max_failures=2)
    assert (outcome.finished, len(outcome.failures), outcome.missing) == (0, 2, 4)
    assert dataset.status.values.tolist() == ["failed", "failed", *["missing"] * 4]
    assert programs.chunks == chunks + 2
    dataset, outcome = run(sweep, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs, max_failures=4)
    assert (outcome.finished, len(outcome.failures), outcome.missing) == (3, 3, 0)
