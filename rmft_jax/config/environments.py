"""The settings of every environment: its law, and the variation budget that the law guarantees.

The variation budget is `V_T = sum_{t=2..T} max_a |r_t(a) - r_{t-1}(a)|` (Besbes, Gur, Zeevi 2014).
"""

import dataclasses
import itertools
import math
from typing import ClassVar, Literal

from rmft_jax.config.checks import require, require_choice, require_count, require_number

Feedback = Literal["bandit", "full"]
Noise = Literal["none", "bernoulli", "gaussian", "uniform", "beta"]
RegretKind = Literal["static", "pseudo", "dynamic", "realized", "swap", "ball"]


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """What all environments have: arms, feedback, and the law of the rewards given their expectations.

    Noise laws of a reward with expectation r: `none`, R = r; `bernoulli`, 1 with probability r; `gaussian`,
    r + noise_std * N(0, 1); `uniform` on r +- sqrt(3) * noise_std; `beta`, with parameters r * c and (1 - r) * c for
    c = noise_concentration. Rewards are independent over rounds and arms given their expectations.
    """

    num_arms: int = 5
    """Number of arms K."""
    feedback: Feedback = "bandit"
    """What is seen after a round: the reward of the played arm, or the rewards of all arms."""
    noise: Noise = "bernoulli"
    """Law of a reward given its expectation."""
    noise_std: float = 1.0
    """Standard deviation of Gaussian and uniform reward noise."""
    noise_concentration: float = 4.0
    """Concentration of Beta reward noise, the sum of its two parameters."""

    bandit_regret: ClassVar[RegretKind] = "dynamic"
    """The regret by which play under bandit feedback is judged."""

    @property
    def standard_regret(self) -> RegretKind:
        """The regret of the setting: static under full information, else that of the environment."""
        return "static" if self.feedback == "full" else self.bandit_regret

    def validate(self, horizon: int) -> None:
        """Raises `ConfigError` for the first setting that cannot work over `horizon` rounds."""
        require_count(self.num_arms, "num_arms", 2, 5)
        require_choice(self.feedback, EnvironmentConfig, "feedback")
        require_choice(self.noise, EnvironmentConfig, "noise")
        require_number(self.noise_std, "noise_std", "of at least 0", self.noise_std >= 0, 1.0)
        ok = self.noise_concentration > 0
        require_number(self.noise_concentration, "noise_concentration", "above 0", ok, 4.0)
        self.validate_law(horizon)
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
        """Bounds of the expected rewards; infinite where there are none."""
        return 0.0, 1.0

    @property
    def reward_range(self) -> tuple[float, float]:
        """Where rewards lie: exactly if they are bounded, else but for one in twenty or fewer (ours). Never a point."""
        low, high = self._nominal_mean_range
        if self.noise in ("bernoulli", "beta"):
            return 0.0, 1.0
        margin = {"none": 0.0, "gaussian": 2.0, "uniform": math.sqrt(3)}[self.noise] * self.noise_std
        return low - margin, high + margin if high + margin > low - margin else low + 1.0

    @property
    def _nominal_mean_range(self) -> tuple[float, float]:
        return self.mean_range

    def prior_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of an arm's expected reward, taken for uniform between its bounds (ours)."""
        low, high = self.mean_range
        return (low + high) / 2, (high - low) / math.sqrt(12)

    def variation_budget(self, horizon: int) -> float:
        """A bound that V_T never exceeds."""
        return float(horizon - 1)


