import itertools
import json
import os
import time

import numpy as np
import pytest
import xarray as xr

from rmft_jax import Sweep, load_sweep
from rmft_jax.config import ConfigError
from rmft_jax.method.settings import RunConfig
from rmft_jax.running.files import RunError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.statistics.estimates import lost_seeds
from rmft_jax.sweeps.spec import Cell
from rmft_jax.sweeps.store import SweepDirectory
from runs import elsewhere

SWEEP = Sweep(
    preset="mab",
    grid={"horizon": [4, 6], "num_arms": [2, 3], "seed": [0, 1]},
    override={"num_iterations": 4, "chunk_size": 2},
)
PROVENANCE = {"git_commit": "abc", "versions": {"jax": "0.7"}, "quick": True}


@pytest.fixture
def directory(tmp_path) -> SweepDirectory:
    return SweepDirectory.create(tmp_path / "sweep", SWEEP, PROVENANCE)


def cell_dataset(cell: Cell, agents: tuple[str, ...] = ("ucb1", "thompson")) -> xr.Dataset:
    """Numbers that say which cell, round, rank or agent they are."""
    rmft = cell.config.rmft
    chunk, iterations, base = cell.config.chunk_size, rmft.num_iterations, float(cell.index)
    rounds, ranks = np.arange(1, rmft.horizon + 1), np.arange(rmft.environment.num_arms)
    per_agent = np.asarray([len(name) for name in agents], np.float32)
    return xr.Dataset(
        {
            "final_regret": ((), np.float32(base + 0.5)),
            "regret": ("round", (base + rounds / 100).astype(np.float32), {"long_name": "cumulative regret"}),
            "rank_frequency": (("rank", "round"), base + ranks[:, None] / 10 + rounds[None, :] / 1000),
            "baseline_regret": (("agent", "round"), base + per_agent[:, None] * rounds),
            "validation_regret": ("validation_iteration", base + np.arange(0, iterations + 1, chunk)),
            "best_iteration": ((), 2),
            "status": ((), "finished"),
        },
        coords={
            "round": rounds,
            "rank": ranks,
            "agent": list(agents),
            "validation_iteration": np.arange(0, iterations + 1, chunk),
        },
        attrs={"regret": "pseudo", "reference": "thompson", "horizon": rmft.horizon},
    )


def fill(directory: SweepDirectory, indices: range | list[int]) -> None:
    for index in indices:
        directory.write_cell(directory.cells[index], cell_dataset(directory.cells[index]))


def test_the_sweep_survives(directory):
    opened = SweepDirectory.open(directory.path).grown(SWEEP)
    assert opened.sweep == SWEEP
    assert opened.cells == SWEEP.expand()
    assert (opened.finished(), opened.failures()) == (set(), {})


def test_every_cell_lies_at_its_coordinates(directory):
    fill(directory, range(8))
    dataset = directory.assemble()
    assert dict(dataset.sizes) == {
        "horizon": 2, "num_arms": 2, "seed": 2, "round": 6, "rank": 3, "agent": 2, "validation_iteration": 3,
    }  # fmt: skip
    assert dataset.regret.dims == ("horizon", "num_arms", "seed", "round")
    for cell in directory.cells:
        here, alone = dataset.sel(cell.coordinates), cell_dataset(cell)
        assert here.final_regret == alone.final_regret
        assert here.status == "finished"
        assert here.regret.dtype == np.float32
        for name in ("regret", "rank_frequency", "baseline_regret", "validation_regret"):
            np.testing.assert_array_equal(here[name].sel(alone[name].coords), alone[name])
            # All that the cell does not have is NaN.
            assert here[name].count() == alone[name].size
    assert dataset.final_regret.notnull().all()
    assert dataset.regret.attrs == {"long_name": "cumulative regret"}
    assert list(dataset.agent.values) == ["ucb1", "thompson"]


def test_the_attributes_are_those_of_the_sweep_and_those_that_all_cells_share(directory):
    fill(directory, range(8))
    attrs = directory.assemble().attrs
    assert attrs["preset"] == "mab"
    assert Sweep.from_dict(json.loads(attrs["spec"])) == SWEEP
    assert (attrs["git_commit"], json.loads(attrs["versions"]), attrs["quick"]) == ("abc", {"jax": "0.7"}, "true")
    assert (attrs["regret"], attrs["reference"]) == ("pseudo", "thompson")
    assert not {"horizon", "failures", "cell"} & set(attrs)


