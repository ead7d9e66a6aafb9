import numpy as np
import pytest
from scipy import stats

from rmft_jax.statistics.bootstrap import (
    frequency_interval,
    hierarchical_interval,
    holm,
    mean_interval,
    paired_difference,
    resample,
    t_interval,
)


def test_the_bootstrap_interval_of_a_mean_has_the_width_of_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(2500, 2)).astype(np.float32)
    low, high = mean_interval(values)
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2.0 / 50, rtol=0.08)
    np.testing.assert_allclose((low + high) / 2, values.mean(0), atol=0.01)


def test_columns_of_the_bootstrap_stay_paired():
    noise = np.random.default_rng(0).normal(size=(400, 1))
    low, high = mean_interval(np.concatenate([noise, noise + 1.0], axis=1))
    np.testing.assert_allclose(low[1] - low[0], 1.0, atol=1e-9)
    np.testing.assert_allclose(high[1] - high[0], 1.0, atol=1e-9)


def test_resamples_are_weights_of_sum_one_in_batches():
    shapes = []

    def statistic(weights):
        shapes.append(weights.shape)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0)
        return weights[:, 0] * 3000

    drawn = resample(statistic, 3000, num_resamples=2000)
    assert drawn.shape == (2000,)
    assert shapes == [(1000, 3000)] * 2
    # How often one row is drawn: Poisson of mean 1, all but.
    assert abs(drawn.mean() - 1) < 0.1
    assert abs(drawn.var() - 1) < 0.15


def test_a_paired_difference_is_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(1)
    scenario = rng.normal(0.0, 10.0, size=1600)
    first, second = scenario + rng.normal(1.0, 0.3, size=1600), scenario
    mean, low, high = paired_difference(first, second)
    assert mean == pytest.approx(np.mean(first - second))
    assert low < mean < high
    # Pairing takes out what the scenarios have in common.
    assert high - low == pytest.approx(2 * 1.96 * 0.3 / 40, rel=0.15)
    assert paired_difference(second, first).mean == pytest.approx(-mean)
    assert paired_difference(first, first) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"got shapes \(1600,\) and \(800,\), need the same scenarios"):
        paired_difference(first, second[:800])


def test_students_interval_leaves_out_what_is_nan():
    values = np.random.default_rng(0).normal(size=(2, 5, 3))
    values[0, 3:, 0] = values[1, 1:, 2] = values[1, :, 1] = np.nan
    found = t_interval(values, axis=1)
    for place in np.ndindex(2, 3):
        known = values[place[0], :, place[1]]
        known = known[np.isfinite(known)]
        expected = (np.nan, np.nan)
        if len(known) > 1:
            expected = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
        np.testing.assert_allclose([found.low[place], found.high[place]], expected)
    low, high = t_interval(np.asarray([1.0, 2.0, 6.0]))
    np.testing.assert_allclose([low, high], stats.t.interval(0.95, 2, 3.0, stats.sem([1, 2, 6])))
    assert np.isnan(t_interval(np.ones((1, 2)))).all()


def test_the_interval_of_a_frequency_solves_its_quadratic():
    frequency = np.asarray([0.0, 0.02, 0.3, 1.0])
    low, high = frequency_interval(frequency, 50)
    # The bounds p with |p - f| = z sqrt(p (1 - p) / n).
    np.testing.assert_allclose(1.959964 * np.sqrt(low[1:] * (1 - low[1:]) / 50), frequency[1:] - low[1:], rtol=1e-6)
    np.testing.assert_allclose(1.959964 * np.sqrt(high[:3] * (1 - high[:3]) / 50), high[:3] - frequency[:3], rtol=1e-6)
    assert low[0] == 0
    assert high[-1] == 1
    assert high[0] > 0


@pytest.mark.slow
def test_the_bootstrap_interval_covers_at_its_nominal_rate():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(400):
        low, high = mean_interval(rng.exponential(size=200), num_resamples=400, seed=seed)
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / 400 <= 0.975


def test_holm_rejects_what_the_slow_procedure_does():
    rng = np.random.default_rng(0)
    for _ in range(50):
        given = {f"h{i}": float(p) for i, p in enumerate(rng.beta(0.3, 3, size=rng.integers(1, 8)))}
        left, rejected = dict(given), set()
        while left and min(left.values()) <= 0.05 / len(left):
            smallest = min(left, key=left.__getitem__)
            rejected.add(smallest)
            del left[smallest]
        assert holm(given) == rejected
    assert holm({"a": 0.02, "b": 0.04}) == {"a", "b"}
    assert holm({"a": 0.03, "b": 0.04}) == set()
    assert holm({"a": float("nan"), "b": 0.01}) == {"b"}
    assert holm({}) == set()


def test_the_hierarchical_interval_has_both_sources():
    """Many groups: normal, with the variance between groups and within them."""
    rng = np.random.default_rng(1)
    groups = rng.normal(3.0, 2.0, size=(400, 2))
    for error in (0.0, 3.0):
        low, high = hierarchical_interval(groups, np.full(groups.shape, error), num_resamples=8000)
        expected = 1.96 * np.sqrt((groups.var(axis=0) + error**2) / 400)
        np.testing.assert_allclose((high - low) / 2, expected, rtol=0.05)
    known = np.asarray([[1.0, np.nan], [3.0, np.nan]])
    low, high = hierarchical_interval(known, np.zeros((2, 2)))
    assert (low[0], high[0]) == (1.0, 3.0)
    assert np.isnan([low[1], high[1]]).all()
    missing = np.asarray([1.0, np.nan, 3.0])
    assert hierarchical_interval(missing, np.zeros(3)) == (1.0, 3.0)
