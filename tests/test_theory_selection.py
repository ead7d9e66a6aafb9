"""Theorem C: closed forms against slow simulation and enumeration, the tabular policy, and the rows' sabotage."""

import itertools
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.rmft import iteration, play
from rmft_jax.method.state import init, starting_from
from rmft_jax.problems import Problem, Stationary
from rmft_jax.statistics.drift import entropy_loss, explaining_step, heterozygosity
from theory import drift, survivorship, tabular
from theory.lemma import order_statistic_mean
from theory.statement import sabotaged
from theory.survivorship import LONG, LONGER, SHORT, WAYS, Instance

RNG = np.random.default_rng(0)
SIGNS = np.array([1.0, -1.0, 0.5, -0.5, 0.0, 0.0, 0.25, -0.25])
SURVIVORSHIP_NAMES = ("order_statistic_mean", "weight_variance", "switching", "better_among_kept")
SURVIVORSHIP_ERRORS = [
    *(f"{name}{sign}" for name in SURVIVORSHIP_NAMES for sign in "+-"),
    "survivors_are_typical",
    "branching_keeps_the_tilt",
]
DRIFT_NAMES = ("entropy_loss", "remaining_heterozygosity", "loss_probability", "survival_probability")
DRIFT_ERRORS = [
    *(f"{name}{sign}" for name in DRIFT_NAMES for sign in "+-"),
    "drift_by_scenario",
    "loss_as_by_diffusion",
]


def ideal_survivorship() -> survivorship.Measured:
    """What is predicted, with a little noise that cancels."""
    s = survivorship
    noise = 1e-4 * SIGNS
    shares, visits = s.first_arm_shares(SHORT.horizon), 1000.0
    size = np.sqrt(shares * (1 - shares) / visits)
    failures = [s.switching(Instance(LONG.horizon, f + 1), "plain") for f in range(5)]
    return s.Measured(
        slope=s.order_statistic_mean(s.ROLLOUTS, s.KEPT) + noise,
        variance=s.weight_variance(s.ROLLOUTS, s.KEPT) + noise,
        shares=shares + size * np.random.default_rng(1).permuted(np.tile(SIGNS, (len(shares), 1)), axis=1).T,
        visits=np.full((8, len(shares)), visits),
        switched={name: s.switching(*run) + noise for name, run in s.RUNS.items()},
        better={name: s.better_among_kept(*run) + noise for name, run in s.RUNS.items()},
        by_failures=np.array(failures) + noise[:, None],
    )


def ideal_drift() -> drift.Measured:
    """What is predicted, with a little noise that cancels."""
    d, noise = drift, 1e-5 * SIGNS
    diversity = {
        name: np.array([d.remaining_heterozygosity(setting, n) for n in range(setting.num_iterations + 1)])
        + noise[:, None]
        for name, setting in d.SHRINKING.items()
    }
    fixed = np.repeat(np.eye(3), [round(20_000 * p) for p in d.SHRINKING[d.FIXATION].p0], axis=0)
    lost = {}
    for name, setting in d.CONTESTS.items():
        number = round(100_000 * (1 - d.survival_probability(setting)))
        lost[name] = np.zeros((100_000, setting.num_iterations + 1))
        lost[name][:number, 1:] = 1
    return d.Measured(diversity, fixed, d.entropy_loss(d.SHRINKING[d.ENTROPY]) + noise / 10, lost)


