"""Where the randomness of rollouts comes from: a key per purpose, scenario, rollout and round."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from rmft_jax.config import ScalarKey, pytree


@pytree
class NoiseStreams:
    """Where the randomness of one rollout comes from, round by round: that of the policy, then that of the rewards.

    Before its `split_round` each is the stream that all rollouts of the scenario share, from there on the rollout's
    own. Keys are indexed by scenario, rollout and round, never by the shape of a batch. Both streams are derived in
    one call, because every call of the generator takes a compiler long.

    shared: `[2]` keys of the scenario's shared streams.
    own: `[2]` keys of the rollout's own streams.
    split_rounds: `[2]` first rounds that draw from the own streams.
    """

    shared: Key[Array, "2"]
    own: Key[Array, "2"]
    split_rounds: Int[Array, "2"]

    @classmethod
    def create(
        cls, scenario_keys: Key[Array, "2"], rollout: Int[Array, ""], split_rounds: Int[Array, "2"]
    ) -> "NoiseStreams":
        """The streams of one rollout. Rollout 0 lends its own as the shared ones."""
        keys = fold_each(jnp.tile(scenario_keys, 2), jnp.repeat(jnp.stack([jnp.zeros_like(rollout), rollout]), 2))
        return cls(keys[:2], keys[2:], split_rounds)

    def keys(self, round: Int[Array, ""]) -> Key[Array, "2"]:
        """The policy's and the rewards' key of one round."""
        return fold_each(jnp.where(round < self.split_rounds, self.shared, self.own), jnp.full(2, round))


def fold_each(keys: Key[Array, "n"], data: Int[Array, "n"]) -> Key[Array, "n"]:
    """`jax.random.fold_in`, pair by pair."""
    return jax.vmap(jax.random.fold_in)(keys, data)


@pytree
class RolloutKeys:
    """One key per purpose: the problems, the agent's own draws, the reward noise, and how problems are told."""

    scenario: ScalarKey
    policy: ScalarKey
    reward: ScalarKey
    telling: ScalarKey

    @classmethod
    def create(cls, key: ScalarKey) -> "RolloutKeys":
        """Independent keys."""
        return cls(*jax.random.split(key, 3), telling=jax.random.fold_in(key, 3))
