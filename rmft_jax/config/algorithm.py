"""The settings of the algorithm and of a run."""

import dataclasses
import math
from collections.abc import Callable, Iterator
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
from rmft_jax.config.objective import validate_objective
from rmft_jax.config.policies import POLICIES, PolicyConfig, SingleLayerConfig, TransformerConfig

_CHOICES = (
    "objective",
    "behavior",
    "kl_reference",
    "branching",
    "selection",
    "selection_regret",
    "selection_form",
    "decision_map",
    "full_loss",
    "update",
    "schedule",
)


@dataclasses.dataclass(frozen=True)
class RMFTConfig:
    """One iteration of regret-minimization fine-tuning, and how many there are."""

    environment: EnvironmentConfig = dataclasses.field(default_factory=BanditConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=TransformerConfig)
    horizon: int = 50
    """Rounds T of a trajectory."""
    num_iterations: int = 400
    """Iterations of rollout, selection and fine-tuning."""
    num_scenarios: int = 1024
    """Scenarios M drawn in every iteration."""
    num_rollouts: int = 8
    """Trajectories L played on each scenario."""
    k: int = 2
    """Trajectories kept of each scenario."""
    objective: Literal["rmft", "distillation", "dpt", "regret_loss", "reinforce", "grpo"] = "rmft"
    """What the kept trajectories are used for. `rmft`: they are imitated. The others are rivals on the same network
    and data: imitation of another agent's play (`distillation`), prediction of the best arm (`dpt`), descent on the
    regret of the policy as a function of its weights (`regret_loss`, full information), and policy gradients with a
    baseline (`reinforce`) or with returns standardized in every scenario (`grpo`). See `objectives.py`."""
    behavior: Literal["policy", "ucb1", "thompson", "exp3", "uniform"] = "policy"
    """Who plays the rollouts: the policy in training, or a classical agent."""
    refresh_every: int = 1
    """Iterations between two moments at which the policy that plays the rollouts becomes the one in training. With
    `num_iterations` there is a single round: all rollouts are those of the initial policy."""
    selection: Literal["regret", "advantage", "reward", "random", "pooled"] = "regret"
    """By what they are kept: the lowest regret of their scenario; the regret furthest below their scenario's mean, over
    all scenarios at once (`advantage`, ours: M * k in all); or, as controls, the highest realized total reward, chance,
    or the lowest regret over all scenarios at once (`pooled`: M * k in all)."""
    branching: Literal["none", "uniform", "early", "late"] = "uniform"
    """`none`: the L trajectories are independent from the first round (the paper). `uniform`: they share their past
    up to a uniformly drawn branch round, and only the rounds from there on are imitated. `early`, `late`: as the
    smaller or the larger of two draws has it."""
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
    decision_map: Literal["softmax", "simplex", "ball", "identity"] = "softmax"
    """What maps scores z_t, of the single layer and of every policy under full information, to what is played:
    softmax, Euclidean projection onto the simplex, projection onto a ball, or nothing (`identity`: rollouts play z_t
    itself and are judged against a ball, as in the theorems; the trained policy plays its projection onto the ball)."""
    radius: float = 1.0
    """Radius of the ball."""
    exploration_std: float = 0.5
    """Where there are scores, rollouts play map(z_t + exploration_std * N(0, I))."""
    full_loss: Literal["squared_error", "cross_entropy"] = "squared_error"
    """Where there are scores, what fine-tuning minimizes: the squared error to the kept z_t + noise, which is its
    Gaussian log-likelihood, or the cross-entropy to the kept policy, which flattens it where the noise is large."""
    update: Literal["gradient", "least_squares"] = "gradient"
    """How an iteration fine-tunes: by steps of Adam, or by the exact minimum over the single layer's value matrix V of
    the squared error, which needs none of the settings of steps."""
    l2_penalty: float = 0.0
    """Weight lambda of |V|^2 in the least-squares fit, beside the squared error of a trajectory, summed over rounds."""
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
    kl_reference: Literal["none", "previous", "initial"] = "none"
    """From whose decisions in the kept histories the policy is kept from straying, under bandit feedback: nobody's,
    those of the policy that played them, or those of the policy at the start."""
    kl_weight: float = 0.0
    """Weight of KL(reference || policy) in the loss, per round, in nats."""
    replay: int = 0
    """Last iterations whose kept trajectories are imitated again, beside the new ones."""
    average_window: int = 0
    """Iterations n over which the weights of the evaluated policy are averaged, exponentially: n = 10 takes a tenth of
    the new weights in every iteration. Rollouts are played with the newest. 0: so is the evaluation."""
    rollout_block: int = 0
    """Trajectories stepped together; bounds memory. 0 chooses: up to 256 on CPU, that they stay in cache, else all."""
    update_block: int = 0
    """Trajectories per gradient accumulation step; bounds memory. 0 chooses: up to 64 on CPU, that they stay in cache,
    else a whole minibatch."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.policy.validate()
        for name, suggestion in (("horizon", 50), ("num_iterations", 100), ("num_scenarios", 512), ("num_rollouts", 8)):
            require_count(getattr(self, name), name, 1, suggestion)
        self.environment.validate(self.horizon)
        require_count(self.k, "k", 1, max(1, self.num_rollouts // 4))
        for name, suggestion in (("num_epochs", 1), ("num_minibatches", 4)):
            require_count(getattr(self, name), name, 1, suggestion)
        require_count(self.refresh_every, "refresh_every", 1, 1)
        for name in ("rollout_block", "update_block", "replay", "average_window"):
            require_count(getattr(self, name), name, 0, 0)
        for name in _CHOICES:
            require_choice(getattr(self, name), RMFTConfig, name)
        require(
            self.k <= self.num_rollouts,
            f"k={self.k} with num_rollouts={self.num_rollouts}",
            "k of at most num_rollouts",
            f"k={max(1, self.num_rollouts // 4)}",
        )
        kept = self.num_scenarios * self.k * (self.replay + 1)
        require(
            kept % self.num_minibatches == 0 or self.update == "least_squares",
            f"num_minibatches={self.num_minibatches} with num_scenarios*k={self.num_scenarios}*{self.k}="
            + str(self.num_scenarios * self.k)
            + f" in {self.replay + 1} iterations" * (self.replay > 0),
            "a number of minibatches that divides the kept trajectories",
            f"num_minibatches={largest_divisor(kept, self.num_minibatches)}",
        )
        require_number(self.temperature, "temperature", "above 0", self.temperature > 0, 1.0)
        require_number(self.step_size, "step_size", "above 0", self.step_size > 0, 2e-3)
        require_number(self.max_grad_norm, "max_grad_norm", "above 0", self.max_grad_norm > 0, 1.0)
        require_number(self.entropy_weight, "entropy_weight", "of at least 0", self.entropy_weight >= 0, 0.01)
        self._validate_selection()
        if self.has_scores:
            self._validate_scores()
        self._validate_update()
        validate_objective(self)

    @property
    def has_scores(self) -> bool:
        """Whether the policy maps scores z_t, and explores by Gaussian noise on them, rather than by its actions."""
        return self.environment.feedback == "full" or isinstance(self.policy, SingleLayerConfig)

    @property
    def plays_points(self) -> bool:
        """Whether play is a point of a ball, or of the space, rather than a distribution over arms."""
        return self.has_scores and self.decision_map in ("ball", "identity")

    def _validate_selection(self) -> None:
        ignored = {"reward": ("selection_regret",), "random": ("selection_regret", "selection_form")}
        for name in ignored.get(self.selection, ()):
            value = getattr(self, name)
            require(
                value == "standard",
                f"{name}={value!r} with selection={self.selection!r}",
                "a selection that looks at it",
                f"selection='regret' or {name}='standard'",
            )

    def _validate_scores(self) -> None:
        require_number(self.radius, "radius", "above 0", self.radius > 0, 1.0)
        require_number(self.exploration_std, "exploration_std", "above 0", self.exploration_std > 0, 0.5)
        feedback = self.environment.feedback
        require(
            self.entropy_weight == 0,
            f"entropy_weight={self.entropy_weight} with feedback={feedback!r} and a policy that emits scores",
            "0, since exploration is exploration_std there",
            "entropy_weight=0",
        )
        require(
            self.full_loss == "squared_error" or self.decision_map == "softmax",
            f"full_loss='cross_entropy' with decision_map={self.decision_map!r}",
            "a policy that gives every arm a positive probability",
            "full_loss='squared_error' or decision_map='softmax'",
        )
        if self.plays_points:
            require(
                feedback == "full",
                f"decision_map={self.decision_map!r} with feedback={feedback!r}",
                "arms to draw from, or rewards that are seen whole",
                "decision_map='softmax' or feedback='full'",
            )
            require(
                self.selection_regret in ("standard", "static") and self.selection_form != "sampled",
                f"selection_regret={self.selection_regret!r} in {self.selection_form!r} form "
                f"with decision_map={self.decision_map!r}",
                "the static regret of the point played, in which no arm is drawn",
                "selection_regret='standard' and selection_form='standard'",
            )

    def _validate_update(self) -> None:
        require_number(self.l2_penalty, "l2_penalty", "of at least 0", self.l2_penalty >= 0, 0.0)
        if self.update == "least_squares":
            require(
                isinstance(self.policy, SingleLayerConfig) and self.full_loss == "squared_error",
                f"update='least_squares' with policy={type(self.policy).__name__} and full_loss={self.full_loss!r}",
                "a single layer, whose scores are linear in V, and its squared error",
                "preset single-layer, or update='gradient'",
            )
        else:
            require(
                self.l2_penalty == 0,
                f"l2_penalty={self.l2_penalty} with update={self.update!r}",
                "the least-squares fit, which alone has the penalty",
                "l2_penalty=0 or update='least_squares'",
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
    values["rmft"]["policy"] = _tagged(config.rmft.policy, POLICIES)
    return values


def environment_to_dict(config: EnvironmentConfig) -> dict[str, Any]:
    """The environment's family and settings, as plain values."""
    return _tagged(config, FAMILIES)


