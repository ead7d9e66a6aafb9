"""Lists of runs, runs side by side and in training, settings of presets, pipes, narrow terminals, notebooks."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from rich.console import Console

import rmft_jax
from evaluations import made_evaluation
from rmft_jax import cli
from rmft_jax.cli.advice import with_command
from rmft_jax.cli.common import as_typed, print_summary
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RunConfig
from rmft_jax.running.files import RunError
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.storage import RunDirectory
from rmft_jax.statistics.report import summarize, table
from runs import TINY_WORDS, elsewhere, files_of, make_run, refused
from worlds import TINY_RUN

CONFIG = TINY_RUN.replace(num_arms=4, horizon=20)
SUMMARY = {"evaluation": {"rmft": {"regret_mean": 1.25}}}


def made(path, done=True, seed=0):
    """A run whose numbers are made up."""
    run, _, past = make_run(path, CONFIG.replace(seed=seed))
    run.write_dataset("metrics.nc", past.dataset())
    rows = (past.row(number) | {"seconds": 1.0} for number in range(3))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        run.write_dataset("evaluation.nc", made_evaluation(num_scenarios=40 + seed).assign_attrs(regret="pseudo"))
        run.write_summary(SUMMARY)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs and one that is not."""
    path = tmp_path_factory.mktemp("runs")
    made(path / "a")
    made(path / "deep" / "b", seed=1)
    made(path / "c", done=False, seed=2)
    return path


def test_runs_are_listed_with_how_far_they_are(folder, tmp_path, capsys):
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / "config.json").write_text("{")
    with RunDirectory(folder / "c").lock(), elsewhere() as submit:
        training = submit(_listed, folder, capsys)
    stopped = _listed(folder, capsys)
    assert training == stopped | {"c": ["tiny", "training", "4/6", training["c"][3]]}
    validation = RunDirectory(folder / "c").read_dataset("metrics.nc")["validation_regret"]
    assert stopped["c"] == ["tiny", "stopped", "4/6", f"{float(validation[-1]):.2f}"]
    assert stopped["a"] == ["tiny", "finished", "6/6", "1.25"]
    assert stopped["deep/b"][1] == "finished"
    assert stopped["broken"][1] == "damaged"
    assert "holds no run; try `rmft train" in refused(capsys, "runs", tmp_path)
    assert "try `rmft train" in refused(capsys, "runs", tmp_path / "nowhere")


def _listed(folder, capsys):
    assert cli.main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    return {line.split()[0].removeprefix(f"{folder}/"): line.split()[1:5] for line in lines}


def test_runs_side_by_side_are_a_sweep_over_them(folder):
    paths = [folder / "a", folder / "deep" / "b", folder / "c"]
    compared = rmft_jax.compare_runs(paths)
    assert compared["run"].values.tolist() == ["a", "b", "c"]
    assert compared["status"].values.tolist() == ["finished", "finished", "training"]
    for name, path in zip("ab", paths, strict=False):
        evaluation = RunDirectory(path).read_dataset("evaluation.nc")
        mean = evaluation["regret"].isel(round=-1).mean("scenario")
        one = compared.sel(run=name)
        assert float(one["final_regret"]) == pytest.approx(float(mean.sel(agent="rmft")), rel=1e-6)
        other = one["baseline_final_regret"].sel(agent="ucb1")
        assert float(other) == pytest.approx(float(mean.sel(agent="ucb1")), rel=1e-6)
    assert np.isnan(compared["final_regret"].sel(run="c"))
    assert compared["validation_regret"].sel(run="c").notnull().all()
    assert compared.attrs["regret"] == "pseudo"
    same = rmft_jax.compare_runs([folder / "c"])
    assert np.isnan(same["final_regret"]).all()


