"""The command `rmft`. Thin: it parses, calls, and turns errors into one line and an exit code.

JAX is imported by the commands that need it, after their arguments have been checked.
"""

import contextlib
import dataclasses
import io
import itertools
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from rmft_jax.config import ConfigError, RunConfig
from rmft_jax.presets import PRESETS, get_preset

_T = TypeVar("_T")
_TABLE_WIDTH = 120

_HELP = """usage: rmft COMMAND [OPTIONS]

Iterative regret-minimization fine-tuning of numerical Transformers.

commands:
  train [PRESET] --out DIR   train, evaluate and plot; --resume continues a run
  evaluate DIR               a trained policy beside the classical agents
  plot DIR                   the figures of a run
  presets                    the named configurations

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
    """Continue the run in --out, bit for bit as if it had never stopped; start it if there is none."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run in --out."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=RunConfig)


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Plays a trained policy and the classical agents on the same held-out scenarios.

    Without options the run's own evaluation is made again. With any, the result goes to DIR/evaluations.
    """

    directory: tyro.conf.Positional[Path]
    """Run directory."""
    horizon: int | None = None
    """Rounds to play, instead of the trained horizon."""
    num_arms: int | None = None
    """Arms that exist, at most as many as were trained."""
    num_scenarios: int | None = None
    """Held-out scenarios."""
    seed: int | None = None
    """Seed of the scenarios and rewards, instead of the run's own test stream."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint to load."""


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
        "plot": _plot,
        "presets": _presets,
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


def _has_words(row: str) -> bool:
    return any(map(str.isalnum, row))


def _train(argv: list[str]) -> int:
    preset = argv[0] if argv and not argv[0].startswith("-") else None
    default = TrainArguments(preset or "quickstart", config=get_preset(preset or "quickstart"))
    arguments = _parse(TrainArguments, "train", argv, default)
    if arguments.preset != default.preset:
        raise ConfigError(f"got preset {arguments.preset!r} after options; try `rmft train {arguments.preset} ...`")
    if arguments.out is None:
        raise ConfigError("got no --out, need a directory for the run; try --out runs/" + arguments.preset)
    config, preset_name = arguments.config, arguments.preset
    from rmft_jax.storage import RunDirectory

    if preset is None and arguments.resume:
        # A bare `--resume --out DIR` continues with the run's own configuration.
        saved, preset_name = RunDirectory.open(arguments.out).read_config()
        config = _parse(TrainArguments, "train", argv, TrainArguments(preset_name, config=saved)).config
    config.validate()

    from rmft_jax import training

    try:
        summary = training.train(
            config,
            arguments.out,
            preset=preset_name,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    except training.TrainingDivergedError as error:
        return _fail(str(error), 1)
    _report(summary["evaluation"], f"{preset_name}, {config.num_test_scenarios} held-out scenarios")
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
    config.validate()

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
    _report(summarize(dataset), title)
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


def _presets(argv: list[str]) -> int:
    if argv:
        raise ConfigError(f"got {' '.join(argv)}, need no arguments; try `rmft presets`")
    width = max(map(len, PRESETS))
    for name, (description, _) in PRESETS.items():
        print(f"{name:{width}}  {description}")
    return 0


def _report(summary: dict[str, dict[str, Any]], title: str) -> None:
    from rich.console import Console

    from rmft_jax.report import table

    # A pipe has no width, and a table cut to a narrow terminal would lose digits: wide lines wrap instead.
    Console(highlight=False, width=_TABLE_WIDTH).print(table(summary, title), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
