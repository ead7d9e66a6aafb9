"""Who plays: one protocol for the Transformer and every classical algorithm."""

import math

from rmft_jax.agents.base import Agent
from rmft_jax.agents.classical import (
    UCB1,
    BestArm,
    BetaThompson,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    Uniform,
)
from rmft_jax.agents.transformer import TransformerAgent
from rmft_jax.config import BanditConfig

__all__ = [
    "UCB1",
    "Agent",
    "BestArm",
    "BetaThompson",
    "EpsilonGreedy",
    "GaussianThompson",
    "Greedy",
    "TransformerAgent",
    "Uniform",
    "make_baselines",
]


def make_baselines(config: BanditConfig) -> dict[str, Agent]:
    """The classical agents, by name, with parameters that fit the environment.

    Thompson sampling has a Beta posterior from a uniform prior for Bernoulli rewards, and for Gaussian rewards a
    Gaussian one that knows the noise and the first two moments of the prior. It is exact for Bernoulli rewards under
    the uniform prior, and for Gaussian ones under the Gaussian prior.
    """
    if config.noise == "bernoulli":
        thompson, ucb1 = BetaThompson(), UCB1()
    else:
        mean, std = _prior_moments(config)
        thompson = GaussianThompson(prior_mean=mean, prior_std=std, noise_std=config.noise_std)
        ucb1 = UCB1(scale=2.0 * config.noise_std)
    return {
        "ucb1": ucb1,
        "thompson": thompson,
        "greedy": Greedy(),
        "epsilon_greedy": EpsilonGreedy(),
        "uniform": Uniform(),
        "best_arm": BestArm(),
    }


def _prior_moments(config: BanditConfig) -> tuple[float, float]:
    match config.prior:
        case "uniform":
            return 0.5, math.sqrt(1 / 12)
        case "gaussian":
            return config.prior_mean, config.prior_std
        case "fixed_gap":
            chance = 1 / config.num_arms
            return 0.5 + config.gap * (chance - 0.5), config.gap * math.sqrt(chance * (1 - chance))
