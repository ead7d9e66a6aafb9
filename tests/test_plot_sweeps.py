"""Figures of sweeps with curves over rounds and iterations, and what they are written as."""

import csv
import re
import zlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from evaluations import made_evaluation
from rmft_jax.config import ConfigError
from rmft_jax.plotting import (
    FIGURES,
    plot_all,
    plot_arms,
    plot_kind,
    plot_loglog,
    plot_regret,
    plot_suff_fail,
    plot_training,
    save_figure,
)
from rmft_jax.statistics.estimates import estimate
from sweep_data import made_sweep

SWEEP = made_sweep()
CURVES = (plot_regret, plot_loglog, plot_suff_fail)


def lines_of(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def panels_of(figure) -> dict:
    return {axes.get_title().split("\n")[0]: axes for axes in figure.axes if axes.get_title()}


def test_a_panel_per_value_shows_the_means_over_seeds():
    figure: Any = plot_regret(SWEEP, by="num_arms", select={"horizon": 50})
    panels = panels_of(figure)
    assert list(panels) == ["K = 2", "K = 5", "K = 10"]
    lines = lines_of(panels["K = 5"])
    assert list(lines) == ["RMFT Transformer", "greedy", "Thompson", "UCB1", "uniform"] == legend_of(figure)
    trained = SWEEP["regret"].sel(horizon=50, num_arms=5).mean("seed")[:50]
    np.testing.assert_allclose(lines["RMFT Transformer"].get_ydata(), trained)
    ucb1 = SWEEP["baseline_regret"].sel(horizon=50, num_arms=5, agent="ucb1").mean("seed")[:50]
    np.testing.assert_allclose(lines["UCB1"].get_ydata(), ucb1)
    assert panels["K = 5"].get_xlim() == (0, 50)
    assert "(reward units)" in figure.get_supylabel()
    assert figure.caption == (
        "95% bands: Student-t over 3 seeds (rmft); 1.96 standard errors over scenarios (greedy, thompson, ucb1, "
        "uniform). By num_arms. At horizon = 50."
    )


def test_without_baselines_a_curve_per_value_has_a_colour_of_its_own():
    figure: Any = plot_regret(SWEEP, by="horizon", select={"num_arms": 5}, baselines=())
    (axes,) = figure.axes
    lines = lines_of(axes)
    assert list(lines) == ["T = 25", "T = 50", "T = 100"]
    assert len({line.get_color() for line in lines.values()}) == 3
    shown = np.asarray(lines["T = 25"].get_ydata())
    np.testing.assert_allclose(shown[:25], SWEEP["regret"].sel(horizon=25, num_arms=5).mean("seed")[:25])
    assert np.isnan(shown[25:]).all(), "a shorter run ends where it ended"
    rows = [row for row in figure.rows if row["horizon"] == "25"]
    assert len(rows) == 25
    assert {row["agent"] for row in rows} == {"rmft"}


def test_named_baselines_are_drawn_and_no_others():
    figure = plot_suff_fail(SWEEP, select={"horizon": 50, "num_arms": 5}, baselines=["ucb1"])
    assert legend_of(figure) == ["RMFT Transformer", "UCB1"]
    assert set(lines_of(plot_regret(made_evaluation(), baselines=["greedy"]).axes[0])) == {"RMFT Transformer", "greedy"}
    for draw in CURVES:
        with pytest.raises(ConfigError, match="got baseline 'ucb2', need one of thompson"):
            draw(SWEEP, by="num_arms", select={"horizon": 50}, baselines=["ucb2"])


def test_exponents_stand_in_the_legend_or_above_the_panels():
    chosen = {"horizon": 100, "num_arms": 2}
    single: Any = plot_loglog(SWEEP, select=chosen)
    expected = estimate(SWEEP.sel(chosen), "exponent")
    words = "β = {:.2f} [{:.2f}, {:.2f}]".format(*(float(expected[side]) for side in ("mean", "low", "high")))
    assert f"RMFT Transformer, {words}" in legend_of(single)
    assert "slope of √t: β = 0.50" in legend_of(single)
    trained = next(row for row in single.rows if row["agent"] == "rmft")
    np.testing.assert_allclose([trained["exponent"], trained["exponent_high"]], [expected["mean"], expected["high"]])

    panels = plot_loglog(SWEEP, by="num_arms", select={"horizon": 100})
    assert panels.axes[0].get_title() == f"K = 2\n{words}"
    coloured = plot_loglog(SWEEP, by="num_arms", select={"horizon": 100}, baselines=())
    assert f"K = 2, {words}" in legend_of(coloured)
    (guide,) = [line for line in panels.axes[0].get_lines() if "slope" in str(line.get_label())]
    x, y = (np.log(np.asarray(values, float)) for values in (guide.get_xdata(), guide.get_ydata()))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), 0.5)
    for axis in (single.axes[0].xaxis, single.axes[0].yaxis):
        assert {"1", "10"} <= {axis.get_major_formatter()(value, 0) for value in axis.get_majorticklocs()}


