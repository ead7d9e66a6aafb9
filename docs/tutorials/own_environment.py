"""A world of your own: a bandit whose arms have two sets of means, between which a hidden chain switches.

Everything works with it once the file is imported:

    rmft train quickstart --import docs/tutorials/own_environment.py --environment markov --switch-rate 0.05 \
        --out runs/markov
    rmft bench-agents markov --import docs/tutorials/own_environment.py
    rmft sweep docs/tutorials/own_environment.toml --out runs/markov-grid
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax import ObliviousEnvironment, register_environment
from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require_number


@register_environment("markov")
class Markov(ObliviousEnvironment):
    """A Markov-modulated bandit: a hidden chain of two states, each with means of its own, uniform on [0, 1].

    The expected number of switches, and with it the expected variation, is at most switch_rate (T - 1).
    """

    switch_rate: float = 0.1
    """Probability of a switch between two rounds."""

    def validate_law(self, horizon: int) -> None:
        """Checks the rate."""
        require_number(self.switch_rate, "switch_rate", "in [0, 1]", 0 <= self.switch_rate <= 1, 0.1)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        """The means of the state of every round. A key per state and per round: more of them change no others."""
        means_key, chain_key = jax.random.split(key)

        def uniform(key: ScalarKey, index: Array, *shape: int) -> Array:
            return jax.random.uniform(jax.random.fold_in(key, index), shape)

        means = jax.vmap(lambda state: uniform(means_key, state, self.num_arms))(jnp.arange(2))
        draws = jax.vmap(lambda round: uniform(chain_key, round))(jnp.arange(round_mask.shape[0]))
        switches = (draws < self.switch_rate) & (jnp.arange(round_mask.shape[0]) > 0)
        return means[jnp.cumsum(switches) % 2]
