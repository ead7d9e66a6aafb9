"""Iterative regret-minimization fine-tuning (Park, Chen, Ozdaglar, Zhang 2025), on one page.

Each iteration draws M scenarios, lets the current policy play each of them L times, keeps the k trajectories of
lowest regret per scenario, and fine-tunes the policy on them by maximum likelihood of its own decisions. No expert is
imitated. An iteration is one compiled call; so is a chunk of n of them.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rmft_jax import diagnostics
from rmft_jax.agents import BanditTransformer, FullInformationTransformer, TransformerAgent
from rmft_jax.config import RMFTConfig
from rmft_jax.environments import make_environment
from rmft_jax.growth import half_horizon
from rmft_jax.objectives import action_loss, entropy, policy_loss, squared_error
from rmft_jax.regret import Regret
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.selection import select_lowest, take_rollouts
from rmft_jax.types import IterationMetrics, KeptBatch, Params, ScalarKey, TrainState, Trajectory


def init(config: RMFTConfig, key: ScalarKey) -> TrainState:
    """A policy with random weights, ready for the first iteration.

    Raises:
      ConfigError: if the configuration cannot work.
    """
    config.validate()
    params_key, train_key = jax.random.split(key)
    kind = FullInformationTransformer if config.environment.feedback == "full" else BanditTransformer
    params = kind.create(params_key, config.policy, config.environment.num_arms, config.horizon).params
    return TrainState(
        config=jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), config),
        params=params,
        opt_state=_optimizer(config).init(params),
        key=train_key,
        iteration=jnp.zeros((), jnp.int32),
    )


def abstract_state(config: RMFTConfig) -> TrainState:
    """Shapes and dtypes of a state, computed without computing a state; what a checkpoint is restored into."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


@functools.partial(jax.jit, donate_argnums=0)
def iterate(state: TrainState) -> tuple[TrainState, IterationMetrics]:
    """One iteration, compiled once per set of shapes. The given state is donated: use the returned one."""
    return _iteration(state)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def iterate_chunk(state: TrainState, num_iterations: int) -> tuple[TrainState, IterationMetrics]:
    """`num_iterations` iterations as one compiled scan, with metrics stacked along the first axis."""
    return jax.lax.scan(lambda state, _: _iteration(state), state, None, length=num_iterations)


def make_agent(state: TrainState, *, explore: bool = False) -> TransformerAgent:
    """The current policy as an agent; `explore` adds the temperature or the Gaussian noise of rollouts."""
    config = state.config
    shapes = (config.policy, config.environment.num_arms, config.horizon)
    if config.environment.feedback == "full":
        noise = config.exploration_std if explore else 0.0
        return FullInformationTransformer(*shapes, state.params, config.decision_map, config.radius, noise)
    return BanditTransformer(*shapes, state.params, config.temperature if explore else 1.0)


def setting_regret(config: RMFTConfig) -> Regret:
    """The regret that the setting is judged by; of play in a ball, where that is the decision set."""
    regret = Regret.of(make_environment(config.environment))
    if config.environment.feedback == "full" and config.decision_map == "ball":
        return Regret("ball", "expected", config.radius)
    return regret


def selection_regret(config: RMFTConfig) -> Regret:
    """The regret by which trajectories are selected."""
    standard = setting_regret(config)
    if standard.kind == "ball":
        return standard
    kind, form = config.selection_regret, config.selection_form
    return Regret(standard.kind if kind == "standard" else kind, standard.form if form == "standard" else form)


