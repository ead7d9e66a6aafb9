"""What the world does: one protocol, one file per family."""

from rmft_jax.config import BanditConfig
from rmft_jax.environments.bandit import StationaryBandit
from rmft_jax.environments.base import Environment

__all__ = ["Environment", "StationaryBandit", "make_environment"]


def make_environment(config: BanditConfig) -> StationaryBandit:
    """The environment that a configuration describes."""
    return StationaryBandit(config)
