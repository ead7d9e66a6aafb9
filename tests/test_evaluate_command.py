"""`rmft evaluate`: what is asked for is what is played, and what is written stands under its own name."""

import shutil

import pytest
import xarray as xr

from rmft_jax import ConfigError, cli, load_policy
from runs import few_baselines, make_run, refused
from worlds import TINY_RUN


@pytest.fixture(scope="module", autouse=True)
def _few():
    with few_baselines("ucb1", "thompson", "uniform"):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run at K = 3 and T = 6 whose numbers are made up."""
    return make_run(tmp_path_factory.mktemp("evaluate") / "run", TINY_RUN)[0].path


def evaluated(*words: object) -> None:
    assert cli.main(["evaluate", *map(str, words), "--num-scenarios", "16"]) == 0


def test_beside_a_grid_arms_and_horizon_are_those_asked_for(run, capsys):
    evaluated(run, "--grid", "horizon=4,6", "--num-arms", 2)
    with xr.open_dataset(run / "evaluations" / "num_arms=2,num_scenarios=16,horizon=4+6.nc") as played:
        assert played.sizes["rank"] == 2
        assert "num_arms" not in played.dims
    assert "trained at K=3, T=6" in capsys.readouterr().out
    evaluated(run, "--grid", "num_arms=2,3", "--horizon", 9)
    assert "trained at K=3, T=6" in capsys.readouterr().out
    with xr.open_dataset(run / "evaluations" / "horizon=9,num_scenarios=16,num_arms=2+3.nc") as played:
        assert played.attrs["trained_horizon"] == 6
        assert played.sizes["round"] == 9
    assert "need at most the 3" in refused(capsys, "evaluate", run, "--grid", "horizon=4,6", "--num-arms", 5)


def test_results_never_replace_those_of_another_policy(run, tmp_path, capsys):
    other, twin = make_run(tmp_path / "other", TINY_RUN)[0].path, tmp_path / "twin"
    shutil.copytree(run, twin)
    assert "holds a run or a sweep" in refused(capsys, "evaluate", other, "--out", run)
    place = tmp_path / "results"
    evaluated(run, "--out", place)
    capsys.readouterr()
    first = (place / "evaluations" / "num_scenarios=16.nc").read_bytes()
    assert f"which is of {run}" in refused(capsys, "evaluate", other, "--out", place, "--num-scenarios", 16)
    assert (place / "evaluations" / "num_scenarios=16.nc").read_bytes() == first
    evaluated(twin, "--out", place)  # The same run, from where it was copied to.
    evaluated(run, "--out", place, "--horizon", 4)
    evaluated(run, "--out", run)


def test_a_map_that_has_no_room_does_not_cost_the_numbers(run, capsys, monkeypatch):
    maps = []
    monkeypatch.setattr("rmft_jax.cli.evaluate.plot_heatmap", lambda *_, by, **given: maps.append(by) or _unable())
    evaluated(run, "--grid", "num_arms=2,3", "--grid", "prior=uniform", "--grid", "horizon=3,4,5")
    told, advice = capsys.readouterr()
    assert maps == ["prior"]
    assert "no figure: got 9 values" in told
    assert "dataset: " in told
    assert "next: " in advice


def _unable():
    raise ConfigError("got 9 values, need 8; try fewer")


def test_only_checkpoints_that_are_there_are_loaded(run):
    for wrong in ("Best", "first", ""):
        with pytest.raises(ConfigError, match="need best or last"):
            load_policy(run, which=wrong)
    with pytest.raises(ConfigError, match="need the one that is kept"):
        load_policy("pretrained:mab", which="last")
    assert load_policy(run, which="last").provenance["iteration"] == 4
