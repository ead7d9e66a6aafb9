"""Agent x environment -> Trajectory: a loop over rounds, vmapped over rollouts and scenarios.

Rollouts that branch share their past, which is played once: see `rollout_scenarios`.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rmft_jax.agents.base import Agent, GrowingAgent, PreparedAgent, TellingAgent, segment_ends, state_bytes
from rmft_jax.config import ConfigError, ScalarKey, pytree
from rmft_jax.config.checks import block_of, require_shape
from rmft_jax.config.platforms import platform
from rmft_jax.method.noise import NoiseStreams, RolloutKeys, fold_each
from rmft_jax.problems import Feedback, Problem
from rmft_jax.problems.base import Environment
from rmft_jax.problems.types import Context, Trajectory

# Rounds that are played before a growing state grows, at least.
_SEGMENT_ROUNDS = 25
# A core's share of the last level of cache, about; the fastest of 1, 2, 4 and 8 MB where two cores have 32 MB
# that others use too.
_CACHE_BYTES = 4_000_000
# Into how many groups scenarios are sorted by their branch rounds. A group starts with the first of its own.
_GROUPS = 16
# Rollouts that are stepped together where scenarios are few, at least.
_LANES = 64


def require_feedback(agent: Agent, feedback: Feedback) -> None:
    """Raises `ConfigError` if the agent cannot play under this feedback."""
    if feedback not in agent.feedback:
        raise ConfigError(
            f"got {type(agent).__name__} under {feedback!r} feedback, need {' or '.join(map(repr, agent.feedback))}; "
            "try another agent, or the other feedback"
        )


@pytree
class Standing:
    """Where a rollout stands before a round.

    agent, world: states of the agent and of the environment.
    record: what `Trajectory` holds of every round, `[T, ...]` each; of rounds that are still to come, zeros.
    """

    agent: Any
    world: Any
    record: Any


@pytree
class Rollout:
    """One agent on one scenario, once.

    agent: who plays.
    environment: the world.
    noise: randomness of the agent and of the rewards.
    arm_mask: `[K]` true where the arm exists.
    round_mask: `[T]` true where the round is played, the first ones. The others are gone through too, so that
      trajectories of several lengths have one shape; they change nothing of what came before.
    telling: draws how the scenario is told, to an agent to whom it is told in one of several ways.
    """

    agent: Agent
    environment: Environment
    noise: NoiseStreams
    arm_mask: Bool[Array, "K"]
    round_mask: Bool[Array, "T"]
    telling: ScalarKey

    def fresh(self, scenario: Any) -> Standing:
        """Before the first round.

        Args:
          scenario: a state of the environment, fresh from its `reset`.

        Raises:
          ConfigError: if the agent or the environment returns arrays of other shapes than their protocols say.
        """
        agent, num_arms, horizon = self.agent, self.environment.num_arms, len(self.round_mask)
        tells = isinstance(agent, TellingAgent)
        begun = agent.begin(self.telling, num_arms, horizon) if tells else agent.init(num_arms, horizon)
        start = Standing(begun, scenario, ())
        rows = jax.eval_shape(self._round, jnp.zeros((), jnp.int32), start)[1]
        record = jax.tree.map(lambda row: jnp.zeros((horizon, *row.shape), row.dtype), rows)
        return dataclasses.replace(start, record=record)

    def play(
        self, standing: Standing, start: Int[Array, ""] | int, end: Int[Array, ""] | int, every: int = 1
    ) -> Standing:
        """Plays the rounds from `start` on and before `end`.

        A state that grows with the rounds played is read as a whole in each: in between it has room for no more rounds
        than it needs. It is given and returned with room for all.

        Args:
          standing: before round `start`.
          start: first round to be played.
          end: first round not to be.
          every: after how many segments of rounds such a state grows. Each time the round is compiled anew.
        """
        horizon = len(self.round_mask)
        ends = segment_ends(horizon, _SEGMENT_ROUNDS) if isinstance(self.agent, GrowingAgent) else [horizon]
        ends = ends[::-every][::-1]
        now = self._with_room(standing, ends[0])
        for begin, stop in itertools.pairwise([0, *ends]):
            if begin:
                now = self._with_room(now, stop)
                if not isinstance(start, int):
                    # Until it begins to play, all that it knows is what it was given.
                    given = self._with_room(standing, stop)
                    now = jax.tree.map(lambda old, new, begun=begin > start: jnp.where(begun, new, old), given, now)
            now = jax.lax.fori_loop(_max(start, begin), _min(end, stop), self._recorded, now)
        return now

    def trajectory(self, standing: Standing) -> Trajectory:
        """What was played."""
        *rows, notes = standing.record
        return Trajectory(*rows, arm_mask=self.arm_mask, round_mask=self.round_mask, notes=notes)

    def _with_room(self, standing: Standing, rounds: int) -> Standing:
        if not isinstance(self.agent, GrowingAgent):
            return standing
        return dataclasses.replace(standing, agent=self.agent.grow(standing.agent, rounds))

    def _recorded(self, round: Int[Array, ""], standing: Standing) -> Standing:
        """The standing after one more round."""
        after, rows = self._round(round, standing)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=round, axis=0)
        record = jax.tree.map(write, standing.record, rows)
        return dataclasses.replace(after, record=record)

    def _round(self, round: Int[Array, ""], standing: Standing) -> tuple[Standing, tuple[Any, ...]]:
        """Plays a round; what is recorded of it comes apart."""
        agent, environment, arm_mask = self.agent, self.environment, self.arm_mask
        means = environment.mean_rewards(standing.world, round)
        context = Context(round, jnp.sum(self.round_mask), arm_mask, means)
        policy_key, reward_key = self.noise.keys(round)
        decision, agent_state = agent.act(policy_key, standing.agent, context)
        world, outcome = environment.step(reward_key, standing.world, decision, round)
        _require_shapes(agent, decision, action=(), probabilities=arm_mask.shape)
        _require_shapes(environment, outcome, mean_rewards=arm_mask.shape, rewards=arm_mask.shape)
        means, rewards = (jnp.where(arm_mask, table, 0.0) for table in (outcome.mean_rewards, outcome.rewards))
        reward = rewards[decision.action]
        seen = rewards if environment.feedback == "full" else reward
        agent_state = agent.observe(agent_state, decision.action, seen, context)
        rows = (decision.action, reward, decision.probabilities, means, rewards, decision.scores, decision.notes)
        return Standing(agent_state, world, standing.record), rows


def rollout_scenarios(
    agent: Agent,
    problem: Problem,
    keys: RolloutKeys,
    *,
    num_scenarios: int,
    first_scenario: Int[Array, ""] | int = 0,
    num_rollouts: int = 1,
    branch_rounds: Int[Array, "M"] | None = None,
    shared_reward_noise: bool = False,
    block: int = 0,
) -> Trajectory:
    """Draws `num_scenarios` scenarios and plays each of them `num_rollouts` times.

    Where rollouts branch, the rounds before are played once for all of a scenario, on CPU and in blocks.

    Args:
      agent: who plays.
      problem: the distribution over scenarios, and how long it is played. What is played in its arms and rounds does
        not depend on how many more there are that are not in use, beyond rounding.
      keys: one key per purpose. The same keys give the same scenarios and the same rewards to any agent, unless
        the environment reacts to play.
      num_scenarios: M.
      first_scenario: number of the first of them, where others of the same keys are played elsewhere.
      num_rollouts: L.
      branch_rounds: `[M]` per scenario, the first round from which its rollouts draw their own noise; before it they
        share policy and reward noise, so their histories are identical. None: they are independent throughout.
      shared_reward_noise: whether the rollouts of a scenario see the same reward noise in every round.
      block: trajectories stepped together, which bounds memory; the result does not depend on it beyond rounding.
        0 chooses up to 256 on CPU, so that what they carry from round to round stays in the processor's cache, and
        everything at once elsewhere.

    Returns:
      Trajectories with batch axes `[M, L]`.

    Raises:
      ConfigError: if the agent cannot use the problem's feedback, or if it or the environment returns arrays of other
        shapes than their protocols say.
    """
    require_feedback(agent, problem.feedback)
    environment, horizon, mask, rounds = problem.environment, problem.horizon, problem.arm_mask, problem.round_mask
    branches = jnp.zeros(num_scenarios, jnp.int32) if branch_rounds is None else branch_rounds
    tellings = jax.vmap(lambda row: jax.random.fold_in(keys.telling, first_scenario + row))(jnp.arange(num_scenarios))
    if isinstance(agent, PreparedAgent):
        agent = agent.prepared(environment.num_arms, horizon, tellings)

    def seat(row: Int[Array, ""], index: Int[Array, ""] | int) -> tuple[Rollout, Any]:
        own_keys = fold_each(jnp.stack([keys.scenario, keys.policy, keys.reward]), jnp.full(3, first_scenario + row))
        scenario = environment.reset(own_keys[0], mask, rounds)
        reward_split = jnp.full_like(branches[row], horizon) if shared_reward_noise else branches[row]
        noise = NoiseStreams.create(own_keys[1:], jnp.asarray(index), jnp.stack([branches[row], reward_split]))
        return Rollout(agent, environment, noise, mask, rounds, tellings[row]), scenario

    total = num_scenarios * num_rollouts
    block = block or rollout_block(agent, environment.num_arms, horizon) or total
    # A loop whose end is found out while it runs lets an accelerator wait for its host in every round.
    if branch_rounds is not None and num_rollouts > 1 and platform() == "cpu":
        together = Grouping.of(num_scenarios, num_rollouts, block)
        if together.num_groups > 1:
            return together.play(seat, branches, horizon)

    def play(number: Int[Array, ""]) -> Trajectory:
        played, scenario = seat(number // num_rollouts, number % num_rollouts)
        return played.trajectory(played.play(played.fresh(scenario), 0, horizon))

    # One axis for all rollouts: beside an axis of length 1, XLA copies what a scan carries. A remainder would be
    # compiled as a program of its own.
    played = jax.lax.map(play, jnp.arange(total), batch_size=block_of(total, block))
    return jax.tree.map(lambda leaf: leaf.reshape(num_scenarios, num_rollouts, *leaf.shape[1:]), played)


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How scenarios whose rollouts branch are played: sorted by their branch rounds, in groups that start together.

    Of every scenario of a group, rollout 0 plays the rounds before the first branch round of the group. All its L
    rollouts go on from there, those of some scenarios at a time. Rounds that nobody plays are not computed.

    num_scenarios, num_rollouts: M and L.
    block: rollouts that are stepped together, at most.
    num_groups: of equal size; the last one is filled up.
    num_parts: of a group, of equal size.
    part: scenarios of each.
    """

    num_scenarios: int
    num_rollouts: int
    block: int
    num_groups: int
    num_parts: int
    part: int

    @classmethod
    def of(cls, num_scenarios: int, num_rollouts: int, block: int) -> "Grouping":
        """For up to `block` rollouts at a time; where that is all, in one group, which starts at the first round."""
        if block >= num_scenarios * num_rollouts:
            return cls(num_scenarios, num_rollouts, block, 1, 1, num_scenarios)
        fewest = max(1, min(num_scenarios, _LANES // num_rollouts))
        part = max(1, min(block // num_rollouts, max(num_scenarios // _GROUPS, fewest)))
        # A group plays its past in one batch, which should not be small, and has no axis of length 1.
        parts = min(-(-num_scenarios // (_GROUPS * part)), block // part)
        num_parts = max(parts, 1 if part > 1 else 2)
        return cls(num_scenarios, num_rollouts, block, -(-num_scenarios // (part * num_parts)), num_parts, part)

    def play(self, seat: Any, branch_rounds: Int[Array, "M"], horizon: int) -> Trajectory:
        """All rollouts, `[M, L]`.

        Args:
          seat: from the number of a scenario and of its rollout to the rollout and a fresh state of the environment.
          branch_rounds: `[M]` first rounds that the rollouts of a scenario play on their own.
          horizon: T.
        """
        order = jnp.argsort(branch_rounds)
        places = jnp.arange(self.num_groups * self.num_parts * self.part)
        groups = order[jnp.minimum(places, self.num_scenarios - 1)].reshape(self.num_groups, -1)
        indices = jnp.tile(jnp.arange(self.num_rollouts), self.part)

        def group(rows: Int[Array, "n"]) -> Trajectory:
            start = common_start(jnp.min(branch_rounds[rows]))

            def past(row: Int[Array, ""]) -> Standing:
                played, scenario = seat(row, 0)
                # It is little of the work: less to compile.
                return played.play(played.fresh(scenario), 0, start, every=2)

            def own(given: tuple[Int[Array, ""], Int[Array, ""], Standing]) -> Trajectory:
                row, index, past = given
                played, _ = seat(row, index)
                return played.trajectory(played.play(past, start, horizon))

            def part(given: tuple[Int[Array, "p"], Standing]) -> Trajectory:
                # One axis for all rollouts: beside an axis of length 1, XLA copies what a loop carries.
                rows, pasts = jax.tree.map(lambda leaf: jnp.repeat(leaf, self.num_rollouts, axis=0), given)
                return jax.lax.map(own, (rows, indices, pasts), batch_size=block_of(len(rows), self.block))

            parts = jax.tree.map(
                lambda leaf: leaf.reshape(self.num_parts, self.part, *leaf.shape[1:]), (rows, jax.vmap(past)(rows))
            )
            return jax.lax.map(part, parts)

        def put(number: Int[Array, ""], played: Trajectory) -> Trajectory:
            rows = groups[number]
            # At their places at once: sorted back at the end, all trajectories would be held twice.
            return jax.tree.map(
                lambda all, own: all.at[rows].set(own.reshape(len(rows), self.num_rollouts, *all.shape[2:])),
                played,
                group(rows),
            )

        one = jax.eval_shape(group, groups[0])
        shape = self.num_scenarios, self.num_rollouts
        empty = jax.tree.map(lambda leaf: jnp.zeros((*shape, *leaf.shape[2:]), leaf.dtype), one)
        return jax.lax.fori_loop(0, self.num_groups, put, empty)


@jax.custom_batching.custom_vmap
def common_start(start: Int[Array, ""]) -> Int[Array, ""]:
    """The round from which rollouts go on; of programs that are vmapped together the first of theirs.

    A loop that ended at another round for each of them would copy in every round all that it carries.
    """
    return start


@common_start.def_vmap
def _(size: int, batched: list[bool], starts: Int[Array, "n"]) -> tuple[Int[Array, ""], bool]:
    del size, batched
    return common_start(jnp.min(starts)), False


def _max(a: Int[Array, ""] | int, b: int) -> Int[Array, ""] | int:
    return max(a, b) if isinstance(a, int) else jnp.maximum(a, b)


def _min(a: Int[Array, ""] | int, b: int) -> Int[Array, ""] | int:
    return min(a, b) if isinstance(a, int) else jnp.minimum(a, b)


def _require_shapes(maker: Any, made: Any, **expected: tuple[int, ...]) -> None:
    """Raises `ConfigError` if fields of what an agent or an environment made have other shapes."""
    for name, shape in expected.items():
        need = "one entry per arm" if shape else "a number"
        require_shape(getattr(made, name), f"{name} from {type(maker).__name__}", shape, need, f"returning {need}")


def rollout_block(agent: Agent, num_arms: int, horizon: int) -> int:
    """Trajectories whose states fit into a core's share of the cache; 0, for all, where there is no such cache."""
    if platform() != "cpu":
        return 0
    return min(max(_CACHE_BYTES // max(state_bytes(agent, num_arms, horizon), 1), 8), 256)
