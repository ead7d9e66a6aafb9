import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.config import ConfigError
from rmft_jax.language.agent import LanguageAgent
from rmft_jax.language.decoder import run, token_log_probs
from rmft_jax.language.library import EMPTY, make_library
from rmft_jax.language.narration import Narrated
from rmft_jax.language.policy import Text
from rmft_jax.language.transcript import arm_named
from rmft_jax.language.words import TEMPLATE
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.state import init, make_agent, make_player
from rmft_jax.problems import Problem, Stationary
from texts import TEXT

ARMS, HORIZON, TINY = 3, 4, TEXT
FORMS = [
    dict(zip(("answer", "reasoning", "history", "feedback"), values, strict=True))
    for values in itertools.product(("choice", "free"), (0, 3), ("full", "summary"), ("bandit", "full"))
]


def agent_of(config) -> Any:
    return make_agent(init(config, jax.random.key(0)))


def play(agent, config, num_scenarios=3, num_rollouts=2, **options):
    keys = RolloutKeys.create(jax.random.key(2))
    return jax.jit(
        lambda one: rollout_scenarios(
            one, config.problem(), keys, num_scenarios=num_scenarios, num_rollouts=num_rollouts, **options
        )
    )(agent)


def text_of(config, row):
    return config.policy.loaded.tokenizer.decode([int(token) for token in np.asarray(row).ravel() if token != EMPTY])


# Of each two that differ in one respect, one is quick enough for every run.
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, id="-".join(map(str, form.values())), marks=[pytest.mark.slow] * (number.bit_count() % 2))
        for number, form in enumerate(FORMS)
    ],
)
def test_what_it_plays_is_what_it_learns_from(form):
    config = TINY.replace(**form)
    agent = agent_of(config)
    played = play(agent, config)
    outputs, log_probs = jax.jit(jax.vmap(jax.vmap(agent.read)))(played)
    np.testing.assert_allclose(jax.nn.softmax(outputs), played.probabilities, atol=2e-5)
    np.testing.assert_allclose(log_probs, played.notes.log_probs, atol=2e-4)
    written = np.asarray(played.notes.written)
    assert ((written == EMPTY) == (np.asarray(played.notes.log_probs) == 0)).all()
    assert (written != EMPTY).any() == (form["answer"] == "free" or form["reasoning"] > 0)
    assert bool(np.asarray(played.notes.invalid).any()) == (form["answer"] == "free")


def test_all_tokens_are_read_given_those_before():
    """Against the log-probabilities of the text without any gap."""
    config = TINY.replace(imitated="all", reasoning=3)
    agent = agent_of(config)
    trajectory = jax.tree.map(lambda leaf: leaf[0, 0], play(agent, config))
    shapes, params = agent.shapes, agent.params
    rows, telling = np.asarray(agent.rows(trajectory)), int(trajectory.notes.telling[0])
    whole = np.concatenate([np.asarray(agent.library.intro[telling]), rows.ravel()])
    dense, start = whole[whole != EMPTY], int((agent.library.intro[telling] != EMPTY).sum())
    hidden, _ = run(
        shapes,
        params,
        jnp.asarray(dense),
        jnp.arange(len(dense)),
        jnp.tril(jnp.ones((len(dense), len(dense)), bool)),
    )
    expected = np.asarray(token_log_probs(shapes, params, hidden[:-1], jnp.asarray(dense[1:])))[start - 1 :]
    found = np.asarray(agent.read(trajectory)[1])
    np.testing.assert_allclose(found[rows != EMPTY], expected, atol=2e-4)
    assert not found[rows == EMPTY].any()