def test_training_has_a_line_per_value_and_the_entropy_below():
    figure = plot_training(SWEEP, by="num_arms", select={"horizon": 50})
    regret, entropy = figure.axes
    assert legend_of(figure) == ["K = 2", "K = 5", "K = 10", "thin: rollouts"]
    expected = SWEEP["validation_regret"].sel(horizon=50, num_arms=5).mean("seed")
    np.testing.assert_allclose(lines_of(regret)["K = 5"].get_ydata(), expected)
    assert len(entropy.get_lines()) == 3
    np.testing.assert_allclose(np.asarray(entropy.get_lines()[0].get_ydata()), SWEEP["entropy"][1, 0].mean("seed"))
    assert {row["variable"] for row in figure.rows} == {
        "training_regret", "selected_regret", "validation_regret", "entropy"
    }  # fmt: skip
    alone = plot_training(SWEEP, select={"horizon": 50, "num_arms": 5})
    level = SWEEP["baseline_final_regret"].sel(horizon=50, num_arms=5, agent="thompson").mean()
    np.testing.assert_allclose(lines_of(alone.axes[0])["Thompson"].get_ydata(), level)


def test_arms_show_the_ranks_that_exist():
    figure = plot_arms(SWEEP, by="num_arms", select={"horizon": 50})
    images = {title: np.asarray(axes.get_images()[0].get_array()) for title, axes in panels_of(figure).items()}
    assert {title: image.shape for title, image in images.items()} == {
        "K = 2": (2, 50), "K = 5": (5, 50), "K = 10": (10, 50)
    }  # fmt: skip
    np.testing.assert_allclose(images["K = 5"].sum(axis=0), 1.0)
    np.testing.assert_allclose(images["K = 5"][0], 1 - 1 / np.sqrt(np.arange(1, 51)))


def test_a_cell_without_a_finished_run_says_so():
    dataset = made_sweep(failed=[9, 10, 11])  # horizon = 50, num_arms = 2
    for kind in ("regret", "loglog", "suff_fail", "arms"):
        figure = plot_kind(kind, dataset, by="num_arms", select={"horizon": 50})
        empty = panels_of(figure)["K = 2"]
        said = "no finished run\nwith positive regret" if kind == "loglog" else "no finished run"
        assert [text.get_text() for text in empty.texts] == [said]
        assert not panels_of(figure)["K = 5"].texts
        figure.draw_without_rendering()


