"""The dialogues of language runs, played again from their weights."""

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from rmft_jax.report.markup import element
from rmft_jax.report.sources import Source

if TYPE_CHECKING:
    from rmft_jax.language.dialogues import Dialogue


def dialogues_of(source: Source, scenario: int | None = None) -> ET.Element | None:
    """The rollouts of one scenario, played and selected as in training, lowest regret first.

    None for what is no run of a language model; what stands against playing is told in `source.missing`.

    Args:
      source: a run. The cells of a sweep are shown by `rmft show DIR --cell N`.
      scenario: its number. None: the first one of which anything is kept.
    """
    if not source.writes:
        return None
    if not (source.path / "config.json").is_file():
        source.missing.append(f"dialogues of a sweep's cells; try `rmft show {source.path} --cell 0`")
        return None
    with source.guarded("dialogues"):
        # Here, because only language models need it.
        from rmft_jax.language.dialogues import rollouts_of
        from rmft_jax.running.training import load_run

        dialogues = rollouts_of(load_run(source.path, warn=source.missing.append), scenario)
        ranked = sorted(range(len(dialogues)), key=lambda number: float(dialogues[number].regret[-1]))
        kept = sum(dialogue.kept for dialogue in dialogues)
        told = f"{source.name}: scenario {dialogues[0].scenario}, {len(dialogues)} rollouts, {kept} kept"
        shown = [_dialogue(number, dialogues[number], number == ranked[0]) for number in ranked]
        return element("article", element("h3", told), *shown, class_="dialogues")
    return None


def _dialogue(number: int, dialogue: "Dialogue", open_: bool) -> ET.Element:
    word = "kept" if dialogue.kept else "not kept"
    head = element("summary", f"rollout {number}: regret {float(dialogue.regret[-1]):.2f}, ", element("strong", word))
    rows = []
    lines = zip(dialogue.rounds, dialogue.actions, dialogue.regret, dialogue.invalid, strict=True)
    for text, action, regret, invalid in lines:
        lost = element("em", f"names no arm: {action} was drawn") if invalid else None
        so_far = element("span", f"regret so far {float(regret):.2f}", class_="so-far")
        rows.append(element("li", element("q", text), lost, so_far))
    intro = element("p", dialogue.intro, class_="intro")
    return element("details", head, intro, element("ol", *rows), open=open_, class_=word.replace(" ", "-"))
