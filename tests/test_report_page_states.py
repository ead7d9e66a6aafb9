"""`rmft report` of what is unfinished, damaged or empty, of dialogues, and of what is being written."""

import http.client
import json
import socket

import numpy as np
import pytest
import xarray as xr

import reports
import texts
from rmft_jax import cli
from rmft_jax.language.dialogues import rollouts_of
from rmft_jax.report import make_page, open_sources
from rmft_jax.report.watch import watch
from rmft_jax.running.files import RunError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import load_run
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory
from runs import make_run, refused
from sweep_data import made_sweep

pytest.importorskip("vl_convert")
SMALL = {"horizon": [5, 8], "num_arms": [2, 3]}
KINDS = {"regret", "difference", "suff_fail", "training", "entropy", "arms"}


def page_of(*paths):
    page, missing = make_page(open_sources(paths))
    root, data = reports.read(page)
    told = reports.sections(root).get("missing", "")
    assert all(" ".join(text.split()) in told for text in missing)
    return root, data, "\n".join(missing)


def kinds(data, number=0):
    """What can be drawn of a source."""
    return {kind for setting in data["sources"][number]["settings"] for kind in setting if kind in KINDS}


@pytest.fixture
def run(tmp_path):
    return reports.run_directory(tmp_path / "run", reports.made_evaluation(num_scenarios=8))


@pytest.fixture
def sweep(tmp_path):
    directory = SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart", grid=SMALL))
    for cell in directory.cells[:3]:
        directory.write_cell(cell, made_sweep(SMALL).drop_vars("status").sel(cell.coordinates))
    return directory


def test_a_run_in_training_shows_what_it_has(tmp_path):
    root, data, missing = page_of(reports.run_directory(tmp_path / "run", num_scenarios=7).path)
    assert kinds(data) == {"training", "entropy"}
    assert "run: evaluation: " in missing
    assert "evaluation.nc does not exist yet" in missing
    assert "the run has not ended: 40 of 40 iterations are done" in missing
    assert ["num_scenarios", "7"] in reports.rows(root, "settings")
    assert not {"table", "regret", "map"} & set(reports.sections(root))


def test_a_run_that_has_just_begun_shows_its_settings(tmp_path):
    run = RunDirectory.create(tmp_path / "run", texts.RunConfig(), "quickstart")
    root, data, missing = page_of(run.path)
    assert kinds(data) == set()
    assert "metrics.nc does not exist yet" in missing
    assert ["seed", "0"] in reports.rows(root, "settings")


