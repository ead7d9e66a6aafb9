"""What was computed on a fixed day is computed today, but for rounding.

Bit for bit, two versions of the package can be compared by their arrays from `golden.py --full`. The golden results
here must hold on other processors and with other programs, whose sums round differently. Stored anew since that day:
what draws Beta posteriors, projects onto the simplex or has a token per arm, and evaluations, which have more agents.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

import golden
import golden_cases

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="golden results are those of CPUs")

# Of the cases that train, a few that differ most; all others take minutes.
FAST = ("preset/single-layer", "bandit/selection-advantage", "bandit/reinforce", "full/ball")
# Relative and absolute. Adam moves a parameter by up to 2e-3 in every one of its dozen updates, and a wrong order of
# random keys was seen to change parameters by 1e-2; the rounding of float32 sums is about 1e-6 of what they hold.
CLOSE = (2e-4, 1e-5)
# A decision that was almost a tie may fall otherwise, after which the scenario goes another way: of 64, in this many.
OTHER_SCENARIOS = 3
# What that makes of a mean over scenarios, whose regrets are at most about one apart.
CLOSE_MEANS = (1e-3, OTHER_SCENARIOS / 64)


@pytest.fixture(scope="module")
def stored() -> golden.Arrays:
    with np.load(Path(__file__).with_name("golden.npz")) as file:
        return dict(file)


def today(name: str, stored: golden.Arrays) -> tuple[golden.Arrays, golden.Arrays]:
    """The arrays of a case as computed now and as stored, by the rest of their names."""
    found = golden.compute(name)
    expected = {key: array for key, array in stored.items() if key.startswith(f"{name}/")}
    assert expected.keys() <= found.keys()
    cut = len(name) + 1
    return {key[cut:]: found[key] for key in expected}, {key[cut:]: array for key, array in expected.items()}


def assert_close(
    found: golden.Arrays, expected: golden.Arrays, tolerance: tuple[float, float], beginning: str = ""
) -> None:
    """All arrays whose names begin so."""
    for name, array in expected.items():
        if name.startswith(beginning):
            np.testing.assert_allclose(found[name], array, *tolerance, err_msg=name)


def assert_same_play(found: golden.Arrays, expected: golden.Arrays) -> None:
    """Every agent plays the same in nearly all scenarios, and what is measured there is the same."""
    np.testing.assert_allclose(found["mean_rewards"], expected["mean_rewards"], *CLOSE)
    same = np.ones(expected["final_regret"].shape, bool)
    if "action" in expected:  # Play in a ball is no arm.
        same = (found["action"] == expected["action"]).all(axis=-1)
    assert (np.sum(~same, axis=-1) <= OTHER_SCENARIOS).all()
    for name in expected.keys() - {"mean_rewards"}:
        np.testing.assert_allclose(found[name][same], expected[name][same], *CLOSE, err_msg=name)


def part(arrays: golden.Arrays, name: str) -> golden.Arrays:
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}


def test_every_case_is_stored(stored):
    assert {key.rpartition("/")[0] for key in stored} >= {*golden_cases.ITERATIONS, *golden_cases.EVALUATIONS, "sweep"}
    for name, array in stored.items():
        assert not np.isinf(array).any(), name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in golden_cases.ITERATIONS]
)
def test_three_iterations(stored, name):
    assert_close(*today(name, stored), CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_cases.EVALUATIONS)
def test_evaluation(stored, name):
    assert_same_play(*today(name, stored))


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_cases.RUNS)
def test_run(stored, name):
    found, expected = today(name, stored)
    assert_close(found, expected, CLOSE, "metrics/")
    assert_same_play(part(found, "evaluation"), part(expected, "evaluation"))


@pytest.mark.slow
def test_sweep(stored):
    found, expected = today("sweep", stored)
    assert_close(found, expected, CLOSE_MEANS)
    for name in ("training_regret", "selected_regret", "loss", "grad_norm", "entropy"):
        assert_close(found, expected, CLOSE, name)
