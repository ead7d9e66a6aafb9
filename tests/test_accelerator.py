"""The command for an accelerator at hand for minutes, on a CPU and with tiny sizes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments import accelerator, accelerator_parts
from experiments.accelerator import Arguments
from experiments.accelerator_parts import OutOfTimeError, Part
from experiments.benchmarks import measure, throughput
from rmft_jax import Sweep, load_policy, load_sweep
from rmft_jax.config import ConfigError
from rmft_jax.method.devices import device_name
from rmft_jax.running.files import RunError, write_json
from rmft_jax.sweeps.batches import make_tasks
from rmft_jax.sweeps.plan import plan
from runs import Reporter, files_of

# A width without a head is the size that cannot work. Hours, because a machine may be busy with other things.
WORDS = ["--quick", "--minutes", "300", "--sizes", "7x5", "16x10", "--presets", "mab"]


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The folder of a command of which one part fails."""
    path = tmp_path_factory.mktemp("accelerator") / "out"
    assert accelerator.main(["--out", str(path), *WORDS]) == 3
    return path


@pytest.mark.slow
def test_every_part_says_where_it_was_and_what_it_took(done):
    for name in ("tests", "throughput", "headline", "map"):
        found = read(done, name)
        assert (found["part"], found["quick"], found["left_out"]) == (name, True, {})
        assert found["device"] == device_name()
        assert {"jax", "numpy"} <= found["versions"].keys()
        assert found["git_commit"]
        assert found["status"] == ("failed" if name == "throughput" else "done")
        assert found["seconds"]["run"] > 0
        assert (found["programs"] == {"compiled": 0, "from_cache": 0}) == (name == "tests")
        assert (found["seconds"]["compile"] > 0) == (name != "tests")
    assert read(done, "tests")["results"]["pytest"].items() >= {"passed": 1, "failed": 0, "failures": {}}.items()


@pytest.mark.slow
def test_what_fails_says_so_and_the_rest_runs(done):
    found = read(done, "throughput")
    (message,) = found["failed"].values()
    assert found["failed"].keys() == {"7x5"}
    assert message.startswith("ConfigError: got num_heads=0")
    assert "\n" not in message
    assert list(found["results"]) == ["reading", "16x10"]


@pytest.mark.slow
def test_the_table_is_that_of_the_benchmark_with_the_share_of_the_memory(done):
    reading, row = (read(done, "throughput")["results"][name] for name in ("reading", "16x10"))
    assert (row["width"], row["horizon"], row["rollouts"]) == (16, 10, 64)
    assert {"rmft_jax", "obvious_jax"} <= row["rollout"].keys()
    assert {"rmft_jax", "obvious_jax", "unfused"} <= row["iteration"].keys()
    config = throughput.sized(16, 10, 64).replace(num_layers=1)
    seconds = measure.env_steps(config) / row["rollout"]["rmft_jax"]
    rate = measure.read_bytes(config) / seconds
    assert row["decode"]["bytes_per_second"] == pytest.approx(rate)
    assert row["decode"]["of_reading"] == pytest.approx(rate / reading["bytes_per_second"]["median"])
    assert row["decode"]["of_nominal"] is None
    nominal = {"bytes_per_second": {"median": 2.0}, "nominal_bytes_per_second": 2 * rate}
    assert accelerator_parts.decoding(row, config, nominal)["of_nominal"] == pytest.approx(0.5)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_sweeps(done):
    headline, dataset = read(done, "headline")["results"]["mab"], load_sweep(done / "headline" / "mab")
    assert headline["regret"]["seeds"] == dataset["final_regret"].values.tolist()
    assert headline["regret"]["ci95"][0] < headline["regret"]["mean"] < headline["regret"]["ci95"][1]
    uniform = dataset["baseline_final_regret"].sel(agent="uniform").mean().item()
    assert headline["classical"]["uniform"]["mean"] == pytest.approx(uniform)
    assert headline["env_steps"] == 10 * 64 * 16 * 10
    assert headline["env_steps_per_second"] == pytest.approx(3 * 64_000 * 16 / 10 / sum(headline["wall_seconds"]))
    assert load_policy(done / "headline" / "mab", {"seed": 2}).config.seed == 2
    rows, dataset = read(done, "map")["results"]["T=10"], load_sweep(done / "map").sel(horizon=10)
    assert [row["num_arms"] for row in rows] == dataset["num_arms"].values.tolist()
    for row in rows:
        cell = dataset.sel(num_arms=row["num_arms"])
        assert (row["regret"], row["sem"]) == (cell["final_regret"], cell["final_regret_sem"])
        assert row["classical"]["uniform"]["regret"] == cell["baseline_final_regret"].sel(agent="uniform")


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done, capsys):
    before = files_of(done)
    assert accelerator.main(["--out", str(done), *WORDS, "--parts", "map", "tests"]) == 0
    assert "has map, tests: nothing to do" in capsys.readouterr().err
    assert files_of(done) == before
    more = accelerator._is_done(Arguments(done, presets=("mab", "fol")), done / "headline.json")
    assert (accelerator._is_done(Arguments(done, presets=("mab",)), done / "headline.json"), more) == (True, False)


