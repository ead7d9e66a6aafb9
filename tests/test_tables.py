import csv
import io
import re

import numpy as np
import pytest

from evaluations import made_evaluation
from rmft_jax.config import ConfigError
from rmft_jax.statistics.estimates import estimate
from rmft_jax.statistics.report import summarize
from rmft_jax.statistics.tables import csv_text, markdown_table, table
from sweep_data import made_sweep

SWEEP = made_sweep(failed=[9, 10, 11])  # horizon = 50, num_arms = 2


def words_of(found, **place) -> str:
    one = found.sel(place)
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(float(one[side]) for side in ("mean", "low", "high")))


def cells_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_agents_are_columns_beside_one_dimension():
    text = table(SWEEP, rows="num_arms", select={"horizon": 50})
    head, rule, failed, row, _ = cells_of(text)
    assert head == ["num_arms", "rmft", "thompson", "ucb1", "greedy", "uniform"]
    assert rule == ["---", *["---:"] * 5]
    assert failed == ["2", *["-"] * 5]
    assert row[1] == words_of(estimate(SWEEP, "final_regret"), horizon=50, num_arms=5)
    assert row[3] == words_of(estimate(SWEEP, "baseline_final_regret"), horizon=50, num_arms=5, agent="ucb1")
    assert text.endswith(
        "95% intervals: Student-t over 3 seeds (rmft); 1.96 standard errors over scenarios "
        "(thompson, ucb1, greedy, uniform).\n"
    )


def test_agents_are_rows_beneath_two_dimensions():
    text = table(SWEEP, "num_arms", "horizon", baselines=["ucb1"])
    head, _, *rows = cells_of(text)
    assert head == ["num_arms", "agent", "horizon = 25", "horizon = 50", "horizon = 100"]
    assert [row[:2] for row in rows] == [[k, name] for k in ("2", "5", "10") for name in ("rmft", "ucb1")]
    assert rows[0][3] == "-"
    assert rows[2][4] == words_of(estimate(SWEEP, "final_regret"), horizon=100, num_arms=5)
    assert len(cells_of(table(SWEEP, "num_arms", "horizon", baselines=()))) == 2 + 3


@pytest.mark.parametrize(
    ("num_arms", "options", "runs"), [(5, {"rows": "horizon"}, 9), ([2, 5], {"columns": "horizon"}, 18)]
)
def test_a_mean_of_the_seeds_that_are_left_says_so(num_arms, options, runs):
    lost = f"{runs} runs failed or are missing, means are those of other seeds"
    assert f"1 of {lost}" in table(made_sweep(failed=[3]).sel(num_arms=num_arms), **options)
    assert "runs failed" not in table(SWEEP.sel(num_arms=num_arms), **options)


def latex_rows(text: str) -> list[list[str]]:
    """The head and the rows of a table in LaTeX."""
    return [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r" \\")]


def test_latex_has_the_rules_of_booktabs_and_escapes_names():
    dataset = made_sweep({"a_b%": ["x&y", "[<z#]", "u_v"]}, baselines={"ucb_{1}": 1.0})
    lines = table(dataset, format="latex").splitlines()
    assert lines[2:4] == [r"\begin{tabular}{lrr}", r"\toprule"]
    assert lines[4] == r"a b\% & RMFT Transformer & ucb \{1\} \\"
    assert lines[5] == r"\midrule"
    assert [line.split(" & ")[0] for line in lines[6:9]] == [r"x\&y", r"{[}\textless{}z\#]", r"u\_v"]
    assert lines[9:] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[0].startswith("% pseudo-regret at the horizon")
    assert r"\usepackage{booktabs}" in lines[1]


