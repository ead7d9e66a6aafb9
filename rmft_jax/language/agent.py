"""A language model as an agent: it reads what it is told, maybe thinks, and answers, all inside the compiled rollout.

A dialogue is a row of slots. First the rules of the game, then in every round what asks for a thought, the thought,
what asks for an answer, the answer, and what came back. Each part has as many slots as its longest text; a mask says
which hold tokens, and positions count those only. Keys and values of all slots are kept from round to round, so that
each token is computed once. Where the past is summarized, the slots of a round are written over in the next.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from rmft_jax.agents.policy import require_built_for, resized
from rmft_jax.config import Fixed, Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.checks import block_of, require
from rmft_jax.language.decoder import Cache, DecoderConfig, empty_cache, logits_of, run
from rmft_jax.language.library import EMPTY, Library, Row, counted
from rmft_jax.language.settings import TextSettings
from rmft_jax.language.transcript import (
    Layout,
    arm_logits,
    arm_named,
    ends_answer,
    ends_thought,
    log_probs_of,
    visible_slots,
)
from rmft_jax.problems import Feedback, Problem
from rmft_jax.problems.types import Context, Decision, Reward, Trajectory


@pytree
class Notes:
    """What a dialogue holds beside actions and rewards, of a round.

    telling: `[]` which one it is; the same in all rounds.
    written: `[N]` tokens of the thought, then of a free answer, each with the token that ended it; -1 elsewhere.
    log_probs: `[N]` of these tokens, as they were drawn; 0 elsewhere.
    invalid: `[]` whether a free answer named no arm.
    """

    telling: Int[Array, "*T"]
    written: Int[Array, "*T N"]
    log_probs: Float[Array, "*T N"]
    invalid: Bool[Array, "*T"]


@pytree
class DialogueState:
    """What the agent carries from round to round.

    cache, mask: keys and values of all slots, and `[S]` which of them hold tokens.
    telling: `[]`.
    answered: `[N]` tokens of the last answer, where they were chosen; None where they were written, and are read.
    told: `[W]` of what came back.
    pulls, sums: `[K]` how often each arm's reward was seen, and the sum of these rewards.
    """

    cache: Cache
    mask: Bool[Array, "S"]
    telling: Int[Array, ""]
    answered: Row | None
    told: Int[Array, "W"]
    pulls: Int[Array, "K"]
    sums: Float[Array, "K"]


@pytree
class LanguageAgent:
    """Plays a language model.

    shapes: of the model.
    form: how it is told and answers.
    params: that are trained: weights or adapters.
    model, library: weights and tables.
    temperature: of what decides, arms or free answers. Thoughts are drawn at 1, from the model as it is: they choose
      from the whole vocabulary, so that what makes play vary enough would leave no sense in them.
    read_before: `[U]` tellings whose rules were read before play, in ascending order; None: none.
    intros: keys and values of these rules.
    """

    feedback: ClassVar[tuple[Feedback, ...]] = ("bandit", "full")

    shapes: DecoderConfig = static_field()
    form: TextSettings
    params: Params
    model: Fixed
    library: Library
    temperature: Number = 1.0
    read_before: Int[Array, "U"] | None = None
    intros: Cache | None = None

    @property
    def num_arms(self) -> int:
        """K, for which the tables were made."""
        return self.library.num_arms

    @property
    def layout(self) -> Layout:
        """Where everything stands."""
        return Layout.of(self.form, self.library)

    def refitted(self, problem: Problem) -> "LanguageAgent":
        """The same model, told of another problem."""
        fixed: Any = self.form.fixed_params(problem)
        library = jax.tree.map(jnp.asarray, fixed["library"])
        return dataclasses.replace(self, library=library, read_before=None, intros=None)

    def prepared(self, num_arms: int, horizon: int, telling_keys: Key[Array, "M"]) -> "LanguageAgent":
        """With the rules read of every telling that these scenarios have, once each."""
        self._require(num_arms, horizon)
        number = min(len(telling_keys), self.library.num_tellings)
        drawn = jnp.unique(jax.vmap(self._telling)(telling_keys), size=number, fill_value=self.library.num_tellings - 1)
        intros = jax.lax.map(self._read_intro, drawn, batch_size=block_of(number, 8))
        return dataclasses.replace(self, read_before=drawn, intros=intros)

    def init(self, num_arms: int, horizon: int) -> DialogueState:
        """Told the first way.

        Raises:
          ConfigError: if the tables are of another arm count, or dialogues are too long for the model.
        """
        first = jnp.zeros((), jnp.int32)
        return self._begun(first, self._read_intro(first), num_arms, horizon)

    def begin(self, key: ScalarKey, num_arms: int, horizon: int) -> DialogueState:
        """Told in a way that is drawn."""
        telling = self._telling(key)
        if self.read_before is None:
            return self._begun(telling, self._read_intro(telling), num_arms, horizon)
        place = jnp.searchsorted(self.read_before, telling)
        return self._begun(telling, jax.tree.map(lambda leaf: leaf[place], self.intros), num_arms, horizon)

    def grow(self, state: DialogueState, horizon: int) -> DialogueState:
        """The same with slots for `horizon` rounds."""
        slots = self.layout.num_slots(horizon)

        def with_room(leaf: Array) -> Array:
            return resized(leaf, (*leaf.shape[:-2], slots, leaf.shape[-1]))

        cache, mask = jax.tree.map(with_room, state.cache), resized(state.mask, (slots,))
        return dataclasses.replace(state, cache=cache, mask=mask)

    def act(self, key: ScalarKey, state: DialogueState, context: Context) -> tuple[Decision, DialogueState]:
        """Reads what is new, thinks, and answers."""
        layout, library, telling = self.layout, self.library, state.telling
        think_key, answer_key, arm_key = jax.random.split(key, 3)
        weights, base = self._weights(), layout.base(context.round)
        thinks = self.form.reasoning > 0
        cue = (library.think if thinks else library.ask)[telling]
        if self.form.history == "summary":
            news, slot = library.past(telling, state.pulls, state.sums), base
        else:
            news = state.told if state.answered is None else jnp.concatenate([state.answered, state.told])
            slot = base - len(news)
        hidden, state = self._feed(weights, state, jnp.concatenate([news, cue]), slot)
        written = []
        if thinks:
            room = base + layout.thought_at + jnp.arange(layout.thought)
            ended = functools.partial(ends_thought, library)
            state, *thought = self._write(weights, think_key, state, hidden, room, ended, 1.0)
            written.append(thought)
            hidden, state = self._feed(weights, state, library.ask[telling], base + layout.answer_at - layout.ask)
        if self.form.num_free:
            room = base + layout.answer_at + jnp.arange(layout.answer)
            ended = functools.partial(ends_answer, library, telling)
            state, *answer = self._write(weights, answer_key, state, hidden, room, ended, self.temperature)
            written.append(answer)
            action, probabilities, invalid = self._named(arm_key, answer[0], telling, context.arm_mask)
        else:
            logits = arm_logits(self.shapes, weights, hidden, library.answers[telling, :, 0]) / self.temperature
            logits = jnp.where(context.arm_mask, logits, -jnp.inf)
            action, invalid = jax.random.categorical(arm_key, logits), jnp.zeros((), bool)
            probabilities = jax.nn.softmax(logits)
            state = dataclasses.replace(state, answered=library.answers[telling, action])
        nothing = (jnp.full(1, EMPTY), jnp.zeros(1))
        tokens, log_probs = (jnp.concatenate(parts) for parts in zip(*(written or [nothing]), strict=True))
        notes = Notes(telling, tokens, log_probs, invalid)
        return Decision(action, probabilities, notes=notes), state

    def observe(self, state: DialogueState, action: Int[Array, ""], reward: Reward, context: Context) -> DialogueState:
        """Takes down what came back, which is read in the next round."""
        told = self.library.outcome(state.telling, action, reward)
        pulls, sums = counted(state.pulls, state.sums, action, reward)
        return dataclasses.replace(state, told=told, pulls=pulls, sums=sums)

    def outputs(self, trajectory: Trajectory) -> Float[Array, "T K"]:
        """See `TrainedAgent`: logits of the arms' names; of free answers, whose text decides, 0 for the arm played."""
        return self.read(trajectory)[0]

    def read(self, trajectory: Trajectory) -> tuple[Float[Array, "T K"], Float[Array, "T N"]]:
        """See `WritingAgent`; with `imitated='all'` the second has all tokens of a round."""
        layout, notes, weights = self.layout, trajectory.notes, self._weights()
        telling = notes.telling[0]
        rows = self.rows(trajectory)
        if self.form.history == "summary":
            hidden, before = self._read_rounds(weights, telling, rows)
        else:
            hidden, before = self._read_stream(weights, telling, rows)
        if self.form.num_free:
            played = jax.nn.one_hot(trajectory.actions, self.num_arms, dtype=bool) | notes.invalid[:, None]
            outputs = jnp.where(played, 0.0, -jnp.inf)
        else:
            decided = hidden[:, layout.answer_at - 1]
            outputs = arm_logits(self.shapes, weights, decided, self.library.answers[telling, :, 0])
        outputs = jnp.where(trajectory.arm_mask, outputs, -jnp.inf)
        if self.form.imitated == "all":
            return outputs, log_probs_of(self.shapes, weights, before, rows)
        return outputs, log_probs_of(self.shapes, weights, self._before_written(hidden), notes.written)

    def _before_written(self, hidden: Float[Array, "T n D"]) -> Float[Array, "T N D"] | None:
        """What the tokens that it wrote are predicted from."""
        layout, parts = self.layout, []
        for at, number in ((layout.thought_at, self.form.reasoning), (layout.answer_at, self.form.num_free)):
            if number:
                parts.append(hidden[:, at - 1 : at - 1 + number])
        return jnp.concatenate(parts, axis=1) if parts else None

    def rows(self, trajectory: Trajectory) -> Int[Array, "T n"]:
        """The slots of every round of a given trajectory: what it was told and wrote, -1 where nothing stands."""
        library, notes, form = self.library, trajectory.notes, self.form
        telling, reasoning = notes.telling[0], form.reasoning
        rewards = trajectory.reward_table if library.revealed is not None else trajectory.rewards
        seen = jnp.ones_like(trajectory.reward_table, dtype=int)
        if library.revealed is None:
            seen = jax.nn.one_hot(trajectory.actions, self.num_arms, dtype=int)
        sums = seen * (rewards if rewards.ndim == 2 else rewards[:, None])
        pulls, sums = (jnp.cumsum(x, axis=0) - x for x in (seen, sums))

        def row(written: Row, action: Array, reward: Array, pulls: Array, sums: Array) -> Int[Array, "n"]:
            parts = [library.past(telling, pulls, sums)] if form.history == "summary" else []
            if reasoning:
                thought = written[:reasoning]
                parts += [library.think[telling], jnp.where(ends_thought(library, thought), EMPTY, thought)]
            parts.append(library.ask[telling])
            if form.num_free:
                answer = written[reasoning:]
                parts.append(jnp.where(ends_answer(library, telling, answer), EMPTY, answer))
            else:
                parts.append(library.answers[telling, action])
            return jnp.concatenate([*parts, library.outcome(telling, action, reward)])

        return jax.vmap(row)(notes.written, trajectory.actions, rewards, pulls, sums)

    def _read_stream(
        self, weights: Any, telling: Int[Array, ""], rows: Int[Array, "T n"]
    ) -> tuple[Float[Array, "T n D"], Float[Array, "T n D"]]:
        """The whole dialogue at once: what comes out of every slot, and out of the last token before it."""
        intro = self.library.intro[telling]
        tokens = jnp.concatenate([intro, rows.reshape(-1)])
        hidden, before = self._hidden(weights, tokens)
        hidden, before = (x[len(intro) :].reshape(*rows.shape, -1) for x in (hidden, before))
        return hidden, before

    def _read_rounds(
        self, weights: Any, telling: Int[Array, ""], rows: Int[Array, "T n"]
    ) -> tuple[Float[Array, "T n D"], Float[Array, "T n D"]]:
        """Every round by itself, after the rules of the game."""
        intro = self.library.intro[telling]

        def one(row: Row) -> tuple[Array, Array]:
            hidden, before = self._hidden(weights, jnp.concatenate([intro, row]))
            return hidden[len(intro) :], before[len(intro) :]

        return jax.lax.map(one, rows, batch_size=8)

    def _hidden(self, weights: Any, tokens: Row) -> tuple[Float[Array, "N D"], Float[Array, "N D"]]:
        """What comes out of every slot of a text, and out of the last token before it."""
        hidden, _ = self._read_whole(weights, tokens)
        last = jax.lax.cummax(jnp.where(tokens != EMPTY, jnp.arange(len(tokens)), 0))
        return hidden, hidden[jnp.concatenate([last[:1], last[:-1]])]

    def _weights(self) -> Any:
        return self.form.weights(self.params, self.model)

    def _require(self, num_arms: int, horizon: int) -> None:
        require_built_for(self.num_arms, num_arms, "an agent that is made for them")
        longest, most = self.layout.num_slots(horizon), self.shapes.max_positions
        got = f"dialogues of up to {longest} tokens with model={self.form.model!r}"
        advice = "history='summary', or a shorter horizon"
        require(longest <= most, got, f"at most its {most}", advice)

    def _begun(self, telling: Int[Array, ""], rules: Cache, num_arms: int, horizon: int) -> DialogueState:
        self._require(num_arms, horizon)
        library, layout = self.library, self.layout
        intro, slots = library.intro[telling], layout.num_slots(horizon)
        cache = empty_cache(self.shapes, slots, jax.tree.leaves(rules)[0].dtype)
        nothing = jnp.zeros(num_arms, jnp.int32)
        return DialogueState(
            cache=jax.tree.map(lambda new, old: new.at[..., : old.shape[-2], :].set(old), cache, rules),
            mask=jnp.zeros(slots, bool).at[: len(intro)].set(intro != EMPTY),
            telling=telling,
            answered=None if self.form.num_free else jnp.full(layout.answer, EMPTY),
            told=jnp.full(layout.told, EMPTY),
            pulls=nothing,
            sums=nothing.astype(jnp.float32),
        )

    def _telling(self, key: ScalarKey) -> Int[Array, ""]:
        return jax.random.randint(key, (), 0, self.library.num_tellings)

    def _read_intro(self, telling: Int[Array, ""]) -> Cache:
        return self._read_whole(self._weights(), self.library.intro[telling])[1]

    def _read_whole(self, weights: Any, tokens: Row) -> tuple[Float[Array, "N D"], Cache]:
        """Reads a text by itself: what comes out of every slot, and its keys and values."""
        real = tokens != EMPTY
        positions, visible = jnp.maximum(jnp.cumsum(real) - 1, 0), visible_slots(real, jnp.arange(len(tokens)))
        return run(self.shapes, weights, jnp.where(real, tokens, 0), positions, visible)

    def _feed(
        self, weights: Any, state: DialogueState, row: Row, slot: Int[Array, ""] | int
    ) -> tuple[Float[Array, "D"], DialogueState]:
        """Reads tokens into the slots from `slot` on; returns what comes out of the last one."""
        real = row != EMPTY
        mask = jax.lax.dynamic_update_slice_in_dim(state.mask, real, slot, axis=0)
        places, own = jnp.arange(len(mask)), slot + jnp.arange(len(row))
        before = jnp.sum(mask & (places < slot))
        visible = visible_slots(mask, own)
        positions = before + jnp.maximum(jnp.cumsum(real) - 1, 0)
        hidden, cache = run(self.shapes, weights, jnp.where(real, row, 0), positions, visible, state.cache, slot)
        return hidden[-1], dataclasses.replace(state, cache=cache, mask=mask)

    def _write(
        self,
        weights: Any,
        key: ScalarKey,
        state: DialogueState,
        hidden: Float[Array, "D"],
        room: Row,
        ended: Callable[[Int[Array, ""]], Bool[Array, ""]],
        temperature: Number,
    ) -> tuple[DialogueState, Row, Float[Array, "N"]]:
        """Draws tokens into slots until one of them ends the text: the state, tokens, and their log-probabilities."""

        def step(carry: Any, slot: Array) -> tuple[Any, tuple[Array, Array]]:
            state, hidden, over = carry
            probs = jax.nn.softmax(logits_of(self.shapes, weights, hidden) / temperature)
            # One uniform number, where `categorical` draws noise for every token of the vocabulary.
            token = jax.random.choice(jax.random.fold_in(key, slot), len(probs), p=probs)
            drawn = jnp.where(over, EMPTY, token), jnp.where(over, 0.0, jnp.log(probs[token]))
            over = over | ended(token)
            hidden, state = self._feed(weights, state, jnp.where(over, EMPTY, token)[None], slot)
            return (state, hidden, over), drawn

        start = (state, hidden, jnp.zeros((), bool))
        (state, _, _), (tokens, log_probs) = jax.lax.scan(step, start, room)
        return state, tokens, log_probs

    def _named(
        self, key: ScalarKey, answer: Row, telling: Int[Array, ""], arm_mask: Bool[Array, "K"]
    ) -> tuple[Int[Array, ""], Float[Array, "K"], Bool[Array, ""]]:
        """The last arm that an answer names, or else any: the arm, the policy, and whether none was named."""
        late = jnp.where(arm_mask, arm_named(answer, self.library.answers[telling]), 0)
        invalid = jnp.all(late == 0)
        anything = arm_mask / jnp.sum(arm_mask)
        action = jnp.where(invalid, jax.random.categorical(key, jnp.log(anything)), jnp.argmax(late))
        return action, jnp.where(invalid, anything, jax.nn.one_hot(action, len(arm_mask))), invalid
