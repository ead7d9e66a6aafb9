"""Language models go through everything that other policies do: training, resumption, sweeps, devices, commands."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import texts
from rmft_jax import cli
from rmft_jax.config import ConfigError
from rmft_jax.language import models
from rmft_jax.language.models import MAKERS
from rmft_jax.method import rmft
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.settings import RunConfig, from_dict
from rmft_jax.method.state import abstract_state, init, make_agent
from rmft_jax.running.files import RunError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.training import evaluate_run, load_run, train
from rmft_jax.sweeps.generalization import evaluate_grid
from rmft_jax.sweeps.run import run_sweep
from rmft_jax.sweeps.spec import Sweep
from rmft_jax.sweeps.store import load_policy, load_sweep
from runs import Reporter, assert_same_run, few_baselines, train_until
from texts import TEXT, TEXT_RUN, TEXT_WORDS

pytestmark = pytest.mark.usefixtures("few_rivals")
LORA = TEXT_RUN.replace(tuned="lora", lora_rank=2)
THINKING = LORA.replace(reasoning=2, branching="uniform")

OBJECTIVES = {
    "own": {"reasoning": 2},
    "all": {"imitated": "all", "reasoning": 2},
    "free": {"answer": "free", "history": "summary"},
    "reinforce": {"objective": "reinforce", "k": 2, "reasoning": 2, "selection": "regret"},
    "grpo": {"objective": "grpo", "k": 2, "reasoning": 2, "selection": "regret", "answer": "free"},
    "distillation": {"objective": "distillation", "behavior": "thompson"},
    "template": {"objective": "distillation", "behavior": "ucb1", "narration": "template", "reasoning": 20},
    "best arm": {"objective": "dpt"},
    "full information": {"feedback": "full"},
    "descent on regret": {"feedback": "full", "objective": "regret_loss", "reasoning": 2},
    "near the start": {"kl_reference": "initial", "kl_weight": 0.1, "tuned": "lora"},
    "pooled": {"selection": "pooled", "branching": "uniform"},
}


# Of each kind one; every one compiles an iteration of its own.
QUICK = ("own", "free", "grpo")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, changes in OBJECTIVES.items()
    ],
)
def test_every_objective_learns_from_dialogues(changes):
    config = TEXT.replace(**changes)
    config.validate()
    state = init(config, jax.random.key(0))
    before = jax.tree.map(np.asarray, state.params)
    after, metrics = rmft.iterate(state)
    assert all(np.isfinite(np.asarray(leaf)) for leaf in jax.tree.leaves(metrics))
    moved = jax.tree.map(lambda new, old: float(np.abs(new - old).max()), after.params, before)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert float(metrics.regret_spread) > 0


@pytest.mark.slow
def test_the_gradient_of_clipped_words_is_that_of_their_probabilities():
    """On the policy that wrote them, GRPO and REINFORCE with the same advantages have the same gradient."""
    config = TEXT.replace(objective="grpo", k=2, selection="regret", reasoning=2, answer="free")
    state = init(config, jax.random.key(0))
    played = rmft.play(state)
    row = jax.tree.map(lambda leaf: leaf[0, 0], played)

    def gradient(objective):
        def loss(params):
            agent, advantages = config.agent(params, state.fixed), jnp.asarray([1.0, -2.0, 0.5, 1.5])
            kept = KeptBatch(row, jnp.ones(4), advantages)
            chosen = config.replace(objective=objective)
            return jnp.sum(chosen.objective.round_losses(chosen, agent, kept))

        return jax.grad(loss)(state.params)

    for one, other in zip(*map(jax.tree.leaves, map(gradient, ("grpo", "reinforce"))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    train_until(1, THINKING, tmp_path / "stopped")
    train(THINKING, tmp_path / "stopped", resume=True, reporter=Reporter(), num_devices=1)
    train(THINKING, tmp_path / "whole", reporter=Reporter(), num_devices=1)
    assert_same_run(THINKING, tmp_path / "stopped", tmp_path / "whole")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapted") / "run"
    train(LORA, path, reporter=Reporter(), num_devices=1)
    return path


def test_checkpoints_hold_what_is_trained_only(adapted):
    (newest, *_) = sorted((adapted / "checkpoints").glob("*.npz"), reverse=True)
    names = np.load(newest).files
    assert not [name for name in names if "fixed" in name or "library" in name or "embed" in name]
    policy = load_run(adapted)
    assert jax.tree.map(jnp.shape, policy.agent.params) == jax.tree.map(
        lambda leaf: leaf.shape, abstract_state(LORA.rmft).params
    )


def test_settings_survive_their_file():
    config = RunConfig().replace(policy="text", model="toy-untrained", contexts="held-out", reasoning=7)
    assert from_dict(json.loads(json.dumps(config.flat()))) == config


@pytest.mark.slow
def test_a_sweep_equals_its_runs_alone(tmp_path):
    config = TEXT_RUN.replace(tuned="lora")
    fixed = {name: value for name, value in config.flat().items() if name not in ("step_size", "num_arms")}
    axes = {"step_size": [1e-3, 1e-2], "num_arms": [2, 3]}
    sweep = Sweep("text-toy", grid=axes, override=fixed, baselines=["ucb1"])
    run_sweep(sweep, tmp_path / "sweep", keep_weights=True, reporter=Reporter())
    train(config.replace(step_size=1e-2, num_arms=2), tmp_path / "alone", reporter=Reporter(), num_devices=1)
    swept = load_sweep(tmp_path / "sweep").sel(step_size=1e-2, num_arms=2, method="nearest")
    alone = RunDirectory(tmp_path / "alone").read_dataset("metrics.nc")
    for name, own in (("loss", "loss"), ("training_regret", "regret"), ("validation_regret", "validation_regret")):
        np.testing.assert_allclose(swept[name], alone[own], atol=1e-4)
    assert len(set(alone["loss"].to_numpy())) == 4
    policy = load_policy(tmp_path / "sweep", {"step_size": 1e-2, "num_arms": 2})
    assert policy.agent.num_arms == 2


@pytest.mark.slow
def test_a_policy_plays_other_sizes_than_it_was_trained_on():
    agent = make_agent(init(TEXT, jax.random.key(0)))
    grid = evaluate_grid(TEXT_RUN, agent, {"horizon": [3, 6], "num_arms": [2, 5]}, baselines=["ucb1"])
    assert grid["final_regret"].shape == (2, 2)
    assert np.isfinite(grid["final_regret"].to_numpy()).all()
    longer = TEXT_RUN.replace(horizon=6)
    with few_baselines("ucb1"):
        alone = evaluate_run(longer, agent, RunKeys.create(longer.seed).test, num_arms=5)
    own = alone["regret"].sel(agent="rmft").isel(round=-1).mean()
    np.testing.assert_allclose(grid["final_regret"].sel(horizon=6, num_arms=5), own, rtol=1e-5)
    assert alone.attrs["num_arms"] == 5


def test_dialogues_do_not_depend_on_their_batch():
    config = TEXT.replace(reasoning=2, answer="free")
    agent, keys = make_agent(init(config, jax.random.key(0))), RolloutKeys.create(jax.random.key(5))

    def written(number, **options):
        return rollout_scenarios(agent, config.problem(), keys, num_scenarios=number, **options).notes.written

    many = written(6, block=4)
    np.testing.assert_array_equal(written(6, block=1), many)
    np.testing.assert_array_equal(written(2, first_scenario=3), many[3:5])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("language") / "run"
    words = ["train", "text-toy", "--out", str(path), "--reasoning", "2", "--answer", "free", *TEXT_WORDS]
    assert cli.main(words) == 0
    return path


@pytest.mark.slow
def test_the_command_trains_evaluates_and_shows(run, capsys):
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--contexts", "held-out"]) == 0
    said = capsys.readouterr().out
    assert "contexts=held-out" in said
    assert "answers of rmft that named no arm: " in said
    assert cli.main(["evaluate", str(run), "--contexts", "held-out", "--grid", "horizon=3,5"]) == 0
    grid = RunDirectory(run).read_dataset("evaluations/contexts=held-out,horizon=3+5.nc")
    assert (grid["invalid"] > 0).all()
    held_out = RunDirectory(run).read_dataset("evaluations/contexts=held-out.nc")
    own = RunDirectory(run).read_dataset("evaluation.nc")
    others = [name for name in own["agent"].values if name != "rmft"]
    np.testing.assert_array_equal(own["regret"].sel(agent=others), held_out["regret"].sel(agent=others))
    assert (own["regret"].sel(agent="rmft") != held_out["regret"].sel(agent="rmft")).any()
    capsys.readouterr()
    other = str(run.parent / "distilled")
    words = ["--objective", "distillation", "--behavior", "ucb1", *TEXT_WORDS]
    assert cli.main(["train", "text-toy", "--out", other, *words]) == 0
    assert cli.main(["show", other]) == 0
    capsys.readouterr()
    assert cli.main(["show", str(run), "--scenario", "2", "--num-shown", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("rollout") >= 2
    assert ", kept" in said
    assert ", not kept" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "pretrained:mab-k2", "--contexts", "held-out"], "need a policy that reads text"),
        (["show", "pretrained:mab-k2"], "need a policy that writes text"),
        (["show", "RUN", "--scenario", "9"], "got scenario 9, need one from 0 to 3"),
        (["show", "RUN", "--num-shown", "0"], "got num_shown=0"),
        (["evaluate", "RUN", "--contexts", "nonsense"], "nonsense"),
        (["train", "text-toy", "--out", "x", "--model", "nowhere.gguf"], "got language model 'nowhere.gguf'"),
        (["train", "text-toy", "--out", "x", "--num-arms", "99"], "num_arms=99"),
        (["train", "quickstart", "--out", "x", "--reasoning", "3"], "--reasoning"),
    ],
)
def test_the_commands_refuse_in_one_line(run, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(run) if word == "RUN" else word for word in words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_policies_import_nothing_of_it():
    program = (
        "import sys; from rmft_jax.method.presets import get_preset; get_preset('mab').validate(); "
        "print([name for name in sys.modules if 'language' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_two_devices_make_the_same_iteration():
    program = (
        "import texts, jax, numpy as np\n"
        "from rmft_jax.method import rmft\n"
        "from rmft_jax.method.devices import make_mesh\n"
        "from rmft_jax.method.state import init\n"
        "config = texts.TEXT.replace(reasoning=2, tuned='lora')\n"
        "ends = [rmft.iterate(init(config, jax.random.key(0)), None, make_mesh(n))[0].params for n in (1, 2)]\n"
        "for one, other in zip(*map(jax.tree.leaves, ends)):\n"
        "    np.testing.assert_allclose(one, other, atol=1e-5)\n"
    )
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_adapters_are_not_put_upon_another_model(tmp_path, adapted):
    start = load_run(adapted)
    with pytest.raises(ConfigError, match=r"lora_alpha=3, trained upon tiny with lora_alpha=16, need"):
        train(LORA.replace(lora_alpha=3.0), tmp_path / "other", start=start, reporter=Reporter(), num_devices=1)
    assert not (tmp_path / "other").exists()


def test_a_run_goes_on_upon_the_model_that_it_began_with(tmp_path, monkeypatch):
    path = train_until(1, LORA, tmp_path / "run")
    other = dataclasses.replace(texts.tiny_model(), digest="another")
    monkeypatch.setitem(MAKERS, "tiny", lambda: other)
    models._make.cache_clear()
    try:
        for action in (lambda: load_run(path), lambda: train(LORA, path, resume=True, reporter=Reporter())):
            with pytest.raises(
                RunError, match=r"files are another with lora_alpha=16, trained upon tiny with .*, need .*; try them"
            ):
                action()
    finally:
        models._make.cache_clear()
