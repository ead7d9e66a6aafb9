"""`rmft report`: what the page holds, held against the datasets that it is made from."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import reports
from rmft_jax import cli
from rmft_jax.plotting.panels import evaluation_curves, scenario_curves
from rmft_jax.plotting.style import style_of
from rmft_jax.report import Source, curves, make_page, open_sources, write_report
from rmft_jax.report.page import library
from rmft_jax.statistics.estimates import estimate, estimates
from rmft_jax.statistics.report import estimate_text, summarize
from runs import refused
from sweep_data import made_sweep

pytest.importorskip("vl_convert")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("reports")
    reports.run_directory(path / "run", reports.evaluation())
    reports.run_directory(path / "other", reports.evaluation(bonus=0.01), horizon=77)
    reports.sweep_directory(path / "sweep")
    return path


@pytest.fixture(scope="module")
def of_runs(folder):
    assert write_report([folder / "run", folder / "other"], folder / "runs.html") == []
    return reports.read((folder / "runs.html").read_text())


@pytest.fixture(scope="module")
def of_sweep(folder):
    missing = write_report([folder / "sweep"], folder / "sweep.html")
    assert missing == ["sweep: 1 of 18 cells failed", "sweep: horizon=200,num_arms=6,seed=1 failed: the loss is nan"]
    return reports.read((folder / "sweep.html").read_text())


def assert_curve(found, at, dataset, dim="round"):
    """Mean, low and high at the points of a curve are those of an estimate, as far as four digits go."""
    for numbers, side in zip(found, ("mean", "low", "high"), strict=False):
        expected = dataset[side].sel({dim: at}).to_numpy()
        np.testing.assert_allclose(np.array(numbers, float), expected, rtol=6e-4, atol=1e-12)


def test_curves_of_a_run_are_those_of_its_evaluation(of_runs):
    evaluation, (setting,) = reports.evaluation(), of_runs[1]["sources"][0]["settings"]
    at = setting["regret"]["at"]
    assert at[0] == 1
    assert at[-1] == 300
    assert len(at) <= curves.MOST_POINTS
    regret, fails = (evaluation_curves(evaluation, name) for name in ("regret", "suff_fail_freq"))
    assert list(setting["regret"]["curves"]) == list(evaluation["agent"].values)
    for name in evaluation["agent"].values:
        assert_curve(setting["regret"]["curves"][name], at, regret.sel(agent=name))
        suffixes = setting["suff_fail"]
        assert_curve(suffixes["curves"][name], suffixes["at"], fails.sel(agent=name))
    assert of_runs[1]["sources"][0]["bands"]["regret"] == "bootstrap over scenarios"


def test_differences_are_paired_by_scenario(of_runs):
    evaluation, (setting,) = reports.evaluation(), of_runs[1]["sources"][0]["settings"]
    regret = evaluation["regret"].astype(float)
    names = list(evaluation["agent"].values)
    found = setting["difference"]
    assert set(found["curves"]) == {f"{a}|{b}" for a, b in itertools.combinations(names, 2)}
    for first, second in (("rmft", "thompson"), ("ucb1", "uniform")):
        expected = scenario_curves(regret.sel(agent=first) - regret.sel(agent=second))
        assert_curve(found["curves"][f"{first}|{second}"], found["at"], expected)


def test_training_and_arms_are_those_of_the_files(of_runs):
    metrics, (setting,) = reports.made_metrics(), of_runs[1]["sources"][0]["settings"]
    training = setting["training"]
    assert training["validation_regret"]["at"] == [0, 10, 20, 30, 40]
    validation = estimate(metrics, "validation_regret")
    assert_curve(
        training["validation_regret"]["curves"]["validation_regret"], [0, 10, 20, 30, 40], validation,
        "validation_iteration",
    )  # fmt: skip
    (rollouts,) = training["training_regret"]["curves"]["training_regret"]
    np.testing.assert_allclose(rollouts, metrics["regret"], rtol=6e-4)
    (entropy,) = setting["entropy"]["curves"]["entropy"]
    np.testing.assert_allclose(entropy, metrics["entropy"], rtol=6e-4)
    evaluation = reports.evaluation()
    assert setting["level"]["thompson"] == pytest.approx(
        float(evaluation["regret"].sel(agent="thompson")[:, -1].mean()), rel=1e-3
    )
    for name in ("rmft", "uniform"):
        edges, shares = setting["arms"][name]["edges"], np.array(setting["arms"][name]["shares"])
        assert (edges[0], edges[-1]) == (1, 301)
        assert shares.shape == (4, len(edges) - 1)
        np.testing.assert_allclose(shares.sum(0), 1, atol=1e-3)
        ranks = evaluation["rank"].sel(agent=name, round=slice(edges[3], edges[4] - 1))
        assert shares[0, 3] == pytest.approx(float((ranks == 0).mean()), rel=1e-3)


def test_tables_say_what_the_summary_says(of_runs):
    head, *body = reports.rows(of_runs[0], "table")
    assert head[:4] == ["agent", "dynamic regret", "minus Thompson", "β"]
    summary = summarize(reports.evaluation())
    order = sorted(summary, key=lambda name: summary[name]["regret_mean"])
    assert [row[0] for row in body] == [style_of(name).label for name in order]
    for name, row in zip(order, body, strict=True):
        regret = estimate_text(summary[name]["regret_mean"], summary[name]["regret_ci95"])
        assert row[1] == regret.replace("-", "−")
    assert body[order.index("thompson")][2] == "–"


def test_settings_stand_side_by_side_and_differences_are_marked(of_runs):
    head, *body = reports.rows(of_runs[0], "settings")
    assert head == ["setting", "run", "other"]
    assert [row for row in body if "≠" in row[0]] == [["horizon ≠", "50", "77"]]
    assert ["num_iterations", "40", "40"] in body
    told = reports.sections(of_runs[0])["settings"]
    assert "device made up" in told
    assert "wall_seconds 12.3457" in told


def test_every_setting_of_a_sweep_has_its_curves(of_sweep):
    data, dataset = of_sweep[1]["sources"][0], reports.sweep_dataset()
    failed = dataset.copy(deep=True)
    for name in failed.data_vars:
        if {"horizon", "num_arms", "seed"} <= set(failed[name].dims) and failed[name].dtype.kind == "f":
            failed[name].loc[{"horizon": 200, "num_arms": 6, "seed": 1}] = np.nan
    assert [dim["values"] for dim in data["dims"]] == [["25", "50", "200"], ["2", "3", "6"]]
    assert len(data["settings"]) == 9
    regrets, fails = estimates(failed, "regret"), estimates(failed, "suff_fail_freq")
    ahead = estimate(failed.assign(d=failed["regret"] - failed["baseline_regret"].sel(agent="ucb1", drop=True)), "d")
    for number, setting in enumerate(data["settings"]):
        horizon, num_arms = (reports.GRID["horizon"][number // 3], reports.GRID["num_arms"][number % 3])
        place = {"horizon": horizon, "num_arms": num_arms}
        assert setting["title"] == f"T = {horizon}, K = {num_arms}"
        assert setting["status"] == ("1 of 2 seeds failed" if (horizon, num_arms) == (200, 6) else "finished")
        at = setting["regret"]["at"]
        assert (at[0], at[-1]) == (1, horizon)
        assert set(setting["regret"]["curves"]) == {"rmft", *reports.RIVALS}
        for name in ("rmft", "uniform"):
            assert_curve(setting["regret"]["curves"][name], at, regrets[name].sel(place))
            assert_curve(setting["suff_fail"]["curves"][name], setting["suff_fail"]["at"], fails[name].sel(place))
        assert_curve(setting["difference"]["curves"]["rmft|ucb1"], setting["difference"]["at"], ahead.sel(place))
        assert len(setting["arms"]["rmft"]["shares"]) == num_arms
    head, *body = reports.rows(of_sweep[0], "table")
    assert head == ["horizon T", "number of arms K", "agent", "pseudo-regret", "β", "seeds", "95% interval"]
    assert len(body) == 9 * 8
    final = estimates(failed, "final_regret")["ucb1"].sel(horizon=50, num_arms=3)
    mean, low, high = (float(final[side]) for side in ("mean", "low", "high"))
    assert ["50", "3", "UCB1", estimate_text(mean, (low, high))] in [row[:4] for row in body]


def test_a_report_of_75_settings_is_small():
    grid = {"horizon": [60, 80, 100, 150, 200], "num_arms": [2, 3, 4, 5, 6], "k": [1, 2, 4], "seed": [0, 1]}
    source = Source("sweep", Path("sweep"), results=made_sweep(grid, reports.RIVALS))
    page, _ = make_page([source])
    assert len(page.encode()) < 5e6
    assert '"title":"T = 200, K = 6, k = 4"' in page


def test_a_page_asks_the_network_for_nothing(of_runs, of_sweep):
    for root, _ in (of_runs, of_sweep):
        links = [one.get(name, "") for one in root.iter() for name in ("href", "src") if name in one.attrib]
        assert all(link.startswith("#") or link == "data:," for link in links)
        (policy,) = [one.get("content", "") for one in root.iter("meta") if "http-equiv" in one.attrib]
        assert policy.startswith("default-src 'none'; ")
        assert "connect-src" not in policy
        assert "http" not in policy


def test_the_same_files_give_the_same_page(folder, tmp_path):
    for name in ("a.html", "b.html"):
        write_report([folder / "run"], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_agents_look_as_in_figures(of_runs):
    looks = of_runs[1]["agents"]
    for name, look in looks.items():
        assert (look["label"], look["color"]) == (style_of(name).label, style_of(name).color)
    assert looks["rmft"]["dash"] == []
    assert looks["thompson"]["dash"] == pytest.approx([1.8 * 3.7, 1.8 * 1.6])
    assert looks["epsilon_greedy"]["dash"] == pytest.approx([1.8 * n for n in style_of("epsilon_greedy").line[1]])
    distinct = [(look["color"], tuple(look["dash"])) for look in looks.values()]
    assert len(set(distinct)) == len(distinct)


def test_headings_and_links_lead_everywhere(of_runs, of_sweep):
    for root, _ in (of_runs, of_sweep):
        names = {one.get("id") for one in root.iter() if one.get("id")}
        links = {one.get("href", "")[1:] for one in root.iter("a")}
        assert {one.get("id") for one in root.iter("section")} <= links <= names
        assert all(one.find("h2") is not None for one in root.iter("section"))
    assert "map" in reports.sections(of_sweep[0])
    assert "map" not in reports.sections(of_runs[0])


@pytest.mark.parametrize(("number", "points"), [(1, 5), (5, 5), (300, 12), (1000, 40)])
def test_thinned_curves_keep_their_ends(number, points):
    places = curves.places_of(number, points)
    assert (places[0], places[-1]) == (0, number - 1)
    assert len(places) <= points
    assert len(places) >= min(number, points) - 4  # Where both ladders have the same places.
    assert np.all(np.diff(places) > 0)


def test_large_sweeps_have_fewer_points_in_a_curve(folder):
    run, sweep = (open_sources([folder / name]) for name in ("run", "sweep"))
    counts = [curves.num_points(sources) for sources in (run, sweep, sweep * 3, sweep * 100)]
    assert counts[:2] == [curves.MOST_POINTS] * 2
    assert counts[0] > counts[2] > counts[3] == curves.FEWEST


def test_names_cannot_bring_markup(tmp_path):
    evil = '</script><img src=x onerror="alert(1)">'
    evaluation = reports.evaluation(agents=("rmft", "ucb1"), reference="ucb1")
    run = reports.run_directory(tmp_path / "<b>run", evaluation.assign_coords(agent=["rmft", evil]))
    record = json.loads(run.record.read_text())
    record["config"]["environment"] = evil
    run.record.write_text(json.dumps(record))
    write_report([run.path], tmp_path / "out.html")
    root, data = reports.read((tmp_path / "out.html").read_text())
    assert evil in data["agents"]
    assert [*root.iter("img"), *root.iter("b")] == []
    assert [row[1] for row in reports.rows(root, "settings") if row[0] == "environment"] == [evil]


def test_the_command_writes_the_page_and_says_what_is_missing(folder, tmp_path, capsys):
    assert cli.main(["report", str(folder / "sweep"), "--out", str(tmp_path / "deep" / "r.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "missing: sweep: 1 of 18 cells failed"
    assert lines[-1].startswith(f"report: {tmp_path}/deep/r.html (")
    assert cli.main(["report", str(folder / "run/evaluation.nc"), "--out", str(tmp_path / "file.html")]) == 0
    _, data = reports.read((tmp_path / "file.html").read_text())
    assert list(data["sources"][0]["settings"][0]) == ["title", "status", "regret", "difference", "suff_fail", "arms"]


def test_what_cannot_be_reported_is_refused_in_one_line(folder, tmp_path, capsys, monkeypatch):
    out = ["--out", tmp_path / "no.html"]
    assert "got nothing to report on" in refused(capsys, "report", *out)
    assert "is no run, no sweep" in refused(capsys, "report", tmp_path / "nowhere", *out)
    assert "need an .html file" in refused(capsys, "report", folder / "run", "--out", "r.pdf")
    assert "port=70000" in refused(capsys, "report", folder / "run", "--watch", "--port", "70000")
    assert "scenario=-1" in refused(capsys, "report", folder / "run", "--scenario", "-1", *out)
    assert "cannot write to" in refused(capsys, "report", folder / "run", "--out", folder / "run/config.json/r.html")
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    hint = "need the package vl-convert-python; try .venv/bin/pip install '.[report]' in the clone"
    assert hint in refused(capsys, "report", folder / "run", *out)
    assert not (tmp_path / "no.html").exists()
