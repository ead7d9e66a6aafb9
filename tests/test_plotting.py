from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from PIL import Image

from evaluations import AGENTS, made_evaluation
from rmft_jax.agents import make_baselines
from rmft_jax.config import ConfigError
from rmft_jax.plotting import (
    STYLES,
    Style,
    choose_agents,
    plot_arms,
    plot_average_regret,
    plot_difference,
    plot_final_regret,
    plot_kind,
    plot_loglog,
    plot_regret,
    plot_regret_curves,
    plot_run,
    plot_suff_fail,
    plot_training,
    save_figure,
    style_of,
    styles_of,
)
from rmft_jax.problems import Abrupt, Problem, Stationary
from rmft_jax.statistics.bootstrap import Interval
from rmft_jax.statistics.estimates import estimate_of
from rmft_jax.statistics.growth import suff_fail_freq
from rmft_jax.statistics.report import summarize
from sweep_data import made_sweep

EVALUATION = made_evaluation()
LABELS = {"RMFT Transformer", "Thompson", "UCB1", "greedy", "ε-greedy", "uniform"}
FIGURES = {"regret", "average_regret", "difference", "loglog", "final_regret", "suff_fail", "arms", "training"}
EVERYONE = [*STYLES, "my_new_agent"]


@pytest.fixture(scope="module")
def metrics():
    return xr.Dataset(
        {
            "regret": (("iteration",), np.linspace(7, 3, 40)),
            "selected_regret": (("iteration",), np.linspace(6, 2, 40)),
            "validation_regret": (("validation_iteration",), np.linspace(7, 3, 5)),
            "validation_regret_sem": (("validation_iteration",), np.full(5, 0.1)),
        },
        coords={"iteration": np.arange(1, 41), "validation_iteration": np.arange(0, 41, 10)},
    )


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """The figures of a run by name, laid out but not written, which takes most of the time."""
    figures = {}

    def save_figure(figure, path):
        figure.draw_without_rendering()
        figures[path.name] = figure
        return [path]

    monkeypatch.setattr("rmft_jax.plotting.figures.save_figure", save_figure)
    return figures


def lines_of(figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_regret_figure_shows_the_means_of_the_dataset():
    figure = plot_regret(EVALUATION)
    lines = lines_of(figure)
    assert set(lines) == LABELS == set(legend_of(figure))
    np.testing.assert_allclose(
        np.asarray(lines["UCB1"].get_ydata()), EVALUATION["regret"].sel(agent="ucb1").mean("scenario"), rtol=1e-6
    )
    assert len({line.get_color() for line in lines.values()}) == 6
    assert len({str(line.get_linestyle()) for line in lines.values()}) >= 4
    assert figure.axes[0].get_ylabel() == "cumulative dynamic regret\n(reward units)"
    assert plot_regret(EVALUATION.drop_attrs()).axes[0].get_ylabel() == "cumulative pseudo-regret\n(reward units)"


def test_every_agent_has_a_style_of_its_own():
    styles = [style_of(name) for name in EVERYONE]
    assert len({(style.color, str(style.line)) for style in styles}) == len(EVERYONE)
    assert len({style.label for style in styles}) == len(EVERYONE)
    # By the name alone, in every process, and with lines that no other agent has.
    assert style_of("my_new_agent") == Style("my new agent", "#009E73", (0, (5, 1, 1, 1, 1, 1, 1, 1)))
    lines = {str(style.line) for style in STYLES.values()}
    assert not lines & {str(style_of(f"agent_{i}").line) for i in range(50)}
    assert STYLES["rmft"].color not in {style_of(f"agent_{i}").color for i in range(50)}


def test_an_agent_looks_the_same_in_every_figure():
    """A colour is a family; what plays beside each other by default differs in colour, or in family and dash."""
    for number in (1, 3, 7, len(EVERYONE)):
        chosen = [str(name) for name in np.random.default_rng(number).choice(EVERYONE, number, replace=False)]
        assert styles_of(chosen) == {name: style_of(name) for name in chosen}
    for problem in (Problem(Stationary(), 10), Problem(Abrupt(), 10), Problem(Stationary(feedback="full"), 10)):
        colors = [STYLES[name].color for name in ("rmft", *make_baselines(problem))]
        assert colors.count(STYLES["rmft"].color) == 1
        assert max(colors.count(color) for color in colors) <= 3


def test_a_figure_has_room_for_few_agents():
    final = {name: float(i) for i, name in enumerate(reversed(EVERYONE))} | {"best_arm": 0.0}
    trained = {name for name in EVERYONE if name.startswith("rmft")}
    chosen = choose_agents(final, "thompson", limit=len(trained) + 4)
    assert {*trained, "thompson", "uniform"} <= set(chosen)
    assert set(chosen[: len(trained)]) == trained
    others = [name for name in chosen if name not in (*trained, "thompson", "uniform")]
    lowest = sorted((name for name in final if final[name] != 0), key=lambda name: final[name])
    assert set(others) == set([name for name in lowest if name not in ("thompson", "uniform")][:2])
    assert choose_agents(final, None, limit=1) == [min(trained, key=lambda name: final[name])]
    assert choose_agents({"best_arm": 0.0}, "best_arm") == []
    figure = plot_regret(made_evaluation(EVERYONE, num_scenarios=8, horizon=5))
    assert len(legend_of(figure)) == 8


def test_the_training_figure_starts_before_training(metrics):
    axes = plot_training(metrics, EVALUATION).axes[0]
    validation = next(line for line in axes.get_lines() if line.get_label() == "validation scenarios")
    assert np.asarray(validation.get_xdata())[0] == 0
    np.testing.assert_allclose(np.asarray(validation.get_ydata()), metrics["validation_regret"])
    for label, name in (("all rollouts", "regret"), ("kept rollouts", "selected_regret")):
        line = next(line for line in axes.get_lines() if line.get_label() == label)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), metrics[name])


