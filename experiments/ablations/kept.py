"""How many of the L = 8 rollouts should be kept, with and without shared-prefix branching?

Fewer kept is stronger selection, and rewards luck where rollouts do not share their past. The number of gradient
steps is the same for every k; their minibatches grow with it. The full form goes up to k = L, which selects nothing.

    python -m experiments.ablations.kept [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep

QUESTION = common.Question(
    name="kept",
    quick=Sweep(
        "quickstart",
        grid={"k": [1, 2, 4], "branching": ["none", "uniform"], "seed": common.SEEDS},
        override=common.QUICK,
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"k": [1, 2, 4, 6, 8], "branching": ["none", "uniform"], "seed": common.SEEDS},
        override=without(common.FULL, "k", "branching"),
        baselines=common.BANDIT_BASELINES,
    ),
    figures={"": ("sweep", {"by": "k", "baselines": ["greedy", "thompson"]})},
    rows="k",
    columns="branching",
    base={"k": 2, "branching": "uniform"},
    baselines=["greedy", "thompson"],
)

if __name__ == "__main__":
    common.main(QUESTION)
