"""How does regret grow with the number of arms?

A policy of its own for every arm count, trained for as many iterations at one horizon. More arms in as many rounds
are a harder problem for everybody, so what matters is where the policy stands among the classical agents.

    python -m experiments.ablations.arm_count [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep

QUESTION = common.Question(
    name="arm_count",
    quick=Sweep(
        "quickstart",
        grid={"num_arms": [2, 3, 5, 8], "seed": common.SEEDS},
        override=without(common.QUICK, "num_arms"),
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"num_arms": [2, 3, 5, 10, 20], "seed": common.SEEDS},
        override=common.FULL,
        baselines=common.BANDIT_BASELINES,
    ),
    figures={
        "": ("sweep", {"by": "num_arms"}),
        "_curves": ("regret", {"by": "num_arms"}),
        "_suffail": ("suff_fail", {"by": "num_arms"}),
        "_arms": ("arms", {"by": "num_arms"}),
    },
    rows="num_arms",
)

if __name__ == "__main__":
    common.main(QUESTION)
