"""What fine-tuning minimizes: losses per round of one kept trajectory, each `[T]`."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents import FullInformationTransformer, SingleLayerAgent, TrainedAgent
from rmft_jax.config import RMFTConfig
from rmft_jax.regret import Regret, of_action
from rmft_jax.types import Trajectory

# How far GRPO lets a decision's probability move, as a factor, before it counts no more (Schulman et al. 2017).
_CLIP = 0.2


def round_losses(
    config: RMFTConfig,
    agent: TrainedAgent,
    trajectory: Trajectory,
    advantages: Float[Array, "T"] | None = None,
    reference: TrainedAgent | None = None,
) -> Float[Array, "T"]:
    """The configured objective, with its entropy bonus and its pull towards a reference policy.

    Args:
      config: the algorithm.
      agent: the policy, without exploration.
      trajectory: a kept one.
      advantages: of its decisions (`advantages.py`), for the policy gradients.
      reference: the policy at the start, where that is what the policy is kept near to.
    """
    if config.objective == "regret_loss":
        return regret_loss(agent, trajectory)
    outputs = agent.outputs(trajectory)
    match config.objective:
        case "rmft" | "distillation":
            losses = decision_loss(config, outputs, trajectory)
        case "dpt":
            losses = best_arm_loss(outputs, trajectory, in_hindsight=config.environment.feedback == "full")
        case "reinforce":
            assert advantages is not None
            variance = config.exploration_std**2 if config.has_scores else 1.0
            losses = advantages * decision_loss(config, outputs, trajectory) / variance
        case "grpo":
            assert advantages is not None
            losses = clipped_loss(outputs, trajectory, advantages)
    if config.has_scores:
        return losses
    log_probs = jax.nn.log_softmax(outputs)
    losses = losses - config.entropy_weight * entropy(log_probs)
    if config.kl_reference == "none":
        return losses
    target = trajectory.probabilities if reference is None else jax.nn.softmax(reference.outputs(trajectory))
    return losses + config.kl_weight * (cross_entropy(target, log_probs) - entropy(jnp.log(target)))


def decision_loss(config: RMFTConfig, outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """Imitation of the decisions of a trajectory, in the form that the setting asks for."""
    if not config.has_scores:
        return action_loss(outputs, trajectory)
    return (squared_error if config.full_loss == "squared_error" else policy_loss)(outputs, trajectory)


def action_loss(outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """`-log pi(a_t | history)`: cross-entropy of the kept actions.

    Maximum likelihood of the model's own decisions (Park et al. 2025), or of those of the agent that played
    (algorithm distillation, Laskin et al. 2023). The temperature of rollouts plays no part: the loss is that of the
    logits.
    """
    return -of_action(jax.nn.log_softmax(outputs), trajectory.actions)


def squared_error(outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """`|z_t - y_t|^2 / 2` to the kept `y_t = z_t + sigma eps_t`, over existing arms.

    Up to a factor and a constant the Gaussian log-likelihood of the model's own decisions (Park et al. 2025).
    """
    assert trajectory.scores is not None, "the trajectory must be of an agent that emits scores"
    error = jnp.where(trajectory.arm_mask, outputs - trajectory.scores, 0.0)
    return jnp.sum(jnp.square(error), axis=-1) / 2


def policy_loss(outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """`-sum_a pi_t(a) log softmax(z_t)(a)`: cross-entropy to the kept policies (ours).

    It pulls towards uniform play, because `softmax(z + noise)` is on average flatter than `softmax(z)`; large noise
    outweighs what selection gains.
    """
    return cross_entropy(trajectory.probabilities, jax.nn.log_softmax(outputs))


def best_arm_loss(
    outputs: Float[Array, "T K"], trajectory: Trajectory, *, in_hindsight: bool = False
) -> Float[Array, "T"]:
    """`-log softmax(z_t)(a*)`: prediction of the best arm from the history (Lee et al. 2023, DPT).

    The arm of highest expected reward in the round, or the best fixed one in hindsight. The best predictor is its
    posterior, and drawing from that is Thompson sampling.
    """
    worth = trajectory.mean_rewards
    if in_hindsight:
        rewards = jnp.where(trajectory.played[:, None], trajectory.reward_table, 0.0)
        worth = jnp.broadcast_to(jnp.sum(rewards, axis=0), worth.shape)
    best = jnp.argmax(jnp.where(trajectory.arm_mask, worth, -jnp.inf), axis=-1)
    return -of_action(jax.nn.log_softmax(outputs), best)


def clipped_loss(
    outputs: Float[Array, "T K"], trajectory: Trajectory, advantages: Float[Array, "T"]
) -> Float[Array, "T"]:
    """`-min(rho_t A_t, clip(rho_t, 0.8, 1.2) A_t)` with `rho_t` the ratio of new to old probability of the action.

    The surrogate of Schulman et al. (2017) with the advantages of GRPO (Shao et al. 2024).
    """
    now = of_action(jax.nn.log_softmax(outputs), trajectory.actions)
    before = jnp.log(of_action(trajectory.probabilities, trajectory.actions))
    ratio = jnp.exp(now - before)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - _CLIP, 1 + _CLIP) * advantages)


def regret_loss(agent: TrainedAgent, trajectory: Trajectory) -> Float[Array, "T"]:
    """`max(Reg_T, 0)^2 / T` in every round: the regret of the policy itself on the rewards of a trajectory.

    The regret-loss of Park et al. (2024) with a single trajectory per term and the square as its increasing function;
    it has a gradient because under full information play does not change what is seen. The regret is static, of the
    policies or, in a ball, of the points.
    """
    assert isinstance(agent, FullInformationTransformer | SingleLayerAgent), "the agent must map scores"
    score_map = agent.score_map
    policies = jax.vmap(score_map.policy, in_axes=(0, None))(agent.outputs(trajectory), trajectory.arm_mask)
    played = dataclasses.replace(trajectory, probabilities=policies)
    kind = "ball" if score_map.decision_map in ("ball", "identity") else "static"
    regret = Regret(kind, "expected", score_map.radius).final(played)
    count = jnp.sum(trajectory.played)
    return jnp.full(trajectory.actions.shape, jnp.square(jnp.maximum(regret, 0.0)) / count)


def cross_entropy(target: Float[Array, "*batch K"], log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """`-sum_a target(a) log_probs(a)` over arms of positive probability."""
    present = jnp.isfinite(log_probs)
    return -jnp.sum(jnp.where(present, target * jnp.where(present, log_probs, 0.0), 0.0), axis=-1)


def entropy(log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Entropy in nats; arms of probability zero add nothing, to value and gradient alike."""
    finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0.0)
    return -jnp.sum(jnp.where(jnp.isfinite(log_probs), jnp.exp(finite), 0.0) * finite, axis=-1)
