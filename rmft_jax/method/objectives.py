"""What fine-tuning minimizes: choices of an objective, and the losses per round that they are made of, each `[T]`."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmft_jax.agents import Agent, TrainedAgent
from rmft_jax.agents.base import WritingAgent
from rmft_jax.agents.catalogue import make_agents
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import Choice, ConfigError
from rmft_jax.config.checks import require, require_number, require_shape
from rmft_jax.config.choices import closest
from rmft_jax.method.advantages import grpo_advantages, reinforce_advantages
from rmft_jax.method.judging import Judged, KeptBatch
from rmft_jax.problems import Problem, Trajectory
from rmft_jax.problems.regret import of_action

if TYPE_CHECKING:
    from rmft_jax.method.settings import RMFTConfig

# How far GRPO lets a decision's probability move, as a factor, before it counts no more (Schulman et al. 2017).
_CLIP = 0.2


class Objective(Choice, kind="objective"):
    """What the kept trajectories are used for. A new one derives from this class and says the loss (`losses`).

    Under bandit feedback a bonus for the policy's entropy and a pull towards a reference policy are added to it.
    """

    entropy_weight: float = 0.01
    """Weight of the policy-entropy bonus in the loss, in nats."""
    kl_reference: Literal["none", "previous", "initial"] = "none"
    """From whose decisions in the kept histories the policy is kept from straying, under bandit feedback: nobody's,
    those of the policy that played them, or those of the policy at the start."""
    kl_weight: float = 0.0
    """Weight of KL(reference || policy) in the loss, per round, in nats."""

    def validate(self, config: "RMFTConfig") -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.require_types()
        require_number(self.entropy_weight, "entropy_weight", "of at least 0", self.entropy_weight >= 0, 0.01)
        require_number(self.kl_weight, "kl_weight", "of at least 0", self.kl_weight >= 0, 0.0)
        feedback = config.environment.feedback
        require(
            not config.has_scores or self.entropy_weight == 0,
            f"entropy_weight={self.entropy_weight} with feedback={feedback!r} and a policy that emits scores",
            "0, since exploration is exploration_std there",
            "entropy_weight=0",
        )
        if self.entropy_weight or self.kl_weight:
            _require_no_text(config, f"entropy_weight={self.entropy_weight} and kl_weight={self.kl_weight}")
        got = f"kl_reference={self.kl_reference!r} with kl_weight={self.kl_weight}"
        together = (self.kl_reference == "none") == (self.kl_weight == 0)
        require(together, got, "both or neither", "kl_reference='previous' and kl_weight=0.1")
        require(
            self.kl_reference == "none" or not (config.has_scores or self.plays),
            f"{got}, feedback={feedback!r}",
            "a policy that plays arms under bandit feedback",
            "kl_reference='none' and kl_weight=0",
        )

    @property
    def plays(self) -> bool:
        """Whether another agent plays the rollouts, in place of the policy in training."""
        return False

    def player(self, problem: Problem) -> Agent | None:
        """Who plays the rollouts in place of the policy in training; None: nobody."""
        del problem
        return None

    def advantages(self, judged: Judged) -> Float[Array, "M L T"] | None:
        """By what the decisions of all rollouts are weighed, for objectives that weigh them; else None."""
        del judged
        return None

    @abc.abstractmethod
    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        """The loss of every round of one kept trajectory; a gradient is taken of it with respect to `outputs`.

        Args:
          outputs: logits or scores of the policy in every round, -inf for absent arms.
          kept: a trajectory, without a batch axis.
          config: the algorithm.
        """

    def writing_losses(self, log_probs: Float[Array, "T N"], kept: KeptBatch) -> Float[Array, "T"]:
        """The loss of what a policy wrote in every round, of one kept trajectory; by default it is imitated.

        Args:
          log_probs: of each thing that it wrote; 0 where nothing was written.
          kept: a trajectory, without a batch axis.
        """
        del kept
        return -jnp.sum(log_probs, axis=-1)

    def round_losses(
        self, config: "RMFTConfig", agent: TrainedAgent, kept: KeptBatch, reference: TrainedAgent | None = None
    ) -> Float[Array, "T"]:
        """The losses with the entropy bonus and the pull towards a reference policy.

        Args:
          config: the algorithm.
          agent: the policy, without exploration.
          kept: a trajectory, without a batch axis.
          reference: the policy at the start, where that is what the policy is kept near to.

        Raises:
          ConfigError: if the policy's outputs or the losses have a wrong shape.
        """
        shape = kept.trajectory.probabilities.shape
        writes = isinstance(agent, WritingAgent)
        outputs, log_probs = agent.read(kept.trajectory) if writes else (agent.outputs(kept.trajectory), None)
        require_shape(outputs, f"outputs from {type(agent).__name__}", shape, "one per round and arm", "jnp.stack")
        losses = self.losses(outputs, kept, config)
        if log_probs is not None:
            losses = losses + self.writing_losses(log_probs, kept)
        require_shape(losses, f"losses from {type(self).__name__}", shape[:1], "one per round", "no mean over rounds")
        if config.has_scores:
            return losses
        log_probs = jax.nn.log_softmax(outputs)
        losses = losses - self.entropy_weight * entropy(log_probs)
        if self.kl_reference == "none":
            return losses
        target = kept.trajectory.probabilities
        if reference is not None:
            target = jax.nn.softmax(reference.outputs(kept.trajectory))
        return losses + self.kl_weight * (cross_entropy(target, log_probs) - entropy(jnp.log(target)))


@Objective.register("imitation")
class Imitation(Objective):
    """The kept decisions are imitated: maximum likelihood of the policy's own play (Park et al. 2025)."""

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        return decision_loss(config, outputs, kept.trajectory)


