"""What a policy is that can be trained: its settings, its parameters, and the agent that plays them."""

import abc
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from rmft_jax.agents.base import Agent, TrainedAgent
from rmft_jax.config import Choice, Fixed, Number, Params, ScalarKey
from rmft_jax.config.checks import require
from rmft_jax.problems import DecisionMap, Feedback, Problem


class Policy(Choice, kind="policy"):
    """A network that RMFT trains. A new one derives from this class, or from `RecurrentPolicy`, which asks for less.

    Where it emits scores it explores by Gaussian noise on them, and a decision map says what they play; elsewhere its
    outputs are logits, and it explores by drawing from their softmax at a temperature.

    paddable: whether parameters of few arms and rounds can be laid out as those of more (`padded`), so that sweeps
      may train several sizes in one program.
    has_fixed: whether it plays with arrays that are not trained (`fixed_params`); sweeps then train one by one.
    """

    carries: ClassVar[bool] = False
    paddable: ClassVar[bool] = False
    has_fixed: ClassVar[bool] = False

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.require_types()

    def validate_decision_map(self, decision_map: DecisionMap) -> None:
        """Raises `ConfigError` if the scores that it emits cannot be played by this map; by default all can."""
        del decision_map

    @abc.abstractmethod
    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """The parameters from which training starts."""

    @abc.abstractmethod
    def make_agent(
        self, params: Params, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TrainedAgent:
        """The agent that plays these parameters.

        Args:
          params: of the shapes of `init_params`.
          problem: whose arms, feedback and horizon the network was made for.
          decision_map: what it plays at given scores, if it emits scores.
          temperature: else, actions are drawn from softmax(logits / temperature).
        """

    def fixed_params(self, problem: Problem) -> Fixed | None:
        """Arrays that its agent plays with and that are not trained, as of a model that is adapted; by default none.

        They are made outside of compiled programs, given to them beside the parameters, and not saved with them.

        Raises:
          ConfigError: if they cannot be made.
        """
        del problem

    @property
    def foundation(self) -> str:
        """Which files it is built upon, such as a digest of a model's weights; empty: none. What was trained upon
        others is refused.
        """
        return ""

    def joined(self, params: Params, fixed: Fixed | None) -> Fixed:
        """What `make_agent` takes: the parameters, with those that are not trained."""
        del fixed
        return params

    def narrated(self, agent: Agent, problem: Problem, fixed: Fixed | None) -> Agent:
        """Another agent, with the notes that this policy needs to learn from its play; by default it needs none."""
        del problem, fixed
        return agent

    def has_scores(self, feedback: Feedback) -> bool:
        """Whether it emits scores under this feedback, rather than logits of arms."""
        return feedback == "full"

    @property
    def only_own_words(self) -> bool:
        """Whether all that its agent reads log-probabilities of (`WritingAgent.read`) was written by itself."""
        return True

    @property
    def answers_in_text(self) -> bool:
        """Whether what it plays is read from text that it writes, so that its outputs are no logits of arms."""
        return False

    @property
    def any_num_arms(self) -> bool:
        """Whether it plays arm counts that it was not made for."""
        return False

    @property
    def any_horizon(self) -> bool:
        """Whether the shapes of its parameters know no horizon."""
        return True

    def padded(self, params: Params, own: Problem, larger: Problem) -> Params:
        """The parameters for the arms and rounds of one problem in the layout of a larger one; they play alike.

        What is new is zero: outputs that the arm mask hides, positions that are not reached. Its gradients are zero
        too, so that it also learns alike, but for rounding.
        """
        return self._laid_out(params, own, larger)

    def cut(self, params: Params, own: Problem, larger: Problem) -> Params:
        """The inverse of `padded`."""
        return self._laid_out(params, larger, own)

    def _laid_out(self, params: Params, before: Problem, after: Problem) -> Params:
        """The parameters for one problem in the layout of another: every axis is cut, or filled up at its end."""
        if not self.paddable:
            return params
        shapes = jax.eval_shape(lambda: self.init_params(jax.random.key(0), after))
        return jax.tree.map(lambda leaf, new: resized(leaf, new.shape), params, shapes)

    def round_flops(self, problem: Problem) -> float:
        """Floating-point operations of a round, roughly; here two for every parameter."""
        shapes = jax.eval_shape(lambda: self.init_params(jax.random.key(0), problem))
        return 2.0 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def require_built_for(built: int, num_arms: int, suggestion: str = "masking absent arms instead") -> None:
    """Raises `ConfigError` unless a network is played with the arm count that it was built for."""
    need = f"num_arms={built}, for which the network was built"
    require(num_arms == built, f"num_arms={num_arms}", need, suggestion)


def resized(leaf: Shaped[Array | np.ndarray, "..."], shape: tuple[int, ...]) -> Shaped[Array, "..."]:
    """The array cut, or filled up with zeros, at the end of every axis."""
    kept = leaf[tuple(slice(size) for size in shape)]
    return jnp.pad(kept, [(0, after - before) for before, after in zip(kept.shape, shape, strict=True)])
