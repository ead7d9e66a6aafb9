"""The PyTorch contender plays and learns what the package does: its speed may be compared."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmft_jax.agents import Transformer
from rmft_jax.config import ConfigError, Params
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.problems import Abrupt, Stationary

torch = pytest.importorskip("torch")

from experiments.benchmarks.contenders.pytorch import PyTorchContender, step_size  # noqa: E402

POLICY = Transformer(num_layers=2, width=8, num_heads=2)
CONFIG = RMFTConfig(
    environment=Stationary(num_arms=3),
    policy=POLICY,
    horizon=12,
    num_iterations=30,
    num_scenarios=8,
    num_rollouts=4,
    rollout_block=8,
).replace(k=1, num_minibatches=2, update_block=2)
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def contender(**changes: object) -> PyTorchContender:
    return PyTorchContender(CONFIG.replace(**changes), device="cpu")


def perturbed(params: Params) -> Params:
    """Weights as NumPy arrays, none of them as simple as at the start."""
    generator = np.random.default_rng(5)
    return jax.tree.map(lambda x: np.asarray(x) + generator.normal(0, 0.3, x.shape).astype(np.float32), params)


def teacher_forced(player: PyTorchContender) -> np.ndarray:
    return player.outputs(player.actions.T.numpy(), player.rewards.T.numpy()).numpy()


@pytest.mark.parametrize("layers", [1, 2])
def test_logits_are_those_of_the_package(layers):
    policy = dataclasses.replace(POLICY, num_layers=layers, mlp_ratio=layers + 1)
    player = contender(policy=policy)
    state = init(player.config, jax.random.key(0))
    params = perturbed(state.params)
    agent = player.config.agent(params)
    played = play_scenarios(agent, player.config.problem(), jax.random.key(1), 5)
    player.load(params)
    expected = jax.vmap(agent.outputs)(played)
    assert np.std(expected) > 0.1
    outputs = player.outputs(np.asarray(played.actions), np.asarray(played.rewards))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=[NEEDS_COMPILER, pytest.mark.slow])])
def test_cached_play_equals_teacher_forcing(compiled):
    player = PyTorchContender(CONFIG, device="cpu", compiled=compiled)
    player.load(perturbed(init(CONFIG, jax.random.key(0)).params))
    player.rollout()
    np.testing.assert_allclose(player.logits.transpose(0, 1), teacher_forced(player), atol=1e-4)
    assert player.logits.shape == (12, 32, 3)
    player.iteration()
    assert np.abs(teacher_forced(player) - player.logits.transpose(0, 1).numpy()).max() > 1e-4


def test_play_follows_its_laws():
    player = contender(num_scenarios=512, num_rollouts=8, temperature=2.0, branching="none", rollout_block=0)
    params = init(player.config, jax.random.key(0)).params
    params["out"]["bias"] = np.asarray([1.0, 0.0, -1.0], np.float32)
    params["out"]["kernel"] = np.zeros((8, 3), np.float32)
    player.load(params)
    player.rollout()
    actions, size = player.actions.numpy(), player.actions.numel()
    probabilities = np.exp([0.5, 0.0, -0.5]) / np.exp([0.5, 0.0, -0.5]).sum()
    np.testing.assert_allclose(np.bincount(actions.ravel()) / size, probabilities, atol=4 * 0.5 / size**0.5)
    means = player.means.repeat_interleave(8, 0).numpy()
    assert 0.45 < means.mean() < 0.55
    expected = np.take_along_axis(means, actions.T, 1)
    errors = (player.rewards.T.numpy() - expected).ravel()
    assert set(np.unique(player.rewards)) == {0.0, 1.0}
    np.testing.assert_allclose(errors.mean(), 0, atol=4 * errors.std() / size**0.5)
    assert np.cov(player.rewards.T.numpy().ravel(), expected.ravel())[0, 1] == pytest.approx(1 / 12, abs=0.01)


def test_rollouts_share_the_past_up_to_the_branch_round():
    player = contender(num_scenarios=32, horizon=30)
    player.rollout()
    actions = player.actions.view(30, 32, 4)
    rewards = player.rewards.view(30, 32, 4)
    branches = player.branch_rounds.tolist()
    assert len(set(branches)) > 5
    for scenario, branch in enumerate(branches):
        past = actions[:branch, scenario], rewards[:branch, scenario]
        assert all((x == x[:, :1]).all() for x in past)
    differ = [(actions[b:, s] != actions[b:, s, :1]).any() for s, b in enumerate(branches) if b < 25]
    assert all(differ)


def test_rollouts_may_share_the_reward_noise():
    player = contender(num_scenarios=32, horizon=30, branching="none", shared_reward_noise=True)
    player.rollout()
    actions, rewards = player.actions.view(30, 32, 4), player.rewards.view(30, 32, 4)
    for rollout in (1, 2, 3):
        same = actions[..., 0] == actions[..., rollout]
        assert 0.1 < same.float().mean() < 0.9
        assert (rewards[..., 0] == rewards[..., rollout])[same].all()


def test_play_depends_on_the_seed_and_not_on_threads():
    first, second, other = (PyTorchContender(CONFIG, seed=seed, device="cpu") for seed in (1, 1, 2))
    second._map = map
    for player in (first, second, other):
        player.iteration()
        player.rollout()
    assert (first.actions == second.actions).all()
    assert (first.actions != other.actions).any()


def test_an_update_is_that_of_the_package():
    """One step on everything kept, from the same trajectories."""
    player = contender(num_minibatches=1, entropy_weight=0.1, step_size=1e-3, max_grad_norm=0.05)
    state = init(player.config, jax.random.key(0))
    state = dataclasses.replace(state, params=perturbed(state.params))
    agent = make_agent(state)
    played = play_scenarios(agent, player.config.problem(), jax.random.key(1), 8)
    weights = (jnp.arange(12)[None] >= jnp.arange(8)[:, None]).astype(jnp.float32)
    after, _ = state.config.update.fine_tune(state, KeptBatch(played, weights), jax.random.key(2))

    player.load(state.params)
    actions, rewards, weights = (torch.tensor(np.asarray(x)) for x in (played.actions, played.rewards, weights))
    player.update(actions.long(), rewards, weights)
    expected = contender()
    expected.load(jax.tree.map(np.asarray, after.params))
    for name, value in player.params.items():
        np.testing.assert_allclose(value.detach(), expected.params[name].detach(), atol=2e-5, err_msg=name)


def test_iterations_lower_regret():
    player = contender(num_scenarios=64, num_rollouts=8, k=2, horizon=20, rollout_block=0, step_size=1e-2)
    start = {name: value.detach().clone() for name, value in player.params.items()}
    regrets = []
    for _ in range(30):
        player.iteration()
        regrets.append(float(player.regret.mean()))
    assert all((value != start[name]).any() for name, value in player.params.items())
    assert np.mean(regrets[-5:]) < 0.9 * np.mean(regrets[:5])
    assert (player.regret >= -1e-4).all()


@pytest.mark.parametrize("steps", [GradientSteps(), GradientSteps(num_epochs=2, schedule="constant")])
def test_step_sizes_are_those_of_the_package(steps):
    total = 30 * steps.num_epochs * steps.num_minibatches
    law = optax.cosine_decay_schedule(steps.step_size, total) if steps.schedule == "cosine" else lambda _: 2e-3
    for update in (0, 1, total // 2, total - 1, total, total + 1):
        assert step_size(steps, 30, update) == pytest.approx(np.asarray(law(update)), abs=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": Abrupt(num_arms=3)},
        {"environment": Stationary(num_arms=3, noise="gaussian")},
        {"policy": dataclasses.replace(POLICY, position="alibi")},
        {"policy": dataclasses.replace(POLICY, arms="token")},
        {"selection": "random"},
    ],
)
def test_other_settings_are_refused(changes):
    with pytest.raises(ConfigError, match="all that this contender knows"):
        contender(**changes)