@pytest.mark.parametrize(
    ("name", "left", "said"),
    [
        ("evaluation.nc", {"training", "entropy"}, "evaluation.nc is damaged"),
        ("metrics.nc", {"regret", "difference", "suff_fail", "arms"}, "metrics.nc is damaged"),
        ("config.json", KINDS, "cannot read"),
        ("summary.json", KINDS, "cannot read"),
    ],
)
def test_of_a_damaged_run_the_rest_is_shown(run, name, left, said):
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content[: len(content) // 2])
    _, data, missing = page_of(run.path)
    assert kinds(data) == left
    assert said in missing
    assert name in missing


def test_of_an_evaluation_that_lacks_a_part_the_rest_is_shown(run):
    whole = run.read_dataset("evaluation.nc")
    run.write_dataset("evaluation.nc", whole.drop_vars("min_frac"))
    root, data, missing = page_of(run.path)
    assert kinds(data) == KINDS
    assert "run: table: KeyError: " in missing
    assert "table" not in reports.sections(root)
    run.write_dataset("evaluation.nc", whole.drop_vars("last_best_round"))
    root, data, missing = page_of(run.path)
    assert kinds(data) == KINDS - {"suff_fail"}
    assert missing == ""
    assert reports.rows(root, "table")[0][-1] == "p of β = 1"


def test_a_damaged_source_does_not_touch_the_others(run, tmp_path):
    other = reports.run_directory(tmp_path / "other", reports.made_evaluation(num_scenarios=8))
    (other.path / "evaluation.nc").write_bytes(b"no")
    _, data, missing = page_of(run.path, other.path)
    assert kinds(data, 0) == KINDS
    assert kinds(data, 1) == {"training", "entropy"}
    assert missing.count("\n") == 0


def test_an_unfinished_sweep_says_which_cells_are_missing(sweep):
    sweep.write_failure(sweep.cells[3], "the loss is nan")
    (sweep.path / "cells/00001.nc").write_bytes(b"no")
    root, data, missing = page_of(sweep.path)
    assert "1 of 4 cells failed" in missing
    assert "1 of 4 cells missing" in missing
    assert "horizon=8,num_arms=3 failed: the loss is nan" in missing
    assert "00001.nc is damaged" in missing
    settings = data["sources"][0]["settings"]
    assert [setting["status"] for setting in settings] == ["finished", "missing", "finished", "failed"]
    assert ["regret" in setting for setting in settings] == [True, False, True, False]
    assert len(reports.rows(root, "table")) == 1 + 4 * 5


def test_an_empty_sweep_shows_its_settings(tmp_path):
    SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart", grid=SMALL))
    root, data, missing = page_of(tmp_path / "sweep")
    assert kinds(data) == set()
    assert "no cell has finished" in missing
    assert ["horizon", "5, 8"] in reports.rows(root, "settings")
    assert ["num_arms", "2, 3"] in reports.rows(root, "settings")


def test_of_a_sweep_without_its_record_the_assembled_file_is_shown(sweep):
    sweep.write_assembled()
    (sweep.path / "sweep.json").write_text('{"spec": ')
    _, data, missing = page_of(sweep.path)
    assert kinds(data) == KINDS
    assert "shown is sweep.nc as it was made last" in missing
    (sweep.path / "sweep.nc").unlink()
    assert kinds(page_of(sweep.path)[1]) == set()


def test_sweeps_of_scattered_cells_seeds_alone_and_one_cell_have_pages(tmp_path):
    for grid in ({}, {"seed": [0, 1, 2]}, {"horizon": [5, 8], "seed": [0, 1]}):
        made = made_sweep(grid)
        made.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
        root, data, missing = page_of(tmp_path / "sweep.nc")
        source = data["sources"][0]
        assert missing == ""
        assert len(source["settings"]) == len(grid.get("horizon", [0]))
        assert ("map" in reports.sections(root)) == ("horizon" in grid)
    scattered = made_sweep({"horizon": [5, 8]}).rename(horizon="cell").drop_vars("cell")
    scattered = scattered.assign_coords(k=("cell", [1, 2]), width=("cell", [8, 16]))
    scattered.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    titles = [setting["title"] for setting in page_of(tmp_path / "sweep.nc")[1]["sources"][0]["settings"]]
    assert titles == ["cell = k=1,width=8", "cell = k=2,width=16"]


def test_play_in_a_ball_has_no_arms(tmp_path):
    evaluation = reports.made_evaluation(num_scenarios=8)
    evaluation = evaluation.drop_vars(["rank", "last_best_round", "min_frac", "greedy_frac", "action"])
    run = reports.run_directory(tmp_path / "run", evaluation)
    metrics = reports.made_metrics()
    run.write_dataset("metrics.nc", metrics.assign(entropy=0 * metrics["entropy"]))
    root, data, missing = page_of(run.path)
    assert kinds(data) == {"regret", "difference", "training"}
    assert missing == ""
    assert not {"arms", "suff_fail"} & set(reports.sections(root))


def test_numbers_that_are_none_leave_gaps(run):
    evaluation = run.read_dataset("evaluation.nc")
    regret = evaluation["regret"].copy(deep=True)
    regret.loc[{"agent": "ucb1"}] = np.nan
    run.write_dataset("evaluation.nc", evaluation.assign(regret=regret))
    _, data, _ = page_of(run.path)
    assert "ucb1" not in data["sources"][0]["settings"][0]["regret"]["curves"]
    assert "rmft" in data["sources"][0]["settings"][0]["regret"]["curves"]


def test_a_benchmark_of_agents_needs_no_run(tmp_path):
    evaluation = reports.made_evaluation(agents=("ucb1", "thompson"), num_scenarios=8)
    (tmp_path / "agents").mkdir()
    evaluation.to_netcdf(tmp_path / "agents/agents.nc", engine="h5netcdf")
    root, data, missing = page_of(tmp_path / "agents")
    assert kinds(data) == KINDS - {"training", "entropy"}
    assert [row[0] for row in reports.rows(root, "table")] == ["agent", "UCB1", "Thompson"]
    assert missing == "agents: settings: there is no config.json"


def test_language_runs_show_dialogues_with_what_was_kept(tmp_path):
    run, _, _ = make_run(tmp_path / "run", texts.TEXT_RUN)
    root, _, missing = page_of(run.path)
    assert "dialogues" not in missing
    expected = rollouts_of(load_run(run.path), None)
    assert any(dialogue.kept for dialogue in expected)
    shown = [*root.iter("details")]
    shown = [one for one in shown if one.find("ol") is not None]
    assert len(shown) == len(expected) == texts.TEXT.num_rollouts
    ordered = sorted(expected, key=lambda dialogue: float(dialogue.regret[-1]))
    for one, dialogue in zip(shown, ordered, strict=True):
        assert one.get("class") == ("kept" if dialogue.kept else "not-kept")
        head = reports.text_of(next(one.iter("summary")))
        assert head.endswith(f"regret {dialogue.regret[-1]:.2f}, {'kept' if dialogue.kept else 'not kept'}")
        for line, text, regret in zip(one.iter("li"), dialogue.rounds, dialogue.regret, strict=True):
            assert "".join(next(line.iter("q")).itertext()) == text
            assert f"regret so far {regret:.2f}" in reports.text_of(line)
    assert expected[0].intro.split()[0] in reports.text_of(root)
    for file in run.checkpoints.iterdir():
        file.write_bytes(b"no")
    assert "dialogues: " in page_of(run.path)[2]


def asked(url, path="/", host=None):
    address = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", path, headers={"Host": host or address})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_watched_page_follows_its_files(tmp_path):
    run = reports.run_directory(tmp_path / "run")
    with watch([run.path]) as served:
        assert served.url.startswith("http://127.0.0.1:")
        status, page = asked(served.url)
        root, data = reports.read(page)
        assert (status, kinds(data)) == (200, {"training", "entropy"})
        assert asked(served.url, "/version") == (200, data["watch"])
        (policy,) = [one.get("content", "") for one in root.iter("meta") if "http-equiv" in one.attrib]
        assert policy.endswith("connect-src 'self'")
        assert asked(served.url)[1] == page
        run.write_dataset("evaluation.nc", reports.made_evaluation(num_scenarios=8))
        status, newer = asked(served.url, "/version")
        assert newer != data["watch"]
        _, data = reports.read(asked(served.url)[1])
        assert data["watch"] == newer
        assert kinds(data) == KINDS
        assert asked(served.url, "/config.json")[0] == 404
        assert asked(served.url, "/../run/config.json")[0] == 404


def test_a_watched_page_is_for_this_machine_alone(tmp_path, capsys):
    run = reports.run_directory(tmp_path / "run")
    with watch([run.path]) as served:
        assert asked(served.url, host="example.org")[0] == 403
        port = int(served.url.rstrip("/").rpartition(":")[2])
        assert asked(served.url, "/version", host=f"localhost:{port}")[0] == 200
        with socket.socket() as other:
            other.settimeout(5)
            # All of 127.* is this machine, but only one address of it listens.
            assert other.connect_ex(("127.0.0.2", port)) != 0
        assert f"cannot listen on 127.0.0.1:{port}" in refused(
            capsys, "report", run.path, "--watch", "--port", str(port)
        )
        for file in run.path.iterdir():
            if file.is_file():
                file.unlink()
        status, text = asked(served.url)
        assert (status, "is no run" in text) == (503, True)
    with pytest.raises(RunError, match="is no run"):
        watch([tmp_path / "nowhere"])


def test_the_command_serves_until_it_is_stopped(tmp_path, capsys, monkeypatch):
    run = reports.run_directory(tmp_path / "run")

    def stopped(served):
        assert asked(served.url, "/version")[0] == 200
        raise KeyboardInterrupt

    monkeypatch.setattr("rmft_jax.report.watch.Watch.wait", stopped)
    assert cli.main(["report", str(run.path), "--watch", "--port", "0"]) == 0
    assert f"following {run.path} at http://127.0.0.1:" in capsys.readouterr().out
    assert not [*tmp_path.glob("*.html")]


def test_intervals_of_sweeps_may_be_hierarchical(tmp_path):
    made_sweep({"seed": [0, 1, 2]}).to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    source = open_sources([tmp_path / "sweep.nc"], "hierarchical")[0]
    assert isinstance(source.results, xr.Dataset)
    _, data = reports.read(make_page([source])[0])
    assert data["sources"][0]["bands"]["regret"].startswith("hierarchical bootstrap over 3 seeds")
    assert json.dumps(data, allow_nan=False)
