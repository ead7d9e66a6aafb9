"""Every classical agent by name: where it fits, and with which parameters."""

import dataclasses
import math
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from rmft_jax.agents.adversarial import EXP3, EXP3IX, EXP3P, Rexp3, TsallisINF
from rmft_jax.agents.base import Agent, Number
from rmft_jax.agents.bayes_optimal import MAX_HORIZON, BayesOptimal
from rmft_jax.agents.full_information import FTPL, FTRL, FollowTheLeader, Hedge
from rmft_jax.agents.index import (
    KLUCB,
    MOSS,
    UCB,
    BestArm,
    BestFixedArm,
    EpsilonGreedy,
    ExploreThenCommit,
    Greedy,
    Uniform,
)
from rmft_jax.agents.nonstationary import DiscountedThompson, DiscountedUCB, SlidingWindowUCB
from rmft_jax.agents.posterior import BetaIndex, BetaThompson, GaussianIndex, GaussianThompson
from rmft_jax.agents.scores import ScoreMap
from rmft_jax.agents.single_layer import FullInformationSingleLayer
from rmft_jax.config import AdaptiveConfig, BanditConfig, ConfigError, EnvironmentConfig

Build = Callable[[EnvironmentConfig, int], Agent | None]
Grid = tuple[float, ...]


class CatalogueEntry(NamedTuple):
    """How an agent is made.

    build: from an environment and a horizon, with parameters that fit them; None if it does not fit.
    constant: the parameter that tuning sets, if it has a free one.
    grid: the values that tuning tries.
    """

    build: Build
    constant: str | None = None
    grid: Grid = ()


_RATES = tuple(2.0**n for n in range(-3, 7))
# Towards follow-the-leader, which is best where rewards are stationary.
_FULL_RATES = (*_RATES, 128.0, 512.0, 2048.0)
_BONUSES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.0)
_PADDINGS = (0.005, 0.01, 0.02, *_BONUSES)


def _within_unit_interval(config: EnvironmentConfig) -> bool:
    low, high = config.mean_range if config.noise == "none" else config.reward_range
    return config.noise != "gaussian" and low >= -1e-6 and high <= 1 + 1e-6


def _width(config: EnvironmentConfig) -> float:
    """Width of the reward range; for Gaussian noise 2 std, which has the same sub-Gaussian constant (ours)."""
    return 2 * config.noise_std if config.noise == "gaussian" else _range(config)


def _range(config: EnvironmentConfig) -> float:
    low, high = config.reward_range
    return high - low


def _bandit(make: Build) -> Build:
    return lambda config, horizon: make(config, horizon) if config.feedback == "bandit" else None


def _full(make: Callable[[float], Agent]) -> Build:
    def build(config: EnvironmentConfig, horizon: int) -> Agent | None:
        return make(_range(config)) if config.feedback == "full" else None

    return build


def _drifting(make: Build) -> Build:
    """Fits where something varies; elsewhere these agents are others."""
    return _bandit(lambda config, horizon: make(config, horizon) if config.variation_budget(horizon) > 0 else None)


def _gaussian_model(config: EnvironmentConfig) -> dict[str, float]:
    mean, std = config.prior_moments()
    noise_std = 0.0 if config.noise == "none" else config.noise_std
    return {"prior_mean": mean, "prior_std": max(std, 1e-6), "noise_std": noise_std}


def _thompson(config: EnvironmentConfig, horizon: int) -> Agent:
    # Exact for Bernoulli rewards under the uniform prior, and for Gaussian ones under the Gaussian prior.
    if _within_unit_interval(config):
        return BetaThompson()
    return GaussianThompson(**_gaussian_model(config))


def _posterior_index(config: EnvironmentConfig, horizon: int) -> Agent:
    if _within_unit_interval(config):
        return BetaIndex()
    return GaussianIndex(**_gaussian_model(config))


def _discounted_thompson(config: EnvironmentConfig, horizon: int) -> Agent | None:
    if not _within_unit_interval(config):
        return None
    # The formula of `DiscountedUCB`, spelled out so that tuning can go beyond it.
    return DiscountedThompson(discount=1 - math.sqrt(max(config.variation_budget(horizon), 1) / horizon) / 4)


