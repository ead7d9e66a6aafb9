"""Figures of regret at the horizon over what a sweep varies."""

import functools
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from evaluations import made_evaluation
from rmft_jax.config import ConfigError
from rmft_jax.plotting import plot_arms, plot_final_regret, plot_heatmap, plot_regret, plot_sweep
from rmft_jax.statistics.estimates import with_intervals
from sweep_data import made_sweep

SWEEP = made_sweep()
regret_at_25 = functools.partial(plot_regret, by="num_arms", select={"horizon": 25})
LABELS = ["RMFT Transformer", "greedy", "Thompson", "UCB1", "uniform"]


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def numbers_of(axes) -> dict:
    return {text.get_position()[::-1]: text.get_text() for text in axes.texts}


def hatched_of(axes) -> list[tuple[float, float, str]]:
    found = (patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch())
    return [(patch.get_y() + 0.5, patch.get_x() + 0.5, patch.get_hatch()) for patch in found]


def test_a_line_per_agent_over_horizons_with_a_guide():
    figure: Any = plot_sweep(SWEEP, select={"num_arms": 5})
    (axes,) = figure.axes
    assert legend_of(figure) == [*LABELS, "∝ √T"]
    lines: dict[str, Any] = {str(line.get_label()): line for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["UCB1"].get_xdata(), [25, 50, 100])
    expected = SWEEP["baseline_final_regret"].sel(num_arms=5, agent="ucb1").mean("seed")
    np.testing.assert_allclose(lines["UCB1"].get_ydata(), expected)
    x, y = (np.log(np.asarray(values)) for values in (lines["∝ √T"].get_xdata(), lines["∝ √T"].get_ydata()))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), 0.5)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["25", "50", "100"]
    assert axes.get_ylabel() == "pseudo-regret at T\n(reward units)"
    assert "Student-t over 3 seeds (rmft)" in figure.caption
    assert "At num_arms = 5" in figure.caption


def test_a_second_dimension_is_a_colour_per_value_beside_the_reference():
    figure: Any = plot_sweep(SWEEP, by="num_arms")
    assert legend_of(figure) == ["T = 25", "T = 50", "T = 100", "RMFT Transformer", "Thompson"]
    lines: dict[str, Any] = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    expected = SWEEP["final_regret"].sel(horizon=50).mean("seed")
    np.testing.assert_allclose(lines["T = 50"].get_ydata(), expected)
    rows = {(row["num_arms"], row["horizon"], row["agent"]): row for row in figure.rows}
    assert len(rows) == 3 * 3 * 2
    expected = SWEEP["final_regret"].sel(num_arms=10, horizon=25).mean()
    np.testing.assert_allclose(rows["10", "25", "rmft"]["mean"], expected)
    assert rows["10", "25", "rmft"]["num_seeds"] == 3
    assert "UCB1" in legend_of(plot_sweep(SWEEP, baselines=["ucb1"]))


def test_agents_that_the_second_dimension_does_not_touch_are_drawn_once_and_grey():
    def dashed(figure) -> list[str]:
        return [line.get_color() for line in figure.axes[0].get_lines() if len(line.get_xdata()) and line.is_dashed()]

    settings = made_sweep({"k": [1, 2], "width": [16, 32], "seed": [0, 1]})
    assert dashed(plot_sweep(settings, by="k", baselines=["ucb1"])) == ["#555555"]
    figure: Any = plot_sweep(settings, by="k")
    assert len(figure.rows) == 2 * 2 * 2
    problems = made_sweep({"k": [1, 2], "num_arms": [2, 5], "seed": [0, 1]})
    colors = dashed(plot_sweep(problems, by="k", baselines=["ucb1"]))
    assert len({*colors}) == 2
    assert "#555555" not in colors


