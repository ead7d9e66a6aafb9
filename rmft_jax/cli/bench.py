"""The command `rmft bench-agents`."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmft_jax.agents import make_agents
from rmft_jax.agents.catalogue import fitting
from rmft_jax.cli.common import free_place, imports, parse, print_summary, suggest
from rmft_jax.cli.plot import tell_figures
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require, require_count, require_seed
from rmft_jax.plotting import plot_run
from rmft_jax.problems import Environment, Problem, Stationary, get_environment
from rmft_jax.running import benchmark
from rmft_jax.running.files import read_dataset, unless_damaged, writable, write_dataset, write_json
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.statistics.report import summarize
from rmft_jax.sweeps.store import require_no_results


@dataclasses.dataclass(frozen=True)
class BenchArguments:
    """Plays the classical agents that fit an environment on the same scenarios.

    The table is printed. Without --out and --json nothing else is left of it.
    """

    environment: tyro.conf.Positional[str] = "bernoulli"
    """Named environment to start from; `rmft environments` lists them."""
    horizon: int = 100
    """Rounds T."""
    num_scenarios: int = 1000
    """Scenarios."""
    seed: int = 0
    """Seed of the scenarios and rewards."""
    agents: tuple[str, ...] = ()
    """Which agents, by name; all that fit if none is named."""
    tune: tyro.conf.FlagCreatePairsOff[bool] = False
    """Set the free constant of every agent first, on scenarios of its own."""
    json: Path | None = None
    """File for the mean regrets with their intervals."""
    out: Path | None = None
    """Directory for the dataset (agents.nc) and the figures; without it they are not kept."""
    config: Annotated[Environment, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Stationary)


def _shown(values: Mapping[str, float]) -> str:
    return " ".join(f"{field}={value:.3g}" for field, value in values.items())


def _require_own(path: Path, known: Mapping[str, Any]) -> None:
    """Refuses a place that holds a run or a sweep, or what was played under other settings."""
    require_no_results(path.parent)
    with unless_damaged():
        there = read_dataset(path, "")
        was = {name: there.attrs.get(name) for name in ("environment", "tuned", "seed")}
        was |= {"horizon": there.sizes.get("round"), "num_scenarios": there.sizes.get("scenario")}
        was["agents"] = sorted(map(str, there["agent"].to_numpy())) if "agent" in there.coords else None
        other = [name for name in known if was[name] != known[name]]
        require(not other, f"{path}, which has other {' and '.join(other)}", "a place of its own", "another --out")


def bench_agents(argv: list[str]) -> int:
    """Plays the classical agents."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is None and not {"-h", "--help"} & set(argv):
        raise ConfigError("got no environment, need its name first; try `rmft bench-agents bernoulli`")
    default = BenchArguments(name or "bernoulli", config=get_environment(name or "bernoulli"))
    arguments = parse(BenchArguments, "bench-agents", argv, default)
    config, horizon = arguments.config, arguments.horizon
    shared: dict[str, Any] = {field: getattr(arguments, field) for field in ("horizon", "num_scenarios", "seed")}
    for field, minimum in (("horizon", 1), ("num_scenarios", 2)):
        require_count(getattr(arguments, field), field, minimum, getattr(default, field))
    require_seed(arguments.seed)
    problem = Problem.checked(config, horizon)
    names = fitting(problem, arguments.agents or None)
    dataset_path = arguments.out and arguments.out / "agents.nc"
    if dataset_path is not None:
        known = {"environment": json.dumps(config.flat()), "agents": sorted(names), "tuned": int(arguments.tune)}
        _require_own(dataset_path, known | shared)
    started, what = time.perf_counter(), "tuning and playing" if arguments.tune else "playing"
    reporter = ProgressReporter()
    with writable(files=list(filter(None, (arguments.json, dataset_path)))):
        agents = make_agents(problem, names)
        reporter.note(f"{what} {len(names)} agents on {arguments.num_scenarios} scenarios of {horizon} rounds")
        options: dict[str, Any] = {"agents": agents, "tune": arguments.tune, "reporter": reporter}
        dataset, constants = benchmark.bench_agents(config, **options, **shared)
        summary = summarize(dataset)
    title = f"{name}, K={config.num_arms}, T={horizon}, {arguments.num_scenarios} scenarios"
    print_summary(summary, title, dataset.attrs)
    if arguments.tune:
        print("tuned: " + "; ".join(f"{agent} {_shown(values)}" for agent, values in constants.items()))
    print(f"{len(summary)} agents in {time.perf_counter() - started:.0f} s, compilation included")
    if dataset_path is not None:
        print(f"dataset: {write_dataset(dataset_path, dataset)}")
        tell_figures(plot_run(None, dataset, dataset_path.parent), [dataset_path])
    if arguments.json is not None:
        intervals = ("regret_mean", "regret_ci95")
        content = {
            "environment": name,
            "num_arms": config.num_arms,
            **shared,
            "settings": config.flat(),
            "regret": dataset.attrs["regret"],
            "constants": constants,
            "agents": {agent: {key: row[key] for key in intervals} for agent, row in summary.items()},
        }
        write_json(arguments.json, content)
    suggest(
        ["table", dataset_path, "--format", "latex"]
        if dataset_path
        else ["bench-agents", *argv, *imports(), "--out", free_place("agents")]
    )
    return 0
