"""The command `rmft train`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from rmft_jax.cli.common import fail, parse, print_summary, value_of
from rmft_jax.cli.plot import plot
from rmft_jax.config import ConfigError, RunConfig
from rmft_jax.config.checks import require
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
    num_devices: int | None = None
    """GPUs, TPU or CPU cores that share the scenarios. Default: as many as there are and divide num_scenarios."""
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train together with other processes, which all get the same words, on one host or many. Under Slurm, Open MPI,
    Kubernetes or on TPUs they find each other; elsewhere the next three say how. The first one writes --out."""
    coordinator_address: str | None = None
    """HOST:PORT of the first process."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
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


def _require_distributed(arguments: TrainArguments) -> None:
    for name in ("coordinator_address", "num_processes", "process_id"):
        value = getattr(arguments, name)
        option = f"--{name.replace('_', '-')}"
        require(
            value is None or arguments.distributed,
            f"{option} {value}",
            "--distributed beside it",
            "adding --distributed",
        )


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
    _require_distributed(arguments)

    from rmft_jax import processes, training

    if arguments.distributed:
        processes.join(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
    try:
        summary = training.train(
            config,
            arguments.out,
            preset=f"{preset_name} on {arguments.environment}" if arguments.environment else preset_name,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            num_devices=arguments.num_devices,
        )
    except training.TrainingDivergedError as error:
        return fail(str(error), 1)
    if not processes.is_first():
        return 0
    from rmft_jax.storage import RunDirectory

    title = f"{preset_name}, {config.num_test_scenarios} held-out scenarios"
    print_summary(summary["evaluation"], title, RunDirectory.open(arguments.out).read_dataset("evaluation.nc").attrs)
    print(
        f"trained in {summary['wall_seconds']:.0f} s, of which {summary['compile_seconds']:.0f} s compilation, "
        f"on {summary['device']}"
    )
    return plot([str(arguments.out)])