class _OfBehavior(Objective):
    """What the objectives share that learn from another agent's play."""

    behavior: str = "policy"
    """Who plays the rollouts: the policy in training (`policy`), or an agent of the catalogue that fits, by name."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        known = [name for name in AGENTS.names() if name != "best_fixed_arm"]  # Which nobody can play.
        got, need = f"behavior={self.behavior!r}", f"policy or one of {', '.join(known)}"
        require(not self.plays or self.behavior in known, got, need, f"{closest(self.behavior, known) or 'gittins'!r}")
        environment = config.environment
        require(
            self.behavior == "policy"
            or (
                environment.feedback == "bandit"
                and environment.noise in ("bernoulli", "beta")
                and not config.has_scores
            ),
            f"behavior={self.behavior!r} with objective={self.name!r}, feedback={environment.feedback!r} "
            f"and noise={environment.noise!r}",
            "a Transformer under bandit feedback, and rewards in [0, 1]",
            "environment='bernoulli'",
        )
        if not self.plays:
            return
        make_agents(config.problem(), [self.behavior])
        try:
            jax.eval_shape(self.player, config.problem())
        except jax.errors.ConcretizationTypeError:
            law = f"{got} in {environment.name!r}, whose settings it is made from"
            need = "an agent that can be made where these are arrays, as they are in training"
            raise ConfigError(f"got {law}, need {need}; try behavior='thompson'") from None

    @property
    def plays(self) -> bool:
        return self.behavior != "policy"

    def player(self, problem: Problem) -> Agent | None:
        """The agent of the setting."""
        return AGENTS[self.behavior].build(problem) if self.plays else None


@Objective.register("distillation")
class Distillation(_OfBehavior):
    """A rival: imitation of another agent's play (algorithm distillation, Laskin et al. 2023)."""

    behavior: str = "thompson"
    """Who plays the rollouts, and is imitated: an agent of the catalogue that fits, by name."""

    def validate(self, config: "RMFTConfig") -> None:
        got = f"behavior={self.behavior!r} with objective={self.name!r}"
        require(self.behavior != "policy", got, "another agent to imitate", "behavior='thompson'")
        super().validate(config)

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        return decision_loss(config, outputs, kept.trajectory)


