import dataclasses
import itertools
import json
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rmft_jax import Sweep
from rmft_jax.agents import SingleLayer
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import ChoiceRegister, setting_types
from rmft_jax.config.settings import hints_of, is_settings
from rmft_jax.method.presets import get_preset
from rmft_jax.method.selection import AtRandom, LowestRegret
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.problems import Abrupt, Identity, RandomWalk, Simplex, Stationary, get_environment

TOML = """
preset = "mab"
baselines = ["thompson", "ucb1"]

[grid]
horizon = [25, 50]
num_arms = [2, 3]

[zip]
step_size = [1e-3, 2]
entropy_weight = [0, 0.1]

[override]
num_iterations = 24

[[cell]]
horizon = 100
seed = 7
"""


def test_the_toml_form_maps_onto_the_python_form(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(TOML)
    expected = Sweep(
        preset="mab",
        baselines=["thompson", "ucb1"],
        grid={"horizon": [25, 50], "num_arms": [2, 3]},
        zip={"step_size": [1e-3, 2.0], "entropy_weight": [0.0, 0.1]},
        override={"num_iterations": 24},
        cells=[{"horizon": 100, "seed": 7}],
    )
    sweep = Sweep.from_toml(path)
    assert sweep == expected
    assert Sweep.from_dict(json.loads(json.dumps(sweep.to_dict()))) == sweep


def test_cells_are_the_product_then_the_explicit_ones(tmp_path):
    (tmp_path / "sweep.toml").write_text(TOML)
    cells = Sweep.from_toml(tmp_path / "sweep.toml").expand()
    assert [cell.index for cell in cells] == list(range(9))
    rows = [(1e-3, 0.0), (2.0, 0.1)]
    expected = [(*point, *row, 0) for point in itertools.product([25, 50], [2, 3]) for row in rows]
    assert [tuple(cell.coordinates.values()) for cell in cells[:-1]] == expected
    # What the last one does not name is the preset's.
    assert cells[-1].coordinates == {
        "horizon": 100, "num_arms": 5, "step_size": 4e-3, "entropy_weight": 0.0, "seed": 7,
    }  # fmt: skip
    assert cells[0].label == "horizon=25,num_arms=2,step_size=0.001,entropy_weight=0.0,seed=0"
    found = cells[5].config.flat()
    assert (found["horizon"], found["num_arms"], found["step_size"]) == (50, 2, 2.0)
    assert (found["num_iterations"], found["chunk_size"]) == (24, 8)
    assert cells[-1].config.seed == 7


def test_nothing_varied_is_the_preset():
    (cell,) = Sweep(preset="fol").expand()
    assert (cell.coordinates, cell.config, cell.label) == ({}, get_preset("fol"), "preset")
    assert Sweep(preset="fol").dimensions() == {}


def test_environment_and_policy_come_before_their_fields():
    sweep = Sweep(
        override={"walk_step": 0.1, "attention": "softmax", "entropy_weight": 0, "policy": "single_layer"},
        grid={"num_arms": [2, 4], "environment": ["random_walk"]},
    )
    configs = [cell.config.rmft for cell in sweep.expand()]
    assert [config.environment for config in configs] == [RandomWalk(n, walk_step=0.1) for n in (2, 4)]
    assert {config.policy for config in configs} == {SingleLayer(attention="softmax")}
    (cell,) = Sweep(preset="fol", override={"environment": "alternating"}).expand()
    assert cell.config.rmft.environment == get_environment("alternating")


def test_an_environment_that_only_some_cells_name():
    first, second = Sweep(cells=[{"environment": "abrupt"}, {"seed": 1}]).expand()
    assert (first.coordinates, second.coordinates) == (
        {"environment": "abrupt", "seed": 0},
        {"environment": "preset", "seed": 1},
    )
    assert first.config.rmft.environment == Abrupt(num_arms=3)
    assert second.config.rmft.environment == Stationary(num_arms=3)
    named = Sweep(preset="mab", cells=[{"environment": "abrupt"}, {"policy": "transformer"}]).expand()
    assert [cell.coordinates["environment"] for cell in named] == ["abrupt", "stationary"]


def test_a_cell_may_name_what_is_fixed_elsewhere():
    cells = Sweep(grid={"seed": [0, 1]}, override={"horizon": 50}, cells=[{"horizon": 60}]).expand()
    assert [cell.config.rmft.horizon for cell in cells] == [50, 50, 60]
    assert [cell.coordinates for cell in cells][1:] == [{"seed": 1, "horizon": 50}, {"seed": 0, "horizon": 60}]


@pytest.mark.parametrize(("iterations", "chunk"), [(20, 10), (7, 7), (13, 1), (36, 9), (400, 10)])
def test_chunks_fit_the_iterations_unless_they_are_named(iterations, chunk):
    (cell,) = Sweep(override={"num_iterations": iterations}).expand()
    assert cell.config.chunk_size == chunk
    (varied,) = Sweep(grid={"num_iterations": [iterations]}).expand()
    assert varied.config == cell.config
    (named,) = Sweep(override={"num_iterations": iterations, "chunk_size": 1}).expand()
    assert named.config.chunk_size == 1
    varied = Sweep(cells=[{"num_iterations": iterations * 10}, {"chunk_size": 2, "num_iterations": iterations * 2}])
    assert [cell.config.chunk_size for cell in varied.expand()] == [10, 2]
    with pytest.raises(ConfigError, match="need whole chunks"):
        Sweep(cells=[{"num_iterations": 15}, {"chunk_size": 2}]).expand()


def test_numbers_of_numpy_and_ranges_are_numbers():
    counts: Any = list(np.arange(25, 27))
    sweep = Sweep(grid={"seed": range(2), "step_size": list(np.array([1e-3, 2e-3])), "horizon": counts})
    assert sweep == Sweep(grid={"seed": [0, 1], "step_size": [1e-3, 2e-3], "horizon": [25, 26]})
    assert json.loads(json.dumps(sweep.to_dict()))["grid"]["horizon"] == [25, 26]


def test_every_setting_has_one_meaning_and_none_is_forgotten():
    known, kinds = setting_types(RMFTConfig, RunConfig), ChoiceRegister.kinds
    for owner in (RMFTConfig, RunConfig, *(cls for register in kinds.values() for cls in register.classes().values())):
        for name, hint in hints_of(owner).items():
            if not is_settings(hint):
                assert known[name][0] == hint
                assert Sweep(override={name: known[name][1]}).override == {name: known[name][1]}
    assert {"environment", "policy", "selection", "objective", "update", "decision_map"} <= kinds.keys() <= known.keys()
    # Those of the dataset that a sweep becomes.
    assert not set(known) & {"round", "agent", "rank", "iteration", "validation_iteration", "cell", "zip", "status"}


def test_all_choices_can_be_axes():
    cells = Sweep(
        "single-layer",
        grid={"update": ["least_squares", "gradient"], "decision_map": ["softmax", "simplex"]},
        zip={"selection": ["regret", "random"], "k": [2, 3]},
        cells=[{"objective": "regret_loss", "update": "gradient", "decision_map": "identity"}],
        override={"exploration_std": 0.7},
    ).expand()
    assert len(cells) == 9
    assert cells[5].label == "update=gradient,decision_map=softmax,selection=random,k=3,objective=imitation"
    assert [cells[5].config.rmft.selection, cells[8].config.rmft.selection] == [AtRandom(3), LowestRegret(2)]
    assert [cell.config.rmft.update.name for cell in cells] == ["least_squares"] * 4 + ["gradient"] * 5
    assert cells[2].config.rmft.decision_map == Simplex(0.7)
    assert cells[8].config.rmft.decision_map == Identity(0.7)
    assert cells[8].config.rmft.objective.name == "regret_loss"


# Settings that only some of the choices have.
PARTIAL = {
    "selection": (
        {"selection": ["regret", "random"], "selection_form": ["standard", "expected"]},
        "selection=random,selection_form=standard: got selection_form with selection 'random', need regret or "
        "advantage or pooled or reward, which has it; try selection='regret'",
    ),
    "environment": (
        {"environment": ["random_walk", "abrupt"], "walk_step": [0.1, 0.2]},
        "environment=abrupt,walk_step=0.1: got walk_step with environment 'abrupt', need random_walk, which has it; "
        "try environment='random_walk'",
    ),
    "objective": (
        {"objective": ["dpt", "imitation"], "behavior": ["thompson", "ucb1"]},
        "objective=imitation,behavior=thompson: got behavior with objective 'imitation', need distillation or dpt, "
        "which has it; try objective='distillation'",
    ),
    "decision_map": (
        {"radius": [1, 2]},
        "radius=1.0: got radius with decision_map 'softmax', need ball or identity, which has it; "
        "try decision_map='ball'",
    ),
}


@pytest.mark.parametrize("choice", PARTIAL)
def test_an_axis_over_a_setting_that_only_some_choices_have_is_refused(choice):
    axes, message = PARTIAL[choice]
    with pytest.raises(ConfigError) as error:
        Sweep(grid=axes).expand()
    assert str(error.value) == message


def test_a_setting_of_one_choice_varies_where_every_cell_has_it():
    sweep = Sweep(
        "single-layer",
        grid={"step_size": [0.1, 0.2]},
        override={"update": "gradient"},
        cells=[{"update": "gradient", "step_size": 0.3}, {"update": "least_squares"}],
    )
    with pytest.raises(ConfigError, match=r"^update=least_squares: got no step_size, need a varied field that every"):
        sweep.expand()
    cells = dataclasses.replace(sweep, cells=sweep.cells[:1]).expand()
    assert [cell.coordinates["step_size"] for cell in cells] == [0.1, 0.2, 0.3]


# Each with a set of values that all presets below allow.
AXES = {
    "horizon": [25, 40, 50],
    "num_arms": [2, 3, 4],
    "seed": [0, 1, 2, 3],
    "step_size": [1e-3, 1, 0.25],
    "shared_reward_noise": [True, False],
    "branching": ["none", "uniform"],
}


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    fields = draw(st.permutations(list(AXES)))
    cut, end = sorted(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
    grid = {field: draw(st.lists(st.sampled_from(AXES[field]), min_size=1, unique=True)) for field in fields[:cut]}
    length = draw(st.integers(1, 2))
    zipped = {field: draw(st.permutations(AXES[field]))[:length] for field in fields[cut:end]}
    override = {field: AXES[field][0] for field in fields[end : end + draw(st.integers(0, 2))]}
    # No axis has such a seed.
    cells = [{"seed": 10 + n} for n in range(draw(st.integers(0, 3)))]
    return Sweep(draw(st.sampled_from(["mab", "fol", "nsmab"])), grid, zipped, cells, override)


@hypothesis.given(sweeps())
@hypothesis.settings(max_examples=40)
def test_round_trip_and_number_of_cells(sweep):
    assert Sweep.from_dict(json.loads(json.dumps(sweep.to_dict()))) == sweep
    cells = sweep.expand()
    rows = len(next(iter(sweep.zip.values()), [0]))
    product = math.prod(map(len, sweep.grid.values())) * rows
    assert len(cells) == len(sweep.cells) + (product if sweep.grid or sweep.zip or not sweep.cells else 0)
    varied = [field for group in sweep.groups for field in group]
    assert all(list(cell.coordinates) == varied for cell in cells)
    assert len({cell.config for cell in cells}) == len(cells)
    for cell in cells:
        found = cell.config.flat()
        assert cell.coordinates == {field: found[field] for field in varied}
        assert {
            field: found[field] for field in sweep.override if field not in varied
        }.items() <= sweep.override.items()


@hypothesis.given(sweeps())
@hypothesis.settings(max_examples=40)
def test_every_cell_has_one_place_along_the_dimensions(sweep):
    cells, dimensions = sweep.expand(), sweep.dimensions()
    places = set()
    for cell in cells:
        place = []
        for columns in dimensions.values():
            rows = list(zip(*columns.values(), strict=True))
            place.append(rows.index(tuple(cell.coordinates[field] for field in columns)))
        places.add(tuple(place))
    assert len(places) == len(cells)
    slots = math.prod(len(next(iter(columns.values()))) for columns in dimensions.values())
    assert len(cells) <= slots <= 20 * len(cells)


def test_dimensions_keep_the_order_of_the_spec():
    sweep = Sweep(
        grid={"seed": [1, 0], "horizon": [50, 25]},
        zip={"branching": ["none", "uniform", "none"], "k": [1, 2, 4]},
        cells=[{"k": 3, "horizon": 30}],
    )
    assert list(sweep.dimensions().items()) == [
        ("seed", {"seed": (1, 0)}),
        ("horizon", {"horizon": (50, 25, 30)}),
        ("k", {"branching": ("none", "uniform", "none", "uniform"), "k": (1, 2, 4, 3)}),
    ]
    pairs = Sweep(zip={"branching": ["none", "uniform", "none"], "k": [1, 1, 2]})
    assert list(pairs.dimensions()) == ["zip"]


def test_what_varies_with_the_seed_is_no_seed():
    """Means are taken over `seed`: over other settings they would be those of nothing."""
    together = {"seed": [0, 1, 2], "step_size": [1e-3, 2e-3, 4e-3]}
    assert list(Sweep(zip=together).dimensions()) == ["step_size"]
    assert list(Sweep(zip={**together, "step_size": [1e-3, 1e-3, 4e-3]}).dimensions()) == ["zip"]
    assert list(Sweep(zip={"seed": [0, 1]}).dimensions()) == ["seed"]


def test_dimensions_do_not_depend_on_the_order_of_the_cells():
    """Which are in the order in which they came, where a sweep has grown."""
    sweep = Sweep(grid={"horizon": [30, 40, 50]}, zip={"branching": ["uniform", "none"]}, cells=[{"horizon": 35}])
    coordinates = [cell.coordinates for cell in sweep.expand()]
    assert sweep.dimensions(coordinates[::-1]) == sweep.dimensions()
    assert sweep.dimensions()["horizon"] == {"horizon": (30, 40, 50, 35)}


def test_cells_far_apart_share_one_dimension():
    diagonal = Sweep(cells=[{"horizon": 30 + n, "seed": n, "num_arms": 2 + n} for n in range(6)])
    assert diagonal.dimensions() == {
        "cell": {
            "horizon": tuple(range(30, 36)),
            "seed": tuple(range(6)),
            "num_arms": tuple(range(2, 8)),
        }
    }
    # 4 * 4 * 4 slots are 16 for each cell.
    assert len(Sweep(cells=diagonal.cells[:4]).dimensions()) == 3
