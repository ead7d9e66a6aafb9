"""What an environment is."""

from typing import Generic, Protocol, TypeVar

from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import EnvironmentConfig, Feedback, RegretKind
from rmft_jax.types import Decision, Outcome, ScalarKey

State = TypeVar("State")


class Environment(Protocol[State]):
    """A distribution over decision problems, written for one scenario; `rollout` vmaps it.

    Implementations are frozen pytrees: counts are static, floats are leaves. `State` is any pytree.
    """

    @property
    def num_arms(self) -> int:
        """Number of arms K."""
        ...

    @property
    def feedback(self) -> Feedback:
        """What is seen after a round: the reward of the played arm (`bandit`), or the rewards of all (`full`)."""
        ...

    @property
    def standard_regret(self) -> RegretKind:
        """The regret by which play is judged: a key of `rmft_jax.regret.REGRETS`."""
        ...

    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> State:
        """Draws a scenario in which only the arms of `arm_mask` exist and only the rounds of `round_mask` are played.

        Both masks hold first ones: the first K' arms, the first T' rounds. What is drawn for them must not depend on
        how many more there are; draws of shape `[K]`, or of one key per round, do not.
        """
        ...

    def mean_rewards(self, state: State, round: Int[Array, ""]) -> Float[Array, "K"]:
        """Expected rewards of the coming round, counted from 0, as far as they are settled before the decision.

        An adaptive adversary, which settles them after it, returns NaN here.
        """
        ...

    def step(self, key: ScalarKey, state: State, decision: Decision, round: Int[Array, ""]) -> tuple[State, Outcome]:
        """Plays one round. It sees the decision, so adaptive opponents fit; `key` is the reward noise alone."""
        ...


C = TypeVar("C", bound=EnvironmentConfig)


class ConfiguredEnvironment(Generic[C]):
    """What an environment reads from its configuration."""

    config: C

    @property
    def num_arms(self) -> int:
        """Number of arms K."""
        return self.config.num_arms

    @property
    def feedback(self) -> Feedback:
        """What is seen after a round."""
        return self.config.feedback

    @property
    def standard_regret(self) -> RegretKind:
        """The regret by which play is judged."""
        return self.config.standard_regret
