"""What the trained policy is called among agents."""

TRAINED = "rmft"
"""Name of the trained policy among the agents."""


def is_trained(name: str) -> bool:
    """Whether an agent is a trained policy, `rmft` or a variant of it such as `rmft_start`."""
    return name.startswith(TRAINED)