def _tagged(config: Any, families: dict[str, Any]) -> dict[str, Any]:
    names = {kind: name for name, kind in families.items()}
    return {"family": names[type(config)], **dataclasses.asdict(config)}


_STRICT = dacite.Config(strict=True, type_hooks={float: float})


def _untagged(noun: str, families: dict[str, Any], default: str | None = None) -> Callable[[dict[str, Any]], Any]:
    def build(values: dict[str, Any]) -> Any:
        family = values.get("family", default)
        if family not in families:
            first = next(iter(families))
            raise ConfigError(f"got {noun} family {family!r}, need one of {', '.join(families)}; try {first!r}")
        return dacite.from_dict(families[family], {k: v for k, v in values.items() if k != "family"}, _STRICT)

    return build


_HOOKS = {
    float: float,
    EnvironmentConfig: _untagged("environment", FAMILIES),
    # Runs of version 0.2 and before had Transformers only, and did not say so.
    PolicyConfig: _untagged("policy", POLICIES, default="transformer"),
}


def from_dict(values: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict`.

    Raises:
      ConfigError: on an unknown field, a wrong type, or a setting that cannot work.
    """
    try:
        config = dacite.from_dict(RunConfig, values, dacite.Config(strict=True, type_hooks=_HOOKS))
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
