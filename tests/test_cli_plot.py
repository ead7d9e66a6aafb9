"""`rmft plot` and `rmft table` on directories that were written, not trained."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import tutorials
from evaluations import made_evaluation
from rmft_jax import cli
from rmft_jax.method.settings import RunConfig
from rmft_jax.running.files import write_dataset
from rmft_jax.running.storage import RunDirectory
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory
from runs import refused
from sweep_data import made_sweep

GRID = {"horizon": [25, 50, 100, 150, 200], "num_arms": [2, 3, 4, 5, 6], "seed": [0, 1, 2]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of 75 cells of which the last one failed."""
    directory = SweepDirectory.create(tmp_path_factory.mktemp("plot") / "sweep", Sweep("quickstart", grid=GRID))
    dataset = made_sweep(GRID).drop_vars("status")
    for cell in directory.cells[:-1]:
        one = dataset.sel(cell.coordinates)
        directory.write_cell(cell, one.isel(round=slice(one["horizon"].item()), rank=slice(one["num_arms"].item())))
    directory.write_failure(directory.cells[-1], "the loss is nan")
    directory.write_assembled()
    return directory.path


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", RunConfig(), "quickstart")
    metrics = made_sweep({}).rename(training_regret="regret", regret="rounds", iteration="iteration")
    names = ["regret", "selected_regret", "entropy", "validation_regret", "validation_regret_sem"]
    directory.write_dataset("metrics.nc", metrics[names])
    directory.write_dataset("evaluation.nc", made_evaluation())
    return directory.path


def test_a_figure_takes_no_device(sweep, tmp_path):
    words = ["plot", str(sweep), "--kind", "heatmap", "--relative-to", "thompson", "--out", str(tmp_path / "map.pdf")]
    program = f"import sys; from rmft_jax import cli; sys.exit(cli.main({words!r}))"
    where_is_none = os.environ | {"JAX_PLATFORMS": "nowhere"}
    assert subprocess.run([sys.executable, "-P", "-c", program], env=where_is_none, check=False).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"map.png", "map.pdf", "map.csv"}


def test_options_may_be_repeated_or_take_several_words(sweep, tmp_path, capsys):
    several = ["--select", "horizon=50", "--select=num_arms=3"], ["--select", "horizon=50", "num_arms=3"]
    select = *several, ["--select", "horizon=50,num_arms=3"]
    written = []
    for i, words in enumerate(select):
        path = tmp_path / f"{i}.png"
        assert (
            cli.main(["plot", str(sweep), "--kind", "regret", *words, "--baselines", "ucb1", "--out", str(path)]) == 0
        )
        written.append(path.with_suffix(".csv").read_text())
    assert "figure: " in capsys.readouterr().out
    assert written[0] == written[1] == written[2]
    assert {line.split(",")[0] for line in written[0].splitlines()[1:]} == {"rmft", "ucb1"}
    words = ["--by", "num_arms", "--select", "num_arms=2,6", "horizon=25", "--baselines", "none"]
    assert cli.main(["plot", str(sweep), "--kind", "regret", *words, "--out", str(tmp_path / "x.pdf")]) == 0
    assert {line.split(",")[0] for line in (tmp_path / "x.csv").read_text().splitlines()[1:]} == {"2", "6"}


@pytest.mark.slow
def test_without_a_kind_a_sweep_has_all_figures(sweep):
    assert cli.main(["plot", str(sweep), "--style", "slides"]) == 0
    fixed = "_horizon=200"
    kinds = ("regret", "average_regret", "loglog", "training", "suff_fail", "arms")
    names = [*(f"{kind}{fixed}" for kind in kinds), "growth_num_arms=6", "sweep", "heatmap"]
    assert {path.stem for path in (sweep / "figures").iterdir()} == {*names, "heatmap_relative"}


def test_a_run_has_its_kinds_one_by_one(run, tmp_path, capsys):
    for kind in ("regret", "loglog", "training", "suff_fail", "arms", "final_regret"):
        assert cli.main(["plot", str(run), "--kind", kind]) == 0
        assert (run / "figures" / f"{kind}.csv").is_file()
    capsys.readouterr()
    assert "got a single run without final_regret" in refused(capsys, "plot", run, "--kind", "sweep")
    assert "need a sweep for it" in refused(capsys, "plot", run, "--select", "horizon=5")
    file = run / "evaluation.nc"
    assert cli.main(["plot", str(file), "--kind", "regret", "--out", str(tmp_path / "r.pdf")]) == 0
    capsys.readouterr()
    assert "got a single run without validation_regret" in refused(capsys, "plot", file, "--kind", "training")
    assert "need a sweep for it" in refused(capsys, "plot", file, "--select", "horizon=5")


SAVE = "rmft_jax.plotting.figures.save_figure"


