"""The settings of the policy, of the algorithm and of a run."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import dacite

from rmft_jax.config.checks import (
    ConfigError,
    largest_divisor,
    require,
    require_choice,
    require_count,
    require_number,
    require_seed,
)
from rmft_jax.config.environments import FAMILIES, BanditConfig, EnvironmentConfig


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
        require_count(self.num_layers, "num_layers", 1, 2)
        require_count(self.width, "width", 2, 32)
        require_count(self.num_heads, "num_heads", 1, 2)
        require_count(self.mlp_ratio, "mlp_ratio", 1, 4)
        require_choice(self.position, TransformerConfig, "position")
        require(
            self.width % self.num_heads == 0,
            f"width={self.width} with num_heads={self.num_heads}",
            "a width that the heads divide",
            f"num_heads={largest_divisor(self.width, self.num_heads)}",
        )
        require(
            self.position != "sinusoidal" or self.width % 2 == 0,
            f"position='sinusoidal' with width={self.width}",
            "an even width for sine and cosine pairs",
            f"width={self.width + 1}",
        )


@dataclasses.dataclass(frozen=True)
class RMFTConfig:
    """One iteration of regret-minimization fine-tuning, and how many there are."""

    environment: EnvironmentConfig = dataclasses.field(default_factory=BanditConfig)
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
    selection_regret: Literal["standard", "static", "pseudo", "dynamic", "realized", "swap"] = "standard"
    """The regret by which trajectories are selected. `standard` is that of the setting: static under full information,
    pseudo for stationary bandits, dynamic for others, static for adversarial ones."""
    selection_form: Literal["standard", "sampled", "expected"] = "standard"
    """Whether regret counts the sampled actions or the policies. `standard`: sampled under bandit feedback, expected
    under full information."""
    temperature: float = 1.0
    """Rollout temperature under bandit feedback: actions are drawn from softmax(logits / temperature)."""
    decision_map: Literal["softmax", "simplex", "ball"] = "softmax"
    """Under full information, what maps the network's z_t to the policy: softmax, Euclidean projection onto the
    simplex, or projection onto a ball."""
    radius: float = 1.0
    """Radius of the ball."""
    exploration_std: float = 0.5
    """Under full information, rollouts play map(z_t + exploration_std * N(0, I))."""
    full_loss: Literal["squared_error", "cross_entropy"] = "squared_error"
    """Under full information, what fine-tuning minimizes: the squared error to the kept z_t + noise, which is its
    Gaussian log-likelihood, or the cross-entropy to the kept policy, which flattens it where the noise is large."""
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
        self.policy.validate()
        for name, suggestion in (("horizon", 50), ("num_iterations", 100), ("num_scenarios", 512), ("num_rollouts", 8)):
            require_count(getattr(self, name), name, 1, suggestion)
        self.environment.validate(self.horizon)
        require_count(self.k, "k", 1, max(1, self.num_rollouts // 4))
        for name, suggestion in (("num_epochs", 1), ("num_minibatches", 4)):
            require_count(getattr(self, name), name, 1, suggestion)
        for name in ("rollout_block", "update_block"):
            require_count(getattr(self, name), name, 0, 0)
        choices = ("branching", "selection_regret", "selection_form", "decision_map", "full_loss", "schedule")
        for name in choices:
            require_choice(getattr(self, name), RMFTConfig, name)
        require(
            self.k <= self.num_rollouts,
            f"k={self.k} with num_rollouts={self.num_rollouts}",
            "k of at most num_rollouts",
            f"k={max(1, self.num_rollouts // 4)}",
        )
        kept = self.num_scenarios * self.k
        require(
            kept % self.num_minibatches == 0,
            f"num_minibatches={self.num_minibatches} with num_scenarios*k={self.num_scenarios}*{self.k}={kept}",
            "a number of minibatches that divides the kept trajectories",
            f"num_minibatches={largest_divisor(kept, self.num_minibatches)}",
        )
        require_number(self.temperature, "temperature", "above 0", self.temperature > 0, 1.0)
        require_number(self.step_size, "step_size", "above 0", self.step_size > 0, 2e-3)
        require_number(self.max_grad_norm, "max_grad_norm", "above 0", self.max_grad_norm > 0, 1.0)
        require_number(self.entropy_weight, "entropy_weight", "of at least 0", self.entropy_weight >= 0, 0.01)
        if self.environment.feedback == "full":
            self._validate_full_information()

    def _validate_full_information(self) -> None:
        require_number(self.radius, "radius", "above 0", self.radius > 0, 1.0)
        require_number(self.exploration_std, "exploration_std", "above 0", self.exploration_std > 0, 0.5)
        require(
            self.entropy_weight == 0,
            f"entropy_weight={self.entropy_weight} with feedback='full'",
            "0, since exploration is exploration_std there",
            "entropy_weight=0",
        )
        require(
            self.full_loss == "squared_error" or self.decision_map == "softmax",
            f"full_loss='cross_entropy' with decision_map={self.decision_map!r}",
            "a policy that gives every arm a positive probability",
            "full_loss='squared_error' or decision_map='softmax'",
        )
        if self.decision_map == "ball":
            require(
                self.selection_regret in ("standard", "static") and self.selection_form != "sampled",
                f"selection_regret={self.selection_regret!r} in {self.selection_form!r} form with decision_map='ball'",
                "the static regret of the point played, in which no arm is drawn",
                "selection_regret='standard' and selection_form='standard'",
            )


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
        require_seed(self.seed)
        require_count(self.chunk_size, "chunk_size", 1, 20)
        require_count(self.num_validation_scenarios, "num_validation_scenarios", 2, 1024)
        require_count(self.num_test_scenarios, "num_test_scenarios", 2, 4096)
        iterations = self.rmft.num_iterations
        fitting = largest_divisor(iterations, self.chunk_size)
        require(
            iterations % self.chunk_size == 0,
            f"num_iterations={iterations} with chunk_size={self.chunk_size}",
            "whole chunks",
            f"chunk_size={fitting} or num_iterations={math.ceil(iterations / self.chunk_size) * self.chunk_size}",
        )


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Nested plain values, complete and reloadable with `from_dict`."""
    values = dataclasses.asdict(config)
    values["rmft"]["environment"] = environment_to_dict(config.rmft.environment)
    return values


def environment_to_dict(config: EnvironmentConfig) -> dict[str, Any]:
    """The environment's family and settings, as plain values."""
    families = {kind: name for name, kind in FAMILIES.items()}
    return {"family": families[type(config)], **dataclasses.asdict(config)}


_STRICT = dacite.Config(strict=True, type_hooks={float: float})


def _environment_from_dict(values: dict[str, Any]) -> EnvironmentConfig:
    family = values.get("family")
    if family not in FAMILIES:
        raise ConfigError(f"got environment family {family!r}, need one of {', '.join(FAMILIES)}; try {'bandit'!r}")
    return dacite.from_dict(FAMILIES[family], {k: v for k, v in values.items() if k != "family"}, _STRICT)


def from_dict(values: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict`.

    Raises:
      ConfigError: on an unknown field, a wrong type, or a setting that cannot work.
    """
    try:
        config = dacite.from_dict(
            RunConfig,
            values,
            dacite.Config(strict=True, type_hooks={float: float, EnvironmentConfig: _environment_from_dict}),
        )
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
        elif type(a) is not type(b) or a != b:
            yield field.name, a, b
