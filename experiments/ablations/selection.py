"""Does selection by regret matter, or would any selection do?

Regret of the trajectory, against three controls: its realized reward, which is noisier; chance, under which the policy
imitates itself; and the lowest regrets over all scenarios together, which keeps what was played on easy problems.

    python -m experiments.ablations.selection [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep

SELECTIONS = ["regret", "reward", "random", "pooled"]
QUESTION = common.Question(
    name="selection",
    quick=Sweep(
        "quickstart",
        grid={"selection": SELECTIONS, "seed": common.SEEDS},
        override=common.QUICK | {"chunk_size": 5},
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"selection": SELECTIONS, "seed": common.SEEDS},
        override=without(common.FULL, "selection"),
        baselines=common.BANDIT_BASELINES,
    ),
    figures={"": ("sweep", {"by": "selection"}), "_training": ("training", {"by": "selection"})},
    rows="selection",
    base={"selection": "regret"},
)

if __name__ == "__main__":
    common.main(QUESTION)
