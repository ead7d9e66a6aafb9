"""Where training stands: what an iteration reads and writes, and how it begins."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, Shaped

from rmft_jax.agents import Agent, TrainedAgent
from rmft_jax.config import Fixed, Params, ScalarKey, pytree
from rmft_jax.config.checks import require
from rmft_jax.method.settings import RMFTConfig


@pytree
class Memory:
    """What some settings ask a run to remember beside the newest weights; None where they do not.

    player: the policy that plays the rollouts (`refresh_every`).
    initial: the policy at the start (`kl_reference`).
    """

    player: Params | None = None
    initial: Params | None = None


@pytree
class TrainState:
    """Everything that an iteration reads and writes; arrays only, save for the static settings inside `config`.

    config: the algorithm. Its floats are leaves (traced, vmappable), the rest is part of the pytree's structure.
    params: parameters of the policy.
    opt_state: state of the optimizer.
    key: root key of training. It never changes: iteration n draws from `fold_in(key, n)`.
    iteration: `[]` iterations done.
    memory: what else is carried on.
    fixed: what the policy plays with and is not trained; None: nothing.
    """

    config: RMFTConfig
    params: Params
    opt_state: PyTree[Shaped[Array, "..."]]
    key: ScalarKey
    iteration: Int[Array, ""]
    memory: Memory = Memory()
    fixed: Fixed | None = None

    def advanced(self, params: Params, opt_state: Any) -> "TrainState":
        """The state after an iteration that ends with these parameters."""
        memory, iteration = self.memory, self.iteration + 1
        if memory.player is not None:
            refresh = iteration % self.config.refresh_every == 0
            player = jax.tree.map(lambda new, old: jnp.where(refresh, new, old), params, memory.player)
            memory = dataclasses.replace(memory, player=player)
        return dataclasses.replace(self, params=params, opt_state=opt_state, iteration=iteration, memory=memory)


@pytree
class IterationKeys:
    """One key per purpose of the coming iteration.

    play: the scenarios, the policy's draws and the reward noise of the rollouts.
    branch: the branch rounds.
    update: the order of the minibatches.
    selection: what a rule of selection draws.
    """

    play: ScalarKey
    branch: ScalarKey
    update: ScalarKey
    selection: ScalarKey

    @classmethod
    def of(cls, state: TrainState) -> "IterationKeys":
        """Those of the coming iteration."""
        key = jax.random.fold_in(state.key, state.iteration)
        return cls(*jax.random.split(key, 3), selection=jax.random.fold_in(key, 3))


def init(config: RMFTConfig, key: ScalarKey) -> TrainState:
    """A policy with random weights, or at the start of the theory's model, ready for the first iteration.

    Raises:
      ConfigError: if the configuration cannot work.
    """
    config.validate()
    params_key, train_key = jax.random.split(key)
    return state_of(config, config.init_params(params_key), train_key)


def starting_from(config: RMFTConfig, key: ScalarKey, params: Params) -> TrainState:
    """Trained parameters, ready for the first iteration of another run; all but its weights is as `init` has it.

    Raises:
      ConfigError: if the configuration cannot work, or the parameters are not those of its network.
    """
    start = init(config, key)
    leaves = map(jax.tree_util.tree_leaves_with_path, (start.params, params))
    shapes = [{jax.tree_util.keystr(at): leaf.shape for at, leaf in of_one} for of_one in leaves]
    own, given = shapes
    other = next((at for at in [*own, *given] if own.get(at) != given.get(at)), "")
    require(
        own == given,
        f"weights of another network (at {other} {given.get(other, 'nothing')}, not {own.get(other, 'nothing')}) than "
        f"policy={config.policy} with num_arms={config.environment.num_arms}",
        "those of this very one",
        "the settings of the policy and the num_arms that they were trained with",
    )
    return state_of(config, jax.tree.map(jnp.asarray, params), start.key)


def state_of(config: RMFTConfig, params: Params, key: ScalarKey, fixed: Fixed | None = None) -> TrainState:
    """These parameters, ready for the first iteration, with `key` as root key of training.

    `fixed`: as in `RMFTConfig.agent`.
    """
    fixed = config.fixed_params() if fixed is None else fixed

    def copy() -> Params:  # A state may be donated, in which no array must occur twice.
        return jax.tree.map(jnp.copy, params)

    config = _as_arrays(config)
    return TrainState(
        config=config,
        params=params,
        opt_state=config.update.init(params, config.num_iterations),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
        memory=Memory(
            player=copy() if config.refresh_every > 1 else None,
            initial=copy() if config.objective.kl_reference == "initial" else None,
        ),
        fixed=jax.tree.map(jnp.asarray, fixed),
    )


def abstract_state(config: RMFTConfig) -> TrainState:
    """The configuration, what is not trained, and shapes and dtypes of all else: what a checkpoint goes into."""
    state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return dataclasses.replace(state, config=_as_arrays(config), fixed=config.fixed_params())


def make_agent(state: TrainState, *, explore: bool = False) -> TrainedAgent:
    """The current policy as an agent that plays, at `play_temperature` or, with `explore`, as in rollouts."""
    return state.config.agent(state.params, state.fixed, explore=explore)


def make_player(state: TrainState) -> Agent:
    """Who plays the rollouts of the coming iteration."""
    params = state.params if state.memory.player is None else state.memory.player
    config, problem = state.config, state.config.problem()
    player = config.objective.player(problem)
    if player is None:
        return config.agent(params, state.fixed, explore=True)
    return config.policy.narrated(player, problem, state.fixed)


def _as_arrays(config: RMFTConfig) -> RMFTConfig:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), config)
