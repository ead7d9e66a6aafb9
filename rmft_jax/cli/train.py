"""The command `rmft train`."""

import dataclasses
from pathlib import Path
from typing import Annotated

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
