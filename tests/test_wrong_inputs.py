"""Sixty wrong inputs, by the command line, in TOML and in Python: one clear line each, and nothing written."""

import numpy as np
import pytest

import rmft_jax
from rmft_jax import RunConfig, Sweep
from rmft_jax.agents import Transformer
from rmft_jax.config import ConfigError
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Problem, Stationary
from rmft_jax.running.benchmark import bench_agents
from rmft_jax.running.files import RunError
from rmft_jax.running.training import load_run, train
from rmft_jax.sweeps.run import run_sweep
from runs import files_of, refused

TRAIN = {
    "quickstart --num-arms 1": "num_arms=1",
    "quickstart --num-arms five": "five",
    "quickstart --num-arms 5.5": "5.5",
    "quickstart --horizon 0": "horizon=0",
    "quickstart --horizon -3": "horizon",
    "quickstart --k 0": "k=0",
    "quickstart --k 99": "k=99",
    "quickstart --num-rollouts 1": "num_rollouts=1",
    "quickstart --step-size 0": "step_size=0",
    "quickstart --step-size nan": "step_size=nan",
    "quickstart --step-size 1e-60": "step_size=1e-60",
    "quickstart --temperature -1": "temperature=-1",
    "quickstart --play-temperature 0": "play_temperature=0",
    "fol --temperature 2": "try temperature=1",
    "fol --play-temperature 0.5": "try play_temperature=1",
    "quickstart --width 7": "width=7",
    "quickstart --seed -1": "seed=-1",
    "quickstart --seed 4294967296": "seed=4294967296",
    "quickstart --num-scenarios 6 --num-devices 4": "num_devices=4",
    "quickstart --noise beata": "beata",
    "quickstart --environment bernouli": "bernouli",
    "quickstart --policy gru": "gru",
    "quickstart --objective reinforced": "reinforced",
    "quickstart --selection best --k 1": "best",
    "quickstart --clip 0.2": "--clip",
    "quickstart --process-id 1": "--process-id",
    "quickstart --from-cell 1": "--from-cell",
    "quickstart --from nowhere": "nowhere",
    "quickstart --from pretrained:mab-k9": "mab-k9",
    "quickstart --resume --overwrite": "both --resume and --overwrite",
    "quickstart --import nowhere.py": "nowhere.py",
    "quickstart --import": "--import without a name",
    "quickstrat": "quickstrat",
    "quickstart --num-itertions 10": "try --num-iterations",
    "quickstart --num-iterations ten": "got --num-iterations ten, need a whole number",
    "quickstart --amplitude 0.3": "try environment 'sinusoidal', which has it",
}
OTHER_COMMANDS = {
    "trian": "trian",
    "evaluate": "Directory of a run",
    "evaluate nowhere": "nowhere",
    "evaluate pretrained:mab-k2 --num-arms 1": "num_arms=1",
    "evaluate pretrained:mab-k2 --grid horizon": "--grid horizon",
    "evaluate pretrained:mab-k2 --grid colour=red": "colour",
    "evaluate pretrained:mab-k2 --cell 3": "cell 3",
    "evaluate pretrained:mab-k2 --play-temperature -1": "play_temperature=-1",
    "bench-agents": "no environment",
    "bench-agents bernoulli --agents ucb99": "ucb99",
    "bench-agents bernoulli --horizon 0": "horizon=0",
    "plot nowhere": "nowhere",
    "plot nowhere --knd regret": "try --kind",
    "table nowhere --format html": "html",
    "sweep nowhere.toml --out x": "nowhere.toml",
}
TOMLS = {
    "preset = 'quickstrat'": "quickstrat",
    "[grid]\nnum_arm = [2, 3]": "num_arm",
    "[grid]\nnum_arms = 3": "num_arms",
    "[grid]\nnum_arms = []": "num_arms",
    "[grid]\nnum_arms = [2, 2]": "num_arms",
    "[grid]\nnum_arms = [2, 'x']": "x",
    "[grid]\nhorizon = [0]": "horizon=0",
    "[zip]\nnum_arms = [2, 3]\nhorizon = [5]": "length",
    "[grid]\nseed = [0]\n[override]\nseed = 1": "seed in both",
    "baselines = ['ucb99']\n[grid]\nseed = [0]": "ucb99",
    "[grid\nseed = [0]": "got",
    "colour = 'red'": "colour",
}
PYTHON = {
    "a setting that is none": lambda to: RMFTConfig().replace(num_arm=3),
    "text for a number": lambda to: RMFTConfig(horizon="ten").validate(),  # pyright: ignore[reportArgumentType]
    "a number for a truth value": lambda to: RMFTConfig(shared_reward_noise=1).validate(),  # pyright: ignore
    "a fraction for a whole number": lambda to: RMFTConfig(horizon=np.float32(2.5)).validate(),  # pyright: ignore
    "heads that do not divide": lambda to: train(RunConfig(RMFTConfig(policy=Transformer(width=10, num_heads=4))), to),
    "rounds that are none": lambda to: Problem.checked(Stationary(), 0),
    "a run that is none": load_run,
    "a sweep of nothing it knows": lambda to: run_sweep(Sweep("quickstart", grid={"colour": ["red"]}), to),
    "both resume and overwrite": lambda to: train(RunConfig(), to, resume=True, overwrite=True),
    "too many arms for Bernoulli means": lambda to: bench_agents(Stationary(num_arms=0), horizon=5, num_scenarios=4),
    "a policy that is nowhere": rmft_jax.load_policy,
}


def test_there_are_sixty():
    assert len(TRAIN) + len(OTHER_COMMANDS) + len(TOMLS) + len(PYTHON) >= 60


@pytest.fixture
def nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.iterdir() if path.name != "spec.toml"]


@pytest.mark.parametrize("words", TRAIN)
def test_training(words, nothing_written, capsys):
    assert TRAIN[words] in refused(capsys, "train", *words.split(), "--out", "run")


@pytest.mark.parametrize("words", OTHER_COMMANDS)
def test_other_commands(words, nothing_written, capsys):
    assert OTHER_COMMANDS[words] in refused(capsys, *words.split())


@pytest.mark.parametrize("text", TOMLS)
def test_sweeps(text, nothing_written, capsys):
    (nothing_written / "spec.toml").write_text(text, encoding="utf-8")
    assert TOMLS[text] in refused(capsys, "sweep", "spec.toml", "--out", "runs")


@pytest.mark.parametrize("name", PYTHON)
def test_in_python(name, nothing_written):
    with pytest.raises((ConfigError, RunError), match=r"got|not a run") as error:
        PYTHON[name](nothing_written / "run")
    assert "\n" not in str(error.value)
    assert "; try " in str(error.value)
    assert not files_of(nothing_written)
