"""A tabular policy, its exact fit, and a world whose best arm is always the same: users' own choices of the package.

They are given to `RMFTConfig.replace` as objects, so that the package's own `iterate` plays, judges, selects and
branches as with any other policy. Nothing is registered: an import makes no list of names longer. The table has a row
of probabilities for every cell, which counts of each arm the rewards above 1/2 and the others: all that a Bernoulli
bandit's past says, but for its order.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.agents import Policy
from rmft_jax.config import Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.checks import require, require_number
from rmft_jax.method.fine_tuning import Fit, Update
from rmft_jax.method.judging import KeptBatch
from rmft_jax.problems import Context, Decision, DecisionMap, Feedback, ObliviousEnvironment, Problem
from rmft_jax.problems.base import RegretKind
from rmft_jax.problems.types import Reward, Trajectory

if TYPE_CHECKING:
    from rmft_jax.method.settings import RMFTConfig
    from rmft_jax.method.state import TrainState

Counts = Int[Array, "2 K"]
"""How often each arm's reward was not above 1/2, and how often it was."""


def cell_of(counts: Int[Array, "*batch 2 K"], horizon: int) -> Int[Array, "*batch"]:
    """The row of the table: the counts are the digits of its number in base `horizon`."""
    num_digits = 2 * counts.shape[-1]
    return counts.reshape(*counts.shape[:-2], num_digits) @ (horizon ** jnp.arange(num_digits))


def _counted(actions: Int[Array, "*batch"], rewards: Float[Array, "*batch"], num_arms: int) -> Int[Array, "*batch 2 K"]:
    """What one round adds to the counts."""
    played, success = jax.nn.one_hot(actions, num_arms, dtype=jnp.int32), (rewards > 0.5)[..., None]
    return jnp.stack([jnp.where(success, 0, played), jnp.where(success, played, 0)], axis=-2)


@pytree
class TabularAgent:
    """Plays the row of the table that its past has led to.

    table: `[C, K]` probabilities of the arms in every cell.
    temperature: actions are drawn from probabilities to the power of `1 / temperature`.
    horizon: T, which fixes the cells.
    """

    table: Float[Array, "C K"]
    temperature: Number = 1.0
    horizon: int = static_field(default=1)
    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit",)

    @property
    def params(self) -> Params:
        """The table."""
        return {"table": self.table}

    @property
    def num_arms(self) -> int:
        """Of the table."""
        return self.table.shape[-1]

    def init(self, num_arms: int, horizon: int) -> Counts:
        """Nothing is counted yet."""
        require(num_arms == self.num_arms, f"num_arms={num_arms}", f"the table's {self.num_arms}", "another table")
        require(horizon <= self.horizon, f"horizon={horizon}", f"at most the table's {self.horizon}", "another table")
        return jnp.zeros((2, num_arms), jnp.int32)

    def act(self, key: ScalarKey, state: Counts, context: Context) -> tuple[Decision, Counts]:
        """Draws from the cell's row, in which absent arms have no share."""
        logits = self._logits(cell_of(state, self.horizon), context.arm_mask)
        probabilities = jax.nn.softmax(logits / self.temperature)
        # One uniform number: half of what drawing from logits takes, and drawing is what takes long here.
        action = jnp.sum(jax.random.uniform(key) >= jnp.cumsum(probabilities)[:-1])
        return Decision(action, probabilities), state

    def observe(self, state: Counts, action: Int[Array, ""], reward: Reward, context: Context) -> Counts:
        """Counts the reward."""
        return state + _counted(action, reward, self.num_arms)

    def cells(self, trajectory: Trajectory) -> Int[Array, "T"]:
        """The cell in which each decision was made."""
        seen = _counted(trajectory.actions, trajectory.rewards, self.num_arms)
        return cell_of(jnp.cumsum(seen, axis=0) - seen, self.horizon)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """Log probabilities."""
        return self._logits(self.cells(trajectory), trajectory.arm_mask)

    def _logits(self, cells: Int[Array, "*batch"], arm_mask: Bool[Array, "K"]) -> Float[Array, "*batch K"]:
        logits = jnp.log(self.table[cells])
        return jnp.where(jnp.broadcast_to(arm_mask, logits.shape), logits, -jnp.inf)


