"""The settings of the algorithm and of a run, and how they are written down."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rmft_jax.agents import Policy, TrainedAgent, Transformer
from rmft_jax.config import ConfigError, Fixed, Group, Params, ScalarKey
from rmft_jax.config.checks import largest_divisor, require, require_count, require_number, require_seed
from rmft_jax.config.choices import RESERVED, setting_types
from rmft_jax.config.settings import hints_of
from rmft_jax.method.fine_tuning import GradientSteps, Update
from rmft_jax.method.objectives import Imitation, Objective
from rmft_jax.method.selection import LowestRegret, Selection
from rmft_jax.problems import DecisionMap, Environment, Extent, Problem, Softmax, Stationary


class RMFTConfig(Group):
    """One iteration of regret-minimization fine-tuning, and how many there are.

    The choices come first; each has settings of its own, and all are reached by their names: `config.replace(k=4)`.
    """

    environment: Environment = Stationary()
    """What is played."""
    policy: Policy = Transformer()
    """Who learns to play it."""
    horizon: int = 50
    """Rounds T of a trajectory."""
    num_iterations: int = 400
    """Iterations of rollout, selection and fine-tuning."""
    num_scenarios: int = 1024
    """Scenarios M drawn in every iteration."""
    num_rollouts: int = 8
    """Trajectories L played on each scenario."""
    selection: Selection = LowestRegret()
    """Which of them are kept."""
    objective: Objective = Imitation()
    """What those are used for."""
    update: Update = GradientSteps()
    """How an iteration fine-tunes."""
    decision_map: DecisionMap = Softmax()
    """What maps scores z_t, of the single layer and of every policy under full information, to what is played."""
    refresh_every: int = 1
    """Iterations between two moments at which the policy that plays the rollouts becomes the one in training. With
    `num_iterations` there is a single round: all rollouts are those of the initial policy."""
    branching: Literal["none", "uniform"] = "uniform"
    """`none`: the L trajectories are independent from the first round (the paper). `uniform`: they share their past
    up to a uniformly drawn branch round, and only the rounds from there on are imitated."""
    shared_reward_noise: bool = False
    """Whether the L trajectories of a scenario see the same reward noise (common random numbers)."""
    temperature: float = 1.0
    """Of rollouts, where there are no scores: actions are drawn from softmax(logits / temperature). Free answers of
    language models too, but their thoughts at 1."""
    play_temperature: float = 1.0
    """Of play that is measured, in validation and evaluations: below 1 the policy plays what it prefers more often than
    it was taught to, as rollouts need chance and play does not. Rollouts and fine-tuning know nothing of it."""
    rollout_block: int = 0
    """Trajectories stepped together; bounds memory. 0 chooses: up to 256 on CPU, that they stay in cache, else all."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.require_types()
        self.policy.validate()
        for name, suggestion in (("horizon", 50), ("num_iterations", 100), ("num_scenarios", 512), ("num_rollouts", 8)):
            require_count(getattr(self, name), name, 1, suggestion)
        self.environment.validate(self.horizon)
        require_count(self.refresh_every, "refresh_every", 1, 1)
        require_count(self.rollout_block, "rollout_block", 0, 0)
        for name, value in (("temperature", self.temperature), ("play_temperature", self.play_temperature)):
            require_number(value, name, "above 0", value > 0, 1.0)
            got = f"{name}={value} with policy={self.policy.name!r} and feedback={self.environment.feedback!r}"
            require(value == 1 or not self.has_scores, got, "logits, where this one has scores", f"{name}=1")
        self.selection.validate(self)
        if self.has_scores:
            self.decision_map.validate()
            self.policy.validate_decision_map(self.decision_map)
            require(
                not self.decision_map.points or self.environment.feedback == "full",
                f"decision_map={self.decision_map.name!r} with feedback={self.environment.feedback!r}",
                "arms to draw from, or rewards that are seen whole",
                "decision_map='softmax' or feedback='full'",
            )
        self.objective.validate(self)
        self.update.validate(self)

    @property
    def has_scores(self) -> bool:
        """Whether the policy maps scores z_t, and explores by Gaussian noise on them, rather than by its actions."""
        return self.policy.has_scores(self.environment.feedback)

    def problem(self, extent: Extent | None = None) -> Problem:
        """What is played, of which `extent` is in use; None: all."""
        points = self.has_scores and self.decision_map.points
        radius = getattr(self.decision_map, "radius", None) if points else None
        return Problem(self.environment, self.horizon, extent, radius)

    def init_params(self, key: ScalarKey) -> Params:
        """The parameters from which training starts: random weights, or those of the theory for the single layer."""
        return self.policy.init_params(key, self.problem())

    def fixed_params(self) -> Fixed | None:
        """What the policy plays with and is not trained; made outside of compiled programs.

        Raises:
          ConfigError: if it cannot be made.
        """
        return self.policy.fixed_params(self.problem())

    def agent(self, params: Params, fixed: Fixed | None = None, *, explore: bool = False) -> TrainedAgent:
        """The policy as an agent that plays: at `play_temperature`, or as in rollouts.

        Where rollouts play the scores themselves, the policy without exploration is their projection onto the ball.

        Args:
          params: that are trained.
          fixed: those that are not. None: they are made, if there are any, which a compiled program cannot do.
          explore: as in rollouts, with their temperature or Gaussian noise.
        """
        decision_map = self.decision_map if explore else self.decision_map.still
        joined = self.policy.joined(params, self.fixed_params() if fixed is None else fixed)
        temperature = self.temperature if explore else self.play_temperature
        return self.policy.make_agent(joined, self.problem(), decision_map, temperature)