def test_missing_and_failed_cells_are_marked_and_hold_nan(directory):
    fill(directory, [0, 5])
    directory.write_failure(directory.cells[3], "loss is not finite")
    dataset = directory.assemble()
    assert dataset.status.values.ravel().tolist() == [
        "finished", "missing", "missing", "failed", "missing", "finished", "missing", "missing",
    ]  # fmt: skip
    assert dataset.final_regret.count() == 2
    assert json.loads(dataset.attrs["failures"]) == {"horizon=4,num_arms=3,seed=1": "loss is not finite"}
    assert directory.failures() == {3: "loss is not finite"}
    assert directory.finished() == {0, 5}
    fill(directory, [3])
    # As a kill between the two leaves it.
    directory.write_failure(directory.cells[5], "of an earlier time")
    assert directory.failures() == {}
    fill(directory, [5])
    assert "failures" not in directory.assemble().attrs
    assert not list((directory.path / "failures").iterdir())


def test_a_sweep_without_cells_so_far_can_be_loaded(directory):
    dataset = load_sweep(directory.path)
    assert (dataset.status == "missing").all()
    assert list(dataset.data_vars) == ["status"]


def test_the_assembled_file_is_the_dataset_and_gives_way_to_newer_cells(directory, monkeypatch):
    fill(directory, range(7))
    wait_for_the_clock(directory)
    directory.write_assembled()
    expected = directory.assemble()
    with monkeypatch.context() as patch:
        patch.setattr(SweepDirectory, "assemble", None)
        xr.testing.assert_identical(load_sweep(str(directory.path)), expected)
    fill(directory, [7])
    assert (load_sweep(directory.path).status == "finished").all()
    wait_for_the_clock(directory)
    directory.write_assembled()
    directory.write_failure(directory.cells[2], "again")
    (directory.path / "cells" / "00002.nc").unlink()
    assert load_sweep(directory.path).status.values.ravel()[2] == "failed"


def wait_for_the_clock(directory: SweepDirectory) -> None:
    probe = directory.path / ".probe"
    newest = max(path.stat().st_mtime_ns for path in directory.path.rglob("*"))
    while not (probe.exists() and probe.stat().st_mtime_ns > newest):
        time.sleep(0.002)
        probe.touch()


def test_the_assembled_file_alone_is_enough_and_a_damaged_one_is_passed_over(directory):
    fill(directory, range(8))
    expected = directory.assemble()
    directory.write_assembled()
    (directory.path / "sweep.nc").rename(directory.path / "kept")
    (directory.path / "sweep.nc").write_bytes(b"not netcdf")
    xr.testing.assert_identical(load_sweep(directory.path), expected)
    (directory.path / "kept").replace(directory.path / "sweep.nc")
    for path in (directory.path / "cells").iterdir():
        path.unlink()
    xr.testing.assert_identical(load_sweep(directory.path), expected)


def test_damaged_and_foreign_cells_do_not_count_and_are_told(directory):
    fill(directory, range(4))
    files = [directory.path / "cells" / f"{index:05d}.nc" for index in range(8)]
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    files[1].write_bytes(b"")
    files[2].rename(files[5])
    cell_dataset(directory.cells[6]).to_netcdf(files[6], engine="h5netcdf")
    told = []
    assert directory.finished(told.append) == {3}
    assert [line.split(" is damaged")[0] for line in told] == [str(files[index]) for index in (0, 1, 5, 6)]
    assert told[2].endswith("(it holds another cell): horizon=6,num_arms=2,seed=1 counts as not finished")
    assert (load_sweep(directory.path, told.append).status == "finished").sum() == 1
    assert len(told) == 8


def test_wherever_the_damage_is_the_sweep_can_be_read(directory):
    fill(directory, [0])
    path = directory.path / "cells" / "00000.nc"
    content, rng, told = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=20):
            damaged[place] = 0
        path.write_bytes(damaged)
        directory.finished(told.append)
    assert len(told) > 30
    assert all("\n" not in line for line in told)


def test_a_cell_of_other_settings_is_not_taken_for_this_one(tmp_path, directory):
    other = SweepDirectory.create(tmp_path / "other", Sweep("mab", grid=SWEEP.grid, override={"num_iterations": 6}))
    fill(other, [0])
    (directory.path / "cells").mkdir()
    (other.path / "cells" / "00000.nc").rename(directory.path / "cells" / "00000.nc")
    assert directory.finished(lambda line: None) == set()


