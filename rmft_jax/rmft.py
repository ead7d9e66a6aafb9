"""Iterative regret-minimization fine-tuning (Park, Chen, Ozdaglar, Zhang 2025), on one page.

Each iteration draws M scenarios, lets the current policy play each of them L times, keeps the k trajectories of
lowest regret per scenario, and fine-tunes the policy on them by maximum likelihood of its own decisions. No expert is
imitated. An iteration is one compiled call; so is a chunk of n of them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from rmft_jax import diagnostics
from rmft_jax.advantages import grpo_advantages, reinforce_advantages
from rmft_jax.agents import Agent, TrainedAgent, behavior_agent, init_params, trained_agent
from rmft_jax.config import RMFTConfig
from rmft_jax.devices import ALONE, AXIS, Shares, on_mesh
from rmft_jax.environments import make_environment
from rmft_jax.fine_tuning import gradient_steps, least_squares, make_optimizer
from rmft_jax.growth import half_horizon
from rmft_jax.objectives import entropy
from rmft_jax.regret import Regret
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.selection import select, take_rollouts
from rmft_jax.types import Extent, IterationMetrics, KeptBatch, Memory, Params, ScalarKey, TrainState, Trajectory

# Stream of a random selection; the numbers below are those of the other purposes of an iteration.
_SELECTION = 3


def init(config: RMFTConfig, key: ScalarKey) -> TrainState:
    """A policy with random weights, or at the start of the theory's model, ready for the first iteration.

    Raises:
      ConfigError: if the configuration cannot work.
    """
    config.validate()
    params_key, train_key = jax.random.split(key)
    return state_of(config, init_params(config, params_key), train_key)


def state_of(config: RMFTConfig, params: Params, key: ScalarKey) -> TrainState:
    """These parameters, ready for the first iteration, with `key` as root key of training."""
    return TrainState(
        config=_as_arrays(config),
        params=params,
        opt_state=make_optimizer(config).init(params),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
        memory=_memory(config, params),
    )


def _memory(config: RMFTConfig, params: Params) -> Memory:
    """What the settings ask for; nothing was kept yet."""

    def copy() -> Params:  # A state may be donated, in which no array must occur twice.
        return jax.tree.map(jnp.copy, params)

    replay = None
    if config.replay:
        size = (config.replay, config.num_scenarios * config.k)
        one = jax.eval_shape(functools.partial(_kept_by, config), params)
        replay = jax.tree.map(lambda leaf: jnp.zeros((*size, *leaf.shape[1:]), leaf.dtype), one)
        # Of no weight, but with arms, lest a policy over none turn everything into NaN.
        arms = jnp.ones_like(replay.trajectory.arm_mask)
        replay = dataclasses.replace(replay, trajectory=dataclasses.replace(replay.trajectory, arm_mask=arms))
    return Memory(
        player=copy() if config.refresh_every > 1 else None,
        initial=copy() if config.kl_reference == "initial" else None,
        average=copy() if config.average_window else None,
        replay=replay,
    )


def _kept_by(config: RMFTConfig, params: Params) -> KeptBatch:
    """A batch of the shapes that an iteration keeps."""
    plain = dataclasses.replace(config, replay=0)
    state = state_of(plain, params, jax.random.key(0))
    return _kept(ALONE, state, *_play(ALONE, state, None))[0]


def abstract_state(config: RMFTConfig) -> TrainState:
    """The configuration, and shapes and dtypes of all else, computed without a state: what a checkpoint goes into."""
    state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return dataclasses.replace(state, config=_as_arrays(config))


def _as_arrays(config: RMFTConfig) -> RMFTConfig:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), config)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def iterate(
    state: TrainState, extent: Extent | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, IterationMetrics]:
    """One iteration, compiled once per set of shapes. The given state is donated: use the returned one.

    Args:
      state: where training stands.
      extent: how many of the arms and rounds of `state.config` are in use, so that one program serves problems of
        several sizes; the result is that of a state of just this size, but for rounding. None: all.
      mesh: of devices that each play their share of the scenarios (`devices.make_mesh`); the result is that of a single
        one, but for rounding. None: one.

    Raises:
      ConfigError: if the scenarios cannot be dealt out evenly.
    """
    return on_mesh(mesh, _iteration, state, extent)


@functools.partial(jax.jit, static_argnums=(1, 3), donate_argnums=0)
def iterate_chunk(
    state: TrainState, num_iterations: int, extent: Extent | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, IterationMetrics]:
    """`num_iterations` iterations as one compiled scan, with metrics stacked along the first axis."""

    def chunk(shares: Shares, state: TrainState, extent: Extent | None) -> tuple[TrainState, IterationMetrics]:
        return jax.lax.scan(lambda state, _: _iteration(shares, state, extent), state, None, length=num_iterations)

    return on_mesh(mesh, chunk, state, extent)


@functools.partial(jax.jit, static_argnums=1)
def play(state: TrainState, mesh: Mesh | None = None) -> Trajectory:
    """The rollouts of the coming iteration, with axes `[M, L]`, dealt out over the devices of a mesh."""
    return on_mesh(mesh, lambda *given: _play(*given)[0], state, None, out=P(AXIS))


def make_agent(state: TrainState, *, explore: bool = False) -> TrainedAgent:
    """The current policy as an agent, with averaged weights where the configuration says so.

    `explore` adds the temperature or the Gaussian noise of rollouts.
    """
    return trained_agent(state.config, state.evaluated_params, explore=explore)


def make_player(state: TrainState) -> Agent:
    """Who plays the rollouts of the coming iteration."""
    if state.config.behavior != "policy":
        return behavior_agent(state.config.behavior)
    params = state.params if state.memory.player is None else state.memory.player
    return trained_agent(state.config, params, explore=True)


def setting_regret(config: RMFTConfig) -> Regret:
    """The regret that the setting is judged by; that against a ball, where play is a point and no arm."""
    if config.plays_points:
        return Regret("ball", "expected", config.radius)
    return Regret.of(make_environment(config.environment))


def selection_regret(config: RMFTConfig) -> Regret:
    """The regret by which trajectories are selected."""
    standard = setting_regret(config)
    if standard.kind == "ball":
        return standard
    kind, form = config.selection_regret, config.selection_form
    return Regret(standard.kind if kind == "standard" else kind, standard.form if form == "standard" else form)


def _play(shares: Shares, state: TrainState, extent: Extent | None) -> tuple[Trajectory, Int[Array, "M"]]:
    """The rollouts of the coming iteration on a device's share of the scenarios, and all branch rounds."""
    config = state.config
    shares.require_even(config.num_scenarios, "num_scenarios")
    extent = extent or Extent(config.environment.num_arms, config.horizon)
    play_key, branch_key, _ = _keys(state)
    branch_rounds = jnp.zeros(config.num_scenarios, jnp.int32)
    if config.branching != "none":
        draws = 1 if config.branching == "uniform" else 2
        drawn = jax.random.randint(branch_key, (draws, config.num_scenarios), 0, extent.horizon)
        branch_rounds = jnp.max(drawn, axis=0) if config.branching == "late" else jnp.min(drawn, axis=0)
    played = rollout_scenarios(
        make_player(state),
        make_environment(config.environment),
        RolloutKeys.create(play_key),
        horizon=config.horizon,
        num_scenarios=config.num_scenarios // shares.number,
        first_scenario=shares.first(config.num_scenarios),
        num_rollouts=config.num_rollouts,
        branch_rounds=shares.own(branch_rounds),
        shared_reward_noise=config.shared_reward_noise,
        arm_mask=extent.arm_mask(config.environment.num_arms),
        round_mask=extent.round_mask(config.horizon),
        block=config.rollout_block,
    )
    return played, branch_rounds


