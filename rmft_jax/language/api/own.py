"""One of our own language models as a service of this machine: it answers prompts, and is tuned on examples."""

import dataclasses
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from rmft_jax.config import Params
from rmft_jax.config.checks import ConfigError, require, require_count
from rmft_jax.language.agent import LanguageAgent
from rmft_jax.language.api.desk import RefusedError
from rmft_jax.language.api.likelihood import Example, TuneSettings, tuned
from rmft_jax.language.api.messages import Wording
from rmft_jax.language.decoder import DecoderConfig, empty_cache, logits_of, run
from rmft_jax.language.policy import Text
from rmft_jax.language.styles import HELD_OUT_STYLES, TRAINED_STYLES
from rmft_jax.language.tokenizers import Tokenizer, text_ends
from rmft_jax.method.numerics import pinned
from rmft_jax.running.files import RunError, not_written
from rmft_jax.running.weights import TrainedPolicy, named, read_policy, write_policy

_SHORTEST = 64


class OwnModel:
    """A trained language model, and those that are tuned from it.

    Args:
      policy: a policy that writes text.
      name: of the model, as clients call it.
      folder: of the tuned models; those that are there are known from the start.
      wording: how clients put dialogues into messages.
      settings: of tuning.
      most_tokens: that a reply has, whatever a client asks for.
      note: told in a line what is wrong with a file of the folder.

    Raises:
      ConfigError: if the policy writes no text.
      RunError: if the folder cannot be read.
    """

    def __init__(
        self,
        policy: TrainedPolicy,
        name: str,
        folder: Path | str,
        *,
        wording: Wording = "bare",
        settings: TuneSettings | None = None,
        most_tokens: int = 256,
        note: Callable[[str], None] = print,
    ):
        agent, text = policy.agent, policy.config.rmft.policy
        got = f"policy={text.name!r}"
        if not isinstance(agent, LanguageAgent) or not isinstance(text, Text):
            raise ConfigError(f"got {got}, need a policy that writes text; try a run of text-toy")
        if wording == "bare":
            need, advice = "history='full', since clients tell every round", "another run, or --wording chat"
            require(text.history == "full", f"a model trained with history={text.history!r}", need, advice)
            if text.answer == "free":
                note("trained with free answers, after which the arm is named once more; clients do not name it")
        self._policy, self._agent, self.folder = policy, agent, Path(folder)
        self._wording: Wording = wording
        self._settings, self._most = settings or TuneSettings(), most_tokens
        require_count(most_tokens, "most_tokens", 1, 256)
        self._tokenizer = text.loaded.tokenizer
        self._ends = ends_of(self._tokenizer, agent.shapes.vocab_size)
        self._root = _digest(agent.params)
        self._params: dict[str, Params] = {name: agent.params}
        # Programs of several threads at once would only wait for each other.
        self._lock = threading.Lock()
        self._read(note)

    @property
    def names(self) -> list[str]:
        """All models, the first one first."""
        return list(self._params)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text))

    @pinned()
    def reply(
        self,
        messages: list[dict[str, Any]],
        temperature: float,
        max_tokens: int,
        seed: int | None,
        model: str,
        choices: Sequence[str] = (),
    ) -> str:
        """Goes on with a dialogue, until a new line, the end of the text, or what comes back after an answer.

        The same prompt and seed give the same words. Of choices one is said, by the probabilities of their first
        tokens, as policies with `answer='choice'` decide.

        Args:
          messages: the dialogue.
          temperature: of the sampling; 0: always the likeliest token.
          max_tokens: tokens of the reply, at most.
          seed: of the sampling; None: one by chance.
          model: its name.
          choices: the replies that there are; none: any.

        Raises:
          RefusedError: if the dialogue is too long for the model, or choices begin with the same token.
        """
        words = [token for text, _ in pieces(messages, self._wording) for token in self._tokenizer.encode(text)]
        tokens = [*self._tokenizer.start, *words] if words else []
        shapes, most = self._agent.shapes, min(max(max_tokens, 1), self._most)
        if not tokens or len(tokens) + most > shapes.max_positions:
            got = f"a prompt of {len(tokens)} tokens with max_tokens={most}"
            raise RefusedError(400, f"{got}, which should be 1 to {shapes.max_positions} together")
        size, room = _rounded(len(tokens), _SHORTEST), _rounded(most, 8)
        row = np.zeros(size, np.int32)
        row[: len(tokens)] = tokens
        first = self._first_tokens(choices)
        allowed = np.arange(shapes.vocab_size) < (0 if first else self._tokenizer.vocab_size)
        allowed[list(first)] = True
        ends = self._ends[int(self._thinks(messages))] & (not first)
        key = jax.random.key(secrets.randbits(31) if seed is None else seed % 2**32)
        with self._lock:
            out = _written(
                shapes,
                room,
                self._agent.form.weights(self._params[model], self._agent.model),
                jnp.asarray(row),
                np.int32(len(tokens)),
                np.int32(1 if first else most),
                key,
                np.float32(temperature),
                jnp.asarray(ends),
                jnp.asarray(allowed),
            )
        if first:
            return first[int(out[0])]
        return self._tokenizer.decode([int(token) for token in np.asarray(out) if token >= 0]).strip()

    @pinned()
    def tune(self, lines: list[dict[str, Any]], model: str) -> str:
        """Makes what the assistant says in examples likelier, and keeps the new model; returns its name.

        The same examples and model give the same name, under which it is made once.

        Args:
          lines: each with `messages`.
          model: the one to start with.

        Raises:
          ConfigError: if an example is too long for the model, or holds nothing to learn.
          RunError: if the new model cannot be written.
        """
        about = json.dumps([_digest(self._params[model]), lines, dataclasses.asdict(self._settings), self._wording])
        name = f"{self.names[0]}-{hashlib.sha256(about.encode()).hexdigest()[:8]}"
        if name in self._params:
            return name
        examples = [self._example(line["messages"]) for line in lines]
        agent = self._agent

        def weights(params: Params) -> Any:
            return agent.form.weights(params, agent.model)

        params = tuned(agent.shapes, weights, self._params[model], examples, self._settings)
        config, preset = self._policy.config, self._policy.preset
        provenance = {"tuned_from": model, "examples": len(lines), "root": self._root}
        try:
            write_policy(self.folder / f"{name}.npz", params, config, preset, provenance)
        except OSError as error:
            raise not_written(self.folder, error) from error
        self._params[name] = params
        return name

    def _first_tokens(self, choices: Sequence[str]) -> dict[int, str]:
        """Choices by their first tokens."""
        space = " " if self._wording == "bare" else ""
        found = {self._tokenizer.encode(f"{space}{text}")[0]: text for text in choices if text.strip()}
        if len(found) < len(choices):
            raise RefusedError(400, "choices must begin with different tokens")
        return found

    def _thinks(self, messages: Sequence[dict[str, Any]]) -> bool:
        """Whether the reply is a thought: where a telling asks for one, and in chat wording of a model that thinks."""
        if self._wording == "chat":
            return self._agent.form.reasoning > 0
        asked = tuple(text for styles in (TRAINED_STYLES, HELD_OUT_STYLES) for text in styles.thinks)
        return str(messages[-1]["content"]).endswith(asked)

    def _example(self, messages: Sequence[dict[str, Any]]) -> Example:
        """Tokens, and which of them are learned: what the assistant says, and the token that ends it."""
        tokens: list[int] = list(self._tokenizer.start)
        learned: list[bool] = [False] * len(tokens)
        ended = False
        for text, own in [*pieces(messages, self._wording), ("\n", False)]:
            more = self._tokenizer.encode(text)
            tokens += more
            learned += [own or (ended and not place) for place in range(len(more))]
            # In chat wording a message ends with a line break of its own.
            ended = own and self._wording == "bare"
        most = self._agent.shapes.max_positions
        require(len(tokens) <= most, f"an example of {len(tokens)} tokens", f"at most {most}", "shorter dialogues")
        return Example(tokens, learned)

    def _read(self, note: Callable[[str], None]) -> None:
        """Takes the models of the folder that were tuned from this one."""
        for path in sorted(self.folder.glob("*.npz")):
            try:
                policy = read_policy(path)
            except RunError as error:
                note(str(error))
                continue
            if policy.provenance.get("root") == self._root:
                self._params[path.stem] = policy.agent.params
            else:
                note(f"{path} was not tuned from this model, and is left out")


