"""An environment, a policy, a rule of selection and an objective of a user, each as its base class asks for it."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from own import registers_restored
from rmft_jax.agents import BetaThompson, RecurrentPolicy, make_baselines
from rmft_jax.config import ConfigError, pytree
from rmft_jax.method import registers, rmft
from rmft_jax.method.contract import require_contract
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.judging import take_rollouts
from rmft_jax.method.objectives import Objective, action_loss, squared_error
from rmft_jax.method.selection import Selection
from rmft_jax.method.settings import RMFTConfig, RunConfig, from_dict
from rmft_jax.method.state import IterationKeys, init, make_agent
from rmft_jax.problems import Decision, Environment, Extent, ObliviousEnvironment, Outcome, Problem
from worlds import TINY_RUN

KEY = jax.random.key(0)


class Tide(ObliviousEnvironment):
    """Expected rewards that rise and fall in turn, slower where fewer rounds are played."""

    tide_height: float = 0.3
    num_tides: int = 2

    def path(self, key, arm_mask, round_mask):
        phase = jax.random.uniform(key, (self.num_arms,))
        turns = self.num_tides * jnp.arange(round_mask.shape[0]) / jnp.sum(round_mask)
        return 0.5 + self.tide_height * jnp.sin(2 * jnp.pi * (turns[:, None] + phase[None]))


@pytree
class Fatigue:
    """What arms are worth, and how often each was played."""

    worth: Any
    pulls: Any


class Tiring(Environment):
    """Arms that earn less the more often they were played."""

    recovery: float = 0.5

    @property
    def adaptive(self):
        return True

    def reset(self, key, arm_mask, round_mask):
        return Fatigue(jnp.where(arm_mask, jax.random.uniform(key, (self.num_arms,)), 0.0), jnp.zeros(self.num_arms))

    def mean_rewards(self, state, round):
        return state.worth * self.recovery**state.pulls

    def step(self, key, state, decision: Decision, round):
        means = self.mean_rewards(state, round)
        state = dataclasses.replace(state, pulls=state.pulls + jax.nn.one_hot(decision.action, self.num_arms))
        return state, Outcome(mean_rewards=means, rewards=self.draw_rewards(key, means))


class Cell(nnx.Module):
    """A gated recurrent unit and a layer that reads it."""

    def __init__(self, token_size: int, size: int, num_arms: int, rngs: nnx.Rngs):
        self.cell = nnx.GRUCell(token_size, size, rngs=rngs)
        self.out = nnx.Linear(size, num_arms, rngs=rngs)

    def __call__(self, memory, token):
        memory, seen = self.cell(memory, token)
        return memory, self.out(seen)


class SmallGRU(RecurrentPolicy):
    """A small recurrent network."""

    memory_size: int = 4

    def network(self, token_size, num_arms, rngs):
        return Cell(token_size, self.memory_size, num_arms, rngs)

    def memory(self):
        return jnp.zeros(self.memory_size)


class Typical(Selection):
    """The rollouts nearest to the mean regret of their scenario."""

    def keep(self, key, judged):
        distance = jnp.abs(judged.final - judged.final.mean(axis=1, keepdims=True))
        return jax.lax.top_k(-distance, self.k)[1]


class Rewarded(Objective):
    """Imitation of every decision in proportion to its reward."""

    floor: float = 0.1

    def losses(self, outputs, kept, config):
        decisions = squared_error if config.has_scores else action_loss
        return (self.floor + kept.trajectory.rewards) * decisions(outputs, kept.trajectory)


CLASSES = {"environment": Tide, "policy": SmallGRU, "selection": Typical, "objective": Rewarded}
OWN = TINY_RUN.rmft.replace(
    environment=Tide(num_arms=3), policy=SmallGRU(), selection=Typical(k=2), objective=Rewarded()
)
CASES = {
    "bandit": OWN,
    "full": OWN.replace(feedback="full", entropy_weight=0.0, exploration_std=1.0),
    "tiring": OWN.replace(environment=Tiring(num_arms=3, noise="none"), kl_reference="previous", kl_weight=0.1),
}
cases = pytest.mark.parametrize("name", CASES)


@functools.cache
def trained(name: str):
    """Two iterations."""
    return rmft.iterate_chunk(init(CASES[name], KEY), 2)


@cases
def test_two_iterations_run_and_change_every_parameter(name):
    state, metrics = trained(name)
    assert np.isfinite(jax.tree.leaves(metrics)).all()
    assert (metrics.grad_norm > 0).all()
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), init(CASES[name], KEY).params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-4, moved


@functools.cache
def played(name: str):
    """The rollouts of the third iteration, and what the selection keeps of them."""

    @jax.jit
    def play(state):
        keys, problem = IterationKeys.of(state), state.config.problem()
        rollouts, _ = rmft.play_rollouts(state, problem, keys)
        judged = rmft.judge(state.config, problem, rollouts)
        return judged, state.config.selection.keep(keys.selection, judged)

    return play(trained(name)[0])


def test_the_rule_of_selection_is_asked():
    judged, kept = played("bandit")
    final = np.asarray(judged.final, np.float64)
    distance = np.abs(final - final.mean(1, keepdims=True))
    np.testing.assert_allclose(
        np.take_along_axis(distance, np.asarray(kept), 1), np.sort(distance, 1)[:, :2], atol=1e-6
    )
    rest = take_rollouts(judged.final, kept)
    assert rest.shape == (16,)


def test_the_environment_sees_what_is_played():
    judged, _ = played("tiring")
    actions, means = np.asarray(judged.trajectory.actions), np.asarray(judged.trajectory.mean_rewards)
    before = np.cumsum(np.eye(3)[actions], axis=2) - np.eye(3)[actions]
    np.testing.assert_allclose(means, means[:, :, :1] * 0.5**before, rtol=1e-5)
    tide, _ = played("bandit")
    curve = np.asarray(tide.trajectory.mean_rewards)[0, 0] - 0.5
    np.testing.assert_allclose(curve[:3], curve[3:], atol=1e-5)  # Two tides in six rounds.


@cases
def test_the_gradient_of_the_objective_flows_to_every_parameter(name):
    state, (judged, kept) = trained(name)[0], played(name)
    own_rounds = jnp.ones((8, 6), bool)

    @jax.jit
    def gradient(state, judged, kept):
        config, data = state.config, rmft.training_data(state.config, judged, kept, own_rounds)

        def loss(params):
            return jnp.sum(jax.vmap(lambda row: config.objective.round_losses(config, config.agent(params), row))(data))

        return jax.value_and_grad(loss)(state.params)

    loss, gradients = gradient(state, judged, kept)
    assert np.isfinite(loss)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 1e-6, path


@cases
def test_outputs_of_a_given_past_are_those_in_play(name):
    state = trained(name)[0]

    @jax.jit
    def play_and_read(state):
        # Far from uniform, so that differences show.
        agent = make_agent(dataclasses.replace(state, params=jax.tree.map(lambda leaf: 3 * leaf, state.params)))
        rows = play_scenarios(agent, Problem(state.config.environment, 6, Extent(2, 5)), KEY, 20)
        return rows, jax.vmap(agent.outputs)(rows)

    rows, outputs = play_and_read(state)
    assert outputs.shape == (20, 6, 3)
    assert np.isneginf(outputs[..., 2]).all()
    if name == "full":
        np.testing.assert_allclose(rows.scores[..., :2], outputs[..., :2], atol=1e-5)
    np.testing.assert_allclose(rows.probabilities, jax.nn.softmax(outputs), atol=1e-5)
    assert np.abs(np.asarray(rows.probabilities)[..., :2] - 0.5).max() > 0.1
    assert (rows.actions < 2).all()
    for table in (rows.probabilities, rows.mean_rewards, rows.reward_table):
        assert (np.asarray(table)[..., 2] == 0).all()


@pytest.mark.parametrize("world", [Tide(num_arms=3), Tiring(num_arms=3)], ids=["tide", "tiring"])
def test_more_arms_and_rounds_that_are_not_in_use_change_nothing(world):
    problem = Problem(world, 6)

    @jax.jit
    def both(problem):
        wide = problem.of_size(5, 9)
        return [(rows, p.regret.final(rows)) for p in (problem, wide) for rows in [play_scenarios(agent, p, KEY, 20)]]

    agent = BetaThompson()
    (own, regret), (wide, same) = both(problem)
    np.testing.assert_array_equal(wide.actions[:, :6], own.actions)
    np.testing.assert_allclose(wide.mean_rewards[:, :6, :3], own.mean_rewards, atol=1e-6)
    np.testing.assert_allclose(wide.reward_table[:, :6, :3], own.reward_table, atol=1e-6)
    np.testing.assert_allclose(same, regret, atol=1e-5)
    assert (np.asarray(wide.mean_rewards)[..., 3:] == 0).all()


def test_arms_and_rounds_that_are_not_in_use_are_not_learned_from():
    """Whatever happens in them: a world that differs there alone trains the same weights."""

    class Shifted(Tide):
        """Differs beyond the first four rounds and the first two arms."""

        shift: float = 0.0

        def path(self, key, arm_mask, round_mask):
            beyond = ~(arm_mask[None, :] & round_mask[:, None])
            return super().path(key, arm_mask, round_mask) + jnp.where(beyond, self.shift, 0.0)

    def after(shift: float):
        state = init(OWN.replace(environment=Shifted(num_arms=3, noise="none", shift=shift)), KEY)
        return rmft.iterate(state, Extent(jnp.asarray(2), jnp.asarray(4)))

    (state, metrics), (other, same) = after(0.0), after(5.0)
    jax.tree.map(np.testing.assert_array_equal, state.params, other.params)
    jax.tree.map(np.testing.assert_array_equal, metrics, same)


def test_by_their_names_they_are_found_written_down_and_read_again():
    with registers_restored():
        for kind, cls in CLASSES.items():
            getattr(registers, f"register_{kind}")(f"my_{kind}")(cls)
        config = TINY_RUN.replace(**{kind: f"my_{kind}" for kind in CLASSES}, num_arms=3, memory_size=5, floor=1)
        assert config.rmft == OWN.replace(memory_size=5, floor=1.0)
        assert from_dict(json.loads(json.dumps(config.flat()))) == config
        assert "thompson" in make_baselines(config.rmft.problem())
    with pytest.raises(ConfigError, match="got environment 'my_environment', need one of"):
        RunConfig().replace(environment="my_environment")


# What returns something else than its base class says is refused before anything compiles.


def changed(method: str, change: Callable[..., Any], base: type) -> Any:
    """A class like another one, in which a method's result is changed."""
    original = getattr(base, method)
    return type("Mine", (base,), {"__module__": "users", method: lambda self, *args: change(original(self, *args))})


