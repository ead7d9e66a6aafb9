"""Which cells share programs. No JAX here either."""

import itertools
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from own import registers_restored
from rmft_jax import Sweep
from rmft_jax.problems import Environment, Stationary
from rmft_jax.sweeps import plan as plans
from rmft_jax.sweeps.plan import PROGRAMS_PER_GROUP, describe, plan, run_flops, structure
from rmft_jax.sweeps.spec import Cell

SMALL = {"num_iterations": 4, "num_scenarios": 8, "num_validation_scenarios": 8, "num_test_scenarios": 8}
AXES = {
    "horizon": st.lists(st.integers(5, 400), min_size=1, max_size=4, unique=True),
    "num_arms": st.lists(st.integers(2, 40), min_size=1, max_size=3, unique=True),
    "seed": st.just([0, 1]),
    "step_size": st.just([1e-3, 1e-2]),
    "width": st.just([8, 16]),
    "position": st.just(["none", "sinusoidal"]),
    "environment": st.just(["bernoulli", "abrupt"]),
}


@st.composite
def sweeps(draw: st.DrawFn) -> list[Cell]:
    fields = draw(st.sets(st.sampled_from(sorted(AXES)), min_size=1, max_size=4))
    grid = {field: draw(AXES[field]) for field in sorted(fields)}
    iterations = draw(st.sampled_from([20, 200, 2000]))
    return Sweep("quickstart", grid=grid, override={"num_iterations": iterations}).expand()


def sizes(cells: tuple[Cell, ...] | list[Cell]) -> set[tuple[int, int]]:
    return {(cell.config.rmft.horizon, plans.arms(cell.config)) for cell in cells}


@settings(max_examples=40)
@given(sweeps(), st.booleans())
def test_every_cell_is_in_one_group_of_its_structure(cells, pad):
    groups = plan(cells, pad=pad)
    assert sorted(cell.index for group in groups for cell in group.cells) == list(range(len(cells)))
    assert [group.cells[0].index for group in groups] == sorted(group.cells[0].index for group in groups)
    for group in groups:
        indices = [cell.index for cell in group.cells]
        assert indices == sorted(indices)
        without = ("horizon", "num_arms")
        shared = structure(group.config, without)
        assert all(structure(cell.config, without) == shared for cell in group.cells)
        assert group.config.rmft.horizon == max(group.horizons)
        assert plans.arms(group.config) == max(group.arm_counts)
        assert pad or len(sizes(group.cells)) == 1
        assert group.reason
    if not pad:
        by_shape = {tuple(structure(cell.config).items()) for cell in cells}
        assert len(groups) == len(by_shape), "what need not be apart is together"
    assert plan(cells, pad=pad) == groups


def seconds(cells: list[Cell]) -> float:
    """What `_split` minimizes, of one part: the compilation, and all cells at the largest sizes, if that is felt."""
    horizon, num_arms = (max(column) for column in zip(*sizes(cells), strict=True))
    own = sum(run_flops(cell.config, plans.arms(cell.config), cell.config.rmft.horizon) for cell in cells)
    padded = sum(run_flops(cell.config, num_arms, horizon) for cell in cells)
    return plans._COMPILE_SECONDS + (padded if padded > 1.1 * own else own) / plans._FLOPS_PER_SECOND


@settings(max_examples=40)
@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(1, 3), min_size=6, max_size=6),
    st.sampled_from([plans._horizon, plans.arms]),
    st.sampled_from([0.01, 0.3, 3.0, 30.0, 300.0]),
)
def test_the_cut_is_the_cheapest_of_all(values, counts, size, compile_seconds):
    field = "horizon" if size is plans._horizon else "num_arms"
    values.sort()
    by_size = {
        value: Sweep("quickstart", grid={field: [value], "seed": list(range(count))}).expand()
        for value, count in zip(values, counts, strict=False)
    }
    with mock.patch.object(plans, "_COMPILE_SECONDS", compile_seconds):
        every = []
        for ends in itertools.product([False, True], repeat=len(values) - 1):
            parts = [[values[0]]]
            for value, ends_here in zip(values[1:], ends, strict=True):
                parts = [*parts, [value]] if ends_here else [*parts[:-1], [*parts[-1], value]]
            every.append(sum(seconds([cell for value in part for cell in by_size[value]]) for part in parts))
        chosen = plans._split([cell for cells in by_size.values() for cell in cells], size, pad=True)
        assert sum(map(seconds, chosen)) == pytest.approx(min(every), rel=1e-9)


def test_small_cells_are_padded_and_large_ones_are_not():
    grid = {"horizon": [10, 20, 40], "num_arms": [2, 3, 5]}
    (group,) = plan(Sweep("quickstart", grid=grid, override=SMALL).expand())
    assert (group.horizons, group.arm_counts) == ((10, 20, 40), (2, 3, 5))
    large = {"num_scenarios": 4096, "num_iterations": 1000, "width": 64}
    groups = plan(Sweep("quickstart", grid={"horizon": [50, 500]}, override=large).expand())
    assert [group.horizons for group in groups] == [(50,), (500,)]
    assert "apart from other sizes: to pad them would cost more than further programs" in groups[0].reason
    near = plan(Sweep("quickstart", grid={"horizon": [498, 500]}, override=large).expand())
    assert [group.horizons for group in near] == [(498, 500)], "work that nobody feels is no reason for a program"


