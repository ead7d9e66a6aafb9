r"""A world of your own: a bandit whose arms have two sets of means, between which a hidden chain switches.

Once its file is imported, everything works with it:

    rmft train quickstart --import docs/tutorials/own_environment.py --environment markov --switch-rate 0.05 \
        --out runs/markov
    rmft train --out runs/markov --resume            # after Ctrl-C; a run remembers what it imported
    rmft evaluate runs/markov
    rmft bench-agents markov --import docs/tutorials/own_environment.py --switch-rate 0.05 --tune
    rmft sweep docs/tutorials/own_environment.toml --out runs/markov-grid       # also with --executor ray
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

    V_T is at most the number of switches, which is (T - 1) switch_rate on average.
    """

    switch_rate: float = 0.1
    """Probability of a switch between two rounds."""

    def validate_law(self, horizon: int) -> None:
        """Checks the rate."""
        require_number(self.switch_rate, "switch_rate", "in [0, 1]", 0 <= self.switch_rate <= 1, 0.1)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "T K"]:
        """The means of every round's state.

        Draws of shape `[K]` or `[T]` begin alike whatever K and T are, so that a sweep may pad them; those of shape
        `[T, K]` would not.
        """
        first, second, chain = jax.random.split(key, 3)
        means = jnp.stack([jax.random.uniform(state, arm_mask.shape) for state in (first, second)])
        switches = jax.random.uniform(chain, round_mask.shape) < self.switch_rate
        return means[jnp.cumsum(switches) % 2]
