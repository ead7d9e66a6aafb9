"""Caches in bfloat16, held to float32 by the regret of who plays and learns with them."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats

from rmft_jax import Problem, evaluate, load_sweep
from rmft_jax.problems import Stationary
from rmft_jax.running.weights import load_pretrained


def paired(agents, problem: Problem, num_scenarios: int) -> tuple[float, np.ndarray]:
    """The first agent's mean final regret, and in each scenario by how much the second's differs."""
    names = [str(number) for number in range(len(agents))]
    players = dict(zip(names, agents, strict=True))
    played = evaluate(players, problem, num_scenarios=num_scenarios, key=jax.random.key(5))
    first, second = (played["regret"].isel(round=-1).sel(agent=name).values for name in names)
    return float(first.mean()), second - first


@pytest.mark.slow
def test_a_trained_policy_has_the_regret_that_it_had():
    agent: Any = load_pretrained("mab-k5").agent
    rounded = dataclasses.replace(agent, config=dataclasses.replace(agent.config, cache_dtype="bfloat16"))
    regret, apart = paired([agent, rounded], Problem(Stationary(num_arms=5), 100), 512)
    # Rounding changes a decision here and there, and with it all that follows.
    assert 0 < (apart != 0).mean() < 1
    error = apart.std() / np.sqrt(len(apart))
    assert abs(apart.mean()) < 4 * error
    assert error < 0.02 * regret


SWEEP = """
preset = "quickstart"
baselines = ["uniform"]
[grid]
cache_dtype = ["float32", "bfloat16"]
seed = [0, 1, 2]
[override]
num_iterations = 60
num_scenarios = 256
num_test_scenarios = 1024
"""


@pytest.mark.slow
def test_training_ends_at_the_same_regret(tmp_path):
    """What rounding changes is no more than what seeds do."""
    spec, out = tmp_path / "dtypes.toml", tmp_path / "sweep"
    spec.write_text(SWEEP)
    # Tests compile without optimization, and this one runs for longer than it compiles.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "rmft_jax.cli", "sweep", str(spec), "--out", str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    found = load_sweep(out)
    exact, rounded = (found["final_regret"].sel(cache_dtype=dtype).values for dtype in ("float32", "bfloat16"))
    assert exact.max() < 0.7 * float(found["baseline_final_regret"].mean())
    assert abs(rounded.mean() - exact.mean()) < 0.1 * exact.mean()
    compared: Any = scipy.stats.ttest_ind(exact, rounded, equal_var=False)
    assert compared.pvalue > 0.01
