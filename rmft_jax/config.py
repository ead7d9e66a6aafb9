"""Every setting of a run, as frozen dataclasses that are checked before anything compiles.

This module never imports JAX, so that the command line can reject bad input at once. `rmft_jax.types`
registers the classes as pytrees: their `float` fields are leaves, which can be traced and vmapped, and all other
fields are static, because they fix shapes or choose code.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any, Literal

import dacite


class ConfigError(ValueError):
    """A setting that cannot work. The message says what was got, what is needed and what to try."""


def _require(ok: bool, got: str, need: str, suggestion: str) -> None:
    if not ok:
        raise ConfigError(f"got {got}, need {need}; try {suggestion}")


def _require_count(value: object, name: str, minimum: int, suggestion: int) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    _require(ok, f"{name}={value}", f"a whole number of at least {minimum}", f"{name}={suggestion}")


def _require_number(value: float, name: str, need: str, ok: bool, suggestion: float) -> None:
    # Also false for NaN and infinity.
    fits_float32 = value == 0 or 2.0**-126 <= abs(value) < 2.0**128
    _require(fits_float32 and ok, f"{name}={value}", f"a finite number {need} in float32", f"{name}={suggestion}")


def _largest_divisor(number: int, limit: int) -> int:
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def _require_choice(value: object, owner: type, name: str) -> None:
    choices = typing.get_args(typing.get_type_hints(owner)[name])
    _require(value in choices, f"{name}={value!r}", f"one of {', '.join(choices)}", f"{name}={choices[0]!r}")


@dataclasses.dataclass(frozen=True)
class BanditConfig:
    """The K-armed stationary bandit: a prior over the mean rewards and the law of the reward noise."""

    num_arms: int = 5
    """Number of arms K."""
    prior: Literal["uniform", "gaussian", "fixed_gap"] = "uniform"
    """Law of the mean rewards: uniform on [0, 1], Gaussian, or one best arm 1/2 + gap/2 among arms 1/2 - gap/2."""
    noise: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Law of a reward given its mean."""
    prior_mean: float = 0.0
    """Mean of the Gaussian prior."""
    prior_std: float = 1.0
    """Standard deviation of the Gaussian prior."""
    gap: float = 0.2
    """Gap between the best arm and every other one under the fixed_gap prior."""
    noise_std: float = 1.0
    """Standard deviation of Gaussian reward noise."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        _require_count(self.num_arms, "num_arms", 2, 5)
        _require_choice(self.prior, BanditConfig, "prior")
        _require_choice(self.noise, BanditConfig, "noise")
        _require_number(self.prior_mean, "prior_mean", "", True, 0.0)
        _require_number(self.prior_std, "prior_std", "above 0", self.prior_std > 0, 1.0)
        _require_number(self.gap, "gap", "in (0, 1]", 0 < self.gap <= 1, 0.2)
        _require_number(self.noise_std, "noise_std", "of at least 0", self.noise_std >= 0, 1.0)
        _require(
            not (self.prior == "gaussian" and self.noise == "bernoulli"),
            "prior='gaussian' with noise='bernoulli'",
            "mean rewards inside [0, 1] for Bernoulli rewards",
            "noise='gaussian' or prior='uniform'",
        )


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The numerical Transformer: pre-norm, causal, numbers in and arm logits out."""

    num_layers: int = 2
    """Number of blocks."""
    width: int = 32
    """Width of the residual stream."""
    num_heads: int = 2
    """Attention heads; must divide the width."""
    mlp_ratio: int = 4
    """Hidden width of the MLP, as a multiple of the width."""
    position: Literal["none", "learned", "sinusoidal"] = "none"
    """Position encoding added to the input. With `learned`, no horizon beyond the trained one can be played."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        _require_count(self.num_layers, "num_layers", 1, 2)
        _require_count(self.width, "width", 2, 32)
        _require_count(self.num_heads, "num_heads", 1, 2)
        _require_count(self.mlp_ratio, "mlp_ratio", 1, 4)
        _require_choice(self.position, TransformerConfig, "position")
        _require(
            self.width % self.num_heads == 0,
            f"width={self.width} with num_heads={self.num_heads}",
            "a width that the heads divide",
            f"num_heads={_largest_divisor(self.width, self.num_heads)}",
        )
        _require(
            self.position != "sinusoidal" or self.width % 2 == 0,
            f"position='sinusoidal' with width={self.width}",
            "an even width for sine and cosine pairs",
            f"width={self.width + 1}",
        )


@dataclasses.dataclass(frozen=True)
class RMFTConfig:
    """One iteration of regret-minimization fine-tuning, and how many there are."""

    environment: BanditConfig = dataclasses.field(default_factory=BanditConfig)
    policy: TransformerConfig = dataclasses.field(default_factory=TransformerConfig)
    horizon: int = 50
    """Rounds T of a trajectory."""
    num_iterations: int = 400
    """Iterations of rollout, selection and fine-tuning."""
    num_scenarios: int = 1024
    """Scenarios M drawn in every iteration."""
    num_rollouts: int = 8
    """Trajectories L played on each scenario."""
    k: int = 2
    """Trajectories kept of each scenario: the k with the lowest regret."""
    branching: Literal["none", "uniform"] = "uniform"
    """`none`: the L trajectories are independent from the first round (the paper). `uniform`: they share their past
    up to a uniformly drawn branch round, and only the rounds from there on are imitated."""
    shared_reward_noise: bool = False
    """Whether the L trajectories of a scenario see the same reward noise (common random numbers)."""
    selection_regret: Literal["pseudo", "expected", "realized"] = "pseudo"
    """The regret by which trajectories are selected."""
    temperature: float = 1.0
    """Rollout temperature: actions are drawn from softmax(logits / temperature)."""
    num_epochs: int = 1
    """Passes over the kept trajectories in every iteration."""
    num_minibatches: int = 4
    """Optimizer updates per pass; must divide M * k."""
    step_size: float = 2e-3
    """Adam's step size at the start."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Step size over the run: constant, or cosine decay to zero."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    entropy_weight: float = 0.01
    """Weight of the policy-entropy bonus in the loss, in nats."""
    rollout_block: int = 0
    """Trajectories stepped together; bounds memory. 0 chooses: 256 on CPU, where they stay in cache, else all."""
    update_block: int = 0
    """Trajectories per gradient accumulation step. 0 chooses: 64 on CPU, else a whole minibatch."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.environment.validate()
        self.policy.validate()
        for name, suggestion in (("horizon", 50), ("num_iterations", 100), ("num_scenarios", 512), ("num_rollouts", 8)):
            _require_count(getattr(self, name), name, 1, suggestion)
        _require_count(self.k, "k", 1, max(1, self.num_rollouts // 4))
        for name, suggestion in (("num_epochs", 1), ("num_minibatches", 4)):
            _require_count(getattr(self, name), name, 1, suggestion)
        for name in ("rollout_block", "update_block"):
            _require_count(getattr(self, name), name, 0, 0)
        for name in ("branching", "selection_regret", "schedule"):
            _require_choice(getattr(self, name), RMFTConfig, name)
        _require(
            self.k <= self.num_rollouts,
            f"k={self.k} with num_rollouts={self.num_rollouts}",
            "k of at most num_rollouts",
            f"k={max(1, self.num_rollouts // 4)}",
        )
        kept = self.num_scenarios * self.k
        _require(
            kept % self.num_minibatches == 0,
            f"num_minibatches={self.num_minibatches} with num_scenarios*k={self.num_scenarios}*{self.k}={kept}",
            "a number of minibatches that divides the kept trajectories",
            f"num_minibatches={_largest_divisor(kept, self.num_minibatches)}",
        )
        _require_number(self.temperature, "temperature", "above 0", self.temperature > 0, 1.0)
        _require_number(self.step_size, "step_size", "above 0", self.step_size > 0, 2e-3)
        _require_number(self.max_grad_norm, "max_grad_norm", "above 0", self.max_grad_norm > 0, 1.0)
        _require_number(self.entropy_weight, "entropy_weight", "of at least 0", self.entropy_weight >= 0, 0.01)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run: the algorithm, its seed, and how often it is watched and saved."""

    rmft: RMFTConfig = dataclasses.field(default_factory=RMFTConfig)
    seed: int = 0
    """Seed of every random stream of the run."""
    chunk_size: int = 20
    """Iterations between two evaluations, each with a checkpoint; one compiled call. Must divide num_iterations."""
    num_validation_scenarios: int = 1024
    """Scenarios on which each chunk is evaluated and the best checkpoint is chosen."""
    num_test_scenarios: int = 4096
    """Scenarios of the final evaluation, drawn from a stream that training and validation never touch."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.rmft.validate()
        _require_count(self.seed, "seed", 0, 0)
        _require(self.seed < 2**32, f"seed={self.seed}", "a seed below 2**32", "seed=0")
        _require_count(self.chunk_size, "chunk_size", 1, 20)
        _require_count(self.num_validation_scenarios, "num_validation_scenarios", 2, 1024)
        _require_count(self.num_test_scenarios, "num_test_scenarios", 2, 4096)
        iterations = self.rmft.num_iterations
        fitting = _largest_divisor(iterations, self.chunk_size)
        _require(
            iterations % self.chunk_size == 0,
            f"num_iterations={iterations} with chunk_size={self.chunk_size}",
            "whole chunks",
            f"chunk_size={fitting} or num_iterations={math.ceil(iterations / self.chunk_size) * self.chunk_size}",
        )


CONFIG_CLASSES = (BanditConfig, TransformerConfig, RMFTConfig, RunConfig)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Nested plain values, complete and reloadable with `from_dict`."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict`.

    Raises:
      ConfigError: on an unknown field, a wrong type, or a setting that cannot work.
    """
    try:
        config = dacite.from_dict(RunConfig, values, dacite.Config(strict=True, type_hooks={float: float}))
    except (dacite.DaciteError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"not a valid configuration ({error}); try `rmft presets` for valid ones") from error
    config.validate()
    return config


def differing_fields(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields `(field name, value in first, value in second)` wherever two configurations differ."""
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if dataclasses.is_dataclass(a) and type(a) is type(b):
            yield from differing_fields(a, b)
        elif a != b:
            yield field.name, a, b