@pytest.mark.parametrize(
    "dataset",
    [
        made_sweep({}),
        made_sweep({"seed": [0]}),
        made_sweep({"horizon": [1, 2], "seed": [0, 1]}),
        made_sweep({"horizon": [9, 25], "num_arms": [2, 3]}, failed=range(4)),
        made_sweep({"horizon": [9, 25], "num_arms": [2, 3]}, bonus=1.0, baselines={}),
        made_sweep({"a_field_of_long_name": ["a_value_that_is_rather_long", "b", "c"]}),
        made_sweep({"seed": [0, 1]}, baselines={f"a_baseline_of_long_name_{i}": 0.1 * i + 0.1 for i in range(12)}),
        pytest.param(made_sweep({"num_arms": list(range(2, 13)), "horizon": [9]}), marks=pytest.mark.slow),
        made_sweep({"branching": ["none", "uniform"], "shared": [True, False], "k": [1, 2]}, ball=True),
    ],
    ids=["one-cell", "one-seed", "T=1", "all-failed", "negative", "long", "12-baselines", "11-values", "ball"],
)
@pytest.mark.parametrize("style", ["paper", pytest.param("slides", marks=pytest.mark.slow)])
def test_nasty_sweeps_have_all_their_figures(dataset, style, monkeypatch, tmp_path):
    drawn = {}

    def save(figure, path):
        figure.draw_without_rendering()
        drawn[path.name] = figure
        return [path]

    monkeypatch.setattr("rmft_jax.plotting.figures.save_figure", save)
    plot_all(dataset, tmp_path, style)
    assert len(drawn) >= 4
    kinds = {next(kind for kind in FIGURES if name.startswith(kind)) for name in drawn}
    assert {"regret", "loglog", "training"} <= kinds
    assert ({"suff_fail", "arms"} <= kinds) == ("rank_frequency" in dataset)
    width = {"paper": 3.4, "slides": 6.5}[style]
    for name, figure in drawn.items():
        assert figure.get_figwidth() == width
        box = figure.get_tightbbox()
        assert box.x0 >= -0.02, name
        assert box.x1 <= width + 0.02, name
        assert box.y1 <= figure.get_figheight() + 0.02, name
        for legend in figure.legends:
            for axes in figure.axes:
                assert not legend.get_window_extent().overlaps(axes.get_window_extent()), name


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("regret", {}, "got several values of horizon (25, 50, 100); num_arms (2, 5, 10)"),
        ("regret", {"by": "nope", "select": {"horizon": 50}}, "got dimension 'nope'"),
        ("pie", {}, "got figure 'pie', need one of arms, final_regret, regret"),
        ("arms", {"relative_to": "ucb1"}, "got relative_to with kind arms, need kind difference or heatmap"),
        ("training", {"baselines": ("ucb1",)}, "got baselines with kind training"),
        ("regret", {"by": "num_arms", "select": {"horizon": 50}, "style": "poster"}, "got style='poster'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(kind, options, message):
    with pytest.raises(ConfigError) as error:
        plot_kind(kind, SWEEP, **options)
    assert message in str(error.value)
    assert "; try " in str(error.value)


def test_a_ball_has_no_arms_and_a_run_no_dimensions():
    for kind in ("arms", "suff_fail"):
        with pytest.raises(ConfigError, match=r"got a sweep without .*, need one with it .* play in a ball no arms"):
            plot_kind(kind, made_sweep({}, ball=True))
        with pytest.raises(ConfigError, match="got a single run without"):
            plot_kind(kind, made_evaluation()[["regret", "mean_rewards"]])
    for draw in (*CURVES, plot_arms):
        with pytest.raises(ConfigError, match="need a sweep"):
            draw(made_evaluation(), by="horizon")
    with pytest.raises(ConfigError, match="got 11 values of num_arms, need at most 8"):
        plot_regret(made_sweep({"num_arms": list(range(2, 13))}), by="num_arms")


@pytest.mark.usefixtures("real_fonts")
def test_files_embed_their_fonts_and_hold_the_numbers(tmp_path):
    figure = plot_regret(SWEEP, by="num_arms", select={"horizon": 25}, style="slides")
    png, pdf, table = save_figure(figure, tmp_path / "step=0.5")
    assert [path.name for path in (png, pdf, table)] == ["step=0.5.png", "step=0.5.pdf", "step=0.5.csv"]
    with Image.open(png) as image:
        assert image.width == 6.5 * 300
    content = pdf.read_bytes()
    fonts = re.findall(rb"/Subtype\s*/(Type\d|TrueType|CIDFontType\d)", content)
    assert fonts
    assert b"Type3" not in fonts
    assert b"/FontFile2" in content
    streams = [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", content, re.S)]
    assert any(stream.startswith((b"\x00\x01\x00\x00", b"true")) for stream in streams), "a TrueType file is inside"

    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 5 * 25
    assert list(rows[0]) == ["num_arms", "agent", "round", "mean", "low", "high", "interval"]
    row = next(row for row in rows if (row["num_arms"], row["agent"], row["round"]) == ("5", "rmft", "9"))
    expected = estimate(SWEEP.sel(horizon=25, num_arms=5), "regret").sel(round=9)
    np.testing.assert_allclose([float(row[s]) for s in ("mean", "low", "high")],
                               [expected[s] for s in ("mean", "low", "high")], rtol=1e-5)  # fmt: skip
    assert row["interval"] == "Student-t over 3 seeds"
    assert not plt.get_fignums(), "no figure stays open"


def test_figures_of_runs_hold_their_numbers_too():
    evaluation = made_evaluation()
    figures: list[Any] = [draw(evaluation) for draw in (plot_regret, *CURVES, plot_arms)]
    assert all(figure.rows for figure in figures)
    rows = [row for row in figures[0].rows if row["agent"] == "ucb1"]
    np.testing.assert_allclose(
        [row["mean"] for row in rows], evaluation["regret"].sel(agent="ucb1").mean("scenario"), 1e-6
    )
    assert {row["interval"] for row in rows} == {"bootstrap over scenarios"}


def test_panels_have_one_scale_unless_some_would_be_flat():
    for largest, shared in ((5, True), (50, False)):
        dataset = made_sweep({"num_arms": [2, largest]})
        limits = [axes.get_ylim() for axes in plot_regret(dataset, by="num_arms").axes]
        assert (limits[0] == limits[1]) is shared
        each = [plot_regret(dataset, select={"num_arms": k}).axes[0].get_ylim() for k in (2, largest)]
        assert max(limits) == max(each)
        assert shared or limits == each
