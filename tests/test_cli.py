import dataclasses
import json
import subprocess
import sys

import pytest

from rmft_jax import cli
from rmft_jax.config import RunConfig, to_dict
from rmft_jax.presets import PRESETS

SMALL = [
    "--num-arms", "2", "--horizon", "4", "--num-iterations", "2", "--chunk-size", "1", "--num-scenarios", "4",
    "--num-rollouts", "2", "--k", "1", "--num-minibatches", "1", "--width", "8", "--num-layers", "1",
    "--num-validation-scenarios", "8", "--num-test-scenarios", "16",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "quickstart", "--out", str(path), *SMALL]) == 0
    return path


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
        (["--resume", "--overwrite"], "got both --resume and --overwrite"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_written(capsys, tmp_path, words, message):
    assert message in refused(capsys, "train", "quickstart", "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_other_refusals(capsys, tmp_path, run):
    assert "got command 'trian'" in refused(capsys, "trian")
    assert "got preset 'nope', need one of quickstart, mab" in refused(capsys, "train", "nope", "--out", tmp_path / "x")
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
        "regret.png", "regret.pdf", "training.png", "training.pdf"
    }  # fmt: skip
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


def test_one_round_has_no_greedy_fraction(tmp_path, capsys):
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


def test_presets_lists_them_all(capsys):
    assert cli.main(["presets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PRESETS)


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
    assert to_dict(RunConfig())["rmft"]["num_scenarios"] == 1024


@pytest.mark.parametrize(
    "argv", [["--help"], ["presets"], ["train", "mab", "--k", "99", "--out", "x"], ["evaluate", "/"]]
)
def test_jax_is_not_imported_before_it_is_needed(argv):
    program = f"import sys; from rmft_jax import cli; cli.main({argv!r}); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=False).returncode == 0
