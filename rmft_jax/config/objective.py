"""Which objectives, behaviours and levers go together."""

from typing import TYPE_CHECKING

from rmft_jax.config.checks import require, require_number
from rmft_jax.config.environments import AdaptiveConfig

if TYPE_CHECKING:
    from rmft_jax.config.algorithm import RMFTConfig

_POLICY_GRADIENTS = ("reinforce", "grpo")


def validate_objective(config: "RMFTConfig") -> None:
    """Raises `ConfigError` if what is asked of fine-tuning contradicts itself or the setting."""
    _validate_behavior(config)
    if config.objective in _POLICY_GRADIENTS:
        _validate_policy_gradient(config)
    if config.objective == "regret_loss":
        _validate_regret_loss(config)
    if config.objective == "dpt":
        require(
            not config.plays_points,
            f"objective='dpt' with decision_map={config.decision_map!r}",
            "arms, of which one is the best",
            "decision_map='softmax'",
        )
    if config.update == "least_squares":
        plain = config.objective == "rmft" and config.replay == 0
        got = f"update='least_squares' with objective={config.objective!r} and replay={config.replay}"
        require(plain, got, "the imitation of what was just kept", "update='gradient'")
    _validate_reference(config)


def _validate_behavior(config: "RMFTConfig") -> None:
    objective, behavior = config.objective, config.behavior
    got = f"behavior={behavior!r} with objective={objective!r}"
    if objective == "distillation":
        require(behavior != "policy", got, "another agent to imitate", "behavior='thompson'")
    elif objective != "dpt":
        require(behavior == "policy", got, "rollouts of the policy itself", "objective='distillation'")
    if behavior != "policy":
        environment = config.environment
        require(
            environment.feedback == "bandit" and environment.noise in ("bernoulli", "beta") and not config.has_scores,
            f"{got}, feedback={environment.feedback!r} and noise={environment.noise!r}",
            "a Transformer under bandit feedback, and rewards in [0, 1]",
            "environment='bernoulli'",
        )


def _validate_policy_gradient(config: "RMFTConfig") -> None:
    objective, size = config.objective, config.num_rollouts
    require(
        config.k == size > 1 and config.selection == "regret",
        f"objective={objective!r} with k={config.k}, num_rollouts={size} and selection={config.selection!r}",
        "all of at least two rollouts, weighted by their regret",
        f"k={max(2, size)}, num_rollouts={max(2, size)} and selection='regret'",
    )
    on_policy = config.temperature == 1 and config.refresh_every == 1 and config.replay == 0
    require(
        on_policy,
        f"objective={objective!r} with temperature={config.temperature}, refresh_every={config.refresh_every} "
        f"and replay={config.replay}",
        "rollouts of the policy as it is",
        "temperature=1, refresh_every=1 and replay=0",
    )
    require(
        config.full_loss == "squared_error",
        f"objective={objective!r} with full_loss={config.full_loss!r}",
        "the likelihood of what was played",
        "full_loss='squared_error'",
    )
    require(
        objective == "reinforce" or not config.has_scores,
        f"objective={objective!r} with a policy that emits scores",
        "probabilities of actions, whose ratio it clips",
        "objective='reinforce'",
    )


def _validate_regret_loss(config: "RMFTConfig") -> None:
    feedback, adaptive = config.environment.feedback, isinstance(config.environment, AdaptiveConfig)
    require(
        feedback == "full" and not adaptive,
        f"objective='regret_loss' with feedback={feedback!r}" + " and rewards that react to play" * adaptive,
        "rewards that are seen whole and do not depend on play, so that regret has a gradient",
        "objective='reinforce', which is its counterpart elsewhere",
    )
    require(
        config.branching == "none",
        f"objective='regret_loss' with branching={config.branching!r}",
        "the regret of all rounds",
        "branching='none'",
    )


def _validate_reference(config: "RMFTConfig") -> None:
    require_number(config.kl_weight, "kl_weight", "of at least 0", config.kl_weight >= 0, 0.0)
    got = f"kl_reference={config.kl_reference!r} with kl_weight={config.kl_weight}"
    together = (config.kl_reference == "none") == (config.kl_weight == 0)
    require(together, got, "both or neither", "kl_reference='previous' and kl_weight=0.1")
    require(
        config.kl_reference == "none" or not (config.has_scores or config.behavior != "policy"),
        f"{got}, feedback={config.environment.feedback!r} and behavior={config.behavior!r}",
        "a policy that plays arms under bandit feedback",
        "kl_reference='none' and kl_weight=0",
    )