def _keys(state: TrainState) -> Key[Array, "3"]:
    """What the rollouts, the branch rounds and the update of the coming iteration draw from."""
    return jax.random.split(_key(state), 3)


def _key(state: TrainState) -> ScalarKey:
    return jax.random.fold_in(state.key, state.iteration)


def _iteration(shares: Shares, state: TrainState, extent: Extent | None) -> tuple[TrainState, IterationMetrics]:
    config = state.config
    played, branch_rounds = _play(shares, state, extent)
    data, kept, played, dealt = _kept(shares, state, played, branch_rounds)
    if state.memory.replay is not None:
        state, data = _with_replay(state, data)
    if config.update == "least_squares":
        state, loss, grad_norm = least_squares(state, data)
    else:
        state, loss, grad_norm = gradient_steps(state, data, _keys(state)[2], shares)

    horizon = extent.horizon if extent else config.horizon
    standard = setting_regret(config)
    regret = standard.final(played)
    entropies = entropy(jnp.log(played.probabilities)) if standard.kind != "ball" else jnp.zeros(played.actions.shape)
    own_means = {
        "regret": jnp.mean(regret),
        "selected_regret": jnp.mean(take_rollouts(regret, kept)),
        "entropy": jnp.mean(entropies, where=played.played),
        "suff_fail_freq": jnp.mean(diagnostics.suff_fail(played, half_horizon(horizon))),
    }
    return state, IterationMetrics(loss=loss, grad_norm=grad_norm, **dealt.mean(own_means))


def _kept(
    shares: Shares, state: TrainState, played: Trajectory, branch_rounds: Int[Array, "M"]
) -> tuple[KeptBatch, Int[Array, "G n"], Trajectory, Shares]:
    """What is kept of a device's share of the rollouts, as training data on every device.

    Returns the data; the rollouts kept, of those that come next; the trajectories among which they were chosen; and the
    devices over which these are dealt out.
    """
    config, dealt = state.config, shares
    own_branch_rounds = shares.own(branch_rounds)
    if config.selection in ("pooled", "advantage"):  # Which are kept of all depends on all.
        played, own_branch_rounds, dealt = shares.joined(played), branch_rounds, ALONE
    judge = selection_regret(config)
    regret, final = judge(played), judge.final(played)
    kept = select(config, jax.random.fold_in(_key(state), _SELECTION), final, judge.reward(played), dealt)
    advantages = None
    if config.objective == "reinforce":
        advantages = reinforce_advantages(regret, final, dealt)
    elif config.objective == "grpo":
        advantages = grpo_advantages(regret, final)
    data = _training_data(played, advantages, kept, own_branch_rounds)
    return dealt.joined(data), kept, played, dealt


def _training_data(
    played: Trajectory,
    advantages: Float[Array, "M L T"] | None,
    kept: Int[Array, "G n"],
    branch_rounds: Int[Array, "M"],
) -> KeptBatch:
    own_rounds = jnp.arange(played.actions.shape[-1])[None, None, :] >= branch_rounds[:, None, None]
    weights = (own_rounds & played.played).astype(jnp.float32)
    return take_rollouts(KeptBatch(played, weights, advantages), kept)


def _with_replay(state: TrainState, data: KeptBatch) -> tuple[TrainState, KeptBatch]:
    """The new data in front of those of the last iterations, as memory and as one batch of all of them."""
    together = jax.tree.map(lambda new, old: jnp.concatenate([new[None], old]), data, state.memory.replay)
    memory = dataclasses.replace(state.memory, replay=jax.tree.map(lambda leaf: leaf[:-1], together))
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), together)
    return dataclasses.replace(state, memory=memory), batch
