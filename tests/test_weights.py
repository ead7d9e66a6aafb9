"""Files of weights: what is stored is what plays, wherever it is from, and damage is told from a wrong name."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rmft_jax import (
    Problem,
    cli,
    evaluate,
    get_preset,
    init,
    load_policy,
    make_agent,
    make_agents,
    pretrained_names,
)
from rmft_jax.config import ConfigError
from rmft_jax.running import weights
from rmft_jax.running.files import RunError, read_dataset
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import (
    DamagedFileError,
    load_pretrained,
    read_arrays,
    read_policy,
    write_arrays,
    write_policy,
)
from runs import few_baselines, make_run
from worlds import TINY_RUN

NAMES = pretrained_names()


def stored(path: Path, **provenance):
    agent = make_agent(init(TINY_RUN.rmft, jax.random.key(3)))
    write_policy(path, agent.params, TINY_RUN, "tiny", {"iteration": 7} | provenance)
    return agent


def test_what_is_read_is_what_was_written(tmp_path):
    agent = stored(tmp_path / "tiny.npz")
    policy = read_policy(tmp_path / "tiny.npz")
    assert (policy.config, policy.preset, policy.provenance) == (TINY_RUN, "tiny", {"iteration": 7})
    assert jax.tree.structure(policy.agent) == jax.tree.structure(agent)
    for found, expected in zip(jax.tree.leaves(policy.agent), jax.tree.leaves(agent), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_same_policy_gives_the_same_bytes(tmp_path):
    stored(tmp_path / "a.npz", device="cpu", seed=0)
    stored(tmp_path / "b.npz", seed=0, device="cpu")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    stored(tmp_path / "tiny.npz")
    before = (tmp_path / "tiny.npz").read_bytes()

    def full_disk(file, **_):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        stored(tmp_path / "tiny.npz")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_whatever_bit_is_flipped_nothing_else_is_read(tmp_path):
    """In every byte of a file; some bits say nothing, such as those of a date."""
    path, arrays = tmp_path / "small.npz", {"a": np.arange(6.0).reshape(2, 3), "b": np.asarray([1, 2], np.int32)}
    write_arrays(path, arrays, {"what": "numbers"})
    whole, messages, rng = path.read_bytes(), [], np.random.default_rng(0)
    for place, bit in enumerate(rng.integers(8, size=len(whole)).tolist()):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            read, about = read_arrays(path)
        except DamagedFileError as error:
            messages.append(str(error))
            continue
        assert about == {"what": "numbers"}
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype
    assert len(messages) > len(whole) / 2
    assert not any("\n" in message for message in messages)


def test_a_shape_that_asks_for_less_is_damage(tmp_path):
    path = tmp_path / "large.npz"
    write_arrays(path, {"a": np.arange(3000.0)}, {})
    path.write_bytes(path.read_bytes().replace(b"(3000,)", b"(1000,)"))
    with pytest.raises(DamagedFileError, match="Bad CRC-32"):
        read_arrays(path)


def test_what_is_pickled_is_not_read(tmp_path):
    with (tmp_path / "bad.npz").open("wb") as file:
        np.savez(file, about=np.asarray({"config": 1}, object))
    with pytest.raises(RunError, match=r"cannot use the policy .*allow_pickle=False"):
        read_policy(tmp_path / "bad.npz")


def test_a_policy_is_loaded_by_what_it_is_called(tmp_path):
    run, state, history = make_run(tmp_path / "run", TINY_RUN, chunks=2)
    agents = {which: load_policy(run.path, which=which) for which in ("best", "last")}
    best = int(history.best_iteration[0])
    assert best != 4, "else both are the same"
    assert [agents[which].provenance["iteration"] for which in ("best", "last")] == [best, 4]
    for which, params in (("best", history.best_of()), ("last", state.params)):
        jax.tree.map(np.testing.assert_array_equal, agents[which].agent.params, params)
    agent = stored(tmp_path / "policy.npz")
    for source in (tmp_path / "policy.npz", str(tmp_path / "policy.npz")):
        jax.tree.map(np.testing.assert_array_equal, load_policy(source).agent.params, agent.params)
    assert load_policy(f"pretrained:{NAMES[0]}").preset == NAMES[0]


def test_what_holds_no_policy_is_refused(tmp_path):
    run, _, _ = make_run(tmp_path / "run", TINY_RUN, chunks=0)
    for source, error, message in (
        (tmp_path, RunError, "is not a run directory"),
        (tmp_path / "none.npz", RunError, "is not a run directory"),
        (run.path / "config.json", RunError, "cannot use the policy"),
        (run.path / "checkpoints/00000000.npz", RunError, "cannot use the policy"),
        ("pretrained:none", ConfigError, "need one of"),
    ):
        with pytest.raises(error, match=message):
            load_policy(source)
    with pytest.raises(ConfigError, match=r"got cell 3 of .*, need a cell of a sweep"):
        load_policy(run.path, 3)


def test_names_are_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path)
    for name in ("b", "c", "a"):
        stored(tmp_path / f"{name}.npz")
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [path / "c.npz", path / "a.npz", path / "b.npz"])
    assert pretrained_names() == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shape"])
def test_damage_is_said_in_a_line(tmp_path, damage):
    path = tmp_path / "tiny.npz"
    agent = stored(path)
    if damage == "shape":
        write_policy(path, agent.params, TINY_RUN.replace(num_arms=5), "tiny", {"iteration": 7})
    else:
        content = path.read_bytes()
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no policy"}[damage])
    with pytest.raises(RunError, match="cannot use the policy"):
        read_policy(path)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=f"got pretrained policy 'mab-k99', need one of .*{NAMES[0]}"):
        load_pretrained("mab-k99")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "mab")) for name in NAMES])
def test_every_policy_is_that_of_its_preset_and_beats_a_classical_agent(name):
    policy = load_pretrained(name)
    assert policy.preset == name
    assert policy.config.replace(seed=0) == get_preset(policy.preset)
    problem = Problem(policy.config.rmft.environment, policy.config.rmft.horizon)
    rival = "thompson" if problem.feedback == "bandit" else "hedge_anytime"
    agents = {"rmft": policy.agent, **make_agents(problem, [rival])}
    played = evaluate(agents, problem, num_scenarios=1024, key=jax.random.key(5))
    final = played["regret"].isel(round=-1).mean("scenario")
    assert float(final.sel(agent="rmft")) < 0.75 * float(final.sel(agent=rival))
    # Not the scenarios of the run's own evaluation, but the same law.
    low, high = policy.provenance["evaluation"]["regret_ci95"]
    assert low - 4 * (high - low) < float(final.sel(agent="rmft")) < high + 4 * (high - low)


def test_the_command_plays_it_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = NAMES[0]
    with few_baselines("thompson"):
        assert cli.main(["evaluate", f"pretrained:{name}", "--num-scenarios", "16", "--horizon", "5"]) == 0
    assert "T=5, 16 test scenarios" in " ".join(capsys.readouterr().out.split())
    path = tmp_path / "runs" / "pretrained" / name / "evaluations" / "horizon=5,num_scenarios=16.nc"
    assert read_dataset(path, "").sizes["scenario"] == 16


def test_the_command_plays_it_at_another_temperature(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--num-scenarios", "64", "--horizon", "9", "--out", "found", "--play-temperature"]
    with few_baselines("thompson"):
        for temperature in ("1e-3", "1.0", "1e3"):
            assert cli.main(["evaluate", "pretrained:mab-k2", *words, temperature]) == 0
    found = {
        path.stem.split("play_temperature=")[1]: read_dataset(path, "")
        for path in (tmp_path / "found" / "evaluations").glob("*.nc")
    }
    policy = load_pretrained("mab-k2")
    agent: Any = policy.agent
    problem = policy.config.replace(horizon=9).rmft.problem()
    for temperature, dataset in found.items():
        cooled = dataclasses.replace(agent, temperature=float(temperature))
        key = RunKeys.create(policy.config.seed).test
        played = evaluate({"rmft": cooled}, problem, num_scenarios=64, key=key)
        np.testing.assert_array_equal(played["action"].sel(agent="rmft"), dataset["action"].sel(agent="rmft"))
    assert sorted(float(name) for name in found) == [1e-3, 1.0, 1e3]


@pytest.mark.parametrize("num_arms", [3, 7])
def test_whose_arms_share_weights_plays_fewer_and_more_of_them(num_arms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with few_baselines("thompson"):
        words = ["--num-scenarios", "16", "--horizon", "9", "--num-arms", str(num_arms), "--out", "found"]
        assert cli.main(["evaluate", "pretrained:mab", *words]) == 0
    (path,) = (tmp_path / "found" / "evaluations").glob("*.nc")
    found = read_dataset(path, "")
    assert sorted(set(found["action"].sel(agent="rmft").to_numpy().ravel().tolist())) == list(range(num_arms))
    assert (found["regret"] >= 0).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrained:none"], "need one of"),
        (["pretrained:"], "need one of"),
        (["pretrained:none", "--checkpoint", "last"], "the one that is kept"),
    ],
)
def test_the_command_refuses(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
