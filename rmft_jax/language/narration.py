"""The play of other agents as dialogues, from which a language model can learn."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmft_jax.agents import Agent
from rmft_jax.config import ScalarKey, pytree
from rmft_jax.language.agent import Notes
from rmft_jax.language.library import EMPTY, Library, Row, counted
from rmft_jax.language.settings import TextSettings
from rmft_jax.language.transcript import line_break
from rmft_jax.problems import Feedback
from rmft_jax.problems.types import Context, Decision, Reward


@pytree
class NarratedState:
    """The agent's own state, the telling, and what was seen of each arm.

    telling: `[]`. pulls, sums: `[K]`.
    """

    inner: Any
    telling: Int[Array, ""]
    pulls: Int[Array, "K"]
    sums: Float[Array, "K"]


@pytree
class Narrated:
    """Another agent, whose decisions are said in words.

    What it thinks is what its own notes say, the numbers of a thought and of the arm in it; else the template of the
    arm of highest mean so far (`narration='template'`), or nothing.

    form: how dialogues are written.
    agent: who decides.
    library: tables.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    form: TextSettings
    agent: Agent
    library: Library

    def init(self, num_arms: int, horizon: int) -> NarratedState:
        """Told the first way."""
        return self._begun(jnp.zeros((), jnp.int32), num_arms, horizon)

    def begin(self, key: ScalarKey, num_arms: int, horizon: int) -> NarratedState:
        """Told in a way that is drawn."""
        return self._begun(jax.random.randint(key, (), 0, self.library.num_tellings), num_arms, horizon)

    def act(self, key: ScalarKey, state: NarratedState, context: Context) -> tuple[Decision, NarratedState]:
        """Lets the agent decide, and writes it down."""
        decision, inner = self.agent.act(key, state.inner, context)
        parts = []
        if self.form.reasoning:
            parts.append(self._thought(decision, state))
        if self.form.num_free:
            parts.append(self._answer(decision.action, state.telling))
        written = jnp.concatenate(parts) if parts else jnp.full(1, EMPTY)
        nothing = jnp.zeros(written.shape)
        notes = Notes(state.telling, written, nothing, jnp.zeros((), bool))
        state = NarratedState(inner, state.telling, state.pulls, state.sums)
        return Decision(decision.action, decision.probabilities, decision.scores, notes), state

    def observe(self, state: NarratedState, action: Int[Array, ""], reward: Reward, context: Context) -> NarratedState:
        """Tells the agent, and keeps count for the template."""
        inner = self.agent.observe(state.inner, action, reward, context)
        return NarratedState(inner, state.telling, *counted(state.pulls, state.sums, action, reward))

    def _begun(self, telling: Int[Array, ""], num_arms: int, horizon: int) -> NarratedState:
        nothing = jnp.zeros(num_arms, jnp.int32)
        return NarratedState(self.agent.init(num_arms, horizon), telling, nothing, nothing.astype(jnp.float32))

    def _thought(self, decision: Decision, state: NarratedState) -> Row:
        table = self.library.thoughts
        assert table is not None
        if decision.notes is not None:
            number, arm = decision.notes
            return table[state.telling, number, arm]
        if self.form.narration == "template":
            means = jnp.where(state.pulls > 0, state.sums / jnp.maximum(state.pulls, 1), -jnp.inf)
            return table[state.telling, -1, jnp.argmax(means)]
        return jnp.full(self.form.reasoning, EMPTY).at[0].set(line_break(self.library, state.telling))

    def _answer(self, action: Int[Array, ""], telling: Int[Array, ""]) -> Row:
        """The arm's name, ended by a new line where there is room."""
        name, room = self.library.answers[telling, action], self.form.num_free
        places, length = jnp.arange(room), jnp.sum(name != EMPTY)
        text = jnp.full(room, EMPTY).at[: len(name)].set(name)
        stop = line_break(self.library, telling)
        return jnp.where(places == length, stop, text)