def test_a_failed_write_leaves_no_cell_and_no_rubbish(directory, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fill(directory, [0])
    assert not list((directory.path / "cells").iterdir())


def test_rows_of_a_zip_share_a_dimension(tmp_path):
    sweep = Sweep(
        grid={"seed": [1, 0]},
        zip={"branching": ["none", "uniform", "none"], "k": [1, 2, 4]},
        cells=[{"k": 3, "seed": 5}],
    )
    directory = SweepDirectory.create(tmp_path / "sweep", sweep)
    fill(directory, range(7))
    dataset = directory.assemble()
    assert dataset.final_regret.dims == ("seed", "k")
    assert dataset.seed.values.tolist() == [1, 0, 5]
    assert dataset.k.values.tolist() == [1, 2, 4, 3]
    assert dataset.branching.dims == ("k",)
    assert dataset.branching.values.tolist() == ["none", "uniform", "none", "uniform"]
    assert dataset.final_regret.sel(seed=0).values[:3].tolist() == [3.5, 4.5, 5.5]
    assert dataset.final_regret.sel(seed=5, k=3) == 6.5
    assert (dataset.status == "absent").sum() == 3 * 4 - 7
    wait_for_the_clock(directory)
    directory.write_assembled()
    written = directory.read_assembled()
    assert written is not None
    xr.testing.assert_identical(written, dataset)


def test_cells_far_apart_lie_along_one_dimension(tmp_path):
    cells = [{"horizon": 30 + n, "seed": n, "num_arms": 2 + n} for n in range(6)]
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep(cells=cells))
    fill(directory, range(6))
    dataset = directory.assemble()
    assert dataset.final_regret.dims == ("cell",)
    assert dataset.final_regret.values.tolist() == [n + 0.5 for n in range(6)]
    assert dataset.num_arms.dims == ("cell",)
    assert dataset.final_regret.sel(cell=4) == 4.5
    assert dataset.horizon.values.tolist() == [30, 31, 32, 33, 34, 35]


def test_rounds_and_iterations_come_in_order_and_agents_as_they_appear(tmp_path):
    sweep = Sweep(grid={"chunk_size": [2, 5], "horizon": [6, 4]}, override={"num_iterations": 10})
    directory = SweepDirectory.create(tmp_path / "sweep", sweep)
    fill(directory, range(4))
    dataset = directory.assemble()
    assert dataset["round"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert dataset.validation_iteration.values.tolist() == [0, 2, 4, 5, 6, 8, 10]
    curve = dataset.validation_regret.sel(chunk_size=5, horizon=4)
    np.testing.assert_array_equal(curve, [3, np.nan, np.nan, 8, np.nan, np.nan, 13])


def test_a_sweep_of_one_cell_has_no_dimension(tmp_path):
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep())
    fill(directory, [0])
    dataset = directory.assemble()
    assert (dataset.final_regret.dims, dataset.regret.dims) == ((), ("round",))
    assert (dataset.final_regret, str(dataset.status.values)) == (0.5, "finished")


def test_cells_with_different_agents_regrets_and_variables(tmp_path):
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep(grid={"environment": ["bernoulli", "abrupt"]}))
    first, second = directory.cells
    directory.write_cell(first, cell_dataset(first, ("ucb1", "thompson")))
    changed = cell_dataset(second, ("exp3", "thompson")).drop_vars(["rank_frequency", "rank"])
    changed = changed.assign_attrs(regret="dynamic", reference="exp3").assign_coords(environment="abrupt")
    directory.write_cell(second, changed)
    dataset = directory.assemble()
    assert dataset.agent.values.tolist() == ["ucb1", "thompson", "exp3"]
    counts = dataset.baseline_regret.count("round")
    assert counts.sel(environment="abrupt").values.tolist() == [0, 30, 30]
    assert dataset.rank_frequency.sel(environment="abrupt").isnull().all()
    assert dataset.attrs["regret"] == "pseudo or dynamic"
    assert "reference" not in dataset.attrs


def test_no_baselines_at_all(tmp_path):
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep(grid={"seed": [0, 1]}))
    for cell in directory.cells:
        directory.write_cell(cell, cell_dataset(cell).isel(agent=slice(0, 0)))
    dataset = directory.assemble()
    assert dataset.sizes["agent"] == 0
    directory.write_assembled()


def test_a_sweep_is_not_replaced_unless_asked(directory):
    fill(directory, [0])
    directory.write_failure(directory.cells[1], "x")
    directory.write_assembled()
    (directory.path / "evaluations").mkdir()
    (directory.path / "evaluations" / "cell=7.nc").write_bytes(b"of a policy that the next sweep does not have")
    with pytest.raises(RunError, match="already holds a sweep; try resume=True to continue it or overwrite=True"):
        SweepDirectory.create(directory.path, SWEEP)
    replaced = SweepDirectory.create(directory.path, Sweep(), overwrite=True)
    assert (replaced.finished(), replaced.failures()) == (set(), {})
    assert {path.name for path in directory.path.iterdir()} == {"sweep.json", ".lock"}