def test_the_75_cells_of_an_ablation_need_at_most_8_programs():
    grid = {"horizon": [10, 20, 30, 40, 50], "num_arms": [2, 3, 4, 5, 6], "seed": [0, 1, 2]}
    override = {"num_iterations": 20, "num_scenarios": 64, "num_validation_scenarios": 256, "num_test_scenarios": 1024}
    groups = plan(Sweep("quickstart", grid=grid, override=override).expand())
    assert PROGRAMS_PER_GROUP * len(groups) <= 8


SHARED = {
    "seed": [0, 7], "step_size": [1e-3, 1e-2], "temperature": [1.0, 2.0], "entropy_weight": [0.0, 0.1],
    "max_grad_norm": [1.0, 2.0], "gap": [0.1, 0.2], "noise_std": [0.5, 1.0], "prior_std": [0.5, 1.0],
    "exploration_std": [0.5, 1.0], "kl_weight": [0.1, 0.2],
}  # fmt: skip
SPLIT = {
    "num_layers": [1, 2], "width": [8, 16], "num_rollouts": [4, 8], "k": [1, 2], "branching": ["none", "uniform"],
    "num_iterations": [4, 8], "chunk_size": [1, 2], "num_scenarios": [8, 16], "schedule": ["constant", "cosine"],
    "num_test_scenarios": [8, 16], "prior": ["uniform", "gaussian"], "shared_reward_noise": [False, True],
    "num_minibatches": [1, 2], "selection": ["regret", "random"], "selection_form": ["standard", "expected"],
    "objective": ["imitation", "dpt"], "kl_reference": ["previous", "initial"], "decision_map": ["softmax", "simplex"],
    "policy": ["transformer", "single_layer"], "environment": ["stationary", "abrupt"], "refresh_every": [1, 2],
}  # fmt: skip


def sweep_over(field: str, values: list) -> list[Cell]:
    override = {**SMALL, "noise": "gaussian", "entropy_weight": 0.0}
    override |= {"kl_reference": "initial", "kl_weight": 0.1} if field.startswith("kl") else {}
    override |= {"noise": "bernoulli"} if field == "environment" else {}
    override.pop(field, None)
    return Sweep("quickstart", grid={field: values}, override=override).expand()


@pytest.mark.parametrize("field", SHARED)
def test_seeds_and_floats_share_a_program(field):
    (group,) = plan(sweep_over(field, SHARED[field]))
    assert group.reason == (f"one program, with {field} as inputs",)


@pytest.mark.parametrize("field", SPLIT)
def test_all_else_is_a_program_of_its_own_and_the_reason_says_why(field):
    first, second = plan(sweep_over(field, SPLIT[field]))
    assert first.reason == ("a single cell",)
    assert f"{field}={SPLIT[field][1]}" in second.reason[0]
    assert second.reason[0].endswith("shapes or structure")


def test_the_settings_of_choices_are_told_apart_too():
    sweep = Sweep("single-layer", grid={"attention": ["linear", "softmax"]}, override={"num_test_scenarios": 8})
    assert "attention=softmax" in plan(sweep.expand())[1].reason[0]
    updates = [{"update": "gradient", "step_size": 0.1}, {"update": "gradient", "step_size": 0.2}]
    cells = Sweep("single-layer", cells=[*updates, {"update": "gradient", "step_size": 0.3, "num_epochs": 2}]).expand()
    first, second = plan(cells)
    assert (len(first.cells), second.reason[0]) == (2, "num_epochs=2 fixes shapes or structure")


def test_classes_of_one_name_are_two():
    """Two files of users may each have a class `World`."""
    worlds: Any = [type("World", (Stationary,), {"__module__": f"of_{user}"}) for user in ("ada", "bob")]
    with registers_restored():
        for user, world in zip(("ada", "bob"), worlds, strict=True):
            Environment.register(f"of_{user}")(world)
        _, second = plan(Sweep("quickstart", grid={"environment": ["of_ada", "of_bob"]}).expand())
    assert second.reason[0] == "environment=of_bob fixes shapes or structure"


def test_without_padding_sizes_are_apart_because_it_was_asked_for():
    cells = Sweep("quickstart", grid={"horizon": [10, 12], "num_arms": [2, 3], "seed": [0, 1]}, override=SMALL).expand()
    groups = plan(cells, pad=False)
    assert [sizes(group.cells) for group in groups] == [{(10, 2)}, {(10, 3)}, {(12, 2)}, {(12, 3)}]
    assert all(
        group.reason == ("apart from other sizes, as asked", "one program, with seed as inputs") for group in groups
    )


def test_the_plan_in_words():
    grid = {"horizon": [10, 20], "num_arms": [2, 3], "width": [8, 16]}
    cells = Sweep("quickstart", grid=grid, override={**SMALL, "step_size": 0.5}).expand()
    first, *lines = describe(plan(cells))
    assert first == "8 cells in 2 groups, 6 programs to compile"
    assert lines[0] == "group 1: 4 cells, T = 10,20, K = 2,3, as [M=8, L=8, T=20, K=3]"
    assert lines[1].startswith("  padded: about ")
    assert lines[2] == "  one program, with horizon, num_arms as inputs"
    assert lines[3] == "group 2: 4 cells, T = 10,20, K = 2,3, as [M=8, L=8, T=20, K=3]"
    assert lines[4] == "  width=16 fixes shapes or structure"


@pytest.mark.parametrize("preset", ["quickstart", "single-layer"])
def test_work_grows_with_all_that_is_worked_on(preset):
    (cell,) = Sweep(preset).expand()
    config = cell.config
    base = run_flops(config, 4, 20)
    assert run_flops(config, 5, 20) > base
    assert run_flops(config, 4, 21) > base
    more = config.replace(num_scenarios=2 * config.rmft.num_scenarios)
    assert base < run_flops(more, 4, 20) < 2 * base
