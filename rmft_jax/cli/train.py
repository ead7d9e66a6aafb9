"""The commands `rmft train` and `rmft evaluate`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rmft_jax.cli.common import fail, parse, print_summary, value_of
from rmft_jax.cli.plot import plot
from rmft_jax.config import ConfigError, RunConfig
from rmft_jax.presets import get_environment, get_preset


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


def _train_defaults(argv: list[str]) -> TrainArguments:
    """What the options start from: the preset, or the run to resume, with the environment that `argv` names.

    Known before parsing, because every environment has options of its own.
    """
    preset, out = argv[0] if argv and not argv[0].startswith("-") else None, value_of(argv, "--out")
    if preset is None and out and "--resume" in argv:
        # A bare `--resume --out DIR` continues with the run's own configuration.
        from rmft_jax.storage import RunDirectory

        config, preset = RunDirectory.open(Path(out)).read_config()
    else:
        preset = preset or "quickstart"
        config = get_preset(preset)
    if name := value_of(argv, "--environment"):
        rmft = dataclasses.replace(config.rmft, environment=get_environment(name))
        config = dataclasses.replace(config, rmft=rmft)
    return TrainArguments(preset, config=config)


def train(argv: list[str]) -> int:
    """Trains, evaluates and plots."""
    default = _train_defaults(argv)
    arguments = parse(TrainArguments, "train", argv, default)
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
        return fail(str(error), 1)
    from rmft_jax.storage import RunDirectory

    title = f"{preset_name}, {config.num_test_scenarios} held-out scenarios"
    print_summary(summary["evaluation"], title, RunDirectory.open(arguments.out).read_dataset("evaluation.nc").attrs)
    print(
        f"trained in {summary['wall_seconds']:.0f} s, of which {summary['compile_seconds']:.0f} s compilation, "
        f"on {summary['device']}"
    )
    return plot([str(arguments.out)])


def evaluate(argv: list[str]) -> int:
    """Evaluates a trained policy."""
    arguments = parse(EvaluateArguments, "evaluate", argv)
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
    print_summary(summarize(dataset), title, dataset.attrs)
    print(f"dataset: {path}")
    return 0
