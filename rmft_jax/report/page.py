"""The report as one HTML file, which holds all that it needs and asks the network for nothing."""

import functools
import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rcParamsDefault
from matplotlib.colors import to_hex

from rmft_jax.config import ConfigError
from rmft_jax.config.names import is_trained
from rmft_jax.plotting.panels import choose_agents, final_regrets
from rmft_jax.plotting.style import SKY, STYLES, Style, style_of
from rmft_jax.report.curves import content_of, num_points
from rmft_jax.report.markup import Content, description, element, html_of, section
from rmft_jax.report.sources import Source, open_sources
from rmft_jax.report.tables import results_table, settings_table
from rmft_jax.report.talks import dialogues_of
from rmft_jax.running.files import as_text, not_written, replacing, writable
from rmft_jax.statistics.estimates import IntervalName

# Of lines, in pixels; dashes are multiples of it. The trained policy's is wider: in grey its colour is that of others.
_WIDTH, _WIDE = 1.8, 3.0
_DASHES: dict[str, Any] = {
    "--": rcParamsDefault["lines.dashed_pattern"],
    ":": rcParamsDefault["lines.dotted_pattern"],
    "-.": rcParamsDefault["lines.dashdot_pattern"],
}
# Sections whose curves the page's script draws: by name the title, and what the section shows.
_CHARTS = {
    "regret": (
        "Regret over rounds",
        "Mean cumulative regret of the agents that are switched on, with 95% bands. Linear axes are cut above the "
        "highest curve but uniform play. The pointer reads the curves, as do the arrow keys.",
    ),
    "difference": (
        "Differences in regret",
        "Regret of each agent minus that of the reference: paired by scenario of a run, by seed of a sweep. "
        "Below 0 an agent is ahead of the reference, as far as its band says.",
    ),
    "training": (
        "Training",
        "Regret at the horizon over iterations: all rollouts, those kept, and validation scenarios with 95% bands; "
        "below it the entropy of play.",
    ),
    "arms": (
        "Arms over rounds",
        "Share of scenarios by rank of the played arm (0 is the best of the round), darkest where none plays it.",
    ),
    "suff_fail": (
        "SuffFailFreq",
        "Share of scenarios with no best arm from round t on (Krishnamurthy et al. 2024), with 95% bands.",
    ),
}


def write_report(
    paths: Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    intervals: IntervalName = "student",
    dialogues: bool = True,
    scenario: int | None = None,
) -> list[str]:
    """Writes a report of runs and sweeps as one HTML file without network, whole or not at all.

    The same files give the same page, byte for byte.

    Args:
      paths: directories of runs or sweeps, finished or not, or netCDF files of either.
      out: the file.
      intervals: of sweeps over seeds: Student-t, or a hierarchical bootstrap.
      dialogues: whether language models play the dialogues of a scenario again, which takes time.
      scenario: its number. None: the first one of which anything is kept.

    Returns:
      What is missing from the report, in sentences.

    Raises:
      ConfigError: if there is nothing to report on, no such intervals, or the package that draws is not installed.
      RunError: if rmft made nothing at one of the paths, or the file cannot be written.
    """
    library()  # First: what follows takes longer.
    sources = open_sources(paths, intervals)
    with writable(files=[Path(out)]):
        return write_page(sources, out, dialogues=dialogues, scenario=scenario)


def write_page(
    sources: Sequence[Source], out: str | Path, *, dialogues: bool = True, scenario: int | None = None
) -> list[str]:
    """Writes a report of what is open already; as `write_report`, of which the rest is."""
    page, missing = make_page(sources, dialogues=dialogues, scenario=scenario)
    try:
        with replacing(Path(out)) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise not_written(Path(out), error) from error
    return missing


def make_page(
    sources: Sequence[Source], *, dialogues: bool = True, scenario: int | None = None, watch: str = ""
) -> tuple[str, list[str]]:
    """The page, and what is missing from it.

    Args:
      sources: what it shows, side by side.
      dialogues: whether language models play their dialogues again.
      scenario: whose dialogues, as `write_report` has it.
      watch: the version of the files, of a page that asks the server that it came from for newer ones; else empty.
    """
    points = num_points(sources)
    contents = [content_of(source, points) for source in sources]
    tables = [results_table(source) for source in sources]
    talks = [dialogues_of(source, scenario) for source in sources] if dialogues else []
    missing = [f"{source.name}: {text}" for source in sources for text in source.missing]
    data = {
        "sources": contents,
        "agents": _agents(sources, contents),
        "lines": {name: _look(style) for name, style in _LINES.items()},
        "ramp": _ramp("cividis"),
        "diverging": _ramp("RdBu_r"),
        "watch": watch,
    }
    main = element(
        "main", _missing(missing), _provenance(sources), *_charts(contents, tables, talks), id="content", tabindex="-1"
    )
    return _document(sources, main, data), missing