def unwritten(figure: Any, path: Path) -> list[Path]:
    """In place of writing a figure, where it is enough that it is drawn."""
    return [path.with_suffix(".png")]


def test_the_figure_of_regret_is_the_first(run, sweep, monkeypatch, capsys):
    monkeypatch.setattr(SAVE, unwritten)
    assert cli.main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"figure: {run / 'figures' / 'regret.png'} ")
    chosen = ["--select", "num_arms=2,3", "horizon=25,50"]
    assert cli.main(["plot", str(sweep), *chosen]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"figure: {sweep / 'figures' / 'regret_horizon=50.png'} ")
    assert "the last value is shown, as with --select horizon=50: regret, " in out
    assert "the last value is shown, as with --select num_arms=3: growth\n" in out


def test_agents_that_a_figure_has_no_room_for_are_told_with_a_command_that_draws_them(
    run, tmp_path, capsys, monkeypatch
):
    others = ["ucb1", "thompson", "greedy", "epsilon_greedy", "uniform", "moss", "kl_ucb", "gittins", "posterior_index"]
    RunDirectory(run).write_dataset("evaluation.nc", made_evaluation(["rmft", "best_arm", *others]))
    assert cli.main(["plot", str(run), "--kind", "regret"]) == 0
    *_, told = capsys.readouterr().out.splitlines()
    assert told.startswith("regret: 2 agents have no room; to see them: `rmft plot ")
    *_, command, _ = told.split("`")
    assert cli.main([*command.split()[1:], "--out", str(tmp_path / "others.pdf")]) == 0
    assert "no room" not in capsys.readouterr().out
    files = (run / "figures" / "regret.csv", tmp_path / "others.csv")
    first, second = ({line.split(",")[0] for line in file.read_text().splitlines()[1:]} for file in files)
    assert first | second == {"rmft", *others}
    monkeypatch.setattr(SAVE, unwritten)
    assert cli.main(["plot", str(run)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "no room" in line]
    kinds = [line.partition(": ")[0] for line in told]
    assert kinds == ["regret, average_regret, loglog, suff_fail", "arms", "difference"]
    for line in told[1:]:
        assert cli.main(line.split("`")[1].split()[1:]) == 0
    assert cli.main(["plot", str(run), "--kind", "regret", "--baselines", "none"]) == 0
    assert "no room" not in capsys.readouterr().out


OWN = """
from matplotlib.figure import Figure
import rmft_jax

@rmft_jax.register_figure("own_dots", needs="regret")
def dots(dataset, *, by=None, colour="red"):
    figure, regret = Figure(), dataset["regret"]
    figure.subplots().plot(dataset["round"], regret.mean([dim for dim in regret.dims if dim != "round"]))
    return figure
"""


@pytest.fixture
def _forgets():
    """What users' code registers, and that it was imported: later tests would propose to import it again."""
    with tutorials.as_before():
        yield


@pytest.mark.usefixtures("_forgets")
def test_a_file_may_bring_a_figure(run, sweep, tmp_path, capsys, monkeypatch):
    file, kind = tmp_path / "own.py", ("--kind", "own_dots")
    file.write_text(OWN)
    assert "got figure 'own_dots', need one of arms, final_regret" in refused(capsys, "plot", run, *kind)
    assert cli.main(["plot", str(run), "--import", str(file), *kind]) == 0
    assert {path.name for path in (run / "figures").iterdir()} == {"own_dots.png", "own_dots.pdf"}
    assert capsys.readouterr().out == f"figure: {run / 'figures' / 'own_dots.png'} (and .pdf)\n"
    words = [*kind, "--by", "horizon", "--select", "num_arms=3"]
    assert cli.main(["plot", str(sweep), *words, "--out", str(tmp_path / "x.pdf")]) == 0
    assert (tmp_path / "x.png").is_file()
    capsys.readouterr()
    assert "got --baselines with --kind own_dots" in refused(capsys, "plot", sweep, *kind, "--baselines", "ucb1")
    assert "got --select with --kind own_dots" in refused(capsys, "plot", run, *kind, "--select", "horizon=25")
    monkeypatch.setattr(SAVE, unwritten)
    assert cli.main(["plot", str(run)]) == 0
    told = capsys.readouterr().out
    assert all(f"{name}.png" in told for name in ("own_dots", "regret", "final_regret"))


def test_tables_are_printed_or_written(sweep, run, tmp_path, capsys):
    assert cli.main(["table", str(sweep), "--columns", "horizon", "--baselines", "none"]) == 0
    out = capsys.readouterr().out
    assert out.split()[:3] == ["horizon", "=", "25"]
    assert out.splitlines()[1].split() == ["num_arms", "agent"]
    path = tmp_path / "deep" / "table.tex"
    assert cli.main(["table", str(run), "--format", "latex", "--out", str(path)]) == 0
    assert r"\toprule" in path.read_text()
    capsys.readouterr()
    assert cli.main(["table", str(sweep)]) == 0, "the first two dimensions, as for a figure"
    out, err = capsys.readouterr()
    assert out.split()[:3] == ["num_arms", "=", "2"]
    assert out.splitlines()[1].split() == ["horizon", "agent"]
    assert err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "regret"], "got several values of horizon (25, 50, 100, 150, 200); num_arms"),
        (["--kind", "pie"], "pie"),
        (["--by", "horizon"], "got --by without --kind"),
        (["--baselines", "ucb1"], "got --baselines without --kind"),
        (["--out", "x.pdf"], "got --out without --kind"),
        (["--kind", "sweep", "--out", "x.svg"], "got --out x.svg, need a .pdf or .png"),
        (["--kind", "sweep", "--select", "num_arms"], "got --select num_arms, need NAME=VALUE"),
        (["--kind", "sweep", "--select", "num_arms=2", "num_arms=3"], "got --select num_arms twice"),
        (["--kind", "sweep", "--select", "num_arms=9"], "got num_arms=9, need one of 2, 3, 4, 5, 6"),
        (["--kind", "heatmap", "--relative-to", "nope"], "got baseline 'nope'"),
        (["--kind", "arms", "--relative-to", "ucb1"], "got --relative-to with --kind arms"),
    ],
)
def test_bad_plots_are_refused_in_one_line(sweep, capsys, words, message):
    before = sorted(sweep.rglob("*"))
    assert message in refused(capsys, "plot", sweep, *words)
    assert sorted(sweep.rglob("*")) == before


