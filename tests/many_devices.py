"""What several devices do; run by test_devices.py, in a process that has eight."""

import dataclasses
import signal

import chex
import jax
import numpy as np
import pytest
from worlds import TINY_RUN

from rmft_jax import rmft, training
from rmft_jax.config import ConfigError, RMFTConfig
from rmft_jax.devices import device_name, make_mesh, program_options, replicated
from rmft_jax.environments import make_environment
from rmft_jax.evaluation import final_regret
from rmft_jax.interruption import InterruptedRunError
from rmft_jax.presets import get_preset
from rmft_jax.storage import RunDirectory

KEY = jax.random.key(0)
SINGLE_LAYER = dataclasses.replace(
    get_preset("single-layer").rmft, horizon=5, num_scenarios=8, num_rollouts=4, k=2, num_iterations=4
)
ONE_LAYER = TINY_RUN.rmft
CASES = {
    "two": (2, ONE_LAYER),
    # 8 * 3 kept in minibatches of 12, of which 8 devices cannot have equal shares.
    "eight": (8, dataclasses.replace(ONE_LAYER, k=3)),
    "random": (2, dataclasses.replace(ONE_LAYER, selection="random")),
    "pooled": (2, dataclasses.replace(ONE_LAYER, selection="pooled")),
    "reinforce": (2, dataclasses.replace(ONE_LAYER, objective="reinforce", k=ONE_LAYER.num_rollouts)),
    "least squares": (8, SINGLE_LAYER),
}


def two_iterations(config: RMFTConfig, num_devices: int):
    mesh = make_mesh(num_devices, config.num_scenarios)
    state = replicated(rmft.init(config, KEY), mesh)
    state, metrics = rmft.iterate_chunk(state, 2, None, mesh)
    return jax.device_get((state.params, metrics))


@pytest.mark.parametrize("name", CASES)
def test_iterations_on_several_devices_are_those_on_one(name):
    num_devices, config = CASES[name]
    together, alone = two_iterations(config, num_devices), two_iterations(config, 1)
    chex.assert_trees_all_close(together, alone, rtol=1e-5, atol=1e-5)


def test_every_device_plays_scenarios_of_its_own():
    state = rmft.init(ONE_LAYER, KEY)
    alone = rmft.play(state)
    mesh = make_mesh(8)
    together = rmft.play(replicated(state, mesh), mesh)
    assert len(together.actions.sharding.device_set) == 8
    assert together.actions.addressable_shards[0].data.shape == (ONE_LAYER.num_scenarios // 8, *alone.actions.shape[1:])
    np.testing.assert_array_equal(together.actions, alone.actions)
    np.testing.assert_array_equal(together.rewards, alone.rewards)


def test_a_validation_deals_out_any_number_of_scenarios():
    state = rmft.init(ONE_LAYER, KEY)
    world = make_environment(ONE_LAYER.environment)
    inputs = (rmft.make_agent(state), world, rmft.setting_regret(ONE_LAYER), KEY, ONE_LAYER.horizon)
    alone = final_regret(*inputs, 13)
    mesh = make_mesh(8)
    np.testing.assert_allclose(
        final_regret(*replicated(inputs[:4], mesh), ONE_LAYER.horizon, 13, mesh=mesh), alone, 1e-6
    )


def test_a_run_stopped_on_two_devices_goes_on_on_eight(tmp_path, monkeypatch):
    train, path = training.train, tmp_path / "run"
    whole = train(TINY_RUN, tmp_path / "alone", num_devices=1)
    with monkeypatch.context() as patch:
        wait = training.wait
        patch.setattr(training, "wait", lambda result: (signal.raise_signal(signal.SIGINT), wait(result)))
        with pytest.raises(InterruptedRunError, match="stopped at iteration 2"):
            train(TINY_RUN, path, num_devices=2)
    assert "2 devices" in RunDirectory(path).read_dataset("metrics.nc").attrs["device"]
    summary = train(TINY_RUN, path, resume=True)
    assert summary["device"] == device_name(make_mesh(8))
    assert "8 devices" in summary["device"]
    runs = [RunDirectory(directory).read_dataset("metrics.nc") for directory in (tmp_path / "alone", path)]
    for name in runs[0].data_vars:
        np.testing.assert_allclose(runs[1][name], runs[0][name], rtol=1e-4, atol=1e-5, err_msg=str(name))
    assert summary["checkpoint_iteration"] == whole["checkpoint_iteration"]


@pytest.mark.parametrize(("num_scenarios", "used"), [(8, 8), (12, 6), (7, 7), (11, 1)])
def test_as_many_devices_as_share_evenly(num_scenarios, used):
    mesh = make_mesh(None, num_scenarios)
    assert (1 if mesh is None else mesh.size) == used


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 18), "got num_devices=9, need at most 8; try fewer"),
        ((0, 8), "got num_devices=0, need a whole number of at least 1; try num_devices=8"),
        ((3, 8), "got num_scenarios=8 on 3 devices, need a multiple; try num_scenarios=24"),
    ],
)
def test_device_counts_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError) as error:
        make_mesh(*arguments)
    assert str(error.value) == message


def test_programs_on_cores_do_not_split_operations():
    assert program_options(make_mesh(8)) == {"xla_cpu_multi_thread_eigen": False}
    assert program_options(None) == {}
