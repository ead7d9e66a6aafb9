"""What a trained policy is guaranteed on every sequence."""

from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.statistics.certificate import Certificate, bounded_rewards, guarantee


def certificate(policy: TrainedPolicy, horizon: int | None = None) -> Certificate:
    """The guarantee of a trained policy for the rewards of its own problem, whatever they are.

    Args:
      policy: a single layer under full information.
      horizon: rounds T; None: those of its training.

    Raises:
      ConfigError: if the policy is none that has a guarantee, or its rewards are not bounded.
    """
    config = policy.config.rmft
    return guarantee(policy.agent, bounded_rewards(config.environment), config.horizon if horizon is None else horizon)
