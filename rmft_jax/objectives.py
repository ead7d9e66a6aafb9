"""What fine-tuning minimizes: losses per round of one kept trajectory, each `[T]`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents import BanditTransformer, TrainedAgent
from rmft_jax.types import Trajectory


def action_loss(
    agent: BanditTransformer, trajectory: Trajectory, entropy_weight: Float[Array, ""] | float = 0.0
) -> Float[Array, "T"]:
    """`-log pi(a_t | history) - entropy_weight * H(pi(. | history))`: cross-entropy of the kept actions.

    Maximum likelihood of the model's own decisions (Park et al. 2025), with the entropy bonus, in nats, as a lever of
    ours. The temperature of rollouts plays no part: the loss is that of the logits.
    """
    log_probs = jax.nn.log_softmax(agent.outputs(trajectory))
    nll = -jnp.take_along_axis(log_probs, trajectory.actions[:, None], axis=-1)[:, 0]
    return nll - entropy_weight * entropy(log_probs)


def squared_error(agent: TrainedAgent, trajectory: Trajectory) -> Float[Array, "T"]:
    """`|z_t - y_t|^2 / 2` to the kept `y_t = z_t + sigma eps_t`, over existing arms.

    Up to a factor and a constant the Gaussian log-likelihood of the model's own decisions (Park et al. 2025).
    """
    assert trajectory.scores is not None, "the trajectory must be of an agent that emits scores"
    error = jnp.where(trajectory.arm_mask, agent.outputs(trajectory) - trajectory.scores, 0.0)
    return jnp.sum(jnp.square(error), axis=-1) / 2


def policy_loss(agent: TrainedAgent, trajectory: Trajectory) -> Float[Array, "T"]:
    """`-sum_a pi_t(a) log softmax(z_t)(a)`: cross-entropy to the kept policies (ours).

    It pulls towards uniform play, because `softmax(z + noise)` is on average flatter than `softmax(z)`; large noise
    outweighs what selection gains.
    """
    log_probs = jax.nn.log_softmax(agent.outputs(trajectory))
    present = jnp.isfinite(log_probs)
    return -jnp.sum(jnp.where(present, trajectory.probabilities * jnp.where(present, log_probs, 0.0), 0.0), axis=-1)


def entropy(log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Entropy in nats; arms of probability zero add nothing, to value and gradient alike."""
    finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0.0)
    return -jnp.sum(jnp.where(jnp.isfinite(log_probs), jnp.exp(finite), 0.0) * finite, axis=-1)
