"""A network of your own: a GRU in Flax NNX, trained by RMFT in place of the Transformer.

    rmft train quickstart --import docs/tutorials/own_policy.py --policy gru --hidden-size 64 --out runs/gru
    rmft evaluate runs/gru --grid horizon=30,60
    rmft train fol --import docs/tutorials/own_policy.py --policy gru --out runs/gru-fol

In a sweep's TOML file `import = ["own_policy.py"]` lets `policy = ["transformer", "gru"]` or `hidden_size` be an axis.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rmft_jax import RecurrentPolicy, register_policy
from rmft_jax.config.checks import require_count


class Network(nnx.Module):
    """A GRU cell, and a linear layer from its state to an output per arm."""

    def __init__(self, token_size: int, hidden_size: int, num_arms: int, rngs: nnx.Rngs):
        self.cell = nnx.GRUCell(token_size, hidden_size, rngs=rngs)
        self.head = nnx.Linear(hidden_size, num_arms, rngs=rngs)

    def __call__(
        self, memory: Float[Array, "H"], token: Float[Array, "I"]
    ) -> tuple[Float[Array, "H"], Float[Array, "K"]]:
        """The next memory, and logits or scores, of all arms; those of absent ones are masked by the caller."""
        memory, hidden = self.cell(memory, token)
        return memory, self.head(hidden)


@register_policy("gru")
class GRU(RecurrentPolicy):
    """A gated recurrent unit (Cho et al. 2014)."""

    hidden_size: int = 32
    """Numbers that it carries from round to round."""

    def validate(self) -> None:
        """Checks the size."""
        super().validate()
        require_count(self.hidden_size, "hidden_size", 1, 32)

    def network(self, token_size: int, num_arms: int, rngs: nnx.Rngs) -> Network:
        """The cell and its head, with random weights."""
        return Network(token_size, self.hidden_size, num_arms, rngs)

    def memory(self) -> Float[Array, "H"]:
        """Nothing seen yet."""
        return jnp.zeros(self.hidden_size)
