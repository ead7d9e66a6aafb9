"""The environments that have a name beside that of their class."""

import dataclasses
import math
from typing import Any

from rmft_jax.problems.abrupt import Abrupt
from rmft_jax.problems.adaptive import Adaptive
from rmft_jax.problems.alternating import Alternating
from rmft_jax.problems.base import Environment
from rmft_jax.problems.besbes import Besbes
from rmft_jax.problems.drift import Sinusoidal
from rmft_jax.problems.stationary import Stationary


def _full(environment: Environment, **changes: Any) -> Environment:
    return dataclasses.replace(environment, feedback="full", **changes)


_GAUSSIAN = Stationary(prior="gaussian", noise="gaussian")
_IID_UNIFORM = Stationary(prior="constant", prior_mean=0.5, noise="uniform", noise_std=math.sqrt(1 / 12))

for _name, _environment, _description in (
    ("bernoulli", Stationary(), "stationary bandit, Bernoulli rewards, uniform prior"),
    ("gaussian", _GAUSSIAN, "stationary bandit, Gaussian rewards, Gaussian prior"),
    ("fixed_gap_hard", Stationary(prior="fixed_gap"), "Bernoulli bandit, K=5, gap 0.2"),
    ("fixed_gap_easy", Stationary(num_arms=4, prior="fixed_gap", gap=0.5), "Bernoulli bandit, K=4, gap 0.5"),
    ("alternating", _full(Alternating()), "full information, the sequence that fools the leader"),
    ("abrupt_mirrored", Abrupt(change="mirrored"), "bandit with three changes that mirror the means"),
    ("besbes_even", Besbes(), "bandit, two sines spend a budget of 3 evenly"),
    ("besbes_first_third", Besbes(spending="first_third"), "bandit, they spend it in the first third"),
    ("crowding", Adaptive(adversary="crowding"), "bandit, an arm earns less the more it was played"),
    ("iid_uniform", _full(_IID_UNIFORM), "full information, i.i.d. uniform rewards"),
    ("iid_gaussian", _full(_GAUSSIAN, prior_std=0.7), "full information, Gaussian rewards around a drawn mean"),
    ("sine_trend", _full(Sinusoidal(noise="gaussian", noise_std=0.1)), "full information, noisy sines"),
    ("favourite", _full(Adaptive()), "full information, the likeliest arm earns nothing"),
):
    Environment.register.preset(_name, _environment, _description)


def get_environment(name: str) -> Environment:
    """The environment of a name, with the settings that go with it.

    Raises:
      ConfigError: if there is none of this name.
    """
    return Environment.register[name].choice
