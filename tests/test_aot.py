"""Whole programs compiled for an H100 and a TPU v5e, neither of which is there: `make test-accelerators`."""

import pytest

from experiments.accelerators import compiled
from experiments.accelerators.targets import TARGETS

pytestmark = pytest.mark.aot

# What a device is given to do at most, a fifth above what is in `experiments/results/accelerators.json`, which
# `python -m experiments.accelerators.compiled --json experiments/results/accelerators.json` makes anew.
BOUNDS: dict[str, dict[str, int]] = {
    "h100": {"launches_per_round": 60, "launches_per_update": 240, "unknown_loops": 0},
    "v5e": {"launches_per_round": 130, "launches_per_update": 400, "unknown_loops": 0},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", compiled.PROGRAMS)
def test_a_program_compiles_stays_on_its_device_and_fits(name, target, capsys):
    found = compiled.apart(compiled.measured, name, target, {})
    with capsys.disabled():
        print(f"\n{compiled.table({'programs': {name: {target: found}}}).splitlines()[-1]}")
    assert not found["host_traffic"]
    assert found["peak_bytes"] <= TARGETS[target].memory
    over = {what: found[what] for what, most in BOUNDS[target].items() if found[what] > most}
    assert not over, f"more than {BOUNDS[target]}"