WRONG: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "path": (Tide, "path", lambda path: path[0], "got a path of shape (3,) from Mine, need (n, 3), one row per round"),
    "few arms": (Tide, "path", lambda path: path[:, :2], "got a path of shape (6, 2) from Mine, need (n, 3)"),
    "means": (
        Tiring,
        "mean_rewards",
        lambda means: means[:2],
        "got mean_rewards from Mine of shape (2,), need one entry per arm, (3,); try returning one entry per arm",
    ),
    "state": (
        Tiring,
        "step",
        lambda made: (dataclasses.replace(made[0], pulls=made[0].pulls[:2]), made[1]),
        "got a state of float32[3], float32[2] from step of Mine, need float32[3], float32[3], as reset returns",
    ),
    "outputs": (
        SmallGRU,
        "network",
        lambda network: (setattr(network, "out", nnx.Linear(4, 2, rngs=nnx.Rngs(0))), network)[1],
        "got outputs of shape (2,) from the network of Mine, need one per arm, (3,); try a last layer of num_arms outp",
    ),
    "memory": (SmallGRU, "memory", lambda memory: memory[:2], "got policy 'Mine' (TypeError: "),
    "a single number": (
        Typical,
        "keep",
        lambda kept: kept[:, 0],
        "got an array int32[8] of kept rollouts from Mine, need their numbers, of shape (8, 2) or (1, 16); try",
    ),
    "too few": (Typical, "keep", lambda kept: kept[:, :1], "got an array int32[8, 1] of kept rollouts from Mine, need"),
    "a mask": (
        Typical,
        "keep",
        lambda kept: kept > 0,
        "got an array bool[8, 2] of kept rollouts from Mine, need their",
    ),
    "a mean": (
        Rewarded,
        "losses",
        jnp.mean,
        "got losses from Mine of shape (), need one per round, (6,); try no mean over rounds",
    ),
    "losses of arms": (
        Rewarded,
        "losses",
        lambda losses: jnp.stack([losses] * 3, axis=1),
        "of shape (6, 3), need one per",
    ),
}


