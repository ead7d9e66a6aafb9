"""A problem: a world, how long it is played, and what play in it is judged by."""

import dataclasses
from typing import Any

from jaxtyping import Array, Bool, Float

from rmft_jax.config import pytree, static_field
from rmft_jax.config.checks import require, require_count
from rmft_jax.problems.base import Environment, Feedback
from rmft_jax.problems.regret import Regret
from rmft_jax.problems.types import Extent


@pytree
class Problem:
    """An environment over a horizon, with the decision set; everything that whoever plays or judges has to know.

    environment: the distribution over scenarios.
    horizon: rounds T, which fix shapes.
    extent: how many of the arms and rounds are in use, the first ones; None: all.
    radius: `[]` of the ball that points are played in; None: arms are played.
    """

    environment: Environment
    horizon: int = static_field()
    extent: Extent | None = None
    radius: Float[Array, ""] | float | None = None

    @classmethod
    def checked(cls, environment: Environment, horizon: int, num_arms: int | None = None) -> "Problem":
        """A problem of arms that can work, of which the first `num_arms` exist; None: all.

        Raises:
          ConfigError: if it cannot.
        """
        cls(environment, horizon).validate()
        if num_arms is None:
            return cls(environment, horizon)
        size = environment.num_arms
        require(2 <= num_arms <= size, f"num_arms={num_arms}", f"2 to {size} arms", f"num_arms={size}")
        return cls(environment, horizon, Extent(num_arms, horizon))

    def validate(self) -> None:
        """Raises `ConfigError` for the first thing that cannot work."""
        got, advice = f"environment={self.environment!r}", "Stationary(), or an object of another class"
        require(isinstance(self.environment, Environment), got, "an environment", advice)
        require_count(self.horizon, "horizon", 1, 50)
        self.environment.validate(self.horizon)

    @property
    def num_arms(self) -> int:
        """Arms K of the arrays."""
        return self.environment.num_arms

    @property
    def feedback(self) -> Feedback:
        """What is seen after a round."""
        return self.environment.feedback

    @property
    def points(self) -> bool:
        """Whether play is a point of a ball rather than a distribution over arms."""
        return self.radius is not None

    @property
    def arm_mask(self) -> Bool[Array, "K"]:
        """`[K]` true where the arm exists."""
        return self._used.arm_mask(self.num_arms)

    @property
    def round_mask(self) -> Bool[Array, "T"]:
        """`[T]` true where the round is played."""
        return self._used.round_mask(self.horizon)

    @property
    def existing(self) -> "Problem":
        """The same in arrays without the arms and rounds that are not in use, of which the number must be known."""
        if self.extent is None:
            return self
        num_arms, environment = int(self.extent.num_arms), self.environment
        if num_arms != self.num_arms:
            environment = dataclasses.replace(environment, num_arms=num_arms)
        return dataclasses.replace(self, environment=environment, horizon=int(self.extent.horizon), extent=None)

    @property
    def _used(self) -> Extent:
        return self.extent or Extent(self.num_arms, self.horizon)

    @property
    def rounds(self) -> Any:
        """How many rounds are played; a number, or an array where that is not known to the compiler."""
        return self._used.horizon

    @property
    def regret(self) -> Regret:
        """The regret that the setting is judged by: of the actions under bandit feedback, else of the policies."""
        if self.radius is not None:
            return Regret("ball", "expected", self.radius)
        form = "expected" if self.feedback == "full" else "sampled"
        return Regret(self.environment.standard_regret, form)

    def of_size(self, num_arms: int, horizon: int) -> "Problem":
        """The same in arrays for more arms and rounds, of which it uses its own."""
        environment = dataclasses.replace(self.environment, num_arms=num_arms)
        return dataclasses.replace(
            self, environment=environment, horizon=horizon, extent=Extent(self.num_arms, self.horizon)
        )