@pytest.mark.parametrize("reference", ["thompson", "ucb1", "bayes_optimal", None])
def test_the_training_figure_has_the_level_of_the_reference(metrics, reference):
    lines = lines_of(plot_training(metrics, made_evaluation(reference=reference)))
    assert ("Thompson" in lines) == (reference == "thompson")
    assert ("UCB1" in lines) == (reference == "ucb1")
    if reference == "ucb1":
        level = float(EVALUATION["regret"].sel(agent="ucb1").isel(round=-1).mean())
        np.testing.assert_allclose(lines["UCB1"].get_ydata(), level, rtol=1e-6)
    assert "validation scenarios" in lines_of(plot_training(metrics))


def test_the_log_log_figure_states_the_exponents():
    figure, summary = plot_loglog(EVALUATION), summarize(EVALUATION)
    axes, row = figure.axes[0], summary["ucb1"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    low, high = row["exponent_ci95"]
    assert f"UCB1, β = {row['exponent']:.2f} [{low:.2f}, {high:.2f}]" in legend_of(figure)
    assert len(legend_of(figure)) == len(LABELS) + 1
    guide = lines_of(figure)["slope of √t: β = 0.50"]
    x, y = (np.log(np.asarray(values, float)) for values in (guide.get_xdata(), guide.get_ydata()))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), 0.5)
    assert legend_of(plot_loglog(EVALUATION, summary)) == legend_of(figure)


def test_the_suffix_failure_figure_shows_the_frequencies():
    figure = plot_suff_fail(EVALUATION)
    lines = lines_of(figure)
    assert set(lines) == LABELS
    last = EVALUATION["last_best_round"].sel(agent="uniform").to_numpy()
    np.testing.assert_allclose(np.asarray(lines["uniform"].get_ydata()), suff_fail_freq(last, 20))
    assert "SuffFailFreq(t)" in figure.axes[0].get_ylabel()
    assert len(figure.axes[0].collections) == len(LABELS)


def test_the_arms_figure_shows_the_shares_of_the_ranks():
    figure = plot_arms(EVALUATION)
    panels = {axes.get_title(): axes.get_images()[0].get_array() for axes in figure.axes if axes.get_title()}
    assert set(panels) == LABELS
    assert next(iter(panels)) == "RMFT Transformer"
    for name in ("ucb1", "uniform"):
        share = np.asarray(panels[STYLES[name].label])
        assert share.shape == (4, 20)
        np.testing.assert_allclose(share.sum(axis=0), 1.0)
        rank = EVALUATION["rank"].sel(agent=name)
        np.testing.assert_allclose(share[1], (rank == 1).mean("scenario"))
    assert [axes.get_ylabel() for axes in figure.axes][-1] == "share of scenarios"
    assert figure.get_supylabel() == "rank of the played arm (0 = best)"
    # Rank 0 is on top, and the first round on the left.
    assert tuple(figure.axes[0].get_images()[0].get_extent()) == (0.5, 20.5, 3.5, -0.5)


