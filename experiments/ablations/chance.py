"""How much chance should selection by advantage have?

With a `selection_temperature` of 0 the highest advantages are kept, which may be those of decisions that seldom gain
much; the higher it is, the more often lower ones are kept in their place. On two arms and on five, with the network and
the selection of `mab`, on four times as many test scenarios as elsewhere, because regrets of two arms differ by little.

    python -m experiments.ablations.chance [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep
from rmft_jax.config import Value

TEMPERATURES = [0.0, 0.25, 0.5, 1.0, 2.0]
BASELINES = ("gittins", "posterior_index", "thompson")


def _question(name: str, num_arms: int, num_iterations: int) -> common.Question:
    full: dict[str, Value] = {"num_iterations": num_iterations, "num_test_scenarios": 16384}
    grid = {"selection_temperature": TEMPERATURES, "seed": common.SEEDS}
    return common.Question(
        name=name,
        quick=Sweep(
            "mab",
            grid=grid,
            override=without(common.QUICK, "num_arms") | {"num_arms": num_arms, "num_iterations": 20},
            baselines=BASELINES,
        ),
        full=Sweep("mab", grid=grid, override=full | {"num_arms": num_arms}, baselines=BASELINES),
        figures={"": ("sweep", {"by": "selection_temperature", "baselines": ["gittins", "posterior_index"]})},
        rows="selection_temperature",
        base={"selection_temperature": 0.0},
    )


TWO_ARMS = _question("chance_k2", num_arms=2, num_iterations=200)
FIVE_ARMS = _question("chance_k5", num_arms=5, num_iterations=100)

if __name__ == "__main__":
    common.main(TWO_ARMS, FIVE_ARMS)
