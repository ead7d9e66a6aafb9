"""What an environment is: its settings, its law and what play in it is judged by."""

import abc
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import Choice, ScalarKey
from rmft_jax.config.checks import require, require_count, require_number
from rmft_jax.problems.types import Decision, Outcome

Feedback = Literal["bandit", "full"]
Noise = Literal["none", "bernoulli", "gaussian", "uniform", "beta"]
RegretKind = Literal["static", "pseudo", "dynamic", "realized", "swap", "ball"]


class Environment(Choice, kind="environment"):
    """A distribution over decision problems, written for one scenario; `rollout` vmaps it.

    What all environments have is arms, feedback, and the law of the rewards given their expectations. A new one
    derives from this class, or from `ObliviousEnvironment` where play changes nothing, adds its own settings as
    fields, and is registered with `@register_environment(NAME)`.

    Noise laws of a reward with expectation r: `none`, R = r; `bernoulli`, 1 with probability r; `gaussian`,
    r + noise_std * N(0, 1); `uniform` on r +- sqrt(3) * noise_std; `beta`, with parameters r * c and (1 - r) * c for
    c = noise_concentration. Rewards are independent over rounds and arms given their expectations.
    """

    carries: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ("num_arms", "feedback")

    num_arms: int = 5
    """Number of arms K."""
    feedback: Feedback = "bandit"
    """What is seen after a round: the reward of the played arm (`bandit`), or the rewards of all arms (`full`)."""
    noise: Noise = "bernoulli"
    """Law of a reward given its expectation."""
    noise_std: float = 1.0
    """Standard deviation of Gaussian and uniform reward noise."""
    noise_concentration: float = 4.0
    """Concentration of Beta reward noise, the sum of its two parameters."""

    bandit_regret: ClassVar[RegretKind] = "dynamic"
    """The regret by which play under bandit feedback is judged."""

    @abc.abstractmethod
    def reset(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Any:
        """Draws a scenario in which only the arms of `arm_mask` exist and only the rounds of `round_mask` are played.

        Both masks hold first ones: the first K' arms, the first T' rounds. What is drawn for them must not depend on
        how many more there are; draws of shape `[K]`, or of one key per round, do not. The state of the scenario is
        any pytree.
        """

    @abc.abstractmethod
    def mean_rewards(self, state: Any, round: Int[Array, ""]) -> Float[Array, "K"]:
        """Expected rewards of the coming round, counted from 0, as far as they are settled before the decision.

        An adaptive adversary, which settles them after it, returns NaN here.
        """

    @abc.abstractmethod
    def step(self, key: ScalarKey, state: Any, decision: Decision, round: Int[Array, ""]) -> tuple[Any, Outcome]:
        """Plays one round. It sees the decision, so adaptive opponents fit; `key` is the reward noise alone."""

    def draw_rewards(self, key: ScalarKey, means: Float[Array, "K"]) -> Float[Array, "K"]:
        """Rewards `[K]` of all arms in one round, independent given their expectations; laws: see the class."""
        match self.noise:
            case "none":
                return means
            case "bernoulli":
                return (jax.random.uniform(key, means.shape) < means).astype(jnp.float32)
            case "gaussian":
                return means + self.noise_std * jax.random.normal(key, means.shape)
            case "uniform":
                half_width = math.sqrt(3) * self.noise_std
                return means + half_width * jax.random.uniform(key, means.shape, minval=-1.0)
            case "beta":
                # At expectations 0 and 1 the law is a point, which the sampler does not know.
                inside = jnp.clip(means, 1e-6, 1 - 1e-6)
                drawn = jax.random.beta(key, inside * self.noise_concentration, (1 - inside) * self.noise_concentration)
                return jnp.where((means > 0) & (means < 1), drawn, means)

    @property
    def standard_regret(self) -> RegretKind:
        """The regret of the setting: static under full information, else that of the environment."""
        return "static" if self.feedback == "full" else self.bandit_regret

    @property
    def adaptive(self) -> bool:
        """Whether rewards depend on what was played before, so that other play cannot be judged by them.

        True but for an `ObliviousEnvironment`.
        """
        return True

    @property
    def reacts(self) -> bool:
        """Whether the expected rewards of a round are settled only after the decision, so that no arm is best before.

        False says that `mean_rewards` holds. A class that reacts says so: `reacts = True`.
        """
        return False

    def validate(self, horizon: int) -> None:
        """Raises `ConfigError` for the first setting that cannot work over `horizon` rounds."""
        self.require_types()
        require_count(self.num_arms, "num_arms", 2, 5)
        require_number(self.noise_std, "noise_std", "of at least 0", self.noise_std >= 0, 1.0)
        ok = self.noise_concentration > 0
        require_number(self.noise_concentration, "noise_concentration", "above 0", ok, 4.0)
        self.validate_law(horizon)
        known = all(map(math.isfinite, (*self.reward_range, *self.prior_moments())))
        need = "numbers, which agents take for the scale of rewards"
        advice = "a property nominal_mean_range that says where expected rewards mostly lie"
        require(known, f"an infinite reward_range or prior_moments of {type(self).__name__}", need, advice)
        low, high = self.mean_range
        require(
            self.noise not in ("bernoulli", "beta") or (low >= 0 and high <= 1),
            f"expected rewards in [{low:g}, {high:g}] with noise={self.noise!r}",
            "them inside [0, 1]",
            "noise='gaussian', or settings that keep them there",
        )

    def validate_law(self, horizon: int) -> None:
        """Raises `ConfigError` if the expected rewards cannot be made as the settings say."""

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards; infinite where there are none, and then `nominal_mean_range` is needed."""
        return 0.0, 1.0

    @property
    def reward_range(self) -> tuple[float, float]:
        """Where rewards lie: exactly if they are bounded, else but for one in twenty or fewer (ours). Never a point."""
        low, high = self.nominal_mean_range
        if self.noise in ("bernoulli", "beta"):
            return 0.0, 1.0
        margin = {"none": 0.0, "gaussian": 2.0, "uniform": math.sqrt(3)}[self.noise] * self.noise_std
        return low - margin, high + margin if high + margin > low - margin else low + 1.0

    @property
    def nominal_mean_range(self) -> tuple[float, float]:
        """Where expected rewards mostly lie: `mean_range`, which a law without bounds has to replace here."""
        return self.mean_range

    def prior_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of an arm's expected reward, taken for uniform on its nominal range (ours)."""
        low, high = self.nominal_mean_range
        return (low + high) / 2, (high - low) / math.sqrt(12)

    def variation_budget(self, horizon: int) -> float:
        """A bound that `V_T = sum_{t=2..T} max_a |r_t(a) - r_{t-1}(a)|` never exceeds (Besbes, Gur, Zeevi 2014).

        By default the range of the expected rewards for every round, which is as loose as a bound can be: agents that
        are told of it take it that the best arm may change all the time.
        """
        low, high = self.nominal_mean_range
        return (horizon - 1) * (high - low)
