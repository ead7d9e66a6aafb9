"""The command `rmft`: what it makes and prints, and how it refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rmft_jax import cli
from rmft_jax.method.presets import PRESETS
from rmft_jax.problems import Environment
from rmft_jax.running.storage import RunDirectory
from runs import TINY_WORDS, few_baselines, files_of, interrupt_after, refused
from worlds import TINY_RUN


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "quickstart", "--out", str(path), *TINY_WORDS]) == 0
    return path


@pytest.fixture
def light():
    """For runs whose rivals and figures do not matter."""
    with few_baselines("thompson", "hedge_anytime", "follow_the_leader"):
        yield


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k", "9"], "got k=9 with num_rollouts=8"),
        (["--k", "0"], "got k=0"),
        (["--num-rollouts", "0"], "got num_rollouts=0"),
        (["--num-minibatches", "3"], "got num_minibatches=3 with num_scenarios*k=512*2=1024"),
        (["--width", "33"], "got width=33 with num_heads=2"),
        (["--horizon", "0"], "got horizon=0"),
        (["--horizon=-5"], "got horizon=-5"),
        (["--num-arms", "1"], "got num_arms=1"),
        (["--step-size", "nan"], "got step_size=nan"),
        (["--step-size=-0.1"], "got step_size=-0.1"),
        (["--nonsense", "3"], "--nonsense"),
        (["--horizon", "many"], "--horizon"),
        (["--horizon"], "--horizon"),
        (["--prior", "cauchy"], "cauchy"),
        (["--chunk-size", "7"], "got num_iterations=200 with chunk_size=7"),
        (["--environment", "nowhere"], "got environment 'nowhere', need one of abrupt, adaptive"),
        (["--environment", "abrupt", "--num-changes", "30"], "got num_changes=30 with horizon=30"),
        (["--environment=besbes_even", "--variation", "20"], "need a budget that can be spent, at most 9"),
        (["--environment", "iid_gaussian"], "got entropy_weight=0.01 with feedback='full'"),
        (["--noise", "gaussian", "--noise-std=-1"], "got noise_std=-1.0"),
        (["--prior", "constant", "--prior-mean", "1.5"], "got expected rewards in [1.5, 1.5] with noise='bernoulli'"),
        (["--num-changes", "3"], "--num-changes"),
        (["--resume", "--overwrite"], "got both --resume and --overwrite"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_written(capsys, tmp_path, words, message):
    assert message in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got no environment"),
        (["nowhere"], "got environment 'nowhere', need one of abrupt, adaptive"),
        (["bernoulli", "--agents", "ucb2"], "got agent 'ucb2'"),
        (["bernoulli", "--agents", "hedge"], "got agent 'hedge' for Stationary under 'bandit' feedback"),
        (["iid_uniform", "--agents", "ucb1", "hedge"], "got agent 'ucb1' for Stationary under 'full' feedback"),
        (["bernoulli", "--num-arms", "1"], "got num_arms=1"),
        (["bernoulli", "--horizon", "0"], "got horizon=0"),
        (["bernoulli", "--num-scenarios", "1"], "got num_scenarios=1"),
        (["bernoulli", "--seed=-1"], "got seed=-1"),
        (["bernoulli", "--seed", str(2**32)], "need a seed below 2**32"),
        (["sinusoidal", "--amplitude", "0.6"], "got expected rewards in [-0.1, 1.1] with noise='bernoulli'"),
        (["abrupt", "--horizon", "3"], "got num_changes=3 with horizon=3"),
        (["bernoulli", "--num-changes", "3"], "--num-changes"),
    ],
)
def test_bad_benchmarks_are_refused_in_one_line(capsys, tmp_path, words, message):
    assert message in refused(capsys, "bench-agents", *words, "--json", tmp_path / "x.json")
    assert not any(tmp_path.iterdir())


def test_bench_agents_writes_numbers_dataset_and_figures(capsys, tmp_path):
    words = ["bernoulli", "--num-arms", "2", "--horizon", "8", "--num-scenarios", "40", "--agents", "bayes_optimal"]
    words += ["greedy", "ucb", "--tune", "--json", str(tmp_path / "deep/agents.json"), "--out", str(tmp_path / "out")]
    assert cli.main(["bench-agents", *words]) == 0
    out = capsys.readouterr().out
    assert "bernoulli, K=2, T=8, 40 scenarios" in out
    assert "tuned: ucb " in out
    numbers = json.loads((tmp_path / "deep/agents.json").read_text())
    assert {name: numbers[name] for name in ("environment", "horizon", "num_arms", "num_scenarios")} == {
        "environment": "bernoulli", "horizon": 8, "num_arms": 2, "num_scenarios": 40
    }  # fmt: skip
    assert set(numbers["agents"]) == {"bayes_optimal", "greedy", "ucb"}
    for row in numbers["agents"].values():
        assert row["regret_ci95"][0] <= row["regret_mean"] <= row["regret_ci95"][1]
    assert numbers["settings"]["environment"] == "stationary"
    assert (numbers["seed"], numbers["regret"], set(numbers["constants"])) == (0, "pseudo", {"ucb"})
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"agents.nc", "final_regret.png", "regret.pdf", "loglog.png", "suff_fail.png", "arms.png"} <= names


def test_the_environment_of_a_preset_can_be_another(tmp_path, capsys, light):
    other = "--environment abrupt --num-changes 2 --feedback full --entropy-weight 0"
    words = [*TINY_WORDS, *other.split()]
    path = tmp_path / "a run"
    assert cli.main(["train", "quickstart", f"--out={path}", *words]) == 0
    saved = json.loads((path / "config.json").read_text())["config"]
    assert (saved["environment"], saved["num_changes"], saved["num_arms"]) == ("abrupt", 2, 3)
    assert "follow_the_leader" in capsys.readouterr().out
    assert cli.main(["train", "--out", str(path), "--resume"]) == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert "num_changes: the run has 2, got 1" in refused(
        capsys, "train", "--out", path, "--resume", "--num-changes", "1"
    )
    assert cli.main(["evaluate", str(path), "--horizon", "9"]) == 0
    capsys.readouterr()
    short = refused(capsys, "evaluate", path, "--horizon", "2")
    assert "got num_changes=2 with horizon=2, need fewer change points than rounds; try a longer --horizon" in short
    assert json.loads((path / "summary.json").read_text())["preset"] == "quickstart on abrupt"


def test_play_in_a_ball_has_a_table_and_figures_of_its_own(tmp_path, capsys):
    words = [*TINY_WORDS, "--environment", "iid_gaussian", "--decision-map", "ball", "--entropy-weight", "0"]
    assert cli.main(["train", "quickstart", "--out", str(tmp_path / "run"), *words]) == 0
    out = capsys.readouterr().out
    assert "ball regret" in out
    assert "hedge" not in out, "what plays in the simplex cannot compete in a ball"
    assert {path.stem for path in (tmp_path / "run/figures").iterdir()} == {
        "training", "regret", "average_regret", "difference", "loglog", "final_regret"
    }  # fmt: skip
    assert "without suff_fail_freq" in refused(capsys, "plot", tmp_path / "run", "--kind", "suff_fail")


def test_other_refusals(capsys, tmp_path, run):
    assert "got command 'trian'" in refused(capsys, "trian")
    assert "got preset 'nope', need one of quickstart, fol" in refused(capsys, "train", "nope", "--out", tmp_path / "x")
    assert "has no config.json" in refused(capsys, "train", "--out", tmp_path / "mistyped", "--resume")
    assert "got no --out" in refused(capsys, "train", "mab")
    assert "after options" in refused(capsys, "train", "--out", tmp_path / "x", "mab")
    assert "is not a run directory" in refused(capsys, "evaluate", tmp_path)
    assert "is not a run directory" in refused(capsys, "plot", tmp_path)
    assert "already holds a run" in refused(capsys, "train", "quickstart", "--out", run, *TINY_WORDS)
    changed = refused(capsys, "train", "--out", run, "--resume", "--seed", "5", "--temperature", "2.0")
    assert "temperature: the run has 1.0, got 2.0; seed: the run has 0, got 5" in changed
    assert "got horizon=0" in refused(capsys, "evaluate", run, "--horizon", "0")
    assert "got num_arms=4, need 2 to 3" in refused(capsys, "evaluate", run, "--num-arms", "4")
    assert "got num_scenarios=1" in refused(capsys, "evaluate", run, "--num-scenarios", "1")


def test_a_run_is_complete_and_reloadable(run, capsys):
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.json", "metrics.nc", "metrics.jsonl", "evaluation.nc", "summary.json", "checkpoints", "figures"
    }  # fmt: skip
    assert {path.name for path in (run / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in (
            "training",
            "regret",
            "average_regret",
            "difference",
            "loglog",
            "final_regret",
            "suff_fail",
            "arms",
        )
        for suffix in ("png", "pdf", "csv")
    }
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["preset"], summary["seed"]) == ("quickstart", 0)
    before = (run / "evaluation.nc").read_bytes()
    assert cli.main(["train", "--out", str(run), "--resume"]) == 0
    out, iteration = capsys.readouterr().out, summary["checkpoint_iteration"]
    assert "thompson" in out
    assert f"quickstart, iteration {iteration} (lowest validation regret), 32 test scenarios\n" in out
    assert (run / "evaluation.nc").read_bytes() == before


@pytest.mark.slow  # `test_surroundings.py` has every file, of runs with few rivals.
def test_a_lost_or_damaged_result_is_made_again(run, capsys):
    values = json.loads((run / "summary.json").read_text())["evaluation"]
    (run / "summary.json").write_text("{")
    (run / "evaluation.nc").unlink()
    assert "does not exist yet; try `rmft train --resume" in refused(capsys, "plot", run, "--kind", "regret")
    assert cli.main(["train", "--out", str(run), "--resume"]) == 0
    assert json.loads((run / "summary.json").read_text())["evaluation"] == values


def test_one_round_has_no_greedy_fraction(tmp_path, capsys, light):
    words = ["train", "quickstart", "--out", str(tmp_path / "run"), *TINY_WORDS, "--horizon", "1"]
    assert cli.main(words) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["evaluation"]["rmft"]["greedy_frac"] is None
    assert cli.main([*words, "--resume"]) == 0
    assert "nothing to resume" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(run, capsys, monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("rmft_jax.plotting.plot_run", press)
    assert cli.main(["plot", str(run)]) == 130
    assert capsys.readouterr().err == "rmft: stopped\n"


def test_evaluate_at_other_settings_keeps_the_runs_own_evaluation(run, capsys, light):
    before = (run / "evaluation.nc").read_bytes()
    assert cli.main(["evaluate", str(run), "--horizon", "9", "--num-scenarios", "12", "--checkpoint", "last"]) == 0
    out = capsys.readouterr().out
    assert "T=9, 12 test scenarios" in out
    assert (run / "evaluations/horizon=9,num_scenarios=12,checkpoint=last.nc").is_file()
    assert (run / "evaluation.nc").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "register"), [("presets", PRESETS), ("environments", Environment.register.names())]
)
def test_registers_are_listed(capsys, command, register):
    assert cli.main([command]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in register)
    assert f"try `rmft {command}`" in refused(capsys, command, "more")
    assert cli.main([command, "--help"]) == 0


def test_a_stop_signal_is_told_with_how_to_go_on(capsys, tmp_path, light):
    words = ["train", "quickstart", *TINY_WORDS, "--out", str(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 1, signal.SIGTERM)
        assert cli.main(words) == 128 + signal.SIGTERM
    told = f"rmft: stopped at iteration 2; continue with: rmft train --resume --out {tmp_path / 'run'}"
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_a_full_disk_is_told_in_one_line(capsys, tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert cli.main(["train", "quickstart", *TINY_WORDS, "--out", str(tmp_path / "run")]) == 1
    told = "rmft: error: [Errno 28] No space left on device; files written before are whole; try again where"
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)
    assert not any((tmp_path / "run" / "checkpoints").iterdir())


def test_a_place_that_cannot_be_written_is_told_in_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "run", Path("/proc/run")):
        said = refused(capsys, "train", "quickstart", *TINY_WORDS, "--out", place)
        assert f"cannot write to {place}: " in said
        assert "try another --out" in said


def test_divergence_is_told_in_one_line(capsys, tmp_path):
    words = ["train", "quickstart", *TINY_WORDS, "--step-size", "1e38", "--max-grad-norm", "1e38"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("rmft: error: loss or parameters became NaN or infinite")
    assert "; try a smaller step_size" in told


def test_a_run_of_version_0_6_is_refused_and_left_as_it_is(capsys, tmp_path):
    """Its settings and its results are read."""
    run = RunDirectory.create(tmp_path / "run", TINY_RUN, "quickstart")
    flat = TINY_RUN.flat() | {"objective": "rmft", "replay": 0}
    environment = {"family": "bandit", "num_arms": flat.pop("num_arms"), "feedback": "bandit", "prior": "uniform"}
    outer = {name: flat.pop(name) for name in ("seed", "chunk_size", "num_validation_scenarios", "num_test_scenarios")}
    policy = {"family": "transformer", "num_layers": flat.pop("num_layers"), "width": flat.pop("width")}
    nested = outer | {"rmft": flat | {"environment": environment, "policy": policy}}
    (run.path / "config.json").write_text(json.dumps({"preset": "quickstart", "config": nested}))
    (run.checkpoints / "last" / "6").mkdir(parents=True)
    assert run.read_config() == (TINY_RUN, "quickstart")
    before = files_of(run.path)
    for words in (("evaluate", run.path), ("train", "--resume", "--out", run.path)):
        assert "holds checkpoints of version 0.6 or before" in refused(capsys, *words)
    assert files_of(run.path) == before


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_jax_is_not_imported_for_the_help(words):
    program = f"import sys; from rmft_jax import cli; cli.main({words!r}); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