def test_directories_and_files_without_regret_are_refused(tmp_path, capsys):
    assert "is not a run directory" in refused(capsys, "plot", tmp_path)
    assert "is not a run directory" in refused(capsys, "table", tmp_path / "nowhere")
    SweepDirectory.create(tmp_path / "empty", Sweep("quickstart"))
    assert "holds no cell that has finished" in refused(capsys, "plot", tmp_path / "empty")
    path = write_dataset(tmp_path / "other.nc", xr.Dataset({"x": ("y", [1.0])}))
    assert "holds no regret" in refused(capsys, "table", path)
    (tmp_path / "damaged.nc").write_bytes(b"no")
    assert "is damaged" in refused(capsys, "table", tmp_path / "damaged.nc")


def test_figures_of_evaluations_under_other_settings_stay_apart(run, capsys):
    for name in ("seed=1", "horizon=9"):
        RunDirectory(run).write_dataset(f"evaluations/{name}.nc", made_evaluation())
        assert cli.main(["plot", str(run / "evaluations" / f"{name}.nc"), "--kind", "final_regret"]) == 0
        assert (run / "evaluations" / "figures" / name / "final_regret.png").is_file()
    assert cli.main(["plot", str(run / "evaluation.nc"), "--kind", "final_regret"]) == 0
    assert (run / "figures" / "final_regret.png").is_file()


def test_the_file_of_metrics_is_drawn_but_has_no_table(run, capsys):
    assert cli.main(["plot", str(run / "metrics.nc")]) == 0
    assert (run / "figures" / "training.png").is_file()
    assert "in training" not in capsys.readouterr().err
    assert "holds the training of a run, not how it plays" in refused(capsys, "table", run / "metrics.nc")
    assert "holds the training of a run" in refused(capsys, "plot", run / "metrics.nc", "--kind", "regret")


def test_values_that_figures_have_no_room_for_are_told(tmp_path, monkeypatch, capsys):
    grid = {"num_arms": [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "step_size": [1e-3, 2e-3]}
    write_dataset(tmp_path / "sweep.nc", made_sweep(grid))
    drawn: list[Any] = []
    monkeypatch.setattr(SAVE, lambda figure, path: drawn.append(figure) or unwritten(figure, path))
    assert cli.main(["plot", str(tmp_path / "sweep.nc")]) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "no room for num_arms" in line]
    assert told.startswith("no room for num_arms = 4, 9, which --select shows: regret, ")
    kinds = told.partition(": ")[2].split(", ")
    assert sum("Not shown: num_arms = 4, 9." in figure.caption for figure in drawn) >= len(kinds)


def test_lost_seeds_are_told_beneath_the_figures(tmp_path, monkeypatch, capsys):
    grid = {"horizon": [5, 10], "seed": [0, 1, 2]}
    write_dataset(tmp_path / "sweep.nc", made_sweep(grid, failed=[4]))
    monkeypatch.setattr(SAVE, unwritten)
    assert cli.main(["plot", str(tmp_path / "sweep.nc"), "--kind", "sweep"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "note: 1 of 6 runs failed or are missing, means are those of other seeds"
