"""The obvious JAX: what a user of JAX writes first, in one file and for whole batches.

All M * L trajectories step together, through one scan over rounds and a key-value cache in the order of that scan. The
loss is differentiated over a whole minibatch at once. Nothing is cut into blocks, and no layout is chosen for speed.
From the same keys it plays and learns what the package does, up to rounding.

Array names end in their axes: `B` trajectories, `T` and `S` rounds, `D` width, `H` heads, `h` head size, `K` arms, `I`
numbers of a token.
"""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from experiments.benchmarks.contenders.steps import Draws, choose
from rmft_jax import rmft
from rmft_jax.config import RMFTConfig, TransformerConfig
from rmft_jax.config.checks import require
from rmft_jax.environments import make_environment
from rmft_jax.fine_tuning import make_optimizer
from rmft_jax.objectives import entropy
from rmft_jax.rollout import NoiseStreams, RolloutKeys, fold_each
from rmft_jax.types import Decision, IterationMetrics, KeptBatch, Params, ScalarKey, TrainState, Trajectory

# Keys and values of one layer.
Cache = tuple[Float[Array, "T B H h"], Float[Array, "T B H h"]]


class ObviousJax:
    """Rollouts and iterations, compiled ahead of time.

    Attributes:
      compile_seconds: seconds to trace and compile an iteration; the program of rollouts alone is not counted.
    """

    compile_seconds: float

    def __init__(self, config: RMFTConfig, *, seed: int = 0):
        """Starts from the weights of `rmft.init`.

        Raises:
          ConfigError: if the configuration cannot work, or is not supported.
        """
        self.state = rmft.init(config, jax.random.key(seed))
        started = time.perf_counter()
        self._iterate = iterate.lower(self.state).compile()
        self.compile_seconds = time.perf_counter() - started
        self._play = play.lower(self.state).compile()

    def rollout(self) -> None:
        """Plays all M * L trajectories of the coming iteration."""
        jax.block_until_ready(self._play(self.state))

    def iteration(self) -> None:
        """One iteration."""
        self.state, _ = jax.block_until_ready(self._iterate(self.state))


def require_supported(config: RMFTConfig) -> TransformerConfig:
    """The policy of the configuration.

    Raises:
      ConfigError: if it is none that is written out here.
    """
    policy, feedback = config.policy, config.environment.feedback
    need = "a Transformer under bandit feedback"
    require(isinstance(policy, TransformerConfig), f"policy={type(policy).__name__}", need, "the default settings")
    require(feedback == "bandit", f"feedback={feedback!r}", need, "feedback='bandit'")
    assert isinstance(policy, TransformerConfig)
    require(policy.arms == "one_hot", f"arms={policy.arms!r}", "one token per round", "arms='one_hot'")
    require(policy.position == "none", f"position={policy.position!r}", "no position encoding", "position='none'")
    return policy


@jax.jit
def iterate(state: TrainState) -> tuple[TrainState, IterationMetrics]:
    """One iteration, as `rmft.iterate`; the given state stays usable.

    Raises:
      ConfigError: if the configuration is not supported.
    """
    draws = Draws.of(state)
    choice = choose(state, rollouts(state, draws.play, draws.branch_rounds), draws)
    state, loss, grad_norm = _adam(state, choice.data, draws.update)
    return state, choice.metrics(loss, grad_norm)


@jax.jit
def play(state: TrainState) -> Trajectory:
    """The rollouts `[M, L]` of the coming iteration."""
    draws = Draws.of(state)
    return rollouts(state, draws.play, draws.branch_rounds)