def test_the_final_regret_figure_has_a_row_for_each_agent():
    evaluation = made_evaluation(EVERYONE, num_scenarios=40)
    figure, summary = plot_final_regret(evaluation), summarize(evaluation)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    regret = {style_of(name).label: summary[name]["regret_mean"] for name in EVERYONE if name != "best_arm"}
    assert labels == sorted(regret, key=lambda label: regret[label])
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose([float(np.asarray(dot.get_xdata())[0]) for dot in dots], sorted(regret.values()))
    assert to_hex(dots[labels.index("UCB1")].get_color()) == STYLES["ucb1"].color.lower()
    assert figure.get_supxlabel() == "dynamic regret at T = 20 (reward units)"
    assert axes.get_xscale() == "log"
    assert plot_final_regret(made_evaluation(bonus=0.05)).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    "evaluation",
    [
        made_evaluation(horizon=1, num_scenarios=2),
        made_evaluation(horizon=2, num_scenarios=1),
        made_evaluation(["best_arm"], reference=None),
        made_evaluation(["rmft"], reference=None),
        made_evaluation(["my_new_agent", "uniform"]),
        made_evaluation(bonus=1.0),
        made_evaluation(bonus=0.1),
        made_evaluation(["uniform"], bonus=1.0),
        made_evaluation(EVERYONE, num_scenarios=6, num_arms=2),
    ],
    ids=["T=1", "N=1", "zeros", "one", "unknown", "negative", "mixed", "only-uniform", "everyone"],
)
def test_unusual_datasets_have_all_figures(evaluation, metrics, drawn):
    plot_run(metrics, evaluation, Path("run"))
    assert set(drawn) == FIGURES
    labels = {style_of(str(name)).label for name in evaluation["agent"].values}
    for name in ("regret", "suff_fail"):
        shown = set(lines_of(drawn[name]))
        assert shown <= labels
        assert len(shown) == min(8, np.count_nonzero(evaluation["regret"].isel(round=-1).mean("scenario")))


def test_negative_regret_is_inside_the_axes():
    axes = plot_regret(made_evaluation(bonus=1.0)).axes[0]
    bottom, top = axes.get_ylim()
    assert bottom < min(np.min(np.asarray(line.get_ydata())) for line in axes.get_lines())
    assert top > 0
    assert plot_regret(EVALUATION).axes[0].get_ylim()[0] == 0


def test_the_axis_is_cut_above_every_curve_but_uniform_play():
    values = {"rmft": [1.0, 3.0, 2.0], "uniform": [5.0, 10.0, 15.0]}
    means = {name: xr.DataArray(mean, {"round": [1, 2, 3]}) for name, mean in values.items()}
    curves = {
        name: estimate_of(mean, Interval(mean.to_numpy(), mean.to_numpy()), "none") for name, mean in means.items()
    }
    assert 3 < plot_regret_curves(curves).axes[0].get_ylim()[1] < 4


@pytest.mark.usefixtures("real_fonts")
def test_figures_are_written_at_column_width_and_nothing_is_cut_off(metrics, tmp_path):
    evaluation = made_evaluation([*AGENTS, "explore_then_commit", "rmft_held_out", "sliding_window_ucb"])
    written = [one.path for one in plot_run(metrics, evaluation, tmp_path)]
    suffixes = ("png", "pdf", "csv")
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{suffix}" for n in FIGURES for suffix in suffixes}
    for path in written:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] == round(3.4 * 300)
        edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edges == 255).all(), f"{path.name} is cut off at its edge"
    assert b"/Type3" not in (tmp_path / "regret.pdf").read_bytes()


def test_actions_that_are_not_arms_have_no_figure_of_arms(metrics, drawn):
    plot_run(metrics, EVALUATION[["regret", "mean_rewards"]], Path("run"))
    assert set(drawn) == FIGURES - {"arms", "suff_fail"}


def test_no_legend_covers_the_axes(tmp_path):
    for figure in (plot_regret(EVALUATION), plot_loglog(EVALUATION), plot_suff_fail(EVALUATION)):
        save_figure(figure, tmp_path / "figure")
        legend = figure.legends[0].get_window_extent()
        assert not legend.overlaps(figure.axes[0].get_window_extent())


def test_agents_that_are_not_drawn_are_named():
    many = made_evaluation(EVERYONE[:12])
    figure: Any = plot_regret(many)
    drawn = {line.get_label() for line in figure.axes[0].get_lines()}
    left_out = figure.caption.partition("Not drawn: ")[2].rstrip(".").split(", ")
    assert len(left_out) == 4
    assert not drawn & {style_of(name).label for name in left_out}
    assert "Not drawn" not in getattr(plot_regret(made_evaluation()), "caption")  # noqa: B009 -- of a wider type.


