"""The command `rmft evaluate`."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rmft_jax.cli.common import gathered, parse, print_summary
from rmft_jax.config import ConfigError, RunConfig
from rmft_jax.config.checks import require
from rmft_jax.sweeps.spec import Value, parsed_axis

_PRETRAINED = "pretrained:"


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Plays a trained policy and the classical agents on the same held-out scenarios.

    `pretrained:NAME` in place of DIR is a policy that comes with the package; its results go to runs/pretrained/NAME.
    Without options the run's own evaluation is made again. With any, the result goes to DIR/evaluations. With --grid it
    is a dataset over all combinations, with a heat map in DIR/figures.
    """

    directory: tyro.conf.Positional[Path]
    """Run directory, or pretrained:NAME."""
    horizon: int | None = None
    """Rounds to play, instead of the trained horizon. Laws that depend on it, such as trends, stretch with it."""
    num_arms: int | None = None
    """Arms that exist, at most as many as were trained."""
    num_scenarios: int | None = None
    """Held-out scenarios."""
    seed: int | None = None
    """Seed of the scenarios and rewards, instead of the run's own test stream."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint to load."""
    grid: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,VALUE ...")] = ()
    """Values of horizon, of environment (a name) or of a setting of environments such as num_arms, of which every
    combination is played; may be repeated."""


def evaluate(argv: list[str]) -> int:
    """Evaluates a trained policy."""
    arguments = parse(EvaluateArguments, "evaluate", gathered(argv, "--grid"))
    axes = _axes(arguments)
    run, config, preset, load = _opened(arguments)
    for name, minimum in (("horizon", 1), ("num_scenarios", 2), ("num_arms", 2), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ConfigError(f"got {name}={value}, need at least {minimum}; try leaving it out")
    config = dataclasses.replace(
        config,
        rmft=dataclasses.replace(config.rmft, horizon=arguments.horizon or config.rmft.horizon),
        num_test_scenarios=arguments.num_scenarios or config.num_test_scenarios,
        seed=config.seed if arguments.seed is None else arguments.seed,
    )
    try:
        config.validate()
    except ConfigError as error:  # All that can be changed here is the horizon.
        raise ConfigError(f"{str(error).split('; try')[0]}; try a longer --horizon") from error

    from rmft_jax import training
    from rmft_jax.report import summarize

    agent, iteration = load()
    asked = {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name != "directory" and value not in (None, "best", ())
    }
    name = ",".join(f"{key}={'+'.join(axes) if key == 'grid' else value}" for key, value in asked.items())
    title = f"{preset}, iteration {iteration}"
    if axes:
        return _grid(run, config, agent, axes, title, f"evaluations/{name}.nc")
    key = training.RunKeys.create(config.seed).test
    dataset = training.evaluate_run(config, agent, key, num_arms=arguments.num_arms)
    path = run.write_dataset(f"evaluations/{name}.nc" if name else "evaluation.nc", dataset)
    title = f"{title}, T={config.rmft.horizon}, {config.num_test_scenarios} held-out scenarios"
    print_summary(summarize(dataset), title, dataset.attrs)
    print(f"dataset: {path}")
    return 0


def _opened(arguments: EvaluateArguments) -> tuple[Any, RunConfig, str, Callable[[], tuple[Any, int]]]:
    """The directory for the results, the configuration, its preset, and what loads the policy and its iteration."""
    from rmft_jax.storage import RunDirectory

    if not str(arguments.directory).startswith(_PRETRAINED):
        run = RunDirectory.open(arguments.directory)

        def load() -> tuple[Any, int]:
            from rmft_jax import training

            return training.load_agent(run, arguments.checkpoint, lambda line: print(line, file=sys.stderr))

        return run, *run.read_config(), load
    require(
        arguments.checkpoint == "best",
        f"--checkpoint {arguments.checkpoint} with {arguments.directory}",
        "the one that comes with the package",
        "leaving it out",
    )
    from rmft_jax.pretrained import load_pretrained

    name = str(arguments.directory).removeprefix(_PRETRAINED)
    policy = load_pretrained(name)
    run = RunDirectory(Path("runs/pretrained") / name)
    return run, policy.config, policy.preset, lambda: (policy.agent, policy.provenance["iteration"])


def _axes(arguments: EvaluateArguments) -> dict[str, tuple[Value, ...]]:
    axes: dict[str, tuple[Value, ...]] = {}
    for word in arguments.grid:
        name, equals, values = word.partition("=")
        require(bool(name and equals and values), f"--grid {word}", "NAME=VALUE,VALUE", "--grid horizon=50,100")
        require(name not in axes, f"--grid {name} twice", "each name once", f"--grid {word}")
        for option in ("horizon", "num_arms"):
            clash = name == option and getattr(arguments, option) is not None
            require(not clash, f"--grid {name} and --{option.replace('_', '-')}", "one of them", f"--grid {word}")
        axes[name] = parsed_axis(name, values.split(","))
    return axes


def _grid(run: Any, config: RunConfig, agent: Any, axes: Mapping[str, Sequence[Value]], title: str, name: str) -> int:
    from rmft_jax import tables
    from rmft_jax.engine.generalization import evaluate_grid
    from rmft_jax.progress import ProgressReporter

    count = 1
    for values in axes.values():
        count *= len(values)
    with ProgressReporter().sweep(count, 0) as bar:
        dataset = evaluate_grid(config, agent, axes, watch=bar.add)
    path = run.write_dataset(name, dataset)
    print(f"{title}, trained at K={config.rmft.environment.num_arms}, T={config.rmft.horizon}")
    played = {str(name) for name in dataset["agent"].values}
    beside = [name for name in dict.fromkeys(["ucb1", str(dataset.attrs.get("reference"))]) if name in played]
    if len(axes) <= 2:
        rows, columns = (*axes, None)[:2]
        print(tables.table(dataset, rows, columns, baselines=None if columns is None else beside), end="")
    print(f"dataset: {path}")
    if len(axes) in (2, 3):
        from rmft_jax import plotting

        by, compared = (list(axes)[2], beside[-1:]) if len(axes) == 3 else (None, beside)
        figure = plotting.plot_heatmap(dataset, by=by, relative_to=compared or None)
        for written in plotting.save_figure(figure, run.figures / "grid")[:1]:
            print(f"figure: {written} (and .pdf, .csv); `rmft plot {path} --kind heatmap` has more")
    return 0
