"""Choices on the command line: each has options of its own, and no others."""

import re

import pytest

from rmft_jax import cli
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Environment
from rmft_jax.running import training
from rmft_jax.running.files import RunError
from runs import refused


def test_every_choice_is_listed(capsys):
    assert cli.main(["choices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for kind, register in ChoiceRegister.kinds.items():
        assert any(line.startswith(f"--{kind.replace('_', '-')}") for line in lines)
        if kind != "environment":
            assert set(register.names()) <= {line.split()[0] for line in lines if line.startswith("  ")}
    assert "try `rmft choices`" in refused(capsys, "choices", "more")


def helped(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_every_setting_has_an_option_and_a_help_text(capsys):
    out = helped(capsys, "mab")
    options = set(re.findall(r"--[a-z0-9-]+", out))
    assert {f"--{name.replace('_', '-')}" for name in RunConfig().flat()} <= options
    assert "Trajectories L played on each scenario." in " ".join(out.split())
    assert f"(default: {get_preset('mab').flat()['step_size']})" in out


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ("--selection reward", "--selection-form", "--selection-regret"),
        ("--selection=random", "--k", "--selection-form"),
        ("--objective dpt", "--behavior", ""),
        ("--update least_squares", "--l2-penalty", "--step-size"),
        ("--policy single_layer", "--attention", "--width"),
        ("--decision-map ball", "--radius", "--l2-penalty"),
        ("--decision_map identity", "--radius", ""),
        ("--environment abrupt", "--num-changes", "--prior"),
    ],
)
def test_the_help_after_a_choice_lists_its_options(capsys, words, there, not_there):
    options = helped(capsys, *words.split()).split()
    assert there in options
    assert not_there not in options


@pytest.fixture
def trained(monkeypatch):
    """The configurations that would have been trained."""
    configs = []

    def train(config, *_, **__):
        configs.append(config)
        raise RunError("enough; try nothing")

    monkeypatch.setattr(training, "train", train)
    return configs


FULL = "--environment iid_gaussian --entropy-weight 0"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--selection advantage --k 1", {"selection": "advantage", "k": 1}),
        ("--k 3 --selection=reward --selection-form expected", {"selection": "reward", "selection_form": "expected"}),
        ("--selection random --selection pooled", {"selection": "pooled", "selection_form": "standard", "k": 2}),
        ("--objective distillation --behavior thompson", {"objective": "distillation", "behavior": "thompson"}),
        ("--objective grpo --k 8 --kl-reference initial --kl-weight 0.5", {"objective": "grpo", "kl_weight": 0.5}),
        (f"{FULL} --decision_map ball --radius 2", {"decision_map": "ball", "radius": 2.0}),
        (f"{FULL} --policy single_layer --attention softmax", {"policy": "single_layer", "attention": "softmax"}),
        (
            f"{FULL} --policy single_layer --update least_squares --l2-penalty 0.5",
            {"update": "least_squares", "l2_penalty": 0.5, "policy": "single_layer", "trained": "value"},
        ),
    ],
)
def test_a_choice_brings_its_options(capsys, tmp_path, trained, words, settings):
    assert "enough" in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", *words.split())
    flat = trained[0].flat()
    assert {name: flat[name] for name in settings} == settings


def test_settings_that_choices_share_are_kept(capsys, tmp_path, trained):
    """But not those of another world or network."""
    refused(capsys, "train", "mab", "--out", tmp_path, "--selection", "regret", "--environment", "abrupt")
    (config,) = trained
    assert (config.rmft.selection.k, config.rmft.environment) == (1, Environment.register["abrupt"].choice)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--radius 2", "--radius"),
        ("--selection reward --selection-regret swap", "--selection-regret"),
        ("--selection random --selection-form expected", "--selection-form"),
        ("--behavior ucb1", "--behavior"),
        ("--objective grpo --behavior ucb1", "--behavior"),
        ("--update least_squares --step-size 0.1", "--step-size"),
        ("--l2-penalty 0.1", "--l2-penalty"),
        ("--policy single_layer --width 8", "--width"),
        ("--attention softmax", "--attention"),
        ("--selection best", "got selection 'best', need one of regret, advantage, pooled, reward, random; try"),
        ("--selection regrets", "try 'regret', or --import FILE.py that has it"),
        ("--objective rmft", "got objective 'rmft', need one of imitation"),
        ("--update newton", "got update 'newton', need one of gradient, least_squares"),
        ("--policy oracle", "got policy 'oracle', need one of"),
        ("--decision-map hull", "got decision_map 'hull', need one of softmax, simplex, ball, identity"),
        ("--decision_map hull", "got decision_map 'hull', need one of softmax, simplex, ball, identity"),
        ("--update least_squares", "got update='least_squares' with policy='transformer', need a single layer"),
        ("--selection", "--selection"),
        ("--num-devices 99", "got num_devices=99, need at most"),
        ("--num-devices many", "--num-devices"),
    ],
)
def test_wrong_choices_and_options_of_others_are_refused(capsys, tmp_path, words, message):
    assert message in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", *words.split())
    assert not (tmp_path / "run").exists()