@pytest.mark.parametrize("kind", ["arms", "difference"])
def test_agents_without_a_panel_or_a_curve_are_named_and_can_be_asked_for(kind):
    many = made_evaluation(EVERYONE[:12])
    figure: Any = plot_kind(kind, many, None)
    shown = {row["agent"] for row in figure.rows}
    others = list(figure.left_out)
    assert others
    assert not shown & set(others)
    assert f"Not drawn: {', '.join(others)}." in figure.caption
    asked: dict[str, Any] = {{"arms": "baselines", "difference": "relative_to"}[kind]: others[:2]}
    again: Any = plot_kind(kind, many, None, **asked)
    assert {row["agent"] for row in again.rows} >= set(others[:2])
    assert "Not drawn" not in again.caption


def test_differences_are_paired_and_to_the_strongest():
    figure: Any = plot_difference(EVALUATION)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    final = EVALUATION["regret"].isel(round=-1).mean("scenario")
    (label, line), *_ = lines.items()
    best = min((n for n in AGENTS if n not in ("rmft", "best_arm", "uniform")), key=lambda n: float(final.sel(agent=n)))
    assert label == f"minus {style_of(best).label}"
    expected = (EVALUATION["regret"].sel(agent="rmft") - EVALUATION["regret"].sel(agent=best)).mean("scenario")
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)
    knowing = EVALUATION.sel(agent=["rmft", "ucb1", "uniform"]).assign_coords(agent=["rmft", "ucb1", "best_fixed_arm"])
    knowing["regret"].loc[{"agent": "best_fixed_arm"}] = 0.1  # Who knows the rewards is no rival.
    only: Any = plot_difference(knowing)
    assert [one.get_label() for one in only.axes[0].get_lines()][:1] == ["minus UCB1"]
    chosen: Any = plot_difference(EVALUATION, relative_to="ucb1")
    assert next(one.get_label() for one in chosen.axes[0].get_lines()) == "minus UCB1"
    for wrong in ("nobody", "rmft_start", "rmft"):
        with pytest.raises(ConfigError, match=f"got agent '{wrong}' to compare with, need one of"):
            plot_difference(EVALUATION, relative_to=wrong)


def test_rounds_without_a_logarithm_are_gaps():
    regret = EVALUATION["regret"].copy()
    regret[{"agent": EVALUATION["agent"].to_index().get_loc("ucb1"), "round": 3}] = -1.0
    lines = {str(line.get_label()): line for line in plot_loglog(EVALUATION.assign(regret=regret)).axes[0].get_lines()}
    drawn = np.asarray(next(line for label, line in lines.items() if label.startswith("UCB1")).get_ydata())
    assert np.isnan(drawn).tolist() == [number == 3 for number in range(len(drawn))]


def test_the_average_is_regret_over_rounds():
    figure: Any = plot_average_regret(EVALUATION)
    line = next(one for one in figure.axes[0].get_lines() if one.get_label() == "UCB1")
    mean = EVALUATION["regret"].sel(agent="ucb1").mean("scenario")
    np.testing.assert_allclose(line.get_ydata(), mean / EVALUATION["round"], rtol=1e-6)


@pytest.mark.parametrize("last", [1, 2, 10, 20])
def test_rounds_and_iterations_are_whole_numbers(metrics, last):
    run = metrics.isel(iteration=slice(last)).assign_coords(validation_iteration=np.linspace(0, last, 5))
    sweep = made_sweep({"horizon": [last], "num_arms": [2, 5], "seed": [0, 1]})
    figures = [plot_training(run), *(draw(sweep, by="num_arms") for draw in (plot_regret, plot_suff_fail, plot_arms))]
    for figure in [*figures, plot_average_regret(sweep, select={"num_arms": 2})]:
        figure.set_figwidth(3.0)
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_xticks()
        assert len(ticks) >= 1
        np.testing.assert_array_equal(ticks, np.round(ticks))


def test_runs_that_were_validated_at_other_iterations_keep_their_lines():
    run = made_sweep({"run": ["a", "b"]})
    gaps = run["validation_regret"].copy()
    gaps[{"run": 0, "validation_iteration": slice(1, None, 2)}] = np.nan
    figure: Any = plot_training(run.assign(validation_regret=gaps), by="run")
    found = [line.get_xdata().tolist() for line in figure.axes[0].get_lines()]
    assert [0, 20, 40] in found
    assert [0, 10, 20, 30, 40] in found
