"""The value matrix that RMFT gives the theory's single layer, beside that of follow-the-regularized-leader.

The policies of preset `single-layer` play `softmax(W S)`, S the sum of the past reward vectors. With `W = eta I` that
is Hedge at rate eta: FTRL with entropy as its regularizer. The same number added to all scores changes no decision, and
the same number added to all rewards should change none either, so `P W P` is shown, `P = I - 11'/K`, over the rate of
the nearest Hedge. Writes `single_layer_weights.json`, `.csv`, `.png` and `.pdf` into `experiments/results`.

    python -m experiments.single_layer_weights [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float

from experiments.common import Options, describe_seeds, provenance, ratios, tuned_in_hindsight, write
from rmft_jax.agents import FullInformationSingleLayer, Hedge, TrainedAgent, make_agents
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting.style import DataFigure, sheet
from theory.hedge import centring, rate

PRESET = "single-layer"


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Trains what is missing, then writes the numbers and the figure.

    Args:
      options: those of every script.
    """
    trained = options.train(PRESET)
    matrices = [trained_matrix(policy.agent) for policy in trained.policies]
    tuned = [tuned_in_hindsight(policy.config, ("hedge",)) for policy in trained.policies]
    problem = trained.config.rmft.problem()
    hedge = make_agents(problem, ["hedge"])["hedge"]
    assert isinstance(hedge, Hedge)
    # The rate of the docstring of Hedge, of which the constant is a multiple.
    published = math.sqrt(8.0 * math.log(problem.num_arms) / problem.horizon) / float(hedge.width)
    constants = [float(one["hedge"]["constant"]) for one in tuned]
    mean = np.mean(matrices, axis=0)
    shown = {f"RMFT, over its rate {rate(mean):.3f}": mean / rate(mean), "Hedge, over its rate": centring(len(mean))}
    result = {
        "preset": PRESET,
        "seeds": list(options.seeds),
        **provenance(trained.sweep),
        "matrices": [matrix.tolist() for matrix in matrices],
        "rate": describe_seeds([float(rate(matrix)) for matrix in matrices]),
        "share_beside_hedge": describe_seeds([share_beside_hedge(matrix) for matrix in matrices]),
        "hedge_rate": {"published": published, "best_in_hindsight": [one * published for one in constants]},
        "regret": trained.per_seed("final_regret"),
        "ratio_to": ratios(trained.evaluations(), tuned),
        **trained.cost(),
    }
    write(options.results / "single_layer_weights", result, draw(shown))


def trained_matrix(agent: TrainedAgent) -> Float[np.ndarray, "K K"]:
    """`P W P` of a policy. `W = b V`, with `b` the score that all rounds share."""
    assert isinstance(agent, FullInformationSingleLayer)
    params = {name: np.asarray(value, np.float64) for name, value in agent.params.items()}
    score = params["kappa"] @ (params["Q"] @ params["c"] + params["q"])
    direction = centring(len(params["V"]))
    return direction @ (score * params["V"]) @ direction


def share_beside_hedge(matrix: Float[np.ndarray, "K K"]) -> float:
    """How much of the norm of `P W P` is not along P: 0 if the policy is Hedge at some rate."""
    return float(np.linalg.norm(matrix - rate(matrix) * centring(len(matrix))) / np.linalg.norm(matrix))


def draw(shown: Mapping[str, Float[np.ndarray, "K K"]]) -> DataFigure:
    """The matrices side by side, as numbers on colours of one scale."""
    largest = max(np.abs(matrix).max() for matrix in shown.values())
    with sheet("paper", 1.8, axes_grid=False) as figure:
        panels = figure.subplots(1, len(shown))
        mesh: Any = None
        for axes, (name, matrix) in zip(panels, shown.items(), strict=True):
            mesh = axes.imshow(matrix, cmap="PuOr_r", vmin=-largest, vmax=largest)
            axes.set_title(name)
            ticks = np.arange(len(matrix))
            axes.set_xticks(ticks, [f"{arm + 1}" for arm in ticks])
            axes.set_yticks(ticks, [f"{arm + 1}" for arm in ticks])
            for i, j in np.ndindex(matrix.shape):
                dark = abs(matrix[i, j]) > 0.6 * largest
                axes.text(
                    j, i, f"{matrix[i, j]:.3f}", ha="center", va="center", size=7, color="white" if dark else "black"
                )
        figure.supxlabel("reward of arm")
        figure.supylabel("score of arm")
        figure.colorbar(mesh, ax=panels, label="weight / rate")
        figure.rows = [
            {"player": name, "score_of": i + 1, "reward_of": j + 1, "weight": float(matrix[i, j])}
            for name, matrix in shown.items()
            for i, j in np.ndindex(matrix.shape)
        ]
        return figure


if __name__ == "__main__":
    tyro.cli(main)
