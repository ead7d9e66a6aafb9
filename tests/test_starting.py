"""Runs that start from trained weights: `rmft train --from`."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rmft_jax import Sweep, cli, load_policy
from rmft_jax.method.evaluation import final_regret
from rmft_jax.running.files import RunError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.training import train
from rmft_jax.running.weights import read_arrays, read_policy, write_policy
from rmft_jax.sweeps.store import SweepDirectory
from runs import TINY_WORDS, Reporter, assert_same_run, files_of, make_run, refused, train_until
from worlds import TINY_RUN

pytestmark = pytest.mark.usefixtures("few_rivals")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with made-up weights, the best of which are not the last."""
    return make_run(tmp_path_factory.mktemp("source") / "run", TINY_RUN)[0].path


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """A run that starts from them, and is not interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert cli.main(["train", "quickstart", *TINY_WORDS, "--from", str(source), "--out", str(path)]) == 0
    return path


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_run_starts_from_the_best_weights_of_another(source, whole):
    run, start = RunDirectory.open(whole), load_policy(source)
    assert run.read_config() == (TINY_RUN, "quickstart")
    assert_equal(read_policy(run.start).agent.params, start.agent.params)
    assert read_policy(run.start).provenance == {"from": dict(start.provenance)}
    key = RunKeys.create(TINY_RUN.seed).validation
    regret = final_regret(start.agent, TINY_RUN.rmft.problem(), key, TINY_RUN.num_validation_scenarios)
    first = run.read_dataset("metrics.nc")["validation_regret"].to_numpy()[0]
    np.testing.assert_allclose(first, np.mean(regret), rtol=1e-5)


def test_all_but_the_weights_is_as_in_any_run(source, tmp_path):
    """The streams of random numbers, and the optimizer, which begins anew."""
    states = {}
    for name, start in (("own", None), ("others", load_policy(source))):
        path = train_until(1, TINY_RUN.replace(step_size=1e-30), tmp_path / name, start=start)
        states[name] = read_arrays(path / "checkpoints" / "00000002.npz")[0]
    for name in states["own"]:
        if name == "state.key" or "count" in name:
            np.testing.assert_array_equal(states["own"][name], states["others"][name], err_msg=name)
    start = {name.removeprefix("state.params."): x for name, x in states["others"].items() if "state.params." in name}
    assert_equal(start, read_arrays(tmp_path / "others" / "start.npz")[0])


@pytest.mark.parametrize("chunks", [0, 2])
def test_it_resumes_bit_for_bit_without_being_told_from_what(source, whole, tmp_path, chunks):
    """Also where there was no checkpoint yet, and what it started from has gone on or is gone."""
    gone = shutil.copytree(source, tmp_path / "gone")
    start = load_policy(gone)
    if chunks:
        train_until(chunks, TINY_RUN, tmp_path / "run", start=start)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunDirectory, "write_dataset", killed)
            with pytest.raises(RuntimeError, match="killed"):
                train(TINY_RUN, tmp_path / "run", start=start, preset="tiny", reporter=Reporter())
    shutil.rmtree(gone)
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert_same_run(TINY_RUN, whole, tmp_path / "run")


def killed(*_):
    raise RuntimeError("killed")


def test_the_same_words_with_resume_begin_it_and_continue_it(source, tmp_path, whole, capsys):
    words = ["quickstart", *TINY_WORDS, "--out", tmp_path / "run", "--resume", "--from"]
    file = tmp_path / "policy.npz"
    policy = load_policy(source)
    write_policy(file, policy.agent.params, policy.config, policy.preset, {})
    assert cli.main(["train", *map(str, words), str(file)]) == 0
    assert_same_run(TINY_RUN, whole, tmp_path / "run")
    assert cli.main(["train", *map(str, words), str(file)]) == 0
    assert "nothing to resume" in capsys.readouterr().err
    write_policy(file, jax.tree.map(lambda leaf: leaf + 1, policy.agent.params), policy.config, policy.preset, {})
    before = files_of(tmp_path)
    other = refused(capsys, "train", *words, file)
    assert f"cannot resume {tmp_path / 'run'} from other weights than those it started from; try `rmft train" in other
    assert files_of(tmp_path) == before


def test_a_run_with_random_weights_is_not_resumed_from_others(source):
    """Though it was begun with all other settings alike."""
    before = files_of(source)
    with pytest.raises(RunError, match="from other weights than those it started from"):
        train(TINY_RUN, source, resume=True, start=load_policy(source), reporter=Reporter())
    assert files_of(source) == before


def test_a_run_is_overwritten_from_its_own_weights(source, whole, tmp_path):
    path = shutil.copytree(source, tmp_path / "run")
    words = ["train", "quickstart", *TINY_WORDS, "--from", str(path), "--out", str(path), "--overwrite"]
    assert cli.main(words) == 0
    assert_same_run(TINY_RUN, whole, path)


def test_damaged_weights_to_start_from_are_told(source, tmp_path, capsys):
    """Instead of a start from others, where the run has no checkpoint yet."""
    start = load_policy(source)

    def damaged(path: Path) -> None:
        write_policy(path, start.agent.params, TINY_RUN, "tiny", {})
        path.write_bytes(path.read_bytes()[:500])

    RunDirectory.create(tmp_path / "run", TINY_RUN, "tiny", write_start=damaged)
    assert "cannot use the policy" in refused(capsys, "train", "--resume", "--out", tmp_path / "run")


@pytest.mark.slow
def test_a_policy_of_the_package_goes_on_in_another_world(tmp_path):
    """Its sizes are those of its preset."""
    words = ["--num-iterations", "1", "--chunk-size", "1", "--num-scenarios", "8", "--num-minibatches", "1"]
    words += ["--horizon", "4", "--num-validation-scenarios", "8", "--num-test-scenarios", "8", "--prior", "fixed_gap"]
    path = tmp_path / "run"
    assert cli.main(["train", "mab-k2", *words, "--from", "pretrained:mab-k2", "--out", str(path)]) == 0
    assert_equal(read_policy(path / "start.npz").agent.params, load_policy("pretrained:mab-k2").agent.params)
    assert RunDirectory.open(path).read_config()[0].rmft.environment.flat()["prior"] == "fixed_gap"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "pretrained:mab-k2"], "than policy=Transformer(num_layers=1, width=8) with num_arms=3"),
        (
            ["--from", "pretrained:mab-k2", "--num-arms", "2"],
            "got weights of another network (at ['",
        ),
        (
            ["--from", "SOURCE", "--num-arms", "4"],
            "with num_arms=4, need those of this very one; try the settings of the policy and the num_arms that",
        ),
        (["--from", "SOURCE", "--width", "16"], "got weights of another network"),
        (["--from", "SOURCE", "--policy", "single_layer", "--entropy-weight", "0"], "than policy=SingleLayer("),
        (["--from", "pretrained:mab-k99"], "got pretrained policy 'mab-k99', need one of"),
        (["--from", "SOURCE/none"], "none is not a run directory"),
        (["--from", "SOURCE/config.json"], "cannot use the policy"),
        (["--from", "SOURCE", "--from-cell", "0"], "got cell 0 of "),
        (["--from", "SWEEP"], "got cell None of "),
        (["--from", "SWEEP", "--from-cell", "9"], "got cell 9, which no cell matches, need one of 0 (preset)"),
        (["--from", "SWEEP", "--from-cell", "0"], "holds no policy of preset; try a sweep with --keep-weights"),
        (["--from-cell", "0"], "got --from-cell 0, need --from beside it; try adding --from"),
        (["--from"], "--from"),
    ],
)
def test_what_cannot_be_started_from_is_refused_and_nothing_is_written(capsys, tmp_path, source, words, message):
    SweepDirectory.create(tmp_path / "sweep", Sweep("quickstart"))
    places = {"SOURCE": str(source), "SWEEP": str(tmp_path / "sweep")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    before = files_of(tmp_path)
    small = TINY_WORDS if "single_layer" not in words else []
    assert message in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", *small, *words)
    assert files_of(tmp_path) == before


def test_processes_are_joined_before_the_first_array(capsys, tmp_path, monkeypatch, source):
    """After it JAX can join nobody."""
    calls: list[str] = []

    def join(*_):
        calls.append("join")

    def load(*_):
        calls.append("load")
        raise RunError("enough; try nothing")

    monkeypatch.setattr("rmft_jax.running.processes.join", join)
    monkeypatch.setattr("rmft_jax.cli.train.load_policy", load)
    refused(capsys, "train", "quickstart", "--out", tmp_path / "run", "--from", source, "--distributed")
    assert calls == ["join", "load"]
