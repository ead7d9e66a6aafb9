"""Every classical agent by name: where it fits, and with which parameters."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from rmft_jax.agents.adversarial import EXP3, EXP3IX, EXP3P, Rexp3, TsallisINF
from rmft_jax.agents.base import Agent
from rmft_jax.agents.bayes_optimal import MAX_HORIZONS, BayesOptimal
from rmft_jax.agents.change_points import ChangePointIndex
from rmft_jax.agents.full_information import FTPL, FTRL, FollowTheLeader, Hedge
from rmft_jax.agents.gittins import BetaGittins, GaussianGittins
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
from rmft_jax.agents.nonstationary import (
    DiscountedGaussianIndex,
    DiscountedIndex,
    DiscountedThompson,
    DiscountedUCB,
    SlidingWindowUCB,
)
from rmft_jax.agents.posterior import BetaIndex, BetaThompson, GaussianIndex, GaussianThompson
from rmft_jax.agents.register import AGENTS, CatalogueEntry
from rmft_jax.agents.single_layer import FullInformationSingleLayer
from rmft_jax.config import ConfigError
from rmft_jax.problems import Abrupt, Ball, Environment, Problem, Stationary

Make = Callable[[Environment, int], Agent | None]
Grid = tuple[float, ...]

_RATES = tuple(2.0**n for n in range(-3, 7))
# Towards follow-the-leader, which is best where rewards are stationary.
_FULL_RATES = (*_RATES, 128.0, 512.0, 2048.0)
_BONUSES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.0)
_PADDINGS = (0.005, 0.01, 0.02, *_BONUSES)


def _within_unit_interval(config: Environment) -> bool:
    if config.noise in ("bernoulli", "beta"):
        return True
    low, high = config.mean_range if config.noise == "none" else config.reward_range
    return config.noise != "gaussian" and low >= -1e-6 and high <= 1 + 1e-6


def _width(config: Environment) -> float:
    """Width of the reward range; for Gaussian noise 2 std, which has the same sub-Gaussian constant (ours)."""
    return 2 * config.noise_std if config.noise == "gaussian" else _range(config)


def _range(config: Environment) -> float:
    low, high = config.reward_range
    return high - low


def _drifting(make: Make) -> Make:
    """Fits where something varies; elsewhere these agents are others."""
    return lambda c, T: make(c, T) if c.variation_budget(T) > 0 else None


def _posterior(of_bernoulli: Callable[..., Agent], of_gaussian: Callable[..., Agent]) -> Make:
    """By the law of the rewards; exact for Bernoulli under the uniform prior, and for Gaussian under the Gaussian."""

    def make(config: Environment, horizon: int) -> Agent:
        if _within_unit_interval(config):
            return of_bernoulli()
        return of_gaussian(**_gaussian_law(config))

    return make


def _gaussian_law(config: Environment) -> dict[str, float]:
    mean, std = config.prior_moments()
    noise_std = 0.0 if config.noise == "none" else config.noise_std
    return {"prior_mean": mean, "prior_std": max(std, 1e-6), "noise_std": noise_std}


def _changes(config: Environment, horizon: int) -> float:
    """The variation budget, in units of the range of expected rewards, or of rewards where these lie in [0, 1]."""
    low, high = (0.0, 1.0) if _within_unit_interval(config) else config.nominal_mean_range
    return config.variation_budget(horizon) / ((high - low) or 1.0)


def _forgetting(kind: type[SlidingWindowUCB | DiscountedUCB]) -> Make:
    return lambda c, T: kind(num_changes=_changes(c, T), bound=_width(c))


def _discounted(of_bernoulli: Callable[..., Agent], of_gaussian: Callable[..., Agent] | None = None) -> Make:
    """Agents of a posterior that forgets, by the law of the rewards."""

    def make(config: Environment, horizon: int) -> Agent | None:
        # The formula of `DiscountedUCB`, spelled out so that tuning can go beyond it.
        discount = 1 - math.sqrt(max(_changes(config, horizon), 1) / horizon) / 4
        if _within_unit_interval(config):
            return of_bernoulli(discount=discount)
        return of_gaussian and of_gaussian(discount=discount, **_gaussian_law(config))

    return make


def _stationary(config: Environment, noise: str) -> bool:
    return type(config) is Stationary and config.noise == noise  # A class derived from it may have another law.


def _gittins(config: Environment, horizon: int) -> Agent:
    if config.noise == "bernoulli":
        return BetaGittins.create(horizon)
    return GaussianGittins.create(horizon, **_gaussian_law(config))


def _solvable(config: Environment, horizon: int) -> bool:
    known = type(config) is Stationary and config.prior == "uniform" and config.noise == "bernoulli"
    return known and horizon <= MAX_HORIZONS.get(config.num_arms, 0)


def _redrawn(config: Environment, horizon: int) -> Agent | None:
    if type(config) is Abrupt and config.change == "fresh" and config.noise == "bernoulli":
        return ChangePointIndex(num_changes=config.num_changes)
    return None


def _rexp3(config: Environment, horizon: int) -> Agent:
    return Rexp3(1.0, *config.reward_range, variation_budget=config.variation_budget(horizon) / _range(config))


_DEVIATIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
_EPSILONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_DISCOUNTS = (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)


def _add(
    name: str,
    feedback: str,
    make: Make,
    fit: Callable[[Environment, int], bool] | None = None,
    **grids: Grid,
) -> None:
    """An agent that fits under a feedback, or under `any`, and there if it is made; or where `fit` says so."""

    def fits(problem: Problem) -> bool:
        return feedback in ("any", problem.feedback) and (fit is None or fit(problem.environment, problem.horizon))

    def build(problem: Problem) -> Agent | None:
        return make(problem.environment, problem.horizon) if fits(problem) else None

    AGENTS.add(name, CatalogueEntry(build, grids, fits if fit else None), make)


_add("ucb1", "bandit", lambda c, T: UCB(scale=_width(c)))
_add("ucb", "bandit", lambda c, T: UCB(constant=1.0, scale=_width(c)), constant=_BONUSES)
_add("kl_ucb", "bandit", lambda c, T: KLUCB() if _within_unit_interval(c) else None)
_add("moss", "bandit", lambda c, T: MOSS(scale=_width(c)))
_add("posterior_index", "bandit", _posterior(BetaIndex, GaussianIndex), constant=_DEVIATIONS)
_add("gittins", "bandit", _gittins, lambda c, T: _stationary(c, "bernoulli") or _stationary(c, "gaussian"))
_add("thompson", "bandit", _posterior(BetaThompson, GaussianThompson))
_add("greedy", "bandit", lambda c, T: Greedy())
_add("epsilon_greedy", "bandit", lambda c, T: EpsilonGreedy(), epsilon=_EPSILONS)
_add("explore_then_commit", "bandit", lambda c, T: ExploreThenCommit(), scale=(0.1, 0.2, 0.3, 0.5, 0.7, 1.0))
_add("exp3", "bandit", lambda c, T: EXP3(1.0, *c.reward_range), rate=_RATES)
_add("exp3_ix", "bandit", lambda c, T: EXP3IX(1.0, *c.reward_range), rate=_RATES)
_add("exp3_p", "bandit", lambda c, T: EXP3P(1.0, *c.reward_range), rate=_RATES)
_add("tsallis_inf", "bandit", lambda c, T: TsallisINF(1.0, *c.reward_range), rate=_RATES)
_add("rexp3", "bandit", _drifting(_rexp3), rate=_RATES)
_add("sliding_window_ucb", "bandit", _drifting(_forgetting(SlidingWindowUCB)), xi=_PADDINGS)
_add("discounted_ucb", "bandit", _drifting(_forgetting(DiscountedUCB)), xi=_PADDINGS)
_add("discounted_thompson", "bandit", _drifting(_discounted(DiscountedThompson)), discount=_DISCOUNTS)
_add(
    "discounted_index",
    "bandit",
    _drifting(_discounted(DiscountedIndex, DiscountedGaussianIndex)),
    constant=_DEVIATIONS,
    discount=_DISCOUNTS,
)
_add("change_point_index", "bandit", _drifting(_redrawn), constant=_DEVIATIONS)
_add("hedge", "full", lambda c, T: Hedge(width=_range(c)), rate=_FULL_RATES)
_add("hedge_anytime", "full", lambda c, T: Hedge(width=_range(c), anytime=True), rate=_FULL_RATES)
_add("ftrl", "full", lambda c, T: FTRL(width=_range(c)), rate=_FULL_RATES)
_add("ftpl", "full", lambda c, T: FTPL(width=_range(c)), rate=_FULL_RATES)
_add("follow_the_leader", "full", lambda c, T: FollowTheLeader())
_add("bayes_optimal", "bandit", lambda c, T: BayesOptimal.create(T, c.num_arms), _solvable)
_add("uniform", "any", lambda c, T: Uniform())
_add("best_fixed_arm", "any", lambda c, T: None if c.adaptive else BestFixedArm())
# Where play is reacted to, it is only settled after the decision which arm is best.
_add("best_arm", "any", lambda c, T: None if c.reacts else BestArm())

_BASELINES = {
    "pseudo": ("bayes_optimal", "gittins", "posterior_index", "thompson", "ucb1", "greedy", "epsilon_greedy"),
    "dynamic": (
        "change_point_index", "discounted_index", "discounted_thompson", "discounted_ucb", "sliding_window_ucb",
        "rexp3", "exp3", "thompson", "ucb1",
    ),
    "static": ("hedge", "hedge_anytime", "ftrl", "ftpl", "follow_the_leader", "exp3", "exp3_ix", "tsallis_inf", "ucb1"),
}  # fmt: skip
_REFERENCES = {"pseudo": "thompson", "dynamic": "rexp3", "static": "hedge"}


def make_agents(problem: Problem, names: Iterable[str] | None = None) -> dict[str, Agent]:
    """The agents that fit a problem, by name, those that users registered included.

    Parameters are those of the papers, in units of the environment's reward range. Where an algorithm asks for the
    number of changes, it gets the variation budget (ours), in units of the range of expected rewards, or of rewards
    where these lie in [0, 1]; it bounds the number for abrupt changes alone. The Gaussian
    posteriors of Thompson sampling and the posterior index know the noise and the first two moments of the prior; the
    Beta posteriors, for rewards in [0, 1], start uniform.

    Args:
      problem: the world and how long it is played.
      names: which of `AGENTS`. None: all that fit.

    Raises:
      ConfigError: if a named agent does not exist, or does not fit.
    """
    problem.validate()
    built = ((name, AGENTS[name].build(problem.existing)) for name in fitting(problem, names))
    return {name: agent for name, agent in built if agent is not None}


def fitting(problem: Problem, names: Iterable[str] | None = None) -> list[str]:
    """The agents that can play a problem, found without making those that take long to make.

    Args:
      problem: the world and how long it is played.
      names: which of `AGENTS`. None: all that fit.

    Raises:
      ConfigError: if a named agent does not exist, or does not fit.
    """
    own = problem.existing

    def fits(name: str) -> bool:
        return AGENTS[name].fits(own) and not _needs_all(name, problem)

    if names is None:
        return list(filter(fits, AGENTS))
    chosen = list(names)
    for name in chosen:
        if not fits(name):
            raise ConfigError(
                f"got agent {name!r} for {type(problem.environment).__name__} under {problem.feedback!r} feedback "
                f"with K={own.num_arms}, T={own.horizon}, need one that fits; try {', '.join(filter(fits, AGENTS))}"
            )
    return chosen


def _needs_all(name: str, problem: Problem, size: int | None = None) -> bool:
    """Whether an agent, which is solved for arrays of just its arms and rounds, would get others."""
    own = problem.existing
    return name == "bayes_optimal" and (size or problem.num_arms, problem.horizon) != (own.num_arms, own.horizon)


def make_baselines(
    problem: Problem, among: Container[str] | None = None, *, size: int | None = None
) -> dict[str, Agent]:
    """The agents that a trained policy is compared with, by name: those that its setting is known for, and users'.

    Play in a ball is compared with FTRL at the step `radius / (G sqrt(T))` of its bound (theory/README.md, theorem 3),
    where G is the norm of a vector of the largest rewards (of unbounded ones, of those that `reward_range` names), and
    with follow-the-leader.

    Args:
      problem: the world and how long it is played.
      among: names of this package's agents beyond which none is made. None: there is no such limit.
      size: of arrays with arms that are only there to be masked. None: those of the problem.
    """
    problem.validate()
    size, given, problem = size or problem.num_arms, problem, problem.existing
    if problem.radius is not None:
        norm = math.sqrt(problem.num_arms) * max(map(abs, problem.environment.reward_range))
        step = problem.radius / (norm * math.sqrt(problem.horizon))
        radius: Any = problem.radius  # A number that may be traced.
        steps = {"ftrl": step, "follow_the_leader": 1e6}
        return {name: FullInformationSingleLayer.ftrl(size, step, Ball(0.0, radius)) for name, step in steps.items()}
    known = (*_BASELINES[_compared(problem)], "uniform", "best_fixed_arm", "best_arm")
    known = [name for name in known if (among is None or name in among) and not _needs_all(name, given, size)]
    names = [*known, *AGENTS.of_users()]
    built = ((name, AGENTS[name].build(problem)) for name in names)
    return {name: agent for name, agent in built if agent is not None}


def _compared(problem: Problem) -> str:
    """The regret by whose agents play is compared: without agents of its own, that of the best fixed arm."""
    regret = problem.environment.standard_regret
    return regret if regret in _BASELINES else "static"


def reference_agent(problem: Problem) -> str:
    """The name of the baseline against which differences are taken in this setting."""
    if problem.radius is not None:
        return "ftrl"
    regret = _compared(problem)
    if regret == "static" and problem.feedback == "bandit":
        return "exp3"
    name = _REFERENCES[regret]
    return name if AGENTS[name].fits(problem) else "ucb1"


def constants(agent: Agent, name: str) -> dict[str, float]:
    """What tuning sets of an agent of the catalogue, as it is."""
    return {field: getattr(agent, field) for field in AGENTS[name].grids}


def tuning_grid(agent: Agent, name: str) -> list[dict[str, float]]:
    """The values that tuning tries: all combinations of the grids, and of the values that the agent has."""
    grids = {field: sorted({*AGENTS[name].grids[field], own}) for field, own in constants(agent, name).items()}
    return [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]


def with_constants(agent: Agent, values: Mapping[str, Any]) -> Agent:
    """The agent with other values of some fields, which may be traced."""
    settings: Any = agent
    return dataclasses.replace(settings, **values) if values else agent
