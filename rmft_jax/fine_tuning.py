"""How the policy is fine-tuned on the kept trajectories: by steps of Adam, or by the exact least-squares fit."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rmft_jax.agents import SingleLayerAgent, TrainedAgent, trained_agent
from rmft_jax.agents.base import state_bytes
from rmft_jax.config import RMFTConfig
from rmft_jax.config.checks import block_of
from rmft_jax.devices import ALONE, Shares
from rmft_jax.objectives import round_losses
from rmft_jax.types import KeptBatch, Params, ScalarKey, TrainState

# Of keys and values that a block of an update has, about: its activations are a multiple of them, and stay in the
# cache of a core.
_CACHE_BYTES = 500_000


def make_optimizer(config: RMFTConfig) -> optax.GradientTransformation:
    """Adam after clipping, with the configured schedule."""
    step_size = config.step_size
    if config.schedule == "cosine":
        num_updates = config.num_iterations * config.num_epochs * config.num_minibatches
        step_size = optax.cosine_decay_schedule(step_size, num_updates)
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(step_size))


def gradient_steps(
    state: TrainState, data: KeptBatch, key: ScalarKey, shares: Shares = ALONE
) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """All optimizer updates of one iteration; returns the new state and the mean loss and gradient norm.

    Every device has all of the data, computes the gradient of its share of each minibatch, and makes the same updates.
    """
    config, optimizer = state.config, make_optimizer(state.config)
    size = data.weights.shape[0]
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, config.num_epochs))
    minibatches = orders.reshape(config.num_epochs * config.num_minibatches, -1)

    def update(carry: tuple[Params, Any], rows: Int[Array, "B"]) -> tuple[tuple[Params, Any], tuple[Any, Any]]:
        params, opt_state = carry
        loss, grads = _loss_and_grads(state, params, jax.tree.map(lambda x: x[rows], data), shares)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, optax.tree.norm(grads))

    (params, opt_state), (losses, norms) = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
    return _advanced(state, params, opt_state), jnp.mean(losses), jnp.mean(norms)


def least_squares(state: TrainState, data: KeptBatch) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """The value matrix V of the single layer that fits the kept decisions best, all else fixed.

    V minimizes the mean over the kept trajectories of `sum_t |y_t - z_t(V)|^2`, plus `l2_penalty |V|^2`, where `y_t`
    are the perturbed scores of the rollouts, and `z_t(V)` is linear in V with slope F_t, the attention-weighted sums of
    what was seen. Where the penalty is 0, V stays as it is along directions in which nothing was seen, or less than the
    1e-5th part of what was seen in others.

    Returns the new state, and the squared error of `squared_error` and the norm of its gradient before the fit.
    """
    config, agent = state.config, trained_agent(state.config, state.params)
    assert isinstance(agent, SingleLayerAgent)
    rows, size = data.trajectory, agent.num_arms
    assert rows.scores is not None
    features = jax.vmap(agent.features)(rows)
    residuals = jnp.where(rows.arm_mask[:, None, :], rows.scores - jax.vmap(agent.outputs)(rows), 0.0)
    weights = data.weights[..., None] / data.weights.shape[0]
    # The change of V is fitted, to residuals, so that it does not drown in the rounding of V; by a QR decomposition,
    # because the normal equations would square the ratio of strong to weak directions. The penalty is K more rows.
    root, penalty = jnp.sqrt(weights), jnp.sqrt(config.l2_penalty)
    design = jnp.concatenate([(root * features).reshape(-1, size), penalty * jnp.eye(size)])
    target = jnp.concatenate([(root * residuals).reshape(-1, size), -penalty * agent.value.T])
    orthogonal, triangular = jnp.linalg.qr(design)
    with jax.default_matmul_precision("highest"):
        change = (jnp.linalg.pinv(triangular, rtol=1e-5) @ (orthogonal.T @ target)).T
    per_round = jnp.sum(weights)
    loss = jnp.sum(weights * jnp.square(residuals)) / per_round / 2
    gradient = jnp.einsum("nti,ntj->ij", weights * residuals, features, precision="highest") / per_round
    params = agent.with_value(agent.value + change).params
    return _advanced(state, params, state.opt_state), loss, jnp.linalg.norm(gradient)


def _advanced(state: TrainState, params: Params, opt_state: Any) -> TrainState:
    """The state after an iteration that ends with these parameters."""
    config, memory, iteration = state.config, state.memory, state.iteration + 1
    if memory.player is not None:
        refresh = iteration % config.refresh_every == 0
        player = jax.tree.map(lambda new, old: jnp.where(refresh, new, old), params, memory.player)
        memory = dataclasses.replace(memory, player=player)
    if memory.average is not None:
        average = jax.tree.map(lambda new, old: old + (new - old) / config.average_window, params, memory.average)
        memory = dataclasses.replace(memory, average=average)
    return dataclasses.replace(state, params=params, opt_state=opt_state, iteration=iteration, memory=memory)


def _loss_and_grads(
    state: TrainState, params: Params, batch: KeptBatch, shares: Shares
) -> tuple[Float[Array, ""], Params]:
    """Mean loss over the imitated rounds of a minibatch, its gradient accumulated over devices and small blocks.

    Small blocks stay in the CPU's cache; the sum does not depend on the block size beyond rounding.
    """
    config, agent = state.config, trained_agent(state.config, state.params)
    reference = None if state.memory.initial is None else trained_agent(config, state.memory.initial)
    size = batch.weights.shape[0]
    share = -(-size // shares.number)
    block_size = block_of(share, config.update_block or _block(config, agent) or share)
    # A minibatch may have nothing to imitate, while the replay is not yet full.
    batch = dataclasses.replace(batch, weights=batch.weights / jnp.maximum(jnp.sum(batch.weights), 1.0))
    # The last block, and the last share, are filled up with rows that weigh nothing.
    if padding := shares.number * block_size * -(-share // block_size) - size:
        rows = jnp.concatenate([jnp.arange(size), jnp.zeros(padding, jnp.int32)])
        batch = jax.tree.map(lambda x: x[rows], batch)
        batch = dataclasses.replace(batch, weights=batch.weights.at[size:].set(0.0))
    blocks = jax.tree.map(lambda x: x.reshape(-1, block_size, *x.shape[1:]), shares.own(batch))

    def loss(params: Params, block: KeptBatch) -> Float[Array, ""]:
        learner = dataclasses.replace(agent, params=params)
        losses = jax.vmap(functools.partial(round_losses, config, learner, reference=reference))
        return jnp.sum(block.weights * losses(block.trajectory, block.advantages))

    def add(total: Any, block: KeptBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, block)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    return shares.sum(jax.lax.scan(add, zero, blocks)[0])


def _block(config: RMFTConfig, agent: TrainedAgent) -> int:
    """Trajectories whose activations fit into a core's own cache; 0, for all, where there is none."""
    if jax.default_backend() != "cpu":
        return 0
    size = state_bytes(agent, config.environment.num_arms, config.horizon)
    return min(max(_CACHE_BYTES // max(size, 1), 2), 64)