def test_latex_calls_agents_and_settings_what_figures_call_them():
    head, row, *_ = latex_rows(table(SWEEP, rows="num_arms", select={"horizon": 50}, format="latex"))
    assert head == ["number of arms K", "RMFT Transformer", "Thompson", "UCB1", "greedy", "uniform"]
    assert row == ["2", *["--"] * 5]
    text = table(SWEEP, "num_arms", "horizon", "latex", baselines=["ucb1"])
    head, *rows = latex_rows(text)
    assert head == ["number of arms K", "agent", "T = 25", "T = 50", "T = 100"]
    assert [row[1] for row in rows[:2]] == ["RMFT Transformer", "UCB1"]
    assert "(RMFT Transformer)" in text
    head, *rows = latex_rows(table(made_evaluation(), format="latex"))
    assert head == ["agent", "dynamic regret", r"$\beta$", "minus Thompson"]
    assert r"$\varepsilon$-greedy" in [row[0] for row in rows]


def test_latex_has_minus_signs():
    sweep = made_sweep({"step_size": [-0.5, 1e-5], "seed": [0, 1]}, bonus=1.0, baselines={}).assign_attrs(regret="x")
    _, *rows = latex_rows(table(sweep, format="latex"))
    assert [row[0] for row in rows] == ["$-$0.5", "1e-05"]
    mean, low, high = (float(estimate(sweep, "final_regret")[side][0]) for side in ("mean", "low", "high"))
    assert rows[0][1] == rf"\textbf{{$-${-mean:.2f}}} [$-${-low:.2f}, $-${-high:.2f}]"


def bold_of(text: str) -> list[list[int]]:
    return [[j for j, cell in enumerate(row) if cell.startswith(r"\textbf")] for row in latex_rows(text)[1:]]


def test_bold_is_the_lowest_and_what_cannot_be_told_from_it():
    sweep = made_sweep({"num_arms": [2, 5], "horizon": [25, 50], "seed": [0, 1, 2]}, {"ucb1": 0.8, "uniform": 0.01})
    ucb1 = sweep["baseline_final_regret"].sel(agent="ucb1").values.copy()
    # Level with the policy on average, where seeds disagree; and below it in another setting.
    ucb1[0, 0] = sweep["final_regret"].values[0, 0] + [-0.5, 0.1, 0.7]
    ucb1[1, 1] = sweep["final_regret"].values[1, 1] - [0.5, 0.6, 0.7]
    sweep["baseline_final_regret"].loc[{"agent": "ucb1"}] = ucb1
    text = table(sweep, "num_arms", "horizon", "latex")
    assert bold_of(text) == [[2, 3], [2], [], [2], [3], []]  # Uniform play does not compete.
    assert "paired 95% interval (Student-t over seeds)" in text
    assert bold_of(table(sweep, "num_arms", select={"horizon": 25}, format="latex")) == [[1, 2], [1]]
    alone = table(sweep.isel(seed=[0]), "num_arms", select={"horizon": 25}, format="latex")
    assert bold_of(alone) == [[2], [1]]  # No interval without a second seed.


def test_bold_agents_of_an_evaluation_are_level_over_scenarios():
    evaluation = made_evaluation(["rmft", "ucb1", "thompson", "best_arm"])
    best = evaluation["regret"].sel(agent="rmft").values.copy()
    noise = np.where(np.arange(len(best)) % 2, 0.5, -0.49)[:, None]
    evaluation["regret"].loc[{"agent": "ucb1"}] = best + noise
    evaluation["regret"].loc[{"agent": "thompson"}] = best + 0.02
    text = table(evaluation, format="latex")
    names = [row[0] for row in latex_rows(text)[1:]]
    assert {name: bold for name, bold in zip(names, bold_of(text), strict=True) if bold} == {
        "RMFT Transformer": [1], "UCB1": [1]
    }  # fmt: skip
    assert "paired 95% interval (bootstrap over scenarios)" in text


def test_csv_has_a_row_per_number_with_its_interval():
    rows = list(csv.DictReader(io.StringIO(table(SWEEP, "num_arms", "horizon", "csv"))))
    assert len(rows) == 3 * 5 * 3
    found = estimate(SWEEP, "final_regret").sel(horizon=25, num_arms=10)
    row = next(r for r in rows if (r["num_arms"], r["agent"], r["column"]) == ("10", "rmft", "horizon = 25"))
    assert row["interval"] == "Student-t over 3 seeds"
    numbers = [float(row[side]) for side in ("mean", "low", "high")]
    np.testing.assert_allclose(numbers, [found[side] for side in ("mean", "low", "high")], rtol=1e-5)
    failed = next(r for r in rows if (r["num_arms"], r["column"]) == ("2", "horizon = 50"))
    assert (failed["mean"], failed["interval"]) == ("", "none")


