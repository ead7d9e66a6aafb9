"""How much should rollouts explore?

Under bandit feedback the temperature of rollouts and the weight of the entropy bonus, all cells in one program. The
loss and the final evaluation are those of temperature 1 whatever the rollouts have, so that what is imitated is sharper
(below 1) or flatter (above 1) than the policy, iteration after iteration. Under full information the standard deviation
of the noise on the scores, without which there is nothing to select.

    python -m experiments.ablations.exploration [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from rmft_jax import Sweep

BANDIT = common.Question(
    name="exploration",
    quick=Sweep(
        "quickstart",
        grid={"temperature": [0.5, 1.0, 2.0], "entropy_weight": [0.0, 0.01, 0.1], "seed": common.SEEDS},
        override=common.QUICK | {"num_scenarios": 128},
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={
            "temperature": [0.5, 0.8, 1.0, 1.2, 2.0],
            "entropy_weight": [0.0, 0.01, 0.1],
            "seed": common.SEEDS,
        },
        override=common.FULL,
        baselines=common.BANDIT_BASELINES,
    ),
    figures={
        "": ("sweep", {"by": "temperature", "baselines": ["thompson"]}),
        "_map": ("heatmap", {}),
    },
    rows="temperature",
    columns="entropy_weight",
    base={"temperature": 1.0, "entropy_weight": 0.01},
    baselines=["greedy", "thompson"],
)
FULL_INFORMATION = common.Question(
    name="exploration_std",
    quick=Sweep(
        "fol",
        grid={"exploration_std": [0.25, 0.5, 1.0, 2.0], "seed": common.SEEDS},
        override=common.QUICK,
        baselines=("follow_the_leader", "hedge", "hedge_anytime", "uniform"),
    ),
    full=Sweep(
        "fol",
        grid={"exploration_std": [0.125, 0.25, 0.5, 1.0, 2.0, 4.0], "seed": common.SEEDS},
        override=common.FULL,
        baselines=("follow_the_leader", "hedge", "hedge_anytime", "uniform"),
    ),
    figures={
        "": ("sweep", {"by": "exploration_std", "baselines": ["follow_the_leader", "hedge", "hedge_anytime"]}),
    },
    rows="exploration_std",
    base={"exploration_std": 1.0},
)

if __name__ == "__main__":
    common.main(BANDIT, FULL_INFORMATION)
