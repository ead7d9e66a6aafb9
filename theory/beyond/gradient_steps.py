"""What if an iteration fine-tunes by a few steps of Adam, as training does, in place of the exact fit?

The theorems' fit jumps to the minimum of the squared error, `eta_0 I` beyond the W of before. Adam takes steps of a
size that hardly depends on the gradient's, so what it covers in an iteration is set by its step size and the number of
updates, until it reaches the minimum, about which it then jitters. And where every parameter of attention is trained
rather than V alone, nothing keeps `a = K'(Qc + q)` and `v` at 0 and `b = kappa'(Qc + q)` at 1: then `z_t` is
`sum_i (V R_i + v)(a'R_i + b)`, with W = b V.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from rmft_jax.config import Params
from rmft_jax.plotting.style import COLORS, column_figure
from theory.beyond.exploration import Exploration, Finding, band, beside, over_seeds
from theory.statement import Effort
from theory.theorem1 import step_per_iteration
from theory.walks import SETTING, diagonal, walk

NAME = "gradient_steps"
NUM_ITERATIONS = 8
UPDATES_PER_EPOCH = 4
VALUE = SETTING.replace(
    num_scenarios=512,
    update="gradient",
    num_minibatches=UPDATES_PER_EPOCH,
    schedule="constant",
    max_grad_norm=1e6,  # Never reached.
)
ALL = VALUE.replace(key_size=4, trained="all")
CASES = {
    "4 updates of 0.0003": VALUE.replace(step_size=3e-4),
    "4 updates of 0.001": VALUE.replace(step_size=1e-3),
    "4 updates of 0.01": VALUE.replace(step_size=1e-2),
    "32 updates of 0.001": VALUE.replace(step_size=1e-3, num_epochs=8),
    "all trained, 4 updates of 0.001": ALL.replace(step_size=1e-3),
}


class Measured(NamedTuple):
    """Parameters over iterations, by case.

    paths: `[P, S, n, K, K]` of W = b V.
    a: `[P, S, n, K]`, v: `[P, S, n, K]`, b: `[P, S, n]`.
    """

    paths: Float[np.ndarray, "P S n K K"]
    a: Float[np.ndarray, "P S n K"]
    v: Float[np.ndarray, "P S n K"]
    b: Float[np.ndarray, "P S n"]


def _read(params: Params) -> Float[np.ndarray, "K K_3"]:
    """V, a, v and b side by side."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    query = p["Q"] @ p["c"] + p["q"]
    b = np.full(len(p["v"]), p["kappa"] @ query)
    return np.column_stack([p["V"], p["K"].T @ query, p["v"], b])


def measure(effort: Effort) -> Measured:
    """Runs the package's iteration with every optimizer."""
    tables = []
    for name, config in CASES.items():
        effort.note(name)
        tables.append(walk(config, NUM_ITERATIONS, effort.times(4), effort, read=_read))
    table = np.stack(tables)
    arms, b = table.shape[-2], table[..., 0, -1]
    value, a, v = table[..., :arms], table[..., arms], table[..., arms + 1]
    return Measured(value * b[..., None, None], a, v, b)


def findings(measured: Measured) -> list[Finding]:
    """W along I, its linearity, the rest of the matrix, and what is no longer held."""
    found, eta, half = [], step_per_iteration(SETTING), NUM_ITERATIONS // 2
    for name, paths in zip(CASES, measured.paths, strict=True):
        values, last = diagonal(paths), f"{name}: W_{NUM_ITERATIONS}"
        found += [
            over_seeds(NAME, f"{last} / ({NUM_ITERATIONS} eta_0)", values[:, -1] / eta / NUM_ITERATIONS, 1.0),
            over_seeds(NAME, f"{last} over twice W_{half}", values[:, -1] / values[:, half] / 2, 1.0),
            beside(NAME, f"{last}, off-diagonal relative to its diagonal", paths),
        ]
    last = [values[-1, :, -1] for values in (measured.a, measured.v, measured.b)]
    name = list(CASES)[-1]
    return [
        *found,
        over_seeds(NAME, f"{name}: b", last[2], 1.0),
        over_seeds(NAME, f"{name}: |a| / b", np.linalg.norm(last[0], axis=-1) / last[2], 0.0),
        over_seeds(NAME, f"{name}: |v|", np.linalg.norm(last[1], axis=-1), 0.0),
    ]


def draw(measured: Measured) -> Figure:
    """Diagonals over iterations, in units of the theorem's step."""
    counts, eta = np.arange(NUM_ITERATIONS + 1), step_per_iteration(SETTING)
    with column_figure(3.0) as (figure, axes):
        axes.plot(counts, counts, color="black", lw=0.8, ls="--", label="exact fit: n η₀")
        for color, ls, name, paths in zip(COLORS, ("-", "-.", ":", "-", "--"), CASES, measured.paths, strict=False):
            band(axes, counts, diagonal(paths) / eta, color, ls=ls, label=name)
        axes.set_xlabel("RMFT iteration n")
        axes.set_ylabel("diagonal of W, in units of η₀")
        figure.legend(loc="outside upper center", ncols=2, fontsize=6)
        return figure


EXPLORATION = Exploration(NAME, "Steps of Adam in place of the exact fit", measure, findings, draw)
