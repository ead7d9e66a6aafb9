"""The closed forms against simulation, the rows of the check, and the sabotage that each of them must notice."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import check, hedge, hedge_regret, lemma, theorem1, theorem2, theorem3, theorem4
from theory.beyond.exploration import Exploration, Finding
from theory.play import HORIZONS, Played, exponent
from theory.statement import CLOSED_FORMS, Effort, Row, at_most, close, pooled_error, sabotaged, worst
from theory.walks import SETTING, diagonal, off_diagonal, walk

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
    a = theorem1.alpha(20, 0.7, 1.0)
    gain = theorem1.step_per_iteration(SETTING) * a
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


def test_the_minimizer_of_the_regret_loss_agrees_with_simulation():
    for setting in (theorem4.Setting(3, 6, 1.0), theorem4.Setting(2, 10, 0.5)):
        rewards = simulated(setting.num_arms, setting.horizon, 0.0, setting.noise_std, 100_000)
        q = np.sum(rewards * sums_before(rewards), axis=(1, 2))
        size = np.linalg.norm(rewards.sum(axis=1), axis=1)
        assert theorem4.regret_loss_minimizer(*setting) == pytest.approx((size * q).mean() / (q**2).mean(), rel=0.03)


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


def test_rows_hold_within_their_tolerance_only():
    assert close("S", "q", 1.0, 1.029, 0.1, relative=0.03).holds
    assert not close("S", "q", 1.0, 0.969, 0.1, relative=0.03).holds
    assert close("S", "q", 0.0, -0.39, 0.1).holds
    assert not close("S", "q", 0.0, -0.41, 0.1).holds
    assert at_most("S", "q", 2.0, 2.0).holds
    assert not at_most("S", "q", 2.0, 2.001).holds
    assert not close("S", "q", 1.0, math.nan, 0.1).holds
    assert not at_most("S", "q", 1.0, math.nan).holds
    row = worst("S", "q", np.zeros(3), np.asarray([0.3, -0.5, 0.4]), np.asarray([0.1, 0.2, 0.05]))
    assert (row.measured, row.standard_error, row.holds) == (0.4, 0.05, False)


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


def _noisy(values: np.ndarray, spread: float = 1e-4) -> np.ndarray:
    """Four runs that deviate a little from what is predicted, by nothing on average."""
    signs = np.asarray([1.0, -1.0, 0.5, -0.5]).reshape(4, *(1,) * np.ndim(values))
    return np.asarray(values) + spread * signs


def _ideal_lemma() -> lemma.Measured:
    along = {s: _noisy(np.asarray(lemma.order_statistic_mean(*s))) for s in lemma.SELECTIONS}
    rounds = {s: values[:, None] / 10 + np.zeros(10) for s, values in along.items()}
    return lemma.Measured(along, rounds, np.full((4, 10), 0.1), {s: _noisy(np.zeros(())) for s in along})


def _ideal_theorem1() -> theorem1.Measured:
    counts = np.arange(theorem1.NUM_ITERATIONS + 1)[:, None, None]
    paths = {
        name: _noisy(counts * theorem1.step_per_iteration(config) * np.eye(config.environment.num_arms), 1e-5)
        for name, config in theorem1.SETTINGS.items()
    }
    return theorem1.Measured(paths, _noisy(np.zeros((len(counts), 3, 3)), 1e-5))


def _ideal_theorem2() -> theorem2.Measured:
    runs: list[dict[float, np.ndarray]] = [{}, {}]
    for penalty in theorem2.PENALTIES:
        target, rate = theorem2.fixed_point(penalty), theorem2.contraction(penalty)
        for run, start in zip(runs, (0.0, 2 * target), strict=True):
            run[penalty] = _noisy(target + (start - target) * rate ** np.arange(theorem2.NUM_ITERATIONS + 1), 1e-7)
    return theorem2.Measured(*runs)


def _ideal_play(bounds: dict[str, np.ndarray], overtrained: np.ndarray) -> Played:
    """What comes close to each bound, as the opponents of the check do."""
    stopped = {
        name: np.broadcast_to(0.73 * bound[None, :, None], (3, len(HORIZONS), 4)) for name, bound in bounds.items()
    }
    return Played(stopped, {"alternating": np.broadcast_to(overtrained[None, :, None], (3, len(HORIZONS), 4))})


def _ideal_theorem3() -> Played:
    bounds = {
        name: np.asarray([theorem3.no_regret_bound(T, norm) for T in HORIZONS])
        for name, (_, norm) in theorem3.OPPONENTS.items()
    }
    step = theorem1.step_per_iteration(theorem3.TRAINING)
    late = np.asarray([theorem3.alternating_regret(theorem3.NUM_ITERATIONS * step, T) for T in HORIZONS])
    played = _ideal_play(bounds, late)
    norm = theorem3.OPPONENTS["alternating"].norm
    stops = [theorem3.stopping_time(T, norm) * step for T in HORIZONS]
    alternating = np.asarray([theorem3.alternating_regret(eta, T) for eta, T in zip(stops, HORIZONS, strict=True)])
    played.stopped["alternating"] = np.broadcast_to(alternating[None, :, None], (3, len(HORIZONS), 4))
    played.stopped["orthogonal"] = played.stopped["orthogonal"] / 0.73
    return played


def _ideal_hedge() -> np.ndarray:
    counts = np.arange(hedge.NUM_ITERATIONS + 1)[:, None, None]
    return _noisy(counts * hedge.hedge_step(hedge.SETTING_SOFTMAX), 1e-6) * hedge.CENTRING + _noisy(
        np.zeros((1, 3, 3)), 1e-7
    )


def _ideal_hedge_regret() -> hedge_regret.Measured:
    bound = np.asarray([hedge_regret.hedge_bound(T) for T in HORIZONS])
    rates = np.tile([hedge_regret.best_rate(T) for T in HORIZONS], (3, 1))
    played = _ideal_play(dict.fromkeys(hedge_regret.OPPONENTS, bound), 0.1 * np.asarray(HORIZONS))
    return hedge_regret.Measured(played, rates)


def _ideal_theorem4() -> theorem4.Measured:
    return theorem4.Measured(
        {
            s: _noisy(theorem4.regret_loss_minimizer(*s) * np.ones((2, 1, 1)) * np.eye(s.num_arms))
            for s in theorem4.SETTINGS
        }
    )


IDEAL = {
    "lemma": _ideal_lemma,
    "theorem1": _ideal_theorem1,
    "theorem2": _ideal_theorem2,
    "theorem3": _ideal_theorem3,
    "hedge": _ideal_hedge,
    "hedge_regret": _ideal_hedge_regret,
    "theorem4": _ideal_theorem4,
}


@pytest.fixture(scope="module")
def ideal():
    return {statement: IDEAL[statement.name]() for statement in check.STATEMENTS}


def test_measurements_as_predicted_make_every_row_hold(ideal):
    for statement, measured in ideal.items():
        rows = statement.rows(measured)
        assert rows
        assert all(row.holds for row in rows), [row for row in rows if not row.holds]


@pytest.mark.parametrize("name", sorted(CLOSED_FORMS))
def test_an_error_in_any_closed_form_turns_a_row_red(ideal, name):
    with sabotaged(name):
        rows = [row for statement, measured in ideal.items() for row in statement.rows(measured)]
    assert not all(row.holds for row in rows)
    assert all(row.holds for statement, measured in ideal.items() for row in statement.rows(measured))


def test_an_unknown_sabotage_is_refused():
    with pytest.raises(ValueError, match="need a closed form: alpha"), sabotaged("gamma"):
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


MEASURED = _ideal_lemma()
FIGURE = lemma.draw(MEASURED)


@pytest.mark.usefixtures("quick")
def test_the_check_reports_writes_and_succeeds(tmp_path, capsys):
    out, figures = tmp_path / "new" / "rows.json", tmp_path / "figures"
    assert check.main(["--json", str(out), "--figures", str(figures)]) == 0
    result = json.loads(out.read_text())
    assert list(result["rows"][0]) == list(Row._fields)
    assert {row["statement"] for row in result["rows"]} == {"Lemma"}
    assert result["beyond"][0]["quantity"] == "speed"
    assert sorted(path.name for path in figures.iterdir()) == ["lemma.pdf", "lemma.png", "walking.pdf", "walking.png"]
    printed = capsys.readouterr()
    assert f"{len(result['rows'])} of {len(result['rows'])} rows hold" in printed.out
    assert "Beyond the simplified setting" in printed.out
    assert "lemma: 18 of 18 hold" in printed.err


@pytest.mark.usefixtures("quick")
def test_a_planted_error_fails_the_check_and_draws_nothing(tmp_path, capsys):
    out, figures = tmp_path / "rows.json", tmp_path / "figures"
    arguments = ["--json", str(out), "--figures", str(figures), "--sabotage", "order_statistic_mean"]
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
    committed = json.loads((Path(check.__file__).parent / "results.json").read_text())
    assert all(row["holds"] for row in committed["rows"])
    rows = [row for statement in check.STATEMENTS for row in statement.rows(IDEAL[statement.name]())]
    assert [(row["statement"], row["quantity"]) for row in committed["rows"]] == [row[:2] for row in rows]
    for name in check.PARTS:
        assert (check.FIGURES / f"{name}.png").is_file()
        assert f"figures/{name}.png" in (Path(check.__file__).parent / "README.md").read_text()


@pytest.mark.slow
def test_every_statement_holds_and_every_sabotage_is_noticed():
    """The real check, with each closed form sabotaged in turn on the same measurements."""
    measured = {statement: statement.measure(Effort(seed=1)) for statement in check.STATEMENTS}
    assert all(row.holds for statement, values in measured.items() for row in statement.rows(values))
    for name in CLOSED_FORMS:
        with sabotaged(name):
            assert not all(row.holds for statement, values in measured.items() for row in statement.rows(values)), name
