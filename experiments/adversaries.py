"""Do policies that saw benign rewards play well against an adversary? Full information, K = 3, trained at T = 50.

Trains the Transformer of `fol` on i.i.d. rewards, on sines, on a mixture of both, and against an opponent that gives
the arm to which it leans nothing; and the theory's single layer, both where validation stops it and five times longer.
All play the sequence that fools the leader and that opponent, far beyond the horizon they were trained at, beside
Hedge and follow-the-leader. An interrupted script goes on where it stopped. Writes `adversaries.json` and a figure into
`experiments/results`.

    python -m experiments.adversaries [--runs DIR] [--seeds 0 1 2] [--quick] [--ray]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tyro
import xarray as xr
from jaxtyping import Float

from experiments import mixture
from experiments.common import Options, describe_seeds, provenance, write
from rmft_jax.agents import Agent, make_agents
from rmft_jax.config import Value
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.numerics import pinned
from rmft_jax.method.rmft import iterate_chunk
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.plotting.style import (
    DataFigure,
    grid_axes,
    label_axes,
    legend_above,
    plain_log_ticks,
    sheet,
    styles_of,
    value_styles,
)
from rmft_jax.problems import Problem
from rmft_jax.problems.named import get_environment
from rmft_jax.running.trainer import RunKeys
from rmft_jax.statistics.growth import slopes

K, TRAINED_AT, HORIZON = 3, 50, 1600
_ARMS: dict[str, Value] = {"num_arms": K, "exploration_std": 1.0}
TRAININGS: dict[str, tuple[str, dict[str, Value]]] = {
    "Transformer, i.i.d.": ("fol", _ARMS),
    "Transformer, sines": ("fol", {"environment": "sine_trend", **_ARMS}),
    "Transformer, mixture": ("fol", {"environment": mixture.Online.name, "feedback": "full", **_ARMS}),
    "Transformer, opponent": ("fol", {"environment": "favourite", **_ARMS}),
    "single layer, stopped": ("single-layer", {}),
}
LONGER = "single layer, 5× longer"
RIVALS = ("hedge_anytime", "follow_the_leader", "uniform")
PLACES = ("alternating", "favourite", "iid_gaussian")
NUM_SCENARIOS = 64


@pinned()
def main(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Trains what is missing, plays everything everywhere, and writes the numbers and the figure.

    Args:
      options: those of every script.
    """
    trained = {
        name: options.train(f"adversaries-{number}", preset, changes)
        for number, (name, (preset, changes)) in enumerate(TRAININGS.items())
    }
    players: dict[str, list[Agent]] = {name: [policy.agent for policy in one.policies] for name, one in trained.items()}
    players[LONGER] = [longer(policy.config, 5) for policy in trained["single layer, stopped"].policies]
    horizon = 4 * TRAINED_AT if options.quick else HORIZON
    places = {place: described(played(place, players, options.seeds, horizon)) for place in PLACES}
    result = {
        "seeds": list(options.seeds),
        "horizon": horizon,
        **provenance(next(iter(trained.values())).sweep),
        "places": places,
        "cost": {name: one.cost() for name, one in trained.items()},
    }
    write(options.results / "adversaries", result, draw(places))


def longer(config: RunConfig, times: int) -> Agent:
    """The last policy of a run of so many times its iterations, none of which is chosen by validation."""
    rmft = dataclasses.replace(config.rmft, num_iterations=times * config.rmft.num_iterations)
    state, _ = iterate_chunk(init(rmft, RunKeys.create(config.seed).train), rmft.num_iterations)
    return make_agent(state)


def played(
    place: str, players: Mapping[str, Sequence[Agent]], seeds: Sequence[int], horizon: int
) -> dict[str, Float[np.ndarray, "S T"]]:
    """By player its mean static regret over rounds for each training seed, on scenarios of that seed's own."""
    problem = Problem(dataclasses.replace(get_environment(place), num_arms=K), horizon)
    found: dict[str, list[np.ndarray]] = {}
    for number, seed in enumerate(seeds):
        agents = {name: own[number] for name, own in players.items()} | make_agents(problem, RIVALS)
        evaluation: xr.Dataset = evaluate(agents, problem, num_scenarios=NUM_SCENARIOS, key=jax.random.key(seed))
        for name, curve in evaluation["regret"].mean("scenario", dtype=np.float64).groupby("agent"):
            found.setdefault(str(name), []).append(curve.to_numpy().reshape(-1))
    return {name: np.stack(found[name]) for name in [*players, *RIVALS]}


def marks(horizon: int) -> list[int]:
    """The rounds at which regret is told."""
    return [t for t in (5, 10, 25, *(TRAINED_AT * 2**power for power in range(12))) if t <= horizon]


def described(curves: Mapping[str, Float[np.ndarray, "S T"]]) -> dict[str, Any]:
    """By player its regret at some rounds, and the exponent of its growth beyond the horizon of training."""
    horizon = next(iter(curves.values())).shape[1]
    beyond = np.arange(TRAINED_AT, horizon + 1)
    return {
        name: {
            "regret": {str(t): describe_seeds(curve[:, t - 1].tolist()) for t in marks(horizon)},
            "exponent_beyond": describe_seeds(slopes(curve[:, TRAINED_AT - 1 :], beyond).tolist()),
        }
        for name, curve in curves.items()
    }


def draw(places: Mapping[str, Mapping[str, Any]]) -> DataFigure:
    """Regret at some rounds on logarithmic axes, a panel for each adversary, with the range over training seeds."""
    shown = {place: places[place] for place in PLACES[:2]}
    names = [name for name in next(iter(shown.values())) if name != "uniform"]
    rounds = [int(t) for t in shown[PLACES[0]][names[0]]["regret"]]
    styles = value_styles([name for name in names if name not in RIVALS]) | styles_of(RIVALS)
    with sheet("paper", 2.9) as figure:
        panels = grid_axes(figure, len(shown))
        for axes, (place, found) in zip(panels, shown.items(), strict=True):
            for name in names:
                seeds = np.array([one["seeds"] for one in found[name]["regret"].values()])
                # Of non-positive regret there is no logarithm.
                means = np.where(seeds.mean(1) > 0, seeds.mean(1), np.nan)
                spread = np.abs(np.stack([seeds.min(1), seeds.max(1)]) - means)
                color, line = styles[name].color, styles[name].line
                axes.errorbar(
                    rounds, means, spread, color=color, linestyle=line, elinewidth=0.7, label=styles[name].label
                )
            axes.axvline(TRAINED_AT, color="#999999", linewidth=0.7)
            axes.plot(rounds, np.sqrt(rounds), color="#999999", linewidth=0.7, zorder=1, label="√t")
            axes.set(xscale="log", yscale="log", xlim=(4, 1.1 * rounds[-1]), ylim=(0.5, rounds[-1]), title=place)
            for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                plain_log_ticks(axis, *ends)
        label_axes(figure, panels, "round t", "static regret\n(reward units)")
        legend_above(figure, panels, 2)
        figure.rows = [
            {
                "played": place,
                "player": name,
                "round": int(t),
                "mean": one["mean"],
                "least": min(one["seeds"]),
                "most": max(one["seeds"]),
            }
            for place, found in places.items()
            for name, row in found.items()
            for t, one in row["regret"].items()
        ]
        figure.caption = f"Mean, least and most of the training seeds; grey upright: trained at T = {TRAINED_AT}."
        return figure


if __name__ == "__main__":
    tyro.cli(main)