def test_a_round_depends_on_what_was_seen_before_it_only():
    config = TINY.replace(reasoning=2)
    agent = agent_of(config)
    trajectory = jax.tree.map(lambda leaf: leaf[0, 0], play(agent, config))

    def later_round(rewards):
        return agent.read(dataclasses.replace(trajectory, rewards=rewards))[0]

    base = later_round(trajectory.rewards)
    for changed in range(HORIZON):
        other = later_round(trajectory.rewards.at[changed].set(1 - trajectory.rewards[changed]))
        np.testing.assert_allclose(other[: changed + 1], base[: changed + 1], atol=1e-6)
        assert changed == HORIZON - 1 or float(jnp.abs(other - base)[changed + 1 :].max()) > 1e-4


def test_a_dialogue_reads_as_it_should():
    config = TINY.replace(reasoning=2)
    agent = agent_of(config)
    trajectory = jax.tree.map(lambda leaf: leaf[1, 0], play(agent, config))
    telling = int(trajectory.notes.telling[0])
    rows = agent.rows(trajectory)
    for round in range(HORIZON):
        name = text_of(config, agent.library.answers[telling, int(trajectory.actions[round])])
        level = int(trajectory.rewards[round])
        told = text_of(config, agent.library.told[telling, int(trajectory.actions[round]), level])
        assert text_of(config, rows[round]).replace(" ", "").endswith(f"{name}{told}".replace(" ", ""))
    assert str(HORIZON) in text_of(config, agent.library.intro[telling])


def test_all_rollouts_of_a_scenario_are_told_alike_and_scenarios_differently():
    config = TINY
    tellings = np.asarray(play(agent_of(config), config, num_scenarios=12).notes.telling)
    assert (tellings == tellings[:, :1, :1]).all()
    assert set(tellings.ravel()) == {0, 1, 2}


@pytest.mark.parametrize("reasoning", [0, 3])
def test_prepared_rules_and_growing_caches_change_nothing(reasoning):
    config = TINY.replace(reasoning=reasoning)
    agent, keys = agent_of(config), jax.random.split(jax.random.key(3), 2)
    ready = agent.prepared(ARMS, HORIZON, keys)
    assert len(ready.read_before) == 2 < agent.library.num_tellings  # What nobody is told is not read.
    for key in keys:
        state = agent.begin(key, ARMS, HORIZON)
        for other in (ready.begin(key, ARMS, HORIZON), ready.grow(ready.begin(key, ARMS, 2), HORIZON)):
            assert jax.tree.map(jnp.shape, other) == jax.tree.map(jnp.shape, state)
            for new, old in zip(jax.tree.leaves(other), jax.tree.leaves(state), strict=True):
                np.testing.assert_allclose(new, old, atol=1e-5)


def test_branches_share_the_dialogue_before():
    config = TINY.replace(reasoning=3, answer="free", horizon=6)
    played = play(agent_of(config), config, branch_rounds=jnp.asarray([3, 0, 6]), block=2)
    written = np.asarray(played.notes.written)
    assert (written[0, 0, :3] == written[0, 1, :3]).all()
    assert (written[0, 0, 3:] != written[0, 1, 3:]).any()
    assert (written[1, 0, :1] != written[1, 1, :1]).any()
    assert (written[2, 0] == written[2, 1]).all()


def test_the_last_arm_named_counts():
    names = jnp.asarray([[5, EMPTY], [6, 7], [6, EMPTY]])

    def late(*tokens):
        return np.asarray(arm_named(jnp.asarray(tokens), names))

    assert np.argmax(late(5, 6, 5)) == 0
    assert np.argmax(late(5, 6, 7)) == 1, "of two names that begin at the same token, the longer one"
    assert np.argmax(late(6, 7, 6)) == 2
    assert np.argmax(late(9, 6, 9)) == 2
    assert (late(9, 7, 8) == 0).all()
    assert (late(EMPTY, EMPTY, EMPTY) == 0).all()