def test_runs_are_drawn_and_tabled_side_by_side(folder, capsys):
    paths = [str(folder / name) for name in ("a", "deep/b", "c")]
    before = files_of(folder)
    assert cli.main(["table", *paths]) == 0
    out = capsys.readouterr().out
    assert out.split()[0] == "rmft"
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["run", "a", "b", "c"]
    assert files_of(folder) == before
    assert cli.main(["plot", *paths, "--kind", "training"]) == 0
    rows = (folder / "compared" / "a+deep-b+c" / "training.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"a", "b", "c"}
    assert "next: rmft table" in capsys.readouterr().err
    assert f"got {paths[0]} twice" in refused(capsys, "plot", paths[0], paths[0])
    assert "need directories of runs" in refused(capsys, "plot", paths[0], folder / "nowhere")
    assert "need" in refused(capsys, "plot")


def test_a_run_in_training_is_drawn_as_far_as_it_is(folder, capsys):
    assert cli.main(["plot", str(folder / "c")]) == 0
    assert {path.name for path in (folder / "c" / "figures").iterdir()} == {
        "training.png", "training.pdf", "training.csv"
    }  # fmt: skip
    assert "is in training" in capsys.readouterr().err
    assert "does not exist yet" in refused(capsys, "plot", folder / "c", "--kind", "regret")


def test_a_preset_is_shown_with_every_setting_and_what_differs(capsys):
    assert cli.main(["presets", "mab"]) == 0
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].strip()}
    assert set(get_preset("mab").flat()) <= set(rows)
    assert re.match(r"num_rollouts +\* 16 +Trajectories L", rows["num_rollouts"])
    assert re.match(r"horizon +50 +Rounds T", rows["horizon"])
    assert "next: rmft train mab --out runs/mab" in err
    assert "got preset 'nope'" in refused(capsys, "presets", "nope")


def test_commands_are_proposed_as_this_one_was_called(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "my env" / "bin" / "rmft"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", ["my env/bin/rmft", "environments"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["environments"]) == 0
    assert "next: 'my env/bin/rmft' bench-agents bernoulli" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(script.parent))
    assert cli.main(["environments"]) == 0
    assert "next: rmft bench-agents bernoulli" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"rmft \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_pipe_that_is_closed_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-m", "rmft_jax.cli", "presets", "mab"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "error" not in done.stderr


def test_a_dry_run_says_what_a_run_would_cost_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "quickstart", *TINY_WORDS, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    for words in ("memory: ", " MiB on every device", "training: about ", "6 iterations of ", "11 agents on 32 scen"):
        assert words in out
    suggested = err.splitlines()[-1].split()
    assert suggested[:4] == ["next:", "rmft", "train", "quickstart"]
    assert suggested[-2:] == ["--out", "runs/quickstart"]
    assert "--dry-run" not in suggested
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_keeps_its_count_in_a_narrow_terminal(width):
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    with ProgressReporter(console).bar("iteration", 400, 0) as bar:
        bar.update(240, 12.345, 12.345, 1.234)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", text.getvalue()).replace("\r", "\n").splitlines()
    shown = [line for line in lines if "240/400" in line]
    assert shown
    assert all("left" in line and "validation regret 12.3" in line and len(line) <= width for line in shown)


@pytest.fixture
def narrow(monkeypatch):
    """Standard output is a terminal of 80 columns."""

    class Narrow(Console):
        def __init__(self, highlight: bool = True, width: int = 80):
            super().__init__(force_terminal=True, color_system=None, highlight=highlight, width=width)

    monkeypatch.setattr("rmft_jax.cli.common.Console", Narrow)


