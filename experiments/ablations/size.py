"""How large must the Transformer be?

Layers and width of the residual stream, with two heads throughout and the same step size for all, which no size was
tuned for.

    python -m experiments.ablations.size [--quick] [--runs DIR] [--ray]
"""

from experiments.ablations import common
from rmft_jax import Sweep

QUESTION = common.Question(
    name="size",
    quick=Sweep(
        "quickstart",
        grid={"num_layers": [1, 2], "width": [8, 16, 32], "seed": common.SEEDS},
        override=common.QUICK,
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"num_layers": [1, 2, 4], "width": [16, 32, 64], "seed": common.SEEDS},
        override=common.FULL,
        baselines=common.BANDIT_BASELINES,
    ),
    figures={"": ("sweep", {"by": "width", "baselines": ["greedy", "thompson"]})},
    rows="num_layers",
    columns="width",
    base={"num_layers": 2, "width": 32},
    baselines=["greedy", "thompson"],
)

if __name__ == "__main__":
    common.main(QUESTION)
