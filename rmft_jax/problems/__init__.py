"""What is played: a problem is a world, a horizon and a regret. One file per family of environments."""

from rmft_jax.problems.abrupt import Abrupt
from rmft_jax.problems.adaptive import Adaptive
from rmft_jax.problems.alternating import Alternating
from rmft_jax.problems.base import Environment, Feedback, RegretKind
from rmft_jax.problems.besbes import Besbes
from rmft_jax.problems.decision_maps import Ball, DecisionMap, Identity, Simplex, Softmax
from rmft_jax.problems.drift import Gradual, LinearTrend, RandomWalk, Sinusoidal
from rmft_jax.problems.named import get_environment
from rmft_jax.problems.oblivious import ObliviousEnvironment
from rmft_jax.problems.problem import Problem
from rmft_jax.problems.regret import Regret
from rmft_jax.problems.stationary import Stationary
from rmft_jax.problems.types import Context, Decision, Extent, Outcome, Trajectory

__all__ = [
    "Abrupt",
    "Adaptive",
    "Alternating",
    "Ball",
    "Besbes",
    "Context",
    "Decision",
    "DecisionMap",
    "Environment",
    "Extent",
    "Feedback",
    "Gradual",
    "Identity",
    "LinearTrend",
    "ObliviousEnvironment",
    "Outcome",
    "Problem",
    "RandomWalk",
    "Regret",
    "RegretKind",
    "Simplex",
    "Sinusoidal",
    "Softmax",
    "Stationary",
    "Trajectory",
    "get_environment",
]