class TabularCounts(Policy):
    """A probability of every arm in every cell of counts; uniform at the start."""

    @property
    def any_horizon(self) -> bool:
        """The horizon fixes the cells."""
        return False

    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """A uniform policy."""
        num_cells = problem.horizon ** (2 * problem.num_arms)
        return {"table": jnp.full((num_cells, problem.num_arms), 1 / problem.num_arms)}

    def make_agent(
        self, params: Params, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TabularAgent:
        """The agent of a table."""
        return TabularAgent(params["table"], temperature, problem.horizon)


@pytree
class Tally:
    """What the last fit counted in the decisions that it was given.

    played: `[C, K]` decisions for each arm in each cell.
    best: `[C, K]` decisions, for whatever arm, in scenarios in which this arm was the best one.
    """

    played: Float[Array, "C K"]
    best: Float[Array, "C K"]


class TabularFit(Update):
    """The exact fit of a table by maximum likelihood, with a step: `p + fit_step (p_hat - p)` in every cell visited.

    `p_hat` is the share of each arm among the kept decisions of the cell. The state of the optimizer is the `Tally`.
    """

    fit_step: float = 1.0
    """Which part of the way to the shares of the kept decisions the table goes."""

    def validate(self, config: "RMFTConfig") -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        self.require_types()
        require_number(self.fit_step, "fit_step", "above 0 and at most 1", 0 < self.fit_step <= 1, 1.0)
        got = f"update=TabularFit() with policy={config.policy.name!r}"
        require(isinstance(config.policy, TabularCounts), got, "a table", "policy=TabularCounts()")
        got = f"update=TabularFit() with objective={config.objective.name!r}"
        ok = config.objective.name == "imitation" and config.objective.entropy_weight == 0
        require(ok, f"{got} and entropy_weight={config.objective.entropy_weight}", "bare imitation", "entropy_weight=0")

    def init(self, params: Params, num_iterations: int) -> Tally:
        """Nothing is counted yet."""
        return Tally(jnp.zeros_like(params["table"]), jnp.zeros_like(params["table"]))

    def fine_tune(
        self, state: "TrainState", data: KeptBatch, key: ScalarKey, mesh: Mesh | None = None
    ) -> tuple["TrainState", Fit]:
        """The fit; its loss and gradient norm, with respect to logits, are those before it."""
        agent: Any = state.config.agent(state.params)
        rows, table = data.trajectory, agent.table
        cells = jax.vmap(agent.cells)(rows)
        means = jnp.where(rows.arm_mask[:, None, :], rows.mean_rewards, -jnp.inf)
        played = jnp.zeros_like(table).at[cells, rows.actions].add(data.weights)
        best = jnp.zeros_like(table).at[cells, jnp.argmax(means, axis=-1)].add(data.weights)
        visits = jnp.sum(played, axis=-1, keepdims=True)
        change = jnp.where(visits > 0, played / jnp.maximum(visits, 1) - table, 0.0)
        total = jnp.sum(visits)
        loss = -jnp.sum(jnp.where(played > 0, played * jnp.log(table), 0.0)) / total
        fit = Fit(loss, jnp.linalg.norm(visits * change / total))
        return state.advanced({"table": table + self.fit_step * change}, Tally(played, best)), fit


class LastingLead(ObliviousEnvironment):
    """Arm 0 is better than all others by `lead` in every scenario, so that a policy without a memory can learn it."""

    lead: float = 0.2
    """How much higher the expected reward of arm 0 is than 1/2, that of the others."""

    bandit_regret: ClassVar[RegretKind] = "pseudo"

    def validate_law(self, horizon: int) -> None:
        """Raises `ConfigError` unless rewards of Bernoulli's law are possible."""
        require_number(self.lead, "lead", "from 0 to 1/2", 0 <= self.lead <= 0.5, 0.2)

    def path(self, key: ScalarKey, arm_mask: Bool[Array, "K"], round_mask: Bool[Array, "T"]) -> Float[Array, "1 K"]:
        """The same in every scenario."""
        return (0.5 + self.lead * (jnp.arange(self.num_arms) == 0))[None]

    def variation_budget(self, horizon: int) -> float:
        """Nothing changes."""
        return 0.0
