"""The register of figure kinds, with those of users."""

from collections.abc import Mapping
from typing import Any

import pytest
import xarray as xr
from matplotlib.figure import Figure

from evaluations import made_evaluation
from rmft_jax.config import ConfigError
from rmft_jax.plotting import FIGURES, plot_all, plot_kind, plot_regret, plot_run, register_figure
from sweep_data import made_sweep

SWEEP = made_sweep()
OPTIONS = {"by", "select", "baselines", "relative_to"}


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(FIGURES, "_entries", dict(FIGURES._entries))
    monkeypatch.setattr(FIGURES, "_makers", dict(FIGURES._makers))


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Figure]:
    """The figures that would be written, by name."""
    figures = {}

    def save_figure(figure, path):
        figures[path.name] = figure
        return [path]

    monkeypatch.setattr("rmft_jax.plotting.figures.save_figure", save_figure)
    return figures


def register_titled(name: str = "mine", needs: str | tuple[str, ...] = "final_regret", axes: int = 0) -> None:
    """A kind that has what it was given as its title."""

    @register_figure(name, needs=needs, axes=axes)
    def titled(dataset: xr.Dataset, *, by: str | None = None, size: int = 3) -> Figure:
        figure = Figure()
        figure.suptitle(f"by {by}, size {size}, {dict(dataset['final_regret'].sizes)}")
        return figure


def title_of(figure: Figure) -> str:
    return figure.get_suptitle()


def test_a_kind_of_a_user_is_drawn_by_its_name():
    register_titled()
    assert FIGURES.names()[-1] == "mine"
    assert FIGURES.of_users() == ["mine"]
    figure = plot_kind("mine", SWEEP, by="horizon", size=7, baselines=None, select={"num_arms": 5, "seed": [0, 1]})
    assert title_of(figure) == "by horizon, size 7, {'horizon': 3, 'seed': 2}"
    assert type(plot_kind("mine", SWEEP, style="slides")) is Figure


def test_all_figures_of_a_sweep_have_those_of_users_among_them(drawn, tmp_path):
    register_titled()
    register_titled("single", axes=1)
    register_titled("square", axes=2)
    register_titled("cube", needs="nothing_that_it_has")
    plot_all(made_sweep({"horizon": [25, 50], "k": list(range(1, 10)), "seed": [0, 1]}), tmp_path)
    titles = {name: title_of(drawn[name]) for name in drawn if name.startswith(("mine", "single", "square", "cube"))}
    assert titles == {
        "mine_horizon=50": "by k, size 3, {'k': 8, 'seed': 2}",
        "single": "by horizon, size 3, {'horizon': 2, 'k': 8, 'seed': 2}",
        "square": "by None, size 3, {'horizon': 2, 'k': 9, 'seed': 2}",
    }
    drawn.clear()
    plot_all(made_sweep({"seed": [0, 1]}), tmp_path)
    assert title_of(drawn["mine"]) == "by None, size 3, {'seed': 2}"
    assert not {"single", "square", "sweep", "heatmap"} & set(drawn)


def test_an_axis_shows_every_value(drawn, tmp_path):
    plot_all(made_sweep({"k": list(range(1, 12))}), tmp_path)
    line: Any = drawn["sweep"].axes[0].get_lines()[0]
    assert len(line.get_xdata()) == 11


