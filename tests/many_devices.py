"""What several devices do; run by test_devices.py, in a process that has eight."""

import functools
import signal

import chex
import jax
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.method import rmft
from rmft_jax.method.devices import device_name, make_mesh, program_options, replicated
from rmft_jax.method.evaluation import final_regret
from rmft_jax.method.judging import judge, training_data
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, init, make_agent
from rmft_jax.running import trainer, training
from rmft_jax.running.interruption import InterruptedRunError
from rmft_jax.running.storage import RunDirectory
from worlds import TINY_RUN

KEY = jax.random.key(0)
ONE_LAYER = TINY_RUN.rmft
SINGLE_LAYER = get_preset("single-layer").rmft.replace(
    horizon=5, num_scenarios=8, num_rollouts=4, k=2, num_iterations=4
)
CASES = {
    "two": (2, ONE_LAYER),
    # 8 * 3 kept in minibatches of 12, of which 8 devices cannot have equal shares.
    "eight": (8, ONE_LAYER.replace(k=3)),
    "reinforce": (2, ONE_LAYER.replace(objective="reinforce", k=ONE_LAYER.num_rollouts)),
    "least squares": (8, SINGLE_LAYER),
}


def two_iterations(config: RMFTConfig, num_devices: int):
    mesh = make_mesh(num_devices, config.num_scenarios)
    state = replicated(init(config, KEY), mesh)
    state, metrics = rmft.iterate_chunk(state, 2, None, mesh)
    return jax.device_get((state.params, metrics))


@pytest.mark.parametrize("name", CASES)
def test_iterations_on_several_devices_are_those_on_one(name):
    num_devices, config = CASES[name]
    together, alone = two_iterations(config, num_devices), two_iterations(config, 1)
    chex.assert_trees_all_close(together, alone, rtol=1e-5, atol=1e-5)


def test_every_device_plays_scenarios_of_its_own():
    state = init(ONE_LAYER, KEY)
    alone = rmft.play(state)
    mesh = make_mesh(8)
    together = rmft.play(replicated(state, mesh), mesh)
    assert len(together.actions.sharding.device_set) == 8
    assert together.actions.addressable_shards[0].data.shape == (ONE_LAYER.num_scenarios // 8, *alone.actions.shape[1:])
    np.testing.assert_array_equal(together.actions, alone.actions)
    np.testing.assert_array_equal(together.rewards, alone.rewards)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_what_is_kept_and_its_gradient_do_not_depend_on_the_number_of_devices(num_devices):
    """Between play and the gradient arrays are whole: scenarios of all devices are ranked together."""
    alone, together = (steps_of_an_iteration(number) for number in (1, num_devices))
    assert len(together["actions"].sharding.device_set) == num_devices
    for name in ("actions", *(name for name in alone if name.startswith("kept"))):
        np.testing.assert_array_equal(together[name], alone[name], err_msg=name)
    for name in alone:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), together[name], alone[name])
    pooled = np.asarray(alone["kept pooled"])
    assert pooled.shape == (1, 16)
    assert len(set(pooled[0] // 4)) < 8, "some scenarios have all of theirs kept, others none"


@functools.cache
def steps_of_an_iteration(num_devices: int):
    """What every rule keeps of the same rollouts, their regrets, the update on them, and the metrics."""
    mesh = make_mesh(num_devices, ONE_LAYER.num_scenarios)

    @jax.jit
    def steps(state):
        config, problem, keys = state.config, state.config.problem(), IterationKeys.of(state)
        played, own_rounds = rmft.play_rollouts(state, problem, keys, mesh)
        judged = judge(config, problem, played)
        rules = ("regret", "advantage", "pooled", "reward", "random")
        kept = {f"kept {rule}": config.replace(selection=rule).selection.keep(keys.selection, judged) for rule in rules}
        data = training_data(config, judged, kept["kept pooled"], own_rounds)
        after, fit = config.update.fine_tune(state, data, keys.update, mesh)
        metrics = rmft.measured(problem, judged, kept["kept pooled"], fit)
        found = {"actions": played.actions, "regret": judged.regret, "own rounds": own_rounds, "weights": data.weights}
        return {**found, **kept, "params": after.params, "metrics": metrics}

    return steps(replicated(init(ONE_LAYER, KEY), mesh))


def test_a_validation_deals_out_any_number_of_scenarios():
    state = init(ONE_LAYER, KEY)
    inputs = (make_agent(state), ONE_LAYER.problem(), KEY)
    alone = final_regret(*inputs, 13)
    mesh = make_mesh(8)
    np.testing.assert_allclose(final_regret(*replicated(inputs, mesh), 13, mesh=mesh), alone, 1e-6)


def test_a_run_stopped_on_two_devices_goes_on_on_eight(tmp_path, monkeypatch):
    train, path = training.train, tmp_path / "run"
    whole = train(TINY_RUN, tmp_path / "alone", num_devices=1)
    with monkeypatch.context() as patch:
        wait = trainer.wait

        def stopping(result):
            if isinstance(result, jax.Array):  # Of the first chunk, and not the regrets of the validation before it.
                signal.raise_signal(signal.SIGINT)
            wait(result)

        patch.setattr(trainer, "wait", stopping)
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
