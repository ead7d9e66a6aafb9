"""The closed forms against simulation, the rows of the check, and the sabotage that each of them must notice."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ideals import IDEAL
from theory import check, finite_samples, hedge, hedge_regret, lemma, metric, theorem1, theorem2, theorem3, theorem4
from theory.beyond.exploration import Exploration, Finding
from theory.play import HORIZONS, exponent
from theory.statement import (
    CLOSED_FORMS,
    STRUCTURAL,
    Effort,
    Row,
    all_together,
    at_most,
    equal,
    exact,
    pooled_error,
    sabotaged,
    sabotages,
    zeros,
)
from theory.walks import SETTING, STRONG, diagonal, mirrored, off_diagonal, walk

RNG = np.random.default_rng(0)


def simulated(num_arms: int, horizon: int, prior_std: float, noise_std: float, count: int = 40_000) -> np.ndarray:
    """Reward vectors `[count, T, K]` around drawn means."""
    means = prior_std * RNG.normal(size=(count, 1, num_arms))
    return means + noise_std * RNG.normal(size=(count, horizon, num_arms))


def sums_before(rewards: np.ndarray) -> np.ndarray:
    return np.cumsum(rewards, axis=1) - rewards


@pytest.mark.parametrize(
    ("L", "k", "expected"),
    [(2, 1, 1 / math.sqrt(math.pi)), (3, 1, 1.5 / math.sqrt(math.pi)), (3, 2, 0.75 / math.sqrt(math.pi)), (5, 5, 0.0)],
)
def test_order_statistics_of_few_normals_are_known(L, k, expected):
    assert lemma.order_statistic_mean(L, k) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(st.integers(2, 12), st.integers(1, 11))
def test_keeping_fewer_keeps_more_of_the_noise(L, k):
    if k < L:
        assert lemma.order_statistic_mean(L, k) > lemma.order_statistic_mean(L, k + 1) >= -1e-9


def test_order_statistics_agree_with_simulation():
    drawn = np.sort(RNG.normal(size=(200_000, 7)), axis=1)
    for k in (1, 3, 6):
        assert lemma.order_statistic_mean(7, k) == pytest.approx(drawn[:, -k:].mean(), abs=0.005)


@pytest.mark.parametrize(("num_arms", "horizon", "tau", "nu"), [(3, 20, 0.7, 1.0), (2, 5, 0.5, 0.3), (5, 2, 1.5, 1.0)])
def test_alpha_and_beta_agree_with_simulation(num_arms, horizon, tau, nu):
    rewards = simulated(num_arms, horizon, tau, nu)
    sums, norm = sums_before(rewards), np.linalg.norm(rewards, axis=(1, 2))
    alphas = np.sum(sums**2, axis=(1, 2)) / num_arms
    betas = np.sum(rewards * sums, axis=(1, 2)) / norm / num_arms
    alpha, beta = theorem1.alpha(horizon, tau, nu), theorem1.beta(num_arms, horizon, tau, nu)
    for expected, values in ((alpha, alphas), (beta, betas)):
        assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(len(values))


def test_beta_is_zero_without_a_signal_and_scales_with_the_rewards():
    assert theorem1.beta(3, 20, 0.0, 1.0) == 0
    assert theorem1.beta(3, 20, 1.4, 2.0) == pytest.approx(2 * theorem1.beta(3, 20, 0.7, 1.0))
    assert theorem1.beta(3, 20, 1e-3, 1e-3) > 0
    assert theorem1.alpha(20, 1.4, 2.0) == pytest.approx(4 * theorem1.alpha(20, 0.7, 1.0))


def test_the_step_of_the_standard_setting_is_the_known_one():
    assert theorem1.step_per_iteration(SETTING) == pytest.approx(0.00369, abs=1e-5)


def test_the_iteration_itself_takes_the_step_that_is_predicted():
    paths = walk(SETTING, 2, 2, Effort())
    assert diagonal(paths)[:, 2].mean() == pytest.approx(2 * theorem1.step_per_iteration(SETTING), rel=0.05)
    assert np.abs(off_diagonal(paths)).max() < 0.001
    assert (paths[:, 0] == 0).all()
    assert not np.array_equal(paths[0], paths[1])


@settings(max_examples=20)
@given(st.floats(1.0, 1e4), st.floats(-1.0, 1.0))
def test_the_fixed_point_stays_put_and_attracts_at_the_stated_rate(penalty, start):
    a = theorem1.alpha(STRONG.horizon, 1.0, 0.3)
    gain = theorem1.step_per_iteration(STRONG) * a
    target, rate = theorem2.fixed_point(penalty), theorem2.contraction(penalty)
    after = (start * a + gain) / (a + penalty)
    assert after - target == pytest.approx(rate * (start - target), abs=1e-9)


def test_the_recursion_is_recovered_from_its_runs():
    counts = np.arange(12)
    paths = np.stack([0.3 + (start - 0.3) * 0.8**counts for start in (0.0, 1.0)])
    assert theorem2.recursion(paths) == pytest.approx((0.3, 0.8))


@pytest.mark.parametrize("step", [0.05, 0.9, 5.0])
def test_regret_on_the_alternating_sequence_is_that_of_a_loop(step):
    size, total, payoff = np.asarray([0.25, -0.25]), np.zeros(2), 0.0
    for t in range(40):
        point = step * total
        point /= max(1.0, float(np.linalg.norm(point)))
        reward = size if t == 0 else (-1) ** t * 2 * size
        payoff, total = payoff + float(point @ reward), total + reward
    assert theorem3.alternating_regret(step, 40) == pytest.approx(np.linalg.norm(total) - payoff)


@pytest.mark.parametrize("rate", [0.05, 0.9, 5.0])
def test_regret_of_hedge_on_the_alternating_sequence_is_that_of_a_loop(rate):
    s, total, payoff = np.asarray([0.25, -0.25, 0.0]), np.zeros(3), 0.0
    for t in range(40):
        weights = np.exp(rate * total)
        reward = s if t == 0 else (-1) ** t * 2 * s
        payoff, total = payoff + float(weights @ reward) / weights.sum(), total + reward
    # On an even number of rounds the sum ends at -s, whose largest entry is that of s.
    assert hedge_regret.hedge_alternating_regret(rate, 40) == pytest.approx(total.max() - payoff)


@pytest.mark.parametrize(("deviation", "horizon"), [(0.03, 100), (0.1, 400), (0.0, 50)])
def test_regret_under_turning_is_that_of_a_loop(deviation, horizon):
    matrix = (np.eye(2) + deviation * metric.TURN) / math.sqrt(horizon)
    total, payoff, norms = np.zeros(2), 0.0, []
    for t in range(horizon):
        point = matrix @ total
        point /= max(1.0, float(np.linalg.norm(point)))
        norms.append(float(np.linalg.norm(point)))
        radius = np.linalg.norm(total)
        if t < 2 or norms[-1] > norms[-2] * (1 + 1e-4):
            reward = np.asarray([1.0, 0.0])
        else:
            # Along the circle in the direction of J S, against which play deviates by -delta J S.
            half = math.asin(1 / (2 * radius))
            turn = np.asarray([[math.cos(2 * half), -math.sin(2 * half)], [math.sin(2 * half), math.cos(2 * half)]])
            reward = turn @ total - total
        payoff, total = payoff + float(point @ reward), total + reward
    regret = float(np.linalg.norm(total)) - payoff
    assert metric.turning_regret(deviation, horizon) == pytest.approx(regret, rel=1e-9)


def test_variance_of_the_mean_of_the_largest_agrees_with_simulation():
    drawn = np.sort(RNG.normal(size=(300_000, 8)), axis=1)
    for k in (1, 2, 5, 8):
        expected = drawn[:, -k:].mean(axis=1).var()
        assert finite_samples.top_mean_variance(8, k) == pytest.approx(expected, rel=0.02)


def test_the_minimizers_of_the_regret_loss_agree_with_simulation():
    for setting in (theorem4.Setting(3, 6, 1.0), theorem4.Setting(2, 10, 0.5)):
        rewards = simulated(setting.num_arms, setting.horizon, 0.0, setting.noise_std, 200_000)
        q = np.sum(rewards * sums_before(rewards), axis=(1, 2))
        size = np.linalg.norm(rewards.sum(axis=1), axis=1)
        assert theorem4.square_minimizer(*setting) == pytest.approx((size * q).mean() / (q**2).mean(), rel=0.03)
        grid = theorem4.regret_loss_minimizer(*setting) * np.asarray([0.9, 1.0, 1.1])
        losses = [np.mean(np.maximum(size - w * q, 0) ** 2) for w in grid]
        assert min(losses) == losses[1]
        slopes = np.maximum(size - grid[1] * q, 0) * q
        assert abs(slopes.mean()) < 4 * slopes.std() / math.sqrt(len(slopes))


def test_the_step_of_hedge_agrees_with_simulation():
    config = hedge.SETTING_SOFTMAX
    rewards = simulated(3, config.horizon, 1.0, 0.3)
    sums, centred = sums_before(rewards), rewards - rewards.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(centred, axis=(1, 2))
    ratio = (np.sum(centred * sums, axis=(1, 2)) / norm).mean() / np.sum(centred_sums(sums) ** 2, axis=(1, 2)).mean()
    expected = config.decision_map.exploration_std * lemma.order_statistic_mean(8, 2) * ratio
    assert hedge.hedge_step(config) == pytest.approx(expected, rel=0.02)


def centred_sums(sums: np.ndarray) -> np.ndarray:
    return sums - sums.mean(axis=-1, keepdims=True)


def spread_around(mean: float, error: float, count: int = 400) -> np.ndarray:
    """Samples whose mean and standard error are these."""
    draws = np.random.default_rng(1).normal(size=count)
    draws = (draws - draws.mean()) / draws.std(ddof=1)
    return mean + draws * error * math.sqrt(count)


def test_a_mean_holds_within_four_standard_errors_and_one_percent():
    assert equal("S", "q", 1.0, spread_around(1.009, 0.003)).holds
    assert not equal("S", "q", 1.0, spread_around(1.011, 0.01)).holds, "further than one percent"
    assert not equal("S", "q", 1.0, spread_around(1.009, 0.002)).holds, "further than four errors"
    assert equal("S", "q", 0.0, spread_around(0.39, 0.1)).holds
    assert not equal("S", "q", 0.0, spread_around(-0.42, 0.1)).holds
    assert equal("S", "q", 1.0, spread_around(1.02, 0.01), near=0.03).holds
    assert not equal("S", "q", 1.0, np.asarray([1.0, math.nan])).holds
    row = equal("S", "q", 1.0, spread_around(1.006, 0.002))
    assert row.score == pytest.approx(3.0, rel=0.02)


def test_few_samples_are_judged_by_the_law_of_student():
    # Of three samples a distance of ten standard errors is worth two and a half normal ones.
    assert equal("S", "q", 0.0, spread_around(10.0, 1.0, 3)).score == pytest.approx(2.57, abs=0.05)
    scores = [equal("S", "q", 0.0, RNG.normal(size=4)).score for _ in range(4000)]
    assert np.std(scores) == pytest.approx(1.0, rel=0.05)
    assert np.quantile(scores, 0.99) == pytest.approx(2.33, rel=0.1)


def test_entries_are_judged_together_by_the_law_of_fisher():
    scores = [zeros("S", "q", RNG.normal(size=(5, 6))).score for _ in range(4000)]
    assert np.mean(np.square(scores)) == pytest.approx(1.0, rel=0.08)
    assert not zeros("S", "q", RNG.normal(size=(50, 6)) + 1.0).holds
    assert zeros("S", "q", RNG.normal(size=(50, 6)) + 1.0, planted=1.0).holds


def test_bounds_and_exact_values_leave_room_for_rounding_only():
    assert at_most("S", "q", 2.0, 2.0).holds
    assert not at_most("S", "q", 2.0, 2.001).holds
    assert not at_most("S", "q", 1.0, math.nan).holds
    assert exact("S", "q", 2.0, 2.001).holds
    assert not exact("S", "q", 2.0, 2.003).holds


def test_all_rows_together_notice_what_none_of_them_does():
    def rows(score: float) -> list[Row]:
        return [Row("S", "q", "=", 0.0, 0.0, 1.0, score, True)] * 50

    assert all_together([*rows(1.0), exact("S", "q", 1.0, 1.0)]).holds
    assert not all_together(rows(1.6)).holds
    assert all_together([]).measured == 0


def test_mirrored_entries_are_sums_and_differences():
    matrix = np.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    np.testing.assert_allclose(mirrored(matrix, 1) * math.sqrt(2), [6, 10, 14])
    np.testing.assert_allclose(mirrored(matrix, -1) * math.sqrt(2), [-2, -4, -2])


def test_the_pooled_error_is_that_of_one_entry():
    values = RNG.normal(scale=3.0, size=(20, 4000))
    assert pooled_error(values) == pytest.approx(3.0 / math.sqrt(20), rel=0.02)
    assert pooled_error(values + np.arange(4000.0)[None]) == pytest.approx(pooled_error(values)), "means may differ"


def test_the_exponent_is_that_of_a_power_law():
    regret = np.broadcast_to(3 * np.asarray(HORIZONS, float)[None, :, None] ** 0.7, (2, len(HORIZONS), 5))
    assert exponent(regret) == pytest.approx((0.7, 0.0), abs=1e-9)


def test_the_error_of_the_exponent_knows_scenarios_and_seeds():
    powers = 0.5 + np.asarray([[0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]])
    between_seeds = np.asarray(HORIZONS, float)[None, :, None] ** powers[:, None, :]
    assert exponent(between_seeds).standard_error == pytest.approx(0.05, rel=1e-6)
    between_scenarios = np.asarray(HORIZONS, float)[None, :, None] ** powers.T[:2].repeat(2, axis=1)[:, None, :]
    assert 0.01 < exponent(between_scenarios).standard_error < 0.05


@pytest.fixture(scope="module")
def ideal():
    return {statement: IDEAL[statement.name]() for statement in check.STATEMENTS}


def test_measurements_as_predicted_make_every_row_hold(ideal):
    for statement, measured in ideal.items():
        rows = statement.rows(measured)
        assert rows
        assert all(row.holds for row in rows), [row for row in rows if not row.holds]


@pytest.mark.slow
def test_every_planted_error_turns_a_row_red_and_every_row_is_turned_by_one(ideal):
    caught: set[tuple[str, str]] = set()
    for name in sabotages():
        with sabotaged(name):
            red = [row for statement, measured in ideal.items() for row in statement.rows(measured) if not row.holds]
        assert red, name
        caught |= {row[:2] for row in red}
    rows = [row for statement, measured in ideal.items() for row in statement.rows(measured)]
    assert all(row.holds for row in rows), "the errors are taken back"
    assert not {row[:2] for row in rows} - caught


def test_sabotage_knows_closed_forms_in_both_directions_and_structures():
    assert {f"{name}{sign}" for name in CLOSED_FORMS for sign in "+-"} | set(STRUCTURAL) == set(sabotages())
    before = theorem1.alpha(20, 0.7, 1.0)
    for sign, factor in (("+", 1.05), ("-", 0.95)):
        with sabotaged(f"alpha{sign}"):
            assert theorem1.alpha(20, 0.7, 1.0) == pytest.approx(factor * before)
    assert theorem1.alpha(20, 0.7, 1.0) == before


def test_purposes_have_random_streams_of_their_own():
    drawn = {Effort(seed=seed).generator(name).integers(2**60) for seed in (0, 1) for name in ("a", "b")}
    keys = {str(jax.random.key_data(Effort(seed=seed).key(name))) for seed in (0, 1) for name in ("a", "b")}
    assert len(drawn) == len(keys) == 4


def test_an_unknown_sabotage_is_refused():
    with pytest.raises(ValueError, match=r"need one of .*alpha\+, alpha-"), sabotaged("gamma"):
        pass


def test_figures_are_drawn_of_every_statement(ideal):
    for statement, measured in ideal.items():
        axes = statement.draw(measured).axes[0]
        assert axes.get_xlabel()
        assert axes.get_ylabel()


@pytest.fixture
def quick(monkeypatch):
    """A check of one ideal statement and one exploration, so that only the command itself is tested."""
    finding = Finding("walking", "speed", 1.0, 0.1, None)
    statement = check.STATEMENTS[0]._replace(measure=lambda effort: (effort.note("one line"), MEASURED)[1])
    exploration = Exploration(
        "walking", "A walk", lambda effort: None, lambda measured: [finding], lambda measured: FIGURE
    )
    monkeypatch.setattr(check, "STATEMENTS", (statement,))
    monkeypatch.setattr(check, "PARTS", {"lemma": statement, "walking": exploration})


MEASURED = IDEAL["lemma"]()
FIGURE = lemma.draw(MEASURED)


@pytest.mark.usefixtures("quick")
def test_the_check_reports_writes_and_succeeds(tmp_path, capsys):
    out, figures = tmp_path / "new" / "rows.json", tmp_path / "figures"
    assert check.main(["--json", str(out), "--figures", str(figures), "--beyond"]) == 0
    result = json.loads(out.read_text())
    assert list(result["rows"][0]) == list(Row._fields)
    assert {row["statement"] for row in result["rows"]} == {"Lemma", "All"}
    assert result["beyond"][0]["quantity"] == "speed"
    assert sorted(path.name for path in figures.iterdir()) == ["lemma.pdf", "lemma.png", "walking.pdf", "walking.png"]
    printed = capsys.readouterr()
    assert f"{len(result['rows'])} of {len(result['rows'])} rows hold" in printed.out
    assert "Beyond the simplified setting" in printed.out
    assert "lemma: 14 of 14 hold" in printed.err


@pytest.mark.usefixtures("quick")
def test_a_planted_error_fails_the_check_and_draws_nothing(tmp_path, capsys):
    out, figures = tmp_path / "rows.json", tmp_path / "figures"
    arguments = ["--json", str(out), "--figures", str(figures), "--sabotage", "order_statistic_mean+"]
    assert check.main(arguments) == 1
    assert not all(row["holds"] for row in json.loads(out.read_text())["rows"])
    assert not list(figures.iterdir())
    assert "NO" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "theorem9"], "got --only theorem9, need one of lemma, walking"),
        (["--sabotage", "gamma"], "got --sabotage gamma, need one of"),
        (["--seed", "-1"], "got seed=-1"),
        (["--json", "/dev/null/rows.json"], "try another --json or --figures"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(arguments, message, capsys, tmp_path):
    assert check.main(["--figures", str(tmp_path), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert "hold" not in complaint


def test_the_committed_results_are_those_of_today_s_statements():
    folder = Path(check.__file__).parent
    committed = json.loads((folder / "results.json").read_text())
    assert all(row["holds"] for row in committed["rows"])
    rows = [row for statement in check.STATEMENTS for row in statement.rows(IDEAL[statement.name]())]
    quantities = [(row["statement"], row["quantity"]) for row in committed["rows"][:-1]]
    assert quantities == [row[:2] for row in rows]
    explored = {finding["exploration"] for finding in committed["beyond"]}
    assert explored == {exploration.name for exploration in check.EXPLORATIONS}
    pages = "".join(page.read_text() for page in folder.glob("*.md"))
    for name in check.PARTS:
        assert (check.FIGURES / f"{name}.png").is_file()
        assert f"figures/{name}.png" in pages


@pytest.mark.slow
def test_every_statement_holds_and_every_sabotage_is_noticed():
    """The real check, with every error planted in turn on the same measurements."""
    measured = {statement: statement.measure(Effort(seed=1)) for statement in check.STATEMENTS}
    assert all(row.holds for statement, values in measured.items() for row in statement.rows(values))
    for name in sabotages():
        with sabotaged(name):
            assert not all(row.holds for statement, values in measured.items() for row in statement.rows(values)), name
