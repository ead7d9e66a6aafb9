"""The table and the figures of the benchmarks, from their JSON files.

python -m experiments.benchmarks.figures [--results experiments/benchmarks/results] [--out DIR]
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes

from experiments.benchmarks import measure
from experiments.benchmarks.throughput import sized
from rmft_jax.plotting import save_figure
from rmft_jax.plotting.style import (
    COLORS,
    DataFigure,
    column_figure,
    grid_axes,
    plain_log_ticks,
    sheet,
    value_styles,
)
from rmft_jax.statistics.labels import field_label
from rmft_jax.statistics.tables import markdown_table

_NAMES = {
    "rmft_jax": "rmft_jax",
    "own_pasts": "rmft_jax, no shared past",
    "pytorch": "PyTorch",
    "unfused": "three programs",
    "obvious_jax": "obvious JAX",
}
_MARKERS = "osD^v"
_AXES = {
    "horizon": field_label("horizon"),
    "arms": field_label("num_arms"),
    "rollouts": "rollouts at once",
    "width": field_label("width"),
}


def draw_throughput(found: dict[str, Any]) -> DataFigure:
    """Env-steps per second of all contenders, whole iterations."""
    styles = value_styles(list(_NAMES))
    rows = []
    with column_figure(2.4) as (figure, axes):
        places = np.arange(len(found["sizes"]))
        for i, (name, label) in enumerate(_NAMES.items()):
            rates = [size["iteration"].get(name, np.nan) for size in found["sizes"]]
            axes.bar(places + (i - (len(_NAMES) - 1) / 2) * 0.17, rates, 0.16, label=label, color=styles[name].color)
            for size, rate in zip(found["sizes"], rates, strict=True):
                rows.append({"size": _size(size), "contender": name, "env_steps_per_second": rate})
        axes.set_yscale("log")
        axes.set_xticks(places, [_size(size) for size in found["sizes"]])
        axes.set_xlabel("width × horizon")
        axes.set_ylabel("env-steps per second,\nwhole iteration")
        figure.legend(loc="outside upper center", ncols=2)
        figure.rows = rows
        return figure


def draw_roofline(found: dict[str, Any], scaling: dict[str, Any]) -> DataFigure:
    """Rates of computation beside the limits of matrix products and of reading the caches.

    The dashed line is what remains where products and reading take turns instead of overlapping.
    """
    bandwidth = scaling["read_bytes_per_second"]["median"]
    peak = found["gemm_flops_per_second"]
    styles = value_styles([_size(size) for size in found["sizes"]])
    rows = []
    with column_figure(2.6) as (figure, axes):
        intensity = np.geomspace(0.3, 60)
        axes.plot(intensity, np.minimum(peak, intensity * bandwidth) / 1e9, color="black", label="either limit")
        turns = 1 / (1 / peak + 1 / (intensity * bandwidth))
        axes.plot(intensity, turns / 1e9, color="black", linestyle="--", label="in turns")
        for size, marker in zip(found["sizes"], _MARKERS, strict=False):
            config = sized(size["width"], size["horizon"])
            point = measure.rollout_flops(config) / measure.read_bytes(config)
            rate = size["gemm_fraction_rollout"] * size["gemm_flops_per_second"]["median"]
            name = _size(size)
            axes.plot(point, rate / 1e9, marker, color=styles[name].color, label=name)
            rows.append({"size": name, "flops_per_byte": point, "gflops_per_second": rate / 1e9})
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_log_ticks(axes.xaxis, *axes.get_xlim())
        plain_log_ticks(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel("operations per byte of keys and values read")
        axes.set_ylabel("rollouts, GFLOP/s")
        figure.legend(loc="outside upper center", ncols=3)
        figure.rows = rows
        return figure


def draw_scaling(scaling: dict[str, Any]) -> DataFigure:
    """Cost of an env-step along every axis, a panel for each with a line per network."""
    rows, lines = [], {}
    for name, found in scaling["axes"].items():
        axis, _, fixed = name.partition(", ")
        lines.setdefault(axis, {})[fixed] = found
        for size, spread in zip(found["sizes"], found["seconds_per_env_step"], strict=True):
            rows.append({"axis": name, "size": size, **{k: 1e6 * v for k, v in spread.items()}})
    with sheet("paper", 3.6) as figure:
        panels = grid_axes(figure, len(lines))
        for axes, (axis, found) in zip(panels, lines.items(), strict=True):
            _draw_axis(axes, found)
            axes.set_xlabel(_AXES[axis])
        figure.supylabel("µs per env-step")
        figure.rows = rows
        return figure


def _draw_axis(axes: Axes, lines: dict[str, dict[str, Any]]) -> None:
    """A line per network, with its exponent in its colour above the panel."""
    costs = []
    for i, ((fixed, found), color) in enumerate(zip(lines.items(), (COLORS[4], COLORS[2]), strict=False)):
        low, median, high = (
            1e6 * np.array([row[k] for row in found["seconds_per_env_step"]]) for k in ("low", "median", "high")
        )
        costs += [*median]
        axes.errorbar(
            found["sizes"], median, [median - low, high - median], marker="o", markersize=3, color=color, linewidth=1
        )
        text = f"{fixed}:\nexponent {found['exponent']:.2f}".replace("-", "−")
        place = (0.5, 1.04 + 0.17 * (len(lines) - 1 - i))
        axes.text(*place, text, transform=axes.transAxes, ha="center", fontsize=7, color=color, linespacing=1.0)
    axes.set(xscale="log", yscale="log", ylim=(min(costs) / 2, max(max(costs) * 2, min(costs) * 16)))
    plain_log_ticks(axes.yaxis, *axes.get_ylim())
    sizes = [size for found in lines.values() for size in found["sizes"]]
    if max(sizes) < 100 * min(sizes):
        plain_log_ticks(axes.xaxis, *axes.get_xlim())


def table(found: dict[str, Any]) -> str:
    """Rates and ratios of all sizes, in Markdown."""
    heads = ["width × T", "rollouts", "env-steps/s", "of GEMM", "× PyTorch", "× obvious JAX", "× three programs"]
    heads += ["× no shared past"]
    lines, beside = [], ("pytorch", "obvious_jax", "unfused", "own_pasts")
    for part in ("rollout", "iteration"):
        for size in found["sizes"]:
            ratios = [
                f"{one['median']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" if one else "–"
                for one in (size[f"{part}_speedup"].get(name) for name in beside)
            ]
            rate, share = size[part]["rmft_jax"], size[f"gemm_fraction_{part}"]
            lines.append(
                [f"{_size(size)}, {part}", f"{size['rollouts']:,}", f"{rate / 1000:,.0f}k", f"{share:.2f}", *ratios]
            )
    return markdown_table(heads, lines)


def _size(size: dict[str, Any]) -> str:
    return f"{size['width']}×{size['horizon']}"


def main(
    results: Path = Path("experiments/benchmarks/results"), out: Path = Path("experiments/benchmarks/figures")
) -> None:
    """Draws the figures and prints the table.

    Args:
      results: where throughput.json and scaling.json are.
      out: where the figures go.
    """
    throughput, scaling = (json.loads((results / f"{name}.json").read_text()) for name in ("throughput", "scaling"))
    figures = {
        "throughput": draw_throughput(throughput),
        "roofline": draw_roofline(throughput, scaling),
        "scaling": draw_scaling(scaling),
    }
    print(table(throughput))
    for name, figure in figures.items():
        print(save_figure(figure, out / name)[0])


if __name__ == "__main__":
    tyro.cli(main)