def alone(part: Any) -> RMFTConfig:
    """With nothing else that is not this package's."""
    return TINY_RUN.rmft.replace(num_arms=3).replace(**{part.kind: part})


@pytest.mark.parametrize("case", WRONG)
def test_wrong_shapes_are_refused_in_one_line_before_anything_compiles(case, caplog):
    base, method, change, message = WRONG[case]
    cls: Any = changed(method, change, base)
    config = alone(cls(num_arms=3) if issubclass(base, Environment) else cls())
    with jax.log_compiles(), pytest.raises(ConfigError) as error:
        require_contract(config)
    assert "XLA compilation" not in caplog.text
    assert message in str(error.value)
    assert "; try " in str(error.value)
    assert "\n" not in str(error.value)


@cases
def test_what_keeps_its_contract_is_not_refused(name):
    require_contract(CASES[name])


def test_advantages_of_a_wrong_shape_are_refused():
    class Weighed(Rewarded):
        """Says one weight for a rollout."""

        def advantages(self, judged):
            return judged.final

    with pytest.raises(ConfigError) as error:
        require_contract(alone(Weighed()))
    assert str(error.value) == (
        "got advantages from Weighed of shape (8, 4), need one for every decision, (8, 4, 6); try jnp.broadcast_to"
    )


@pytest.mark.parametrize(("number", "told"), [(-1, "-1"), (4, "4"), (10**6, "1000000")])
def test_rollouts_that_are_none_are_refused(number, told):
    class Astray(Selection):
        """Keeps what nobody played."""

        def keep(self, key, judged):
            return jnp.full((judged.final.shape[0], self.k), number)

    with pytest.raises(ConfigError) as error:
        require_contract(alone(Astray()))
    assert str(error.value).startswith(f"got rollout [{told}] from Astray, need numbers of 0 to 3; try jax.lax.top_k")


def test_losses_are_told_which_decisions_count():
    class Counted(Rewarded):
        """The weight itself."""

        def losses(self, outputs, kept, config):
            return kept.weights + 0.0 * outputs[:, 0]

    _, metrics = rmft.iterate(init(alone(Counted(entropy_weight=0.0)), KEY))
    assert float(metrics.loss) == pytest.approx(1.0, rel=1e-6)
