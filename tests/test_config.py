import dataclasses
import itertools
import json
import typing

import jax
import pytest

from rmft_jax.agents import make_baselines
from rmft_jax.config import (
    CONFIG_CLASSES,
    FAMILIES,
    POLICIES,
    AbruptConfig,
    AlternatingConfig,
    BanditConfig,
    ConfigError,
    Feedback,
    RMFTConfig,
    RunConfig,
    SingleLayerConfig,
    TransformerConfig,
    differing_fields,
    from_dict,
    to_dict,
)
from rmft_jax.presets import ENVIRONMENTS, PRESETS, get_environment, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_reload_from_json(name):
    config = get_preset(name)
    config.validate()
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def bandit(**changes) -> RMFTConfig:
    return RMFTConfig(environment=BanditConfig(**changes))


def single(feedback: Feedback = "full", **changes) -> RMFTConfig:
    world = BanditConfig(feedback=feedback)
    return RMFTConfig(**{"environment": world, "policy": SingleLayerConfig(), "entropy_weight": 0.0, **changes})


def full(**changes) -> RMFTConfig:
    return RMFTConfig(**{"environment": BanditConfig(feedback="full"), "entropy_weight": 0.0, **changes})


BAD = [
    (bandit(num_arms=1), "got num_arms=1, need a whole number of at least 2"),
    (bandit(prior="gaussian"), "got expected rewards in [-inf, inf] with noise='bernoulli', need them inside [0, 1]"),
    (bandit(prior="cauchy"), "need one of uniform, gaussian, fixed_gap, constant"),
    (bandit(prior="fixed_gap", gap=1.5), "got gap=1.5, need a finite number in (0, 1]"),
    (bandit(noise="gaussian", noise_std=-1.0), "got noise_std=-1.0"),
    (bandit(noise="cauchy"), "need one of none, bernoulli, gaussian, uniform, beta"),
    (bandit(feedback="some"), "need one of bandit, full"),
    (RMFTConfig(environment=AbruptConfig(), horizon=3), "got num_changes=3 with horizon=3"),
    (RMFTConfig(selection_regret="ball"), "got selection_regret='ball', need one of standard"),  # type: ignore[arg-type]
    (RMFTConfig(selection="best"), "got selection='best', need one of regret, advantage, reward, random, pooled"),  # type: ignore[arg-type]
    (
        RMFTConfig(selection="reward", selection_regret="swap"),
        "got selection_regret='swap' with selection='reward', need a selection that looks at it",
    ),
    (
        RMFTConfig(selection="random", selection_regret="static"),
        "try selection='regret' or selection_regret='standard'",
    ),
    (
        RMFTConfig(selection="random", selection_form="expected"),
        "got selection_form='expected' with selection='random'",
    ),
    (full(entropy_weight=0.1), "got entropy_weight=0.1 with feedback='full' and a policy that emits scores, need 0"),
    (full(exploration_std=0.0), "got exploration_std=0.0, need a finite number above 0"),
    (full(decision_map="ball", radius=-1.0), "got radius=-1.0"),
    (
        full(decision_map="simplex", full_loss="cross_entropy"),
        "got full_loss='cross_entropy' with decision_map='simplex'",
    ),
    (full(decision_map="ball", selection_regret="swap"), "need the static regret of the point played"),
    (full(decision_map="ball", selection_form="sampled"), "need the static regret of the point played"),
    (full(decision_map="identity", selection_regret="swap"), "need the static regret of the point played"),
    (full(decision_map="hull"), "need one of softmax, simplex, ball, identity"),
    (full(update="newton"), "got update='newton', need one of gradient, least_squares"),
    (full(update="least_squares"), "got update='least_squares' with policy=TransformerConfig"),
    (single(update="least_squares", full_loss="cross_entropy"), "and full_loss='cross_entropy', need a single layer"),
    (single(l2_penalty=0.1), "got l2_penalty=0.1 with update='gradient', need the least-squares fit"),
    (single(update="least_squares", l2_penalty=-1.0), "got l2_penalty=-1.0, need a finite number of at least 0"),
    (single("bandit", entropy_weight=0.1), "got entropy_weight=0.1 with feedback='bandit' and a policy that emits"),
    (single("bandit", exploration_std=0.0), "got exploration_std=0.0, need a finite number above 0"),
    (single("bandit", decision_map="ball"), "got decision_map='ball' with feedback='bandit', need arms to draw from"),
    (single("bandit", decision_map="identity"), "got decision_map='identity' with feedback='bandit'"),
    (SingleLayerConfig(attention="none"), "got attention='none', need one of linear, softmax"),  # type: ignore[arg-type]
    (SingleLayerConfig(key_size=0), "got key_size=0, need a whole number of at least 1"),
    (SingleLayerConfig(trained="some"), "got trained='some', need one of value, all"),  # type: ignore[arg-type]
    (SingleLayerConfig(init_std=-1.0), "got init_std=-1.0, need a finite number of at least 0"),
    (single(policy=SingleLayerConfig(key_size=0)), "got key_size=0"),
    (RMFTConfig(environment=AlternatingConfig(centred=True, noise="bernoulli")), "got expected rewards in [-0.5, 0.5]"),
    (TransformerConfig(width=30, num_heads=4), "got width=30 with num_heads=4, need a width that the heads divide"),
    (TransformerConfig(width=9, num_heads=3, position="sinusoidal"), "need an even width"),
    (TransformerConfig(num_layers=0), "got num_layers=0"),
    (TransformerConfig(position="rotary"), "need one of none, learned, sinusoidal, alibi"),  # type: ignore[arg-type]
    (TransformerConfig(arms="embedding"), "got arms='embedding', need one of one_hot, token"),  # type: ignore[arg-type]
    (RMFTConfig(horizon=0), "got horizon=0, need a whole number of at least 1; try horizon=50"),
    (RMFTConfig(horizon=-3), "got horizon=-3"),
    (RMFTConfig(k=9), "got k=9 with num_rollouts=8, need k of at most num_rollouts; try k=2"),
    (RMFTConfig(k=0), "got k=0, need a whole number of at least 1"),
    (RMFTConfig(num_rollouts=0), "got num_rollouts=0"),
    (RMFTConfig(num_minibatches=3), "need a number of minibatches that divides the kept trajectories"),
    (RMFTConfig(step_size=float("nan")), "got step_size=nan, need a finite number above 0"),
    (RMFTConfig(step_size=float("inf")), "got step_size=inf"),
    (RMFTConfig(step_size=-1e-3), "got step_size=-0.001"),
    (RMFTConfig(step_size=1e39), "got step_size=1e+39, need a finite number above 0 in float32"),
    (RMFTConfig(step_size=1e-60), "got step_size=1e-60"),
    (RMFTConfig(num_minibatches=2_000_000_000), "got num_minibatches=2000000000"),
    (RMFTConfig(temperature=0.0), "got temperature=0.0"),
    (RMFTConfig(entropy_weight=-0.1), "got entropy_weight=-0.1"),
    (RMFTConfig(branching="twice"), "got branching='twice', need one of none, uniform"),  # type: ignore[arg-type]
    (RunConfig(chunk_size=30), "need whole chunks; try chunk_size=25 or num_iterations=420"),
    (RunConfig(seed=-1), "got seed=-1"),
    (RunConfig(num_test_scenarios=1), "got num_test_scenarios=1"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_settings_are_refused_with_their_remedy(config, message):
    with pytest.raises(ConfigError) as error:
        config.validate()
    assert message in str(error.value)
    assert "; try " in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_field_and_a_wrong_type_are_refused():
    values = to_dict(RunConfig())
    with pytest.raises(ConfigError, match="horizonn"):
        from_dict(values | {"rmft": values["rmft"] | {"horizonn": 3}})
    with pytest.raises(ConfigError, match="horizon"):
        from_dict(values | {"rmft": values["rmft"] | {"horizon": "3"}})


def test_field_names_are_unique_so_that_they_need_no_prefix():
    """A run has one environment and one policy; their fields and those of everything else must differ."""
    for environment, policy in itertools.product(FAMILIES.values(), POLICIES.values()):
        names = [
            field.name
            for cls in (environment, policy, RMFTConfig, RunConfig)
            for field in dataclasses.fields(cls)
            if not dataclasses.is_dataclass(typing.get_type_hints(cls)[field.name])
        ]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_environment_reloads_as_itself(family):
    config = RunConfig(RMFTConfig(environment=FAMILIES[family](num_arms=3)))
    values = json.loads(json.dumps(to_dict(config)))
    assert values["rmft"]["environment"]["family"] == family
    assert from_dict(values) == config


@pytest.mark.parametrize("family", POLICIES)
def test_every_policy_reloads_as_itself(family):
    config = RunConfig(full(policy=POLICIES[family]()))
    values = json.loads(json.dumps(to_dict(config)))
    assert values["rmft"]["policy"]["family"] == family
    assert from_dict(values) == config


def test_the_settings_of_a_single_layer_reload():
    policy = SingleLayerConfig(attention="softmax", key_size=3, trained="all", init_std=0.25)
    config = RunConfig(single(policy=policy, update="least_squares", l2_penalty=0.5, decision_map="identity"))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_policy_that_names_neither_family_nor_arms_is_a_one_hot_transformer():
    values = to_dict(RunConfig(RMFTConfig(policy=TransformerConfig(width=64))))
    del values["rmft"]["policy"]["family"], values["rmft"]["policy"]["arms"], values["rmft"]["selection"]
    assert from_dict(values).rmft.policy == TransformerConfig(width=64)


def test_an_unknown_policy_is_refused():
    values = to_dict(RunConfig())
    for family in (None, "oracle"):
        broken = values["rmft"] | {"policy": values["rmft"]["policy"] | {"family": family}}
        with pytest.raises(ConfigError, match=r"got policy family .*, need one of transformer, single_layer; try"):
            from_dict(values | {"rmft": broken})
    mixed = values["rmft"] | {"policy": values["rmft"]["policy"] | {"family": "single_layer"}}
    with pytest.raises(ConfigError, match="num_layers"):
        from_dict(values | {"rmft": mixed})


@pytest.mark.parametrize(
    ("config", "has_scores", "plays_points"),
    [
        (bandit(), False, False),
        (RMFTConfig(decision_map="ball"), False, False),
        (full(), True, False),
        (single("bandit"), True, False),
        (single(decision_map="simplex"), True, False),
        (single(decision_map="ball"), True, True),
        (full(decision_map="identity"), True, True),
    ],
)
def test_what_a_policy_emits_and_plays(config, has_scores, plays_points):
    config.validate()
    assert (config.has_scores, config.plays_points) == (has_scores, plays_points)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_named_environments_are_valid(name):
    get_environment(name).validate(50)


def test_an_unknown_environment_is_refused():
    values = to_dict(RunConfig())
    for family in (None, "desert"):
        broken = values["rmft"] | {"environment": values["rmft"]["environment"] | {"family": family}}
        with pytest.raises(ConfigError, match=r"got environment family .*, need one of bandit, sinusoidal"):
            from_dict(values | {"rmft": broken})
    with pytest.raises(ConfigError, match="got environment 'desert', need one of bernoulli"):
        get_environment("desert")


def test_environments_of_different_families_differ():
    first, second = (RunConfig(RMFTConfig(environment=FAMILIES[name]())) for name in ("gradual", "linear_trend"))
    assert [name for name, _, _ in differing_fields(first, second)] == ["environment"]


def test_differing_fields_names_every_change():
    changed = RunConfig(RMFTConfig(environment=BanditConfig(num_arms=7), k=3), seed=1)
    assert set(differing_fields(RunConfig(), changed)) == {("num_arms", 5, 7), ("k", 2, 3), ("seed", 0, 1)}


def test_floats_are_leaves_and_everything_else_is_structure():
    leaves = jax.tree.leaves(RMFTConfig(step_size=0.125, temperature=0.75))
    assert {0.125, 0.75} <= set(leaves)
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert jax.tree.structure(RMFTConfig(step_size=1.0)) == jax.tree.structure(RMFTConfig(step_size=2.0))
    assert jax.tree.structure(RMFTConfig(horizon=1)) != jax.tree.structure(RMFTConfig(horizon=2))


def test_pytrees_of_different_types_have_different_structures():
    """Else `jit` may serve one agent with the program of another: seen with jax.tree_util.register_dataclass."""
    nodes = [*make_baselines(BanditConfig(), 50).values(), *(cls() for cls in CONFIG_CLASSES)]
    structures = [jax.tree.structure(node) for node in nodes]
    for i, first in enumerate(structures):
        assert [first == second for second in structures] == [i == j for j in range(len(structures))]
    assert len({hash(structure) for structure in structures}) == len(structures)
