"""How well does a policy play what it was not trained on? Trained on each of some problems, played on all of them.

A row is what a policy was trained on, a column what it plays; numbers are its regret over that of the policy that was
trained on the column's problem, seed by seed on the same scenarios. The last row was trained on a mixture of laws
(`experiments.mixture`). Weights that all arms share play any number of them. An interrupted script goes on where it
stopped. Writes `transfer.json` and a figure into `experiments/results`.

    python -m experiments.transfer [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro

from experiments import mixture
from experiments.common import Options, Trained, describe_seeds, provenance
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import DataFigure, column_figure
from rmft_jax.running.files import write_json
from rmft_jax.sweeps.generalization import evaluate_grid

BUDGET: dict[str, Value] = {"num_iterations": 200, "num_scenarios": 512, "num_minibatches": 4, "chunk_size": 20}
PROBLEMS: dict[str, dict[str, Value]] = {
    "K = 5, T = 50": {},
    "T = 25": {"horizon": 25},
    "T = 100": {"horizon": 100},
    "K = 2": {"num_arms": 2},
    "K = 10": {"num_arms": 10},
    "Beta rewards": {"noise": "beta"},
    "Gaussian rewards": {"noise": "gaussian"},
    "gap 0.2": {"prior": "fixed_gap", "gap": 0.2},
    "gap 0.5": {"prior": "fixed_gap", "gap": 0.5},
    "three changes": {"environment": "abrupt"},
}
# All that a problem of the matrix names, since what is not named stays as it was trained.
_NAMED: dict[str, Value] = {
    "environment": "stationary",
    "num_arms": 5,
    "horizon": 50,
    "prior": "uniform",
    "gap": 0.2,
    "noise": "bernoulli",
}
MIXED: dict[str, Value] = {"environment": mixture.Mixture.name}
RIVALS = ("thompson", "uniform")


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Trains what is missing, plays everything everywhere, and writes the numbers and the figure.

    Args:
      options: those of every script.
    """
    trained = {
        name: options.train(f"transfer-{number}", "mab", {**changes, **BUDGET})
        for number, (name, changes) in enumerate((PROBLEMS | {"mixture": MIXED}).items())
    }
    regrets = {target: on_target(target, trained) for target in PROBLEMS}
    result = {
        "seeds": list(options.seeds),
        "budget": BUDGET,
        **provenance(next(iter(trained.values())).sweep),
        "regret": {
            target: {name: describe_seeds(values) for name, values in found.items()}
            for target, found in regrets.items()
        },
        "ratio": {
            target: {
                name: describe_seeds(list(np.asarray(values) / np.asarray(found[target])))
                for name, values in found.items()
            }
            for target, found in regrets.items()
        },
        "cost": {name: one.cost() for name, one in trained.items()},
    }
    write_json(options.results / "transfer.json", result)
    save_figure(draw(result["ratio"], list(trained)), options.results / "transfer")


def on_target(target: str, trained: Mapping[str, Trained]) -> dict[str, list[float]]:
    """Per seed the regret on a problem of every policy that can play it, and of the agents beside them."""
    settings = {**_NAMED, **PROBLEMS[target]}
    if settings["environment"] != "stationary":
        settings = {name: settings[name] for name in ("environment", "num_arms", "horizon", "noise")}
    found: dict[str, list[float]] = {}
    for name, one in trained.items():
        for policy in one.policies:
            axes = {field: [value] for field, value in settings.items()}
            played = evaluate_grid(policy.config, policy.agent, axes, baselines=RIVALS if name == target else ())
            found.setdefault(name, []).append(played["final_regret"].item())
            for rival in RIVALS if name == target else ():
                regret = played["baseline_final_regret"].sel(agent=rival).item()
                found.setdefault(rival, []).append(regret)
    return found


def draw(ratios: Mapping[str, Mapping[str, Any]], rows: Sequence[str]) -> DataFigure:
    """The matrix, in shades of the ratio's logarithm; 1 is the policy of the problem itself."""
    targets, rows = list(ratios), [*rows, "thompson"]
    values = np.full((len(rows), len(targets)), np.nan)
    for column, target in enumerate(targets):
        for row, name in enumerate(rows):
            if name in ratios[target]:
                values[row, column] = ratios[target][name]["mean"]
    with column_figure(3.4) as (figure, axes):
        axes.imshow(np.log(values), cmap="cividis_r", aspect="auto", vmin=0.0, vmax=np.log(4))
        axes.grid(visible=False)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            dark = np.isfinite(value) and value > 2
            axes.text(
                column, row, f"{value:.2f}" if np.isfinite(value) else "–", ha="center", va="center", fontsize=4.6,
                color="white" if dark else "black",
            )  # fmt: skip
        axes.set_xticks(range(len(targets)), targets, rotation=45, ha="right", fontsize=6)
        axes.set_yticks(range(len(rows)), ["Thompson" if name == "thompson" else name for name in rows], fontsize=6)
        axes.set(xlabel="played on", ylabel="trained on")
        figure.rows = [
            {"trained": name, "played": target, **{key: found[name][key] for key in ("mean", "ci95")}}
            for target, found in ratios.items()
            for name in rows
            if name in found
        ]
        figure.caption = "Regret over that of the policy trained on the column's problem; means over training seeds."
        return figure


if __name__ == "__main__":
    tyro.cli(main)
