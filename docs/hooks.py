"""What the site adds to the files of this folder: pages from elsewhere, the API reference, notebooks, mathematics.

Pages are written once, where a reader of the repository looks for them. Here they get their place on the site, and
their links are put right. Imports nothing of the site's builder until it is called, so that tests can use it.
"""

import ast
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rmft_jax"

# Places on the site, and where in the repository the pages are.
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "experiments/index.md": "experiments/README.md",
    "experiments/ablations.md": "experiments/ablations/README.md",
    "experiments/benchmarks.md": "experiments/benchmarks/README.md",
    "theory/index.md": "theory/README.md",
    "theory/attention.md": "theory/attention.md",
    "theory/finite_samples.md": "theory/finite_samples.md",
    "theory/selection.md": "theory/selection.md",
}

# All but that of the command, which explains itself by `--help`.
ROOMS = tuple(sorted({path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"cli"}))
# Names that no list of public names has, but pages speak of.
ALSO = {
    "running": {"rmft_jax.running.processes": ["join"], "rmft_jax.running.weights": ["TrainedPolicy"]},
    "sweeps": {"rmft_jax.sweeps.ray_executor": ["run_on_ray"]},
    "language": {
        "rmft_jax.language.api.evaluation": ["evaluate_model"],
        "rmft_jax.language.api.loop": ["run_loop"],
        "rmft_jax.language.api.own": ["OwnModel"],
        "rmft_jax.language.api.providers": ["Provider"],
        "rmft_jax.language.api.server": ["serve"],
    },
}

_FENCE = re.compile(r"^(```+)[^`\n]*\n.*?^\1$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(\))")
# On a line of its own with the line's end, which must be that of the comment: others may follow in the same line.
_COMMENT = re.compile(r"^<!--(?:(?!-->).)*-->\n|<!--.*?-->", re.DOTALL | re.MULTILINE)


# ---- pages and their links


def site_path(path: Path) -> str | None:
    """Where a file of the repository is on the site, as a source; None if there is no such file."""
    relative = Path(os.path.normpath(path)).relative_to(ROOT)
    for place, origin in ELSEWHERE.items():
        if relative in (Path(origin), Path(origin).parent) and relative != Path():
            return place
    place = relative.relative_to("docs") if relative.parts[:1] == ("docs",) else relative
    if path.is_dir():
        return (place / "index.md").as_posix() if (path / "index.md").is_file() else None
    return place.as_posix() if path.is_file() else None


def origin(place: str) -> Path:
    """The file in the repository of a page of the site."""
    return ROOT / ELSEWHERE.get(place, f"docs/{place}")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A page, changed everywhere but in its blocks of code."""
    parts, end = [], 0
    for block in _FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def links(text: str, place: str) -> dict[str, str]:
    """Where the links of a page lead to on the site, by what they say."""
    found = {}

    def note(part: str) -> str:
        for link in _LINK.finditer(part):
            if target := site_path(Path(os.path.normpath(origin(place).parent / link[2]))):
                found[link[2]] = target
        return part

    outside_code(text, note)
    return found


def as_on_site(text: str, place: str) -> str:
    """A page with links as they are on the site, and without marks that only tests and scripts read."""
    targets = links(text, place)
    start = Path(place).parent

    def change(part: str) -> str:
        part = _COMMENT.sub("", part)

        def replaced(link: re.Match[str]) -> str:
            target = targets.get(link[2])
            shown = link[2] if target is None else Path(os.path.relpath(target, start)).as_posix()
            return f"{link[1]}{shown}{link[3] or ''}{link[4]}"

        return _LINK.sub(replaced, part)

    return outside_code(text, change)


# ---- the API reference


def imported_names(path: Path) -> dict[str, str]:
    """The module of each name that a file hands on by `from module import name`."""
    return {
        alias.name: f"rmft_jax.{node.module}" if node.level else str(node.module)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname in (None, alias.name)
    }


def public_names() -> dict[str, str]:
    """Every public name as users write it, such as `rmft_jax.Problem`, and where it is defined."""
    rooms = {room: imported_names(PACKAGE / room / "__init__.py") for room in ROOMS}
    found = {f"rmft_jax.{room}.{name}": f"{module}.{name}" for room in ROOMS for name, module in rooms[room].items()}
    for name, module in imported_names(PACKAGE / "__init__.pyi").items():
        found[f"rmft_jax.{name}"] = found.get(f"{module}.{name}", f"{module}.{name}")
    return found


def entries(room: str) -> dict[str, list[str]]:
    """What the page of a room shows: names by module."""
    found: dict[str, list[str]] = defaultdict(list)
    for defined in sorted(set(public_names().values())):
        module, _, name = defined.rpartition(".")
        if module.split(".")[1] == room:
            found[module].append(name)
    for module, names in ALSO.get(room, {}).items():
        found[module] += names
    return found


def docstring(path: Path) -> str:
    """That of a module."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def reference_page(room: str) -> str:
    """The page of a room."""
    lines = [f"# `rmft_jax.{room}`", "", docstring(PACKAGE / room / "__init__.py"), ""]
    for module, names in entries(room).items():
        lines += [f"::: {module}", "    options:", "      members:", *(f"        - {name}" for name in names), ""]
    return "\n".join(lines)


