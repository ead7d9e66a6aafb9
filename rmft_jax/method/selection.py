"""Which trajectories are kept."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.config import Choice, ScalarKey
from rmft_jax.config.checks import require, require_count, require_number
from rmft_jax.method.judging import Judged
from rmft_jax.problems import Problem, Regret

if TYPE_CHECKING:
    from rmft_jax.method.settings import RMFTConfig


class Selection(Choice, kind="selection"):
    """A rule by which trajectories are kept. A new one derives from this class and says which (`keep`)."""

    k: int = 2
    """Trajectories kept of each scenario, or on average of each."""

    def validate(self, config: "RMFTConfig") -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.require_types()
        suggestion = max(1, config.num_rollouts // 4)
        require_count(self.k, "k", 1, suggestion)
        require(
            self.k <= config.num_rollouts,
            f"k={self.k} with num_rollouts={config.num_rollouts}",
            "k of at most num_rollouts",
            f"k={suggestion}",
        )

    def regret(self, problem: Problem) -> Regret:
        """The regret that `keep` is shown; by default that of the setting."""
        return problem.regret

    @abc.abstractmethod
    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "G n"]:
        """The rollouts that are kept, by their numbers in groups of equal size, best first.

        Args:
          key: for rules that draw.
          judged: all rollouts, with axes `[M, L]`.

        Returns:
          Per scenario the numbers of `k` rollouts, `[M, k]`; or, `[1, M * k]`, those of all scenarios as one group,
          counted through.
        """


class _ByRegret(Selection):
    """What the rules share that look at a regret."""

    selection_regret: Literal["standard", "static", "pseudo", "dynamic", "realized", "swap"] = "standard"
    """The regret by which trajectories are selected. `standard` is that of the setting: static under full information,
    pseudo for stationary bandits, dynamic for others, static for adversarial ones."""
    selection_form: Literal["standard", "sampled", "expected"] = "standard"
    """Whether regret counts the sampled actions or the policies. `standard`: sampled under bandit feedback, expected
    under full information."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        require(
            not config.problem().points
            or (self.selection_regret in ("standard", "static") and self.selection_form != "sampled"),
            f"selection_regret={self.selection_regret!r} in {self.selection_form!r} form "
            f"with decision_map={config.decision_map.name!r}",
            "the static regret of the point played, in which no arm is drawn",
            "selection_regret='standard' and selection_form='standard'",
        )

    def regret(self, problem: Problem) -> Regret:
        """The regret of the settings."""
        return _with(problem, self.selection_regret, self.selection_form)


@Selection.register("regret")
class LowestRegret(_ByRegret):
    """The lowest regrets of each scenario, as in the paper."""

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "M k"]:
        return select_lowest(judged.final, self.k)


@Selection.register("advantage")
class Advantage(_ByRegret):
    """The regrets furthest below their scenario's mean, over all scenarios at once (ours): M * k in all.

    Ranks within a scenario do not tell a large gain from a small one: a policy that commits early wins most
    comparisons by a little, and loses few by much.

    The furthest alone favour decisions that seldom gain much over those that gain on average. With a
    `selection_temperature` τ the odds of being kept grow like exp(A / τ) with the advantage A, as long as few are kept.
    Imitation then moves a policy to `π(a | h) E[exp(A / τ) | h, a]`, up to normalization: exponential weights on the
    entropic certainty equivalent of a decision, `E[A] + Var[A] / 2τ` to first order, which for large τ is its mean.
    """

    selection_temperature: float = 0.0
    """Chance in the selection, in the unit of regret: the higher, the more often a lower advantage is kept in place of
    a higher one. With 0 the highest are kept."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        tau = self.selection_temperature
        require_number(tau, "selection_temperature", "of at least 0", tau >= 0, 0.5)

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "1 n"]:
        relative = judged.final - jnp.mean(judged.final, axis=1, keepdims=True)
        # The highest sums with Gumbel noise are a draw without replacement, by exponential odds (Kool et al. 2019).
        chance = self.selection_temperature * jax.random.gumbel(key, relative.shape)
        return select_lowest((relative - chance).reshape(1, -1), judged.final.shape[0] * self.k)


@Selection.register("pooled")
class Pooled(_ByRegret):
    """A control: the lowest regrets over all scenarios at once, M * k in all, which favours easy scenarios."""

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "1 n"]:
        return select_lowest(judged.final.reshape(1, -1), judged.final.shape[0] * self.k)


@Selection.register("reward")
class HighestReward(Selection):
    """A control: the highest realized total rewards of each scenario, which rewards luck."""

    selection_form: Literal["standard", "sampled", "expected"] = "standard"
    """Whether the sampled actions count or the policies; as for a regret."""

    def regret(self, problem: Problem) -> Regret:
        """Its form is that of the reward."""
        return _with(problem, "standard", self.selection_form)

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "M k"]:
        return select_lowest(-judged.reward, self.k)


@Selection.register("random")
class AtRandom(Selection):
    """A control: k of each scenario by chance."""

    def keep(self, key: ScalarKey, judged: Judged) -> Int[Array, "M k"]:
        return select_lowest(jax.random.uniform(key, judged.final.shape), self.k)


def select_lowest(regret: Float[Array, "M L"], k: int) -> Int[Array, "M k"]:
    """Per scenario, the indices of the `k` rollouts with the lowest regret, lowest first.

    Equal regrets keep the lower index, which favours nobody: rollouts of a scenario are exchangeable.
    """
    return jax.lax.top_k(-regret, k)[1]


def _with(problem: Problem, kind: str, form: str) -> Regret:
    """The regret of the setting, but for what is not `standard`; in a ball there is no other."""
    standard = problem.regret
    changes = {name: value for name, value in (("kind", kind), ("form", form)) if value != "standard"}
    return standard if problem.points else dataclasses.replace(standard, **changes)
