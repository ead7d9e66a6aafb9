"""Small settings, and environments with known answers."""

import abc
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.agents import Transformer
from rmft_jax.config import ScalarKey, pytree, static_field
from rmft_jax.method.settings import RMFTConfig, RunConfig
from rmft_jax.problems import Decision, Environment, Feedback, Outcome, RegretKind, Stationary

TINY = RMFTConfig(
    environment=Stationary(num_arms=3),
    policy=Transformer(num_layers=2, width=8, num_heads=2),
    horizon=6,
    num_iterations=6,
    num_scenarios=8,
    num_rollouts=4,
).replace(k=2, num_minibatches=2)
TINY_RUN = RunConfig(
    TINY.replace(num_layers=1),
    chunk_size=2,
    num_validation_scenarios=16,
    num_test_scenarios=32,
)


@functools.partial(abc.ABCMeta.register, Environment)
@pytree
class TableWorld:
    """Plays back a recorded table of rewards, `[T, K]`, whose expectation is stated separately."""

    means: Float[Array, "K"]
    table: Float[Array, "T K"]
    feedback: Feedback = static_field(default="bandit")
    standard_regret: RegretKind = static_field(default="pseudo")

    @property
    def num_arms(self) -> int:
        return self.means.shape[0]

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "K"]:
        del key, round_mask
        return jnp.where(arm_mask, self.means, 0.0)

    def mean_rewards(self, state: Float[Array, "K"], round: Int[Array, ""]) -> Float[Array, "K"]:
        del round
        return state

    def step(
        self, key: ScalarKey, state: Float[Array, "K"], decision: Decision, round: Int[Array, ""]
    ) -> tuple[Float[Array, "K"], Outcome]:
        del key, decision
        return state, Outcome(mean_rewards=state, rewards=self.table[round])


def variation(means: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(means, axis=1)).max(-1).sum(-1)
