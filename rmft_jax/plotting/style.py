"""How figures look: the agents' lines, the sizes and fonts of a paper's column. Imports no JAX."""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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
STYLES = {
    "rmft": Style("RMFT Transformer", _VERMILION, _SOLID),
    "rmft_plain": Style("RMFT, whole trajectories", SKY, _LONG),
    "thompson": Style("Thompson", _BLUE, _DASH),
    "ucb1": Style("UCB1", _GREEN, _DASH_DOT),
    "ucb": Style("UCB", _GREEN, _DASH),
    "kl_ucb": Style("KL-UCB", _GREEN, _LONG),
    "moss": Style("MOSS", _GREEN, _DOTS),
    "posterior_index": Style("posterior index", _BLUE, _DASH_DOT_DOT),
    "greedy": Style("greedy", _PURPLE, _DOTS),
    "epsilon_greedy": Style("ε-greedy", _ORANGE, _DASH_DOT_DOT),
    "explore_then_commit": Style("explore-then-commit", _PURPLE, _DASH),
    "exp3": Style("EXP3", _ORANGE, _DASH),
    "exp3_ix": Style("EXP3-IX", _ORANGE, _LONG),
    "exp3_p": Style("EXP3.P", _ORANGE, _DOTS),
    "tsallis_inf": Style("Tsallis-INF", SKY, _DASH_DOT),
    "hedge": Style("Hedge", SKY, _DASH),
    "hedge_anytime": Style("Hedge, anytime", SKY, _DOTS),
    "ftrl": Style("FTRL", _BLUE, _LONG),
    "ftpl": Style("FTPL", _BLUE, _DOTS),
    "follow_the_leader": Style("follow the leader", _PURPLE, _DASH_DOT),
    "rexp3": Style("Rexp3", _ORANGE, _DASH_DOT),
    "sliding_window_ucb": Style("sliding-window UCB", _GREEN, _SHORT),
    "discounted_ucb": Style("discounted UCB", _GREEN, _DASH_DOT_DOT),
    "discounted_thompson": Style("discounted Thompson", _BLUE, _DASH_DOT),
    "bayes_optimal": Style("Bayes-optimal", _BLACK, _SOLID),
    "uniform": Style("uniform", _BLACK, _WIDE_DOTS),
    "best_fixed_arm": Style("best fixed arm", _GREY, _SOLID),
    "best_arm": Style("best arm", _GREY, _DASH),
}
COLORS = (_PURPLE, SKY, _ORANGE, _GREEN, _BLUE, _VERMILION, _GREY, _BLACK)
WIDTH, HEIGHT = 3.4, 2.5  # inches
PAPER: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 7,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}


def style_of(name: str) -> Style:
    """The style of an agent; one of an unknown name depends on the name alone."""
    if name in STYLES:
        return STYLES[name]
    number = zlib.crc32(name.encode())
    dashes = (0, (3 + number % 3, 1, 1 + number % 2, 1))
    return Style(name.replace("_", " "), COLORS[number % 5], dashes)


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """The styles of a figure's agents: where two of them share a colour, the less prominent one takes a free one."""
    prominence = {name: i for i, name in enumerate(STYLES)}
    styles = {}
    for name in sorted(names, key=lambda name: prominence.get(name, len(STYLES))):
        style, taken = style_of(name), {style.color for style in styles.values()}
        free = [color for color in COLORS if color not in taken]
        styles[name] = style if style.color not in taken or not free else style._replace(color=free[0])
    return {name: styles[name] for name in names}


@contextlib.contextmanager
def column_figure(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure at column width, `height` inches high, under the style of the house."""
    with rc_context(PAPER):
        figure = Figure(figsize=(WIDTH, height))
        yield figure, figure.subplots()


def height_for(names: Sequence[str], columns: int) -> float:
    """Height in inches of a figure whose legend stands above its axes."""
    return 2.2 + 0.15 * -(-len(names) // columns)


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """A legend where it cannot cover a curve."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, handlelength=2.6, labelspacing=0.25,
            columnspacing=1.2,
        )  # fmt: skip
