"""The base of environments whose expected rewards do not depend on play."""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require
from rmft_jax.problems.base import Environment
from rmft_jax.problems.types import Decision, Outcome


class ObliviousEnvironment(Environment):
    """Expected rewards are a path that is drawn when the scenario begins, as `path` says.

    The rewards of all arms are drawn in every round, so that agents which are handed the same key meet the same
    rewards, whatever they play. The state of a scenario is its path `[n, K]`, zero where an arm is absent; after the
    last of its rows, that row holds.
    """

    @property
    def adaptive(self) -> bool:
        """Play changes nothing."""
        return False

    @abc.abstractmethod
    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "n K"]:
        """Draws the expected rewards of rounds 1 to n; what stands in rounds that are not played does not matter."""

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "n K"]:
        """Draws the path of one scenario.

        Raises:
          ConfigError: if the path has another shape.
        """
        path = self.path(key, arm_mask, round_mask)
        turned = len(path.shape) == 2 and path.shape[0] == self.num_arms
        require(
            len(path.shape) == 2 and path.shape[1] == self.num_arms,
            f"a path of shape {path.shape} from {type(self).__name__}",
            f"(n, {self.num_arms}), one row per round and one column per arm",
            "its transpose" if turned else f"(1, {self.num_arms}) where nothing ever changes",
        )
        return jnp.where(arm_mask[None], path, 0.0)

    def mean_rewards(self, state: Float[Array, "n K"], round: Int[Array, ""]) -> Float[Array, "K"]:
        """The path's row."""
        return state[0] if state.shape[0] == 1 else state[jnp.minimum(round, state.shape[0] - 1)]

    def step(
        self, key: ScalarKey, state: Float[Array, "n K"], decision: Decision, round: Int[Array, ""]
    ) -> tuple[Float[Array, "n K"], Outcome]:
        """Draws the rewards of all arms; the decision does not matter."""
        means = self.mean_rewards(state, round)
        return state, Outcome(mean_rewards=means, rewards=self.draw_rewards(key, means))


def random_ranks(key: ScalarKey, arm_mask: Bool[Array, "K"]) -> Int[Array, "K"]:
    """The place of each arm in a random order of those that exist; absent ones come after them."""
    return jnp.argsort(jnp.argsort(jnp.where(arm_mask, jax.random.uniform(key, arm_mask.shape), jnp.inf)))
