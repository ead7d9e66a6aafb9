"""HTML elements, which escape whatever they hold."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

Content = ET.Element | str | None


def element(tag: str, *content: Content, **attributes: str | bool) -> ET.Element:
    """An HTML element.

    Args:
      tag: its name.
      content: elements and texts in their order; None is nothing.
      attributes: a trailing `_` is cut, and `_` becomes `-`; True is an attribute without a value, False is none.
    """
    kept = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not False}
    made = ET.Element(tag, {name: "" if value is True else str(value) for name, value in kept.items()})
    for part in content:
        if isinstance(part, ET.Element):
            made.append(part)
        elif part is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + _allowed(part)
        elif part is not None:
            made.text = (made.text or "") + _allowed(part)
    return made


def html_of(made: ET.Element) -> str:
    """The element as text."""
    return ET.tostring(made, encoding="unicode", method="html")


def section(name: str, title: str, *content: Content) -> ET.Element:
    """A section with a heading, to which `#name` leads."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def description(values: Iterable[tuple[str, str]]) -> ET.Element:
    """Names with their values."""
    pairs = [part for name, value in values for part in (element("dt", name), element("dd", value))]
    return element("dl", *pairs)


def table(caption: str, head: Sequence[Content], rows: Iterable[ET.Element], *, sortable: bool = False) -> ET.Element:
    """A table, whose columns can be sorted by where the page's script finds `data-value` in its cells."""
    cells = [element("th", one, scope="col") for one in head]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
        class_="sortable" if sortable else "plain",
    )
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _allowed(text: str) -> str:
    """The text without control characters, which HTML has no place for."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
