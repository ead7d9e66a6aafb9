"""How settings, states and policies are shown to people."""

import pydoc

import jax
import numpy as np
import pytest

import rmft_jax
from rmft_jax import agents
from rmft_jax.config import Settings
from rmft_jax.config.words import field_texts, plain_doc
from rmft_jax.method import settings
from rmft_jax.method.presets import PRESETS
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.problems import Problem, Stationary
from worlds import TINY


class Own(Settings):
    """Settings of somebody."""

    first: int = 1
    """The first
    of all."""
    second: float = 0.5


def test_help_shows_what_every_setting_means():
    text = pydoc.plain(pydoc.render_doc(Own))
    assert "first (1): The first of all." in text
    assert "Settings of somebody." in text
    shown = pydoc.plain(pydoc.render_doc(RMFTConfig))
    assert "num_scenarios (1024): Scenarios M drawn in every iteration." in shown
    assert plain_doc(Own) == "Settings of somebody."


@pytest.mark.parametrize("cls", [RMFTConfig, RunConfig, Stationary, agents.Transformer])
def test_every_setting_of_the_package_says_what_it_means(cls):
    names = {name for name in cls().values() if name != "rmft"}
    assert names <= field_texts(cls).keys()
    assert all(f"{name} (" in (cls.__doc__ or "") for name in names)


def test_a_class_without_source_keeps_its_docstring():
    space: dict = {"Settings": Settings}
    exec('class Made(Settings):\n    """Made up."""\n    one: int = 1\n    """One."""', space)
    assert space["Made"].__doc__ == "Made up."


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_is_shown_as_python_would_write_what_differs(name):
    config = PRESETS[name][1]
    shown = repr(config)
    assert len(shown) < 450
    names = {cls.__name__: cls for register in _registers() for cls in register.classes().values()}
    assert eval(shown, vars(settings) | names) == config


def _registers():
    from rmft_jax.config.choices import ChoiceRegister

    return ChoiceRegister.kinds.values()


def test_arrays_have_no_place_in_a_line():
    state = rmft_jax.init(TINY, jax.random.key(0))
    policy = rmft_jax.load_policy("pretrained:mab-k2")
    shown = {repr(one) for one in (state, rmft_jax.make_agent(state), policy, policy.agent, Problem(Stationary(), 5))}
    assert all(len(line) < 500 and "\n" not in line and "Array(" not in line for line in shown)
    number = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"arrays, {number:,} numbers>" in repr(state)
    assert "iteration=0" in repr(state)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), TINY)
    assert f"step_size={np.asarray(0.1).dtype}[2]" in repr(stacked)
    seen = []
    jax.jit(lambda config: seen.append(repr(config)) or config.temperature)(TINY)
    assert "temperature=float32[]" in seen[0]


def test_a_notebook_shows_a_configuration_as_a_table():
    shown = TINY.replace(selection="advantage", k=1)._repr_html_()
    assert shown.count("<tr>") == len(TINY.replace(selection="advantage", k=1).flat()) + 1
    for cell in ("num_scenarios", "8", "Scenarios M drawn in every iteration.", "selection", "advantage"):
        assert f">{cell}</td>" in shown
    assert "&lt;" in agents.Transformer()._repr_html_() or "<script" not in shown
