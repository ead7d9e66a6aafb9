"""The programs of a group, and how its cells are cut into batches."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from rmft_jax import Sweep
from rmft_jax.agents import make_agents
from rmft_jax.config import ConfigError
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.state import init
from rmft_jax.running.history import METRICS, History
from rmft_jax.running.trainer import RunKeys
from rmft_jax.sweeps.batches import make_tasks
from rmft_jax.sweeps.programs import Programs, padded_config
from rmft_jax.sweeps.run import checked_plan
from sweeping import SWEEP, TINY_OVERRIDE, KeptPrograms, run


def test_a_batch_starts_from_the_weights_of_every_run():
    """With learned positions, of which a longer horizon has more, so that the weights differ in two sizes."""
    sweep = Sweep(
        "quickstart",
        grid={"horizon": [6, 8], "num_arms": [3, 4]},
        override={**TINY_OVERRIDE, "position": "learned", "seed": 5},
    )
    (group,) = checked_plan(sweep.expand(), sweep.baselines)
    batch, keys = Programs(group).start(group.cells), RunKeys.create(5)
    extent: Any = batch.extent
    assert extent.num_arms.tolist() == [3, 4, 3, 4]
    assert extent.horizon.tolist() == [6, 6, 8, 8]
    for slot in (1, 0):  # Of fewer rounds, and of fewer arms too.
        cell = group.cells[slot]
        own = jax.jit(functools.partial(init, cell.config.rmft))(keys.train)
        small, large = cell.config.rmft.problem(), padded_config(cell, group).problem()
        expected = cell.config.rmft.policy.padded(own.params, small, large)
        started = jax.tree.map(lambda leaf, slot=slot: leaf[slot], batch.state.params)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), started, expected)
        assert batch.state.key[slot] == own.key
        assert batch.validation_key[slot] == keys.validation
        np.testing.assert_array_equal(batch.test_key[slot], jax.random.key_data(keys.test))


def test_floats_of_the_environment_are_inputs_too():
    """The regret of uniform play is in proportion to the gap, and does not depend on the noise; that of UCB1 does."""
    sweep = Sweep(
        "quickstart",
        zip={"gap": [0.2, 0.4, 0.2], "noise_std": [1.0, 1.0, 0.01]},
        override={**TINY_OVERRIDE, "prior": "fixed_gap", "noise": "gaussian"},
    )
    (group,) = checked_plan(sweep.expand(), sweep.baselines)
    programs, regret = Programs(group), {}
    for cell in group.cells:
        agents = make_agents(cell.config.rmft.problem(), ["uniform", "ucb1"])
        regret[cell.index] = programs.evaluate(agents, cell, np.asarray([0, 7], np.uint32))
    assert programs.num_compiled == 1
    first, wide, quiet = ({name: play.regret[:, -1] for name, play in regret[i].items()} for i in range(3))
    np.testing.assert_allclose(wide["uniform"], 2 * first["uniform"], rtol=1e-5)
    np.testing.assert_array_equal(quiet["uniform"], first["uniform"])
    assert quiet["ucb1"].mean() < first["ucb1"].mean()


def test_batches_are_of_one_width_and_do_not_depend_on_what_is_finished():
    groups = checked_plan(SWEEP.expand(), SWEEP.baselines)
    tasks = make_tasks(groups, 3, (), None)
    assert [[cell.index for cell in task.cells] for task in tasks] == [[0, 1, 2], [3, 4, 5], [6, 7, 6]]
    assert [task.wanted for task in tasks] == [(0, 1, 2), (0, 1, 2), (0, 1)]
    assert tasks[0].label == "horizon=6,num_arms=3,seed=0 and 2 more"
    left = make_tasks(groups, 3, {0, 2, 3, 4, 5, 6}, ["ucb1"])
    assert [[cell.index for cell in task.cells] for task in left] == [[0, 1, 2], [6, 7, 6]]
    assert [task.wanted for task in left] == [(1,), (1,)]
    assert left[0].label == "horizon=6,num_arms=3,seed=1"
    assert left[0].baselines == ("ucb1",)
    assert [len(task.cells) for task in make_tasks(groups, 100, (), None)] == [8]


def test_whoever_loses_the_finite_numbers_has_failed_at_the_first_time():
    """By its loss, its gradient, or only by its parameters, after the last loss of a chunk."""
    progress = History.fresh(4)
    params, finite = {"w": np.zeros((4, 2))}, np.asarray([True, True, True, False])
    progress.add_validation(0, np.ones((4, 3)), params)
    zeros = {name: np.zeros((4, 2), np.float32) for name in METRICS}
    loss, norm = np.asarray([[0, 0], [0, np.nan], [0, 0], [0, 0]]), np.asarray([[0, 0], [0, 0], [np.inf, 0], [0, 0]])
    metrics: Any = zeros | {"loss": loss, "grad_norm": norm}
    for _ in range(2):
        progress.add_chunk(IterationMetrics(**metrics), finite)
        progress.add_validation(progress.done + 2, np.ones((4, 3)), params)
    where = {slot: message.split("infinite ")[1].split(";")[0] for slot, message in progress.failures.items()}
    assert where == {1: "at iteration 2", 2: "at iteration 1", 3: "by iteration 2"}
    assert progress.done == 4
    assert progress.metrics["loss"].shape == (4, 4)


def test_the_parameters_of_the_lowest_validation_regret_are_kept_cell_by_cell():
    progress = History.fresh(2)
    assert (progress.validated, progress.done) == (False, 0)
    for iteration, (first, second) in enumerate([(3.0, 1.0), (2.0, 2.0), (2.0, 0.5), (4.0, 0.75)]):
        regret = np.asarray([[first - 1, first + 1], [second, second]])
        progress.add_validation(5 * iteration, regret, {"w": np.full((2, 3), 5.0 * iteration)})
    assert progress.best is not None
    np.testing.assert_array_equal(progress.best["w"], [[5, 5, 5], [10, 10, 10]])
    assert progress.best_iteration.tolist() == [5, 10]
    assert progress.iterations.tolist() == [0, 5, 10, 15]
    np.testing.assert_array_equal(progress.validation, [[3, 2, 2, 4], [1, 2, 0.5, 0.75]])
    np.testing.assert_allclose(progress.validation_sem, [[1, 1, 1, 1], [0, 0, 0, 0]])
    assert progress.live_regret == (4 + 0.75) / 2
    progress.failures[0] = "x"
    assert progress.live_regret == 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselines": ["hedge"]}, "got agent 'hedge' for Stationary under 'bandit' feedback"),
        ({"baselines": ["ucb1", "nobody"]}, "got agent 'nobody'"),
        ({"grid": {"horizon": [4, 5]}, "override": {**TINY_OVERRIDE, "num_arms": 2}, "baselines": ["bayes_optimal"]},
         "BayesOptimal was solved for"),
        ({"grid": {"horizon": [4, 0]}}, "horizon=0: got horizon=0"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(dataclasses.replace(SWEEP, **changes), tmp_path / "sweep", executor=KeptPrograms())
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("options", [{"max_failures": 0}, {"cells_per_batch": -1}])
def test_options_are_checked(tmp_path, options):
    with pytest.raises(ConfigError, match=f"got {next(iter(options))}="):
        run(SWEEP, tmp_path / "sweep", executor=KeptPrograms(), **options)
    assert not (tmp_path / "sweep").exists()


SINGLE_LAYER = Sweep(
    "single-layer",
    grid={"num_arms": [2, 3]},
    override={
        **{key: TINY_OVERRIDE[key] for key in TINY_OVERRIDE.keys() - {"num_layers", "width", "num_minibatches"}},
        "horizon": 6, "num_iterations": 2, "decision_map": "identity",
    },
)  # fmt: skip


def test_play_in_a_ball(tmp_path):
    dataset, outcome = run(SINGLE_LAYER, tmp_path / "sweep", cells_per_batch=2)
    assert outcome.finished == 2
    assert (dataset.attrs["regret"], dataset.attrs["reference"]) == ("ball", "ftrl")
    assert dataset.agent.values.tolist() == ["ftrl", "follow_the_leader"]
    assert not {"min_frac", "greedy_frac", "suff_fail_freq", "rank_frequency", "rank"} & set(dataset.variables)
    assert (dataset.final_regret > 0).all()
    assert (dataset.loss > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("decision_map", ["identity", "softmax"])
def test_a_single_layer_does_not_depend_on_padding(tmp_path, decision_map):
    sweep = dataclasses.replace(SINGLE_LAYER, override={**SINGLE_LAYER.override, "decision_map": decision_map})
    padded, _ = run(sweep, tmp_path / "padded", cells_per_batch=2)
    own, _ = run(sweep, tmp_path / "own", pad=False)
    xr.testing.assert_allclose(
        *(dataset.drop_vars(["wall_seconds", "status"]) for dataset in (padded, own)), rtol=1e-4, atol=1e-5
    )
