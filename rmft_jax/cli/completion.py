"""The command `rmft completion`: what a shell needs to complete commands, options and names."""

import dataclasses
import importlib
from collections.abc import Mapping

from rmft_jax.config.checks import require
from rmft_jax.config.settings import hints_of
from rmft_jax.method.presets import PRESETS, TEXT_PRESETS
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Environment, Stationary

# What a command's first word may be, beside paths.
_WORDS = {"train": "presets", "presets": "presets", "bench-agents": "environments", "completion": "shells"}
_ARGUMENTS = {
    "train": ("train", "TrainArguments"), "evaluate": ("evaluate", "EvaluateArguments"),
    "bench-agents": ("bench", "BenchArguments"), "sweep": ("sweep", "SweepArguments"),
    "plot": ("plot", "PlotArguments"), "table": ("plot", "TableArguments"), "show": ("show", "ShowArguments"),
    "serve": ("serve", "ServeArguments"), "runs": ("runs", "RunsArguments"), "report": ("report", "ReportArguments"),
}  # fmt: skip
_USAGE = """usage: rmft completion bash|zsh|fish

Prints what a shell needs to complete the words of rmft. Once:"""
_BASH = """_rmft() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$current")); return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
}}
complete -o default -F _rmft rmft
"""
_SHELLS = {
    "bash": "echo 'eval \"$(rmft completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(rmft completion zsh)\"' >> ~/.zshrc",
    "fish": "rmft completion fish > ~/.config/fish/completions/rmft.fish",
}


def completion(argv: list[str]) -> int:
    """Prints what a shell has to read."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        for shell, words in _SHELLS.items():
            print(f"  {shell:5} {words}")
        return 0
    require(argv[0] in _SHELLS and len(argv) == 1, " ".join(argv), f"one of {', '.join(_SHELLS)}", "bash")
    from rmft_jax.cli import COMMANDS

    words = {name: " ".join([*_first_words(name), *_options(name)]) for name in COMMANDS}
    if argv[0] == "fish":
        print("complete -c rmft -n __fish_use_subcommand -f -a '" + " ".join(COMMANDS) + "'")
        for name, options in words.items():
            print(f"complete -c rmft -n '__fish_seen_subcommand_from {name}' -a '{options}'")
        return 0
    cases = "\n".join(f'    {name}) COMPREPLY=($(compgen -W "{text}" -- "$current"));;' for name, text in words.items())
    if argv[0] == "zsh":
        print("autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit")
    print(_BASH.format(commands=" ".join(COMMANDS), cases=cases), end="")
    return 0


def _first_words(command: str) -> list[str]:
    known: Mapping[str, list[str]] = {
        "presets": [*PRESETS, *TEXT_PRESETS],
        "environments": Environment.register.names(),
        "shells": [*_SHELLS],
    }
    return known.get(_WORDS.get(command, ""), [])


def _options(command: str) -> list[str]:
    """Options of a command, those of its settings by default included."""
    if command not in _ARGUMENTS:
        return ["--help"]
    module, name = _ARGUMENTS[command]
    arguments = getattr(importlib.import_module(f"rmft_jax.cli.{module}"), name)
    fields = [field for field in dataclasses.fields(arguments) if "Positional" not in str(field.type)]
    names = ["from" if field.name == "start" else field.name for field in fields if field.name != "config"]
    if command == "train":
        names += [name for name in RunConfig().flat() if name not in names]
    if command == "bench-agents":
        names += [name for name in hints_of(Stationary) if name not in names]
    return [f"--{name.replace('_', '-')}" for name in [*names, "import", "help"]]
