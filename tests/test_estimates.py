import numpy as np
import pytest
import xarray as xr
from scipy import stats

from evaluations import made_evaluation
from rmft_jax.config import ConfigError
from rmft_jax.statistics import estimates, tables
from rmft_jax.statistics.bootstrap import t_interval
from sweep_data import made_sweep

SWEEP = made_sweep()


def test_intervals_are_over_seeds_for_what_is_trained_and_over_scenarios_for_the_rest():
    found = estimates.estimates(SWEEP, "final_regret")
    values = SWEEP["final_regret"].sel(horizon=50, num_arms=5).to_numpy()
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    one = found["rmft"].sel(horizon=50, num_arms=5)
    np.testing.assert_allclose([one["mean"], one["low"], one["high"]], [values.mean(), low, high])
    assert (str(one["interval"].values), int(one["num_seeds"])) == ("Student-t over 3 seeds", 3)

    errors = SWEEP["baseline_final_regret_sem"].sel(horizon=50, num_arms=5, agent="ucb1").to_numpy()
    other = found["ucb1"].sel(horizon=50, num_arms=5)
    np.testing.assert_allclose(other["high"] - other["mean"], 1.96 * np.sqrt((errors**2).sum()) / 3)
    assert str(other["interval"].values) == "1.96 standard errors over scenarios"
    assert set(found) == {"rmft", *SWEEP["agent"].values}


def test_one_seed_has_the_interval_of_its_scenarios_whether_or_not_it_is_a_dimension():
    single = made_sweep({"horizon": [25, 50], "seed": [2]})
    for dataset in (single, single.isel(seed=0), estimates.select(single, {"seed": 2})):
        one = estimates.estimate(dataset, "final_regret").isel(horizon=1)
        np.testing.assert_allclose(one["high"] - one["mean"], 1.96 * float(single["final_regret_sem"][1, 0]))
        exponent = estimates.estimate(dataset, "exponent").isel(horizon=1)
        np.testing.assert_allclose([exponent["low"], exponent["high"]], [0.4, 0.6])
        assert str(exponent["interval"].values) == "bootstrap over scenarios"
    shares = estimates.estimate(single, "suff_fail_freq")
    assert np.isnan(shares["low"]).all()
    assert set(np.unique(shares["interval"].astype(str))) == {"none"}


def test_failed_seeds_do_not_count():
    cells = np.arange(27).reshape(3, 3, 3)
    dataset = made_sweep(failed=[cells[0, 0, 0], cells[1, 1, 0], cells[1, 1, 1], *cells[2, 2]])
    found = estimates.estimate(dataset, "final_regret")
    np.testing.assert_array_equal(found["num_seeds"], [[2, 3, 3], [3, 1, 3], [3, 3, 0]])
    assert list(found["interval"].values[[0, 1, 2], [0, 1, 2]]) == [
        "Student-t over 2 seeds, which are too few: 12.7 standard errors to each side",
        "1.96 standard errors over scenarios",
        "none",
    ]
    np.testing.assert_allclose(found["mean"][0, 0], SWEEP["final_regret"][0, 0, 1:].mean())
    assert np.isnan(found["mean"][2, 2])
    assert np.isnan(found["high"][2, 2])


def test_the_hierarchical_bootstrap_is_chosen_by_name():
    two = made_sweep({"horizon": [25, 50], "seed": [0, 1]})
    student, other = (
        estimates.estimate(estimates.with_intervals(two, name), "final_regret") for name in ("student", "hierarchical")
    )
    np.testing.assert_array_equal(student["mean"], other["mean"])
    widths = [(one["high"] - one["low"]).to_numpy() for one in (student, other)]
    assert (widths[1] < widths[0] / 3).all()
    assert (widths[1] > 1.96 * two["final_regret_sem"].mean("seed")).all()
    assert set(other["interval"].values) == {"hierarchical bootstrap over 2 seeds and their scenarios"}
    np.testing.assert_array_equal(
        estimates.estimate(estimates.with_intervals(two, "hierarchical"), "final_regret")["low"], other["low"]
    )
    with pytest.raises(ConfigError, match=r"got intervals='normal', need one of student, hierarchical"):
        estimates.with_intervals(two, "normal")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"got intervals='hierarchical' of a single run, need a sweep"):
        estimates.with_intervals(made_evaluation(), "hierarchical")
    slope = estimates.estimate(estimates.with_intervals(two, "hierarchical"), "exponent")
    assert set(slope["interval"].values) == {"bootstrap over 2 seeds"}  # Without standard errors over scenarios.


