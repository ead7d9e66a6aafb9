"""Code of users that comes along: as a plugin of an installed package, or as a file with others beside it."""

import sys

import pytest

from own import registers_restored
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import plugins
from runs import refused


def plugin(folder, monkeypatch, code):
    """An installed package that brings code."""
    (folder / "brought.py").write_text(code)
    about = folder / "brought-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rmft_jax.plugins]\nbrought = brought\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "brought", raising=False)
    plugins.load_plugins.cache_clear()


@pytest.mark.parametrize(("code", "reason"), [("import sys; sys.exit(0)", "SystemExit: 0"), ("1 / 0", "ZeroDivision")])
def test_a_plugin_that_cannot_be_imported_is_told(code, reason, tmp_path, monkeypatch, capsys):
    plugin(tmp_path, monkeypatch, code)
    said = refused(capsys, "environments")
    assert f"got the plugin brought = brought ({reason}" in said
    plugins.load_plugins.cache_clear()


def test_a_plugin_and_what_lies_beside_a_file_are_imported(tmp_path, monkeypatch):
    code = """
from rmft_jax import register_agent
from rmft_jax.agents import UCB
register_agent("brought_along")(lambda problem: UCB())
"""
    with registers_restored():
        plugin(tmp_path, monkeypatch, code)
        assert "brought_along" in AGENTS.names()
        folder = tmp_path / "apart"
        folder.mkdir()
        (folder / "lies_beside.py").write_text("RATE = 0.25\n")
        (folder / "own.py").write_text("import lies_beside\nassert lies_beside.RATE == 0.25\n")
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(plugins, "_imported", {})
        plugins.import_code(folder / "own.py")
    plugins.load_plugins.cache_clear()
