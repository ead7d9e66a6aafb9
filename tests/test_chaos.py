"""A hundred kills at random moments, with faults of disks among them: nothing is lost or mixed up.

Where mounting is allowed, some commands find their directory on a small file system, and some may only read it.
After every command, what was counted is written to the file that `RMFT_CHAOS` names.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmft_jax.running.files import read_dataset
from rmft_jax.running.storage import RunDirectory
from rmft_jax.running.weights import read_arrays
from rmft_jax.sweeps.store import SweepDirectory
from runs import TINY_WORDS

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
SWEEP = ("sweep", "spec.toml", "--keep-weights", "--out")
# Written at another time, or by a machine that takes other times.
CHANGING = ("seconds", "created", "made_from", "wall", "versions", "git_commit", "device")
# How a command meets a fault, in the words of a shell; $IN is the directory that it uses. What is mounted goes with
# the command; what a file system with $SIZE KiB held is copied out before.
AMID = {
    "file too large": """
        ulimit -f "$SIZE"; trap "" XFSZ; exec "$@"
    """,
    "disk full": """
        mkdir -p "$IN"; rm -rf .held .after after; cp -r "$IN" .held
        mount -t tmpfs -o size="$SIZE"k none "$IN"; cp -r .held/. "$IN"
        "$@"; code=$?
        cp -r "$IN" .after; mv .after after; exit $code
    """,
    "read-only": """
        mount --bind "$IN" "$IN"; mount -o remount,ro,bind "$IN"; exec "$@"
    """,
}
# From what else is there these can be made again.
REMADE = ("figures", "metrics.nc", "metrics.jsonl", "evaluation.nc", "summary.json", "sweep.nc")
WRONG = ("lost", "mislabelled", "tracebacks", "unreadable")


class Chaos:
    """Commands that are killed, what they leave, and what went wrong.

    said: what the last command said of errors.
    counts: kills, faults of every kind, lost results, wrong labels, tracebacks, unreadable files.
    """

    def __init__(self, base: Path):
        self.base, self.random = base, random.Random(0)
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(base / "compiled")}
        self.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        mount = ["unshare", "-m", "mount", "-t", "tmpfs", "none", base]
        self.mounting = bool(shutil.which("unshare")) and subprocess.run(mount, check=False).returncode == 0
        self.faults = ["vanished", *AMID] if self.mounting else ["vanished", "file too large"]
        self.counts = dict.fromkeys(("commands", "kills", *self.faults, *WRONG), 0)

    def run(self, *words: object, used: str = "", fault: str = "", kill_after: float | None = None) -> int:
        """Runs a command that uses a directory, killed after some seconds: its exit status."""
        command = [sys.executable, "-m", "rmft_jax.cli", *map(str, words)]
        if fault in AMID:
            command = ["unshare", "-m"] * self.mounting + ["sh", "-c", AMID[fault], "sh", *command]
        elif fault == "vanished":
            self.vanish(self.base / used)
        # In KiB, beside what a disk holds already, in pages.
        held = sum(4 + path.stat().st_size // 1024 for path in (self.base / used).rglob("*") if fault == "disk full")
        size = held + self.random.choice([1, 8, 40, 200])
        environment = self.environment | {"IN": used, "SIZE": str(size)}
        process = subprocess.Popen(
            command, cwd=self.base, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, said = process.communicate()
            self.counts["kills"] += 1
        self.said = said.decode()
        self.look(self.said, " ".join(map(str, words)), fault)
        return process.returncode

    def look(self, said: str, words: str, fault: str) -> None:
        """Nothing was said that only a programmer reads, and every file that can be seen is whole."""
        self.counts["commands"] += 1
        if fault:
            self.counts[fault] += 1
        if "Traceback" in said:
            print(words, fault, said)
            self.counts["tracebacks"] += 1
        for path in self.base.rglob("*"):
            within = path.relative_to(self.base).parts
            if any(part.startswith(".") or part == "compiled" for part in within) or not path.is_file():
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
                print(words, fault, path, error)
                self.counts["unreadable"] += 1
        if "RMFT_CHAOS" in os.environ:
            Path(os.environ["RMFT_CHAOS"]).write_text(json.dumps(self.counts, indent=1))

    def vanish(self, path: Path) -> None:
        """Somebody removes results of a run or sweep, from which they can be made again."""
        what = path / self.random.choice(REMADE)
        shutil.rmtree(what, ignore_errors=True) if what.is_dir() else what.unlink(missing_ok=True)

    def seed_of_run(self) -> int | None:
        """Whose the run is, of one that was begun."""
        run = self.base / "run"
        return RunDirectory(run).read_config()[0].seed if (run / "config.json").is_file() else None


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    """Every number of a netCDF file that does not say when it was made."""
    dataset = read_dataset(path, "nothing")
    kept = {str(name): values.to_numpy() for name, values in dataset.variables.items()}
    return {name: values for name, values in kept.items() if not any(word in name for word in CHANGING)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind == "f") for n in a)


def train(out: str, seed: int, *more: str) -> list[object]:
    return ["train", "quickstart", *TINY_WORDS, "--seed", seed, "--out", out, *more]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory) -> Chaos:
    """With undisturbed runs of two seeds and an undisturbed sweep, to compare with."""
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    (chaos.base / "spec.toml").write_text(SPEC)
    for seed in (0, 1):
        assert chaos.run(*train(f"reference-{seed}", seed)) == 0
    assert chaos.run(*SWEEP, "reference-sweep") == 0
    return chaos


def test_nothing_is_lost_or_mixed_up(chaos):
    seed, seconds = 0, defaultdict[str, float](lambda: 10.0)
    while chaos.counts["kills"] < KILLS:
        kind = chaos.random.choice(["anew", "anew", "train", "train", "train", "sweep", "sweep", "evaluate", "plot"])
        fault = chaos.random.choice(chaos.faults) if chaos.random.random() < 0.3 else ""
        # Of what commands of the kind took that were not killed; some are not.
        after = chaos.random.uniform(0.2, 0.9) * seconds[kind] if chaos.random.random() < 0.8 else None
        how: dict[str, Any] = {"fault": fault, "kill_after": after}
        started, kills = time.perf_counter(), chaos.counts["kills"]
        match kind:
            case "anew" if fault not in ("disk full", "read-only"):
                wanted = chaos.random.choice([0, 1])
                chaos.run(*train("run", wanted, "--overwrite"), used="run", **how)
                # Killed before it began, it left the run of the seed before.
                seed = wanted if (found := chaos.seed_of_run()) is None else found
            case "sweep":
                again = ["--overwrite"] if chaos.random.random() < 0.2 else ["--resume"]
                chaos.run(*SWEEP, "sweep", *again, used="sweep", **how)
            case "evaluate":
                chaos.run("evaluate", "run", "--num-scenarios", 16, used="run", **how)
            case "plot":
                what = chaos.random.choice(["run", "sweep"])
                chaos.run("plot", what, used=what, **how)
            case _:
                chaos.run(*train("run", seed, "--resume"), used="run", **how)
        if not fault and chaos.counts["kills"] == kills:
            seconds[kind] = time.perf_counter() - started
    finish(chaos, seed)
    print(chaos.counts)
    assert {name: chaos.counts[name] for name in WRONG} == dict.fromkeys(WRONG, 0)


def finish(chaos: Chaos, seed: int) -> None:
    """What goes on to its end is what was never disturbed, under its own seed."""
    for words in (train("run", seed, "--resume"), [*SWEEP, "sweep", "--resume"]):
        assert chaos.run(*words) == 0, chaos.said
    run, reference = chaos.base / "run", chaos.base / f"reference-{seed}"
    for name in ("metrics.nc", "evaluation.nc"):
        chaos.counts["lost"] += not same(numbers_of(run / name), numbers_of(reference / name))
    told = {RunDirectory(run).read_summary()["seed"], chaos.seed_of_run(), seed}
    chaos.counts["mislabelled"] += len(told) != 1
    swept, undisturbed = (SweepDirectory(chaos.base / name) for name in ("sweep", "reference-sweep"))
    chaos.counts["lost"] += not same(numbers_of(swept.path / "sweep.nc"), numbers_of(undisturbed.path / "sweep.nc"))
    for cell in swept.cells:
        own, other = (read_arrays(one.weights_path(cell.index))[0] for one in (swept, undisturbed))
        chaos.counts["lost"] += not same(own, other)
