"""The command `rmft evaluate`."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr

from rmft_jax.agents import SingleLayer
from rmft_jax.cli.common import API, Groups, parse, print_summary, short_name, suggest, table_text, values_by_name
from rmft_jax.config import ConfigError, Value
from rmft_jax.config.checks import require, require_count, require_seed
from rmft_jax.plotting import plot_heatmap, save_figure
from rmft_jax.running import training
from rmft_jax.running.files import RunError, as_text, read_dataset, unless_damaged, writable
from rmft_jax.running.guarantees import certificate
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import PREFIX, TrainedPolicy
from rmft_jax.statistics.report import summarize
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.spec import parsed_axis
from rmft_jax.sweeps.store import SweepDirectory, load_policy, require_no_results


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Plays a trained policy and the classical agents on the same test scenarios.

    `pretrained:NAME` in place of DIR is a policy that comes with the package; its results go to runs/pretrained/NAME.
    DIR may be a sweep that kept its weights, with --cell.
    Without options the run's own evaluation is made again. With any, the result goes to DIR/evaluations, or to --out,
    under a name that says the options. With --grid it is a dataset over all combinations, with a heat map in figures.
    """

    directory: tyro.conf.Positional[Path]
    """Directory of a run or a sweep, or pretrained:NAME."""
    cell: int | None = None
    """Index of the sweep's cell."""
    horizon: int | None = None
    """Rounds to play, instead of the trained horizon. Laws that depend on it, such as trends, stretch with it."""
    num_arms: int | None = None
    """Arms that exist; more than were trained with policies that play any number, as with arms='token'."""
    num_scenarios: int | None = None
    """Test scenarios."""
    seed: int | None = None
    """Seed of the scenarios and rewards, instead of the run's own test stream."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint to load."""
    contexts: Literal["trained", "held-out"] | None = None
    """Of a language model: whether problems are told in the stories and words of training, or in those held out."""
    play_temperature: float | None = None
    """Temperature at which the policy plays, instead of the run's own."""
    out: Path | None = None
    """Directory for the results, instead of that of the policy."""
    grid: Annotated[Groups, tyro.conf.arg(metavar="NAME=VALUE,VALUE ...")] = ()
    """Values of horizon, of environment (a name) or of a setting of environments such as num_arms, of which every
    combination is played."""


def evaluate(argv: list[str]) -> int:
    """Evaluates a trained policy."""
    if argv and argv[0].startswith(API):
        from rmft_jax.cli import api

        return api.evaluate(argv)
    arguments = parse(EvaluateArguments, "evaluate", argv)
    axes = _axes(arguments)
    for name, minimum, suggestion in (("horizon", 1, 50), ("num_scenarios", 2, 1000), ("num_arms", 2, 5)):
        if (value := getattr(arguments, name)) is not None:
            require_count(value, name, minimum, suggestion)
    require_seed(arguments.seed or 0)
    identity = _identity(arguments.directory)
    policy = _changed(_opened(arguments), arguments)
    config = policy.config.replace(
        horizon=arguments.horizon or policy.config.rmft.horizon,
        num_test_scenarios=arguments.num_scenarios or policy.config.num_test_scenarios,
        seed=policy.config.seed if arguments.seed is None else arguments.seed,
    )
    held = {name: (value,) for name in ("horizon", "num_arms") if (value := getattr(arguments, name)) is not None}
    try:
        config.validate()
    except ConfigError as error:  # All that can be changed here is the horizon.
        raise ConfigError(f"{str(error).split('; try')[0]}; try a longer --horizon") from error
    asked = {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name not in ("directory", "grid", "out") and value not in (None, "best")
    }
    asked |= {name: "+".join(map(str, values)) for name, values in axes.items()}
    name = short_name(",".join(f"{key}={value}" for key, value in asked.items()))
    run, file = _place(arguments), f"evaluations/{name}.nc" if name else "evaluation.nc"
    source = _require_own(run, file, policy, arguments) if arguments.out else {}

    def write(dataset: xr.Dataset) -> Path:
        if _identity(arguments.directory)[: len(identity)] != identity:  # A sweep may have grown.
            raise RunError(f"{arguments.directory} was replaced meanwhile: nothing is written; try again")
        return run.write_dataset(file, dataset.assign_attrs(source))

    known = [key for key in ("iteration", "cell") if key in policy.provenance]
    title = ", ".join([policy.preset, *(f"{key} {policy.provenance[key]}" for key in known)])
    with writable(run.path / "evaluations" if name else run.path, *[run.figures] * bool(axes)):
        if axes:
            trained = config.replace(horizon=policy.config.rmft.horizon)
            return _grid(run, dataclasses.replace(policy, config=trained), axes, held, title, name, write)
        key = RunKeys.create(config.seed).test
        shared: dict[str, Any] = {"num_arms": arguments.num_arms, "reporter": ProgressReporter()}
        dataset = training.evaluate_run(config, policy.agent, key, **shared)
    path = write(dataset)
    title = f"{title}, T={config.rmft.horizon}, {config.num_test_scenarios} test scenarios"
    print_summary(summarize(dataset), title, dataset.attrs)
    if isinstance(config.rmft.policy, SingleLayer) and arguments.num_arms in (None, config.rmft.environment.num_arms):
        print(f"guarantee: {_guarantee(policy, config.rmft.horizon)}")
    print(f"dataset: {path}")
    whole = not name and (run.path / "config.json").is_file()
    suggest(["plot", run.path if whole else path], ["table", path, "--format", "latex"])
    return 0


