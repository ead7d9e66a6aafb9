"""Regret over trained horizons: the laws that are fitted to it, and the figure of them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from rmft_jax.config import ConfigError
from rmft_jax.plotting import plot_growth, plot_regret
from rmft_jax.statistics.bootstrap import t_interval
from rmft_jax.statistics.horizons import horizon_growth
from sweep_data import made_sweep

HORIZONS = np.asarray([25.0, 50.0, 100.0, 200.0])


def finals(per_seed: list[np.ndarray]) -> xr.DataArray:
    return xr.DataArray(np.stack(per_seed), {"seed": np.arange(len(per_seed)), "horizon": HORIZONS})


def test_a_power_is_found_and_told_from_a_logarithm():
    found = horizon_growth(finals([c * HORIZONS**0.6 for c in (0.9, 1.0, 1.1)]))
    assert found.exponent.value == pytest.approx(0.6)
    assert (found.exponent.low, found.exponent.high) == pytest.approx((0.6, 0.6))
    assert found.power_misfit == pytest.approx(0, abs=1e-9)
    assert found.log_misfit > 0.5
    np.testing.assert_allclose(found.power(HORIZONS), HORIZONS**0.6)
    assert found.num_seeds == 3


def test_a_logarithm_is_found_and_told_from_a_power():
    found = horizon_growth(finals([a + 2.0 * np.log(HORIZONS) for a in (0.5, 1.5)]))
    assert (found.slope.value, found.intercept) == pytest.approx((2.0, 1.0))
    assert found.log_misfit == pytest.approx(0, abs=1e-9)
    assert found.power_misfit > 0.05
    np.testing.assert_allclose(found.logarithm(HORIZONS), 1 + 2 * np.log(HORIZONS))


def test_intervals_are_over_the_fits_of_seeds():
    rng = np.random.default_rng(0)
    curves = [HORIZONS ** rng.normal(0.5, 0.1) for _ in range(4)]
    found = horizon_growth(finals(curves))
    slopes = np.asarray([np.polyfit(np.log(HORIZONS), np.log(curve), 1)[0] for curve in curves])
    low, high = t_interval(slopes)
    assert found.exponent.high - found.exponent.low == pytest.approx(high - low)
    assert found.exponent.low < found.exponent.value < found.exponent.high


def test_what_did_not_finish_does_not_count():
    whole = [HORIZONS**0.5, 2 * HORIZONS**0.5]
    broken = np.where(HORIZONS == 50, np.nan, HORIZONS)
    np.testing.assert_equal(horizon_growth(finals([*whole, broken, -HORIZONS])), horizon_growth(finals(whole)))
    alone = horizon_growth(finals(whole[:1]))
    assert alone.exponent.value == pytest.approx(0.5)
    assert np.isnan(alone.exponent.low)
    with pytest.raises(ConfigError, match="got no seed with positive regret at every horizon"):
        horizon_growth(finals([broken]))


def test_what_is_no_growth_is_refused():
    with pytest.raises(ConfigError, match="got 1 horizon, need at least 2"):
        horizon_growth(finals([HORIZONS]).isel(horizon=[0]))
    with pytest.raises(ConfigError, match="got regret over num_arms, horizon, need horizon and seed"):
        horizon_growth(xr.DataArray(np.ones((2, 4)), {"num_arms": [2, 3], "horizon": HORIZONS}))
    with pytest.raises(ConfigError, match="got regret over seed, need horizon and seed"):
        horizon_growth(xr.DataArray(np.ones(3), dims="seed"))


def test_the_figure_states_the_exponent_that_was_fitted():
    sweep = made_sweep({"horizon": [25, 50, 100], "seed": [0, 1, 2]})
    figure: Any = plot_growth(sweep, baselines=["thompson"])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    beta = horizon_growth(sweep["final_regret"]).exponent.value
    assert labels[0].startswith(f"RMFT Transformer, β = {beta:.2f} [")
    assert figure.axes[0].get_xlabel() == "trained horizon T"
    assert {row["agent"] for row in figure.rows} == {"rmft", "thompson"}
    assert plot_growth(sweep.assign_attrs(trained_horizon=50)).axes[0].get_xlabel() == "horizon T"


def test_one_horizon_does_not_grow():
    with pytest.raises(ConfigError, match="got a sweep of 1 horizon, need several"):
        plot_growth(made_sweep({"horizon": [25], "seed": [0, 1]}))


def test_figures_go_into_axes_of_one_s_own():
    sweep = made_sweep({"horizon": [25, 50], "seed": [0, 1, 2]})
    figure, (left, right) = plt.subplots(1, 2)
    assert plot_growth(sweep, ax=left) is figure
    assert plot_regret(sweep, select={"horizon": 50}, ax=right) is figure
    assert (left.get_xlabel(), right.get_xlabel()) == ("trained horizon T", "round")
    assert len(right.get_lines()) >= 2
    assert not figure.legends
    assert [text for text in right.get_legend_handles_labels()[1] if "RMFT" in text]
    with pytest.raises(ConfigError, match="got ax for panels horizon = 25, horizon = 50, need a single panel"):
        plot_regret(sweep, by="horizon", ax=left)
    plt.close(figure)


def test_a_figure_says_which_seeds_its_fits_are_without():
    sweep = made_sweep({"horizon": [25, 50, 100], "seed": [0, 1, 2]})
    figure: Any = plot_growth(sweep)
    assert "are fitted" not in figure.caption
    regret = sweep["final_regret"].copy()
    regret[{"horizon": 1, "seed": 2}] = -0.1
    figure = plot_growth(sweep.assign(final_regret=regret))
    assert "only seeds with a positive number at every horizon are fitted, of rmft not all" in figure.caption
    fitted = {row["fitted_seeds"] for row in figure.rows if row["agent"] == "rmft"}
    assert fitted == {2}