@functools.cache
def library() -> str:
    """The scripts that draw, Vega, Vega-Lite and Vega-Embed, as one.

    Raises:
      ConfigError: if the package that holds them is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        message = "got a report, need the package vl-convert-python; try .venv/bin/pip install '.[report]' in the clone"
        raise ConfigError(message) from error
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


# Curves of training, as the figure of it has them.
_LINES = {
    "training_regret": Style("all rollouts", "#777777", ":"),
    "selected_regret": Style("kept rollouts", SKY, "--"),
    "validation_regret": Style("validation scenarios", STYLES["rmft"].color, "-"),
    "entropy": Style("entropy", STYLES["rmft"].color, "-"),
}


def _agents(sources: Sequence[Source], contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How every agent of a source is drawn, and whether it is from the start: those that figures choose."""
    names = dict.fromkeys(name for content in contents for name in content["agents"])
    chosen: set[str] = set()
    for source in sources:
        if source.results is not None:
            with source.guarded("choice of agents"):
                chosen |= {*choose_agents(final_regrets(source.results), source.results.attrs.get("reference"))}
    ordered = sorted(names, key=lambda name: not is_trained(name))
    found = {name: _look(style_of(name)) | {"on": name in chosen, "beyond": name == "uniform"} for name in ordered}
    return {name: look | ({"width": _WIDE} if is_trained(name) else {}) for name, look in found.items()}


def _look(style: Style) -> dict[str, Any]:
    """A style in the words of SVG."""
    dashes = style.line[1] if isinstance(style.line, tuple) else _DASHES.get(style.line, ())
    drawn = {"dash": [round(_WIDTH * float(length), 2) for length in dashes], "width": _WIDTH}
    return {"label": style.label, "color": style.color} | drawn


def _ramp(name: str) -> list[str]:
    return [to_hex(color) for color in colormaps[name](np.linspace(0.0, 1.0, 64))]


def _missing(missing: Sequence[str]) -> ET.Element | None:
    if not missing:
        return None
    return section("missing", "What is missing", element("ul", *(element("li", text) for text in missing)))


def _provenance(sources: Sequence[Source]) -> ET.Element:
    described = [
        element(
            "article",
            element("h3", source.name),
            description([("path", as_text(source.path)), *source.provenance.items()]),
        )
        for source in sources
    ]
    settings = settings_table(sources)
    folded = settings if settings is None else element("details", element("summary", "All settings"), settings)
    return section("settings", "Settings and provenance", element("div", *described, class_="panels"), folded)


def _charts(
    contents: Sequence[dict[str, Any]], tables: Sequence[ET.Element | None], talks: Sequence[ET.Element | None]
) -> list[ET.Element]:
    """The sections that have something to show."""
    kinds = {kind for content in contents for setting in content["settings"] for kind in setting}
    made = []
    if any(content["dims"] for content in contents):
        hint = "Regret at the horizon of every setting; lower is better. A cell opens its curves in the sections below."
        made.append(section("map", "Map of the sweep", element("p", hint), element("div", class_="maps")))
    if "regret" in kinds:
        made.append(element("form", id="controls", aria_label="What the curves show"))
    for kind, (title, text) in _CHARTS.items():
        if kind in kinds:
            told = element("p", text, _bands(contents, kind))
            made.append(section(kind, title, told, element("div", class_="panels", data_chart=kind)))
        if kind == "difference" and any(one is not None for one in tables):
            how = "95% intervals are bootstraps over scenarios of a run; a sweep says its own. Click a heading to sort."
            made.append(section("table", "Regret at the horizon", element("p", how), *tables))
    if any(one is not None for one in talks):
        made.append(section("dialogues", "Dialogues", *talks))
    return made


def _bands(contents: Sequence[dict[str, Any]], kind: str) -> str:
    """What the bands of a section are, once for all sources where they are the same."""
    known = {content["name"]: content["bands"][kind] for content in contents if kind in content["bands"]}
    same = len(set(known.values())) == 1
    told = list(known.values())[:1] if same else [f"{name}: {bands}" for name, bands in known.items()]
    return f" Bands: {'; '.join(told)}." if told else ""


def _document(sources: Sequence[Source], main: ET.Element, data: dict[str, Any]) -> str:
    title = f"Report: {', '.join(source.name for source in sources)}"
    links = [(one.get("id", ""), one.findtext("h2", "")) for one in main if one.tag == "section"]
    nav = element("nav", *(element("a", text, href=f"#{name}") for name, text in links), aria_label="Sections")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"
    policy += "; connect-src 'self'" if data["watch"] else ""
    made_by = f"Made by rmft {metadata.version('rmft-jax')}; the numbers are those of rmft plot and rmft table."
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
    ]
    body: list[Content] = [
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), nav, element("p", id="following", role="status")),
        element("noscript", element("p", "Curves and maps need JavaScript; tables and settings do not.")),
        main,
        element("footer", element("p", made_by)),
    ]
    parts = [html_of(one) for one in head]
    parts += [f"<style>{_file('page.css')}</style>", "</head><body>"]
    parts += [html_of(one) for one in body if isinstance(one, ET.Element)]
    # Nothing in a text may end the script that holds it.
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    parts += [f'<script type="application/json" id="data">{numbers}</script>']
    scripts = (library(), "".join(map(_file, ("charts.js", "map.js", "page.js"))))
    parts += ['<script type="module">' + script.replace("</script", "<\\/script") + "</script>" for script in scripts]
    return "\n".join(['<!DOCTYPE html><html lang="en"><head>', *parts, "</body></html>", ""])


def _file(name: str) -> str:
    return resources.files("rmft_jax.report").joinpath(name).read_text("utf-8")
