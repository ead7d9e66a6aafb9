"""What fine-tuning minimizes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents.transformer import TransformerAgent
from rmft_jax.types import KeptBatch


def imitation_loss(
    agent: TransformerAgent, batch: KeptBatch, entropy_weight: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Weighted cross-entropy of the kept decisions given their histories, minus a weighted entropy bonus.

    `sum_{b,t} w_bt (-log pi(a_bt | history) - entropy_weight * H(pi(. | history)))`: maximum likelihood of the
    model's own decisions (Park et al. 2025), with the entropy bonus as a lever of ours. The sum is not normalized;
    weights that sum to one over a minibatch make it a mean over imitated rounds. The temperature of rollouts plays
    no part: the loss is that of the logits.
    """

    def per_trajectory(trajectory: KeptBatch) -> Float[Array, ""]:
        logits = agent.logits(trajectory.actions, trajectory.rewards, trajectory.arm_mask)
        log_probs = jax.nn.log_softmax(logits)
        nll = -jnp.take_along_axis(log_probs, trajectory.actions[:, None], axis=-1)[:, 0]
        return jnp.sum(trajectory.weights * (nll - entropy_weight * entropy(log_probs)))

    return jnp.sum(jax.vmap(per_trajectory)(batch))


def entropy(log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Entropy in nats; arms of probability zero add nothing, to value and gradient alike."""
    finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0.0)
    return -jnp.sum(jnp.where(jnp.isfinite(log_probs), jnp.exp(finite), 0.0) * finite, axis=-1)
