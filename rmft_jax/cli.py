"""The command `rmft`. Thin: it parses, calls, and turns errors into one line and an exit code.

JAX is imported by the commands that need it, after their arguments have been checked.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from rmft_jax.config import BanditConfig, ConfigError, EnvironmentConfig, RunConfig, environment_to_dict
from rmft_jax.config.checks import require_count, require_seed
from rmft_jax.presets import ENVIRONMENTS, PRESETS, get_environment, get_preset

_T = TypeVar("_T")
_TABLE_WIDTH = 120

_HELP = """usage: rmft COMMAND [OPTIONS]

Iterative regret-minimization fine-tuning of numerical Transformers.

commands:
  train [PRESET] --out DIR    train, evaluate and plot; --resume continues a run
  evaluate DIR                a trained policy beside the classical agents
  bench-agents ENVIRONMENT    the classical agents on one environment
  plot DIR                    the figures of a run
  presets                     the named configurations
  environments                the named environments

`rmft COMMAND --help` lists a command's options.
"""


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Trains a policy, evaluates it beside the classical agents, and draws the figures."""

    preset: tyro.conf.Positional[str] = "quickstart"
    """Named configuration to start from; `rmft presets` lists them."""
    out: Path | None = None
    """Run directory to make (required)."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in --out, bit for bit as if it had never stopped; with a preset, start it if there is none."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run in --out."""
    environment: str | None = None
    """Named environment, instead of the preset's; `rmft environments` lists them."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=RunConfig)


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Plays a trained policy and the classical agents on the same held-out scenarios.

    Without options the run's own evaluation is made again. With any, the result goes to DIR/evaluations.
    """

    directory: tyro.conf.Positional[Path]
    """Run directory."""
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


