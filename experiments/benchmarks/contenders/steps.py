"""What the JAX contenders share of an iteration: its keys, the choice of trajectories, and its metrics."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax import diagnostics, rmft
from rmft_jax.growth import half_horizon
from rmft_jax.objectives import entropy
from rmft_jax.selection import select, take_rollouts
from rmft_jax.types import IterationMetrics, KeptBatch, ScalarKey, TrainState, Trajectory, pytree


@pytree
class Draws:
    """The randomness of one iteration, the same as in `rmft.iterate`.

    play, select, update: what the rollouts, a random selection and the order of the minibatches draw from.
    branch_rounds: `[M]` first round from which the rollouts of a scenario draw their own noise.
    """

    play: ScalarKey
    select: ScalarKey
    update: ScalarKey
    branch_rounds: Int[Array, "M"]

    @classmethod
    def of(cls, state: TrainState) -> "Draws":
        """Those of the coming iteration."""
        config = state.config
        key = jax.random.fold_in(state.key, state.iteration)
        play, branch, update = jax.random.split(key, 3)
        branch_rounds = jnp.zeros(config.num_scenarios, jnp.int32)
        if config.branching == "uniform":
            branch_rounds = jax.random.randint(branch, (config.num_scenarios,), 0, config.horizon)
        return cls(play, jax.random.fold_in(key, 3), update, branch_rounds)


@pytree
class Choice:
    """What is learned from, and what all rollouts of the iteration were like.

    data: the kept trajectories, with weight 0 before the branch rounds.
    regret, selected_regret, entropy, suff_fail_freq: as in `IterationMetrics`.
    """

    data: KeptBatch
    regret: Float[Array, ""]
    selected_regret: Float[Array, ""]
    entropy: Float[Array, ""]
    suff_fail_freq: Float[Array, ""]

    def metrics(self, loss: Float[Array, ""], grad_norm: Float[Array, ""]) -> IterationMetrics:
        """Those of the iteration, once the update is done."""
        return IterationMetrics(
            self.regret, self.selected_regret, loss, grad_norm, self.entropy, suff_fail_freq=self.suff_fail_freq
        )


def choose(state: TrainState, played: Trajectory, draws: Draws) -> Choice:
    """Keeps the trajectories of lowest regret of each scenario.

    Args:
      state: before the update.
      played: all trajectories, with batch axes `[M, L]`.
      draws: of this iteration.
    """
    config = state.config
    judge, standard = rmft.selection_regret(config), rmft.setting_regret(config)
    kept = select(config, draws.select, judge.final(played), judge.reward(played))
    own_rounds = jnp.arange(config.horizon)[None, None, :] >= draws.branch_rounds[:, None, None]
    weights = jnp.broadcast_to(own_rounds, played.actions.shape).astype(jnp.float32)
    regret = standard.final(played)
    return Choice(
        data=take_rollouts(KeptBatch(played, weights), kept),
        regret=jnp.mean(regret),
        selected_regret=jnp.mean(take_rollouts(regret, kept)),
        entropy=jnp.mean(entropy(jnp.log(played.probabilities))),
        suff_fail_freq=jnp.mean(diagnostics.suff_fail(played, half_horizon(config.horizon))),
    )
