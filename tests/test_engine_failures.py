"""Sweeps whose cells fail, and sweeps that grow."""

import jax
import numpy as np
import pytest
import xarray as xr

from rmft_jax import Sweep
from rmft_jax.sweeps import batches
from rmft_jax.sweeps.store import SweepDirectory
from sweeping import (
    CHUNKS,
    SWEEP,
    TINY_OVERRIDE,
    CountedPrograms,
    KeptPrograms,
    assert_equal,
    cell_times,
    interrupted,
    run,
)


@pytest.fixture(scope="module")
def programs() -> KeptPrograms:
    return KeptPrograms()


def test_a_failure_that_was_bad_luck_is_made_good(programs, tmp_path, monkeypatch):
    dataset, _ = run(SWEEP, tmp_path / "whole", cells_per_batch=3, executor=programs)
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


def with_step_sizes(*sizes: float) -> Sweep:
    override = {**TINY_OVERRIDE, "horizon": 8, "num_arms": 4}
    return Sweep("quickstart", grid={"step_size": sizes}, override=override, baselines=SWEEP.baselines)


def test_a_cell_that_fails_is_recorded_and_touches_no_other(programs, tmp_path):
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


def test_a_failure_is_remembered_through_an_interruption(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_SAVE_SECONDS", -1.0)
    sweep = with_step_sizes(1e-3, 1e30, 3e-3)
    interrupted(tmp_path / "sweep", programs, 4, sweep)
    _, outcome = run(sweep, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs)
    assert (outcome.finished, outcome.missing) == (2, 0)
    assert " iteration 1; try" in outcome.failures["step_size=1e+30"]


def test_a_sweep_stops_after_so_many_failures(programs, tmp_path):
    sweep, chunks = with_step_sizes(1e30, 1e31, 1e32, 2e-3, 1e-3, 3e-3), programs.chunks
    dataset, outcome = run(sweep, tmp_path / "sweep", cells_per_batch=3, executor=programs, max_failures=2)
    assert (outcome.finished, len(outcome.failures), outcome.missing) == (0, 2, 4)
    assert dataset.status.values.tolist() == ["failed", "failed", *["missing"] * 4]
    assert programs.chunks == chunks + 2
    dataset, outcome = run(sweep, tmp_path / "sweep", resume=True, cells_per_batch=3, executor=programs, max_failures=4)
    assert (outcome.finished, len(outcome.failures), outcome.missing) == (3, 3, 0)


def test_a_sweep_that_grows_becomes_the_one_that_begins_so_large(programs, tmp_path):
    few, all_of_them = (1e-3, 2e-3, 4e-3), (1e-3, 2e-3, 4e-3, 3e-3, 5e-3, 6e-3)
    path, options = tmp_path / "grown", {"cells_per_batch": 3, "executor": programs}
    small, _ = run(with_step_sizes(*few), path, **options)
    before, chunks = cell_times(path), programs.chunks
    grown, outcome = run(with_step_sizes(*all_of_them), path, resume=True, **options)
    assert (outcome.finished, programs.chunks - chunks) == (6, CHUNKS)
    assert {name: time for name, time in cell_times(path).items() if name in before} == before
    xr.testing.assert_equal(grown.sel(step_size=list(few)), small)
    whole, _ = run(with_step_sizes(*all_of_them), tmp_path / "whole", **options)
    xr.testing.assert_equal(grown.drop_vars("wall_seconds"), whole.drop_vars("wall_seconds"))
