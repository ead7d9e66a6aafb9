"""Beyond the simplified setting: measured, not claimed.

The theorems speak of rewards that all rollouts share, of play that is linear in the scores, of full information and of
the exact fit of the single layer's value matrix to infinitely many scenarios. Each module here gives up one of these,
runs the package's own iteration, and reports where the path of follow-the-regularized-leader holds, bends or breaks.
"""

from theory.beyond import (
    bandit_feedback,
    gradient_steps,
    independent_rewards,
    sampling_errors,
    softmax_attention,
    two_layers,
)
from theory.beyond.exploration import AnyExploration, Exploration, Finding

__all__ = ["EXPLORATIONS", "AnyExploration", "Exploration", "Finding"]

EXPLORATIONS: list[AnyExploration] = [
    independent_rewards.EXPLORATION,
    bandit_feedback.EXPLORATION,
    softmax_attention.EXPLORATION,
    gradient_steps.EXPLORATION,
    two_layers.EXPLORATION,
    sampling_errors.EXPLORATION,
]