@Objective.register("dpt")
class BestArm(_OfBehavior):
    """A rival: prediction of the best arm from the history (DPT, Lee et al. 2023)."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        got = f"objective='dpt' with decision_map={config.decision_map.name!r}"
        require(not config.problem().points, got, "arms, of which one is the best", "decision_map='softmax'")
        _require_no_text(config)

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        return best_arm_loss(outputs, kept.trajectory, in_hindsight=config.environment.feedback == "full")


@Objective.register("regret_loss")
class RegretLoss(Objective):
    """A rival: descent on the regret of the policy as a function of its weights, under full information.

    `max(Reg_T, 0)^2 / T` in every round: the regret-loss of Park et al. (2024) with a single trajectory per term and
    the square as its increasing function; it has a gradient because under full information play does not change what
    is seen. The regret is static, of the policies or, in a ball, of the points; where rollouts play the scores
    themselves, so does it.
    """

    def validate(self, config: "RMFTConfig") -> None:
        feedback, adaptive = config.environment.feedback, config.environment.adaptive
        require(
            feedback == "full" and not adaptive,
            f"objective='regret_loss' with feedback={feedback!r}" + " and rewards that react to play" * adaptive,
            "rewards that are seen whole and do not depend on play, so that regret has a gradient",
            "objective='reinforce', which is its counterpart elsewhere",
        )
        super().validate(config)
        require(
            config.branching == "none",
            f"objective='regret_loss' with branching={config.branching!r}",
            "the regret of all rounds",
            "branching='none'",
        )
        _require_no_text(config)

    def writing_losses(self, log_probs: Float[Array, "T N"], kept: KeptBatch) -> Float[Array, "T"]:
        """Nothing: regret has no gradient there."""
        del kept
        return jnp.zeros(log_probs.shape[0])

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        trajectory = kept.trajectory
        policies = jax.nn.softmax(outputs)
        if config.has_scores:
            policies = jax.vmap(config.decision_map.policy, in_axes=(0, None))(outputs, trajectory.arm_mask)
        regret = config.problem().regret.final(dataclasses.replace(trajectory, probabilities=policies))
        count = jnp.sum(trajectory.played)
        return jnp.full(trajectory.actions.shape, jnp.square(jnp.maximum(regret, 0.0)) / count)


class _PolicyGradient(Objective):
    """What the policy gradients share: they weigh all rollouts, of the policy as it is."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        size, selection = config.num_rollouts, config.selection
        require(
            selection.k == size > 1 and selection.name == "regret",
            f"objective={self.name!r} with k={selection.k}, num_rollouts={size} and selection={selection.name!r}",
            "all of at least two rollouts, weighted by their regret",
            f"k={max(2, size)}, num_rollouts={max(2, size)} and selection='regret'",
        )
        require(
            config.temperature == 1 and config.refresh_every == 1,
            f"objective={self.name!r} with temperature={config.temperature} and refresh_every={config.refresh_every}",
            "rollouts of the policy as it is",
            "temperature=1 and refresh_every=1",
        )
        got, need = f"objective={self.name!r} with a policy that learns others' words", "what it decides itself"
        require(config.policy.only_own_words, got, need, "imitated='own'")


@Objective.register("reinforce")
class Reinforce(_PolicyGradient):
    """A rival: the policy gradient with the mean of the scenario's rollouts as baseline (Williams 1992)."""

    def advantages(self, judged: Judged) -> Float[Array, "M L T"]:
        """By regret to go."""
        return reinforce_advantages(judged.regret, judged.final, judged.trajectory.played)

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        assert kept.advantages is not None
        variance = config.decision_map.exploration_std**2 if config.has_scores else 1.0
        return kept.advantages * decision_loss(config, outputs, kept.trajectory) / variance

    def writing_losses(self, log_probs: Float[Array, "T N"], kept: KeptBatch) -> Float[Array, "T"]:
        """Weighed like the decisions."""
        assert kept.advantages is not None
        return -kept.advantages * jnp.sum(log_probs, axis=-1)


@Objective.register("grpo")
class GRPO(_PolicyGradient):
    """A rival: the clipped policy gradient with returns standardized in every scenario (Shao et al. 2024)."""

    def validate(self, config: "RMFTConfig") -> None:
        super().validate(config)
        got = "objective='grpo' with a policy that emits scores"
        require(not config.has_scores, got, "probabilities of actions, whose ratio it clips", "objective='reinforce'")

    def advantages(self, judged: Judged) -> Float[Array, "M L T"]:
        """By regret at the horizon."""
        return grpo_advantages(judged.regret, judged.final)

    def losses(self, outputs: Float[Array, "T K"], kept: KeptBatch, config: "RMFTConfig") -> Float[Array, "T"]:
        assert kept.advantages is not None
        trajectory = kept.trajectory
        now = of_action(jax.nn.log_softmax(outputs), trajectory.actions)
        before = jnp.log(of_action(trajectory.probabilities, trajectory.actions))
        return clipped_loss(now - before, kept.advantages)

    def writing_losses(self, log_probs: Float[Array, "T N"], kept: KeptBatch) -> Float[Array, "T"]:
        """The ratio is clipped for each thing that was written, as GRPO has it for tokens."""
        assert kept.advantages is not None
        before = kept.trajectory.notes.log_probs
        losses = clipped_loss(log_probs - before, kept.advantages[:, None])
        return jnp.sum(jnp.where(before == 0, 0.0, losses), axis=-1)