def test_the_help_fits_into_80_columns(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("words", [["presets"], ["environments"], ["choices"], ["presets", "text-toy"]])
def test_lists_are_wrapped_at_words_in_a_terminal_alone(words, capsys, request):
    assert cli.main(words) == 0
    wide = capsys.readouterr().out
    assert max(map(len, wide.splitlines())) > 80, "what is piped has a line per name"
    request.getfixturevalue("narrow")
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    if len(words) == 1:
        assert max(map(len, shown.splitlines())) <= 80
        assert shown.split() == wide.split()
    else:
        assert max(map(len, shown.splitlines()[:2])) <= 80


def test_runs_with_long_paths_fit_into_a_narrow_terminal(narrow, tmp_path, capsys):
    path = tmp_path / ("a" * 30) / ("b" * 25) / "c"
    RunDirectory.create(path, RunConfig(), "quickstart on abrupt")
    assert cli.main(["runs", str(tmp_path)]) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, [head, rule, *lines])) <= 80
    assert "".join(line.split()[0] for line in lines if line[:1].strip()) == str(path)
    assert " stopped " in lines[0]
    assert f" 0/{RunConfig().rmft.num_iterations} " in lines[0]


def test_a_table_of_a_narrow_terminal_has_whole_numbers(monkeypatch):
    evaluation = made_evaluation()
    summary, text = summarize(evaluation), io.StringIO()

    class Narrow(Console):
        def __init__(self, highlight: bool = True, width: int = 80):
            super().__init__(file=text, force_terminal=True, color_system=None, highlight=highlight, width=width)

    monkeypatch.setattr("rmft_jax.cli.common.Console", Narrow)
    print_summary(summary, "a title", evaluation.attrs)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = [cell for column in table(summary, "t", "dynamic", "thompson").columns for cell in column.cells]
    assert all(any(str(cell) in line for line in lines) for cell in cells)
    for column in ("SuffFailFreq(T/2):", "K·MinFrac(T):", "GreedyFrac:"):
        assert text.getvalue().count(column) == 1


