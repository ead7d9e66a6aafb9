"""The nouns that every other module shares: frozen pytrees whose fields start with their shape.

Axis letters: `M` scenarios, `L` rollouts of each, `T` rounds, `K` arms. Leading batch axes come from `jax.vmap`, so
every type is written for a single trajectory.
"""

import dataclasses
import typing
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from rmft_jax import config as config_lib

_T = TypeVar("_T")

Params = PyTree[Float[Array, "..."]]
ScalarKey = Key[Array, ""]


def static_field(default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of a pytree's structure (shapes, choices of code), not one of its arrays."""
    return dataclasses.field(default=default, metadata={"static": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static_field,))
def pytree(cls: type[_T]) -> type[_T]:
    """Makes a class a frozen dataclass and a pytree."""
    frozen: Any = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)
    static = [field.name for field in fields if field.metadata.get("static")]
    return _register(frozen, [field.name for field in fields if field.name not in static], static)


def _register(cls: Any, data: list[str], static: list[str]) -> Any:
    """Registers a dataclass as a pytree.

    Not with `jax.tree_util.register_dataclass`: as of JAX 0.10, two dataclasses with equal static fields have equal
    structures whatever their types, so `jit` may hand a call with one agent the program compiled for another.
    """

    def flatten_with_keys(node: Any) -> tuple[list[Any], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in data]
        return children, tuple(getattr(node, name) for name in static)

    def unflatten(meta: tuple[Any, ...], children: Any) -> Any:
        return cls(**dict(zip(static, meta, strict=True)), **dict(zip(data, children, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def _register_config(cls: type) -> None:
    hints, names = typing.get_type_hints(cls), [field.name for field in dataclasses.fields(cls)]
    data = [name for name in names if hints[name] is float or dataclasses.is_dataclass(hints[name])]
    _register(cls, data, [name for name in names if name not in data])


for _cls in config_lib.CONFIG_CLASSES:
    _register_config(_cls)


@pytree
class Context:
    """What holds when a decision is due.

    round: `[]` the round, counted from 0.
    horizon: `[]` number of rounds T.
    arm_mask: `[K]` true where the arm exists.
    mean_rewards: `[K]` expected rewards `r_t` of this round. Privileged: only reference policies (the best arm) may
      read it.
    """

    round: Int[Array, ""]
    horizon: Int[Array, ""]
    arm_mask: Bool[Array, "K"]
    mean_rewards: Float[Array, "K"]


@pytree
class Decision:
    """A policy and the arm drawn from it.

    action: `[]` the arm played, `a_t ~ pi_t`.
    probabilities: `[K]` the policy `pi_t`, given everything the agent drew before it (so an agent that randomizes
      inside, as Thompson sampling does, reports a point mass). Where the decision set is a ball, its point `x_t`.
    scores: `[K]` what the policy was mapped from, `z_t + sigma eps_t`, for an agent that explores there; else None.
    """

    action: Int[Array, ""]
    probabilities: Float[Array, "K"]
    scores: Float[Array, "K"] | None = None


@pytree
class Outcome:
    """One round of the environment, before the feedback mode decides what the agent sees.

    mean_rewards: `[K]` expected rewards `r_t`.
    rewards: `[K]` realized rewards `R_t`.
    """

    mean_rewards: Float[Array, "K"]
    rewards: Float[Array, "K"]


@pytree
class Trajectory:
    """One agent's play of one scenario.

    actions: `[T]` arms played.
    rewards: `[T]` rewards received, `R_t(a_t)`.
    probabilities: `[T, K]` policies `pi_t`.
    mean_rewards: `[T, K]` expected rewards `r_t`.
    reward_table: `[T, K]` realized rewards `R_t` of every arm, played or not.
    scores: `[T, K]` what the policies were mapped from, for an agent that explores there; else None.
    arm_mask: `[K]` true where the arm exists; the tables hold 0 elsewhere.
    round_mask: `[T]` true where the round is played, the first ones; what stands in the others means nothing. None: all
      are.
    """

    actions: Int[Array, "*batch T"]
    rewards: Float[Array, "*batch T"]
    probabilities: Float[Array, "*batch T K"]
    mean_rewards: Float[Array, "*batch T K"]
    reward_table: Float[Array, "*batch T K"]
    scores: Float[Array, "*batch T K"] | None
    arm_mask: Bool[Array, "*batch K"]
    round_mask: Bool[Array, "*batch T"] | None = None

    @property
    def played(self) -> Bool[Array, "*batch T"]:
        """True where the round is played."""
        return jnp.ones(self.actions.shape, bool) if self.round_mask is None else self.round_mask

    def at_horizon(self, per_round: Shaped[Array, "*batch T"]) -> Shaped[Array, "*batch"]:
        """The entry of the last round that is played."""
        if self.round_mask is None:
            return per_round[..., -1]
        last = jnp.sum(self.round_mask, axis=-1, keepdims=True) - 1
        return jnp.take_along_axis(per_round, last, axis=-1)[..., 0]


@pytree
class Extent:
    """How much of padded shapes is in use: the first arms, and the first rounds.

    num_arms: `[]` arms that exist.
    horizon: `[]` rounds that are played.
    """

    num_arms: Int[Array, ""] | int
    horizon: Int[Array, ""] | int

    def arm_mask(self, size: int) -> Bool[Array, "K"]:
        """`[size]` true where the arm exists."""
        return jnp.arange(size) < self.num_arms

    def round_mask(self, size: int) -> Bool[Array, "T"]:
        """`[size]` true where the round is played."""
        return jnp.arange(size) < self.horizon


@pytree
class KeptBatch:
    """The trajectories that are imitated, as teacher-forced training data.

    trajectory: batch axis `[B]`.
    weights: `[B, T]` 1 where the decision is imitated, 0 in the shared past before the branch round.
    advantages: `[B, T]` of the decisions, for the policy gradients; else None.
    """

    trajectory: Trajectory
    weights: Float[Array, "*batch T"]
    advantages: Float[Array, "*batch T"] | None = None


@pytree
class IterationMetrics:
    """What one iteration tells, each a scalar (stacked over iterations by a chunk).

    regret: mean regret of all M * L trajectories at the horizon, before the update; that of the setting.
    selected_regret: the same over the kept trajectories.
    loss: mean objective over the iteration's optimizer updates; before the fit, where that is exact.
    grad_norm: mean global gradient norm over the updates, before clipping; before the fit, where that is exact.
    entropy: mean entropy of the rollout policy over rounds and trajectories, in nats; 0 where play is a point.
    suff_fail_freq: fraction of trajectories that never play a best arm from round T/2 on; of play in a ball it says
      nothing.
    """

    regret: Float[Array, "*n"]
    selected_regret: Float[Array, "*n"]
    loss: Float[Array, "*n"]
    grad_norm: Float[Array, "*n"]
    entropy: Float[Array, "*n"]
    suff_fail_freq: Float[Array, "*n"]


@pytree
class Memory:
    """What some settings ask a run to remember beside the newest weights; None where they do not.

    player: the policy that plays the rollouts (`refresh_every`).
    initial: the policy at the start (`kl_reference`).
    average: the average of the weights (`average_window`).
    replay: `[replay, N]` what was kept in the last iterations, newest first; of weight 0 where there was none.
    """

    player: Params | None = None
    initial: Params | None = None
    average: Params | None = None
    replay: KeptBatch | None = None


@pytree
class TrainState:
    """Everything that an iteration reads and writes; arrays only, save for the static settings inside `config`.

    config: the algorithm. Its floats are leaves (traced, vmappable), the rest is part of the pytree's structure.
    params: parameters of the policy.
    opt_state: state of the optimizer.
    key: root key of training. It never changes: iteration n draws from `fold_in(key, n)`.
    iteration: `[]` iterations done.
    memory: what else is carried on.
    """

    config: config_lib.RMFTConfig
    params: Params
    opt_state: PyTree[Shaped[Array, "..."]]
    key: ScalarKey
    iteration: Int[Array, ""]
    memory: Memory = Memory()

    @property
    def evaluated_params(self) -> Params:
        """The parameters of the policy that is evaluated: the averaged ones, if there are."""
        return self.params if self.memory.average is None else self.memory.average
