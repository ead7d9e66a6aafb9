"""What is read from the text of compiled programs, on programs for CPUs, which are at hand everywhere."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.aot import compiled, hlo
from experiments.aot.targets import TARGETS
from rmft_jax.method import rmft
from rmft_jax.method.state import abstract_state
from worlds import TINY

TEXT = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[2]{0})->f32[2]{0}}

FileNames
1 "/somewhere/rmft_jax/method/rollout.py"
2 "/somewhere/flax/nnx/nn/linear.py"

FunctionNames
1 "rollout"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}


%inner (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]{0:T(128)}) parameter(0)
  %x = f32[2]{0:T(128)} get-tuple-element(%p), index=1
  %start = ((f32[2]{0}), f32[2]{0}, s32[]) all-gather-start(%x), dimensions={0}
  %done = f32[2]{0} all-gather-done(%start)
  %call = (f32[2]{0}, s8[4]{0}) custom-call(%done), custom_call_target="__cublas$lt$matmul"
  %buffer = f32[2]{0} custom-call(), custom_call_target="AllocateBuffer"
  %add = f32[2]{0} fusion(%x, %buffer), kind=kLoop, calls=%fused
  ROOT %t = (s32[], /*index=1*/f32[2]{0}) tuple(%i, %add)
}

%condition (p: (s32[], f32[2])) -> pred[] {
  %p = (s32[], f32[2]{0}) parameter(0)
  ROOT %less = pred[] fusion(%p), kind=kLoop, calls=%fused
}

%outer (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]{0}) parameter(0)
  %w = (s32[], f32[2]{0}) while(%p), condition=%condition, body=%inner, metadata={op_name="a" stack_frame_id=2}
  ROOT %c = (s32[], f32[2]{0}) copy(%w)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  ROOT %w = (s32[], f32[2]) while(%x), condition=%condition, body=%outer, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def read(lowered: Any) -> hlo.Program:
    return hlo.Program(lowered.compile().as_text())


def test_loops_and_launches_of_a_text():
    whole = hlo.Program(TEXT).whole
    # A gather, a product, a fusion, and the condition, at which the host looks.
    inner = hlo.Loop("rollout", None, 4, ())
    assert whole == hlo.Loop("", 1, 0, (hlo.Loop("", 7, 1, (inner,)),))
    assert whole.total(5) == 7 * (1 + 5 * 4)
    assert not hlo.Program(TEXT).host_traffic()


def test_a_trip_count_is_read_from_the_condition_where_it_is_a_number():
    head, _, rest = TEXT.partition("%condition (p: (s32[], f32[2])) -> pred[] {\n")
    compared = """  %p = (s32[]{:T(128)}, f32[2]{0:T(128)}) parameter(0)
  %fifty = s32[]{:T(128)} constant(50), metadata={op_name="length"}
  %other = s32[]{:T(128)} get-tuple-element(%p), index=0
  %round = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%round, %LIMIT), direction=LT, metadata={op_name="lt"}
}
"""
    rest = rest.partition("}\n")[2]
    for limit, trips, launches in (("fifty", 50, 3), ("other", None, 4)):
        whole = hlo.Program(
            f"{head}%condition (p: (s32[], f32[2])) -> pred[] {{\n{compared.replace('LIMIT', limit)}{rest}"
        ).whole
        assert whole.loops[0].loops == (hlo.Loop("rollout", trips, launches, ()),)


def test_of_two_branches_the_larger_counts():
    def program(flag, x):
        return jax.lax.cond(flag, lambda x: jax.lax.fori_loop(0, 9, lambda _, x: jnp.sort(x * 2), x), lambda x: x, x)

    (loop,) = read(jax.jit(program).lower(True, jnp.arange(300.0))).whole.loops
    assert loop.trips == 9
    assert loop.launches > 0


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        ('custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"', True),
        ('custom-call(%x), custom_call_target="MoveToHost"', True),
        ("infeed(%x)", True),
        ("send(%x, %token), channel_id=1", True),
        ("recv-done(%x), channel_id=1", True),
        ('custom-call(%x), custom_call_target="__cublas$gemm"', False),
        ("collective-permute(%x), channel_id=1", False),
    ],
)
def test_traffic_with_the_host_is_found(operation, found):
    line = f"  %o = f32[2]{{0}} {operation}"
    text = TEXT.replace("  %start =", f"{line}\n  %start =")
    assert hlo.Program(text).host_traffic() == [line.strip()] * found


def test_arrays_in_the_memory_of_the_host_are_found():
    assert (
        len(hlo.Program(TEXT.replace("f32[2]{0} all-gather-done", "f32[2]{0:S(5)} all-gather-done")).host_traffic())
        == 1
    )


def test_a_callback_is_found_in_a_program_of_jax():
    def program(x):
        jax.debug.callback(lambda x: None, x)
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.sin(x), x)

    assert read(jax.jit(program).lower(jnp.ones(3))).host_traffic()


def test_an_iteration_is_counted_by_its_loops():
    config = TINY.replace(horizon=6, num_minibatches=2)
    program = read(rmft.iterate_chunk.lower(abstract_state(config), compiled.ITERATIONS))
    counts = compiled.counted(program.whole, config.horizon)
    assert not program.host_traffic()
    assert {"rollout", "fine_tuning"} <= {loop.source for loop in program.whole.all()}
    least = config.horizon * counts["launches_per_round"] + 2 * counts["launches_per_update"]
    assert 0 < least <= counts["launches_per_iteration"]
    assert program.whole.total(config.horizon) >= compiled.ITERATIONS * counts["launches_per_iteration"]


def test_the_limits_of_an_iteration():
    config = TINY.replace(horizon=3, num_scenarios=8, num_rollouts=1)
    job = compiled.Job(config, 2, 4, lambda devices: None)
    found = compiled.limits(job, TARGETS["h100"], 1000)
    # Two runs of eight trajectories, of which a device plays a quarter: keys and values of 1 + 2 + 3 rounds.
    read = 2 * 8 / 4 * 2 * 2 * (1 + 2 + 3) * 8 * 4
    assert found["read_bytes"] == read
    assert found["env_steps"] == 2 * 8 * 3
    assert found["memory_seconds"] == pytest.approx(read / 3.35e12)
    assert found["launch_seconds"] == pytest.approx([2e-3, 4e-3])
    assert found["most_env_steps_per_second"] == pytest.approx(48 / 2e-3)
    assert compiled.limits(job, TARGETS["v5e"], 1000)["most_env_steps_per_second"] == pytest.approx(48 * 0.82e12 / read)