def test_an_evaluation_has_a_row_per_agent():
    evaluation = made_evaluation()
    head, _, *rows = cells_of(table(evaluation))
    assert head == ["agent", "dynamic regret", "β", "minus thompson"]
    assert [row[0] for row in rows][:2] == ["best_arm", "rmft"]
    summary = summarize(evaluation)["rmft"]
    assert rows[1][1] == "{:.2f} [{:.2f}, {:.2f}]".format(summary["regret_mean"], *summary["regret_ci95"])
    assert rows[0][2] == "-"
    assert [row[0] for row in cells_of(table(evaluation, baselines=["ucb1"]))[2:]] == ["rmft", "ucb1"]
    assert cells_of(table(made_evaluation(reference=None)))[0] == ["agent", "dynamic regret", "β"]


def test_texts_make_a_markdown_table():
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    assert markdown_table(["a", "b"], iter([]), names=1).splitlines() == ["| a | b |", "| --- | ---: |"]


def test_rows_make_csv():
    rows = [{"name": "a,b", "count": 3, "mean": 1 / 3}, {"name": "c", "count": 4, "mean": float("nan")}]
    assert csv_text(rows) == 'name,count,mean\n"a,b",3,0.333333\nc,4,\n'


def test_baselines_are_in_the_order_asked_for():
    head, *_ = cells_of(table(SWEEP, rows="num_arms", select={"horizon": 50}, baselines=["uniform", "ucb1", "uniform"]))
    assert head == ["num_arms", "rmft", "uniform", "ucb1"]


def test_a_sweep_of_one_cell_has_one_row():
    head, _, row = cells_of(table(made_sweep({"seed": [0, 1]})))
    assert head == ["rmft", "thompson", "ucb1", "greedy", "uniform"]
    assert "[" in row[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got several values of num_arms (2, 5, 10), need one of each; try select={'num_arms': 10}"),
        ({"rows": "k"}, "got dimension 'k'"),
        ({"rows": "horizon", "columns": "horizon"}, "got rows=horizon and columns=horizon"),
        ({"columns": "horizon", "baselines": ["nope"]}, "got baseline 'nope', need one of thompson"),
        ({"format": "html"}, "got format='html', need one of text, markdown, latex, csv"),
    ],
)
def test_bad_tables_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        table(SWEEP, **options)
    assert message in str(error.value)


def test_a_run_has_no_dimensions():
    with pytest.raises(ConfigError, match="need a sweep for them"):
        table(made_evaluation(), rows="horizon")


def test_text_is_what_markdown_says_in_columns_as_wide_as_the_terminal():
    content = cells_of(table(SWEEP, "num_arms", "horizon"))
    wide = table(SWEEP, "num_arms", "horizon", "text")
    numbers = [cell for row in content[2:] for cell in row[2:]]
    assert re.findall(r"-(?= |$)|[\d.]+ \[.*?\]", wide.split("\n\n")[0], re.MULTILINE) == numbers
    narrow = table(SWEEP, "num_arms", "horizon", "text", width=80)
    first, second, caption = narrow.split("\n\n")
    assert max(map(len, narrow.splitlines())) <= 80
    assert "\\" not in narrow
    for part in (first, second):  # What names a row stands before either part of it.
        assert part.splitlines()[1] == "num_arms agent"
        assert sum("thompson" in line for line in part.splitlines()) == 3
    assert [cell for cell in content[0][2:] if cell in second] == ["horizon = 100"]
    assert " ".join(caption.split()) == wide.split("\n\n")[1].strip()
    assert table(made_evaluation(), format="text").splitlines()[2].startswith("best_arm ")
