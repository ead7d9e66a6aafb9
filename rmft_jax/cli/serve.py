"""The command `rmft serve`."""

import contextlib
import dataclasses
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from rmft_jax.cli.common import parse
from rmft_jax.config.checks import require, require_count
from rmft_jax.method.presets import TEXT_PRESETS, get_preset
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import PREFIX, TrainedPolicy
from rmft_jax.sweeps.store import load_policy


@dataclasses.dataclass(frozen=True)
class ServeArguments:
    """Answers chat completions and fine-tuning jobs with a language model of our own, for this machine alone.

    What clients know of the API of OpenAI is enough: /v1/chat/completions, /v1/models, /v1/files and
    /v1/fine_tuning/jobs. Models that are tuned are kept, and are there again when the server is started again.
    """

    directory: tyro.conf.Positional[str]
    """Directory of a run or a sweep, a file of weights, pretrained:NAME, or a preset such as text-toy, for the model
    before RMFT."""
    cell: int | None = None
    """Index of the sweep's cell."""
    port: int = 8000
    """Port of this machine; 0: one that is free."""
    name: str | None = None
    """What clients call the model. Default: the name of the directory, the file or the preset."""
    out: Path | None = None
    """Directory for tuned models. Default: `served` in the directory of the run, or runs/served/NAME."""
    wording: Literal["bare", "chat"] = "bare"
    """How clients put dialogues into messages: `bare`, as `rmft evaluate api:... --wording bare` does, for models that
    know the text of dialogues, as ours do; or `chat`, where each message is a line."""
    max_tokens: int = 256
    """Tokens of an answer, whatever a client asks for."""
    epochs: int = 3
    """Of tuning: how often each example is seen."""
    step_size: float = 1e-3
    """Of tuning: of Adam."""
    batch_size: int = 8
    """Of tuning: examples of an update."""


def serve(argv: list[str]) -> int:
    """Serves until it is stopped."""
    arguments = parse(ServeArguments, "serve", argv)
    require_count(arguments.port, "port", 0, 8000)
    require(arguments.port < 2**16, f"port={arguments.port}", "a port below 65536", "--port 8000")
    from rmft_jax.language.api import server as service
    from rmft_jax.language.api.likelihood import TuneSettings
    from rmft_jax.language.api.own import OwnModel

    shared: dict[str, Any] = {name: getattr(arguments, name) for name in ("epochs", "step_size", "batch_size")}
    settings = TuneSettings(**shared)
    name, folder = _place(arguments)
    own = OwnModel(
        _opened(arguments),
        name,
        folder,
        wording=arguments.wording,
        settings=settings,
        most_tokens=arguments.max_tokens,
    )
    options: dict[str, Any] = {"port": arguments.port, "models": own.names, "count_tokens": own.count_tokens}
    options["most_tokens"] = arguments.max_tokens
    with _stopped_by_signals(), service.serve(own.reply, own.tune, session=f"{secrets.token_hex(3)}-", **options) as it:
        print(f"serving {', '.join(own.names)} at {it.url}; Ctrl-C stops it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            it.wait()
        counts = it.counts
    again = sum(counts.paid.values()) - len(counts.paid)
    print(
        f"stopped: {counts.answered} answers, {again} of them given before, {counts.prompt_tokens} tokens of prompts "
        f"and {counts.completion_tokens} of answers, {counts.jobs} jobs"
    )
    return 0


def _opened(arguments: ServeArguments) -> TrainedPolicy:
    """The policy; that of a preset is the model before RMFT."""
    source = arguments.directory
    if source not in TEXT_PRESETS or Path(source).exists():
        return load_policy(source, arguments.cell)
    config = get_preset(source)
    params = config.rmft.init_params(RunKeys.create(config.seed).train)
    return TrainedPolicy(config.rmft.agent(params), config, source, {})


def _place(arguments: ServeArguments) -> tuple[str, Path]:
    """The name of the model, and the directory of those that are tuned from it."""
    source = Path(arguments.directory.removeprefix(PREFIX))
    known = source.name.removesuffix(".npz") or source.resolve().name
    cell = "" if arguments.cell is None else f"-{arguments.cell}"
    name = arguments.name or f"{known}{cell}"
    require(bool(name) and "/" not in name, f"name={name!r}", "a word", "--name toy")
    if arguments.out is not None:
        return name, arguments.out
    return name, source / f"served{cell}" if source.is_dir() else Path("runs/served") / name


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Inside it, a process is stopped as by Ctrl-C also where shells start it in the background."""

    def stop(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