def test_unordered_values_are_set_in_the_order_given_and_not_joined():
    figure: Any = plot_sweep(made_sweep({"branching": ["uniform", "none"], "seed": [0, 1]}))
    axes: Any = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["uniform", "none"]
    assert len(axes.containers) == len(LABELS) == len({container.lines[0].get_color() for container in axes.containers})
    first = [float(container.lines[0].get_xdata()[0]) for container in axes.containers]
    assert first == sorted(first)
    assert -0.3 < first[0] < first[-1] < 0.3
    numbers = made_sweep({"k": [4, 1, 2]})
    line: Any = plot_sweep(numbers).axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 4])
    np.testing.assert_allclose(line.get_ydata(), numbers["final_regret"].sel(k=[1, 2, 4]))


def test_uniform_play_counts_for_the_limits_where_it_is_not_far_above_the_others():
    for cost, is_shown in ((1.1, True), (2.0, False)):
        dataset = made_sweep(baselines={"ucb1": 0.8, "uniform": cost})
        top = float(dataset["baseline_final_regret"].sel(horizon=50, agent="uniform").mean("seed").max())
        (axes,) = plot_sweep(dataset, by="num_arms", select={"horizon": 50}).axes
        assert bool(axes.get_ylim()[1] > top) is is_shown


def test_cells_state_their_numbers_and_failures_are_hatched():
    dataset = made_sweep(failed=[0, 1, 2, 3])  # horizon = 25: num_arms = 2, and one seed of num_arms = 5
    dataset["status"][2, 2] = "missing"
    dataset["final_regret"][2, 2] = np.nan
    figure: Any = plot_heatmap(dataset)
    axes = figure.axes[0]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("horizon T", "number of arms K")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["2", "5", "10"]
    numbers = numbers_of(axes)
    assert set(numbers) == {(row, column) for row in range(3) for column in range(3)} - {(0, 0), (2, 2)}
    assert numbers[2, 0] == f"{float(dataset['final_regret'].sel(horizon=25, num_arms=10).mean()):.1f}"
    assert hatched_of(axes) == [(0, 0, "xxxx"), (2, 2, "////")]
    assert legend_of(figure) == ["failed", "missing"]
    status = {(row["horizon"], row["num_arms"]): (row["status"], row["num_seeds"]) for row in figure.rows}
    assert status["25", "2"] == ("failed", 0)
    assert status["25", "5"] == ("finished", 2)
    assert status["100", "10"] == ("missing", 0)
    assert "9 cells, 1 failed, 1 missing" in figure.caption
    assert figure.axes[-1].get_ylabel() == "pseudo-regret at T (reward units)"


def test_ratios_diverge_around_one():
    figure: Any = plot_heatmap(SWEEP, relative_to="thompson")
    assert set(numbers_of(figure.axes[0]).values()) == {"0.60"}
    bar: Any = figure.axes[-1]
    norm = bar._colorbar.norm
    assert isinstance(norm, LogNorm)
    np.testing.assert_allclose(norm(1.0), 0.5)
    assert {row["relative_to"] for row in figure.rows} == {"thompson"}
    several: Any = plot_heatmap(SWEEP, relative_to=["thompson", "ucb1"])
    assert [axes.get_title() for axes in several.axes[:2]] == ["relative to Thompson", "relative to UCB1"]
    np.testing.assert_allclose([row["mean"] for row in several.rows if row["relative_to"] == "ucb1"], 0.3 / 0.8)
    negative = SWEEP.assign(final_regret=SWEEP["final_regret"] - 6)
    plot_heatmap(negative, relative_to="thompson").draw_without_rendering()


def test_a_third_dimension_and_other_agents_have_panels():
    grid = {"horizon": [25, 50], "num_arms": [2, 3], "environment": ["bernoulli", "a_rather_long_name"]}
    dataset = made_sweep(grid).drop_vars(["status", "training_regret"])
    figure: Any = plot_heatmap(dataset, by="environment", baselines=["ucb1"])
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "bernoulli\nRMFT Transformer", "bernoulli\nUCB1", "a rather long name\nRMFT Transformer",
        "a rather long name\nUCB1",
    ]  # fmt: skip
    assert len(figure.rows) == 16
    assert {row["environment"] for row in figure.rows} == set(grid["environment"])
    named = plot_heatmap(dataset, select={"num_arms": 3})
    assert [text.get_text() for text in named.axes[0].get_yticklabels()] == grid["environment"]