@pytest.mark.slow
def test_a_folder_is_quick_or_not(done):
    with pytest.raises(RunError, match=r"map\.json was made with --quick; try another --out"):
        accelerator.main(["--out", str(done), "--parts", "map"])


def test_without_time_parts_are_left_out(tmp_path, capsys):
    assert accelerator.main(["--out", str(tmp_path), "--minutes", "0.1", "--parts", "map", "tests"]) == 0
    found = read(tmp_path, "map")
    assert found["status"] == "skipped"
    assert found["left_out"]["map"].endswith("s are left, need at least 15")
    assert "part 2/2 · tests: skipped, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "got --minutes 0, need more than 0; try --minutes 8"),
        (["--minutes", "soon"], "soon"),
        (["--parts", "test"], "got part 'test', need one of tests, throughput, headline, map; try --parts tests"),
        (["--sizes", "32"], "got --sizes 32, need width x horizon; try --sizes 32x50 64x100"),
        (["--presets", "mab-k9"], "got preset 'mab-k9', need one of quickstart"),
    ],
)
def test_wrong_input_is_refused_in_one_line(tmp_path, words, message):
    with pytest.raises(ConfigError) as error:
        accelerator.main(["--out", str(tmp_path / "out"), *words])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    command = [sys.executable, "-m", "experiments.accelerator", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"cannot write to {tmp_path / 'out'}" in ended.stderr


def run_instead(monkeypatch, path: Path, program: str, seconds: float = 60.0) -> tuple[str, dict[str, Any]]:
    """What the command says and keeps of a part that is this program."""
    monkeypatch.setattr(Arguments, "words", lambda self, part, until: [sys.executable, "-c", program])
    with Reporter().bar("part", 1, 0) as bar:
        told = accelerator._run(Arguments(path), path / "map.json", time.time() + seconds, bar)
    return told, read(path, "map")


def test_a_part_that_crashes_has_failed_with_its_last_line(tmp_path, monkeypatch):
    write_json(tmp_path / "map.json", {"results": {"T=50": [1]}})
    told, found = run_instead(monkeypatch, tmp_path, "import os; print('going', flush=True); os.abort()")
    assert told == "failed; map: ended with signal 6; going"
    assert (found["status"], found["results"]) == ("failed", {"T=50": [1]})
    assert (tmp_path / "map.log").read_text() == "going\n"


def test_a_part_that_does_not_end_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "_GRACE", 0.5)
    beat = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    beat += f"; out = open({str(tmp_path / 'beat')!r}, 'a')"
    beat += "\nwhile True: print('on', file=out, flush=True); time.sleep(0.01)"
    both = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {beat!r}])\n{beat}"
    told, found = run_instead(monkeypatch, tmp_path, both, seconds=3.0)
    assert told == "unfinished; map: its 3 s were over"
    assert found["status"] == "unfinished"
    beats = (tmp_path / "beat").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "beat").stat().st_size == beats > 0


def test_a_refused_part_keeps_what_was_there(tmp_path, monkeypatch):
    before = {"status": "unfinished", "results": {"T=50": [1]}}
    write_json(tmp_path / "map.json", before)
    with pytest.raises(RunError, match="another device"):
        run_instead(monkeypatch, tmp_path, "print('another device', flush=True); raise SystemExit(2)")
    assert read(tmp_path, "map") == before


