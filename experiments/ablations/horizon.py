"""How does regret at the horizon grow with the horizon that the policy is trained for?

A policy of its own for every horizon; all else is equal, the number of iterations too, so that longer horizons are
trained on more rounds. On logarithmic axes the grey line grows as `sqrt(T)`; the second figure has the curves over
rounds within each horizon, which is another exponent than that of final regrets over horizons.

    python -m experiments.ablations.horizon [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep

QUESTION = common.Question(
    name="horizon",
    quick=Sweep(
        "quickstart",
        grid={"horizon": [10, 14, 20, 28, 40], "seed": common.SEEDS},
        override=without(common.QUICK, "horizon"),
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"horizon": [10, 25, 50, 100, 200], "seed": common.SEEDS},
        override=common.FULL,
        baselines=common.BANDIT_BASELINES,
    ),
    figures={
        "": ("sweep", {"by": "horizon"}),
        "_curves": ("loglog", {"by": "horizon", "baselines": []}),
    },
    rows="horizon",
)

if __name__ == "__main__":
    common.main(QUESTION)