def test_a_notebook_shows_a_bar_that_moves(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=shown.append)
    fake = types.SimpleNamespace(HTML=str, display=lambda content, display_id: shown.append(content) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    with ProgressReporter(Console(file=io.StringIO(), force_jupyter=True)).bar("agent", 3, 0) as bar:
        bar.add("<ucb1>", 2.5)
        bar.add("greedy", 1.5)
    assert [re.findall(r'value="(\d)" max="3"', one) for one in shown] == [["0"], ["1"], ["2"]]
    assert "agent 1/3 · &lt;ucb1&gt; · regret 2.50 · " in shown[1]


def test_a_notebook_shows_a_figure_as_it_is_written():
    figure: Any = rmft_jax.plot_regret(made_evaluation())
    assert re.fullmatch(r"DataFigure\(paper, 1 axes, \d+ rows of numbers\)", repr(figure))
    with plt.rc_context({"font.size": 40}):
        content, size = figure._repr_png_()
    assert content == figure._repr_png_()[0], "as in the files, the caller's style has no say"
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == pytest.approx((2 * size["width"], 2 * size["height"]), abs=2)


def test_every_command_ends_with_the_next(folder, capsys):
    (path,) = [str(folder / "a")]
    commands = {("plot", path, "--kind", "regret"): f"table {path} --format latex", ("presets",): "presets mab"}
    commands |= {("environments",): "bench-agents bernoulli", ("runs", str(folder)): "train --resume --out"}
    for words, following in commands.items():
        assert cli.main(list(words)) == 0
        assert f"next: rmft {following}" in capsys.readouterr().err


def test_an_evaluation_tells_of_every_agent():
    from rmft_jax.agents import make_agents
    from rmft_jax.problems import Problem, Stationary

    problem, told = Problem(Stationary(num_arms=2), 3), {}
    agents = make_agents(problem, ["uniform", "greedy"])
    played: xr.Dataset = rmft_jax.evaluate(
        agents, problem, num_scenarios=4, key=jax.random.key(0), watch=told.__setitem__
    )
    assert told == {name: pytest.approx(float(played["regret"].sel(agent=name)[:, -1].mean())) for name in agents}


@pytest.mark.parametrize(
    ("words", "message", "ends"),
    [
        ("train mab --k 99 --out x", "got k=99, need fewer; try k=2", "try k=2: `rmft train mab --out x --k 2`"),
        ("train mab --out=x", "got a; try chunk_size=5 or b=3", "b=3: `rmft train mab --out=x --chunk-size 5`"),
        ("train mab --policy=gruu", "no; try policy='text'", "try policy='text': `rmft train mab --policy text`"),
        ("train mab", "no; try shared_reward_noise=True", "see `rmft train --help`"),
        ("plot x", "no; try `rmft train --resume --out x`", "; try `rmft train --resume --out x`"),
        ("sweep x.toml", "no; try horizon=5", "; try horizon=5; see `rmft sweep --help`"),
    ],
)
def test_an_error_ends_with_a_command(words, message, ends):
    assert with_command(message, words.split()).endswith(ends)


def test_the_command_that_an_error_ends_with_works(capsys, tmp_path):
    said = refused(capsys, "train", "quickstart", "--out", tmp_path / "x", *TINY_WORDS, "--chunk-size", "5")
    (command,) = re.findall("`rmft train ([^`]*)`", said)
    assert cli.main(["train", *command.split(), "--seed=-1"]) == 2, "nothing else is wrong with it"
    assert "got seed=-1" in capsys.readouterr().err


def test_commands_begin_as_the_program_was_called(monkeypatch, capsys, tmp_path):
    called = tmp_path / "bin" / "rmft"
    monkeypatch.setattr("sys.argv", [str(called), "runs"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"try `{called} train quickstart --out " in refused(capsys, "runs", tmp_path / "nowhere")
    stopped = "stopped; continue with: rmft train --resume --out rmft x; `rmft runs`"
    assert as_typed(stopped) == f"stopped; continue with: {called} train --resume --out rmft x; `{called} runs`"


def test_python_is_told_of_arguments_and_the_command_line_of_options(folder, capsys):
    with pytest.raises(RunError, match="try resume=True to continue it or overwrite=True"):
        RunDirectory.create(folder / "a", CONFIG, "tiny")
    told = refused(capsys, "train", "quickstart", "--out", folder / "a", *TINY_WORDS)
    assert "try --resume to continue it or --overwrite" in told


def test_a_shell_completes_commands_options_and_names(capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*typed):
        words = " ".join(typed)
        ask = f"COMP_WORDS=(rmft {words}); COMP_CWORD={len(typed)}; _rmft; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("pl") == ["plot"]
    assert completed("train", "--num-r") == ["--num-rollouts"]
    assert "mab-k5" in completed("train", "mab")
    assert "abrupt" in completed("bench-agents", "abr")
    assert "--directories" not in completed("plot", "--d")
    assert {"--from", "--log"} <= set(completed("train", "--"))
    for shell, start in (("zsh", "autoload"), ("fish", "complete -c rmft")):
        assert cli.main(["completion", shell]) == 0
        assert capsys.readouterr().out.startswith(start)
    assert "need one of bash, zsh, fish" in refused(capsys, "completion", "tcsh")


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes_too(capsys):
    assert cli.main(["completion", "fish"]) == 0
    script = capsys.readouterr().out

    def completed(typed):
        ask = f"{script}\ncomplete -C 'rmft {typed}'"
        done = subprocess.run(["fish", "--no-config", "-c", ask], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("pl") == ["plot"]
    assert completed("train mab --num-r") == ["--num-rollouts"]
    assert "mab-k5" in completed("train mab")


def test_comparisons_of_runs_of_one_name_have_places_of_their_own(folder, tmp_path):
    for place in ("p1", "p2", "p3"):
        shutil.copytree(folder / "a", tmp_path / place / "run")
    for other in ("p2", "p3"):
        words = ["plot", tmp_path / "p1" / "run", tmp_path / other / "run", "--kind", "regret"]
        assert cli.main([*map(str, words)]) == 0
    places = {path.name for path in (tmp_path / "p1" / "compared").iterdir()}
    assert places == {"p1-run+p2-run", "p1-run+p3-run"}
