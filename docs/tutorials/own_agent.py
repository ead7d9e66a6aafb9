"""An agent of your own: Boltzmann exploration, beside the classical agents and the trained policies.

    rmft bench-agents bernoulli --import docs/tutorials/own_agent.py --agents boltzmann thompson ucb1 --tune
    rmft train quickstart --import docs/tutorials/own_agent.py --out runs/beside-boltzmann

A sweep plays it where its TOML file says `import = ["own_agent.py"]` and `baselines = ["boltzmann"]`.
"""

import jax
from jaxtyping import Array, Float

from rmft_jax import StatisticsAgent, register_agent
from rmft_jax.agents.statistics import ArmStatistics, untried_first
from rmft_jax.config import Number, ScalarKey
from rmft_jax.problems import Context


@register_agent("boltzmann", grids={"temperature": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)})
class Boltzmann(StatisticsAgent):
    """Plays an arm with probability proportional to `exp(mean / temperature)`, every arm once first.

    With a fixed temperature its regret can be linear in T (Cesa-Bianchi, Gentile, Lugosi, Neu 2017), which is why
    `--tune` sets it for the horizon at hand.

    temperature: in reward units.
    """

    temperature: Number = 0.1

    def _index(self, key: ScalarKey, state: ArmStatistics, context: Context) -> Float[Array, "K"]:
        """Empirical means and Gumbel noise, whose maximum is a draw from the softmax of the means.

        The base class plays the maximum over the arms that exist, and counts pulls and rewards.
        """
        noise = self.temperature * jax.random.gumbel(key, state.means.shape)
        return untried_first(state, state.means + noise)