def pieces(messages: Sequence[dict[str, Any]], wording: Wording) -> list[tuple[str, bool]]:
    """The text of a dialogue, message by message, and whether the assistant says it.

    Of `bare` wording as `bare_text` has it; else each message is a line.
    """
    found = []
    for message in messages:
        own, text = message["role"] == "assistant", str(message["content"])
        found.append((f"{' ' if own else ''}{text}" if wording == "bare" else f"{text}\n", own))
    return found


def ends_of(tokenizer: Tokenizer, size: int) -> Bool[np.ndarray, "2 V"]:
    """Which tokens end an answer, and which end a thought.

    Both end with a new line or the text. An answer ends also where what comes back may begin: models go on with it.
    """
    thought = text_ends(tokenizer, size)
    answer = thought.copy()
    for form in (*TRAINED_STYLES.feedbacks, *HELD_OUT_STYLES.feedbacks):
        for text in (form.short, form.named, form.revealed):
            answer[tokenizer.encode(text.split("{")[0])[0]] = True
    return np.stack([answer, thought])


@jax.jit(static_argnums=(0, 1))
def _written(
    shapes: DecoderConfig,
    room: int,
    weights: Any,
    prompt: Int[Any, "N"],
    length: Any,
    most: Any,
    key: Any,
    temperature: Any,
    ends: Bool[Any, "V"],
    allowed: Bool[Any, "V"],
) -> Int[Any, "M"]:
    """Tokens that go on with a prompt, -1 after the last.

    The prompt is filled up behind its `length` tokens. What is written takes the places of that filling, and none of
    them is read before. `allowed` says what the first token may be.
    """
    slots = jnp.arange(len(prompt) + room)
    places = slots[: len(prompt)]
    cache = empty_cache(shapes, len(slots), weights["embed"].dtype)
    hidden, cache = run(shapes, weights, prompt, places, slots[None, :] <= places[:, None], cache)

    def unfinished(carry: Any) -> Any:
        number, over, *_ = carry
        return (number < most) & ~over

    def step(carry: Any) -> Any:
        number, _, out, hidden, cache = carry
        logits = jnp.where(allowed | (number > 0), logits_of(shapes, weights, hidden), -jnp.inf)
        own = jax.random.fold_in(jax.random.fold_in(key, length), number)
        warm = jax.random.categorical(own, logits / jnp.maximum(temperature, 1e-6))
        token = jnp.where(temperature > 0, warm, jnp.argmax(logits)).astype(jnp.int32)
        over, place = ends[token], length + number
        out = out.at[number].set(jnp.where(over, -1, token))
        hidden, cache = run(shapes, weights, token[None], place[None], (slots <= place)[None], cache, place)
        return number + 1, over, out, hidden[0], cache

    start = (jnp.int32(0), jnp.asarray(False), jnp.full(room, -1, jnp.int32), hidden[length - 1], cache)
    return jax.lax.while_loop(unfinished, step, start)[2]


def _rounded(number: int, least: int) -> int:
    """The power of two, at least `least`, that a number fits in: few shapes, so that few programs are compiled."""
    return max(least, 1 << (number - 1).bit_length())


def _digest(params: Params) -> str:
    """Which weights these are."""
    digest = hashlib.sha256()
    for name, array in sorted(named(params).items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:16]
