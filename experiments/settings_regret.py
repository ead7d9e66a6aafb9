"""RMFT beyond the stationary bandit: full-information online learning (`fol`) and the non-stationary bandit (`nsmab`).

Trains the preset on three seeds and compares the policies with classical algorithms, as published and with their free
constant tuned in hindsight, on the very scenarios of the comparison; those of `nsmab` play at other temperatures as
well. An interrupted script goes on where it stopped.
Writes `fol_regret.json`, `.png` and `.pdf`, or the same for `nsmab`, into `experiments/results`.

    python -m experiments.settings_regret fol|nsmab [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

from typing import Any, Literal

import tyro
import xarray as xr

from experiments.common import (
    Options,
    at_temperatures,
    curves_of,
    final_regrets,
    provenance,
    ratios,
    tuned_in_hindsight,
    write,
)
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_regret_curves
from rmft_jax.statistics.growth import growth_exponent

TUNED = {
    "fol": ("hedge", "ftrl", "ftpl"),
    "nsmab": ("ucb", "kl_ucb", "sliding_window_ucb", "discounted_ucb", "discounted_thompson", "rexp3"),
}


@pinned()
def main(preset: tyro.conf.Positional[Literal["fol", "nsmab"]], options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Trains what is missing, then writes the table and the figure.

    Args:
      preset: the setting.
      options: those of every script.
    """
    trained = options.train(preset)
    evaluations = trained.evaluations()
    curves, first = curves_of({"rmft": evaluations}), evaluations[0]
    tuned = [tuned_in_hindsight(policy.config, TUNED[preset]) for policy in trained.policies]
    result = {
        "preset": preset,
        "seeds": list(options.seeds),
        **provenance(trained.sweep),
        "regret": first.attrs["regret"],
        "agents": final_regrets(curves),
        "exponents": {str(name): _exponent(first, str(name)) for name in first["agent"].values},
        "tuned_in_hindsight": tuned,
        "trained": {
            "exponent": [_exponent(evaluation, "rmft") for evaluation in evaluations],
            "ratio_to": ratios(evaluations, tuned),
            **trained.cost(),
            "validation": trained.validation(),
        },
    }
    if not trained.config.rmft.has_scores:
        result["at_temperature"] = at_temperatures(trained.policies)
    write(options.results / f"{preset}_regret", result, plot_regret_curves(curves, result["regret"]))


def _exponent(evaluation: xr.Dataset, agent: str) -> dict[str, Any]:
    regret = evaluation["regret"].sel(agent=agent).transpose("scenario", "round").to_numpy()
    exponent, low, high, left_out = growth_exponent(regret)
    return {"exponent": exponent, "ci95": [low, high], "num_nonpositive": left_out}


if __name__ == "__main__":
    tyro.cli(main)
