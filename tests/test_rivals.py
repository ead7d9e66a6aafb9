"""The rivals of RMFT, its controls and its levers against collapse, each against its definition."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import TINY_RUN

from rmft_jax import rmft
from rmft_jax.advantages import grpo_advantages, regret_to_go, reinforce_advantages
from rmft_jax.agents import BanditTransformer, BetaThompson, FullInformationTransformer, ScoreMap
from rmft_jax.checkpoints import Checkpoints, Progress
from rmft_jax.config import (
    AdaptiveConfig,
    BanditConfig,
    ConfigError,
    RMFTConfig,
    SingleLayerConfig,
    TransformerConfig,
)
from rmft_jax.devices import ALONE
from rmft_jax.objectives import best_arm_loss, clipped_loss, regret_loss, round_losses
from rmft_jax.types import TrainState, Trajectory

KEY = jax.random.key(0)
TINY = TINY_RUN.rmft
ARMS, HORIZON = 3, 5


def with_(config: RMFTConfig = TINY, **changes) -> RMFTConfig:
    return dataclasses.replace(config, **changes)


FULL = with_(
    environment=BanditConfig(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    branching="none",
    entropy_weight=0.0,
)
ALL_KEPT: Any = {"k": TINY.num_rollouts}


def past(seed: int = 0, mask=(True, True, True), means=None) -> Trajectory:
    """A trajectory that nobody played."""
    rng = np.random.default_rng(seed)
    present = np.asarray(mask)
    arms = np.flatnonzero(present)
    table, means_, scores = (np.where(present, rng.normal(size=(HORIZON, ARMS)), 0.0) for _ in range(3))
    weights = np.where(present, rng.uniform(0.5, 1.0, (HORIZON, ARMS)), 0.0)
    actions = rng.choice(arms, HORIZON)
    arrays = (
        table[np.arange(HORIZON), actions],
        weights / weights.sum(-1, keepdims=True),
        means_ if means is None else means,
        table,
        scores,
    )
    return Trajectory(jnp.asarray(actions), *(jnp.asarray(a, jnp.float32) for a in arrays), arm_mask=jnp.asarray(mask))


def log_softmax(outputs) -> np.ndarray:
    outputs = np.asarray(outputs, np.float64)
    return outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))


OUTPUTS = jnp.asarray(np.random.default_rng(9).normal(size=(HORIZON, ARMS)), jnp.float32)


def test_the_best_arm_is_that_of_the_round_or_that_in_hindsight():
    row, log_probs = past(), log_softmax(OUTPUTS)
    per_round = [-log_probs[t, np.argmax(row.mean_rewards[t])] for t in range(HORIZON)]
    np.testing.assert_allclose(best_arm_loss(OUTPUTS, row), per_round, rtol=1e-5)
    best = int(np.argmax(np.asarray(row.reward_table).sum(0)))
    np.testing.assert_allclose(best_arm_loss(OUTPUTS, row, in_hindsight=True), -log_probs[:, best], rtol=1e-5)


def test_an_absent_arm_is_never_the_best():
    means = np.tile([-1.0, 0.0, -2.0], (HORIZON, 1))  # What is absent holds 0.
    row = past(mask=(True, False, True), means=means)
    outputs = jnp.where(row.arm_mask, OUTPUTS, -jnp.inf)
    np.testing.assert_allclose(best_arm_loss(outputs, row), -log_softmax(outputs)[:, 0], rtol=1e-5)


def test_the_clipped_loss_equals_its_slow_twin():
    row, log_probs = past(), log_softmax(OUTPUTS)
    advantages = np.asarray([2.0, -1.0, 0.5, -3.0, 1.0])
    losses, ratios = clipped_loss(OUTPUTS, row, jnp.asarray(advantages)), []
    for t, action in enumerate(np.asarray(row.actions)):
        ratio = np.exp(log_probs[t, action]) / float(row.probabilities[t, action])
        ratios.append(ratio)
        expected = -min(ratio * advantages[t], min(max(ratio, 0.8), 1.2) * advantages[t])
        assert float(losses[t]) == pytest.approx(expected, rel=1e-5)
    assert min(ratios) < 0.8, "the test must meet the clipping"
    assert max(ratios) > 1.2


@pytest.mark.parametrize("decision_map", ["softmax", "ball"])
def test_the_regret_loss_is_the_squared_regret_of_the_policy(decision_map):
    agent = FullInformationTransformer.create(KEY, TransformerConfig(num_layers=1, width=8), ARMS, HORIZON)
    agent = dataclasses.replace(agent, score_map=ScoreMap(decision_map, 2.0))
    row = past()
    z, table = np.asarray(agent.outputs(row), np.float64), np.asarray(row.reward_table, np.float64)
    if decision_map == "softmax":
        regret = table.sum(0).max() - (np.exp(log_softmax(z)) * table).sum()
    else:
        points = z * np.minimum(1.0, 2.0 / np.linalg.norm(z, axis=-1, keepdims=True))
        regret = 2.0 * np.linalg.norm(table.sum(0)) - (points * table).sum()
    assert regret > 0
    np.testing.assert_allclose(regret_loss(agent, row), np.full(HORIZON, regret**2 / HORIZON), rtol=1e-4)


def slow_advantages(regret: np.ndarray) -> np.ndarray:
    num_scenarios, num_rollouts, horizon = regret.shape
    found = np.zeros(regret.shape)
    for m in range(num_scenarios):
        for i in range(num_rollouts):
            for t in range(horizon):
                ahead = [regret[m, j, -1] - (regret[m, j, t - 1] if t else 0.0) for j in range(num_rollouts)]
                others = [ahead[j] for j in range(num_rollouts) if j != i]
                found[m, i, t] = np.mean(others) - ahead[i]
    return found


def test_advantages_equal_their_slow_twins():
    regret = np.cumsum(np.random.default_rng(1).uniform(0, 1, (4, 3, HORIZON)), axis=-1)
    final = regret[..., -1]
    slow = slow_advantages(regret)
    found = reinforce_advantages(jnp.asarray(regret), jnp.asarray(final))
    np.testing.assert_allclose(found, slow / np.sqrt((slow**2).mean()), rtol=1e-4, atol=1e-5)
    z = -(final - final.mean(1, keepdims=True)) / final.std(1, keepdims=True)
    expected = np.repeat(z[..., None], HORIZON, axis=-1)
    np.testing.assert_allclose(grpo_advantages(jnp.asarray(regret), jnp.asarray(final)), expected, rtol=1e-3, atol=1e-5)
    ahead = regret_to_go(jnp.asarray(regret), jnp.asarray(final))
    np.testing.assert_allclose(ahead[..., 0], final, rtol=1e-6)
    np.testing.assert_allclose(ahead[..., -1], regret[..., -1] - regret[..., -2], rtol=1e-4)


def test_rollouts_that_fared_alike_teach_nothing():
    regret = jnp.ones((2, 3, HORIZON))
    for advantages in (reinforce_advantages(regret, regret[..., -1]), grpo_advantages(regret, regret[..., -1])):
        np.testing.assert_array_equal(advantages, 0.0)


def test_the_policy_gradient_is_that_of_the_expected_regret():
    """One round, two arms: the gradient of the expected regret in the logits is p (1 - p) times the gap."""
    agent = BanditTransformer.create(KEY, TransformerConfig(num_layers=1, width=8), 2, 1)
    config = with_(environment=BanditConfig(num_arms=2), objective="reinforce", entropy_weight=0.0)
    bias = jnp.asarray([0.4, 0.0])
    p = float(jax.nn.softmax(bias)[0])
    draws = 40_000
    actions = jax.random.bernoulli(jax.random.key(3), 1 - p, (draws, 2, 1)).astype(jnp.int32)
    regret = actions.astype(jnp.float32) * 0.5  # Arm 1 loses half a unit.
    scaled = reinforce_advantages(regret, regret[..., -1])
    plain = (jnp.mean(regret, 1, keepdims=True) - regret) * 2
    scale = float(jnp.sqrt(jnp.mean(plain**2)))

    def loss(bias):
        head = {"kernel": jnp.zeros_like(agent.params["out"]["kernel"]), "bias": bias}
        learner = dataclasses.replace(agent, params=agent.params | {"out": head})

        def one(actions, advantages):
            table = jnp.zeros((1, 2))
            row = Trajectory(actions, jnp.zeros(1), table, table, table, None, jnp.ones(2, bool))
            return round_losses(config, learner, row, advantages)[0]

        return jnp.mean(jax.vmap(one)(actions.reshape(-1, 1), scaled.reshape(-1, 1))) * scale

    gradient = jax.grad(loss)(bias)
    assert float(gradient[1]) == pytest.approx(p * (1 - p) * 0.5, abs=4e-3)
    assert float(gradient[0]) == pytest.approx(-p * (1 - p) * 0.5, abs=4e-3)


def test_the_pull_towards_a_reference_is_its_divergence():
    agent = BanditTransformer.create(KEY, TransformerConfig(num_layers=1, width=8), ARMS, HORIZON)
    other = BanditTransformer.create(jax.random.key(5), TransformerConfig(num_layers=1, width=8), ARMS, HORIZON)
    row, config = past(), with_(entropy_weight=0.0)
    plain = np.asarray(round_losses(config, agent, row))
    log_probs = log_softmax(agent.outputs(row))
    for kind, target in (("previous", row.probabilities), ("initial", np.exp(log_softmax(other.outputs(row))))):
        pulled = round_losses(
            with_(config, kl_reference=kind, kl_weight=0.7), agent, row, None, other if kind == "initial" else None
        )
        p = np.asarray(target, np.float64)
        np.testing.assert_allclose(pulled - plain, 0.7 * (p * (np.log(p) - log_probs)).sum(-1), rtol=1e-3, atol=1e-5)
    masked = past(mask=(True, False, True))
    losses, gradient = jax.value_and_grad(
        lambda params: round_losses(
            with_(kl_reference="previous", kl_weight=0.7), dataclasses.replace(agent, params=params), masked
        ).sum()
    )(agent.params)
    assert np.isfinite(losses)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


LEVERS = with_(kl_reference="initial", kl_weight=1.0, average_window=3, replay=2, refresh_every=3)
RIVALS = {
    "distillation": with_(objective="distillation", behavior="thompson", branching="none"),
    "dpt": with_(objective="dpt", behavior="uniform"),
    "dpt of its own play": with_(objective="dpt"),
    "reinforce": with_(objective="reinforce", **ALL_KEPT),
    "grpo": with_(objective="grpo", **ALL_KEPT),
    "regret-loss": with_(FULL, objective="regret_loss"),
    "full dpt": with_(FULL, objective="dpt"),
    "full reinforce": with_(FULL, objective="reinforce", **ALL_KEPT),
    "levers": LEVERS,
}


@pytest.mark.parametrize("config", RIVALS.values(), ids=RIVALS)
def test_every_rival_steps(config):
    state = rmft.init(config, KEY)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(3):
        state, metrics = rmft.iterate(state)
        assert np.isfinite(metrics.loss)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_chunk_carries_the_memory_as_its_iterations_do():
    state = rmft.init(LEVERS, KEY)
    chunked, _ = rmft.iterate_chunk(rmft.init(LEVERS, KEY), 3)
    for _ in range(3):
        state, _ = rmft.iterate(state)
    chex.assert_trees_all_close(state.params, chunked.params, atol=1e-5)
    chex.assert_trees_all_close(state.memory, chunked.memory, atol=1e-5)


def test_the_memory_is_part_of_a_checkpoint(tmp_path):
    state, _ = rmft.iterate_chunk(rmft.init(LEVERS, KEY), 2)
    store = Checkpoints(tmp_path)
    store.save(state, Progress(1.0, 1.0, 0.0, 0.0))
    restored = store.restore_last(rmft.abstract_state(LEVERS))
    store.close()
    assert restored is not None
    chex.assert_trees_all_equal(restored[0].memory, state.memory)
    resumed, _ = rmft.iterate_chunk(restored[0], 2)
    state, _ = rmft.iterate_chunk(state, 2)
    chex.assert_trees_all_equal(resumed.memory, state.memory)


def probability_of_best(state: TrainState) -> float:
    """Mean probability of the best arm in the last round."""
    played = rmft.play(state)
    best = jnp.argmax(played.mean_rewards[..., -1, :], axis=-1)
    return float(jnp.mean(jnp.take_along_axis(played.probabilities[..., -1, :], best[..., None], axis=-1)))


@pytest.mark.parametrize("objective", ["rmft", "distillation", "dpt", "reinforce", "grpo"])
def test_every_rival_learns_which_arm_pays(objective):
    """A probe with a known answer: one arm always pays, the other never."""
    changes = {
        "rmft": {"k": 1},
        "distillation": {"behavior": "thompson"},
        "dpt": {"behavior": "uniform"},
        "reinforce": {"k": 4},
        "grpo": {"k": 4},
    }[objective]
    config = RMFTConfig(
        environment=BanditConfig(num_arms=2, prior="fixed_gap", gap=1.0),
        policy=TransformerConfig(num_layers=1, width=16),
        objective=objective,
        horizon=6,
        num_iterations=60,
        num_scenarios=64,
        num_rollouts=4,
        num_minibatches=2,
        branching="none",
        step_size=1e-2,
        **changes,
    )
    state, _ = rmft.iterate_chunk(rmft.init(config, KEY), 60)
    state = dataclasses.replace(state, config=dataclasses.replace(state.config, behavior="policy"))
    assert probability_of_best(state) > 0.85


def test_the_regret_loss_learns_to_follow_what_it_is_shown():
    environment = BanditConfig(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none")
    config = with_(FULL, environment=environment, objective="regret_loss", step_size=1e-2, num_iterations=60)
    _, metrics = rmft.iterate_chunk(rmft.init(config, KEY), 60)
    assert metrics.regret[-5:].mean() < 0.6 * metrics.regret[0]


def test_the_behavior_plays_the_rollouts():
    config = with_(objective="distillation", behavior="thompson", branching="none")
    state = rmft.init(config, KEY)
    assert isinstance(rmft.make_player(state), BetaThompson)
    played = rmft.play(state)
    np.testing.assert_array_equal(jnp.max(played.probabilities, axis=-1), 1.0)  # Point masses, unlike a network's.
    assert isinstance(rmft.make_agent(state), BanditTransformer)


def play_of(params, state: TrainState) -> Trajectory:
    """What the rollouts of the coming iteration are if these weights play them."""
    other = dataclasses.replace(state, params=params, memory=dataclasses.replace(state.memory, player=None))
    return rmft.play(other)


def test_a_single_round_plays_with_the_initial_policy():
    config = with_(refresh_every=2, step_size=0.05)
    state = rmft.init(config, KEY)
    initial = jax.tree.map(jnp.copy, state.params)
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(initial, state))
    assert np.abs(rmft.play(state).probabilities - play_of(state.params, state).probabilities).max() > 1e-3
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(state.params, state))


def test_averaged_weights_are_evaluated_and_do_not_play():
    config, start = with_(average_window=4), rmft.init(TINY, KEY).params
    average = jax.tree.map(np.asarray, start)
    state = rmft.init(config, KEY)
    for _ in range(3):
        state, _ = rmft.iterate(state)
        newest = jax.tree.map(np.asarray, state.params)
        average = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, average, newest)
    chex.assert_trees_all_close(rmft.make_agent(state).params, average, atol=1e-6)
    plain, _ = rmft.iterate_chunk(rmft.init(TINY, KEY), 3)
    chex.assert_trees_all_close(state.params, plain.params, atol=1e-5)


def test_replay_holds_what_was_kept_newest_first():
    config = with_(replay=2)
    state, kept = rmft.init(config, KEY), []
    assert float(state.memory.replay.weights.sum()) == 0  # type: ignore[union-attr]
    for _ in range(3):
        played, branches = rmft._play(ALONE, state, None)
        kept.append(jax.tree.map(np.asarray, rmft._kept(ALONE, state, played, branches)[0]))
        state, _ = rmft.iterate(state)
    replay = state.memory.replay
    assert replay is not None
    for i, batch in enumerate((kept[2], kept[1])):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], replay), batch, atol=1e-5)


@pytest.mark.parametrize(("branching", "mean"), [("early", 1 / 3), ("uniform", 1 / 2), ("late", 2 / 3)])
def test_branch_rounds_have_the_law_of_their_name(branching, mean):
    config = with_(branching=branching, num_scenarios=4000, horizon=30, k=1, num_rollouts=1)
    _, rounds = jax.jit(lambda state: rmft._play(ALONE, state, None))(rmft.init(config, KEY))
    assert int(rounds.min()) == 0
    assert int(rounds.max()) == 29
    assert float((rounds.mean() + 0.5) / 30) == pytest.approx(mean, abs=0.02)


BAD = [
    (with_(objective="distillation"), "need another agent to imitate; try behavior='thompson'"),
    (with_(behavior="ucb1"), "got behavior='ucb1' with objective='rmft', need rollouts of the policy itself"),
    (
        with_(FULL, objective="dpt", behavior="uniform"),
        "feedback='full' and noise='gaussian', need a Transformer under bandit feedback",
    ),
    (with_(objective="reinforce"), "with k=2, num_rollouts=4 and selection='regret', need all of at least two"),
    (with_(objective="grpo", temperature=2.0, **ALL_KEPT), "need rollouts of the policy as it is; try temperature=1"),
    (with_(objective="grpo", replay=1, **ALL_KEPT), "and replay=1, need rollouts of the policy as it is"),
    (with_(FULL, objective="grpo", **ALL_KEPT), "need probabilities of actions, whose ratio it clips"),
    (
        with_(FULL, objective="reinforce", full_loss="cross_entropy", **ALL_KEPT),
        "full_loss='cross_entropy', need the likelihood of what was played",
    ),
    (with_(objective="regret_loss"), "with feedback='bandit', need rewards that are seen whole"),
    (
        with_(FULL, objective="regret_loss", environment=AdaptiveConfig(feedback="full")),
        "and rewards that react to play, need",
    ),
    (with_(FULL, objective="regret_loss", branching="uniform"), "need the regret of all rounds; try branching='none'"),
    (with_(FULL, objective="dpt", decision_map="ball"), "need arms, of which one is the best"),
    (
        with_(FULL, objective="dpt", policy=SingleLayerConfig(), update="least_squares"),
        "need the imitation of what was just kept",
    ),
    (with_(kl_reference="previous"), "got kl_reference='previous' with kl_weight=0.0, need both or neither"),
    (with_(kl_weight=0.1), "got kl_reference='none' with kl_weight=0.1, need both or neither"),
    (with_(FULL, kl_reference="initial", kl_weight=0.1), "need a policy that plays arms under bandit feedback"),
    (with_(kl_reference="previous", kl_weight=-1.0), "got kl_weight=-1.0, need a finite number of at least 0"),
    (with_(replay=-1), "got replay=-1, need a whole number of at least 0"),
    (with_(refresh_every=0), "got refresh_every=0, need a whole number of at least 1"),
    (with_(average_window=-2), "got average_window=-2"),
    (with_(replay=1, k=1, num_minibatches=3), "with num_scenarios*k=8*1=8 in 2 iterations, need a number"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_what_does_not_go_together_is_refused(config, message):
    with pytest.raises(ConfigError) as error:
        config.validate()
    assert message in str(error.value)
    assert "; try " in str(error.value)
