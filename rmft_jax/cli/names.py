"""The commands `rmft presets`, `rmft environments` and `rmft choices`: what can be named."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from rmft_jax.agents.register import AGENTS
from rmft_jax.cli.common import free_place, suggest, wrapped
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.config.words import named_briefly
from rmft_jax.method.presets import PRESETS, TEXT_PRESETS, get_preset
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Environment


def presets(argv: list[str]) -> int:
    """Lists the named configurations, or the settings of one."""
    known = {name: description for name, (description, _) in [*PRESETS.items(), *TEXT_PRESETS.items()]}
    if len(argv) == 1 and not argv[0].startswith("-"):
        return _settings(argv[0], known)
    _list("presets", known, argv)
    suggest(["presets", "mab"], ["train", "mab", "--out", free_place("mab")])
    return 0


def _settings(name: str, known: Mapping[str, str]) -> int:
    """Every setting of a preset, its value, and what it means; a star where it is not as by default."""
    config, default = get_preset(name), RunConfig().flat()
    print(wrapped(known[name], f"{name}: "))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for setting, value, text in config.explained():
        differs = setting not in default or value != default[setting]
        table.add_row(setting, f"{'* ' if differs else '  '}{named_briefly(value)}", text)
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, 80) if console.is_terminal else 120).print(table, markup=False)
    print("* differs from the default")
    suggest(["train", name, "--out", free_place(name)], ["train", name, "--help"])
    return 0


def environments(argv: list[str]) -> int:
    """Lists the named environments."""
    _list("environments", _descriptions(Environment.register), argv)
    suggest(["bench-agents", "bernoulli", "--out", free_place("agents")])
    return 0


def choices(argv: list[str]) -> int:
    """Lists every kind of choice with its names, and the agents."""
    _list("choices", {}, argv)
    for kind, register in ChoiceRegister.kinds.items():
        if kind != "environment":
            print(f"--{kind.replace('_', '-')}")
            _list("choices", {f"  {name}": text for name, text in _descriptions(register).items()}, [])
    print("--environment: see `rmft environments`")
    print(wrapped(", ".join(AGENTS.names()), "agents: "))
    suggest(["train", "quickstart", "--selection", "advantage", "--k", "1", "--out", free_place("advantage")])
    return 0


def _descriptions(register: ChoiceRegister) -> dict[str, str]:
    return {name: register[name].description for name in register.names()}


def _list(command: str, known: Mapping[str, str], argv: list[str]) -> int:
    if argv and not {"-h", "--help"} & set(argv):
        or_name = " or the name of one" if command == "presets" else ""
        raise ConfigError(f"got {' '.join(argv)}, need no arguments{or_name}; try `rmft {command}`")
    width = max(map(len, known), default=0)
    for name, description in known.items():
        print(wrapped(description, f"{name:{width}}  "))
    return 0
