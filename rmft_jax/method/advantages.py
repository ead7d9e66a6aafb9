"""By how much a decision did better than others in its place: what the policy gradients weigh decisions by."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def regret_to_go(regret: Float[Array, "*batch T"], final: Float[Array, "*batch"]) -> Float[Array, "*batch T"]:
    """`Reg_T - Reg_{t-1}`: what is still lost from each round on, given cumulative regret and that at the horizon."""
    before = jnp.concatenate([jnp.zeros_like(regret[..., :1]), regret[..., :-1]], axis=-1)
    return final[..., None] - before


def reinforce_advantages(
    regret: Float[Array, "M L T"], final: Float[Array, "M L"], played: Bool[Array, "M L T"]
) -> Float[Array, "M L T"]:
    """How much less is lost from a round on than in the mean of the scenario's rollouts, in units of its rms.

    The rms is over the rounds that are `played`.

    Up to the factor `1 - 1/L`, which the units take away, the baseline of each rollout is the mean of the others (Kool,
    van Hoof, Welling 2019), which leaves the gradient without bias.
    """
    ahead = regret_to_go(regret, final)
    advantages = jnp.mean(ahead, axis=1, keepdims=True) - ahead
    scale = jnp.sqrt(jnp.mean(jnp.square(advantages), where=played))
    return advantages / jnp.maximum(scale, 1e-6)


def grpo_advantages(regret: Float[Array, "M L T"], final: Float[Array, "M L"]) -> Float[Array, "M L T"]:
    """How many standard deviations the regret at the horizon is below its mean over the scenario's rollouts.

    The same for all decisions of a rollout; zero where all rollouts fared alike (Shao et al. 2024).
    """
    # Alike but for rounding: regrets of the same pulls may have been summed in another order.
    rounding = 1e-5 * jnp.max(jnp.abs(final), axis=1, keepdims=True)
    final = final - final[:, :1]  # So that the mean of equal numbers is just that number.
    spread = jnp.std(final, axis=1, keepdims=True)
    advantages = (jnp.mean(final, axis=1, keepdims=True) - final) / jnp.maximum(spread, jnp.maximum(rounding, 1e-6))
    return jnp.broadcast_to(advantages[..., None], regret.shape)
