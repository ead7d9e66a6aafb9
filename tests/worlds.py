"""Small settings, and environments with known answers."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import BanditConfig, Feedback, RegretKind, RMFTConfig, RunConfig, TransformerConfig
from rmft_jax.types import Decision, Outcome, ScalarKey, pytree, static_field

TINY = RMFTConfig(
    environment=BanditConfig(num_arms=3),
    policy=TransformerConfig(num_layers=2, width=8, num_heads=2),
    horizon=6,
    num_iterations=6,
    num_scenarios=8,
    num_rollouts=4,
    k=2,
    num_minibatches=2,
)
TINY_RUN = RunConfig(
    dataclasses.replace(TINY, policy=TransformerConfig(num_layers=1, width=8)),
    chunk_size=2,
    num_validation_scenarios=16,
    num_test_scenarios=32,
)


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


@pytree
class Adversary:
    """Adaptive: the arm to which the policy gives most weight earns nothing this round, every other one earns 1."""

    arms: Float[Array, "K"]
    feedback: Feedback = static_field(default="bandit")
    standard_regret: RegretKind = static_field(default="static")

    @property
    def num_arms(self) -> int:
        return self.arms.shape[0]

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, ""]:
        del key, arm_mask, round_mask
        return jnp.zeros(())

    def mean_rewards(self, state: Float[Array, ""], round: Int[Array, ""]) -> Float[Array, "K"]:
        del state, round
        return jnp.full_like(self.arms, jnp.nan)

    def step(
        self, key: ScalarKey, state: Float[Array, ""], decision: Decision, round: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Outcome]:
        del key, round
        rewards = (jnp.arange(self.num_arms) != jnp.argmax(decision.probabilities)).astype(jnp.float32)
        return state, Outcome(mean_rewards=rewards, rewards=rewards)