class RunConfig(Group):
    """A whole run: the algorithm, its seed, and how often it is watched and saved."""

    rmft: RMFTConfig = RMFTConfig()
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
        self.require_types()
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


RESERVED.update(dict.fromkeys((*hints_of(RMFTConfig), *hints_of(RunConfig)), "the algorithm"))

# What version 0.6 had and this one has not, with the values under which it meant nothing.
_GONE = {"replay": 0, "average_window": 0, "full_loss": "squared_error"}
_RENAMED = {("environment", "bandit"): "stationary", ("objective", "rmft"): "imitation"}


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The configuration of a flat table of settings (`RunConfig.flat`), or of what version 0.6 wrote.

    Raises:
      ConfigError: on an unknown setting, a wrong type, or a setting that cannot work.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"got {type(values).__name__}, need a table of settings; try `rmft presets` for valid ones")
    flat = _of_0_6(values) if isinstance(values.get("rmft"), Mapping) else values
    config = RunConfig().replace(**{str(name): value for name, value in flat.items()})
    config.validate()
    return config


def _of_0_6(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flat table of a nested one; settings of choices that were not taken meant nothing."""
    flat = {name: value for name, value in {**values, **values["rmft"]}.items() if name != "rmft"}
    # Version 0.2 had Transformers only, and did not say so.
    for kind, default in (("environment", None), ("policy", "transformer")):
        if isinstance(part := flat.get(kind), Mapping):
            flat |= part
            flat[kind] = flat.pop("family", default)
    for name, neutral in _GONE.items():
        value = flat.pop(name, neutral)
        require(value == neutral, f"{name}={value!r}", "a setting that is still there", "rmft-jax==0.6.0 for this run")
    flat |= {name: new for (name, old), new in _RENAMED.items() if flat.get(name) == old}
    chosen = RunConfig().replace(**{name: flat[name] for name in _CHOICES if name in flat}).flat()
    known = setting_types(RMFTConfig, RunConfig)
    return {name: value for name, value in flat.items() if name in chosen or name not in known}


_CHOICES = ("environment", "policy", "selection", "objective", "update", "decision_map")


def differing_settings(first: RunConfig, second: RunConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yields `(name, value in first, value in second)` wherever two configurations differ."""
    a, b = first.flat(), second.flat()
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield name, a.get(name), b.get(name)
