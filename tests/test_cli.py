import dataclasses
import json
import subprocess
import sys

import pytest

from rmft_jax import cli
from rmft_jax.agents import make_baselines, reference_agent
from rmft_jax.method.presets import PRESETS
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Environment
from rmft_jax.running import training

SMALL = [
    "--num-arms", "2", "--horizon", "4", "--num-iterations", "2", "--chunk-size", "1", "--num-scenarios", "4",
    "--num-rollouts", "2", "--k", "1", "--num-minibatches", "1", "--width", "8", "--num-layers", "1",
    "--num-validation-scenarios", "8", "--num-test-scenarios", "16",
]  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "quickstart", "--out", str(path), *SMALL]) == 0
    return path


@pytest.fixture
def few_baselines(monkeypatch):
    """For evaluations where only the trained policy matters: most of their time is compilation of the others."""

    def two(problem):
        return make_baselines(problem, (reference_agent(problem), "follow_the_leader", "greedy"))

    monkeypatch.setattr(training, "make_baselines", two)


def refused(capsys, *argv) -> str:
    """Runs a command that must be refused, and returns its one line."""
    assert cli.main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("rmft: error: ")
    assert "; try " in err
    return err


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
        (["--environment", "nowhere"], "got environment 'nowhere', need one of bernoulli, gaussian"),
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
        (["nowhere"], "got environment 'nowhere', need one of bernoulli, gaussian"),
        (["bernoulli", "--agents", "ucb2"], "got agent 'ucb2'"),
        (["bernoulli", "--agents", "hedge"], "got agent 'hedge' for Bandit under 'bandit' feedback"),
        (["iid_uniform", "--agents", "ucb1", "hedge"], "got agent 'ucb1' for Bandit under 'full' feedback"),
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
    assert numbers["settings"]["family"] == "bandit"
    assert (numbers["seed"], numbers["regret"], set(numbers["constants"])) == (0, "pseudo", {"ucb"})
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"agents.nc", "final_regret.png", "regret.pdf", "loglog.png", "suff_fail.png", "arms.png"} <= names


def test_the_environment_of_a_preset_can_be_another(tmp_path, capsys, few_baselines):
    words = [*SMALL, "--environment", "abrupt", "--num-changes", "2", "--feedback", "full", "--entropy-weight", "0"]
    path = tmp_path / "a run"
    assert cli.main(["train", "quickstart", f"--out={path}", *words]) == 0
    saved = json.loads((path / "config.json").read_text())["config"]["rmft"]["environment"]
    assert (saved["family"], saved["num_changes"], saved["num_arms"]) == ("abrupt", 2, 2)
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
    words = [*SMALL, "--environment", "iid_gaussian", "--decision-map", "ball", "--entropy-weight", "0"]
    assert cli.main(["train", "quickstart", "--out", str(tmp_path / "run"), *words]) == 0
    out = capsys.readouterr().out
    assert "ball regret" in out
    assert "hedge" not in out, "what plays in the simplex cannot compete in a ball"
    assert {path.stem for path in (tmp_path / "run/figures").iterdir()} == {
        "training", "regret", "loglog", "final_regret"
    }  # fmt: skip


def test_other_refusals(capsys, tmp_path, run):
    assert "got command 'trian'" in refused(capsys, "trian")
    assert "got preset 'nope', need one of quickstart, fol" in refused(capsys, "train", "nope", "--out", tmp_path / "x")
    assert "has no config.json" in refused(capsys, "train", "--out", tmp_path / "mistyped", "--resume")
    assert "got no --out" in refused(capsys, "train", "mab")
    assert "after options" in refused(capsys, "train", "--out", tmp_path / "x", "mab")
    assert "is not a run directory" in refused(capsys, "evaluate", tmp_path)
    assert "is not a run directory" in refused(capsys, "plot", tmp_path)
    assert "already holds a run" in refused(capsys, "train", "quickstart", "--out", run, *SMALL)
    changed = refused(capsys, "train", "--out", run, "--resume", "--seed", "5", "--temperature", "2.0")
    assert "temperature: the run has 1.0, got 2.0; seed: the run has 0, got 5" in changed
    assert "got horizon=0" in refused(capsys, "evaluate", run, "--horizon", "0")
    assert "got num_arms=3, need 2 to 2" in refused(capsys, "evaluate", run, "--num-arms", "3")
    assert "got num_scenarios=1" in refused(capsys, "evaluate", run, "--num-scenarios", "1")


def test_a_run_is_complete_and_reloadable(run, capsys):
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {"config.json", "metrics.nc", "evaluation.nc", "summary.json", "checkpoints", "figures"}
    assert {path.name for path in (run / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("training", "regret", "loglog", "final_regret", "suff_fail", "arms")
        for suffix in ("png", "pdf", "csv")
    }
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["preset"], summary["seed"]) == ("quickstart", 0)
    before = (run / "evaluation.nc").read_bytes()
    assert cli.main(["train", "--out", str(run), "--resume"]) == 0
    assert "thompson" in capsys.readouterr().out
    assert (run / "evaluation.nc").read_bytes() == before


def test_a_lost_or_damaged_result_is_made_again(run, capsys):
    values = json.loads((run / "summary.json").read_text())["evaluation"]
    (run / "summary.json").write_text("{")
    (run / "evaluation.nc").unlink()
    assert "does not exist yet; try `rmft train --resume" in refused(capsys, "plot", run)
    assert cli.main(["train", "--out", str(run), "--resume"]) == 0
    assert json.loads((run / "summary.json").read_text())["evaluation"] == values


def test_one_round_has_no_greedy_fraction(tmp_path, capsys, few_baselines):
    words = ["train", "quickstart", "--out", str(tmp_path / "run"), *SMALL, "--horizon", "1", "--num-iterations", "1"]
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


def test_evaluate_at_other_settings_keeps_the_runs_own_evaluation(run, capsys):
    before = (run / "evaluation.nc").read_bytes()
    assert cli.main(["evaluate", str(run), "--horizon", "9", "--num-scenarios", "12", "--checkpoint", "last"]) == 0
    out = capsys.readouterr().out
    assert "T=9, 12 held-out scenarios" in out
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


def test_every_field_has_a_flag_and_a_help_text(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "mab", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out

    def check(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                check(value)
            else:
                assert f"--{field.name.replace('_', '-')}" in out

    check(RunConfig())
    assert "(default: 1024)" in out
    assert RunConfig().flat()["num_scenarios"] == 1024


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["presets"],
        ["train", "mab", "--k", "99", "--out", "x"],
        ["evaluate", "/"],
        ["bench-agents", "abrupt", "--horizon", "2"],
    ],
)
def test_jax_is_not_imported_before_it_is_needed(argv):
    program = f"import sys; from rmft_jax import cli; cli.main({argv!r}); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=False).returncode == 0
