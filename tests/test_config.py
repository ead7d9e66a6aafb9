import dataclasses
import itertools
from typing import Any

import jax
import pytest

from rmft_jax.agents import Policy, SingleLayer, Transformer, make_baselines
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.config.settings import hints_of, is_settings
from rmft_jax.method.presets import PRESETS, get_preset
from rmft_jax.method.settings import RMFTConfig, RunConfig, differing_settings
from rmft_jax.problems import Adaptive, Alternating, Environment, Problem, Stationary, get_environment

BANDIT = RMFTConfig()
FULL = BANDIT.replace(feedback="full", entropy_weight=0.0)
SINGLE = FULL.replace(policy="single_layer")
SINGLE_BANDIT = SINGLE.replace(feedback="bandit")
RUN = RunConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    get_preset(name).validate()


BAD = [
    (BANDIT, {"num_arms": 1}, "got num_arms=1, need a whole number of at least 2"),
    (BANDIT, {"prior": "gaussian"}, "got expected rewards in [-inf, inf] with noise='bernoulli', need them inside"),
    (BANDIT, {"prior": "cauchy"}, "got prior='cauchy', need one of uniform, gaussian, fixed_gap, constant"),
    (BANDIT, {"prior": "fixed_gap", "gap": 1.5}, "got gap=1.5, need a finite number in (0, 1]"),
    (BANDIT, {"noise": "gaussian", "noise_std": -1.0}, "got noise_std=-1.0, need a finite number of at least 0"),
    (BANDIT, {"noise": "cauchy"}, "need one of none, bernoulli, gaussian, uniform, beta"),
    (BANDIT, {"feedback": "some"}, "need one of bandit, full"),
    (BANDIT, {"environment": "abrupt", "horizon": 3}, "got num_changes=3 with horizon=3"),
    (
        BANDIT,
        {"environment": Alternating(centred=True, noise="bernoulli")},
        "got expected rewards in [-0.5, 0.5] with noise='bernoulli'",
    ),
    (BANDIT, {"environment": "desert"}, "got environment 'desert', need one of"),
    (BANDIT, {"environment": None}, "got environment=None, need a name, or an object of its kind; try 'stationary'"),
    (BANDIT, {"environment": Transformer()}, "need a name, or an object of its kind; try 'stationary'"),
    (BANDIT, {"policy": "oracle"}, "got policy 'oracle', need one of single_layer, transformer, text; try"),
    (BANDIT, {"selection_regret": "ball"}, "got selection_regret='ball', need one of standard"),
    (BANDIT, {"selection": "best"}, "got selection 'best', need one of regret, advantage, pooled, reward, random; try"),
    (
        BANDIT,
        {"selection": "reward", "selection_regret": "swap"},
        "got selection_regret with selection 'reward', need regret or advantage or pooled, which has it",
    ),
    (
        BANDIT,
        {"selection": "advantage", "selection_temperature": -0.1},
        "got selection_temperature=-0.1, need a finite number of at least 0",
    ),
    (BANDIT, {"selection_temperature": 0.1}, "got selection_temperature with selection 'regret', need advantage,"),
    (BANDIT, {"selection": "random", "selection_form": "expected"}, "got selection_form with selection 'random', need"),
    (FULL, {"entropy_weight": 0.1}, "got entropy_weight=0.1 with feedback='full' and a policy that emits scores, need"),
    (FULL, {"exploration_std": 0.0}, "got exploration_std=0.0, need a finite number above 0"),
    (FULL, {"decision_map": "ball", "radius": -1.0}, "got radius=-1.0, need a finite number above 0"),
    (FULL, {"radius": 2.0}, "got radius with decision_map 'softmax', need ball or identity, which has it; try"),
    (FULL, {"decision_map": "ball", "selection_regret": "swap"}, "need the static regret of the point played"),
    (FULL, {"decision_map": "ball", "selection_form": "sampled"}, "need the static regret of the point played"),
    (FULL, {"decision_map": "identity", "selection_regret": "swap"}, "need the static regret of the point played"),
    (FULL, {"decision_map": "hull"}, "need one of softmax, simplex, ball, identity"),
    (FULL, {"update": "newton"}, "got update 'newton', need one of gradient, least_squares"),
    (FULL, {"update": "least_squares"}, "got update='least_squares' with policy='transformer', need a single layer"),
    (SINGLE, {"l2_penalty": 0.1}, "got l2_penalty with update 'gradient', need least_squares, which has it; try"),
    (SINGLE, {"update": "least_squares", "l2_penalty": -1.0}, "got l2_penalty=-1.0, need a finite number of at least"),
    (SINGLE, {"update": "least_squares", "num_epochs": 2}, "got num_epochs with update 'least_squares', need gradient"),
    (SINGLE_BANDIT, {"entropy_weight": 0.1}, "got entropy_weight=0.1 with feedback='bandit' and a policy that emits"),
    (SINGLE_BANDIT, {"exploration_std": 0.0}, "got exploration_std=0.0, need a finite number above 0"),
    (SINGLE_BANDIT, {"decision_map": "ball"}, "got decision_map='ball' with feedback='bandit', need arms to draw from"),
    (SINGLE_BANDIT, {"decision_map": "identity"}, "got decision_map='identity' with feedback='bandit'"),
    (SINGLE, {"attention": "none"}, "got attention='none', need one of linear, softmax"),
    (SINGLE, {"key_size": 0}, "got key_size=0, need a whole number of at least 1"),
    (SINGLE, {"trained": "some"}, "got trained='some', need one of value, all"),
    (SINGLE, {"init_std": -1.0}, "got init_std=-1.0, need a finite number of at least 0"),
    (BANDIT, {"width": 30, "num_heads": 4}, "got width=30 with num_heads=4, need a width that the heads divide"),
    (BANDIT, {"width": 9, "num_heads": 3, "position": "sinusoidal"}, "need an even width"),
    (BANDIT, {"num_layers": 0}, "got num_layers=0"),
    (BANDIT, {"position": "rotary"}, "need one of none, learned, sinusoidal, alibi"),
    (BANDIT, {"arms": "embedding"}, "got arms='embedding', need one of one_hot, token"),
    (BANDIT, {"horizon": 0}, "got horizon=0, need a whole number of at least 1; try horizon=50"),
    (BANDIT, {"horizon": -3}, "got horizon=-3"),
    (BANDIT, {"horizon": "3"}, "got horizon='3', need a whole number; try horizon=50"),
    (BANDIT, {"horizon": 3.5}, "got horizon=3.5, need a whole number"),
    (BANDIT, {"horizon": True}, "got horizon=True, need a whole number"),
    (
        BANDIT,
        {"shared_reward_noise": 1},
        "got shared_reward_noise=1, need true or false; try shared_reward_noise=False",
    ),
    (BANDIT, {"k": 9}, "got k=9 with num_rollouts=8, need k of at most num_rollouts; try k=2"),
    (BANDIT, {"k": 0}, "got k=0, need a whole number of at least 1"),
    (BANDIT, {"num_rollouts": 0}, "got num_rollouts=0"),
    (BANDIT, {"num_minibatches": 3}, "need a number of minibatches that divides the kept trajectories; try num_minib"),
    (BANDIT, {"num_minibatches": 2_000_000_000}, "got num_minibatches=2000000000"),
    (BANDIT, {"step_size": float("nan")}, "got step_size=nan, need a finite number in float32; try step_size=0.002"),
    (BANDIT, {"step_size": float("inf")}, "got step_size=inf, need a finite number in float32"),
    (BANDIT, {"step_size": -1e-3}, "got step_size=-0.001, need a finite number above 0"),
    (BANDIT, {"step_size": 1e39}, "got step_size=1e+39, need a finite number in float32"),
    (BANDIT, {"step_size": 1e-60}, "got step_size=1e-60, need a finite number in float32"),
    (BANDIT, {"step_size": "small"}, "got step_size='small', need a finite number; try step_size=0.002"),
    (BANDIT, {"temperature": 0.0}, "got temperature=0.0, need a finite number above 0"),
    (BANDIT, {"entropy_weight": -0.1}, "got entropy_weight=-0.1"),
    (BANDIT, {"branching": "twice"}, "got branching='twice', need one of none, uniform"),
    (BANDIT, {"refresh_every": 0}, "got refresh_every=0, need a whole number of at least 1"),
    (BANDIT, {"rollout_block": -1}, "got rollout_block=-1, need a whole number of at least 0"),
    (BANDIT, {"update_block": -1}, "got update_block=-1, need a whole number of at least 0"),
    (RUN, {"chunk_size": 30}, "need whole chunks; try chunk_size=25 or num_iterations=420"),
    (RUN, {"seed": -1}, "got seed=-1"),
    (RUN, {"seed": 2**32}, "got seed=4294967296, need a seed below 2**32"),
    (RUN, {"num_test_scenarios": 1}, "got num_test_scenarios=1"),
    (RUN, {"num_validation_scenarios": 1}, "got num_validation_scenarios=1"),
]


