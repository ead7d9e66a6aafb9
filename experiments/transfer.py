"""How well does a policy play what it was not trained on? Trained on some problems each, played on more.

A row is what a policy was trained on, a column what it plays; numbers are its regret over that of the strongest agent
that is known there, seed by seed on the same scenarios. The last row was trained on a mixture of laws
(`experiments.mixture`). Weights that all arms share play any number of them. An interrupted script goes on where it
stopped. Writes `transfer.json` and a figure into `experiments/results`.

    python -m experiments.transfer [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro
from matplotlib.patches import Rectangle

from experiments import mixture
from experiments.common import Options, Trained, describe_seeds, interval, provenance
from experiments.comparison import slug
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import DataFigure, column_figure
from rmft_jax.running.files import write_json
from rmft_jax.statistics.tables import markdown_table
from rmft_jax.sweeps.generalization import evaluate_grid

BUDGET: dict[str, Value] = {
    "step_size": 2e-3,
    "num_iterations": 200,
    "num_scenarios": 256,
    "num_minibatches": 4,
    "chunk_size": 20,
    "num_validation_scenarios": 1024,
}
"""Half of the env-steps of `mab`; with its step size policies of T = 100 fail."""
PROBLEMS: dict[str, dict[str, Value]] = {
    "K = 5, T = 50": {},
    "T = 25": {"horizon": 25},
    "T = 100": {"horizon": 100},
    "K = 2": {"num_arms": 2},
    "K = 10": {"num_arms": 10},
    "Beta rewards": {"noise": "beta"},
    "Gaussian rewards": {"noise": "gaussian", "noise_std": 0.5},
    "gap 0.2": {"prior": "fixed_gap", "gap": 0.2},
    "gap 0.5": {"prior": "fixed_gap", "gap": 0.5},
    "three changes": {"environment": "abrupt"},
}
MIXTURE = "mixture"
ROWS: dict[str, dict[str, Value]] = {
    **{
        name: PROBLEMS[name]
        for name in ("K = 5, T = 50", "T = 25", "K = 2", "K = 10", "Gaussian rewards", "gap 0.2", "three changes")
    },
    MIXTURE: {"environment": mixture.Mixture.name},
}
"""What policies are trained on; the others are only played."""
LINES = {**{name: name for name in ROWS}, "thompson": "Thompson"}
"""Of the figure and the table, and what they call them."""
# All that a problem of the matrix names, since what is not named stays as it was trained.
_NAMED: dict[str, Value] = {
    "environment": "stationary",
    "num_arms": 5,
    "horizon": 50,
    "prior": "uniform",
    "gap": 0.2,
    "noise": "bernoulli",
    "noise_std": 1.0,
}
_OF_ALL = ("environment", "num_arms", "horizon", "noise", "noise_std")
RIVALS = {
    "stationary": ("gittins", "posterior_index", "thompson", "uniform"),
    "abrupt": ("change_point_index", "discounted_index", "thompson", "uniform"),
}
Regrets = Mapping[str, Mapping[str, Sequence[float]]]


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Trains what is missing, plays everything everywhere, and writes the numbers and the figure.

    Args:
      options: those of every script.
    """
    trained = {
        name: options.train(f"transfer-{slug(name)}", "mab", {**changes, **BUDGET}) for name, changes in ROWS.items()
    }
    regrets = {target: on_target(target, trained) for target in PROBLEMS}
    made = {"seeds": list(options.seeds), "budget": BUDGET, **provenance(next(iter(trained.values())).sweep)}
    result = made | described(regrets) | {"cost": {name: one.cost() for name, one in trained.items()}}
    write_json(options.results / "transfer.json", result)
    save_figure(draw(result["ratio"]), options.results / "transfer")


def on_target(target: str, trained: Mapping[str, Trained]) -> dict[str, list[float]]:
    """Per seed the regret on a problem of every policy, and of the agents beside them."""
    settings, found = {**_NAMED, **PROBLEMS[target]}, {}
    # The Gittins index is known for Bernoulli and Gaussian rewards.
    known = settings["noise"] != "beta"
    rivals = [name for name in RIVALS[str(settings["environment"])] if known or name != "gittins"]
    if settings["environment"] != "stationary":
        settings = {name: settings[name] for name in _OF_ALL}
    axes = {field: [value] for field, value in settings.items()}
    for number, (name, one) in enumerate(trained.items()):
        for policy in one.policies:
            # All policies of a seed meet the same scenarios.
            played = evaluate_grid(policy.config, policy.agent, axes, baselines=rivals if number == 0 else ())
            found.setdefault(name, []).append(played["final_regret"].item())
            for rival in rivals if number == 0 else ():
                found.setdefault(rival, []).append(played["baseline_final_regret"].sel(agent=rival).item())
    return found


def described(regrets: Regrets) -> dict[str, Any]:
    """By problem the strongest agent, all regrets, over that agent's and over those of the policies trained on it."""
    agents = {name for names in RIVALS.values() for name in names}
    found: dict[str, Any] = {name: {} for name in ("strongest", "regret", "ratio", "over_own")}
    for target, rows in regrets.items():
        best = min(agents & set(rows), key=lambda name: float(np.mean(rows[name])))
        found["strongest"][target] = best
        found["regret"][target] = {name: describe_seeds(values) for name, values in rows.items()}
        found["ratio"][target] = _over(rows, best)
        if target in ROWS:
            found["over_own"][target] = _over(rows, target)
    return found


def _over(rows: Mapping[str, Sequence[float]], one: str) -> dict[str, Any]:
    return {
        name: describe_seeds((np.asarray(values) / np.asarray(rows[one])).tolist()) for name, values in rows.items()
    }


def table(result: Mapping[str, Any]) -> str:
    """Regret on every problem over that of the policies that were trained on it."""
    found, body = result["over_own"], []
    for row, label in LINES.items():
        cells = ["1" if row == target else interval(one[row]) for target, one in found.items()]
        body.append([label, *cells])
    return markdown_table(("trained on", *found), body)


def draw(ratios: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """The matrix, in shades of the ratio's logarithm; a frame around what a policy was trained on."""
    targets, rows = list(ratios), list(LINES)
    values = np.asarray([[ratios[target][name]["mean"] for target in targets] for name in rows])
    with column_figure(3.4) as (figure, axes):
        axes.imshow(np.log(values), cmap="cividis_r", aspect="auto", vmin=0.0, vmax=np.log(4))
        axes.grid(visible=False)
        for row, column in np.ndindex(values.shape):
            value, own = values[row, column], rows[row] == targets[column]
            axes.text(
                column, row, f"{value:.2f}" if value < 10 else f"{value:.0f}", ha="center", va="center", fontsize=5.5,
                color="white" if value > 2 else "black", fontweight="bold" if own else "normal",
            )  # fmt: skip
            if own:
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1))
        axes.set_xticks(range(len(targets)), targets, rotation=45, ha="right", fontsize=6)
        axes.set_yticks(range(len(rows)), list(LINES.values()), fontsize=6)
        axes.set(xlabel="played on", ylabel="trained on")
        axes.set_title("regret at T over the strongest agent's", fontsize="small")
        figure.rows = [
            {"trained": name, "played": target, **{key: found[name][key] for key in ("mean", "ci95")}}
            for target, found in ratios.items()
            for name in rows
        ]
        figure.caption = "Regret over that of the strongest agent of the column; means over training seeds."
        return figure


if __name__ == "__main__":
    tyro.cli(main)
