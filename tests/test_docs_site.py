"""The site has every page, every public name, and nothing of another host."""

import ast
import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import rmft_jax
from pages import PAGES, ROOT


def loaded_hooks() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = loaded_hooks()
NAVIGATION = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
SOURCE = Path(rmft_jax.__file__).parent


def shown(pages: dict[str, str]) -> set[str]:
    """The names of which pages of the reference have an entry."""
    return {
        f"{module}.{name}"
        for text in pages.values()
        for module, members in re.findall(r"^::: ([\w.]+)\n((?:  .*\n)+)", text, re.MULTILINE)
        for name in re.findall(r"- (\w+)", members)
    }


def test_every_public_name_is_in_the_reference():
    """By what Python knows of them, not by what the site reads in the sources."""
    entries = shown(hooks.reference_pages())
    for name in vars(rmft_jax)["__all__"]:
        value = getattr(rmft_jax, name)
        own = f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else f".{name}"
        assert any(entry.endswith(own) for entry in entries), name
    for room in hooks.ROOMS:
        tree = ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert {f"{node.module}.{alias.name}" for alias in node.names} <= entries, room


def test_every_name_of_the_reference_exists():
    for name in shown(hooks.reference_pages()):
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


def test_a_name_without_an_entry_is_told():
    defined = set(hooks.public_names().values())
    assert hooks.missing_entries(dict.fromkeys(defined)) == []
    left = {name: None for name in defined if not name.endswith(".Problem")}
    assert hooks.missing_entries(left) == ["rmft_jax.Problem", "rmft_jax.problems.Problem"]


def test_every_page_is_in_the_navigation_once():
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(NAVIGATION) == sorted(written | {*hooks.ELSEWHERE} | {*hooks.reference_pages()})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_in_the_repository_and_on_the_site(page):
    relative = page.relative_to(ROOT).as_posix()
    place = next((place for place, path in hooks.ELSEWHERE.items() if path == relative), relative.removeprefix("docs/"))
    found = hooks.links(page.read_text(encoding="utf-8"), place)
    told: list[str] = []
    hooks.outside_code(page.read_text(encoding="utf-8"), lambda part: told.append(part) or part)
    for link in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", "".join(told)):
        assert (page.parent / link).exists(), link
        assert link in found, link
    assert not re.search(r"<img|<script|!\[[^\]]*\]\(\w+:", "".join(told)), "pictures are in the repository"


def test_links_are_put_right():
    text = "[a](docs/cluster.md#one-machine) [b](theory/README.md) ![c](experiments/results/mab_regret.png) [d](#x)\n"
    text += "```sh\n[a](docs/cluster.md)\n```\n<!-- not run: it is no command -->\n"
    assert hooks.as_on_site(text, "index.md") == (
        "[a](cluster.md#one-machine) [b](theory/index.md) ![c](experiments/results/mab_regret.png) [d](#x)\n"
        "```sh\n[a](docs/cluster.md)\n```\n"
    )
    assert hooks.as_on_site("[a](../docs/results.md) [b](README.md)", "theory/attention.md") == (
        "[a](../results.md) [b](index.md)"
    )
    assert hooks.as_on_site("[a](../tutorials/own_agent.py) [b](../tutorials)", "how-to/runs.md") == (
        "[a](../tutorials/own_agent.py) [b](../tutorials/index.md)"
    )


def test_nothing_but_comments_is_taken_out():
    text = "by seed\n<!--= file a -->3.13<!-- --> where\n\n## Kept\n\n"
    text += "<!-- table -->\n| a |\n<!-- /table -->\nend <!--= b -->2<!-- -->\n"
    assert hooks.as_on_site(text, "results.md") == "by seed\n3.13 where\n\n## Kept\n\n| a |\nend 2\n"


@pytest.mark.parametrize("place", [place for place in NAVIGATION if hooks.origin(place).is_file()])
def test_every_heading_is_on_the_site(place):
    def headings(text):
        kept = []
        hooks.outside_code(text, lambda part: kept.append(part) or part)
        return re.findall(r"^#+ .*$", "".join(kept), re.MULTILINE)

    text = hooks.origin(place).read_text(encoding="utf-8")
    assert headings(hooks.as_on_site(text, place)) == headings(text)


def test_formulas_are_marked_for_the_builder():
    assert hooks.with_mathematics("> a $`x_1\n> + 2`$ b\n```sh\n$`no`$\n```\n") == (
        "> a `#!math x_1 + 2` b\n```sh\n$`no`$\n```\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed; `make docs` builds")
def test_the_site_builds_and_asks_no_other_host(tmp_path):
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "-d", str(tmp_path)], check=True, cwd=ROOT)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(NAVIGATION)
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), f"{path}: {tag}"
    assert "<math" in (tmp_path / "theory" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "tutorials" / "first-policy.ipynb").is_file()