def _guarantee(policy: TrainedPolicy, horizon: int) -> str:
    try:
        return str(certificate(policy, horizon))
    except ConfigError as error:
        return f"none ({error})"


def _place(arguments: EvaluateArguments) -> RunDirectory:
    """The directory for the results."""
    source = str(arguments.directory)
    pretrained = Path("runs/pretrained") / source.removeprefix(PREFIX)
    return RunDirectory(arguments.out or (pretrained if source.startswith(PREFIX) else arguments.directory))


def _require_own(run: RunDirectory, file: str, policy: TrainedPolicy, arguments: EvaluateArguments) -> dict[str, str]:
    """Whose results go there, as attributes; refuses a place that has those of another policy."""
    given = RunDirectory(arguments.directory)
    whole = {"config": policy.config.flat(), "preset": policy.preset}
    known = json.dumps(given.identity() if given.exists() else whole, sort_keys=True)
    source = {"source": as_text(arguments.directory), "policy_id": hashlib.sha256(known.encode()).hexdigest()[:16]}
    if run.path.resolve() != arguments.directory.resolve():
        require_no_results(run.path)
    path, there = run.path / file, {}
    with unless_damaged():
        there = read_dataset(path, "").attrs
    other = there.get("policy_id", source["policy_id"]) != source["policy_id"]
    require(not other, f"{path}, which is of {there.get('source')}", "a place of its own", "another --out")
    return source


def _identity(directory: Path) -> list[Any]:
    """Whose the results of a policy are: of the run there, or of the cells of the sweep."""
    run, sweep = RunDirectory(directory), SweepDirectory(directory)
    if run.exists():
        return [run.identity()]
    return list(sweep.read_record()["cells"]) if sweep.exists() else []


def _opened(arguments: EvaluateArguments) -> TrainedPolicy:
    """The policy."""
    source = str(arguments.directory)
    is_run = (arguments.directory / "config.json").is_file()
    got = f"--checkpoint {arguments.checkpoint} with {source}"
    require(is_run or arguments.checkpoint == "best", got, "the one that is kept", "leaving it out")
    if not is_run and not source.startswith(PREFIX) and arguments.cell is None:
        RunDirectory.open(arguments.directory)  # Says what is wrong.
    return load_policy(source, arguments.cell, which=arguments.checkpoint)


def _changed(policy: TrainedPolicy, arguments: EvaluateArguments) -> TrainedPolicy:
    """The policy, told of problems in other contexts, or playing at another temperature."""
    changes = {name: getattr(arguments, name) for name in ("contexts", "play_temperature")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return policy  # Making it anew may mean to read a model's files again.
    got, need = f"--contexts with policy={policy.config.rmft.policy.name!r}", "a policy that reads text"
    require("contexts" in policy.config.flat() or "contexts" not in changes, got, need, "leaving it out")
    config = policy.config.replace(**changes)
    config.validate()
    return dataclasses.replace(policy, agent=config.rmft.agent(policy.agent.params), config=config)


def _axes(arguments: EvaluateArguments) -> dict[str, tuple[Value, ...]]:
    axes = values_by_name("--grid", arguments.grid, "NAME=VALUE,VALUE", "horizon=50,100")
    for name in {"horizon", "num_arms"} & set(axes):
        got = f"--grid {name} and --{name.replace('_', '-')}"
        require(getattr(arguments, name) is None, got, "one of them", f"--grid {name}={axes[name]}")
    return {name: parsed_axis(name, values.split(",")) for name, values in axes.items()}


def _grid(
    run: RunDirectory,
    policy: TrainedPolicy,
    axes: Mapping[str, Sequence[Value]],
    held: Mapping[str, Sequence[Value]],
    title: str,
    name: str,
    write: Callable[[xr.Dataset], Path],
) -> int:
    """Plays every combination of the axes, where what is `held` has one value, and tells what came out."""
    config, count = policy.config, math.prod(map(len, axes.values()))
    with ProgressReporter().bar("problem", count, 0) as bar:
        dataset = evaluate_grid(config, policy.agent, {**held, **axes}, watch=bar.add)
    dataset = dataset.isel(dict.fromkeys(held, 0), drop=True)
    path = write(dataset)
    print(f"{title}, trained at K={config.rmft.environment.num_arms}, T={config.rmft.horizon}")
    played = {str(name) for name in dataset["agent"].values}
    beside = [name for name in dict.fromkeys(["ucb1", str(dataset.attrs.get("reference"))]) if name in played]
    if len(axes) <= 2:
        rows, columns = (*axes, None)[:2]
        print(table_text(dataset, rows, columns, baselines=None if columns is None else beside), end="")
    print(f"dataset: {path}")
    if len(axes) in (2, 3):
        # The last axis has a map for each of its values, unless another has fewer.
        by = min([*axes][::-1], key=lambda axis: len(axes[axis])) if len(axes) == 3 else None
        try:
            figure = plot_heatmap(dataset, by=by, relative_to=(beside[-1:] if by else beside) or None)
            for written in save_figure(figure, run.figures / name)[:1]:
                print(f"figure: {written} (and .pdf, .csv)")
        except ConfigError as error:
            print(f"no figure: {str(error).split('; try')[0]}")
    suggest(*[["plot", path, "--kind", "heatmap"]] * (len(axes) == 2), ["table", path])
    return 0
