"""RMFT in words: a language model, its controls and its rivals, on contexts of training and on those held out.

Trains a preset of the language part with some settings changed, on some seeds, and plays every policy in the contexts
it was trained in, in those held out, on twice the arms, over twice the horizon, and with answers in its own words,
beside the model before training and the classical agents on the same problems and reward noise. Writes
`in_words_toy.json` or `in_words_smollm2.json`, figures and dialogues into `experiments/results`; quick runs write
beside their sweeps. An interrupted script goes on where it stopped.

    python -m experiments.language.in_words toy|smollm2 [PART ...] [--quick] [--runs DIR] [--seeds 0 1 2] [--ray]

`PART` names what is trained, of `PARTS`; without any, all of it. Parts that were run before stay in the results.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr
from scipy import stats

from experiments.common import RESULTS, Trained, describe_seeds, mean_final_regrets, provenance, train_seeds
from experiments.language import pictures
from rmft_jax.agents import make_agents
from rmft_jax.config import Value
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.numerics import pinned
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.plotting import plot_training, save_figure
from rmft_jax.problems import Stationary
from rmft_jax.running.files import write_json
from rmft_jax.running.trainer import RunKeys

ITERATIONS = get_preset("text-toy").rmft.num_iterations
THOUGHTS: dict[str, Value] = {"reasoning": 12, "horizon": 20, "num_iterations": 100}
PARTS: dict[str, dict[str, tuple[str, dict[str, Value]]]] = {
    "toy": {
        "rmft": ("RMFT, answers at once", {}),
        "reasoning": ("RMFT, thinks before it answers", THOUGHTS),
        "random": ("keeps rollouts at random", {"selection": "random"}),
        "reward": ("keeps rollouts by reward", {"selection": "reward"}),
        "single round": ("all rollouts are the start's", {"refresh_every": ITERATIONS}),
        "distillation": ("imitates Gittins", {"objective": "distillation", "behavior": "gittins"}),
        "template": (
            "imitates UCB1 with a fixed thought",
            THOUGHTS | {"objective": "distillation", "behavior": "ucb1", "narration": "template", "reasoning": 24},
        ),
    },
    "smollm2": {
        "rmft": ("RMFT, answers at once", {}),
        "reasoning": ("RMFT, thinks before it answers", {"reasoning": 8, "num_iterations": 16}),
        "large": (
            "RMFT, uniform prior, K = 5, T = 20",
            {"prior": "uniform", "num_arms": 5, "horizon": 20},
        ),
    },
}
QUICK: dict[str, Value] = {
    "horizon": 4,
    "num_iterations": 2,
    "chunk_size": 1,
    "num_scenarios": 4,
    "num_tellings": 4,
    "num_validation_scenarios": 8,
    "num_test_scenarios": 16,
}
RIVALS = ("gittins", "epsilon_greedy", "thompson", "ucb1", "uniform")
PLACES: dict[str, Callable[[RMFTConfig], dict[str, Value]]] = {
    "trained contexts": lambda _: {},
    "held-out contexts": lambda _: {"contexts": "held-out"},
    "twice the arms": lambda config: {"num_arms": 2 * config.environment.num_arms},
    "twice the horizon": lambda config: {"horizon": 2 * config.horizon},
    "free answers": lambda _: {"answer": "free"},
}
STARTS = {"start": "trained contexts", "start, held out": "held-out contexts"}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is run."""

    model: tyro.conf.Positional[Literal["toy", "smollm2"]]
    """Which language model."""
    parts: tyro.conf.Positional[tuple[str, ...]] = ()
    """What is trained; see the module."""
    runs: Path = Path("runs/experiments/language")
    """Where the sweeps go."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED SEED ...")] = (0, 1, 2)
    """Training seeds."""
    quick: bool = False
    """Runs of seconds, to see that the script works."""
    ray: bool = False
    """Train seeds side by side, each on a core of its own, with Ray."""


def settings(changes: Mapping[str, Value], quick: bool) -> dict[str, Value]:
    """What a part changes of the preset."""
    changes = {**changes, **(QUICK if quick else {})}
    return changes | ({"refresh_every": QUICK["num_iterations"]} if quick and "refresh_every" in changes else {})


def played(config: RunConfig, agent: Any) -> xr.Dataset:
    """A policy beside the classical agents on the test scenarios of a run."""
    problem = config.rmft.problem()
    agents = {"rmft": agent, **make_agents(problem, RIVALS)}
    return evaluate(agents, problem, num_scenarios=config.num_test_scenarios, key=RunKeys.create(config.seed).test)


def elsewhere(trained: Trained) -> dict[str, list[xr.Dataset]]:
    """Every policy in every place, and the model before training."""
    found: dict[str, list[xr.Dataset]] = {name: [] for name in (*PLACES, *STARTS)}
    for policy in trained.policies:
        for name, changes in PLACES.items():
            there = policy.config.replace(**changes(policy.config.rmft))
            found[name].append(played(there, there.rmft.agent(policy.agent.params)))
        for name, place in STARTS.items():
            there = policy.config.replace(**PLACES[place](policy.config.rmft))
            found[name].append(played(there, make_agent(init(there.rmft, RunKeys.create(there.seed).train))))
    return found


def least_in(config: RMFTConfig) -> float | None:
    """What no policy goes below, where that is known."""
    arms = config.environment
    if not isinstance(arms, Stationary) or (arms.prior, arms.noise, arms.num_arms) != ("fixed_gap", "bernoulli", 2):
        return None
    return least_regret(arms.gap, config.horizon)


def least_regret(gap: float, horizon: int) -> float:
    """The least regret at T of two Bernoulli arms with means (1 + gap) / 2 and (1 - gap) / 2, of which both are known.

    Whichever arm is played, its reward says equally much about which is the better one: the log odds walk up with
    probability p = (1 + gap) / 2 and down otherwise. So nobody learns faster, and the likelier arm is the best play: it
    is wrong where the walk is below 0, and half of the time where it is 0.
    """
    p, wrong = (1 + gap) / 2, 0.0
    for t in range(horizon):
        wrong += stats.binom.cdf((t - 1) // 2, t, p) + (0.5 * stats.binom.pmf(t // 2, t, p) if t % 2 == 0 else 0.0)
    return gap * float(wrong)


def measured(evaluations: Mapping[str, list[xr.Dataset]]) -> dict[str, Any]:
    """Per place the regret over training seeds, that of the rivals, and the answers that named no arm."""
    record = {}
    for place, datasets in evaluations.items():
        finals = [mean_final_regrets(dataset) for dataset in datasets]
        record[place] = {
            "regret": describe_seeds([final["rmft"] for final in finals]),
            "invalid": describe_seeds([float(one["invalid"].sel(agent="rmft").mean()) for one in datasets]),
            **{rival: describe_seeds([final[rival] for final in finals]) for rival in RIVALS if rival in finals[0]},
        }
    return beside_trained(record)


def beside_trained(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the regret in contexts held out over that in those of training, seed by seed."""
    own, other = (record[place]["regret"]["seeds"] for place in ("trained contexts", "held-out contexts"))
    ratios = describe_seeds([there / here for here, there in zip(own, other, strict=True)])
    return record | {"held-out contexts": record["held-out contexts"] | {"ratio_to_trained": ratios}}


