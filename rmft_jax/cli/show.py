"""The command `rmft show`."""

import dataclasses
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.text import Text

from rmft_jax.cli.common import parse
from rmft_jax.config.checks import require_count
from rmft_jax.sweeps.store import load_policy

if TYPE_CHECKING:
    from rmft_jax.language.dialogues import Dialogue


@dataclasses.dataclass(frozen=True)
class ShowArguments:
    """Prints dialogues of a trained language model: rollouts of one scenario, played and selected as in training.

    What was kept is green. The number at the left of each round is the regret so far.
    """

    directory: tyro.conf.Positional[str]
    """Directory of a run or a sweep, or a file of weights."""
    cell: int | None = None
    """Index of the sweep's cell."""
    scenario: int = 0
    """Number of the scenario."""
    num_shown: int = 2
    """Dialogues to print: those of lowest and of highest regret."""


def show(argv: list[str]) -> int:
    """Prints dialogues."""
    arguments = parse(ShowArguments, "show", argv)
    require_count(arguments.num_shown, "num_shown", 1, 2)
    from rmft_jax.language.dialogues import rollouts_of

    dialogues = rollouts_of(load_policy(arguments.directory, arguments.cell), arguments.scenario)
    ranked = sorted(range(len(dialogues)), key=lambda number: float(dialogues[number].regret[-1]))
    lowest = ranked[: -(-arguments.num_shown // 2)]
    chosen = lowest + ranked[len(lowest) :][::-1][: arguments.num_shown - len(lowest)]
    console = Console(highlight=False, width=120)
    console.print(f"scenario {arguments.scenario}, {len(dialogues)} rollouts, {len(chosen)} of them shown")
    for number in chosen:
        _print(console, number, dialogues[number])
    return 0


def _print(console: Console, number: int, dialogue: "Dialogue") -> None:
    colour, word = ("green", "kept") if dialogue.kept else ("red", "not kept")
    final = float(dialogue.regret[-1])
    console.print(Text(f"\nrollout {number}: regret {final:.2f}, {word}", style=f"bold {colour}"))
    console.print(Text(dialogue.intro, style="italic"))
    rows = zip(dialogue.rounds, dialogue.actions, dialogue.regret, dialogue.invalid, strict=True)
    for text, action, regret, invalid in rows:
        line = Text(f"{float(regret):7.2f}  ", style="dim")
        line.append(text.replace("\n", " | "), style=colour)
        if invalid:
            line.append(f"  (names no arm: {action} was drawn)", style="yellow")
        console.print(line, soft_wrap=True)