def names_table() -> str:
    """All names that `import rmft_jax` gives, with links to their entries."""
    lines = ["", "| name | what it is | room |", "|---|---|---|"]
    for name, defined in sorted(public_names().items(), key=lambda item: item[0].lower()):
        if name.count(".") == 1:
            room, short = defined.split(".")[1], name.removeprefix("rmft_jax.")
            lines.append(f"| [`{short}`][{defined}] | {first_sentence(defined)} | [{room}]({room}.md) |")
    return "\n".join([*lines, ""])


def first_sentence(defined: str) -> str:
    """Of the docstring of a function or class; empty for anything else."""
    module, _, name = defined.rpartition(".")
    path = ROOT / f"{module.replace('.', '/')}.py"
    path = path if path.is_file() else path.with_suffix("") / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            return re.split(r"(?<!et al\.)(?<=\.) |[:;] ", text)[0].rstrip(".:;")
    return ""


def reference_pages() -> dict[str, str]:
    """The pages of the reference, by their place."""
    return {f"reference/{room}.md": reference_page(room) for room in ROOMS}


def missing_entries(inventory: Mapping[str, object]) -> list[str]:
    """Public names that have no entry in the inventory of a built site."""
    return sorted(name for name, defined in public_names().items() if defined not in inventory)


# ---- mathematics, which browsers draw by themselves


def with_mathematics(text: str) -> str:
    """A page whose formulas within a line are marked as the builder knows them, as code of the language `math`."""

    def marked(found: re.Match[str]) -> str:
        formula = re.sub(r" *\n[> ]*", " ", found[1])
        return f"`#!math {formula}`"

    return outside_code(text, lambda part: re.sub(r"\$`(.+?)`\$", marked, part, flags=re.DOTALL))


def mathml(source: str, *others: object, display: Literal["inline", "block"] = "inline", **options: object) -> str:
    """A formula of LaTeX as MathML."""
    del others, options
    from latex2mathml.converter import convert

    formula = convert(source.strip(), display=display)
    return formula if display == "inline" else f'<div class="formula">{formula}</div>'


# ---- what the builder calls


def on_config(config: "MkDocsConfig") -> None:
    """Formulas as MathML; and search without a server by a script of our own, not of another host."""
    config.mdx_configs["pymdownx.inlinehilite"] = {"custom_inline": [{"name": "math", "class": "", "format": mathml}]}
    block = {"name": "math", "class": "", "format": partial(mathml, display="block")}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [block]}
    config.extra["polyfills"] = ["assets/worker.js"]


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds pages, and whatever they link to."""
    from mkdocs.structure.files import File

    for place, path in ELSEWHERE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for place, text in reference_pages().items():
        files.append(File.generated(config, place, content=text))
    for place in [file.src_uri for file in files.documentation_pages()]:
        if place not in reference_pages():
            for target in links(origin(place).read_text(encoding="utf-8"), place).values():
                if target not in files.src_uris:
                    files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    for file in [file for file in files.documentation_pages() if is_notebook(file.src_uri)]:
        place = file.src_uri.removesuffix(".md") + ".ipynb"
        files.append(File.generated(config, place, content=notebook(origin(file.src_uri))))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Puts links right, and formulas, names and notebooks in."""
    del config, files
    place = page.file.src_uri
    if place in reference_pages():
        return markdown
    text = with_mathematics(as_on_site(markdown, place))
    if place == "reference/index.md":
        return text + names_table()
    if is_notebook(place):
        link = f"[This page as a notebook]({Path(place).stem}.ipynb)"
        return re.sub(r"^(# .*\n)", lambda title: f"{title[1]}\n{link}\n", text, count=1, flags=re.MULTILINE)
    return text


def on_post_build(config: "MkDocsConfig") -> None:
    """Fails if a public name has no entry."""
    from mkdocs.exceptions import PluginError
    from mkdocstrings import Inventory

    with (Path(config.site_dir) / "objects.inv").open("rb") as file:
        inventory = Inventory.parse_sphinx(file)
    if missing := missing_entries(inventory):
        raise PluginError(f"no entry in the API reference for {', '.join(missing)}")


# ---- notebooks


def is_notebook(place: str) -> bool:
    """Whether a page is a tutorial that can be opened as a notebook."""
    return place.startswith("tutorials/") and not place.endswith("index.md")


def notebook(path: Path) -> str:
    """A tutorial as a notebook."""
    import jupytext

    return jupytext.writes(jupytext.reads(path.read_text(encoding="utf-8"), fmt="md"), fmt="ipynb")
