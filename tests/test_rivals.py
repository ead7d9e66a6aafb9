"""The rivals of RMFT, its controls and its levers against collapse, each against its definition."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import BanditTransformer, BetaThompson, FullInformationTransformer, Transformer, make_agents
from rmft_jax.config import ConfigError
from rmft_jax.method import rmft
from rmft_jax.method.advantages import grpo_advantages, regret_to_go, reinforce_advantages
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.objectives import GRPO, best_arm_loss
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import TrainState, abstract_state, init, make_agent, make_player
from rmft_jax.problems import Adaptive, Sinusoidal, Stationary, Trajectory
from rmft_jax.running.checkpoints import Checkpoints
from rmft_jax.running.history import History
from worlds import TINY_RUN

KEY = jax.random.key(0)
TINY = TINY_RUN.rmft
ARMS, HORIZON = 3, 5
FULL = TINY.replace(
    environment=Stationary(num_arms=3, feedback="full", prior="gaussian", noise="gaussian"),
    branching="none",
    entropy_weight=0.0,
)
DRIFT = Sinusoidal(num_arms=2)
ALL_KEPT = TINY.replace(k=TINY.num_rollouts)


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
    kept = KeptBatch(row, jnp.ones(HORIZON), jnp.asarray(advantages))
    losses, ratios = GRPO().losses(OUTPUTS, kept, RMFTConfig()), []
    for t, action in enumerate(np.asarray(row.actions)):
        ratio = np.exp(log_probs[t, action]) / float(row.probabilities[t, action])
        ratios.append(ratio)
        expected = -min(ratio * advantages[t], min(max(ratio, 0.8), 1.2) * advantages[t])
        assert float(losses[t]) == pytest.approx(expected, rel=1e-5)
    assert min(ratios) < 0.8, "the test must meet the clipping"
    assert max(ratios) > 1.2


@pytest.mark.parametrize("decision_map", ["softmax", "ball"])
def test_the_regret_loss_is_the_squared_regret_of_the_policy(decision_map):
    config = FULL.replace(objective="regret_loss", decision_map=decision_map, horizon=HORIZON)
    if decision_map == "ball":
        config = config.replace(radius=2.0)
    agent = config.agent(config.init_params(KEY))
    assert isinstance(agent, FullInformationTransformer)
    row = past()
    z, table = np.asarray(agent.outputs(row), np.float64), np.asarray(row.reward_table, np.float64)
    if decision_map == "softmax":
        regret = table.sum(0).max() - (np.exp(log_softmax(z)) * table).sum()
    else:
        points = z * np.minimum(1.0, 2.0 / np.linalg.norm(z, axis=-1, keepdims=True))
        regret = 2.0 * np.linalg.norm(table.sum(0)) - (points * table).sum()
    assert regret > 0
    losses = round_losses(config, agent, row)
    np.testing.assert_allclose(losses, np.full(HORIZON, regret**2 / HORIZON), rtol=1e-4)


@jax.jit
def round_losses(config, agent, row, advantages=None, reference=None):
    kept = KeptBatch(row, jnp.ones(len(row.actions)), advantages)
    return config.objective.round_losses(config, agent, kept, reference)


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
    found = reinforce_advantages(jnp.asarray(regret), jnp.asarray(final), jnp.ones(regret.shape, bool))
    np.testing.assert_allclose(found, slow / np.sqrt((slow**2).mean()), rtol=1e-4, atol=1e-5)
    z = -(final - final.mean(1, keepdims=True)) / final.std(1, keepdims=True)
    expected = np.repeat(z[..., None], HORIZON, axis=-1)
    np.testing.assert_allclose(grpo_advantages(jnp.asarray(regret), jnp.asarray(final)), expected, rtol=1e-3, atol=1e-5)
    ahead = regret_to_go(jnp.asarray(regret), jnp.asarray(final))
    np.testing.assert_allclose(ahead[..., 0], final, rtol=1e-6)
    np.testing.assert_allclose(ahead[..., -1], regret[..., -1] - regret[..., -2], rtol=1e-4)


def test_rounds_that_are_not_played_change_no_advantage():
    regret = jnp.asarray(np.cumsum(np.random.default_rng(2).uniform(0, 1, (4, 3, HORIZON)), axis=-1), jnp.float32)
    played = jnp.broadcast_to(jnp.arange(HORIZON) < HORIZON - 2, regret.shape)
    part, final = regret[..., :-2], regret[..., -3]
    alone = reinforce_advantages(part, final, jnp.ones(part.shape, bool))
    np.testing.assert_allclose(reinforce_advantages(regret, final, played)[..., :-2], alone, rtol=1e-5)


@pytest.mark.parametrize("num_rollouts", [3, 5, 6, 7, 10, 16])
def test_rollouts_that_fared_alike_teach_nothing(num_rollouts):
    """The mean of equal numbers may be rounded to another one, and the same pulls be summed in another order."""
    final = jnp.asarray(np.random.default_rng(0).uniform(0, 20, (200, 1)), jnp.float32)
    regret = jnp.broadcast_to(final[..., None], (200, num_rollouts, HORIZON))
    np.testing.assert_array_equal(grpo_advantages(regret, regret[..., -1]), 0.0)
    played = jnp.ones(regret.shape, bool)
    assert float(jnp.abs(reinforce_advantages(0.0 * regret, 0.0 * regret[..., -1], played)).max()) == 0.0
    rounded = regret[..., -1] * (1 + 1e-7 * jnp.arange(num_rollouts)[None, :])
    assert float(jnp.abs(grpo_advantages(regret, rounded)).max()) < 0.2


def test_the_policy_gradient_is_that_of_the_expected_regret():
    """One round, two arms: the gradient of the expected regret in the logits is p (1 - p) times the gap."""
    agent = BanditTransformer.create(KEY, Transformer(num_layers=1, width=8), 2, 1)
    config = ALL_KEPT.replace(environment=Stationary(num_arms=2), objective="reinforce", entropy_weight=0.0)
    bias = jnp.asarray([0.4, 0.0])
    p = float(jax.nn.softmax(bias)[0])
    draws = 40_000
    actions = jax.random.bernoulli(jax.random.key(3), 1 - p, (draws, 2, 1)).astype(jnp.int32)
    regret = actions.astype(jnp.float32) * 0.5  # Arm 1 loses half a unit.
    scaled = reinforce_advantages(regret, regret[..., -1], jnp.ones(regret.shape, bool))
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

    gradient = jax.jit(jax.grad(loss))(bias)
    assert float(gradient[1]) == pytest.approx(p * (1 - p) * 0.5, abs=4e-3)
    assert float(gradient[0]) == pytest.approx(-p * (1 - p) * 0.5, abs=4e-3)


def test_the_pull_towards_a_reference_is_its_divergence():
    agent = BanditTransformer.create(KEY, Transformer(num_layers=1, width=8), ARMS, HORIZON)
    other = BanditTransformer.create(jax.random.key(5), Transformer(num_layers=1, width=8), ARMS, HORIZON)
    row, config = past(), TINY.replace(entropy_weight=0.0)
    plain = np.asarray(round_losses(config, agent, row))
    log_probs = log_softmax(agent.outputs(row))
    for kind, target in (("previous", row.probabilities), ("initial", np.exp(log_softmax(other.outputs(row))))):
        config = config.replace(kl_reference=kind, kl_weight=0.7)
        pulled = round_losses(config, agent, row, reference=other if kind == "initial" else None)
        p = np.asarray(target, np.float64)
        np.testing.assert_allclose(pulled - plain, 0.7 * (p * (np.log(p) - log_probs)).sum(-1), rtol=1e-3, atol=1e-5)
    masked, config = past(mask=(True, False, True)), TINY.replace(kl_reference="previous", kl_weight=0.7)
    losses, gradient = jax.value_and_grad(
        lambda params: round_losses(config, dataclasses.replace(agent, params=params), masked).sum()
    )(agent.params)
    assert np.isfinite(losses)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


LEVERS = TINY.replace(kl_reference="initial", kl_weight=1.0, refresh_every=3)
OTHERS = {
    "dpt of its own play": TINY.replace(objective="dpt"),
    "full dpt": FULL.replace(objective="dpt"),
    "full reinforce": FULL.replace(objective="reinforce", k=TINY.num_rollouts),
}


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_every_rival_steps(config):
    """Those that no test below sees learning."""
    state = init(config, KEY)
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(3):
        state, metrics = rmft.iterate(state)
        assert np.isfinite(metrics.loss)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_chunk_carries_the_memory_as_its_iterations_do():
    state = init(LEVERS, KEY)
    chunked, metrics = rmft.iterate_chunk(init(LEVERS, KEY), 3)
    assert np.isfinite(metrics.loss).all()
    for _ in range(3):
        state, _ = rmft.iterate(state)
    chex.assert_trees_all_close(state.params, chunked.params, atol=1e-5)
    chex.assert_trees_all_close(state.memory, chunked.memory, atol=1e-5)


def test_the_memory_is_part_of_a_checkpoint(tmp_path):
    state, metrics = rmft.iterate_chunk(init(LEVERS, KEY), 3)
    history, first = History.fresh(1), functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf)[None])
    history.add_chunk(first(metrics), np.ones(1, bool))
    history.add_validation(3, np.zeros((1, 4)), first(state.params))
    store = Checkpoints(tmp_path, "whose they are")
    store.save(state, history)
    restored = store.restore(abstract_state(LEVERS))
    assert restored is not None
    chex.assert_trees_all_equal(restored[0].memory, state.memory)
    resumed, _ = rmft.iterate_chunk(restored[0], 3)
    state, _ = rmft.iterate_chunk(state, 3)
    chex.assert_trees_all_equal(resumed.memory, state.memory)


def probability_of_best(state: TrainState) -> float:
    """Mean probability of the best arm in the last round."""
    played = rmft.play(state)
    best = jnp.argmax(played.mean_rewards[..., -1, :], axis=-1)
    return float(jnp.mean(jnp.take_along_axis(played.probabilities[..., -1, :], best[..., None], axis=-1)))


@pytest.mark.parametrize(
    "objective",
    [
        "imitation",
        "grpo",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("distillation", "dpt", "reinforce")),
    ],
)
def test_every_rival_learns_which_arm_pays(objective):
    """A probe with a known answer: one arm always pays, the other never."""
    changes = {
        "imitation": {"k": 1},
        "distillation": {"behavior": "thompson"},
        "dpt": {"behavior": "uniform"},
        "reinforce": {"k": 4},
        "grpo": {"k": 4},
    }[objective]
    config = TINY.replace(
        environment=Stationary(num_arms=2, prior="fixed_gap", gap=1.0),
        policy=Transformer(num_layers=1, width=16),
        objective=objective,
        num_iterations=60,
        num_scenarios=64,
        branching="none",
        step_size=1e-2,
        **changes,
    )
    state, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert np.isfinite(metrics.loss).all()
    plain = dataclasses.replace(state.config, objective=TINY.objective)  # The policy plays, whoever played before.
    assert probability_of_best(dataclasses.replace(state, config=plain)) > 0.85


def test_the_regret_loss_learns_to_follow_what_it_is_shown():
    environment = Stationary(num_arms=2, feedback="full", prior="fixed_gap", gap=1.0, noise="none")
    config = FULL.replace(environment=environment, objective="regret_loss", step_size=1e-2, num_iterations=60)
    _, metrics = rmft.iterate_chunk(init(config, KEY), 60)
    assert metrics.regret[-5:].mean() < 0.6 * metrics.regret[0]


def test_the_behavior_plays_the_rollouts():
    config = TINY.replace(objective="distillation", branching="none")
    state = init(config, KEY)
    assert isinstance(make_player(state), BetaThompson)
    played = rmft.play(state)
    np.testing.assert_array_equal(jnp.max(played.probabilities, axis=-1), 1.0)  # Point masses, unlike a network's.
    assert isinstance(make_agent(state), BanditTransformer)


@pytest.mark.parametrize(
    "behavior",
    [
        "gittins",
        "kl_ucb",
        "best_arm",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("posterior_index", "bayes_optimal", "moss")),
    ],
)
def test_any_agent_that_fits_may_play_the_rollouts(behavior):
    """As it plays outside of training, on the same scenarios."""
    config = TINY.replace(objective="dpt", behavior=behavior, branching="none", num_arms=2)
    state = init(config, KEY)
    (agent,) = make_agents(config.problem(), [behavior]).values()
    assert jax.tree.structure(make_player(state)) == jax.tree.structure(agent)
    _, metrics = rmft.iterate(state)
    assert np.isfinite(metrics.loss)


def play_of(params, state: TrainState) -> Trajectory:
    """What the rollouts of the coming iteration are if these weights play them."""
    other = dataclasses.replace(state, params=params, memory=dataclasses.replace(state.memory, player=None))
    return rmft.play(other)


def test_a_single_round_plays_with_the_initial_policy():
    config = TINY.replace(refresh_every=2, step_size=0.05)
    state = init(config, KEY)
    initial = jax.tree.map(jnp.copy, state.params)
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(initial, state))
    assert np.abs(rmft.play(state).probabilities - play_of(state.params, state).probabilities).max() > 1e-3
    state, _ = rmft.iterate(state)
    chex.assert_trees_all_equal(rmft.play(state), play_of(state.params, state))


BAD = [
    (
        TINY,
        {"objective": "distillation", "behavior": "policy"},
        "need another agent to imitate; try behavior='thompson'",
    ),
    (TINY, {"behavior": "ucb1"}, "got behavior with objective 'imitation', need distillation or dpt, which has it"),
    (
        FULL,
        {"objective": "dpt", "behavior": "uniform"},
        "feedback='full' and noise='gaussian', need a Transformer under bandit feedback",
    ),
    (TINY, {"objective": "reinforce"}, "with k=2, num_rollouts=4 and selection='regret', need all of at least two"),
    (
        ALL_KEPT,
        {"objective": "reinforce", "selection": "random"},
        "with k=4, num_rollouts=4 and selection='random', need all of at least two",
    ),
    (ALL_KEPT, {"objective": "grpo", "temperature": 2.0}, "need rollouts of the policy as it is; try temperature=1"),
    (ALL_KEPT, {"objective": "grpo", "refresh_every": 2}, "and refresh_every=2, need rollouts of the policy as it is"),
    (FULL, {"objective": "grpo", "k": 4}, "need probabilities of actions, whose ratio it clips"),
    (TINY, {"objective": "regret_loss"}, "with feedback='bandit', need rewards that are seen whole"),
    (
        FULL,
        {"objective": "regret_loss", "environment": Adaptive(feedback="full")},
        "and rewards that react to play, need",
    ),
    (
        FULL,
        {"objective": "regret_loss", "branching": "uniform"},
        "need the regret of all rounds; try branching='none'",
    ),
    (FULL, {"objective": "dpt", "decision_map": "ball"}, "need arms, of which one is the best"),
    (
        FULL,
        {"objective": "dpt", "policy": "single_layer", "update": "least_squares"},
        "need the imitation of what was just kept",
    ),
    (TINY, {"kl_reference": "previous"}, "got kl_reference='previous' with kl_weight=0.0, need both or neither"),
    (TINY, {"kl_weight": 0.1}, "got kl_reference='none' with kl_weight=0.1, need both or neither"),
    (
        FULL,
        {"kl_reference": "initial", "kl_weight": 0.1},
        "need a policy that plays arms under bandit feedback",
    ),
    (
        TINY,
        {"objective": "dpt", "behavior": "ucb1", "kl_reference": "previous", "kl_weight": 0.1},
        "need a policy that plays arms under bandit feedback",
    ),
    (TINY, {"kl_reference": "previous", "kl_weight": -1.0}, "got kl_weight=-1.0, need a finite number of at least 0"),
    (TINY, {"kl_reference": "last"}, "got kl_reference='last', need one of none, previous, initial"),
    (TINY, {"objective": "dpt", "behavior": "oracle"}, "got behavior='oracle', need policy or one of ucb1"),
    (TINY, {"objective": "dpt", "behavior": "hedge"}, "got agent 'hedge' for Stationary under 'bandit' feedback"),
    (TINY, {"objective": "dpt", "behavior": "best_fixed_arm"}, "best_arm; try 'best_arm'"),
    (
        TINY.replace(num_arms=2),
        {"objective": "dpt", "behavior": "discounted_thompson", "environment": DRIFT},
        "got behavior='discounted_thompson' in 'sinusoidal', whose settings it is made from, need an agent that can be",
    ),
    (TINY, {"refresh_every": 0}, "got refresh_every=0, need a whole number of at least 1"),
    (TINY, {"k": 1, "num_minibatches": 3}, "with num_scenarios*k=8*1=8, need a number of minibatches that divides"),
]


@pytest.mark.parametrize(("base", "changes", "message"), BAD, ids=[message[:50] for *_, message in BAD])
def test_what_does_not_go_together_is_refused(base, changes, message):
    with pytest.raises(ConfigError) as error:
        base.replace(**changes).validate()
    assert message in str(error.value)
    assert "; try " in str(error.value)
