"""RMFT beyond the stationary bandit: full-information online learning (`fol`) and the non-stationary bandit (`nsmab`).

Trains the preset on three seeds and compares the policies with classical algorithms, as published and with their free
constant tuned in hindsight, on the very scenarios of the comparison. An interrupted script goes on where it stopped.
Writes `fol_regret.json`, `.png` and `.pdf`, or the same for `nsmab`, into `experiments/results`.

    python -m experiments.settings_regret fol [--runs DIR] [--seeds 0 1 2] [--quick]
"""

from pathlib import Path
from typing import Any, Literal

import tyro
import xarray as xr

from experiments.common import (
    curves_of,
    draw_curves,
    final_regrets,
    preset_config,
    ratios,
    results_folder,
    train_all,
    tuned_in_hindsight,
    write,
)
from rmft_jax import growth_exponent

TUNED = {
    "fol": ("hedge", "ftrl", "ftpl"),
    "nsmab": ("ucb", "kl_ucb", "sliding_window_ucb", "discounted_ucb", "discounted_thompson", "rexp3"),
}


def main(
    preset: tyro.conf.Positional[Literal["fol", "nsmab"]],
    runs: Path = Path("runs/settings_regret"),
    seeds: tuple[int, ...] = (0, 1, 2),
    quick: bool = False,
) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      preset: the setting.
      runs: where the run directories go.
      seeds: training seeds; at least two, for intervals.
      quick: runs of seconds, to see that the script works; writes beside the runs.
    """
    evaluations, summaries = train_all({"rmft": preset}, runs, seeds, quick)
    curves, config = curves_of(evaluations), preset_config(preset, quick=quick)
    tuned = [tuned_in_hindsight(config, seed, TUNED[preset]) for seed in seeds]
    agents = final_regrets(curves)
    trained = {
        "exponent": [_exponent(evaluation, "rmft") for evaluation in evaluations["rmft"]],
        "ratio_to": ratios(summaries["rmft"], tuned),
        "wall_seconds": [summary["wall_seconds"] for summary in summaries["rmft"]],
        "env_steps": summaries["rmft"][0]["env_steps"],
    }
    result = {
        "preset": preset,
        "seeds": list(seeds),
        "device": summaries["rmft"][0]["device"],
        "versions": summaries["rmft"][0]["versions"],
        "regret": evaluations["rmft"][0].attrs["regret"],
        "agents": agents,
        "exponents": {
            str(name): _exponent(evaluations["rmft"][0], str(name)) for name in evaluations["rmft"][0]["agent"].values
        },
        "tuned_in_hindsight": tuned,
        "trained": trained,
    }
    write(results_folder(runs, quick) / f"{preset}_regret", result, draw_curves(curves, result["regret"]))


def _exponent(evaluation: xr.Dataset, agent: str) -> dict[str, Any]:
    regret = evaluation["regret"].sel(agent=agent).transpose("scenario", "round").to_numpy()
    exponent, low, high, left_out = growth_exponent(regret)
    return {"exponent": exponent, "ci95": [low, high], "num_nonpositive": left_out}


if __name__ == "__main__":
    tyro.cli(main)