STATEMENTS = {
    "survivorship": (survivorship.STATEMENT, ideal_survivorship, SURVIVORSHIP_ERRORS),
    "drift": (drift.STATEMENT, ideal_drift, DRIFT_ERRORS),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_ideal_measurements_make_every_row_hold(name):
    statement, ideal, _ = STATEMENTS[name]
    assert statement.name == name
    assert [row.quantity for row in statement.rows(ideal()) if not row.holds] == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_planted_error_turns_a_row_red_and_every_row_has_one(name):
    statement, ideal, errors = STATEMENTS[name]
    measured, noticed = ideal(), set()
    for error in errors:
        with sabotaged(error):
            red = {row for row, line in enumerate(statement.rows(measured)) if not line.holds}
        assert red, error
        noticed |= red
    assert noticed == set(range(len(statement.rows(measured))))


@pytest.mark.parametrize("name", STATEMENTS)
def test_figures_draw(name):
    statement, ideal, _ = STATEMENTS[name]
    figure = statement.draw(ideal())
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel()
    plt.close(figure)


def kept_of(bad: np.ndarray, k: int = 2) -> np.ndarray:
    """Which of the rollouts `[M, L]` are kept, ties at random."""
    order = np.argsort(bad + RNG.random(bad.shape), axis=1)
    return np.argsort(order, axis=1) < k


@pytest.mark.parametrize(("instance", "tolerance"), [(SHORT, 0.03), (LONG, 0.04), (LONGER, 0.06)])
@pytest.mark.parametrize("own", [None, 0])
def test_odds_after_failures_agree_with_a_simulation_of_their_scenarios(instance, tolerance, own):
    """Rollout 0 goes through the failures; the others play anything, or after branching what begins there."""
    count, T, f = 400_000, instance.horizon, instance.failures
    better = RNG.random(count) < 1 / (f + 2)  # Whether the failed arm is the better one, given the failures.
    rounds = T - f if own == 0 else T
    bad = RNG.binomial(rounds, 0.5, (count, 8))
    switched = RNG.random(count) < 0.5
    past = 0 if own == 0 else f * ~better
    bad[:, 0] = past + (better == switched) + RNG.binomial(T - f - 1, 0.5, count)
    kept = kept_of(bad)[:, 0]
    odds = (kept & switched).sum() / (kept & ~switched).sum()
    way = "branching" if own == 0 else "plain"
    assert odds == pytest.approx(survivorship.odds(instance, way), rel=tolerance)
    assert better[kept].mean() == pytest.approx(survivorship.better_among_kept(instance, way), abs=0.02)
    assert kept.mean() * 4 == pytest.approx(
        survivorship.kept_decisions(instance, f if own is None else 0).sum(), rel=0.03
    )


def test_the_exact_instance_is_that_of_the_page():
    plain, branching = ([survivorship.odds(i, way) for i in (LONG, LONGER)] for way in ("plain", "branching"))
    assert plain == pytest.approx([0.956, 1.019], abs=1e-3)
    assert branching == pytest.approx([1.678, 1.525], abs=1e-3)
    assert survivorship.better_among_kept(LONG, "plain") == pytest.approx(0.773, abs=1e-3)
    omega = survivorship.later_weights(10, 4)
    assert (omega[0] - omega[1]) / (omega[3] - omega[4]) == pytest.approx(4.608, abs=1e-3)


def test_branching_helps_wherever_the_failed_arm_is_likely_the_worse_one():
    for T in range(2, 12):
        for f in range(1, T):
            odds = [survivorship.odds(Instance(T, f), way) for way in WAYS]
            assert odds[2] > 1
            assert odds[0] < odds[1] < odds[2]


@pytest.mark.parametrize("num_fair", [1, 4, 7])
def test_rank_weights_agree_with_the_rank_of_a_uniform_number(num_fair):
    """`w(u)` averaged over the ranks that equal rollouts share, and 1 on average."""
    weights = survivorship.rank_weights(num_fair)
    chances = np.array([math.comb(num_fair, j) for j in range(num_fair + 1)]) / 2**num_fair
    edges = np.concatenate([[0.0], np.cumsum(chances)])
    u = (np.arange(200_000) + 0.5) / 200_000
    w = 4 * ((1 - u) ** 7 + 7 * u * (1 - u) ** 6)
    expected = [w[(u >= low) & (u < high)].mean() for low, high in itertools.pairwise(edges)]
    assert weights == pytest.approx(expected, abs=1e-3)
    assert chances @ weights == pytest.approx(1)


def test_slope_and_variance_of_the_rank_weight_are_known_and_agree_with_simulation():
    assert order_statistic_mean(2, 1) == pytest.approx(1 / math.sqrt(math.pi))
    assert survivorship.weight_variance(2, 1) == pytest.approx(1 / 3)  # w = 2 (1 - u).
    u = RNG.random(200_000)
    w = 4 * ((1 - u) ** 7 + 7 * u * (1 - u) ** 6)
    assert survivorship.weight_variance(8, 2) == pytest.approx(w.var(), rel=0.02)
    assert survivorship.correlation(8, 2) == pytest.approx(0.871, abs=5e-4)
    best = np.sort(RNG.normal(size=(100_000, 8)), axis=1)[:, -2:]
    assert order_statistic_mean(8, 2) == pytest.approx(best.mean(), rel=0.01)


def test_the_fit_of_all_cells_agrees_with_a_simulation():
    """Three rounds, played and selected in NumPy."""
    T, count = 3, 50_000
    means = RNG.random((count, 1, 2))
    actions = RNG.integers(0, 2, (count, 8, T))
    rewards = RNG.random((count, 8, T)) < np.take_along_axis(np.repeat(means, 8, 1), actions, axis=2)
    kept = kept_of((actions != np.argmax(means, axis=2)[..., None]).sum(-1))
    actions, rewards = actions[kept], rewards[kept].astype(int)
    shares = survivorship.first_arm_shares(T)
    seen = {}
    for t in range(T):
        digits = np.stack(
            [((actions[:, :t] == arm) & (rewards[:, :t] == r)).sum(1) for r in (0, 1) for arm in (0, 1)], axis=1
        )
        for digit in np.unique(digits, axis=0):
            seen[tuple(map(int, digit))] = actions[(digits == digit).all(1), t] == 0
    for digit, share in zip(survivorship._digits(T), shares, strict=True):
        values = seen[digit]
        assert abs(values.mean() - share) < 4.5 * values.std() / math.sqrt(len(values))


TINY = survivorship.SETTING.replace(horizon=3, num_scenarios=64, num_rollouts=4, k=2, fit_step=0.5, rollout_block=0)


def test_the_table_plays_what_it_says():
    table = np.zeros((3**4, 2), np.float32) + np.array([1, 0], np.float32)
    second = [
        int(tabular.cell_of(jnp.array([[0, 0], [1, 0]]), 3)),
        int(tabular.cell_of(jnp.array([[1, 0], [0, 0]]), 3)),
    ]
    table[second[0]] = [0.25, 0.75]  # After a success of arm 0; after its failure it plays arm 1.
    table[second[1]] = [0, 1]
    agent = tabular.TabularAgent(jnp.array(table), horizon=3)
    problem = Problem(Stationary(num_arms=2, feedback="bandit"), 3)
    played = play_scenarios(agent, problem, jax.random.key(0), 4000)
    actions, rewards = np.asarray(played.actions), np.asarray(played.rewards)
    assert (actions[:, 0] == 0).all()
    won = rewards[:, 0] == 1
    assert (actions[~won, 1] == 1).all()
    assert actions[won, 1].mean() == pytest.approx(0.75, abs=0.05)
    np.testing.assert_allclose(np.asarray(played.probabilities)[won, 1], [[0.25, 0.75]] * won.sum(), rtol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[0], played)
    np.testing.assert_allclose(np.exp(agent.outputs(one)), one.probabilities, rtol=1e-5)


def test_cells_are_those_of_what_was_seen_before_and_of_nothing_else():
    digits = survivorship._digits(3)
    cells = [int(tabular.cell_of(jnp.array(digit).reshape(2, 2), 3)) for digit in digits]
    assert len(set(cells)) == len(digits) == 1 + 4 + 10


@pytest.mark.parametrize("branching", ["none", "uniform"])
def test_the_fit_is_the_formula_in_the_package_s_own_iteration(branching):
    """`p + step (p_hat - p)` of the two rollouts of lowest regret in each scenario, and nothing where none was."""
    config = TINY.replace(branching=branching)
    start = init(config, jax.random.key(3))
    table = RNG.dirichlet([2.0, 2.0], 3**4).astype(np.float32)
    state = starting_from(config, start.key, {"table": jnp.array(table)})
    played = jax.tree.map(np.asarray, play(state))
    after, metrics = iteration(state)
    if branching == "none":
        means, actions = played.mean_rewards, played.actions
        regret = (means.max(-1) - np.take_along_axis(means, actions[..., None], -1)[..., 0]).sum(-1)
        counts = np.zeros_like(table)
        for m, kept in enumerate(np.argsort(regret, axis=1, kind="stable")[:, :2]):
            for rollout in kept:
                past = np.zeros((2, 2), int)
                for action, reward in zip(actions[m, rollout], played.rewards[m, rollout], strict=True):
                    counts[int(past.ravel() @ 3 ** np.arange(4)), action] += 1
                    past[int(reward), action] += 1
        visits = counts.sum(1, keepdims=True)
        expected = np.where(visits > 0, table + 0.5 * (counts / np.maximum(visits, 1) - table), table)
        np.testing.assert_allclose(after.params["table"], expected, rtol=1e-5)
        np.testing.assert_array_equal(after.opt_state.played, counts)
    assert float(after.opt_state.played.sum()) == float(after.opt_state.best.sum()) <= 64 * 2 * 3
    np.testing.assert_allclose(after.params["table"].sum(1), 1, rtol=1e-5)
    assert np.isfinite([float(metrics.loss), float(metrics.grad_norm), float(metrics.entropy)]).all()


def test_wrong_settings_of_the_table_are_refused():
    for changes in ({"fit_step": 0.0}, {"fit_step": 1.5}, {"policy": "transformer"}, {"entropy_weight": 0.01}):
        with pytest.raises(ConfigError):
            TINY.replace(**changes).validate()
    with pytest.raises(ConfigError):
        drift.SIGNAL.replace(lead=0.6).validate()


@pytest.mark.parametrize(("p0", "num_kept", "step"), [((0.5, 0.3, 0.2), 6, 1.0), ((0.9, 0.1), 20, 0.25)])
def test_heterozygosity_agrees_with_simulation(p0, num_kept, step):
    p = np.tile(p0, (50_000, 1))
    for _ in range(4):
        p = p + step * (RNG.multinomial(num_kept, p) / num_kept - p)
    left = 1 - np.sum(p**2, axis=1)
    assert abs(left.mean() - heterozygosity(np.array(p0), num_kept, 4, step)) < 4 * left.std() / math.sqrt(len(left))
    assert heterozygosity(np.array(p0), num_kept, 0, step) == pytest.approx(1 - sum(x**2 for x in p0))


def test_the_loss_of_entropy_is_its_first_order():
    """By enumeration of the binomial counts of one arm among K of equal probability."""
    for num_arms, num_kept, step in ((2, 400, 1.0), (5, 1000, 0.5), (8, 30, 0.6)):
        counts = np.arange(num_kept + 1)
        log_ways = np.array(
            [math.lgamma(num_kept + 1) - math.lgamma(c + 1) - math.lgamma(num_kept - c + 1) for c in counts]
        )
        chances = np.exp(log_ways - counts * math.log(num_arms) + (num_kept - counts) * math.log(1 - 1 / num_arms))
        p = 1 / num_arms + step * (counts / num_kept - 1 / num_arms)
        after = -num_arms * np.sum(chances * p * np.log(np.maximum(p, 1e-300)))
        assert math.log(num_arms) - after == pytest.approx(entropy_loss(num_arms, num_kept, step), rel=3e-3)


def test_the_better_arm_s_survival_agrees_with_simulation_and_its_loss_with_the_bound():
    for p0, num_kept, growth in ((0.2, 10, 0.5), (0.1, 20, 1.0), (0.25, 4, 0.1)):
        setting = drift.Contest(p0, num_kept, growth, 8)
        p, lost = np.full(50_000, p0), np.zeros(50_000, bool)
        undecided = p <= 0.5
        for _ in range(8):
            kept = p**2 + p * (1 - p) * (1 + growth)
            p = np.where(undecided, RNG.binomial(num_kept, kept) / num_kept, p)
            lost |= p == 0
            undecided &= p <= 0.5
        assert 1 - lost.mean() == pytest.approx(drift.survival_probability(setting), abs=0.01)
        forever = 1 - drift.survival_probability(setting._replace(num_iterations=10_000))
        assert forever <= drift.loss_bound(setting)


def test_bad_input_of_the_drift_statistics_is_refused():
    for arguments in ((0, 10, 1.0), (2, 0, 1.0), (2, 10, 0.0), (2, 10, 1.1), (2, 10, math.nan)):
        with pytest.raises(ConfigError):
            entropy_loss(*arguments)
    half = np.array([0.5, 0.5])
    for arguments in ((np.array([0.5, 0.6]), 10, 1), (np.array([1.5, -0.5]), 10, 1), (half, 0, 1), (half, 10, -1)):
        with pytest.raises(ConfigError):
            heterozygosity(*arguments)
    with pytest.raises(ConfigError):
        heterozygosity(half, 10, 1, step=2.0)
    assert entropy_loss(1, 10) == 0


def test_the_explaining_step_is_that_of_a_run_that_only_drifts():
    rng, step, num_kept = np.random.default_rng(0), 0.3, 200
    p, entropies = np.full((4000, 3), 1 / 3), []
    for _ in range(4):
        entropies.append(float(-np.sum(p * np.log(p), axis=1).mean()))
        p = p + step * (rng.multinomial(num_kept, p) / num_kept - p)
    assert explaining_step(np.asarray(entropies), 3, num_kept) == pytest.approx(step, rel=0.03)
    assert explaining_step(np.asarray([1.0, 1.1]), 3, num_kept) == 0.0, "nothing was lost"
    for entropy, num_arms, message in (
        ([1.0], 3, "shape"),
        ([1.0, np.nan], 3, "finite"),
        ([1.0, 0.9], 1, "num_arms=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            explaining_step(np.asarray(entropy), num_arms, num_kept)
