"""Does regret grow without rate? Policies trained at every horizon, beside the strongest play that is known.

Trains the bandit of `mab`, five arms with uniform prior, for every T by itself, equal iterations at each, and fits
`c T^β` and `a + b log T` to regret at T, of the trained policies and of the agents beside them. The same policies also
play arms of which one is better by `2 / sqrt(T)`: the hardest gaps, which they have not been trained on. An interrupted
script goes on where it stopped. Writes `growth.json` and figures into `experiments/results`.

    python -m experiments.growth [--horizons 25 50 100 200 400] [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import math
from collections.abc import Sequence
from typing import Any

import tyro
import xarray as xr

from experiments.common import QUICK, Options, describe_seeds, provenance, run
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_growth, save_figure
from rmft_jax.running.files import write_json
from rmft_jax.statistics.growth import half_horizon
from rmft_jax.statistics.horizons import horizon_growth
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory

RIVALS = ("gittins", "posterior_index", "thompson", "ucb1", "uniform")
BUDGET: dict[str, Value] = {"num_iterations": 400, "num_scenarios": 512, "num_minibatches": 4, "chunk_size": 20}
"""Of every horizon: a tenth of the env-steps of `mab` at T = 50."""
_SHARED = ("final_regret", "final_regret_sem", "baseline_final_regret", "baseline_final_regret_sem")


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options], horizons: tuple[int, ...] = (25, 50, 100, 200, 400)) -> None:
    """Trains what is missing, then writes the numbers and the figures.

    Args:
      options: those of every script.
      horizons: T; what was trained before stays.
    """
    changes = BUDGET | ({name: value for name, value in QUICK.items() if name != "horizon"} if options.quick else {})
    directory = options.runs / ("growth" + "-quick" * options.quick)
    if SweepDirectory(directory).exists():
        earlier = SweepDirectory.open(directory).sweep.grid
        horizons = tuple(dict.fromkeys((*(int(T) for T in earlier["horizon"]), *horizons)))
    grid = {"horizon": list(horizons), "seed": list(options.seeds)}
    trained = run(Sweep("mab", grid=grid, override=changes, baselines=RIVALS), directory, options.ray)
    places = {"uniform": at_half(trained), "hard": beside_small_gaps(directory, grid)}
    result = {
        "seeds": list(options.seeds),
        "horizons": list(horizons),
        "budget": changes,
        **provenance(trained),
        "wall_seconds": {
            str(T): trained["wall_seconds"].sel(horizon=T).transpose("seed").to_numpy().tolist() for T in horizons
        },
        "places": {place: described(dataset) for place, dataset in places.items()},
    }
    write_json(options.results / "growth.json", result)
    for place, dataset in places.items():
        figure = plot_growth(dataset, baselines=RIVALS[:4])
        save_figure(figure, options.results / ("growth" if place == "uniform" else f"growth_{place}"))


def at_half(dataset: xr.Dataset) -> xr.Dataset:
    """Regret at every horizon, and SuffFailFreq at half of each."""
    missed = [
        dataset["suff_fail_freq"].sel(horizon=T, round=half_horizon(int(T)), drop=True) for T in dataset["horizon"]
    ]
    return dataset[list(_SHARED)].assign(missed=xr.concat(missed, dataset["horizon"]))


def beside_small_gaps(directory: Any, grid: dict[str, Any]) -> xr.Dataset:
    """The same where one arm is better by `2 / sqrt(T)`, on scenarios of every seed's own."""
    files = SweepDirectory.open(directory)
    rows: list[xr.Dataset] = []
    for T in grid["horizon"]:
        own: list[xr.Dataset] = []
        for seed in grid["seed"]:
            policy = files.read_weights({"horizon": T, "seed": seed})
            axes: dict[str, Sequence[Value]] = {"prior": ["fixed_gap"], "gap": [2 / math.sqrt(T)]}
            played = evaluate_grid(policy.config, policy.agent, axes, baselines=RIVALS).squeeze(drop=True)
            missed = played["suff_fail_freq"].sel(round=half_horizon(T), drop=True)
            own.append(played[list(_SHARED)].assign(missed=missed))
        rows.append(xr.concat(own, xr.Variable("seed", grid["seed"])))
    found: xr.Dataset = xr.concat(rows, xr.Variable("horizon", grid["horizon"]))
    found.attrs["regret"] = "pseudo"
    return found


def described(dataset: xr.Dataset) -> dict[str, Any]:
    """Per agent regret at every horizon and the two laws; of the trained policy also SuffFailFreq(T/2)."""
    agents = {"rmft": dataset["final_regret"]} | {
        name: dataset["baseline_final_regret"].sel(agent=name, drop=True) for name in RIVALS
    }
    found: dict[str, Any] = {}
    for name, regret in agents.items():
        law = horizon_growth(regret)
        found[name] = {
            "regret": _per_horizon(regret),
            "exponent": law.exponent._asdict(),
            "slope": law.slope._asdict(),
            "misfit": {"power": law.power_misfit, "log": law.log_misfit},
        }
    found["rmft"]["suff_fail_freq"] = _per_horizon(dataset["missed"])
    found["rmft"]["ratio_to_gittins"] = _per_horizon(agents["rmft"] / agents["gittins"])
    return found


def _per_horizon(values: xr.DataArray) -> dict[str, Any]:
    return {str(int(T)): describe_seeds(values.sel(horizon=T).to_numpy().tolist()) for T in values["horizon"]}


if __name__ == "__main__":
    tyro.cli(main)