def _bayes_optimal(config: EnvironmentConfig, horizon: int) -> Agent | None:
    known = isinstance(config, BanditConfig) and config.prior == "uniform" and config.noise == "bernoulli"
    return BayesOptimal.create(horizon) if known and config.num_arms == 2 and horizon <= MAX_HORIZON else None


def _best_arm(config: EnvironmentConfig, horizon: int) -> Agent | None:
    # Which arm is best is only settled after the decision.
    return None if isinstance(config, AdaptiveConfig) and config.adversary != "crowding" else BestArm()


AGENTS: dict[str, CatalogueEntry] = {
    "ucb1": CatalogueEntry(_bandit(lambda c, T: UCB(scale=_width(c)))),
    "ucb": CatalogueEntry(_bandit(lambda c, T: UCB(constant=1.0, scale=_width(c))), "constant", _BONUSES),
    "kl_ucb": CatalogueEntry(_bandit(lambda c, T: KLUCB() if _within_unit_interval(c) else None)),
    "moss": CatalogueEntry(_bandit(lambda c, T: MOSS(scale=_width(c)))),
    "posterior_index": CatalogueEntry(
        _bandit(_posterior_index), "constant", (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
    ),
    "thompson": CatalogueEntry(_bandit(_thompson)),
    "greedy": CatalogueEntry(_bandit(lambda c, T: Greedy())),
    "epsilon_greedy": CatalogueEntry(
        _bandit(lambda c, T: EpsilonGreedy()), "epsilon", (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    ),
    "explore_then_commit": CatalogueEntry(
        _bandit(lambda c, T: ExploreThenCommit()), "scale", (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    ),
    "exp3": CatalogueEntry(_bandit(lambda c, T: EXP3(1.0, *c.reward_range)), "rate", _RATES),
    "exp3_ix": CatalogueEntry(_bandit(lambda c, T: EXP3IX(1.0, *c.reward_range)), "rate", _RATES),
    "exp3_p": CatalogueEntry(_bandit(lambda c, T: EXP3P(1.0, *c.reward_range)), "rate", _RATES),
    "tsallis_inf": CatalogueEntry(_bandit(lambda c, T: TsallisINF(1.0, *c.reward_range)), "rate", _RATES),
    "rexp3": CatalogueEntry(
        _drifting(lambda c, T: Rexp3(1.0, *c.reward_range, variation_budget=c.variation_budget(T) / _range(c))),
        "rate",
        _RATES,
    ),
    "sliding_window_ucb": CatalogueEntry(
        _drifting(lambda c, T: SlidingWindowUCB(num_changes=c.variation_budget(T), bound=_width(c))), "xi", _PADDINGS
    ),
    "discounted_ucb": CatalogueEntry(
        _drifting(lambda c, T: DiscountedUCB(num_changes=c.variation_budget(T), bound=_width(c))), "xi", _PADDINGS
    ),
    "discounted_thompson": CatalogueEntry(
        _drifting(_discounted_thompson), "discount", (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
    ),
    "hedge": CatalogueEntry(_full(lambda width: Hedge(width=width)), "rate", _FULL_RATES),
    "hedge_anytime": CatalogueEntry(_full(lambda width: Hedge(width=width, anytime=True)), "rate", _FULL_RATES),
    "ftrl": CatalogueEntry(_full(lambda width: FTRL(width=width)), "rate", _FULL_RATES),
    "ftpl": CatalogueEntry(_full(lambda width: FTPL(width=width)), "rate", _FULL_RATES),
    "follow_the_leader": CatalogueEntry(_full(lambda width: FollowTheLeader())),
    "bayes_optimal": CatalogueEntry(_bandit(_bayes_optimal)),
    "uniform": CatalogueEntry(lambda c, T: Uniform()),
    "best_fixed_arm": CatalogueEntry(lambda c, T: None if isinstance(c, AdaptiveConfig) else BestFixedArm()),
    "best_arm": CatalogueEntry(_best_arm),
}

_BASELINES = {
    "pseudo": ("bayes_optimal", "ucb1", "posterior_index", "thompson", "greedy", "epsilon_greedy"),
    "dynamic": ("ucb1", "thompson", "exp3", "rexp3", "sliding_window_ucb", "discounted_ucb", "discounted_thompson"),
    "static": ("hedge", "hedge_anytime", "ftrl", "ftpl", "follow_the_leader", "exp3", "exp3_ix", "tsallis_inf", "ucb1"),
}
_REFERENCES = {"pseudo": "thompson", "dynamic": "rexp3", "static": "hedge"}


def make_agents(config: EnvironmentConfig, horizon: int, names: Iterable[str] | None = None) -> dict[str, Agent]:
    """The classical agents that fit an environment, by name.

    Parameters are those of the papers, in units of the environment's reward range. Where an algorithm asks for the
    number of changes, it gets the variation budget (ours), which bounds it for abrupt changes alone. The Gaussian
    posteriors of Thompson sampling and the posterior index know the noise and the first two moments of the prior; the
    Beta posteriors, for rewards in [0, 1], start uniform.

    Args:
      config: the environment.
      horizon: rounds T.
      names: which of `AGENTS`. None: all that fit.

    Raises:
      ConfigError: if a named agent does not exist, or does not fit.
    """
    built = {}
    for name in AGENTS if names is None else names:
        if name not in AGENTS:
            raise ConfigError(f"got agent {name!r}, need one of {', '.join(AGENTS)}; try 'uniform'")
        agent = AGENTS[name].build(config, horizon)
        if agent is not None:
            built[name] = agent
        elif names is not None:
            fitting = ", ".join(make_agents(config, horizon))
            raise ConfigError(
                f"got agent {name!r} for {type(config).__name__.removesuffix('Config')} under {config.feedback!r} "
                f"feedback with K={config.num_arms}, T={horizon}, need one that fits; try {fitting}"
            )
    return built


def make_baselines(config: EnvironmentConfig, horizon: int, among: Container[str] | None = None) -> dict[str, Agent]:
    """The agents that a trained policy is compared with, by name: those that its setting is known for.

    `among`: names beyond which none is made. None: there is no such limit.
    """
    names = (*_BASELINES[config.standard_regret], "uniform", "best_fixed_arm", "best_arm")
    built = {name: AGENTS[name].build(config, horizon) for name in names if among is None or name in among}
    return {name: agent for name, agent in built.items() if agent is not None}


def make_ball_baselines(
    config: EnvironmentConfig, horizon: int, radius: Number, *, size: int | None = None
) -> dict[str, Agent]:
    """What play in a ball is compared with: FTRL at the step of its bound, and follow-the-leader.

    The step is `radius / (G sqrt(T))`, where G is the norm of a vector of the largest rewards (theory/README.md,
    theorem 3); of unbounded rewards, of those that `reward_range` names. `size` is the number of arms with those that
    are only there to be masked; None: there are no such.
    """
    norm = math.sqrt(config.num_arms) * max(map(abs, config.reward_range))
    steps = {"ftrl": radius / (norm * math.sqrt(horizon)), "follow_the_leader": 1e6}
    ball = ScoreMap("ball", radius)
    size = size or config.num_arms
    return {name: FullInformationSingleLayer.ftrl(size, step, ball) for name, step in steps.items()}


def reference_agent(config: EnvironmentConfig, horizon: int) -> str:
    """The name of the baseline against which differences are taken in this setting."""
    if config.standard_regret == "static" and config.feedback == "bandit":
        return "exp3"
    name = _REFERENCES[config.standard_regret]
    return name if AGENTS[name].build(config, horizon) is not None else "ucb1"


def with_constant(agent: Agent, name: str, value: Float[Array, ""] | float) -> Agent:
    """The agent with the constant that tuning sets for `name` at another value."""
    settings: Any = agent
    constant = AGENTS[name].constant
    return agent if constant is None else dataclasses.replace(settings, **{constant: value})


def behavior_agent(name: str) -> Agent:
    """The classical agent that plays rollouts in place of the policy, for rewards in [0, 1]."""
    return {"ucb1": UCB(), "thompson": BetaThompson(), "exp3": EXP3(), "uniform": Uniform()}[name]
