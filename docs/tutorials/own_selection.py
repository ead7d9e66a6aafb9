"""A selection rule of your own: low regrets are kept more often than high ones, but not always.

    rmft train quickstart --import docs/tutorials/own_selection.py --selection soft --softness 0.5 --out runs/soft

In a sweep's TOML file `import = ["own_selection.py"]` lets `selection = ["regret", "soft", "random"]` or, with
`selection = "soft"` in [override], `softness` be an axis.
"""

import jax
from jaxtyping import Array, Int

from rmft_jax import RMFTConfig, Selection, register_selection
from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require_number
from rmft_jax.method.judging import Judged


@register_selection("soft")
class Soft(Selection):
    """k of each scenario, drawn without replacement with weights `exp(-regret / softness)`.

    It lies between the rule `regret`, which is softness 0, and the control `random`. Drawn by Gumbel noise on the
    logarithms of the weights, of which the k largest are kept (Kool, van Hoof, Welling 2019).
    """

    softness: float = 1.0
    """In reward units, as regret is."""

    def validate(self, config: RMFTConfig) -> None:
        """Checks the softness."""
        super().validate(config)
        require_number(self.softness, "softness", "of at least 0", self.softness >= 0, 1.0)

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "M k"]:
        """The numbers of the kept rollouts."""
        noise = self.softness * jax.random.gumbel(key, judged.final.shape)
        return jax.lax.top_k(noise - judged.final, self.k)[1]