@dataclasses.dataclass(frozen=True)
class BenchArguments:
    """Plays the classical agents that fit an environment on the same scenarios."""

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
    """Directory for the dataset (agents.nc) and the figures."""
    config: Annotated[EnvironmentConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=BanditConfig)


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draws the figures of a run into DIR/figures."""

    directory: tyro.conf.Positional[Path]
    """Run directory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 for a run that failed, 2 for wrong input, 128 + n after signal n."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "evaluate": _evaluate,
        "bench-agents": _bench_agents,
        "plot": _plot,
        "presets": functools.partial(_list, "presets", PRESETS),
        "environments": functools.partial(_list, "environments", ENVIRONMENTS),
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    from rmft_jax.storage import RunError  # Here, because it loads xarray, which `rmft --help` does not need.

    try:
        if argv[0] not in commands:
            raise ConfigError(f"got command {argv[0]!r}, need one of {', '.join(commands)}; try `rmft --help`")
        return commands[argv[0]](argv[1:])
    except (ConfigError, RunError) as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as stopped:
        print(f"rmft: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 128 + getattr(stopped, "signal_number", signal.SIGINT)
    except OSError as error:
        return _fail(f"{error}; files written before are whole; try again where there is room and permission", 1)


def _fail(message: str, code: int) -> int:
    print(f"rmft: error: {message}", file=sys.stderr)
    return code


def _parse(kind: type[_T], command: str, argv: list[str], default: _T | None = None) -> _T:
    """Parses arguments with tyro; what it has to complain about becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=f"rmft {command}",
                args=argv,
                config=(tyro.conf.OmitArgPrefixes,),
                default=default if default is not None else tyro.MISSING_NONPROP,
            )
    except SystemExit as error:
        if error.code in (0, None):
            raise
        # Tyro draws a box, of lines or of blanks: a title, the complaint, a rule, and where to find help.
        rows = [line.strip("│ ") for line in complaint.getvalue().splitlines()[1:]]
        rows = itertools.dropwhile(lambda row: not _has_words(row), rows)
        text = " ".join(itertools.takewhile(_has_words, rows))
        raise ConfigError(f"{text.rstrip('.')}; try `rmft {command} --help`") from None


def _train_defaults(argv: list[str]) -> TrainArguments:
    """What the options start from: the preset, or the run to resume, with the environment that `argv` names.

    Known before parsing, because every environment has options of its own.
    """
    preset, out = argv[0] if argv and not argv[0].startswith("-") else None, _value_of(argv, "--out")
    if preset is None and out and "--resume" in argv:
        # A bare `--resume --out DIR` continues with the run's own configuration.
        from rmft_jax.storage import RunDirectory

        config, preset = RunDirectory.open(Path(out)).read_config()
    else:
        preset = preset or "quickstart"
        config = get_preset(preset)
    if name := _value_of(argv, "--environment"):
        rmft = dataclasses.replace(config.rmft, environment=get_environment(name))
        config = dataclasses.replace(config, rmft=rmft)
    return TrainArguments(preset, config=config)


def _value_of(argv: list[str], option: str) -> str:
    """The value of an option, written with a blank or with `=`; empty if it is not there."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith(f"{option}=") else [word])]
    return dict(itertools.pairwise(words)).get(option, "")


def _has_words(row: str) -> bool:
    return any(map(str.isalnum, row))


def _train(argv: list[str]) -> int:
    default = _train_defaults(argv)
    arguments = _parse(TrainArguments, "train", argv, default)
    config, preset_name = arguments.config, arguments.preset
    if preset_name != default.preset:
        raise ConfigError(f"got preset {preset_name!r} after options; try `rmft train {preset_name} ...`")
    if arguments.out is None:
        raise ConfigError(f"got no --out, need a directory for the run; try --out runs/{preset_name}")
    config.validate()

    from rmft_jax import training

    try:
        summary = training.train(
            config,
            arguments.out,
            preset=f"{preset_name} on {arguments.environment}" if arguments.environment else preset_name,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    except training.TrainingDivergedError as error:
        return _fail(str(error), 1)
    from rmft_jax.storage import RunDirectory

    title = f"{preset_name}, {config.num_test_scenarios} held-out scenarios"
    _report(summary["evaluation"], title, RunDirectory.open(arguments.out).read_dataset("evaluation.nc").attrs)
    print(
        f"trained in {summary['wall_seconds']:.0f} s, of which {summary['compile_seconds']:.0f} s compilation, "
        f"on {summary['device']}"
    )
    return _plot([str(arguments.out)])


def _evaluate(argv: list[str]) -> int:
    arguments = _parse(EvaluateArguments, "evaluate", argv)
    from rmft_jax.storage import RunDirectory

    run = RunDirectory.open(arguments.directory)
    for name, minimum in (("horizon", 1), ("num_scenarios", 2), ("num_arms", 2), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < minimum:
            raise ConfigError(f"got {name}={value}, need at least {minimum}; try leaving it out")
    config, preset = run.read_config()
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

    agent, iteration = training.load_agent(run, arguments.checkpoint, lambda line: print(line, file=sys.stderr))
    key = training.RunKeys.create(config.seed).test
    dataset = training.evaluate_run(config, agent, key, num_arms=arguments.num_arms)
    asked = {
        name: value
        for name, value in dataclasses.asdict(arguments).items()
        if name != "directory" and value not in (None, "best")
    }
    name = "evaluation.nc"
    if asked:
        name = f"evaluations/{','.join(f'{key}={value}' for key, value in asked.items())}.nc"
    path = run.write_dataset(name, dataset)
    title = f"{preset}, iteration {iteration}, T={config.rmft.horizon}, {config.num_test_scenarios} held-out scenarios"
    _report(summarize(dataset), title, dataset.attrs)
    print(f"dataset: {path}")
    return 0


def _plot(argv: list[str]) -> int:
    arguments = _parse(PlotArguments, "plot", argv)
    from rmft_jax.storage import RunDirectory

    run = RunDirectory.open(arguments.directory)
    metrics, evaluation = run.read_dataset("metrics.nc"), run.read_dataset("evaluation.nc")

    from rmft_jax import plotting

    for path in plotting.plot_run(metrics, evaluation, run.figures):
        print(f"figure: {path} (and .pdf)")
    return 0


def _bench_agents(argv: list[str]) -> int:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is None and not {"-h", "--help"} & set(argv):
        raise ConfigError("got no environment, need its name first; try `rmft bench-agents bernoulli`")
    default = BenchArguments(name or "bernoulli", config=get_environment(name or "bernoulli"))
    arguments = _parse(BenchArguments, "bench-agents", argv, default)
    config, horizon = arguments.config, arguments.horizon
    for field, minimum in (("horizon", 1), ("num_scenarios", 2)):
        require_count(getattr(arguments, field), field, minimum, getattr(default, field))
    require_seed(arguments.seed)
    config.validate(horizon)

    from rmft_jax.agents import make_agents
    from rmft_jax.benchmark import bench_agents
    from rmft_jax.progress import ProgressReporter
    from rmft_jax.report import summarize
    from rmft_jax.storage import write_dataset, write_json

    agents = make_agents(config, horizon, arguments.agents or None)
    for directory in (arguments.json and arguments.json.parent, arguments.out):
        if directory is not None:  # Fails now, not after the work, where nothing can be written.
            directory.mkdir(parents=True, exist_ok=True)
    started, what = time.perf_counter(), "tuning and playing" if arguments.tune else "playing"
    size = f"{len(agents)} agents on {arguments.num_scenarios} scenarios of {horizon} rounds"
    with ProgressReporter().status(f"{what} {size}"):
        dataset, constants = bench_agents(
            config,
            horizon=horizon,
            num_scenarios=arguments.num_scenarios,
            seed=arguments.seed,
            agents=agents,
            tune=arguments.tune,
        )
        summary = summarize(dataset)
    title = f"{name}, K={config.num_arms}, T={horizon}, {arguments.num_scenarios} scenarios"
    _report(summary, title, dataset.attrs)
    if arguments.tune:
        print("tuned: " + ", ".join(f"{agent} {value:.3g}" for agent, value in constants.items()))
    print(f"{len(summary)} agents in {time.perf_counter() - started:.0f} s, compilation included")
    if arguments.json is not None:
        intervals = ("regret_mean", "regret_ci95")
        content = {
            "environment": name,
            "horizon": horizon,
            "num_arms": config.num_arms,
            "num_scenarios": arguments.num_scenarios,
            "seed": arguments.seed,
            "settings": environment_to_dict(config),
            "regret": dataset.attrs["regret"],
            "constants": constants,
            "agents": {agent: {key: row[key] for key in intervals} for agent, row in summary.items()},
        }
        write_json(arguments.json, content)
    if arguments.out is not None:
        print(f"dataset: {write_dataset(arguments.out / 'agents.nc', dataset)}")

        from rmft_jax import plotting

        for path in plotting.plot_evaluation(dataset, arguments.out):
            print(f"figure: {path} (and .pdf)")
    return 0


def _list(command: str, register: dict[str, Any], argv: list[str]) -> int:
    if argv and not {"-h", "--help"} & set(argv):
        raise ConfigError(f"got {' '.join(argv)}, need no arguments; try `rmft {command}`")
    width = max(map(len, register))
    for name, (description, _) in register.items():
        print(f"{name:{width}}  {description}")
    return 0


def _report(summary: dict[str, dict[str, Any]], title: str, attributes: dict[str, Any]) -> None:
    from rich.console import Console

    from rmft_jax.report import table

    # A pipe has no width, and a table cut to a narrow terminal would lose digits: wide lines wrap instead.
    rows = table(summary, title, attributes["regret"], attributes["reference"])
    Console(highlight=False, width=_TABLE_WIDTH).print(rows, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