@pinned()
def main() -> None:
    """Trains what is missing, plays it, and writes the record."""
    arguments = tyro.cli(Arguments)
    parts = PARTS[arguments.model]
    unknown = [part for part in arguments.parts if part not in parts]
    if unknown:
        raise SystemExit(f"got {unknown[0]!r}, need one of {', '.join(parts)}; try rmft")
    target = (arguments.runs / "quick" if arguments.quick else RESULTS) / f"in_words_{arguments.model}"
    path = target.with_suffix(".json")
    record = json.loads(path.read_text()) if path.is_file() else {}
    for part in arguments.parts or parts:
        what, changes = parts[part]
        changes, directory = settings(changes, arguments.quick), f"{arguments.model}-{part.replace(' ', '-')}"
        trained = train_seeds(
            arguments.runs / (directory + "-quick" * arguments.quick),
            f"text-{arguments.model}",
            arguments.seeds,
            changes,
            baselines=("thompson",),
            ray=arguments.ray,
        )
        evaluations = elsewhere(trained)
        record[part] = {
            "what": what,
            "settings": changes,
            "places": measured(evaluations),
            "least_regret": least_in(trained.config.rmft),
            "cost": trained.cost(),
            "provenance": provenance(trained.sweep),
        }
        record = {name: record[name] for name in parts if name in record}
        write_json(path, record)
        save_figure(pictures.draw(record), target)
        if part in pictures.SHOWN:
            own = target.with_name(f"{target.name}_{part}")
            save_figure(pictures.draw_curves(evaluations), own)
            save_figure(plot_training(trained.sweep), own.with_name(f"{own.name}_training"))
            own.with_suffix(".txt").write_text(pictures.transcripts(trained.policies[0]), encoding="utf-8")


if __name__ == "__main__":
    main()