@jax.jit
def rollouts(state: TrainState, key: ScalarKey, branch_rounds: Int[Array, "M"] | None = None) -> Trajectory:
    """All trajectories `[M, L]` of one iteration, as `rollout_scenarios` of the exploring agent.

    Args:
      state: the policy and the configuration.
      key: what `RolloutKeys` are made from.
      branch_rounds: `[M]` first round from which the rollouts of a scenario draw their own noise. None: round 0.

    Raises:
      ConfigError: if the configuration is not supported.
    """
    config, params, policy = state.config, state.params, require_supported(state.config)
    environment = make_environment(config.environment)
    num_arms, horizon = environment.num_arms, config.horizon
    shape = (config.num_scenarios, config.num_rollouts)
    size = config.num_scenarios * config.num_rollouts
    if branch_rounds is None:
        branch_rounds = jnp.zeros(config.num_scenarios, jnp.int32)
    worlds, noise = _scenarios(config, RolloutKeys.create(key), branch_rounds)

    def play_round(carry: tuple[Any, Any, Any], round: Int[Array, ""]) -> tuple[tuple[Any, Any, Any], tuple[Any, ...]]:
        token_BxI, caches, worlds = carry
        logits_BxK, caches = _decode(policy, params, token_BxI, caches, round)
        logits_BxK = logits_BxK / config.temperature
        keys_Bx2 = jax.vmap(NoiseStreams.keys, in_axes=(0, None))(noise, round)
        actions_B = jax.vmap(jax.random.categorical)(keys_Bx2[:, 0], logits_BxK)
        decisions = Decision(actions_B, jax.nn.softmax(logits_BxK))
        step = jax.vmap(environment.step, in_axes=(0, 0, 0, None))
        worlds, outcomes = step(keys_Bx2[:, 1], worlds, decisions, round)
        rewards_B = jnp.take_along_axis(outcomes.rewards, actions_B[:, None], axis=1)[:, 0]
        record = (actions_B, rewards_B, decisions.probabilities, outcomes.mean_rewards, outcomes.rewards)
        return (_tokens(actions_B, rewards_B, num_arms), caches, worlds), record

    cache = jnp.zeros((horizon, size, policy.num_heads, policy.width // policy.num_heads))
    start = (_first_token(size, num_arms), [(cache, cache)] * policy.num_layers, worlds)
    _, records = jax.lax.scan(play_round, start, jnp.arange(horizon))
    records = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(*shape, *x.shape[:1], *x.shape[2:]), records)
    return Trajectory(*records, scores=None, arm_mask=jnp.ones((*shape, num_arms), bool))


def _scenarios(config: RMFTConfig, keys: RolloutKeys, branch_rounds: Int[Array, "M"]) -> tuple[Any, NoiseStreams]:
    """Fresh worlds, and the noise of every rollout, each with batch axis `[B]`."""
    environment = make_environment(config.environment)
    arm_mask, round_mask = jnp.ones(environment.num_arms, bool), jnp.ones(config.horizon, bool)
    purposes = jnp.stack([keys.scenario, keys.policy, keys.reward])
    indices = jnp.repeat(jnp.arange(config.num_scenarios)[:, None], 3, axis=1)
    own_keys_Mx3 = jax.vmap(fold_each, in_axes=(None, 0))(purposes, indices)
    worlds = jax.vmap(environment.reset, in_axes=(0, None, None))(own_keys_Mx3[:, 0], arm_mask, round_mask)
    reward_rounds = jnp.full_like(branch_rounds, config.horizon) if config.shared_reward_noise else branch_rounds
    splits_Mx2 = jnp.stack([branch_rounds, reward_rounds], axis=1)
    rollouts_B = jnp.tile(jnp.arange(config.num_rollouts), config.num_scenarios)
    worlds, own_keys_Bx2, splits_Bx2 = jax.tree.map(
        lambda x: jnp.repeat(x, config.num_rollouts, axis=0), (worlds, own_keys_Mx3[:, 1:], splits_Mx2)
    )
    return worlds, jax.vmap(NoiseStreams.create)(own_keys_Bx2, rollouts_B, splits_Bx2)


def _tokens(actions: Int[Array, "*batch"], rewards: Float[Array, "*batch"], num_arms: int) -> Float[Array, "*batch I"]:
    played = jax.nn.one_hot(actions, num_arms)
    return jnp.concatenate([played, played * rewards[..., None], jnp.zeros((*actions.shape, 1))], axis=-1)


def _first_token(size: int, num_arms: int) -> Float[Array, "B I"]:
    return jnp.zeros((size, 2 * num_arms + 1)).at[:, -1].set(1.0)


def _decode(
    policy: TransformerConfig, params: Any, token_BxI: Float[Array, "B I"], caches: list[Cache], round: Int[Array, ""]
) -> tuple[Float[Array, "B K"], list[Cache]]:
    """Logits of one round, and the caches with its row."""
    x_BxD, extended = _linear(params["embed"], token_BxI), []
    for layer, cache in enumerate(caches):
        block = params["blocks"][layer]
        q_BxHxh, k_BxHxh, v_BxHxh = _heads(policy, block, x_BxD)
        k_TxBxHxh = jax.lax.dynamic_update_slice_in_dim(cache[0], k_BxHxh[None], round, axis=0)
        v_TxBxHxh = jax.lax.dynamic_update_slice_in_dim(cache[1], v_BxHxh[None], round, axis=0)
        scores_BxHxT = jnp.einsum("BHh,TBHh->BHT", q_BxHxh, k_TxBxHxh) / math.sqrt(q_BxHxh.shape[-1])
        past_T = jnp.arange(k_TxBxHxh.shape[0]) <= round
        weights_BxHxT = jax.nn.softmax(jnp.where(past_T[None, None], scores_BxHxT, -jnp.inf))
        mixed_BxHxh = jnp.einsum("BHT,TBHh->BHh", weights_BxHxT, v_TxBxHxh)
        x_BxD = _rest_of_block(block, x_BxD, mixed_BxHxh.reshape(x_BxD.shape))
        extended.append((k_TxBxHxh, v_TxBxHxh))
    return _linear(params["out"], _norm(params["out_norm"], x_BxD)), extended


def _teacher_forced(policy: TransformerConfig, params: Any, kept: Trajectory) -> Float[Array, "B T K"]:
    """Logits of every round of the given trajectories."""
    num_arms = kept.probabilities.shape[-1]
    past_BxTxI = _tokens(kept.actions[:, :-1], kept.rewards[:, :-1], num_arms)
    tokens_BxTxI = jnp.concatenate([_first_token(past_BxTxI.shape[0], num_arms)[:, None], past_BxTxI], axis=1)
    x_BxTxD = _linear(params["embed"], tokens_BxTxI)
    horizon = tokens_BxTxI.shape[1]
    causal_TxS = jnp.tril(jnp.ones((horizon, horizon), bool))
    for layer in range(policy.num_layers):
        block = params["blocks"][layer]
        q_BxTxHxh, k_BxSxHxh, v_BxSxHxh = _heads(policy, block, x_BxTxD)
        scores_BxHxTxS = jnp.einsum("BTHh,BSHh->BHTS", q_BxTxHxh, k_BxSxHxh) / math.sqrt(q_BxTxHxh.shape[-1])
        weights_BxHxTxS = jax.nn.softmax(jnp.where(causal_TxS[None, None], scores_BxHxTxS, -jnp.inf))
        mixed_BxTxHxh = jnp.einsum("BHTS,BSHh->BTHh", weights_BxHxTxS, v_BxSxHxh)
        x_BxTxD = _rest_of_block(block, x_BxTxD, mixed_BxTxHxh.reshape(x_BxTxD.shape))
    return _linear(params["out"], _norm(params["out_norm"], x_BxTxD))


def _heads(policy: TransformerConfig, block: Any, x: Float[Array, "*batch D"]) -> list[Float[Array, "*batch H h"]]:
    """Queries, keys and values."""
    qkv = _linear(block["attention"]["query_key_value"], _norm(block["attention_norm"], x))
    return jnp.split(qkv.reshape(*x.shape[:-1], 3 * policy.num_heads, -1), 3, axis=-2)


def _rest_of_block(
    block: Any, x: Float[Array, "*batch D"], mixed: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    x = x + _linear(block["attention"]["out"], mixed)
    return x + _linear(block["mlp_out"], jax.nn.gelu(_linear(block["mlp_in"], _norm(block["mlp_norm"], x))))


def _linear(layer: Any, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
    y = jnp.dot(x, layer["kernel"])
    return y + jnp.broadcast_to(layer["bias"], y.shape) if "bias" in layer else y


def _norm(layer: Any, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-6)
    return normed * jnp.broadcast_to(layer["scale"], x.shape) + jnp.broadcast_to(layer["bias"], x.shape)


def _adam(state: TrainState, data: KeptBatch, key: ScalarKey) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """All updates of one iteration; the new state, and the mean loss and gradient norm."""
    config, optimizer, policy = state.config, make_optimizer(state.config), require_supported(state.config)
    size = data.weights.shape[0]
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, config.num_epochs))

    def mean_loss(params: Params, batch: KeptBatch) -> Float[Array, ""]:
        log_probs = jax.nn.log_softmax(_teacher_forced(policy, params, batch.trajectory))
        nll = -jnp.take_along_axis(log_probs, batch.trajectory.actions[..., None], axis=-1)[..., 0]
        losses = nll - config.entropy_weight * entropy(log_probs)
        return jnp.sum(batch.weights * losses) / jnp.sum(batch.weights)

    def update(carry: tuple[Params, Any], rows: Int[Array, "B"]) -> tuple[tuple[Params, Any], tuple[Any, Any]]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(mean_loss)(params, jax.tree.map(lambda x: x[rows], data))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, optax.tree.norm(grads))

    minibatches = orders.reshape(config.num_epochs * config.num_minibatches, -1)
    (params, opt_state), (losses, norms) = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
    state = TrainState(config, params, opt_state, state.key, state.iteration + 1)
    return state, jnp.mean(losses), jnp.mean(norms)