def _iteration(state: TrainState) -> tuple[TrainState, IterationMetrics]:
    config = state.config
    play_key, branch_key, update_key = jax.random.split(jax.random.fold_in(state.key, state.iteration), 3)

    branch_rounds = jnp.zeros(config.num_scenarios, jnp.int32)
    if config.branching == "uniform":
        branch_rounds = jax.random.randint(branch_key, (config.num_scenarios,), 0, config.horizon)
    played = rollout_scenarios(
        make_agent(state, explore=True),
        make_environment(config.environment),
        RolloutKeys.create(play_key),
        horizon=config.horizon,
        num_scenarios=config.num_scenarios,
        num_rollouts=config.num_rollouts,
        branch_rounds=branch_rounds,
        shared_reward_noise=config.shared_reward_noise,
        block=config.rollout_block,
    )
    kept = select_lowest(selection_regret(config)(played)[..., -1], config.k)
    state, loss, grad_norm = _fine_tune(state, _training_data(played, kept, branch_rounds), update_key)

    standard = setting_regret(config)
    regret = standard(played)[..., -1]
    metrics = IterationMetrics(
        regret=jnp.mean(regret),
        selected_regret=jnp.mean(take_rollouts(regret, kept)),
        loss=loss,
        grad_norm=grad_norm,
        entropy=jnp.mean(entropy(jnp.log(played.probabilities))) if standard.kind != "ball" else jnp.zeros(()),
        suff_fail_freq=jnp.mean(diagnostics.suff_fail(played, half_horizon(config.horizon))),
    )
    return state, metrics


def _training_data(played: Trajectory, kept: Int[Array, "M k"], branch_rounds: Int[Array, "M"]) -> KeptBatch:
    horizon = played.actions.shape[-1]
    own_rounds = jnp.arange(horizon)[None, None, :] >= branch_rounds[:, None, None]
    weights = jnp.broadcast_to(own_rounds, played.actions.shape).astype(jnp.float32)
    return take_rollouts(KeptBatch(played, weights), kept)


def _fine_tune(
    state: TrainState, data: KeptBatch, key: ScalarKey
) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """All optimizer updates of one iteration; returns the new state and the mean loss and gradient norm."""
    config, optimizer = state.config, _optimizer(state.config)
    size = data.weights.shape[0]
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, config.num_epochs))
    minibatches = orders.reshape(config.num_epochs * config.num_minibatches, -1)

    def update(carry: tuple[Params, Any], rows: Int[Array, "B"]) -> tuple[tuple[Params, Any], tuple[Any, Any]]:
        params, opt_state = carry
        loss, grads = _loss_and_grads(state, params, jax.tree.map(lambda x: x[rows], data))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, optax.tree.norm(grads))

    (params, opt_state), (losses, norms) = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
    state = TrainState(config, params, opt_state, state.key, state.iteration + 1)
    return state, jnp.mean(losses), jnp.mean(norms)


def _loss_and_grads(state: TrainState, params: Params, batch: KeptBatch) -> tuple[Float[Array, ""], Params]:
    """Mean loss over the imitated rounds of a minibatch, its gradient accumulated over small blocks.

    Small blocks stay in the CPU's cache; the sum does not depend on the block size beyond rounding.
    """
    config, agent = state.config, make_agent(state)
    size = batch.weights.shape[0]
    block_size = min(size, config.update_block or (64 if jax.default_backend() == "cpu" else size))
    batch = dataclasses.replace(batch, weights=batch.weights / jnp.sum(batch.weights))
    if padding := -size % block_size:  # The last block is filled up with rows that weigh nothing.
        rows = jnp.concatenate([jnp.arange(size), jnp.zeros(padding, jnp.int32)])
        batch = jax.tree.map(lambda x: x[rows], batch)
        batch = dataclasses.replace(batch, weights=batch.weights.at[size:].set(0.0))
    blocks = jax.tree.map(lambda x: x.reshape(-1, block_size, *x.shape[1:]), batch)

    def loss(params: Params, block: KeptBatch) -> Float[Array, ""]:
        learner = dataclasses.replace(agent, params=params)
        losses = jax.vmap(functools.partial(_round_losses, config, learner))(block.trajectory)
        return jnp.sum(block.weights * losses)

    def add(total: Any, block: KeptBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, block)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, zero, blocks)[0]


def _round_losses(config: RMFTConfig, agent: TransformerAgent, trajectory: Trajectory) -> Float[Array, "T"]:
    if isinstance(agent, BanditTransformer):
        return action_loss(agent, trajectory, config.entropy_weight)
    assert isinstance(agent, FullInformationTransformer)
    return (squared_error if config.full_loss == "squared_error" else policy_loss)(agent, trajectory)


def _optimizer(config: RMFTConfig) -> optax.GradientTransformation:
    step_size = config.step_size
    if config.schedule == "cosine":
        num_updates = config.num_iterations * config.num_epochs * config.num_minibatches
        step_size = optax.cosine_decay_schedule(step_size, num_updates)
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(step_size))