def test_no_interval_of_a_regret_that_cannot_be_negative_is():
    wide = made_sweep({"seed": [0, 1]})
    wide["final_regret"] = ("seed", np.asarray([1.0, 9.0]))
    assert t_interval(wide["final_regret"].to_numpy()).low < -10
    for kind, low in (("pseudo", 0.0), ("dynamic", 0.0), ("swap", 0.0)):
        assert estimates.estimate(wide.assign_attrs(regret=kind), "final_regret")["low"] == low
    for kind in ("static", "realized"):
        assert estimates.estimate(wide.assign_attrs(regret=kind), "final_regret")["low"] < -10


def test_a_selection_fixes_a_dimension_or_thins_it():
    assert estimates.open_dims(estimates.select(SWEEP, {"num_arms": "5"})) == ["horizon"]
    thin = estimates.select(SWEEP, {"num_arms": ["10", 2.0], "seed": 1})
    assert list(thin["num_arms"].values) == [10, 2]
    assert estimates.sweep_dims(thin) == ["horizon", "num_arms"]
    assert "seed" not in thin["final_regret"].dims
    zipped = made_sweep({"horizon": [25, 50]}).assign_coords(branching=("horizon", ["none", "uniform"]))
    assert float(estimates.select(zipped, {"branching": "Uniform"})["horizon"]) == 50
    flagged = made_sweep({"shared": [True, False]})
    assert not bool(estimates.select(flagged, {"shared": "false"})["shared"])


def test_scattered_cells_are_named_by_what_they_vary():
    cells = xr.Dataset(
        {"final_regret": ("cell", [1.0, 2.0])}, coords={"k": ("cell", [1, 2]), "width": ("cell", [8, 16])}
    )  # fmt: skip
    assert list(estimates.select(cells, {})["cell"].values) == ["k=1,width=8", "k=2,width=16"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"nope": 1}, "got a selection of 'nope', need one of horizon, num_arms, seed"),
        ({"agent": "ucb1"}, "got a selection of 'agent'"),
        ({"num_arms": 7}, "got num_arms=7, need one of 2, 5, 10; try num_arms=10"),
        ({"num_arms": [5, 7]}, "got num_arms=7"),
        ({"num_arms": "many"}, "got num_arms=many"),
    ],
)
def test_bad_selections_are_refused(choice, message):
    with pytest.raises(ConfigError) as error:
        estimates.select(SWEEP, choice)
    assert message in str(error.value)


def test_open_dimensions_are_named_with_their_values():
    message = r"got several values of num_arms \(2, 5, 10\), need one of each; try select=\{'num_arms': 10\}"
    with pytest.raises(ConfigError, match=message):
        estimates.require_closed(SWEEP, ["horizon"])
    with pytest.raises(ConfigError, match="got dimension 'k', need one of horizon, num_arms"):
        estimates.require_closed(SWEEP, ["k"])
    assert estimates.sweep_dims(estimates.require_closed(made_sweep({"horizon": [9], "seed": [0, 1]}), [])) == []


def test_whole_numbers_are_no_other_ones_and_no_place_is_taken_twice():
    """Dates are seeds that differ in their last digits only."""
    seeds = [20250101, 20250102, 20250103]
    dataset = made_sweep({"seed": seeds})
    assert estimates.select(dataset, {"seed": "20250101"})["final_regret"].shape == ()
    assert estimates.select(dataset, {"seed": ["20250101", 20250102, 20250101]})["seed"].values.tolist() == seeds[:2]
    with pytest.raises(ConfigError, match="got seed=20250104, need one of"):
        estimates.select(dataset, {"seed": 20250104})


def test_a_value_is_selected_as_it_is_printed():
    sizes = np.logspace(-3, -2, 4).tolist()
    dataset = made_sweep({"step_size": sizes, "seed": [0, 1]})
    for size in sizes:
        for wanted in (size, estimates.text_of(size), str(size)):
            assert estimates.select(dataset, {"step_size": wanted})["step_size"].item() == size


def test_seeds_that_vary_with_something_else_are_not_averaged():
    """As in a search at random, or where columns of a `[zip]` walk together."""
    dataset = made_sweep({"step_size": [1e-3, 2e-3, 4e-3]}).assign_coords(seed=("step_size", [5, 6, 7]))
    found = estimates.estimate(dataset, "final_regret")
    assert found["mean"].dims == ("step_size",)
    assert (found["num_seeds"] == 1).all()
    text = tables.table(dataset, "step_size", format="markdown")
    assert "over scenarios" in text
    assert "Student" not in text


def test_labels_of_scattered_cells_are_proposed_in_words_that_can_be_given():
    assert estimates.selection_of("zip", "environment=b,num_arms=5") == "environment=b,num_arms=5"
    assert estimates.selection_of("run", "lr=3") == "run=lr=3"
    assert estimates.selection_of("horizon", np.int64(25)) == "horizon=25"
