"""The command `rmft train`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rmft_jax.cli.common import API, duration, fail, free_place, imports, parse, print_summary, suggest, value_of
from rmft_jax.cli.plot import plot
from rmft_jax.config import ConfigError
from rmft_jax.config.checks import require
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RunConfig
from rmft_jax.running import processes, training
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.rehearsal import rehearse
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.sweeps.store import load_policy


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
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say how long the run would take and what memory it would hold, after a short trial; train and write nothing."""
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Start from trained weights: of a run, a file, pretrained:NAME, or of a sweep with --from-cell."""
    from_cell: int | None = None
    """Index of the sweep's cell to start from."""
    environment: str | None = None
    """Named environment, instead of the preset's; `rmft environments` lists them. Arm count and feedback
    stay, unless it has its own; all else is its own."""
    policy: str | None = None
    """Named policy; `rmft choices` lists them, and all further choices."""
    selection: str | None = None
    """Rule by which trajectories are kept."""
    objective: str | None = None
    """What the kept trajectories are used for."""
    update: str | None = None
    """How an iteration fine-tunes."""
    decision_map: str | None = None
    """What maps scores to play."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Logs to keep in --out beside metrics.jsonl: event files of TensorBoard, a run of Weights & Biases, offline unless
    WANDB_MODE=online. Each needs the extra of its name."""
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
    """What the options start from: the preset, or the run to resume, with the choices that `argv` names.

    Known before parsing, because every choice has options of its own.
    """
    preset, out = argv[0] if argv and not argv[0].startswith("-") else None, value_of(argv, "--out")
    if preset is None and out and "--resume" in argv:
        # A bare `--resume --out DIR` continues with the run's own configuration.
        config, preset = RunDirectory.open(Path(out)).read_config()
    else:
        preset = preset or "quickstart"
        config = get_preset(preset)
    named = {kind: value_of(argv, f"--{kind.replace('_', '-')}") for kind in ChoiceRegister.kinds}
    return TrainArguments(preset, config=config.replace(**{kind: name for kind, name in named.items() if name}))


def _require_together(arguments: TrainArguments) -> None:
    """Refuses what only another option gives a meaning to."""
    pairs = [(name, "distributed") for name in ("coordinator_address", "num_processes", "process_id")]
    for name, other in (*pairs, ("from_cell", "start")):
        value, beside = getattr(arguments, name), "--from" if other == "start" else "--distributed"
        got = f"--{name.replace('_', '-')} {value}"
        require(value is None or bool(getattr(arguments, other)), got, f"{beside} beside it", f"adding {beside}")


def _rehearse(arguments: TrainArguments, argv: list[str], start: TrainedPolicy | None) -> int:
    """Says what the run would cost."""
    config = arguments.config
    state = None if start is None else training.beginning_of(config, start)
    with ProgressReporter().status("compiling and trying the programs"):
        cost = rehearse(config, state, arguments.num_devices)
    memory = "unknown" if cost.memory is None else f"{cost.memory / 2**20:.3g} MiB on every device, beside JAX itself"
    print(
        f"device: {cost.device}\n"
        f"programs: a chunk and a validation, compiled in {duration(cost.compiling)}\n"
        f"memory: {memory}\n"
        f"training: about {duration(cost.training)} if nothing else runs ({config.rmft.num_iterations} iterations of "
        f"{cost.iteration:.3g} s, and a validation of {cost.validation:.3g} s every {config.chunk_size})\n"
        f"evaluation: {cost.num_agents} agents on {config.num_test_scenarios} scenarios, each compiled, which comes "
        "besides"
    )
    words = [word for word in argv if word not in ("--dry-run", "--no-dry-run")]
    suggest(["train", *words, *imports(), *(() if arguments.out else ("--out", free_place(arguments.preset)))])
    return 0


def train(argv: list[str]) -> int:
    """Trains, evaluates and plots."""
    if argv and argv[0].startswith(API):
        from rmft_jax.cli import api

        return api.train(argv)
    default = _train_defaults(argv)
    arguments = parse(TrainArguments, "train", argv, default)
    config, preset_name = arguments.config, arguments.preset
    if preset_name != default.preset:
        raise ConfigError(f"got preset {preset_name!r} after options; try `rmft train {preset_name} ...`")
    if arguments.out is None and not arguments.dry_run:
        raise ConfigError(f"got no --out, need a directory for the run; try --out {free_place(preset_name)}")
    config.validate()
    _require_together(arguments)
    if arguments.distributed:  # Before the first array, with which JAX starts.
        processes.join(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
    start = None if arguments.start is None else load_policy(arguments.start, arguments.from_cell)
    if arguments.dry_run:
        return _rehearse(arguments, argv, start)
    assert arguments.out is not None
    preset = f"{preset_name} on {arguments.environment}" if arguments.environment else preset_name
    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("resume", "overwrite", "num_devices", "log")}
    try:
        summary = training.train(config, arguments.out, preset=preset, start=start, **options)
    except training.TrainingDivergedError as error:
        return fail(str(error), 1)
    if not processes.is_first():
        return 0
    # Which may be another iteration than the last one, whose validation regret was printed.
    best = f"iteration {summary['checkpoint_iteration']} (lowest validation regret)"
    title = f"{preset_name}, {best}, {config.num_test_scenarios} test scenarios"
    print_summary(summary["evaluation"], title, RunDirectory.open(arguments.out).read_dataset("evaluation.nc").attrs)
    print(
        f"trained in {summary['wall_seconds']:.0f} s, of which {summary['compile_seconds']:.0f} s compilation, "
        f"on {summary['device']}"
    )
    code, told = plot([str(arguments.out)]), config.rmft.policy.name == "text"
    longer = config.rmft.policy.any_horizon
    other = ("--horizon", 2 * config.rmft.horizon) if longer else ("--seed", config.seed + 1)
    other = ("--contexts", "held-out") if told else other
    suggest(*[["show", arguments.out]] * told, ["evaluate", arguments.out, *other])
    return code
