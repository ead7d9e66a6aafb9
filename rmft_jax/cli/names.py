"""The commands `rmft presets`, `rmft environments` and `rmft choices`: what can be named."""

from collections.abc import Mapping

from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.method.presets import PRESETS, TEXT_PRESETS
from rmft_jax.problems import Environment


def presets(argv: list[str]) -> int:
    """Lists the named configurations."""
    known = {name: description for name, (description, _) in [*PRESETS.items(), *TEXT_PRESETS.items()]}
    return _list("presets", known, argv)


def environments(argv: list[str]) -> int:
    """Lists the named environments."""
    return _list("environments", _descriptions(Environment.register), argv)


def choices(argv: list[str]) -> int:
    """Lists every kind of choice with its names, and the agents."""
    _list("choices", {}, argv)
    for kind, register in ChoiceRegister.kinds.items():
        if kind != "environment":
            print(f"--{kind.replace('_', '-')}")
            _list("choices", {f"  {name}": text for name, text in _descriptions(register).items()}, [])
    print(f"--environment: see `rmft environments`\nagents: {', '.join(AGENTS.names())}")
    return 0


def _descriptions(register: ChoiceRegister) -> dict[str, str]:
    return {name: register[name].description for name in register.names()}


def _list(command: str, known: Mapping[str, str], argv: list[str]) -> int:
    if argv and not {"-h", "--help"} & set(argv):
        raise ConfigError(f"got {' '.join(argv)}, need no arguments; try `rmft {command}`")
    width = max(map(len, known), default=0)
    for name, description in known.items():
        print(f"{name:{width}}  {description}")
    return 0
