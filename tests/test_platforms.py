"""Programs are made for the devices that they are lowered for, not for those of the process that lowers them."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmft_jax
from rmft_jax.config.platforms import platform
from rmft_jax.method import rmft
from rmft_jax.method.devices import AXIS, on_mesh
from rmft_jax.method.evaluation import quick_to_compile
from rmft_jax.method.fine_tuning import _block
from rmft_jax.method.rollout import rollout_block
from rmft_jax.method.state import abstract_state, init, make_agent
from rmft_jax.problems import regret
from worlds import TINY

OTHERS = ("gpu", "tpu")


def test_the_platform_is_that_of_the_default_device():
    assert platform() == jax.default_backend() == "cpu"
    for other in OTHERS:
        with jax.default_device(other):
            assert platform() == other
    with jax.default_device("gpu"), jax.default_device(jax.devices("cpu")[0]):
        assert platform() == "cpu"


def test_a_mesh_knows_its_platform_better():
    mesh = jax.sharding.Mesh(jax.devices("cpu"), (AXIS,))
    seen = []
    with jax.default_device("tpu"):
        assert platform(mesh) == "cpu"
        jax.jit(lambda x: on_mesh(mesh, lambda shares, x: (seen.append(platform()), x)[1], x)).trace(1.0)
        assert platform() == "tpu"
    assert seen == ["cpu"]


def test_a_function_is_traced_anew_for_another_device():
    seen = []
    function = jax.jit(lambda x: (seen.append(platform()), x)[1])
    function.trace(1.0)
    with jax.default_device("tpu"):
        function.trace(1.0)
    function.trace(1.0)
    assert seen == ["cpu", "tpu"]


@pytest.mark.parametrize("other", OTHERS)
def test_only_cpus_play_and_learn_in_blocks(other):
    agent = make_agent(init(TINY, jax.random.key(0)))
    assert rollout_block(agent, 3, 6) > 0
    assert _block(TINY, agent) > 0
    with jax.default_device(other):
        assert rollout_block(agent, 3, 6) == _block(TINY, agent) == 0


@pytest.mark.parametrize("other", OTHERS)
def test_a_program_lowered_here_for_another_device_is_what_would_run_there(other):
    state = abstract_state(TINY.replace(num_scenarios=512))  # 16 groups on CPU
    here = rmft.play.trace(state)
    with jax.default_device(other):
        there = rmft.play.trace(state)

    def loops(traced):
        return set(re.findall(r"length=(\d+)", str(traced.jaxpr)))

    assert loops(here) - loops(there) == {"16"}
    lowered = there.lower(lowering_platforms=("cuda" if other == "gpu" else other,))
    assert "stablehlo.while" in lowered.as_text()


def test_compiler_options_are_those_of_the_device():
    assert quick_to_compile("cpu") == {"xla_backend_optimization_level": 1}
    assert quick_to_compile("tpu") is None


@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 4)])
def test_the_entry_at_an_arm_is_the_same_without_a_gather(monkeypatch, shape):
    table = jax.random.normal(jax.random.key(0), shape).at[..., 0].set(-jnp.inf)
    actions = jax.random.randint(jax.random.key(1), shape[:-1], 0, shape[-1])
    found = regret.of_action(table, actions)
    slope = jax.grad(lambda table: jnp.sum(jnp.sin(regret.of_action(table, actions))))
    steep = slope(jnp.where(jnp.isinf(table), 1.0, table))
    monkeypatch.setattr(regret, "platform", lambda: "tpu")
    assert "gather" not in str(jax.make_jaxpr(regret.of_action)(table, actions))
    np.testing.assert_array_equal(regret.of_action(table, actions), found)
    np.testing.assert_array_equal(slope(jnp.where(jnp.isinf(table), 1.0, table)), steep)


def test_nobody_else_asks_what_the_process_has():
    source = Path(rmft_jax.__file__).parent
    asking = [str(path.relative_to(source)) for path in source.rglob("*.py") if "default_backend" in path.read_text()]
    assert asking == ["config/platforms.py"]
