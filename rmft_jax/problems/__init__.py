"""What is played: a problem is a world, a horizon and a regret. One file per family of environments."""

from rmft_jax.problems.abrupt import Abrupt as Abrupt
from rmft_jax.problems.adaptive import Adaptive as Adaptive
from rmft_jax.problems.alternating import Alternating as Alternating
from rmft_jax.problems.base import Environment as Environment
from rmft_jax.problems.base import Feedback as Feedback
from rmft_jax.problems.base import RegretKind as RegretKind
from rmft_jax.problems.besbes import Besbes as Besbes
from rmft_jax.problems.decision_maps import Ball as Ball
from rmft_jax.problems.decision_maps import DecisionMap as DecisionMap
from rmft_jax.problems.decision_maps import Identity as Identity
from rmft_jax.problems.decision_maps import Simplex as Simplex
from rmft_jax.problems.decision_maps import Softmax as Softmax
from rmft_jax.problems.drift import Gradual as Gradual
from rmft_jax.problems.drift import LinearTrend as LinearTrend
from rmft_jax.problems.drift import RandomWalk as RandomWalk
from rmft_jax.problems.drift import Sinusoidal as Sinusoidal
from rmft_jax.problems.named import get_environment as get_environment
from rmft_jax.problems.oblivious import ObliviousEnvironment as ObliviousEnvironment
from rmft_jax.problems.problem import Problem as Problem
from rmft_jax.problems.regret import Regret as Regret
from rmft_jax.problems.stationary import Stationary as Stationary
from rmft_jax.problems.types import Context as Context
from rmft_jax.problems.types import Decision as Decision
from rmft_jax.problems.types import Extent as Extent
from rmft_jax.problems.types import Outcome as Outcome
from rmft_jax.problems.types import Trajectory as Trajectory
