"""The command `rmft`. Thin: it parses, calls, and turns errors into one line and an exit code.

JAX is imported by the commands that need it, after their arguments have been checked.
"""

import importlib
import signal
import sys
from collections.abc import Sequence

from rmft_jax.config import ConfigError

# By name: the module in this package and its function, which maps words to an exit code.
_COMMANDS = {
    "train": ("train", "train"),
    "evaluate": ("evaluate", "evaluate"),
    "sweep": ("sweep", "sweep"),
    "bench-agents": ("bench", "bench_agents"),
    "plot": ("plot", "plot"),
    "table": ("plot", "table"),
    "presets": ("bench", "presets"),
    "environments": ("bench", "environments"),
}

_HELP = """usage: rmft COMMAND [OPTIONS]

Iterative regret-minimization fine-tuning of numerical Transformers.

commands:
  train [PRESET] --out DIR    train, evaluate and plot; --resume continues a run
  evaluate DIR                a trained policy beside the classical agents; pretrained:NAME is one that comes along
  sweep SPEC --out DIR        a grid of configurations from a TOML file; --dry-run says what it costs
  bench-agents ENVIRONMENT    the classical agents on one environment
  plot DIR                    the figures of a run or a sweep
  table DIR                   its regrets as Markdown, LaTeX or CSV
  presets                     the named configurations
  environments                the named environments

`rmft COMMAND --help` lists a command's options.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns an exit code.

    0; 1 for a run that failed; 2 for wrong input; 3 for failed cells of a sweep; 128 + n after signal n.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    # Here, because they load xarray and tyro, which `rmft --help` does not need.
    from rmft_jax.cli.common import fail
    from rmft_jax.storage import RunError

    try:
        if argv[0] not in _COMMANDS:
            raise ConfigError(f"got command {argv[0]!r}, need one of {', '.join(_COMMANDS)}; try `rmft --help`")
        module, function = _COMMANDS[argv[0]]
        return getattr(importlib.import_module(f"rmft_jax.cli.{module}"), function)(argv[1:])
    except (ConfigError, RunError) as error:
        return fail(str(error), 2)
    except KeyboardInterrupt as stopped:
        print(f"rmft: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 128 + getattr(stopped, "signal_number", signal.SIGINT)
    except OSError as error:
        return fail(f"{error}; files written before are whole; try again where there is room and permission", 1)