def test_figures_of_a_run_get_what_they_ask_for(drawn, tmp_path):
    asked = []

    @register_figure("own_summary", needs="rank")
    def of_summary(dataset: xr.Dataset, summary: Mapping[str, Any] | None = None) -> Figure:
        asked.append(("summary", sorted(summary or {}), "rank" in dataset))
        return Figure()

    @register_figure("own_metrics", needs=("anything", "loss"))
    def of_metrics(dataset: xr.Dataset, evaluation: xr.Dataset | None = None) -> Figure:
        asked.append(("metrics", list(dataset), evaluation is not None))
        return Figure()

    register_titled()
    metrics = xr.Dataset({"loss": ("iteration", [1.0])})
    plot_run(metrics, made_evaluation(["rmft", "uniform"]), tmp_path)
    assert asked == [("summary", ["rmft", "uniform"], True), ("metrics", ["loss"], True)]
    own = {"own_summary", "own_metrics"}
    assert set(drawn) == {
        "regret", "average_regret", "difference", "loglog", "final_regret", "suff_fail", "arms", *own,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("regret", {"by", "select", "baselines"}),
        ("loglog", {"by", "select", "baselines"}),
        ("suff_fail", {"by", "select", "baselines"}),
        ("sweep", {"by", "select", "baselines"}),
        ("heatmap", {"by", "select", "baselines", "relative_to"}),
        ("training", {"by", "select"}),
        ("arms", {"by", "select", "baselines"}),
        ("final_regret", set()),
    ],
)
def test_options_are_those_of_the_function(kind, options):
    assert set(FIGURES[kind].options) & OPTIONS == options
    assert "style" in FIGURES[kind].options
    for name in OPTIONS - options:
        given: Any = {name: "x"}
        with pytest.raises(ConfigError, match=f"got {name} with kind {kind}, need kind "):
            plot_kind(kind, made_evaluation(), **given)
    with pytest.raises(ConfigError, match=f"got colour with kind {kind}, need an option that a figure has"):
        plot_kind(kind, SWEEP, colour="red")


def test_what_a_kind_needs_is_asked_for_by_whatever_draws_it():
    register_titled(needs=("nothing", "more"))
    for dataset, what in ((SWEEP, "sweep"), (made_evaluation(), "single run")):
        with pytest.raises(ConfigError, match=f"^got a {what} without nothing or more, need one with it for figure"):
            plot_kind("mine", dataset)
    with pytest.raises(ConfigError, match="got a single run without regret"):
        plot_regret(dataset=xr.Dataset())


def test_names_are_taken_once():
    register_titled()
    register_titled(needs="regret")  # The same function again, as in a notebook.
    assert FIGURES["mine"].needs == ("regret",)
    for name in ("mine", "heatmap"):
        with pytest.raises(ConfigError, match=f"got figure '{name}' from .*, need a name of its own; try 'my_{name}'"):
            register_figure(name, needs="regret")(lambda dataset: Figure())


def test_functions_that_cannot_draw_are_refused_in_one_line():
    figure, none = Figure(), None
    unfit: list[Any] = [
        lambda: figure,
        lambda *, dataset: figure,
        lambda *datasets: figure,
        lambda dataset, k: figure,
        lambda dataset, **options: figure,
    ]
    for draw in unfit:
        with pytest.raises(ConfigError) as error:
            register_figure("unfit", needs="regret")(draw)
        assert "got figure 'unfit' of (" in str(error.value)
        assert "need a parameter for the dataset, and a default for every other; try (dataset, *, " in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="got axes=3 of figure 'cube', need 0, 1 or 2"):
        register_figure("cube", needs="regret", axes=3)
    assert "unfit" not in FIGURES
    draw_none: Any = lambda dataset: none  # noqa: E731
    register_figure("empty", needs="regret")(draw_none)
    with pytest.raises(ConfigError, match="got NoneType from the function of figure 'empty', need a matplotlib Figure"):
        plot_kind("empty", SWEEP)


def test_a_function_of_a_user_that_fails_is_told_in_one_line():
    def fails(dataset):
        raise KeyError("nothing")

    register_figure("failing", needs="regret")(fails)
    with pytest.raises(ConfigError, match=r"figure 'failing' \(KeyError: 'nothing' at .*_register.py:\d+\)"):
        plot_kind("failing", SWEEP)
    for needs in (3, ("regret", 3)):
        with pytest.raises(ConfigError, match=r"got needs=.* of figure 'unfit', need a name, or some"):
            register_figure("unfit", needs=needs)  # pyright: ignore[reportArgumentType]
