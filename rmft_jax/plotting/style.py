"""How figures look: the agents' lines, the sizes and fonts of a paper's column."""

import contextlib
import io
import textwrap
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from rmft_jax.config.checks import require
from rmft_jax.statistics.labels import AGENT_LABELS, agent_label, value_label


class Style(NamedTuple):
    """How an agent is drawn, everywhere the same."""

    label: str
    color: str
    line: Any


# Colours of Okabe and Ito (2008), which remain apart for colour-blind readers, without their yellow, which is too
# light for a line on white; grey stands in for it. Line styles tell agents of one colour apart, and all in print.
_ORANGE, SKY, _GREEN, _BLUE, _VERMILION, _PURPLE, _BLACK, _GREY = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#000000", "#777777"
)  # fmt: skip
_SOLID, _DASH, _DOTS, _DASH_DOT = "-", "--", ":", "-."
_LONG, _WIDE_DOTS, _DASH_DOT_DOT, _SHORT = (0, (6, 1)), (0, (1, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 1))
_UNKNOWN = (0, (7, 1, 2, 1)), (0, (3, 1, 3, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1, 1, 1))
# A colour is a family, a dash a member of it.
_LOOKS: dict[str, tuple[str, Any]] = {
    "rmft": (_VERMILION, _SOLID),
    "rmft_held_out": (_VERMILION, _DASH_DOT),
    "rmft_start": (_VERMILION, _DOTS),
    "bayes_optimal": (_BLACK, _SOLID),
    "gittins": (_BLACK, _DASH),
    "change_point_index": (_BLACK, _DASH_DOT),
    "posterior_index": (SKY, _DASH_DOT_DOT),
    "discounted_index": (SKY, _LONG),
    "thompson": (_BLUE, _DASH),
    "discounted_thompson": (_BLUE, _DASH_DOT),
    "ucb1": (_GREEN, _DASH_DOT),
    "ucb": (_GREEN, _DASH),
    "kl_ucb": (_GREEN, _LONG),
    "moss": (_GREEN, _DOTS),
    "discounted_ucb": (_GREEN, _DASH_DOT_DOT),
    "sliding_window_ucb": (_PURPLE, _SHORT),
    "greedy": (_PURPLE, _DOTS),
    "epsilon_greedy": (_ORANGE, _DASH_DOT_DOT),
    "explore_then_commit": (_PURPLE, _DASH),
    "exp3": (_ORANGE, _DASH),
    "exp3_ix": (_ORANGE, _LONG),
    "exp3_p": (_ORANGE, _DOTS),
    "rexp3": (_ORANGE, _DASH_DOT),
    "tsallis_inf": (SKY, _DASH_DOT),
    "hedge": (SKY, _DASH),
    "hedge_anytime": (SKY, _DOTS),
    "ftrl": (_BLUE, _LONG),
    "ftpl": (_BLUE, _DOTS),
    "follow_the_leader": (_PURPLE, _DASH_DOT),
    "uniform": (_GREY, _WIDE_DOTS),
    "best_fixed_arm": (_GREY, _SOLID),
    "best_arm": (_GREY, _DASH),
}
STYLES = {name: Style(AGENT_LABELS[name], *look) for name, look in _LOOKS.items()}
# Of series that are no agents; the first five also of agents that are not known here.
COLORS = (_PURPLE, SKY, _ORANGE, _GREEN, _BLUE, _VERMILION, _GREY, _BLACK)
_COLORS = COLORS[:5]
_SCREEN_DPI = 120
HEIGHT = 2.5  # inches, at the width of a column
# How many times another panel's the highest of a panel may be on one scale.
_FLAT = 4.0
# Characters that fit: in the title of a small panel, in one of two columns of a legend, in its only one.
_TITLE_LENGTH, _COLUMN_LENGTH, _LINE_LENGTH = 18, 26, 46
_TEXT: Any = {
    **dict.fromkeys(("font.size", "axes.labelsize", "figure.labelsize"), 8),
    **dict.fromkeys(("axes.titlesize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 7),
    "lines.linewidth": 1.4,
}
_LINES: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}
StyleName = Literal["paper", "slides"]
"""`paper` is a column of 3.4 inches with text of 7 and 8 points, `slides` 6.5 inches with twice that."""


class Sheet(NamedTuple):
    """Sizes of a style: width in inches, the factor of heights, and matplotlib's parameters."""

    width: float
    scale: float
    rc: Any


SHEETS: dict[str, Sheet] = {
    "paper": Sheet(3.4, 1.0, _TEXT | _LINES),
    "slides": Sheet(6.5, 1.9, {name: 1.8 * size for name, size in _TEXT.items()} | _LINES),
}


class DataFigure(Figure):
    """A figure that knows the numbers it shows.

    style: under which it was made.
    rows: one per mark or point of a curve, each with the same columns.
    caption: what the figure cannot say itself, such as which interval a band is.
    left_out: agents that it has no room for.
    """

    style: StyleName = "paper"
    rows: Sequence[Mapping[str, Any]] = ()
    caption: str = ""
    left_out: Sequence[str] = ()

    def tell(self, rows: Sequence[Mapping[str, Any]], caption: str, left_out: Sequence[str] = ()) -> None:
        """Sets the numbers and the caption, which ends with the agents that the figure has no room for."""
        self.rows, self.left_out = rows, left_out
        self.caption = f"{caption} Not drawn: {', '.join(left_out)}." if left_out else caption

    def __repr__(self) -> str:
        axes, rows = len(self.axes), len(self.rows)
        return f"DataFigure({self.style}, {axes} {'axes' if axes == 1 else 'panels'}, {rows} rows of numbers)"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """How a notebook shows it, at twice the resolution of the screen."""
        content = io.BytesIO()
        with house_style(self.style):
            self.savefig(content, format="png", dpi=2 * _SCREEN_DPI)
        width, height = (round(inches * _SCREEN_DPI) for inches in self.get_size_inches())
        return content.getvalue(), {"width": width, "height": height}


def style_of(name: str) -> Style:
    """The style of an agent; one that is not in `STYLES` has lines that those have not, and its name alone chooses."""
    number = zlib.crc32(name.encode())
    unknown = Style(agent_label(name), _COLORS[number % 5], _UNKNOWN[number // 5 % len(_UNKNOWN)])
    return STYLES.get(name, unknown)


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """The styles of a figure's agents, which are those of every figure."""
    return {name: style_of(name) for name in names}


def value_styles(labels: Sequence[str]) -> dict[str, Style]:
    """Styles of the values of a dimension in their order, from dark to light."""
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(labels)))
    lines = (_SOLID, _DASH, _DASH_DOT, _DOTS, _LONG, _DASH_DOT_DOT)
    return {
        label: Style(value_label(label), to_hex(shades[i]), lines[i % len(lines)]) for i, label in enumerate(labels)
    }


def house_style(style: StyleName, changes: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Matplotlib's own defaults and the parameters of a style: nothing of a `matplotlibrc` or of the caller."""
    return matplotlib.style.context([SHEETS[style].rc, dict(changes)], after_reset=True)


@contextlib.contextmanager
def sheet(style: StyleName, height: float, **changes: bool) -> Iterator[DataFigure]:
    """An empty figure under a style of the house.

    Args:
      style: `paper` or `slides`.
      height: inches, at the width of a column.
      changes: of matplotlib's parameters, with `_` in place of `.`.

    Raises:
      ConfigError: if there is no such style.
    """
    require(style in SHEETS, f"style={style!r}", f"one of {', '.join(SHEETS)}", "style='paper'")
    width, scale, _ = SHEETS[style]
    with house_style(style, {name.replace("_", "."): value for name, value in changes.items()}):
        figure = DataFigure(figsize=(width, height * scale))
        figure.style = style
        yield figure


@contextlib.contextmanager
def column_figure(height: float = HEIGHT, style: StyleName = "paper") -> Iterator[tuple[DataFigure, Axes]]:
    """An empty figure with axes at column width, `height` inches high, under the style of the house."""
    with sheet(style, height) as figure:
        yield figure, figure.subplots()


def grid_axes(figure: Figure, number: int) -> list[Axes]:
    """Axes for a number of panels, two in a row; a figure of several grows to hold them."""
    if number == 1:
        return [figure.subplots()]
    num_rows, scale = -(-number // 2), figure.get_figwidth() / SHEETS["paper"].width
    figure.set_figheight(figure.get_figheight() + scale * 1.35 * (num_rows - 1))
    axes = list(figure.subplots(num_rows, 2, squeeze=False).flat)
    for one in axes[number:]:  # Left over where the number is odd.
        one.set_axis_off()
    return axes[:number]


def title_of(text: str) -> str:
    """The title of a small panel, such as "K = 5"; of a long one the value alone, in lines that fit."""
    shown = value_label(text)
    if len(shown) <= _TITLE_LENGTH:
        return shown
    return textwrap.fill(text.partition(" = ")[2].replace("_", " ") or text, _TITLE_LENGTH)


def figure_of(axes: Axes) -> Figure:
    """The figure that axes are in, those of a subfigure included."""
    figure = axes.get_figure(root=True)
    require(isinstance(figure, Figure), "axes without a figure", "axes of one", "plt.subplots()")
    return typing.cast(Figure, figure)


def fit_vertically(axes: Axes, shown: Iterable[Any]) -> None:
    """Vertical limits that show 0 and all numbers of some arrays; those that are not finite do not count."""
    values = np.concatenate([[0.0], *(np.ravel(numbers) for numbers in shown)])
    low, high = (float(bound(values[np.isfinite(values)])) for bound in (np.min, np.max))
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin if low < 0 else 0, high + margin)


def compare_panels(panels: Sequence[Axes]) -> None:
    """One vertical scale for all panels; where one's curves would be too flat to read on it, each keeps its own."""
    drawn = [axes for axes in panels if axes.lines]
    bottoms, tops = zip(*(axes.get_ylim() for axes in drawn), strict=True) if drawn else ((), ())
    if drawn and 0 < max(tops) <= _FLAT * min(tops):
        for axes in drawn:
            axes.set_ylim(min(bottoms), max(tops))


def nothing_to_show(axes: Axes, why: str = "no finished run") -> None:
    """Says so in axes that have nothing to show."""
    axes.set(xticks=[], yticks=[])
    axes.minorticks_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#555555")


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers, as many as tell the range."""
    span = high / low
    ladders = {2: (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), 5: (1, 1.5, 2, 3, 5, 7), 100: (1, 2, 5)}
    axis.set_major_locator(LogLocator(subs=next((ladders[bound] for bound in ladders if span < bound), (1,))))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def whole_ticks(axis: Axis, most: int | Literal["auto"] = "auto") -> None:
    """Ticks of a linear axis at whole numbers: there is no round 2.5."""
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def label_axes(figure: Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    """Names the axes: of one panel on itself, of several on the figure."""
    if len(axes) == 1:
        axes[0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(x)
        figure.supylabel(y if len(axes) <= 2 else y.replace("\n", " "))  # One row of panels is low.


def height_for(number: int, columns: int) -> float:
    """Height in inches of a figure whose legend of so many labels stands above its axes."""
    return 2.2 + 0.15 * -(-number // columns)


def legend_above(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """A legend of all axes where it cannot cover a curve; long names get a column less, and the figure grows for it."""
    found = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    if not found:
        return
    labels = [textwrap.fill(label, _LINE_LENGTH) for label in found]
    fitting = columns if columns == 1 or max(map(len, labels)) <= _COLUMN_LENGTH else 1
    lines = -(-len(labels) // fitting) + sum(label.count("\n") for label in labels)
    more = max(0, lines - -(-len(labels) // columns))
    figure.set_figheight(figure.get_figheight() * (1 + 0.15 * more / HEIGHT))
    figure.legend(
        list(found.values()), labels, loc="outside upper center", ncols=fitting, handlelength=2.6,
        labelspacing=0.25, columnspacing=1.2,
    )  # fmt: skip
