"""What an agent is."""

from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Int

from rmft_jax.config import Feedback
from rmft_jax.types import Context, Decision, ScalarKey

State = TypeVar("State")
Number = Float[Array, ""] | float
"""A parameter of an agent that is a leaf: it may be traced, and vmapped over."""


class Agent(Protocol[State]):
    """A decision rule, written for one trajectory; `rollout` vmaps it.

    Learned and classical agents alike are frozen pytrees: parameters and floats are leaves, counts are static.
    Nothing outside `rmft_jax.agents` asks which kind it has.
    """

    feedback: ClassVar[tuple[Feedback, ...]]
    """The feedback modes in which it can play."""

    def init(self, num_arms: int, horizon: int) -> State:
        """The state before the first round. `horizon` bounds the rounds that will be played.

        Raises:
          ConfigError: if the agent cannot play this many arms or rounds.
        """
        ...

    def act(self, key: ScalarKey, state: State, context: Context) -> tuple[Decision, State]:
        """Decides the round. `key` is the agent's own randomness of this round."""
        ...

    def observe(
        self, state: State, action: Int[Array, ""], reward: Float[Array, ""] | Float[Array, "K"], context: Context
    ) -> State:
        """Learns the reward of the arm that was played (bandit feedback), or those of all arms (full information)."""
        ...


@runtime_checkable
class GrowingAgent(Agent[State], Protocol):
    """An agent whose state holds every round played, and is read as a whole in each: better small while few are."""

    def grow(self, state: State, horizon: int) -> State:
        """The same state with room for `horizon` rounds, at least as many as before.

        Raises:
          ConfigError: if the agent cannot play this many rounds.
        """
        ...
