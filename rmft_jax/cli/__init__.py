"""The command `rmft`. Thin: it parses, calls, and turns errors into one line and an exit code."""

import importlib
import importlib.metadata
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

# By name: the module in this package and its function, which maps words to an exit code.
COMMANDS = {
    "train": ("train", "train"),
    "evaluate": ("evaluate", "evaluate"),
    "sweep": ("sweep", "sweep"),
    "bench-agents": ("bench", "bench_agents"),
    "plot": ("plot", "plot"),
    "report": ("report", "report"),
    "show": ("show", "show"),
    "serve": ("serve", "serve"),
    "table": ("plot", "table"),
    "runs": ("runs", "runs"),
    "presets": ("names", "presets"),
    "environments": ("names", "environments"),
    "choices": ("names", "choices"),
    "completion": ("completion", "completion"),
}

_BY_SIGNAL = 128

# At most 80 columns, as terminals have.
_HELP = """usage: rmft COMMAND [OPTIONS]

Iterative regret-minimization fine-tuning of numerical Transformers.

commands:
  train [PRESET] --out DIR   train, evaluate and plot; --resume continues a run
  evaluate DIR               a trained policy beside the classical agents;
                             pretrained:NAME is one that comes along
  sweep SPEC --out DIR       a grid of configurations from a TOML file;
                             --dry-run says what it costs
  bench-agents ENVIRONMENT   the classical agents on one environment; --out DIR
                             keeps the results
  plot DIR [DIR ...]         the figures of a run or a sweep, or of several runs
                             side by side, also in training
  report DIR [DIR ...]       all of it in one HTML file, several side by side;
                             --watch follows a run in training
  show DIR                   dialogues of a language model, with what was kept
  serve DIR                  a chat endpoint on this machine for a language
                             model of ours, which can be tuned there
  table DIR                  its regrets as text, Markdown, LaTeX or CSV
  evaluate api:MODEL         any model behind a chat endpoint beside the
                             classical agents, on the same problems
  train api:MODEL --out DIR  the outer loop for such a model: the best of its
                             play is kept, and tunes it
  runs [DIR]                 the runs in a folder: how far they are, and what
                             their regret is
  presets [NAME]             the named configurations, or the settings of one
  environments               the named environments
  completion SHELL           what bash, zsh or fish needs to complete the words
                             of rmft
  choices                    every choice of a configuration: policies,
                             selections, objectives, ...

`rmft COMMAND --help` lists a command's options, `rmft --version` says which
version this is. Every command takes --import FILE.py or --import MODULE, as
often as wanted: code of your own that registers environments, agents, policies,
selections, objectives or figures.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns an exit code.

    0; 1 for a run that failed; 2 for wrong input; 3 for failed cells of a sweep; 128 + n after signal n.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "--version"):
        print(f"rmft {importlib.metadata.version('rmft-jax')}\n" if "--version" in argv else _HELP, end="")
        return 0
    for name in [name for name, value in os.environ.items() if name.startswith("JAX_") and not value]:
        del os.environ[name]  # As for others, set but empty is not set; JAX would not start.
    try:
        # Here, because they load JAX, xarray and tyro, which `rmft --help` does not need.
        from rmft_jax.cli.advice import with_command
        from rmft_jax.cli.common import as_typed, fail
        from rmft_jax.config import ConfigError
        from rmft_jax.running.files import RunError
        from rmft_jax.running.interruption import heeded
    except ValueError as error:  # Of JAX, for a variable of its own.
        print(f"rmft: error: cannot load JAX: {error}; try again without that variable", file=sys.stderr)
        return 2

    try:
        with heeded():
            return _call(argv)
    except (ConfigError, RunError) as error:
        return fail(with_command(str(error), argv), 2)
    except KeyboardInterrupt as stopped:
        print(f"rmft: {as_typed(str(stopped)) or 'stopped'}", file=sys.stderr)
        return _BY_SIGNAL + getattr(stopped, "signal_number", signal.SIGINT)
    except OSError as error:
        return _of_the_system(error)


def _of_the_system(error: OSError) -> int:
    from rmft_jax.cli.common import fail

    if isinstance(error, BrokenPipeError):  # Whoever reads what is printed, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BY_SIGNAL + signal.SIGPIPE
    return fail(f"{error}; files written before are whole; try again where there is room and permission", 1)


def _call(argv: Sequence[str]) -> int:
    from rmft_jax.cli.common import value_of, without_imports
    from rmft_jax.config import ConfigError
    from rmft_jax.config.checks import command_line
    from rmft_jax.config.plugins import import_all, load_plugins
    from rmft_jax.method.devices import all_devices, use_cores
    from rmft_jax.method.numerics import pinned

    if argv[0] not in COMMANDS:
        raise ConfigError(f"got command {argv[0]!r}, need one of {', '.join(COMMANDS)}; try `rmft --help`")
    module, function = COMMANDS[argv[0]]
    words, imports = without_imports(list(argv[1:]))
    try:
        command = getattr(importlib.import_module(f"rmft_jax.cli.{module}"), function)
    except UnicodeDecodeError as error:  # Of matplotlib, which reads its settings as it is loaded.
        need = "one in UTF-8, here or in your home; try renaming it"
        raise ConfigError(f"got a matplotlibrc that is no text ({error}), need {need}") from error
    if argv[0] == "train":
        # Before the first array, which may be one of imported code or of the weights to start from.
        number = value_of(words, "--num-devices")
        use_cores(int(number) if number.isdecimal() else None)
    with pinned(), command_line():
        load_plugins()
        import_all(imports)
        try:
            return command(words)
        except (RuntimeError, AssertionError):
            all_devices()  # Refuses a platform that is not there, of which JAX speaks in many ways.
            raise


def run() -> NoReturn:
    """The command as a process of its own: what it prints fits any terminal, and figures need none."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # It may lack letters of a table.
    os.environ["MPLBACKEND"] = "agg"  # Figures are files, whatever a notebook set.
    try:
        code = main()
    except KeyboardInterrupt:  # While modules were loaded.
        code = _BY_SIGNAL + signal.SIGINT
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:
        code = _BY_SIGNAL + signal.SIGPIPE
    if code >= _BY_SIGNAL:
        os._exit(code)  # What is still being compiled in a thread would turn an orderly end into a crash.
    sys.exit(code)
