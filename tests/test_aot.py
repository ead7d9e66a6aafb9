"""Whole programs compiled for an H100 and a TPU v5e, neither of which is there: `make test-accelerators`."""

import pytest

from experiments.aot import compiled
from experiments.aot.targets import TARGETS

pytestmark = pytest.mark.aot

# What a device is given to do at most; `experiments/results/accelerators.json` has what it is, which
# `python -m experiments.aot.compiled --json experiments/results/accelerators.json` makes anew.
# Before every pass of a loop whose trip count is unknown, a GPU's host waits for all that came before.
BOUNDS: dict[str, dict[str, int]] = {
    # Today 42 to 51 a round, 168 to 189 an update, 2,998 to 6,064 an iteration.
    "h100": {
        "launches_per_round": 60,
        "launches_per_update": 240,
        "launches_per_iteration": 7_200,
        "unknown_loops": 0,
    },
    # Today 69 to 109 a round, 187 to 398 an update, 4,643 to 12,910 an iteration; scalars and prefetching count.
    "v5e": {
        "launches_per_round": 140,
        "launches_per_update": 480,
        "launches_per_iteration": 15_000,
        "unknown_loops": 0,
    },
}
# Eight blocks of rollouts, four of an update: today 566 and 21,595, and 672 and 34,269.
IN_BLOCKS = {
    "h100": {"launches_per_update": 700, "launches_per_iteration": 26_000},
    "v5e": {"launches_per_update": 840, "launches_per_iteration": 40_000},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", compiled.PROGRAMS)
def test_a_program_compiles_stays_on_its_device_and_fits(name, target, capsys):
    found = compiled.apart(compiled.measured, name, target, {})
    with capsys.disabled():
        print(f"\n{compiled.table({'programs': {name: {target: found}}}).splitlines()[-1]}")
    assert not found["host_traffic"]
    assert found["peak_bytes"] <= TARGETS[target].memory
    bounds = BOUNDS[target] | (IN_BLOCKS[target] if "blocks" in name else {})
    over = {what: found[what] for what, most in bounds.items() if found[what] > most}
    assert not over, f"more than {bounds}"


def test_an_h100_needs_no_flag_where_tiles_fit_the_horizon():
    """The flag of the others is for compiling without a device (`targets._h100_options`)."""
    found = compiled.apart(compiled.measured, "mab", "h100", {"horizon": 64, "num_scenarios": 64})
    assert not found["options"]
