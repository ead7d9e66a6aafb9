"""Settings by their names: taken, replaced, written down and read again."""

import itertools
import json
import typing
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft_jax.agents import SingleLayer, Transformer
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import ChoiceRegister, setting_types
from rmft_jax.config.settings import Settings
from rmft_jax.method.objectives import Distillation, Imitation
from rmft_jax.method.presets import PRESETS, get_preset
from rmft_jax.method.selection import Advantage, AtRandom, LowestRegret
from rmft_jax.method.settings import RMFTConfig, RunConfig, from_dict
from rmft_jax.problems import Abrupt, Alternating, Ball, Besbes, Sinusoidal, Stationary

RUN = RunConfig()
BUILT_IN = {
    kind: [name for name in register if name not in register.of_users()]
    for kind, register in ChoiceRegister.kinds.items()
}


def from_json(config: RunConfig) -> Any:
    return json.loads(json.dumps(config.flat()))


# Round trips.


@pytest.mark.parametrize("name", PRESETS)
def test_presets_reload_from_json(name):
    config = get_preset(name)
    assert from_dict(from_json(config)) == config
    assert config.replace(**config.flat()) == config


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in BUILT_IN.items() for name in names])
def test_every_choice_reloads_as_itself(kind, name):
    config = RUN.replace(**{kind: name})
    chosen = ChoiceRegister.kinds[kind][name].choice
    assert config == RUN.replace(**{kind: chosen})
    values = from_json(config)
    assert values[kind] == chosen.name
    reloaded = RunConfig().replace(**values)
    assert reloaded == config
    assert getattr(reloaded.rmft, kind) == chosen


def outcome(function: Callable[[], Any]) -> Any:
    """What it returns, or the message with which it refuses."""
    try:
        return function()
    except ConfigError as error:
        return str(error)


