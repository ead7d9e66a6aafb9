"""Which encodings let a policy play arm counts and horizons that it was not trained on?

Trains `arms` in {one_hot, token} x `position` in {none, sinusoidal, alibi} at one arm count K and one horizon T, and
plays the policies beside UCB1 and Thompson sampling on up to 4K arms and 4T rounds. None of them knows the horizon, so
the play of 4T rounds holds that of all shorter ones. One-hot policies play K arms and fewer. An interrupted script goes
on where it stopped. Writes `encodings.json` and a heat map of the best encoding, or the same with `_quick`, into
`experiments/results`.

    python -m experiments.encodings [--quick] [--runs DIR] [--seeds 0 1 2] [--ray]
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
import xarray as xr

from experiments.common import RESULTS, provenance, run
from rmft_jax.config import Value
from rmft_jax.method.numerics import pinned
from rmft_jax.plotting import plot_heatmap, save_figure
from rmft_jax.running.files import write_json
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import SweepDirectory

ARMS, POSITIONS = ("one_hot", "token"), ("none", "sinusoidal", "alibi")
RIVALS = ("ucb1", "thompson")
# What the heat map shows: the best encoding of those that play any number of arms.
BEST = "token-none"


@dataclasses.dataclass(frozen=True)
class Scale:
    """What is trained, save for the encoding and the seed; and what is then played."""

    trained: Mapping[str, Value]
    num_arms: tuple[int, ...]
    horizons: tuple[int, ...]

    def sweep(self, seeds: Sequence[int]) -> Sweep:
        """All encodings on all training seeds."""
        grid = {"arms": ARMS, "position": POSITIONS, "seed": seeds}
        return Sweep("mab-per-scenario", grid=grid, override=self.trained, baselines=())


FULL = Scale(
    {"num_arms": 4, "horizon": 50, "num_iterations": 200, "num_scenarios": 512, "num_test_scenarios": 2048},
    num_arms=(2, 3, 4, 6, 8, 12, 16),
    horizons=(25, 50, 75, 100, 150, 200),
)
QUICK = Scale(
    {
        "num_arms": 3,
        "horizon": 25,
        "width": 16,
        "num_iterations": 100,
        "num_scenarios": 256,
        "step_size": 4e-3,
        "num_test_scenarios": 1024,
    },
    num_arms=(2, 3, 6, 12),
    horizons=(25, 50, 100),
)


@pinned()
def main(
    quick: tyro.conf.FlagCreatePairsOff[bool] = False,
    runs: Path = Path("runs/encodings"),
    seeds: tuple[int, ...] = (0, 1, 2),
    ray: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Trains what is missing, plays the grid, and writes the numbers.

    Args:
      quick: small policies: a quarter of an hour on two CPU cores, where the full scale takes hours.
      runs: where the sweeps go.
      seeds: training seeds, each with its own test scenarios.
      ray: train side by side, each on a core of its own, with Ray.
    """
    scale, name = (QUICK, "encodings_quick") if quick else (FULL, "encodings")
    trained = run(scale.sweep(seeds), runs / name, ray)
    policies = SweepDirectory.open(runs / name)
    per_seed: list[xr.Dataset] = []
    for seed in seeds:
        played = [
            play(policies.read_weights({"arms": arms, "position": position, "seed": seed}), scale)
            for arms, position in itertools.product(ARMS, POSITIONS)
        ]
        # The rivals have met the same scenarios each time; the last policies are those that play all arm counts.
        per_seed.append(xr.concat(played, "agent").drop_duplicates("agent", keep="last"))
    result = describe(scale, seeds, xr.concat(per_seed, "seed"), trained)
    write_json(RESULTS / f"{name}.json", result)
    print((RESULTS / f"{name}.json").read_text())
    draw(name)


def draw(name: str) -> None:
    """The heat map of the best encoding, from the file of that name."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    save_figure(plot_heatmap(as_sweep(result, BEST), relative_to=RIVALS), RESULTS / f"{name}_heatmap")


def play(policy: TrainedPolicy, scale: Scale) -> xr.Dataset:
    """A policy, named by its encoding, and the rivals: mean regret and its standard error over scenarios.

    Over `agent`, `num_arms` and `horizon`; NaN for arm counts that the policy cannot play.
    """
    settings, known = policy.config.flat(), policy.config.rmft.environment.num_arms
    axes = {
        "num_arms": [k for k in scale.num_arms if k <= known or settings["arms"] == "token"],
        "horizon": [max(scale.horizons)],
    }
    grid = evaluate_grid(policy.config, policy.agent, axes, baselines=RIVALS).isel(horizon=0, drop=True)
    own = grid[["regret", "regret_sem"]].expand_dims(agent=[f"{settings['arms']}-{settings['position']}"])
    rivals = grid[["baseline_regret", "baseline_regret_sem"]]
    rivals = rivals.rename(baseline_regret="regret", baseline_regret_sem="regret_sem")
    both = xr.concat([own, rivals], "agent", coords="minimal", compat="override", join="outer")
    return both.sel(round=list(scale.horizons)).rename(round="horizon").reindex(num_arms=list(scale.num_arms))


def as_sweep(result: Mapping[str, Any], encoding: str) -> xr.Dataset:
    """The policies of one encoding beside the rivals, as the figures of sweeps take them, from the file's contents."""
    dims = ("seed", "num_arms", "horizon")
    attrs = {"regret": "pseudo", **{f"trained_{name}": value for name, value in result["trained"].items()}}
    data: dict[str, Any] = {}
    for name in ("regret", "regret_sem"):
        final = name.replace("regret", "final_regret")
        data[final] = (dims, np.asarray(result[name][encoding], float))
        rivals = np.stack([np.asarray(result[name][rival], float) for rival in RIVALS])
        data[f"baseline_{final}"] = (("agent", *dims), rivals)
    return xr.Dataset(data, {dim: result[dim] for dim in dims} | {"agent": list(RIVALS)}, attrs)


def describe(scale: Scale, seeds: Sequence[int], played: xr.Dataset, trained: xr.Dataset) -> dict[str, Any]:
    """The contents of the file; seconds are those of training and of the evaluation after it, without compilation."""
    relative = (played["regret"] / played["regret"].sel(agent="thompson", drop=True)).mean("seed")
    seconds = trained["wall_seconds"].sel(seed=list(seeds))
    return {
        "trained": {name: scale.trained[name] for name in ("num_arms", "horizon")},
        **provenance(trained),
        "seed": list(seeds),
        "num_arms": list(scale.num_arms),
        "horizon": list(scale.horizons),
        "num_test_scenarios": scale.trained["num_test_scenarios"],
        "regret": by_agent(played["regret"], "seed", "num_arms", "horizon"),
        "regret_sem": by_agent(played["regret_sem"], "seed", "num_arms", "horizon"),
        "ratio_to_thompson": by_agent(relative, "num_arms", "horizon"),
        "training_seconds": {
            f"{arms}-{position}": seconds.sel(arms=arms, position=position).to_numpy().tolist()
            for arms, position in itertools.product(ARMS, POSITIONS)
        },
    }


def by_agent(array: xr.DataArray, *dimensions: str) -> dict[str, Any]:
    """A nested list for each agent, in this order of the dimensions."""
    return {
        str(agent): array.sel(agent=agent).transpose(*dimensions).to_numpy().tolist() for agent in array["agent"].values
    }


if __name__ == "__main__":
    tyro.cli(main)