@dataclasses.dataclass(frozen=True)
class BanditConfig(EnvironmentConfig):
    """Stationary expected rewards, drawn once per scenario. V_T = 0.

    Under full information: i.i.d. reward vectors around a drawn mean.
    """

    prior: Literal["uniform", "gaussian", "fixed_gap", "constant"] = "uniform"
    """Law of the expected rewards: uniform on [0, 1]; Gaussian; one best arm 1/2 + gap/2, drawn uniformly, among arms
    1/2 - gap/2 (Krishnamurthy et al. 2024); or prior_mean for every arm."""
    prior_mean: float = 0.0
    """Mean of the Gaussian prior, value of the constant one."""
    prior_std: float = 1.0
    """Standard deviation of the Gaussian prior."""
    gap: float = 0.2
    """Gap between the best arm and every other one under the fixed_gap prior."""

    bandit_regret: ClassVar[RegretKind] = "pseudo"

    def validate_law(self, horizon: int) -> None:
        """Checks the prior."""
        require_choice(self.prior, BanditConfig, "prior")
        require_number(self.prior_mean, "prior_mean", "", True, 0.0)
        require_number(self.prior_std, "prior_std", "above 0", self.prior_std > 0, 1.0)
        require_number(self.gap, "gap", "in (0, 1]", 0 < self.gap <= 1, 0.2)

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards."""
        match self.prior:
            case "uniform":
                return 0.0, 1.0
            case "gaussian":
                return -math.inf, math.inf
            case "fixed_gap":
                return 0.5 - self.gap / 2, 0.5 + self.gap / 2
            case "constant":
                return self.prior_mean, self.prior_mean

    @property
    def _nominal_mean_range(self) -> tuple[float, float]:
        if self.prior == "gaussian":
            return self.prior_mean - 2 * self.prior_std, self.prior_mean + 2 * self.prior_std
        return self.mean_range

    def prior_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of an arm's expected reward."""
        match self.prior:
            case "uniform":
                return 0.5, math.sqrt(1 / 12)
            case "gaussian":
                return self.prior_mean, self.prior_std
            case "fixed_gap":
                chance = 1 / self.num_arms
                return 0.5 + self.gap * (chance - 0.5), self.gap * math.sqrt(chance * (1 - chance))
            case "constant":
                return self.prior_mean, 0.0

    def variation_budget(self, horizon: int) -> float:
        """Nothing ever varies."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class SinusoidalConfig(EnvironmentConfig):
    """Sinusoidal drift: r_t(a) = 1/2 + A_a sin(2 pi t / P_a + phi_a).

    Per arm, A is uniform on [amplitude/2, amplitude], P on [period, 2 period], the phase on the circle.
    V_T <= 2 (T - 1) amplitude sin(pi / period), since |sin(x + d) - sin(x)| <= 2 |sin(d/2)|.
    """

    amplitude: float = 0.5
    """Largest amplitude of an arm."""
    period: float = 50.0
    """Shortest period of an arm, in rounds; at least 2."""

    def validate_law(self, horizon: int) -> None:
        """Checks amplitude and period."""
        require_number(self.amplitude, "amplitude", "of at least 0", self.amplitude >= 0, 0.5)
        require_number(self.period, "period", "of at least 2", self.period >= 2, 50.0)

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards."""
        return 0.5 - self.amplitude, 0.5 + self.amplitude

    def variation_budget(self, horizon: int) -> float:
        """`2 (T - 1) amplitude sin(pi / period)`."""
        return 2 * (horizon - 1) * self.amplitude * math.sin(math.pi / self.period)


@dataclasses.dataclass(frozen=True)
class RandomWalkConfig(EnvironmentConfig):
    """A random walk per arm, reflected at 0 and 1: uniform start, steps uniform on [-walk_step, walk_step].

    Reflection is a contraction, so V_T <= (T - 1) walk_step.
    """

    walk_step: float = 0.05
    """Largest step per round."""

    def validate_law(self, horizon: int) -> None:
        """Checks the step."""
        require_number(self.walk_step, "walk_step", "in [0, 1]", 0 <= self.walk_step <= 1, 0.05)

    def variation_budget(self, horizon: int) -> float:
        """`(T - 1) walk_step`."""
        return (horizon - 1) * self.walk_step


@dataclasses.dataclass(frozen=True)
class GradualConfig(EnvironmentConfig):
    """Gradual drift (Park et al. 2024): |r_{t+1}(a) - r_t(a)| <= drift_scale / sqrt(t), reflected at 0 and 1.

    Uniform start, steps uniform within the bound. V_T <= sum_{t < T} min(1, drift_scale / sqrt(t)) <= 2 drift_scale
    sqrt(T).
    """

    drift_scale: float = 1.0
    """Largest step after round t, times sqrt(t)."""

    def validate_law(self, horizon: int) -> None:
        """Checks the scale."""
        require_number(self.drift_scale, "drift_scale", "of at least 0", self.drift_scale >= 0, 1.0)

    def variation_budget(self, horizon: int) -> float:
        """`sum_{t < T} min(1, drift_scale / sqrt(t))`."""
        return math.fsum(min(1.0, self.drift_scale / math.sqrt(t)) for t in range(1, horizon))


@dataclasses.dataclass(frozen=True)
class LinearTrendConfig(EnvironmentConfig):
    """Every arm goes in a straight line from one uniform draw in round 1 to another in round T. V_T <= 1."""

    def variation_budget(self, horizon: int) -> float:
        """One, or nothing if there is a single round."""
        return min(1.0, horizon - 1.0)


@dataclasses.dataclass(frozen=True)
class AbruptConfig(EnvironmentConfig):
    """Piecewise constant: `num_changes` distinct change points, uniform among rounds 2..T. V_T <= num_changes.

    The first expected rewards are uniform on [0, 1]. A change draws fresh ones, or mirrors them: r becomes 1 - r.
    """

    num_changes: int = 3
    """Change points m; fewer than the horizon."""
    change: Literal["fresh", "mirrored"] = "fresh"
    """What a change does."""

    def validate_law(self, horizon: int) -> None:
        """Checks the change points."""
        require_count(self.num_changes, "num_changes", 0, 3)
        require_choice(self.change, AbruptConfig, "change")
        require(
            self.num_changes < horizon,
            f"num_changes={self.num_changes} with horizon={horizon}",
            "fewer change points than rounds",
            f"num_changes={max(0, min(3, horizon - 1))}",
        )

    def variation_budget(self, horizon: int) -> float:
        """Each change spends at most 1."""
        return float(self.num_changes)


BESBES_AMPLITUDE = 0.3


