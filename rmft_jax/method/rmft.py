"""Iterative regret-minimization fine-tuning (Park, Chen, Ozdaglar, Zhang 2025), on one page.

Each iteration draws M scenarios, lets the current policy play each of them L times, keeps the k trajectories of
lowest regret per scenario, and fine-tunes the policy on them by maximum likelihood of its own decisions. No expert is
imitated. An iteration is one compiled call; so is a chunk of n of them.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import pytree
from rmft_jax.method.devices import AXIS, Shares, on_mesh
from rmft_jax.method.fine_tuning import Fit
from rmft_jax.method.judging import Judged, judge, take_rollouts, training_data
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.objectives import entropy
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.state import IterationKeys, TrainState, make_player
from rmft_jax.problems import Extent, Problem, Trajectory
from rmft_jax.statistics import diagnostics
from rmft_jax.statistics.growth import half_horizon


@pytree
class IterationMetrics:
    """What one iteration tells, each a scalar (stacked over iterations by a chunk).

    regret: mean regret of all M * L trajectories at the horizon, before the update; that of the setting.
    selected_regret: the same over the kept trajectories.
    loss: mean objective over the iteration's optimizer updates; before the fit, where that is exact.
    grad_norm: mean global gradient norm over the updates, before clipping; before the fit, where that is exact.
    entropy: mean entropy of the rollout policy over rounds and trajectories, in nats; 0 where play is a point. Of a
      policy that writes it is that of the decision, given what was written before it.
    suff_fail_freq: fraction of trajectories that never play a best arm from round T/2 on; of play in a ball it says
      nothing.
    regret_spread: standard deviation of that regret over the rollouts of a scenario, averaged over scenarios: what
      selection chooses from.
    invalid: fraction of rounds in which what was written named no arm; 0 of agents that do not write.
    """

    regret: Float[Array, "*n"]
    selected_regret: Float[Array, "*n"]
    loss: Float[Array, "*n"]
    grad_norm: Float[Array, "*n"]
    entropy: Float[Array, "*n"]
    suff_fail_freq: Float[Array, "*n"]
    regret_spread: Float[Array, "*n"]
    invalid: Float[Array, "*n"]


def iteration(
    state: TrainState, extent: Extent | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, IterationMetrics]:
    """One iteration of the method.

    Args:
      state: where training stands.
      extent: how many of the arms and rounds of `state.config` are in use, so that one program serves problems of
        several sizes; the result is that of a state of just this size, but for rounding. None: all.
      mesh: of devices that each play their share of the scenarios (`devices.make_mesh`); the result is that of a single
        one, but for rounding. None: one.

    Raises:
      ConfigError: if the scenarios cannot be dealt out evenly.
    """
    config, keys = state.config, IterationKeys.of(state)
    problem = config.problem(extent)
    played, own_rounds = play_rollouts(state, problem, keys, mesh)  # 1 and 2: scenarios, L rollouts each
    judged = judge(config, problem, played)  # 3: the regret of each
    kept = config.selection.keep(keys.selection, judged)  # 4: the lowest
    data = training_data(config, judged, kept, own_rounds)
    state, fit = config.update.fine_tune(state, data, keys.update, mesh)  # 5
    return state, measured(problem, judged, kept, fit)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def iterate(
    state: TrainState, extent: Extent | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, IterationMetrics]:
    """`iteration`, compiled once per set of shapes. The given state is donated: use the returned one."""
    return iteration(state, extent, mesh)


@functools.partial(jax.jit, static_argnums=(1, 3), donate_argnums=0)
def iterate_chunk(
    state: TrainState, num_iterations: int, extent: Extent | None = None, mesh: Mesh | None = None
) -> tuple[TrainState, IterationMetrics]:
    """`num_iterations` iterations as one compiled scan, with metrics stacked along the first axis."""
    return jax.lax.scan(lambda state, _: iteration(state, extent, mesh), state, None, length=num_iterations)


def play_rollouts(
    state: TrainState, problem: Problem, keys: IterationKeys, mesh: Mesh | None = None
) -> tuple[Trajectory, Bool[Array, "M T"]]:
    """L rollouts of each of M scenarios, dealt out over the devices of a mesh.

    Returns:
      The trajectories, with axes `[M, L]`, and in which rounds the rollouts of a scenario are on their own: where they
      branch, those before the branch round are the past that all of them share.
    """
    config = state.config
    branch_rounds, own_rounds = None, jnp.ones((config.num_scenarios, problem.horizon), bool)
    if config.branching == "uniform":
        branch_rounds = jax.random.randint(keys.branch, (1, config.num_scenarios), 0, problem.rounds)[0]
        own_rounds = jnp.arange(problem.horizon)[None, :] >= branch_rounds[:, None]

    def play(
        shares: Shares, state: TrainState, problem: Problem, keys: IterationKeys, branch_rounds: Int[Array, "M"] | None
    ) -> Trajectory:
        shares.require_even(config.num_scenarios, "num_scenarios")
        return rollout_scenarios(
            make_player(state),
            problem,
            RolloutKeys.create(keys.play),
            num_scenarios=config.num_scenarios // shares.number,
            first_scenario=shares.first(config.num_scenarios),
            num_rollouts=config.num_rollouts,
            branch_rounds=shares.own(branch_rounds),
            shared_reward_noise=config.shared_reward_noise,
            block=config.rollout_block,
        )

    played = on_mesh(mesh, play, state, problem, keys, branch_rounds, out=PartitionSpec(AXIS))
    return played, own_rounds


@functools.partial(jax.jit, static_argnums=1)
def play(state: TrainState, mesh: Mesh | None = None) -> Trajectory:
    """The rollouts of the coming iteration, with axes `[M, L]`, dealt out over the devices of a mesh."""
    return play_rollouts(state, state.config.problem(), IterationKeys.of(state), mesh)[0]


def measured(problem: Problem, judged: Judged, kept: Int[Array, "G n"], fit: Fit) -> IterationMetrics:
    """What an iteration tells of itself."""
    played = judged.trajectory
    entropies = jnp.zeros(played.actions.shape) if problem.points else entropy(jnp.log(played.probabilities))
    return IterationMetrics(
        regret=jnp.mean(judged.setting_regret),
        selected_regret=jnp.mean(take_rollouts(judged.setting_regret, kept)),
        loss=fit.loss,
        grad_norm=fit.grad_norm,
        entropy=jnp.mean(entropies, where=played.played),
        suff_fail_freq=jnp.mean(diagnostics.suff_fail(played, half_horizon(problem.rounds))),
        regret_spread=jnp.mean(jnp.std(judged.setting_regret, axis=1)),
        invalid=jnp.mean(diagnostics.invalid_frac(played)),
    )
