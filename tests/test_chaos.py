"""A hundred kills at random moments, some on a full disk or amid files that vanish: nothing is lost or mixed up.

`RMFT_CHAOS=FILE` keeps the counts as JSON.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from runs import TINY_WORDS

from rmft_jax.running.files import read_dataset
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.weights import read_arrays
from rmft_jax.sweeps.store import SweepDirectory

pytestmark = pytest.mark.slow

KILLS = 100
SPEC = """
preset = "quickstart"
baselines = ["ucb1"]
[grid]
num_arms = [2, 3]
seed = [0, 1]
[override]
horizon = 5
num_layers = 1
width = 8
num_iterations = 4
chunk_size = 2
num_scenarios = 8
num_rollouts = 4
num_validation_scenarios = 8
num_test_scenarios = 8
"""
# Written at another time, or by a machine that takes other times.
CHANGING = ("seconds", "created", "made_from", "wall", "versions", "git_commit", "device")


class Chaos:
    """Commands that are killed, what they leave, and what went wrong.

    counts: kills, faults, lost results, wrong labels, tracebacks, unreadable files.
    """

    def __init__(self, base: Path):
        self.base, self.random = base, random.Random(0)
        self.counts = dict.fromkeys(("kills", "faults", "lost", "mislabelled", "tracebacks", "unreadable"), 0)
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(base / "compiled")}
        self.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def run(self, *words: object, kill_after: float | None = None, limit: int | None = None) -> tuple[int, float]:
        """Runs a command, killed after some seconds; with a limit on the size of a file, as if the disk were full."""
        command = [sys.executable, "-m", "rmft_jax.cli", *map(str, words)]
        if limit is not None:
            command = ["sh", "-c", f'ulimit -f {limit}; trap "" XFSZ; exec "$@"', "sh", *command]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=self.base, env=self.environment, stderr=subprocess.PIPE, stdout=-3)
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            self.counts["kills"] += 1
        text = said.decode()
        self.counts["tracebacks"] += "Traceback" in text
        return process.returncode, time.perf_counter() - started

    def look(self) -> None:
        """Every file that can be seen is whole."""
        for path in self.base.rglob("*"):
            if path.name.startswith(".") or "compiled" in path.parts or not path.is_file():
                continue
            try:
                match path.suffix:
                    case ".nc":
                        read_dataset(path, "nothing")
                    case ".npz":
                        read_arrays(path)
                    case ".json":
                        json.loads(path.read_bytes())
            except Exception as error:
                print(path, error)
                self.counts["unreadable"] += 1


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    """Every number of a netCDF file that does not say when it was made."""
    dataset = read_dataset(path, "nothing")
    kept = {str(name): values.to_numpy() for name, values in dataset.variables.items()}
    return {name: values for name, values in kept.items() if not any(word in name for word in CHANGING)}


def same(first: Path, second: Path) -> bool:
    a, b = numbers_of(first), numbers_of(second)
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind == "f") for n in a)


@pytest.fixture(scope="module")
def chaos(tmp_path_factory) -> Chaos:
    """With undisturbed runs of two seeds and an undisturbed sweep, to compare with."""
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    (chaos.base / "spec.toml").write_text(SPEC)
    for seed in (0, 1):
        assert chaos.run(*train(f"reference-{seed}", seed))[0] == 0
    assert chaos.run("sweep", "spec.toml", "--out", "reference-sweep", "--keep-weights")[0] == 0
    return chaos


def train(out: str, seed: int, *more: str) -> list[object]:
    return ["train", "quickstart", *TINY_WORDS, "--seed", seed, "--out", out, *more]


def test_nothing_is_lost_or_mixed_up(chaos):
    seed, whole = 0, chaos.run(*train("run", 0))[1]
    sweep = ["sweep", "spec.toml", "--out", "sweep", "--resume", "--keep-weights"]
    while chaos.counts["kills"] < KILLS:
        kind = chaos.random.choice(["train", "train", "anew", "sweep", "sweep", "evaluate", "plot"])
        after = chaos.random.uniform(0.3, 1.1) * whole
        fault = chaos.random.random() < 0.2
        limit = chaos.random.choice([1, 8, 40]) if fault else None
        chaos.counts["faults"] += fault
        if kind == "anew":
            seed = chaos.random.choice([0, 1])
            chaos.run(*train("run", seed, "--overwrite"), kill_after=after, limit=limit)
            # Killed before it began, it left the run of the seed before.
            seed = RunDirectory(chaos.base / "run").read_config()[0].seed if recorded(chaos.base / "run") else seed
        elif kind == "train":
            if fault:
                vanish(chaos)
            chaos.run(*train("run", seed, "--resume"), kill_after=after, limit=limit)
        elif kind == "sweep":
            chaos.run(*sweep, kill_after=after, limit=limit)
        elif kind == "evaluate":
            chaos.run("evaluate", "run", "--num-scenarios", 16, kill_after=after, limit=limit)
        else:
            chaos.run("plot", chaos.random.choice(["run", "sweep"]), kill_after=after, limit=limit)
        chaos.look()
    finish(chaos, seed, sweep)
    print(chaos.counts)
    if "RMFT_CHAOS" in os.environ:
        Path(os.environ["RMFT_CHAOS"]).write_text(json.dumps(chaos.counts))
    assert {name: chaos.counts[name] for name in ("lost", "mislabelled", "tracebacks", "unreadable")} == {
        "lost": 0, "mislabelled": 0, "tracebacks": 0, "unreadable": 0,
    }  # fmt: skip


def recorded(path: Path) -> bool:
    return (path / "config.json").is_file()


def vanish(chaos: Chaos) -> None:
    """Somebody removes results of the run, from which it can be made again."""
    what = chaos.base / "run" / chaos.random.choice(["figures", "metrics.nc", "evaluation.nc", "summary.json"])
    shutil.rmtree(what, ignore_errors=True) if what.is_dir() else what.unlink(missing_ok=True)


def finish(chaos: Chaos, seed: int, sweep: Sequence[object]) -> None:
    """What goes on to its end is what was never disturbed, under its own seed."""
    assert chaos.run(*train("run", seed, "--resume"))[0] == 0
    assert chaos.run(*sweep)[0] == 0
    run, reference = chaos.base / "run", chaos.base / f"reference-{seed}"
    for name in ("metrics.nc", "evaluation.nc"):
        chaos.counts["lost"] += not same(run / name, reference / name)
    told = {RunDirectory(run).read_summary()["seed"], RunDirectory(run).read_config()[0].seed, seed}
    chaos.counts["mislabelled"] += len(told) != 1
    swept, undisturbed = (SweepDirectory(chaos.base / name) for name in ("sweep", "reference-sweep"))
    chaos.counts["lost"] += not same(swept.path / "sweep.nc", undisturbed.path / "sweep.nc")
    for cell in swept.cells:
        own, other = (read_arrays(one.weights_path(cell.index))[0] for one in (swept, undisturbed))
        chaos.counts["lost"] += own.keys() != other.keys() or any(not np.array_equal(own[n], other[n]) for n in own)