@dataclasses.dataclass(frozen=True)
class BesbesConfig(EnvironmentConfig):
    """Two sines in opposite phase that spend a given budget (after the examples of Besbes, Gur, Zeevi 2014).

    r_t = 1/2 +- 0.3 sin(5 pi variation t / (3 T)): evenly over the horizon, or three times as fast over the first
    third of it and constant after that. Every second arm, in random order, has the opposite sign: the paper has two
    arms, and more are ours, as is the value held after the first third. V_T is `variation` where that makes whole
    quarters of a period (multiples of 0.3) and rounds are many, and at most 0.064 more elsewhere; `variation_budget`
    is exact.
    """

    num_arms: int = 2
    """Number of arms K."""
    variation: float = 3.0
    """The budget that is spent, at most 0.3 T: a quarter of a period per round."""
    spending: Literal["even", "first_third"] = "even"
    """When it is spent; over the first third it can be at most 0.1 T."""

    def validate_law(self, horizon: int) -> None:
        """Checks that the budget can be spent."""
        require_choice(self.spending, BesbesConfig, "spending")
        limit = (0.3 if self.spending == "even" else 0.1) * horizon
        require_number(self.variation, "variation", "of at least 0", self.variation >= 0, 3.0)
        require(
            self.variation <= limit,
            f"variation={self.variation} with spending={self.spending!r} and horizon={horizon}",
            f"a budget that can be spent, at most {limit:g}",
            f"variation={min(3.0, limit):g}",
        )

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards."""
        return 0.5 - BESBES_AMPLITUDE, 0.5 + BESBES_AMPLITUDE

    def variation_budget(self, horizon: int) -> float:
        """What the sine spends between the rounds, exactly."""
        pace = 1 if self.spending == "even" else 3
        elapsed = (min(1.0, pace * t / horizon) for t in range(1, horizon + 1))
        heights = [math.sin(5 * math.pi / 3 * self.variation * fraction) for fraction in elapsed]
        return BESBES_AMPLITUDE * math.fsum(abs(b - a) for a, b in itertools.pairwise(heights))


@dataclasses.dataclass(frozen=True)
class AlternatingConfig(EnvironmentConfig):
    """The sequence on which follow-the-leader has linear regret (Shalev-Shwartz 2012, section 2.2).

    Two arms, drawn per scenario: the first earns 1/2 in round 1; after that the second and the first earn 1 in turn.
    Everything else earns 0, so the leader is always the arm that earns nothing. V_T <= T - 1.
    """

    noise: Noise = "none"
    """Law of a reward given its expectation."""
    centred: bool = False
    """Whether half the sum of the two rewards is taken off both, so that they are opposite. In the simplex of two arms,
    where only differences count, nothing changes; in a ball it is this form that fools the leader."""

    bandit_regret: ClassVar[RegretKind] = "static"

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards."""
        return (-0.5, 0.5) if self.centred else (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class AdaptiveConfig(EnvironmentConfig):
    """An adversary that reacts to play.

    `favourite`: the arm to which the policy of the round gives most weight has expectation 0, the others 1, so that
    committing costs everything; V_T <= T - 1. An agent that draws before it reports its policy, as Thompson sampling
    and FTPL do, shows this adversary the very arm that it will play. `crowding`: an arm earns 1 minus the fraction of
    past rounds in which it was played; V_T <= sum_{t < T} 1/t. `orthogonal`: the expectations are a unit vector at a
    right angle to the policy, or the point of a ball, that is played, so that play earns nothing; V_T <= 2 (T - 1).
    In a ball of radius rho it forces regret rho sqrt(T) on follow-the-regularized-leader, and no play can do better
    against every adversary of unit rewards (Abernethy, Bartlett, Rakhlin, Tewari 2008, for K >= 3).
    """

    noise: Noise = "none"
    """Law of a reward given its expectation."""
    adversary: Literal["favourite", "crowding", "orthogonal"] = "favourite"
    """What it punishes."""

    bandit_regret: ClassVar[RegretKind] = "static"

    def validate_law(self, horizon: int) -> None:
        """Checks the adversary's name."""
        require_choice(self.adversary, AdaptiveConfig, "adversary")

    @property
    def mean_range(self) -> tuple[float, float]:
        """Bounds of the expected rewards."""
        return (-1.0, 1.0) if self.adversary == "orthogonal" else (0.0, 1.0)

    def variation_budget(self, horizon: int) -> float:
        """See the class."""
        match self.adversary:
            case "favourite":
                return horizon - 1.0
            case "orthogonal":
                return 2.0 * (horizon - 1)
            case "crowding":
                return math.fsum(1 / t for t in range(1, horizon))


FAMILIES: dict[str, type[EnvironmentConfig]] = {
    "bandit": BanditConfig,
    "sinusoidal": SinusoidalConfig,
    "random_walk": RandomWalkConfig,
    "gradual": GradualConfig,
    "linear_trend": LinearTrendConfig,
    "abrupt": AbruptConfig,
    "besbes": BesbesConfig,
    "alternating": AlternatingConfig,
    "adaptive": AdaptiveConfig,
}
"""The classes by the name under which a file keeps them."""