def test_free_answers_of_the_toy_are_played_as_they_are_written():
    config = TINY.replace(model="toy", answer="free", noise="beta", num_scenarios=8)
    agent = agent_of(config)
    played = play(agent, config, num_scenarios=8, num_rollouts=1)
    valid = 0
    for row in range(8):
        names = [text_of(config, name) for name in agent.library.answers[int(played.notes.telling[row, 0, 0])]]
        for round in range(HORIZON):
            said = text_of(config, played.notes.written[row, 0, round])
            found = {said.rfind(name): arm for arm, name in enumerate(names) if name in said}
            assert bool(played.notes.invalid[row, 0, round]) == (not found)
            if found:
                valid += 1
                assert int(played.actions[row, 0, round]) == found[max(found)]
                assert float(played.probabilities[row, 0, round, found[max(found)]]) == 1.0
    assert valid > 8


def test_an_answer_without_a_name_plays_any_arm():
    config = TINY.replace(answer="free", horizon=12)
    played = play(agent_of(config), config, num_scenarios=16)
    invalid = np.asarray(played.notes.invalid)
    actions = np.asarray(played.actions)[invalid]
    np.testing.assert_allclose(np.asarray(played.probabilities)[invalid], 1 / ARMS, rtol=1e-6)
    assert np.bincount(actions, minlength=ARMS).min() > len(actions) / ARMS / 2


def test_temperature_is_that_of_decisions_and_not_of_thoughts():
    config = TINY.replace(reasoning=3, answer="free")
    cold, warm = (
        play(dataclasses.replace(agent_of(config), temperature=at), config, num_scenarios=1, num_rollouts=8)
        for at in (1e-6, 1.0)
    )
    first, same = (np.asarray(one.notes.written)[0, :, 0, :3] for one in (cold, warm))
    np.testing.assert_array_equal(first, same)
    assert len(np.unique(first, axis=0)) > 1
    assert (np.asarray(cold.notes.log_probs)[..., 3:] > -1e-3).all(), "the likeliest words only"
    assert (np.asarray(warm.notes.log_probs)[..., 3:] < -1).any()

    chosen = TINY.replace(reasoning=3)
    cold = play(dataclasses.replace(agent_of(chosen), temperature=1e-6), chosen, num_scenarios=1, num_rollouts=8)
    assert float(jnp.max(cold.probabilities[:, :, 0], axis=-1).min()) > 0.999
    assert len(np.unique(np.asarray(cold.notes.written)[0, :, 0], axis=0)) > 1


@pytest.mark.parametrize(
    ("answer", "narration"),
    [
        ("choice", "template"),
        ("free", "none"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("choice", "none"), ("free", "template"))),
    ],
)
def test_other_agents_play_in_words(narration, answer):
    reasoning = 24 if narration == "template" else 0
    config = TINY.replace(
        objective="distillation",
        behavior="ucb1",
        narration=narration,
        reasoning=reasoning,
        answer=answer,
        branching="none",
    )
    config.validate()
    player = make_player(init(config, jax.random.key(0)))
    assert isinstance(player, Narrated)
    trajectory = jax.tree.map(lambda leaf: leaf[0, 0], play(player, config))
    agent = agent_of(config)
    rows = [text_of(config, row) for row in agent.rows(trajectory)]
    telling = int(trajectory.notes.telling[0])
    names = [text_of(config, row) for row in agent.library.answers[telling]]
    for round, row in enumerate(rows):
        assert names[int(trajectory.actions[round])] in row
    if narration == "template":
        past = np.asarray(trajectory.actions)[:ARMS], np.asarray(trajectory.rewards)[:ARMS]
        best = names[int(past[0][np.argmax(past[1])])]
        assert TEMPLATE.format(arm=best).strip() in rows[ARMS]
    outputs, log_probs = agent.read(trajectory)
    assert np.isfinite(np.asarray(log_probs)).all()
    played = jnp.take_along_axis(outputs, trajectory.actions[:, None], axis=-1)
    assert np.isfinite(np.asarray(played)).all()


