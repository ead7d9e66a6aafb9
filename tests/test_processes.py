"""Several processes, real ones, that train one policy together on this host."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rmft_jax import cli
from rmft_jax.running import processes
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.training import train
from worlds import TINY_RUN

PROGRAM = "import sys; from rmft_jax.cli import main; sys.exit(main(sys.argv[1:]))"
# Many chunks, so that a signal comes before the last.
NUM_ITERATIONS = 40


def launch(directory: Path) -> list[subprocess.Popen[str]]:
    """Two processes, of a device each, that train the run in this directory to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["train", "--resume", "--out", str(directory), "--distributed", "--coordinator-address", address]
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words, "--num-processes", "2", "--process-id", str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        )
        for number in (0, 1)
    ]


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_train_what_one_does(tmp_path):
    config = TINY_RUN.replace(num_iterations=NUM_ITERATIONS)
    alone, path = tmp_path / "alone", tmp_path / "run"
    summary = train(config, alone)
    RunDirectory.create(path, config, "tiny", overwrite=False)

    first, other = launch(path)
    assert first.stderr is not None
    lines = []
    while "iteration 4/" not in "".join(lines[-1:]):
        lines.append(first.stderr.readline())
        assert lines[-1], "".join(lines)
    other.send_signal(signal.SIGINT)  # To the one that does not write.
    errors = [process.communicate(timeout=120)[1] for process in (first, other)]
    assert [first.returncode, other.returncode] == [130, 130], errors
    assert all("continue with: rmft train --resume --out" in error for error in errors)

    pair = launch(path)
    outputs = [process.communicate(timeout=240) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "resuming" in outputs[0][1]
    assert "figure:" in outputs[0][0]
    assert "figure:" not in outputs[1][0]
    together = RunDirectory(path).read_summary()
    assert "2 processes" in together["device"]
    assert together["checkpoint_iteration"] == summary["checkpoint_iteration"]
    runs = [RunDirectory(directory).read_dataset("metrics.nc") for directory in (alone, path)]
    for name in runs[0].data_vars:
        np.testing.assert_allclose(runs[1][name], runs[0][name], rtol=1e-4, atol=1e-5, err_msg=str(name))


@pytest.mark.parametrize("option", [("--process-id", "1"), ("--num-processes", "2"), ("--coordinator-address", "a:1")])
def test_a_place_among_processes_needs_that_there_are_several(option, tmp_path, capsys):
    assert cli.main(["train", "quickstart", "--out", str(tmp_path / "run"), *option]) == 2
    message = f"rmft: error: got {' '.join(option)}, need --distributed beside it; try adding --distributed"
    message += "; see `rmft train --help`\n"
    assert capsys.readouterr().err == message
    assert not (tmp_path / "run").exists()


def test_who_cannot_be_joined_is_told(tmp_path):
    words = ["train", "quickstart", "--out", str(tmp_path / "run"), "--distributed"]
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("rmft: error: cannot join the other processes (")
    assert "try --coordinator-address HOST:PORT --num-processes N --process-id I" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_process_alone_is_the_first_and_agrees_with_itself():
    assert processes.is_first()
    assert processes.highest(3) == 3
    arrays = {"a": np.arange(3)}
    assert processes.from_first(arrays) is arrays
