import io
import json

import numpy as np
import pytest
from rich.console import Console

from evaluations import AGENTS, made_evaluation
from rmft_jax.statistics.bootstrap import mean_interval, paired_difference
from rmft_jax.statistics.growth import growth_exponent, regression_test, suff_fail_freq, trend_test
from rmft_jax.statistics.report import estimate_text, summarize, table

EVALUATION = made_evaluation().assign(
    # As if many agents gave up the best arm early.
    last_best_round=(("agent", "scenario"), np.random.default_rng(1).integers(0, 21, size=(len(AGENTS), 60)))
)
SUMMARY = summarize(EVALUATION)


def printed(shown, width: int = 120) -> str:
    text = io.StringIO()
    Console(highlight=False, width=width, file=text).print(shown, soft_wrap=True)
    return text.getvalue()


@pytest.mark.parametrize("name", AGENTS)
def test_the_summary_reports_what_the_dataset_holds(name):
    row, one = SUMMARY[name], EVALUATION.sel(agent=name)
    regret = one["regret"].to_numpy().astype(np.float64)
    assert row["regret_mean"] == pytest.approx(regret[:, -1].mean())
    np.testing.assert_allclose(row["regret_ci95"], mean_interval(regret[:, -1]), rtol=1e-9)
    growth = growth_exponent(regret)
    np.testing.assert_allclose([row["exponent"], *row["exponent_ci95"]], growth[:3], rtol=1e-9)
    assert row["num_nonpositive"] == growth.num_nonpositive
    assert row["trend_p"] == trend_test(regret.mean(axis=0)).p_value
    np.testing.assert_equal(row["regression_p"], regression_test(regret.mean(axis=0)).p_value)
    np.testing.assert_equal(row["sublinear_p"], regression_test(regret.mean(axis=0)).sublinear_p)
    assert row["suff_fail_freq"] == suff_fail_freq(one["last_best_round"].to_numpy(), 20)[9]
    assert row["suff_fail_freq"] == np.mean(one["last_best_round"] < 10)
    assert row["min_frac"] == pytest.approx(float(one["min_frac"].mean()))
    assert row["greedy_frac"] == pytest.approx(float(one["greedy_frac"].mean()))
    thompson = EVALUATION["regret"].sel(agent="thompson").to_numpy().astype(np.float64)
    mean, low, high = paired_difference(regret[:, -1], thompson[:, -1])
    assert row["minus_reference"] == pytest.approx(mean, rel=1e-5)
    np.testing.assert_allclose(row["minus_reference_ci95"], [low, high], rtol=1e-6, atol=1e-12)


def test_the_summary_tells_the_agents_apart():
    assert SUMMARY["best_arm"]["regret_mean"] == 0
    assert SUMMARY["best_arm"]["num_nonpositive"] == 20
    assert np.isnan(SUMMARY["best_arm"]["exponent"])
    assert SUMMARY["uniform"]["exponent"] == pytest.approx(1.0, abs=0.1)
    assert SUMMARY["rmft"]["exponent"] < 0.8
    assert SUMMARY["rmft"]["trend_p"] < 1e-3
    assert SUMMARY["rmft"]["minus_reference_ci95"][1] < SUMMARY["uniform"]["minus_reference_ci95"][0]


@pytest.mark.parametrize("reference", [None, "bayes_optimal"])
def test_without_the_reference_there_is_no_difference(reference):
    summary = summarize(made_evaluation(reference=reference))
    assert not any("minus" in key for row in summary.values() for key in row)
    shown = table(summary, "title", "dynamic", reference)
    assert len(shown.columns) == 7
    assert len(shown.rows) == len(AGENTS)
    assert "minus" not in printed(shown)
    assert "{" not in printed(shown)


def test_the_table_has_a_row_for_each_agent_lowest_regret_first():
    shown = table(SUMMARY, "the title", "dynamic", "thompson")
    names = list(shown.columns[0].cells)
    assert names == sorted(AGENTS, key=lambda name: SUMMARY[name]["regret_mean"])
    text = printed(shown)
    heads = ("dynamic regret", "minus", "thompson", "p of", "β = 1", "SuffFail", "Freq", "K·Min", "Greedy")
    for word in ("the title", *heads):
        assert word in text
    assert "minus thompson: regret minus that of thompson, scenario by scenario" in text
    assert "p-value, too small because rounds depend on each other" in text
    row = SUMMARY["uniform"]
    line = next(line for line in text.splitlines() if line.startswith("uniform"))
    assert f"{row['regret_mean']:.2f} [{row['regret_ci95'][0]:.2f}, {row['regret_ci95'][1]:.2f}]" in line
    assert f"{row['minus_reference']:+.2f} [" in line
    assert f"{row['exponent']:.2f} [" in line
    best = next(zip(*(column.cells for column in shown.columns), strict=True))
    assert best[3:5] == ("-", "-")
    thompson = names.index("thompson")
    assert list(shown.columns[2].cells)[thompson] == "-"


def test_a_summary_from_a_file_makes_the_same_table():
    text = json.dumps(SUMMARY).replace("NaN", "null")
    assert printed(table(json.loads(text), "t", "dynamic", "thompson")) == printed(
        table(SUMMARY, "t", "dynamic", "thompson")
    )


@pytest.mark.parametrize("scale", [-1.0, 12.34, -99.9, -987.6, -9876.5, 54321.0])
def test_the_table_fits_its_width_and_loses_nothing(scale):
    row = {"regret_mean": scale, "regret_ci95": [1.01 * scale, 0.99 * scale], "exponent": 0.5, "sublinear_p": 0.0}
    row |= {"exponent_ci95": [0.4, 0.6], "suff_fail_freq": 0.1, "min_frac": np.nan, "greedy_frac": None}
    row |= {"minus_reference": -scale, "minus_reference_ci95": [-1.01 * scale, -0.99 * scale]}
    text = printed(table({"explore_then_commit": row, "a_name_longer_than_any": row}, "t", "dynamic", "thompson"))
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    line = next(line for line in text.splitlines() if line.startswith("explore_then_commit"))
    assert line.split()[-4:] == ["<0.001", "0.100", "-", "-"]
    assert "0.50 [0.40, 0.60]" in line
    if scale == 12.34:
        assert "12.34 [12.46, 12.22]" in line


@pytest.mark.parametrize(
    ("mean", "interval", "text"),
    [
        (3.876, (3.651, 4.108), "3.88 [3.65, 4.11]"),
        (3.876, (np.nan, np.nan), "3.88"),
        (3.876, (), "3.88"),
        (np.nan, (1.0, 2.0), "-"),
        (None, (None, None), "-"),
    ],
)
def test_an_estimate_is_written_without_what_is_not_known(mean, interval, text):
    assert estimate_text(mean, interval) == text


def test_one_round_and_two_scenarios_are_enough():
    summary = summarize(made_evaluation(horizon=1, num_scenarios=2))
    assert all(np.isnan(row["exponent"]) and row["trend_p"] == 1 for row in summary.values())
    assert len(table(summary, "t").rows) == len(AGENTS)


def test_negative_regret_is_counted():
    summary = summarize(made_evaluation(bonus=1.0))
    assert all(row["num_nonpositive"] == 20 and row["regret_mean"] < 0 for row in summary.values())
    assert "-2" in printed(table(summary, "t", "static", "thompson"))