def test_ctrl_c_ends_the_part_and_leaves_what_goes_on(tmp_path, monkeypatch):
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(999)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Who runs in the background ignores it.
    try:
        with pytest.raises(KeyboardInterrupt):
            run_instead(monkeypatch, tmp_path, program)
    finally:
        signal.signal(signal.SIGINT, before)
    assert read(tmp_path, "map").items() >= {"status": "unfinished", "left_out": {"map": "stopped"}}.items()


def part_of(path: Path, left: float = 60.0, **content: Any) -> Part:
    write_json(path / "map.json", {"part": "map", **content})
    return Part("map", path, time.time() + left, True)


def test_items_that_fail_or_find_no_time_leave_the_others(tmp_path):
    def run(item: str) -> str:
        if item == "late":
            raise OutOfTimeError("needs more")
        if item == "wrong":
            raise ValueError("not this\nat all")
        return item.upper()

    before = {"results": {"old": 1, "again": 2}, "failed": {"again": "then"}, "seconds": {"run": 1000.0}}
    part_of(tmp_path, **before).each(["old", "late", "wrong", "again"], run)
    found = read(tmp_path, "map")
    assert (found["status"], found["results"]) == ("failed", {"old": 1, "again": "AGAIN"})
    assert (found["failed"], found["left_out"]) == ({"wrong": "ValueError: not this"}, {"late": "needs more"})
    assert found["seconds"]["run"] > 1000.0
    part_of(tmp_path, left=-1.0).each(["late"], run)
    assert read(tmp_path, "map").items() >= {"status": "unfinished", "left_out": {"late": "no time was left"}}.items()


def test_results_of_another_device_are_not_gone_on_with(tmp_path):
    (tmp_path / "map").mkdir()
    elsewhere = {"device": "gpu (a large one)", "failed": {}, "left_out": {}}
    with pytest.raises(
        RunError, match=r"map\.json of device 'gpu \(a large one\)', need the same as here; try another"
    ):
        part_of(tmp_path, **elsewhere, results={"T=50": []}).require_same_origin()
    assert (tmp_path / "map").exists()
    part_of(tmp_path, **elsewhere, results={}).require_same_origin()
    assert not (tmp_path / "map").exists(), "what was begun elsewhere must not be taken up"


def test_training_ends_once_it_cannot_be_ready(tmp_path, monkeypatch, capsys):
    cells = Sweep("mab", override={"num_iterations": 40, "chunk_size": 10}).expand()
    (task,) = make_tasks(plan(cells), 1, (), None)
    clock, programs = [0.0], accelerator_parts.Programs(task.group)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Part, "left", property(lambda self: 100.0 - clock[0]))

    def train(chunk_seconds: float, compile_seconds: float = 0.0) -> int:
        clock[0], programs.compile_seconds, last = 0.0, compile_seconds, 0
        watch = accelerator_parts.in_time(part_of(tmp_path), task, programs)
        with contextlib.suppress(OutOfTimeError):
            for last in range(0, 41, 10):
                watch(last, 1.0)
                clock[0] += chunk_seconds
        return last

    assert train(24.0) == 40
    assert train(24.0, compile_seconds=20.0) == 10  # So long will the evaluation compile.
    assert train(26.0) == 10
    assert train(200.0) == 10
    capsys.readouterr()


def test_a_report_of_tests_is_counted(tmp_path):
    (tmp_path / "test_these.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 1 == 2\n"
        "@pytest.fixture\ndef broken(): raise ValueError('no')\n"
        "def test_c(broken): pass\n"
        "@pytest.mark.skip\ndef test_d(): pass\n"
    )
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--junitxml=report.xml", "test_these.py"]
    environment = os.environ | {"PYTEST_ADDOPTS": ""}
    subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, check=False)
    found = accelerator_parts.counted(tmp_path / "report.xml")
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 2, 1)
    assert set(found["failures"]) == {"test_these.test_b", "test_these.test_c"}
    assert "1 == 2" in found["failures"]["test_these.test_b"]
