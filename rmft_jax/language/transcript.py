"""Where the parts of a dialogue stand, and what is read from what a model makes of its slots."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.language.decoder import DecoderConfig, logits_of
from rmft_jax.language.library import EMPTY, Library, Row
from rmft_jax.language.settings import TextSettings


@dataclasses.dataclass(frozen=True)
class Layout:
    """Slots of the parts of a dialogue.

    intro: once; the others in every round, in this order. What is not there has none.
    full: whether every round is kept; else those of a round are written over in the next, and told is not read.
    """

    intro: int
    past: int
    think: int
    thought: int
    ask: int
    answer: int
    told: int
    full: bool

    @classmethod
    def of(cls, form: TextSettings, library: Library) -> "Layout":
        """That of some tables."""
        told = library.told.shape[-1]
        past = 0
        if library.revealed is not None:
            told = library.revealed.shape[-1] + library.num_arms * told
        if library.summary is not None:
            lines = (library.summed_arm, library.summed_pulls, library.summed_mean)
            past = library.summary.shape[-1] + library.num_arms * sum(x.shape[-1] for x in lines if x is not None)
        return cls(
            intro=library.intro.shape[-1],
            past=past,
            think=library.think.shape[-1] if form.reasoning else 0,
            thought=form.reasoning,
            ask=library.ask.shape[-1],
            answer=form.num_free or library.answers.shape[-1],
            told=told,
            full=form.history == "full",
        )

    @property
    def thought_at(self) -> int:
        """First slot of the thought in a round."""
        return self.past + self.think

    @property
    def answer_at(self) -> int:
        """First slot of the answer in a round."""
        return self.thought_at + self.thought + self.ask

    @property
    def round(self) -> int:
        """Slots of a round."""
        return self.answer_at + self.answer + self.told

    def base(self, round: Int[Array, ""] | int) -> Int[Array, ""] | int:
        """First slot of a round. The first one has room before it for an answer and what came back, like the others."""
        if not self.full:
            return self.intro
        return self.intro + self.answer + self.told + round * self.round

    def num_slots(self, horizon: int) -> int:
        """All slots that `horizon` rounds need."""
        return int(self.base(horizon - 1)) + self.answer_at + self.answer


def line_break(library: Library, telling: Int[Array, ""]) -> Int[Array, ""]:
    """What others end a text with: the first token of what asks for the answer."""
    ask = library.ask[telling]
    return ask[jnp.argmax(ask != EMPTY)]


def ends_thought(library: Library, token: Int[Array, "*N"]) -> Bool[Array, "*N"]:
    """Whether a token ends a thought: it holds a line break, or ends the text."""
    return library.ends[jnp.maximum(token, 0)] & (token != EMPTY)


def ends_answer(library: Library, telling: Int[Array, ""], token: Int[Array, "*N"]) -> Bool[Array, "*N"]:
    """Whether a token ends a free answer: so, or as the first one of what comes back, which a model may go on with."""
    came = library.told[telling, 0, 0, 0] if library.revealed is None else library.revealed[telling, 0]
    return ends_thought(library, token) | (token == came)


def visible_slots(real: Bool[Array, "S"], own: Int[Array, "N"]) -> Bool[Array, "N S"]:
    """Which slots are read from each of some slots: those before that hold tokens, and itself."""
    places = jnp.arange(len(real))
    return (real[None, :] & (places[None, :] <= own[:, None])) | (places[None, :] == own[:, None])


def arm_logits(
    shapes: DecoderConfig, weights: Any, hidden: Float[Array, "*T D"], tokens: Int[Array, "K"]
) -> Float[Array, "*T K"]:
    """Logits of the first tokens of the arms' names."""
    rows = weights["embed"][tokens] if shapes.tied else weights["head"][:, tokens].T
    return jnp.matmul(hidden, rows.T, preferred_element_type=jnp.float32)


def arm_named(written: Row, names: Int[Array, "K n"]) -> Int[Array, "K"]:
    """How late each arm's name begins in a text, from 1; 0 where it is not there. Of two, the longer name wins."""
    room = jnp.concatenate([written, jnp.full(names.shape[1], EMPTY)])
    windows = jnp.stack([room[i : i + names.shape[1]] for i in range(len(written))])
    found = jnp.all((windows[None] == names[:, None]) | (names[:, None] == EMPTY), axis=-1)
    last = jnp.max(jnp.where(found, 1 + jnp.arange(len(written)), 0), axis=-1)
    length = jnp.sum(names != EMPTY, axis=-1)
    return jnp.where(last > 0, last * (names.shape[1] + 1) + length, 0)


def log_probs_of(
    shapes: DecoderConfig, weights: Any, hidden: Float[Array, "T N D"] | None, written: Int[Array, "T N"]
) -> Float[Array, "T N"]:
    """Log-probabilities of what was written, given what comes out of the slots before; 0 where nothing was."""
    if hidden is None:
        return jnp.zeros(written.shape)
    logits = logits_of(shapes, weights, hidden)
    picked = jnp.take_along_axis(logits, jnp.maximum(written, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(written == EMPTY, 0.0, picked - jax.nn.logsumexp(logits, axis=-1))