def _require_no_text(config: "RMFTConfig", what: str = "") -> None:
    """Raises `ConfigError` if the policy answers in text, or learns the words of others, beside its decisions."""
    policy = config.policy
    got = f"{what or f'objective={config.objective.name!r}'} with a policy that answers in text"
    require(not policy.answers_in_text, got, "logits of arms", "answer='choice', or 0 for both weights")
    got = f"objective={config.objective.name!r} with a policy that learns others' words"
    require(bool(what) or policy.only_own_words, got, "decisions, which it is about", "imitated='own'")


def decision_loss(config: "RMFTConfig", outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """Imitation of the decisions of a trajectory: of its scores where there are any, else of its actions."""
    return squared_error(outputs, trajectory) if config.has_scores else action_loss(outputs, trajectory)


def action_loss(outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """`-log pi(a_t | history)`: cross-entropy of the kept actions.

    Maximum likelihood of the model's own decisions (Park et al. 2025), or of those of the agent that played
    (algorithm distillation, Laskin et al. 2023). The temperature of rollouts plays no part: the loss is that of the
    logits.
    """
    return -of_action(jax.nn.log_softmax(outputs), trajectory.actions)


def squared_error(outputs: Float[Array, "T K"], trajectory: Trajectory) -> Float[Array, "T"]:
    """`|z_t - y_t|^2 / 2` to the kept `y_t = z_t + sigma eps_t`, over existing arms.

    Up to a factor and a constant the Gaussian log-likelihood of the model's own decisions (Park et al. 2025).
    """
    assert trajectory.scores is not None, "the trajectory must be of an agent that emits scores"
    error = jnp.where(trajectory.arm_mask, outputs - trajectory.scores, 0.0)
    return jnp.sum(jnp.square(error), axis=-1) / 2


def best_arm_loss(
    outputs: Float[Array, "T K"], trajectory: Trajectory, *, in_hindsight: bool = False
) -> Float[Array, "T"]:
    """`-log softmax(z_t)(a*)`: prediction of the best arm from the history (Lee et al. 2023, DPT).

    The arm of highest expected reward in the round, or the best fixed one in hindsight. The best predictor is its
    posterior, and drawing from that is Thompson sampling.
    """
    worth = trajectory.mean_rewards
    if in_hindsight:
        rewards = jnp.where(trajectory.played[:, None], trajectory.reward_table, 0.0)
        worth = jnp.broadcast_to(jnp.sum(rewards, axis=0), worth.shape)
    best = jnp.argmax(jnp.where(trajectory.arm_mask, worth, -jnp.inf), axis=-1)
    return -of_action(jax.nn.log_softmax(outputs), best)


def clipped_loss(log_ratio: Float[Array, "..."], advantages: Float[Array, "..."]) -> Float[Array, "..."]:
    """`-min(rho A, clip(rho, 0.8, 1.2) A)` with `rho` the ratio of new to old probability of what was done.

    The surrogate of Schulman et al. (2017) with the advantages of GRPO (Shao et al. 2024).
    """
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - _CLIP, 1 + _CLIP) * advantages)


def cross_entropy(target: Float[Array, "*#batch K"], log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """`-sum_a target(a) log_probs(a)` over arms of positive probability."""
    present = jnp.isfinite(log_probs)
    return -jnp.sum(jnp.where(present, target * jnp.where(present, log_probs, 0.0), 0.0), axis=-1)


def entropy(log_probs: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Entropy in nats; arms of probability zero add nothing, to value and gradient alike."""
    finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0.0)
    return -jnp.sum(jnp.where(jnp.isfinite(log_probs), jnp.exp(finite), 0.0) * finite, axis=-1)