def test_numbers_are_legible_on_every_colour():
    figure: Any = plot_heatmap(SWEEP)
    axes = figure.axes[0]
    image = axes.get_images()[0]
    colors = image.to_rgba(image.get_array())[..., :3] @ np.asarray([0.299, 0.587, 0.114])
    for text in axes.texts:
        column, row = (int(value) for value in text.get_position())
        assert text.get_color() == ("white" if colors[row, column] < 0.5 else "black")
        assert float(text.get_fontsize()) >= 5


@pytest.mark.parametrize(
    ("draw", "options", "message"),
    [
        (plot_sweep, {"by": "k"}, "got dimension 'k', need one of horizon, num_arms"),
        (plot_sweep, {"baselines": ["nope"]}, "got baseline 'nope'"),
        (plot_heatmap, {"select": {"num_arms": 5}}, "got open dimensions horizon, need two; try plot_sweep"),
        (plot_heatmap, {"relative_to": "nope"}, "got baseline 'nope'"),
        (plot_heatmap, {"relative_to": "thompson", "baselines": ["rmft"]}, "got baseline 'rmft'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, options, message):
    with pytest.raises(ConfigError) as error:
        draw(SWEEP, **options)
    assert message in str(error.value)


def test_three_dimensions_want_a_choice_and_a_run_is_no_sweep():
    cube = made_sweep({"horizon": [25, 50], "num_arms": [2, 3], "k": [1, 2]})
    with pytest.raises(ConfigError, match="got several values of k"):
        plot_sweep(cube)
    open_still = r"got open dimensions horizon, num_arms, k, need two; try select=\{'k': 2\} or by='k'"
    with pytest.raises(ConfigError, match=open_still):
        plot_heatmap(cube)
    with pytest.raises(ConfigError, match="got a sweep of one cell"):
        plot_sweep(made_sweep({}))
    for draw in (plot_sweep, plot_heatmap):
        with pytest.raises(ConfigError, match="got a single run without final_regret, need one with it"):
            draw(made_evaluation())


def test_a_ratio_that_may_be_one_looks_so_and_the_trained_cell_is_outlined():
    sweep = made_sweep({"horizon": [25, 50], "num_arms": [2, 5], "seed": [0, 1, 2]}, baselines={"thompson": 0.3})
    sweep["final_regret"][..., 0] *= 0.6  # A seed that disagrees, where the others are level.
    sweep["final_regret"].loc[{"horizon": 25, "num_arms": 2}] *= 0.2
    dotted: Any = plot_heatmap(sweep.assign_attrs(trained_horizon=50, trained_num_arms=5), relative_to="thompson")
    patches: list[Any] = list(dotted.axes[0].patches)
    hatched = [patch.get_xy() for patch in patches if patch.get_hatch()]
    assert sorted(hatched) == [(-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]
    outlined = [patch.get_xy() for patch in patches if not patch.get_hatch()]
    assert all(text.get_bbox_patch() for text in dotted.axes[0].texts), "no dots behind digits"
    assert outlined == [(0.5, 0.5)]
    assert "Dotted: the 95% interval contains 1. Outlined: as trained." in dotted.caption
    assert legend_of(dotted) == ["95% interval contains 1", "as trained"]
    plain: Any = plot_heatmap(sweep)
    assert not plain.axes[0].patches
    assert "Dotted" not in plain.caption
    assert not plain.legends


def test_ratios_near_one_are_told_apart_and_not_dark():
    sweep = made_sweep({"horizon": [25, 50], "num_arms": [2, 5], "seed": [0, 1]}, baselines={"thompson": 0.3})
    factors = xr.DataArray([[0.98, 1.01], [1.04, 1.2]], dims=("horizon", "num_arms"))
    noise = xr.DataArray([0.7, 1.3], dims="seed")  # So wide are intervals of two seeds.
    sweep["final_regret"] = sweep["final_regret"] * factors * noise
    figure: Any = plot_heatmap(sweep, relative_to="thompson")
    numbers = numbers_of(figure.axes[0])
    assert sorted(numbers.values()) == ["0.98", "1.01", "1.04", "1.20"]
    assert all(text.get_color() == "black" for text in figure.axes[0].texts)
    bar = figure.axes[-1]
    figure.draw_without_rendering()
    labels = [text.get_text() for text in bar.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("0.98", "1.20")
    np.testing.assert_allclose(bar.get_ylim(), (0.98, 1.2))
    better = sweep.assign(final_regret=sweep["final_regret"] * 0.5)
    bar = plot_heatmap(better, relative_to="thompson").axes[-1]
    assert [text.get_text() for text in bar.get_yticklabels()][-1] == "1.00", "where neither is better"


@pytest.mark.parametrize(
    ("means", "halves", "expected"),
    [
        ([3.881, 5.2, 9.94], [0.3, 0.32, 0.31], ["3.88", "5.20", "9.94"]),
        ([3.881, 5.2, 9.94], [0.4, 0.5, 0.9], ["3.9", "5.2", "9.9"]),
        ([38.8, 52, 140], [4, 5, 9], ["39", "52", "140"]),
        ([0.9, 1.4, 2.2], [1.1, 5.0, 9.0], ["0.9", "1.4", "2.2"]),  # 0.9 has a digit, whatever its error is.
        ([0.004, 0.02, 0.5], [0.4, 0.4, 0.4], ["0.004", "0.020", "0.500"]),
        ([1e-9, 4.0, 7.0], [0.4, 0.5, 0.4], ["0.000", "4.000", "7.000"]),
        ([-0.3, 0.0, 0.41], [0.1, 0.1, 0.1], ["−0.30", "0.00", "0.41"]),
        ([0.612, 0.95, 1.2], [np.nan, np.nan, np.nan], ["0.61", "0.95", "1.20"]),
        ([1234.5, 52.3, 99.0], [np.nan, np.nan, np.nan], ["1234", "52", "99"]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], ["0", "0", "0"]),
    ],
)
def test_a_map_has_the_decimals_that_its_intervals_bear(means, halves, expected):
    sweep = made_sweep({"k": [1, 2, 4], "num_arms": [2], "seed": [0]})
    sweep["final_regret"] = sweep["final_regret"] * 0 + np.reshape(means, (3, 1, 1))
    sweep["final_regret_sem"] = sweep["final_regret"] * 0 + np.reshape(halves, (3, 1, 1)) / 1.96
    sweep = sweep.assign_attrs(regret="static")  # One that may be negative.
    assert [text.get_text() for text in plot_heatmap(sweep).axes[0].texts] == expected


def test_single_panels_are_drawn_in_axes_of_ones_own():
    figure, places = plt.subplots(2, 2)
    sweep, run = made_sweep({"horizon": [25, 50], "num_arms": [2, 5], "seed": [0, 1]}), made_evaluation()
    (lines, dots), (colors, ranks) = places
    assert plot_sweep(sweep, by="num_arms", select={"horizon": 50}, ax=lines) is figure
    assert plot_final_regret(run, ax=dots) is figure
    assert plot_heatmap(sweep, relative_to="thompson", ax=colors) is figure
    assert plot_arms(run.sel(agent=["rmft"]), ax=ranks) is figure
    assert len(figure.axes) == 4, "a colour bar is for others to add"
    assert not figure.legends
    np.testing.assert_allclose(lines.get_lines()[0].get_ydata(), sweep["final_regret"].sel(horizon=50).mean("seed"))
    assert lines.get_xlabel() == "number of arms K"
    assert dots.get_xlabel() == "dynamic regret at T = 20 (reward units)"
    assert dots.get_yticklabels()[0].get_text() == "RMFT Transformer"
    assert (colors.get_xlabel(), colors.get_ylabel()) == ("horizon T", "number of arms K")
    np.testing.assert_allclose(colors.images[0].get_array(), 0.6)
    assert (ranks.get_xlabel(), ranks.get_title()) == ("round", "RMFT Transformer")
    figure.colorbar(colors.images[0], ax=colors)
    figure.draw_without_rendering()
    plt.close(figure)


@pytest.mark.parametrize(
    ("draw", "dataset", "options", "panels"),
    [
        (plot_heatmap, made_sweep({"k": [1, 2], "width": [8, 16], "num_arms": [2, 3]}), {"by": "k"}, "k = 1, k = 2"),
        (plot_heatmap, SWEEP, {"relative_to": ["ucb1", "greedy"]}, "relative to UCB1, relative to greedy"),
        (plot_heatmap, SWEEP, {"baselines": ["ucb1"]}, "RMFT Transformer, UCB1"),
        (plot_arms, made_evaluation(["rmft", "ucb1"]), {}, "rmft, ucb1"),
        (plot_arms, SWEEP, {"by": "num_arms", "select": {"horizon": 50, "num_arms": [2, 5]}}, "num_arms = 2, num_arms"),
    ],
)
def test_several_panels_do_not_fit_in_one_axes(draw, dataset, options, panels):
    figure, axes = plt.subplots()
    with pytest.raises(ConfigError, match=f"got ax for panels {panels}.*, need a single panel; try "):
        draw(dataset, **options, ax=axes)
    assert not axes.has_data()
    plt.close(figure)


def test_a_ratio_without_an_interval_is_not_called_undecided():
    """A single policy on a grid, or a sweep of one seed."""
    figure: Any = plot_heatmap(made_sweep({"horizon": [25, 50], "num_arms": [2, 5]}), relative_to="thompson")
    assert {row["interval"] for row in figure.rows} == {"none"}
    assert "Dotted" not in figure.caption


@pytest.mark.parametrize(("draw", "runs"), [(plot_heatmap, 12), (plot_sweep, 12), (regret_at_25, 6)])
def test_a_mean_of_the_seeds_that_are_left_says_so(draw, runs):
    grid = {"horizon": [25, 50], "num_arms": [2, 5], "seed": [0, 1, 2]}
    figure: Any = draw(made_sweep(grid, failed=[0, 1]))
    assert figure.caption.endswith(f" 2 of {runs} runs failed or are missing, means are those of other seeds.")
    whole: Any = draw(made_sweep(grid))
    assert "runs failed" not in whole.caption
    # A setting of which no run has finished has no mean that could mislead.
    none: Any = draw(made_sweep(grid, failed=[0, 1, 2]))
    assert "runs failed" not in none.caption


def test_what_a_sweep_does_not_have_is_blank_and_not_missing():
    dataset = made_sweep()
    dataset["status"][0, 0] = "absent"
    dataset["final_regret"][0, 0] = np.nan
    figure: Any = plot_heatmap(dataset)
    assert hatched_of(figure.axes[0]) == []
    assert not figure.legends
    assert "9 cells, all with a mean" not in figure.caption
    assert "8 cells, all with a mean" in figure.caption


def test_ratios_keep_the_kind_of_interval_and_have_no_value_below_a_gain():
    asked = with_intervals(made_sweep(), "hierarchical")
    figure: Any = plot_heatmap(asked, relative_to="thompson")
    assert all(row["interval"].startswith("bootstrap over 3 seeds") for row in figure.rows)
    gains = made_sweep(bonus=5.0)  # All gain on the best arm.
    figure = plot_heatmap(gains, relative_to="thompson")
    assert np.isnan([row["mean"] for row in figure.rows]).all()