def test_other_directories_are_left_alone(tmp_path):
    with pytest.raises(RunError, match=r"is not a sweep directory \(it has no sweep.json\); try one that"):
        load_sweep(tmp_path)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="exists and is not a sweep directory; try another one"):
        SweepDirectory.create(tmp_path, SWEEP, overwrite=True)
    RunDirectory.create(tmp_path / "run", RunConfig(), "mab")
    with pytest.raises(RunError, match="holds a run, not a sweep"):
        SweepDirectory.create(tmp_path / "run", SWEEP, overwrite=True)
    with pytest.raises(RunError, match=r"cannot write to .*Not a directory; try another directory"):
        SweepDirectory.create(tmp_path / "thesis.tex" / "sweep", SWEEP)
    with pytest.raises(ConfigError, match="horizon=0: got"):
        SweepDirectory.create(tmp_path / "new", Sweep(grid={"horizon": [0]}))
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "run"}


def test_a_damaged_specification_is_told(directory):
    for text in ("{", "[]", '{"spec": {}}'):
        (directory.path / "sweep.json").write_text(text)
        with pytest.raises(RunError, match=r"cannot read .*sweep.json: .*; try `rmft sweep --overwrite --out"):
            load_sweep(directory.path)


CHANGED = {
    "preset": ({"preset": "quickstart"}, 'preset is "mab" there and "quickstart" now'),
    "axis": ({"grid": {**SWEEP.grid, "seed": [0, 2]}}, "seed in [grid] is [0, 1] there and [0, 2] now"),
    "added": ({"override": {**SWEEP.override, "k": 4}}, "k in [override] is absent there and 4 now"),
    "removed": ({"grid": {"horizon": [4, 6], "seed": [0, 1]}}, "num_arms in [grid] is [2, 3] there and absent now"),
    "baselines": ({"baselines": ["ucb1"]}, 'baselines is absent there and ["ucb1"] now'),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_another_sweep_is_not_resumed_and_the_difference_named(directory, name):
    changes, message = CHANGED[name]
    values = {field: getattr(SWEEP, field) for field in ("preset", "grid", "override")}
    with pytest.raises(RunError) as error:
        SweepDirectory.open(directory.path).grown(Sweep(**{**values, **changes}))
    assert str(error.value) == (
        f"{directory.path} holds another sweep: {message}; "
        "try the spec that it holds with more cells, or another directory"
    )


def test_a_preset_that_has_changed_since_is_noticed(directory):
    content = json.loads((directory.path / "sweep.json").read_text())
    content["cells"][2]["config"]["num_rollouts"] = 4
    (directory.path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(
        RunError, match="num_rollouts of horizon=4,num_arms=3,seed=0 is 4 there and 16 now; try the spec"
    ):
        SweepDirectory.open(directory.path).grown(SWEEP)
    assert SweepDirectory.open(directory.path).cells[2].config.rmft.num_rollouts == 4


def test_only_one_process_writes(directory):
    with directory.lock(), elsewhere() as submit, pytest.raises(RunError, match="another process works in"):
        submit(SweepDirectory.create, directory.path, SWEEP, overwrite=True)


def test_an_unreadable_failure_is_still_a_failure(directory):
    directory.write_failure(directory.cells[1], "x")
    (directory.path / "failures" / "00001.json").write_text("{")
    assert "cannot be read" in directory.failures()[1]


def test_a_sweep_of_75_cells_loads_fast(tmp_path):
    grid = {"horizon": [10, 20, 30, 40, 50], "num_arms": [2, 3, 4, 5, 6], "seed": [0, 1, 2]}
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep(grid=grid))
    fill(directory, range(75))
    started = time.process_time()
    dataset = load_sweep(directory.path)
    assert time.process_time() - started < 2
    assert dataset.sizes["round"] == 50
    expected = np.asarray([index + 0.5 for index, _ in enumerate(itertools.product(*grid.values()))])
    np.testing.assert_array_equal(dataset.final_regret.values.ravel(), expected)


def test_what_was_never_part_of_a_sweep_is_not_missing(tmp_path):
    sweep = Sweep(grid={"seed": [0, 1]}, cells=[{"step_size": 0.1, "seed": 0}], override=SWEEP.override)
    directory = SweepDirectory.create(tmp_path / "sweep", sweep)
    status = directory.assemble()["status"]
    assert sorted(status.values.ravel().tolist()) == ["absent", "missing", "missing", "missing"]
    finished = status.where(status != "missing", "finished")
    assert lost_seeds(xr.Dataset({"status": finished})) == ""
    lost = finished.where((status["seed"] != 1) | (finished != "finished"), "failed")
    assert lost_seeds(xr.Dataset({"status": lost})).startswith("1 of 3 runs")