@pytest.mark.parametrize(("base", "changes", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_settings_are_refused_with_their_remedy(base, changes, message):
    with pytest.raises(ConfigError) as error:
        base.replace(**changes).validate()
    assert message in str(error.value)
    assert "; try " in str(error.value)
    assert "\n" not in str(error.value)


WRONG_TYPES: list[tuple[Any, str]] = [
    (Stationary(prior="cauchy"), "got prior='cauchy', need one of uniform"),  # type: ignore[arg-type]
    (Stationary(num_arms=2.5), "got num_arms=2.5, need a whole number"),  # type: ignore[arg-type]
    (Adaptive(adversary="friend"), "need one of favourite, crowding, orthogonal, turning"),  # type: ignore[arg-type]
    (SingleLayer(init_std="much"), "got init_std='much', need a finite number"),  # type: ignore[arg-type]
    (Transformer(width=None), "got width=None, need a whole number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("choice", "message"), WRONG_TYPES, ids=lambda value: value if isinstance(value, str) else "")
def test_objects_of_wrong_types_are_refused(choice, message):
    """Where no `replace` was there to look at them."""
    for config in (BANDIT.replace(**{choice.kind: choice}), RUN.replace(**{choice.kind: choice})):
        with pytest.raises(ConfigError) as error:
            config.validate()
        assert message in str(error.value)
    assert "; try " in str(error.value)


def test_names_of_settings_are_unique_so_that_they_need_no_prefix():
    """A run has one choice of each kind; their settings and those of everything else must differ."""
    classes = [register.classes().values() for register in ChoiceRegister.kinds.values()]
    own = {
        cls: [name for name, hint in hints_of(cls).items() if not is_settings(hint)]
        for cls in itertools.chain((RMFTConfig, RunConfig), *classes)
    }
    for chosen in itertools.product(*classes):
        names = [name for cls in (RMFTConfig, RunConfig, *chosen) for name in own[cls]]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("config", "has_scores", "plays_points"),
    [
        (BANDIT, False, False),
        (BANDIT.replace(decision_map="ball"), False, False),
        (FULL, True, False),
        (SINGLE_BANDIT, True, False),
        (SINGLE.replace(decision_map="simplex"), True, False),
        (SINGLE.replace(decision_map="ball"), True, True),
        (FULL.replace(decision_map="identity"), True, True),
    ],
)
def test_what_a_policy_emits_and_plays(config, has_scores, plays_points):
    config.validate()
    assert (config.has_scores, config.problem().points) == (has_scores, plays_points)


@pytest.mark.parametrize("name", list(Environment.register))
def test_named_environments_are_valid(name):
    get_environment(name).validate(50)


def test_an_unknown_environment_is_refused():
    with pytest.raises(ConfigError, match=r"got environment 'desert', need one of .*bernoulli, .*; try "):
        get_environment("desert")


def test_differing_settings_names_every_change():
    changed = RUN.replace(num_arms=7, k=3, seed=1)
    assert set(differing_settings(RUN, changed)) == {("num_arms", 5, 7), ("k", 2, 3), ("seed", 0, 1)}
    other = RUN.replace(environment="linear_trend", selection="random")
    assert set(differing_settings(RUN, other)) == {
        ("environment", "stationary", "linear_trend"),
        ("selection", "regret", "random"),
        *((name, value, None) for name, value in (("prior", "uniform"), ("prior_mean", 0.0), ("prior_std", 1.0))),
        *((name, value, None) for name, value in (("gap", 0.2), ("selection_regret", "standard"))),
        ("selection_form", "standard", None),
    }
    assert not list(differing_settings(RUN, RUN))


def test_floats_are_leaves_and_everything_else_is_structure():
    leaves = jax.tree.leaves(BANDIT.replace(step_size=0.125, temperature=0.75, gap=0.375))
    assert {0.125, 0.75, 0.375} <= set(leaves)
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert jax.tree.structure(BANDIT.replace(step_size=1.0)) == jax.tree.structure(BANDIT.replace(step_size=2.0))
    assert jax.tree.structure(BANDIT.replace(horizon=1)) != jax.tree.structure(BANDIT.replace(horizon=2))
    assert jax.tree.structure(BANDIT.replace(k=1)) != jax.tree.structure(BANDIT.replace(k=2))


def test_pytrees_of_different_types_have_different_structures():
    """Else `jit` may serve one agent with the program of another: seen with jax.tree_util.register_dataclass."""
    choices = [cls() for register in ChoiceRegister.kinds.values() for cls in register.classes().values()]
    nodes = [*make_baselines(Problem(Stationary(), 50)).values(), *choices, RMFTConfig(), RunConfig()]
    structures = [jax.tree.structure(node) for node in nodes]
    for i, first in enumerate(structures):
        assert [first == second for second in structures] == [i == j for j in range(len(structures))]
    assert len({hash(structure) for structure in structures}) == len(structures)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BANDIT.horizon = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy.register["transformer"].choice.width = 3
