"""Figures that experiments draw again from the numbers they left."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from experiments import beside, comparison, regret_by_round
from experiments.ablations import redraw
from experiments.benchmarks import figures
from experiments.common import RESULTS
from rmft_jax.plotting import FIGURES, style_of
from rmft_jax.statistics.tables import csv_text

ABLATIONS = RESULTS / "ablations"
DRAWN = [pytest.param(*one, id=f"{one[0].name}{one[1]}") for one in redraw.drawn()]


def test_every_ablation_has_a_result():
    assert {one.name for one, *_ in redraw.drawn()} == {one.name for one in redraw.QUESTIONS}


@pytest.mark.parametrize(("question", "part"), DRAWN)
def test_ablations_are_drawn_from_their_numbers(question, part):
    figure: Any = redraw.redrawn(question, part)
    committed = (ABLATIONS / f"{question.name}{part}.csv").read_text()
    assert csv_text(figure.rows) == committed
    assert "bootstrap" not in figure.caption
    rows = list(csv.DictReader(io.StringIO(committed)))
    first, lines = next(axes for axes in figure.axes if axes.has_data()), question.figures[part][0]
    own = next(
        row for row in rows if row.get("agent", "rmft") == "rmft" and row.get("variable") in (None, "validation_regret")
    )
    match lines:
        case "arms":
            assert first.images[0].get_array()[0, 0] == pytest.approx(float(own["share"]))
        case "heatmap":
            assert first.images[0].get_array()[0, 0] == pytest.approx(float(own["mean"]))
        case _:
            drawn = {round(float(y), 4) for line in first.get_lines() for y in line.get_ydata()}
            assert round(float(own["mean"]), 4) in drawn
    words = [first.get_xlabel(), first.get_title(), figure.get_supxlabel(), figure.get_supylabel()]
    assert not any("_" in text for text in words)


def test_questions_draw_kinds_that_there_are():
    for question in redraw.QUESTIONS:
        assert {kind for kind, _ in question.figures.values()} <= set(FIGURES.names())


def test_every_panel_of_the_scaling_figure_names_its_axis_and_shows_a_line():
    results = Path(figures.__file__).parent / "results" / "scaling.json"
    figure = figures.draw_scaling(json.loads(results.read_text()))
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "horizon T", "number of arms K", "rollouts at once", "width of the network"
    ]  # fmt: skip
    assert all(axes.has_data() for axes in figure.axes)
    assert len(figure.axes[0].texts) == 2, "both networks over horizons"
    assert any("exponent −0.10" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_references_of_a_comparison_look_as_everywhere_and_nothing_is_cut_off():
    result = json.loads((RESULTS / "comparison_controls.json").read_text())
    figure = comparison.draw(result)
    lines = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    for name in list(result["references"])[:3]:
        label, color, _ = style_of(name)
        assert to_hex(lines[label].get_color()) == color.lower()
    figure.draw_without_rendering()
    box: Any = figure.get_tightbbox()
    assert box.x1 <= figure.get_figwidth() + 0.02


def test_ratios_say_who_is_stronger_and_rounds_begin_at_the_axis():
    found = json.loads((RESULTS / "beside_nsmab.json").read_text())
    assert "above 1 the agent is stronger" in beside.draw(found["problems"]).get_supxlabel()
    rows: Any = pd.read_csv(RESULTS / "regret_by_round_mab_k2.csv").to_dict("records")
    above = regret_by_round.draw(rows).axes[0]
    assert above.get_xlim()[0] == 0
    assert all(tick == round(tick) for tick in above.get_xticks())