def test_a_policy_of_adapters_keeps_the_model():
    config = TINY.replace(tuned="lora", lora_rank=2)
    state = init(config, jax.random.key(0))
    assert jax.tree.leaves(state.params)[0].shape[-1] == 2 or jax.tree.leaves(state.params)[0].shape[1] == 2
    lora, everything = make_agent(state), make_agent(init(TINY, jax.random.key(0)))
    assert isinstance(lora, LanguageAgent)
    trajectory = jax.tree.map(lambda leaf: leaf[0, 0], play(agent_of(TINY), TINY))
    np.testing.assert_allclose(lora.outputs(trajectory), everything.outputs(trajectory), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nonsense"}, "nonsense"),
        ({"answer_tokens": 0}, "answer_tokens=0"),
        ({"reasoning": -1}, "reasoning=-1"),
        ({"reasoning": 4000}, "reasoning=4000"),
        ({"num_tellings": 0}, "num_tellings=0"),
        ({"lora_rank": 0}, "lora_rank=0"),
        ({"lora_alpha": 0.0}, "lora_alpha=0"),
        ({"narration": "template"}, "narration='template' with reasoning=0"),
        ({"weights_dtype": "bfloat16"}, "weights_dtype='bfloat16' with tuned='all'"),
        ({"objective": "grpo", "k": 2, "imitated": "all"}, "imitated='own'"),
        ({"objective": "dpt", "imitated": "all"}, "imitated='own'"),
        ({"objective": "dpt", "answer": "free"}, "objective='dpt' with a policy that answers in text"),
        ({"objective": "regret_loss", "feedback": "full", "answer": "free"}, "answer='choice'"),
        ({"entropy_weight": 0.1, "answer": "free"}, "got entropy_weight=0.1"),
        ({"kl_weight": 0.1, "kl_reference": "initial", "answer": "free"}, "kl_weight=0.1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=r"need .*; try ") as error:
        TINY.replace(**changes).validate()
    assert message in str(error.value)


def test_dialogues_that_are_too_long_are_refused():
    with pytest.raises(ConfigError, match="at most its 4096; try history='summary'"):
        make_agent(init(TINY, jax.random.key(0))).init(ARMS, 4000)
    with pytest.raises(ConfigError, match="num_arms=5"):
        make_agent(init(TINY, jax.random.key(0))).init(5, HORIZON)


def test_names_that_share_a_token_are_refused():
    class Letters:
        vocab_size, pad, eos = 300, 0, 1
        start = ends = ()

        def encode(self, text):
            return [ord(letter) for letter in text]

        def decode(self, ids):
            return "".join(map(chr, ids))

    options = {"contexts": "trained", "num_tellings": 2, "history": "full", "reasoning": 0}
    with pytest.raises(ConfigError, match=r"whose names start with the same token, need .*; try answer='free'"):
        make_library(TINY.problem(), Letters(), free=0, **options)
    with pytest.raises(ConfigError, match=r"got answer_tokens=3, need room for the longest name"):
        make_library(TINY.problem(), Letters(), free=3, **options)
    make_library(TINY.problem(), Letters(), free=40, **options)


def test_a_policy_is_retold_for_other_sizes():
    agent = agent_of(TINY)
    other = agent.refitted(TINY.replace(num_arms=5, horizon=9).problem())
    assert other.num_arms == 5
    assert "9 rounds" in text_of(TINY, other.library.intro[0])
    assert isinstance(TINY.policy, Text)


def test_rewards_that_a_user_s_environment_makes_itself_are_told_as_they_are():
    class Own(Stationary):
        def draw_rewards(self, key, means):
            return means

    options: Any = {"contexts": "trained", "num_tellings": 2, "history": "full", "reasoning": 0, "free": 0}
    policy: Any = TINY.policy
    tokenizer = policy.loaded.tokenizer
    two, many = (
        make_library(Problem(kind(num_arms=2), 3), tokenizer, **options).told.shape[2] for kind in (Stationary, Own)
    )
    assert (two, many) == (2, 101)
