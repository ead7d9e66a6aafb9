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
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.contenders import require_known
from rmft_jax.agents import Transformer
from rmft_jax.config import Params, ScalarKey
from rmft_jax.method import rmft
from rmft_jax.method.fine_tuning import Fit
from rmft_jax.method.judging import KeptBatch, judge, training_data
from rmft_jax.method.noise import NoiseStreams, RolloutKeys, fold_each
from rmft_jax.method.objectives import entropy
from rmft_jax.method.rmft import IterationMetrics
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import IterationKeys, TrainState, init
from rmft_jax.problems import Decision, Trajectory

# Keys and values of one layer.
Cache = tuple[Float[Array, "T B H h"], Float[Array, "T B H h"]]


class ObviousJax:
    """Rollouts and iterations, compiled ahead of time.

    Attributes:
      compile_seconds: seconds to trace and compile an iteration; the program of rollouts alone is not counted.
    """

    compile_seconds: float

    def __init__(self, config: RMFTConfig, *, seed: int = 0):
        """Starts from the weights of `init`.

        Raises:
          ConfigError: if the configuration cannot work, or is not supported.
        """
        self.state = init(config, jax.random.key(seed))
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


@jax.jit
def iterate(state: TrainState) -> tuple[TrainState, IterationMetrics]:
    """One iteration, as `rmft.iterate`; the given state stays usable.

    Raises:
      ConfigError: if the configuration is not supported.
    """
    config, keys = state.config, IterationKeys.of(state)
    problem = config.problem()
    played, own_rounds = rollouts(state, keys)
    judged = judge(config, problem, played)
    kept = config.selection.keep(keys.selection, judged)
    state, fit = fine_tune(state, training_data(config, judged, kept, own_rounds), keys.update)
    return state, rmft.measured(problem, judged, kept, fit)


@jax.jit
def play(state: TrainState) -> Trajectory:
    """The rollouts `[M, L]` of the coming iteration."""
    return rollouts(state, IterationKeys.of(state))[0]


def rollouts(state: TrainState, keys: IterationKeys) -> tuple[Trajectory, Bool[Array, "M T"]]:
    """All trajectories `[M, L]` of one iteration, as `rmft.play_rollouts`.

    Raises:
      ConfigError: if the configuration is not supported.
    """
    config, params, environment = state.config, state.params, state.config.environment
    policy, _ = require_known(config)
    num_arms, horizon = environment.num_arms, config.horizon
    shape = (config.num_scenarios, config.num_rollouts)
    size = config.num_scenarios * config.num_rollouts
    branch_rounds = jnp.zeros(config.num_scenarios, jnp.int32)
    if config.branching == "uniform":
        branch_rounds = jax.random.randint(keys.branch, branch_rounds.shape, 0, horizon)
    worlds, noise = _scenarios(config, RolloutKeys.create(keys.play), branch_rounds)

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
    played = Trajectory(*records, scores=None, arm_mask=jnp.ones((*shape, num_arms), bool))
    return played, jnp.arange(horizon)[None, :] >= branch_rounds[:, None]


def _scenarios(config: RMFTConfig, keys: RolloutKeys, branch_rounds: Int[Array, "M"]) -> tuple[Any, NoiseStreams]:
    """Fresh worlds, and the noise of every rollout, each with batch axis `[B]`."""
    environment = config.environment
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
    policy: Transformer, params: Any, token_BxI: Float[Array, "B I"], caches: list[Cache], round: Int[Array, ""]
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


def _teacher_forced(policy: Transformer, params: Any, kept: Trajectory) -> Float[Array, "B T K"]:
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


def _heads(policy: Transformer, block: Any, x: Float[Array, "*batch D"]) -> list[Float[Array, "*batch H h"]]:
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


def fine_tune(state: TrainState, data: KeptBatch, key: ScalarKey) -> tuple[TrainState, Fit]:
    """All updates of one iteration, as those of `GradientSteps`."""
    config, size = state.config, data.weights.shape[0]
    policy, steps = require_known(config)
    optimizer = steps.optimizer(config.num_iterations)
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, steps.num_epochs))

    def mean_loss(params: Params, batch: KeptBatch) -> Float[Array, ""]:
        log_probs = jax.nn.log_softmax(_teacher_forced(policy, params, batch.trajectory))
        nll = -jnp.take_along_axis(log_probs, batch.trajectory.actions[..., None], axis=-1)[..., 0]
        losses = nll - config.objective.entropy_weight * entropy(log_probs)
        return jnp.sum(batch.weights * losses) / jnp.sum(batch.weights)

    def update(carry: tuple[Params, Any], rows: Int[Array, "B"]) -> tuple[tuple[Params, Any], tuple[Any, Any]]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(mean_loss)(params, jax.tree.map(lambda x: x[rows], data))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, optax.tree.norm(grads))

    minibatches = orders.reshape(steps.num_epochs * steps.num_minibatches, -1)
    (params, opt_state), (losses, norms) = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
    return state.advanced(params, opt_state), Fit(jnp.mean(losses), jnp.mean(norms))
