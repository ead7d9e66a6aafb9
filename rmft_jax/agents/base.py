"""What an agent is."""

from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

from rmft_jax.config import Params, ScalarKey
from rmft_jax.problems import Feedback, Problem
from rmft_jax.problems.types import Context, Decision, Reward, Trajectory

State = TypeVar("State")
_MAX_SEGMENTS = 8


@runtime_checkable
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

    def observe(self, state: State, action: Int[Array, ""], reward: Reward, context: Context) -> State:
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


@runtime_checkable
class TellingAgent(Agent[State], Protocol):
    """An agent to whom problems are told in one of several ways: which one is drawn for a scenario, by a key."""

    def begin(self, key: ScalarKey, num_arms: int, horizon: int) -> State:
        """The state before the first round, in place of `init`. `key` is the scenario's own.

        Raises:
          ConfigError: if the agent cannot play this many arms or rounds.
        """
        ...


@runtime_checkable
class PreparedAgent(Agent[State], Protocol):
    """An agent that does some work once, before it plays any scenario."""

    def prepared(self, num_arms: int, horizon: int, telling_keys: Key[Array, "M"]) -> "Agent[State]":
        """The agent that then plays scenarios whose tellings are drawn from these keys (`TellingAgent`)."""
        ...


@runtime_checkable
class RefittedAgent(Agent[State], Protocol):
    """An agent that is made anew for a problem of another size."""

    def refitted(self, problem: Problem) -> "Agent[State]":
        """The same policy, for another problem.

        Raises:
          ConfigError: if it cannot play that.
        """
        ...


def segment_ends(num_rounds: int, shortest: int) -> list[int]:
    """Where rounds are cut into up to 8 segments of equal length, of at least `shortest` rounds if there are several.

    What reads all rounds before its own reads, without segments, a place for every round: twice as much as there is.
    Every segment is compiled apart.
    """
    number = min(max(num_rounds // shortest, 1), _MAX_SEGMENTS)
    return [num_rounds * (i + 1) // number for i in range(number)]


def state_bytes(agent: Agent, num_arms: int, horizon: int) -> int:
    """Size of what the agent carries from round to round."""
    state = jax.eval_shape(lambda: agent.init(num_arms, horizon))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@runtime_checkable
class TrainedAgent(Agent[State], Protocol):
    """An agent that learns: a network with parameters, whose outputs are known for a given past too."""

    @property
    def params(self) -> Params:
        """The parameters; training replaces them."""
        ...

    @property
    def num_arms(self) -> int:
        """The arm count that it was made for."""
        ...

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """Logits, or scores, in every round of a given trajectory, teacher-forced; -inf for absent arms.

        Row t depends on what was seen in rounds before t only.
        """
        ...


@runtime_checkable
class WritingAgent(TrainedAgent[State], Protocol):
    """A trained agent that writes before, or as, it decides. Its decisions' notes have `log_probs`.

    `notes.log_probs`: `[N]` log-probability of each thing that it wrote in the round, as it was drawn; 0 where nothing
    was written.
    """

    def read(self, trajectory: Trajectory) -> tuple[Float[Array, "T K"], Float[Array, "T N"]]:
        """`outputs`, and the log-probability of each thing that is written in the rounds of a given trajectory."""
        ...
