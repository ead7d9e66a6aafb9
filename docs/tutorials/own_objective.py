r"""An objective of your own: imitation with label smoothing.

    rmft train quickstart --import docs/tutorials/own_objective.py --objective smoothed --label-smoothing 0.05 \
        --entropy-weight 0 --out runs/smoothed

In a sweep's TOML file `import = ["own_objective.py"]` lets `objective = ["imitation", "smoothed"]` or, with
`objective = "smoothed"` in [override], `label_smoothing` be an axis.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax import Objective, RMFTConfig, register_objective
from rmft_jax.config.checks import require, require_number
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.objectives import action_loss, cross_entropy


@register_objective("smoothed")
class Smoothed(Objective):
    """The kept decisions are imitated, mixed with uniform play (label smoothing, Szegedy et al. 2016)."""

    label_smoothing: float = 0.1
    """Weight of uniform play in what is imitated."""

    def validate(self, config: RMFTConfig) -> None:
        """Checks the weight, and that there are probabilities of arms."""
        super().validate(config)
        ok = 0 <= self.label_smoothing < 1
        require_number(self.label_smoothing, "label_smoothing", "in [0, 1)", ok, 0.1)
        got = f"objective={self.name!r} with a policy that emits scores"
        require(not config.has_scores, got, "logits of arms", "feedback='bandit'")

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: RMFTConfig) -> Float[Array, "T"]:
        """Cross-entropy in nats to `(1 - s) [the kept arm] + s [uniform over the arms that exist]`, per round."""
        trajectory, weight = kept.trajectory, self.label_smoothing
        arms = trajectory.arm_mask[None, :].astype(jnp.float32)
        uniform = arms / jnp.sum(arms)
        smoothing = cross_entropy(uniform, jax.nn.log_softmax(outputs))
        return (1 - weight) * action_loss(outputs, trajectory) + weight * smoothing