def value_of(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(typing.get_args(hint))
    floats = st.floats(-(2.0**100), 2.0**100, allow_subnormal=False, width=32)
    names = st.sampled_from(["policy", "ucb1", "nobody"])
    return {bool: st.booleans(), int: st.integers(0, 9), float: floats, str: names}[hint]


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Some choices, and some settings that are there then."""
    chosen = {kind: draw(st.sampled_from(names)) for kind, names in BUILT_IN.items() if draw(st.booleans())}
    present = [name for name in RUN.replace(**chosen).flat() if name not in BUILT_IN]
    names = draw(st.lists(st.sampled_from(present), max_size=6, unique=True))
    hints = {name: hint for name, (hint, _) in setting_types(RMFTConfig, RunConfig).items()}
    return chosen | {name: draw(value_of(hints[name])) for name in names}


@settings(max_examples=80)
@given(changes())
def test_changed_settings_are_there_and_reload(changed):
    config = RUN.replace(**changed)
    flat = config.flat()
    expected = {
        name: ChoiceRegister.kinds[name][value].choice.name for name, value in changed.items() if name in BUILT_IN
    }
    assert {name: flat[name] for name in changed} == changed | expected
    assert RUN.replace(**from_json(config)) == config
    assert get_preset("fol").replace(**flat) == config, "a table of all settings leaves nothing of what was there"
    assert outcome(lambda: from_dict(from_json(config))) == (outcome(config.validate) or config)


def test_a_part_of_a_table_leaves_the_rest_at_its_default():
    assert from_dict({}) == RUN
    assert from_dict({"environment": "gaussian", "num_arms": 3, "seed": 2}) == RUN.replace(
        environment=Stationary(num_arms=3, prior="gaussian", noise="gaussian"), seed=2
    )


# What is carried from one choice to the next.


def test_a_choice_carries_the_settings_that_both_have():
    config = RUN.replace(k=4, selection_regret="swap", selection_form="expected")
    assert config.replace(selection="advantage").rmft.selection == Advantage(4, "swap", "expected")
    assert config.replace(selection="random").rmft.selection == AtRandom(4)
    assert config.replace(selection="advantage", k=1).rmft.selection == Advantage(1, "swap", "expected")
    objective = RUN.replace(objective="dpt", entropy_weight=0.5, behavior="ucb1").rmft
    assert objective.replace(objective="distillation").objective == Distillation(0.5, behavior="ucb1")
    assert objective.replace(objective="imitation").objective == Imitation(0.5)
    ball = RUN.replace(decision_map="ball", exploration_std=2.0, radius=3.0)
    assert ball.replace(decision_map="identity").flat()["radius"] == 3.0
    assert ball.replace(decision_map="softmax").flat()["exploration_std"] == 2.0
    assert ball.replace(decision_map="softmax").replace(decision_map="ball").flat()["radius"] == 1.0


def test_environments_carry_arms_and_feedback_and_policies_nothing():
    config = RUN.replace(num_arms=3, noise="beta", width=8)
    assert config.replace(environment="abrupt").rmft.environment == Abrupt(num_arms=3)
    assert config.replace(environment="besbes").rmft.environment == Besbes(), "which has two arms of its own"
    assert config.replace(environment="besbes").replace(environment="abrupt").rmft.environment == Abrupt(num_arms=2)
    assert config.replace(environment="stationary").rmft.environment == Stationary(num_arms=3)
    assert config.replace(environment="abrupt", num_arms=4).rmft.environment == Abrupt(num_arms=4)
    full = RUN.replace(feedback="full")
    assert full.replace(environment="sinusoidal").rmft.environment == Sinusoidal(feedback="full")
    assert RUN.replace(environment="favourite").rmft.environment.feedback == "full", "its own"
    assert full.replace(environment=Sinusoidal()).rmft.environment == Sinusoidal(), "an object is taken as it is"
    assert config.replace(policy="transformer").rmft.policy == Transformer()
    assert config.replace(policy="single_layer").rmft.policy == SingleLayer()


def test_an_object_is_taken_as_it_is():
    config = RUN.replace(k=4, selection=LowestRegret(selection_form="sampled"), policy=Transformer(width=8))
    assert config.rmft.selection == LowestRegret(4, selection_form="sampled")
    assert config.rmft.policy == Transformer(width=8)


def test_the_order_of_changes_does_not_matter():
    wanted = {"selection": "random", "k": 3, "environment": "abrupt", "num_changes": 1}
    configs = {str(RUN.replace(**dict(order))) for order in itertools.permutations(wanted.items())}
    assert len(configs) == 1


# What is refused.


REFUSED = [
    ({"num_changes": 2}, "got num_changes with environment 'stationary', need abrupt, which has it; try environment="),
    ({"radius": 2.0}, "got radius with decision_map 'softmax', need ball or identity, which has it; try decision_map="),
    ({"behavior": "ucb1"}, "got behavior with objective 'imitation', need distillation or dpt, which has it; try"),
    (
        {"policy": "single_layer", "width": 8},
        "got width with policy 'single_layer', need transformer, which has it; try",
    ),
    ({"horizonn": 3}, "got 'horizonn', need the name of a setting; try horizon"),
    ({"numarms": 3}, "got 'numarms', need the name of a setting; try num_arms"),
    ({"l2": 3}, "got 'l2', need the name of a setting; try `rmft train --help`"),
    ({"rmft": RMFTConfig()}, "got 'rmft', need the name of a setting; try `rmft train --help`"),
    ({"environment": "bernouli"}, "; try 'bernoulli', or import_code of the file that has it"),
    (
        {"policy": "transfomer"},
        "got policy 'transfomer', need one of single_layer, transformer, text; try 'transformer', or",
    ),
    ({"selection": "avantage"}, "; try 'advantage', or import_code of the file that has it"),
    ({"objective": "rmft"}, "got objective 'rmft', need one of imitation, distillation, dpt, regret_loss"),
    ({"selection": ["regret"]}, "got selection=['regret'], need a name, or an object of its kind; try 'regret'"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=[str(list(changed)) for changed, _ in REFUSED])
def test_what_is_not_there_is_refused_with_what_to_do(changed, message):
    for config in (RUN, RUN.rmft):
        with pytest.raises(ConfigError) as error:
            config.replace(**changed)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        from_dict(changed)


@pytest.mark.parametrize("values", [[], None, "quickstart"])
def test_only_a_table_is_read(values):
    with pytest.raises(ConfigError, match="need a table of settings; try `rmft presets`"):
        from_dict(values)


def test_long_values_are_cut():
    with pytest.raises(ConfigError) as error:
        RUN.replace(horizon=list(range(10_000)))
    assert len(str(error.value)) < 150


# Numbers.


class Mixed(Settings):
    """Settings of every type."""

    whole: int = 1
    fraction: float = 0.5
    truth: bool = False
    word: Literal["a", "b"] = "a"


def test_whole_numbers_and_numbers_of_numpy_are_normalized():
    for mixed in (
        Mixed(np.int64(3), np.float32(0.25), np.bool_(True), np.str_("b")),  # type: ignore[arg-type]
        Mixed(3, np.float64(0.25), True, "b"),
    ):
        assert mixed == Mixed(3, 0.25, True, "b")
        assert [type(value) for value in vars(mixed).values()] == [int, float, bool, str]
    assert type(Mixed(fraction=2).fraction) is float
    assert type(Mixed(fraction=np.int32(2)).fraction) is float  # type: ignore[arg-type]


def test_replaced_settings_are_numbers_of_python():
    given = {"k": np.int64(4), "step_size": np.float32(0.25), "temperature": 2, "shared_reward_noise": np.bool_(True)}
    config = RUN.replace(**given, branching=np.str_("none"), environment=np.str_("abrupt"))
    assert config == RUN.replace(
        k=4, step_size=0.25, temperature=2.0, shared_reward_noise=True, branching="none", environment="abrupt"
    )
    assert {type(value) for value in config.flat().values()} == {int, float, bool, str}
    json.dumps(config.flat())


# Files of version 0.6: one table within another, in which every setting stands, used or not.

OF_0_6: dict[str, Any] = {
    "rmft": {
        "environment": {
            "family": "bandit", "num_arms": 5, "feedback": "bandit", "noise": "bernoulli", "noise_std": 1.0,
            "noise_concentration": 4.0, "prior": "uniform", "prior_mean": 0.0, "prior_std": 1.0, "gap": 0.2,
        },
        "policy": {
            "family": "transformer", "num_layers": 2, "width": 32, "num_heads": 2, "mlp_ratio": 4, "position": "none",
            "arms": "one_hot",
        },
        "horizon": 50, "num_iterations": 400, "num_scenarios": 1024, "num_rollouts": 8, "k": 2, "objective": "rmft",
        "behavior": "policy", "refresh_every": 1, "selection": "regret", "branching": "uniform",
        "shared_reward_noise": False, "selection_regret": "standard", "selection_form": "standard", "temperature": 1.0,
        "decision_map": "softmax", "radius": 1.0, "exploration_std": 0.5, "full_loss": "squared_error",
        "update": "gradient", "l2_penalty": 0.0, "num_epochs": 1, "num_minibatches": 4, "step_size": 0.002,
        "schedule": "cosine", "max_grad_norm": 1.0, "entropy_weight": 0.01, "kl_reference": "none", "kl_weight": 0.0,
        "replay": 0, "average_window": 0, "rollout_block": 0, "update_block": 0,
    },
    "seed": 0, "chunk_size": 20, "num_validation_scenarios": 1024, "num_test_scenarios": 4096,
}  # fmt: skip
ABRUPT_0_6 = {
    "family": "abrupt", "num_arms": 3, "feedback": "bandit", "noise": "bernoulli", "noise_std": 1.0,
    "noise_concentration": 4.0, "num_changes": 2, "change": "mirrored",
}  # fmt: skip
SINES_0_6 = {
    "family": "sinusoidal", "num_arms": 4, "feedback": "full", "noise": "gaussian", "noise_std": 0.5,
    "noise_concentration": 4.0, "amplitude": 0.25, "period": 20,
}  # fmt: skip
ALTERNATING_0_6 = {
    "family": "alternating", "num_arms": 5, "feedback": "bandit", "noise": "none", "noise_std": 1.0,
    "noise_concentration": 4.0, "centred": True,
}  # fmt: skip
SINGLE_0_6 = {"family": "single_layer", "attention": "softmax", "key_size": 3, "trained": "all", "init_std": 0.25}
FULL_0_6 = {"environment": SINES_0_6, "entropy_weight": 0.0}


def nested(**changed: Any) -> Any:
    return json.loads(json.dumps({**OF_0_6, "rmft": {**OF_0_6["rmft"], **changed}}))


OLD: dict[str, tuple[dict[str, Any], ...]] = {
    "default": ({}, {}),
    "abrupt": ({"environment": ABRUPT_0_6}, {"environment": Abrupt(num_arms=3, num_changes=2, change="mirrored")}),
    "alternating": ({"environment": ALTERNATING_0_6}, {"environment": Alternating(centred=True)}),
    "full": (
        {**FULL_0_6, "decision_map": "ball", "radius": 2.0, "exploration_std": 0.25},
        {
            "environment": Sinusoidal(
                num_arms=4, feedback="full", noise="gaussian", noise_std=0.5, amplitude=0.25, period=20.0
            ),
            "entropy_weight": 0.0,
            "decision_map": Ball(0.25, 2.0),
        },
    ),
    "least squares": (
        {**FULL_0_6, "policy": SINGLE_0_6, "update": "least_squares", "l2_penalty": 0.5},
        {
            "environment": Sinusoidal(
                num_arms=4, feedback="full", noise="gaussian", noise_std=0.5, amplitude=0.25, period=20.0
            ),
            "entropy_weight": 0.0,
            "policy": SingleLayer("softmax", 3, "all", 0.25),
            "update": "least_squares",
            "l2_penalty": 0.5,
        },
    ),
    "distillation": (
        {"objective": "distillation", "behavior": "exp3", "branching": "none"},
        {"objective": "distillation", "behavior": "exp3", "branching": "none"},
    ),
    "dpt": ({"objective": "dpt"}, {"objective": "dpt", "behavior": "policy"}),
    "reinforce": ({"objective": "reinforce", "k": 8}, {"objective": "reinforce", "k": 8}),
    "divergence": ({"kl_reference": "initial", "kl_weight": 1}, {"kl_reference": "initial", "kl_weight": 1.0}),
    "reward": ({"selection": "reward", "selection_form": "expected"},) * 2,
    "random": ({"selection": "random", "refresh_every": 3, "schedule": "constant"},) * 2,
}


@pytest.mark.parametrize("name", OLD)
def test_a_file_of_version_0_6_gives_the_same_configuration(name):
    old, new = OLD[name]
    assert from_dict(nested(**old)) == RUN.replace(**new)


def test_a_file_that_names_neither_policy_nor_arms_is_of_a_one_hot_transformer():
    old = nested()
    del old["rmft"]["policy"]["family"], old["rmft"]["policy"]["arms"], old["rmft"]["selection"]
    old["rmft"]["policy"]["width"] = 64
    assert from_dict(old) == RUN.replace(width=64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"replay": 3}, "got replay=3, need a setting that is still there; try rmft-jax==0.6.0 for this run"),
        ({"average_window": 10}, "got average_window=10, need a setting that is still there; try rmft-jax==0.6.0"),
        ({"full_loss": "cross_entropy"}, "got full_loss='cross_entropy', need a setting that is still there; try rmft"),
        ({"branching": "early"}, "got branching='early', need one of none, uniform; try"),
        ({"horizonn": 3}, "got 'horizonn', need the name of a setting; try horizon"),
        ({"horizon": "3"}, "got horizon='3', need a whole number; try horizon=50"),
        ({"environment": {"family": "desert"}}, "got environment 'desert', need one of"),
        ({"environment": {"family": None}}, "got environment=None, need a name"),
        ({"environment": {"num_arms": 3}}, "got environment=None, need a name"),
        ({"environment": 3}, "got environment=3, need a name"),
        (
            {"environment": {**ABRUPT_0_6, "num_chang": 3}},
            "got 'num_chang', need the name of a setting; try num_changes",
        ),
        ({"policy": {"family": "oracle"}}, "got policy 'oracle', need one of"),
        ({"k": 9}, "got k=9 with num_rollouts=8"),
    ],
    ids=str,
)
def test_what_a_file_of_version_0_6_cannot_say_is_refused(changed, message):
    with pytest.raises(ConfigError) as error:
        from_dict(nested(**changed))
    assert message in str(error.value)
    assert "; try " in str(error.value)
