"""What do many iterations give over a single round of rollouts, selection and fine-tuning?

The same rollouts in 100, 20, 5 or 1 iterations. What is cut out of the iterations goes into the scenarios M of each, so
that the total number of scenarios, of rollouts and of kept trajectories is the same, and so is k of L; more rollouts
per scenario instead would keep the totals too, but see fewer problems and select from a longer tail. The number of
minibatches grows with M, so that the number of gradient steps, their size and their learning rates are the same. All
that differs is how old the policy is whose rollouts are learned from: with a single iteration it is always the
untrained one. Each run chooses its checkpoint between its start and its end only (`chunk_size`), so that none has
more to choose from.

    python -m experiments.ablations.rounds [--quick] [--runs DIR] [--ray]
"""

from collections.abc import Mapping, Sequence

from experiments.ablations import common
from experiments.common import without
from rmft_jax import Sweep


def split(total: int, num_scenarios: int, iterations: Sequence[int]) -> Mapping[str, Sequence[int]]:
    """The columns of one budget: `total` iterations of `num_scenarios`, 4 minibatches each, cut differently."""
    return {
        "num_iterations": iterations,
        "num_scenarios": [num_scenarios * total // n for n in iterations],
        "num_minibatches": [4 * total // n for n in iterations],
        "chunk_size": iterations,
    }


QUESTION = common.Question(
    name="rounds",
    quick=Sweep(
        "quickstart",
        grid={"seed": common.SEEDS},
        zip=split(40, 128, [40, 8, 1]),
        override=without(common.QUICK, *split(1, 1, [1])),
        baselines=common.BANDIT_BASELINES,
    ),
    full=Sweep(
        "mab-per-scenario",
        grid={"seed": common.SEEDS},
        zip=split(100, 512, [100, 20, 5, 1]),
        override=without(common.FULL, *split(1, 1, [1])),
        baselines=common.BANDIT_BASELINES,
    ),
    figures={"": ("sweep", {"by": "num_iterations"})},
    rows="num_iterations",
    base={"num_iterations": 1},
)

if __name__ == "__main__":
    common.main(QUESTION)
