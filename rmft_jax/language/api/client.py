"""A model behind an OpenAI-compatible chat endpoint."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from rmft_jax.config.checks import ConfigError, require, require_count
from rmft_jax.language.api.budget import Purse
from rmft_jax.language.api.connection import Connection, require_pace
from rmft_jax.language.api.faults import FaultError, host_of, one_line
from rmft_jax.language.api.ledger import Answer, AnswerKey, Ledger

Message = dict[str, str]
"""`role` and `content`, as chat endpoints take them."""


@dataclasses.dataclass(frozen=True)
class ChatClient:
    """Which model is asked, where and how.

    The key of the service is taken from the environment variable OPENAI_API_KEY when work begins; it is no setting,
    and is written nowhere. Only servers of this machine do without the variable.

    base_url: of the endpoint, as a rule ending in /v1.
    model: its name there.
    temperature: of the sampling.
    max_tokens: that an answer may have.
    timeout: seconds that an answer may take, from the request to its last byte.
    max_retries: how often a request is tried again after too many requests, errors of the server and broken
      connections.
    requests_per_minute: that are sent, at most; 0: as many as there are.
    concurrency: requests under way at once, at most.
    stream: whether answers come piece by piece.
    limit: under which name the server takes `max_tokens`.
    seeded: whether a seed is sent with every request; servers that know none may refuse it.
    guided: whether answers are limited to the arms' names, by the field `structured_outputs` of the request, which vLLM
      and the server of this package know; the service of OpenAI does not.
    first_rest: seconds of rest after a first failure; it doubles with every further one.

    Raises:
      ConfigError: if it cannot work.
    """

    base_url: str
    model: str
    temperature: float = 1.0
    max_tokens: int = 64
    timeout: float = 60.0
    max_retries: int = 6
    requests_per_minute: float = 0.0
    concurrency: int = 8
    stream: bool = False
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seeded: bool = True
    guided: bool = False
    first_rest: float = 0.5

    def __post_init__(self):
        host_of(self.base_url)
        require(bool(self.model.strip()), f"model={self.model!r}", "the name of a model", "one of the server's list")
        require(0 <= self.temperature <= 2, f"temperature={self.temperature}", "0 to 2", "temperature=1")
        require_count(self.max_tokens, "max_tokens", 1, 64)
        require_pace(self.timeout, self.max_retries, self.requests_per_minute, self.concurrency)

    def connection(self) -> Connection:
        """A connection to the endpoint, still to be entered."""
        return Connection(
            self.base_url,
            timeout=self.timeout,
            max_retries=self.max_retries,
            requests_per_minute=self.requests_per_minute,
            concurrency=self.concurrency,
            first_rest=self.first_rest,
        )

    def request(self, messages: Sequence[Message], seed: int, choices: Sequence[str] = ()) -> dict[str, Any]:
        """What is sent, but for how it is to be delivered; `choices` are all answers, where they are guided."""
        more: dict[str, Any] = {"seed": seed} if self.seeded else {}
        if self.guided and choices:
            more["extra_body"] = {"structured_outputs": {"choice": list(choices)}}
        shape = {"temperature": self.temperature, self.limit: self.max_tokens}
        return {"model": self.model, "messages": list(messages), **shape, **more}

    def most_tokens(self, messages: Sequence[Message]) -> int:
        """An upper bound of what one answer can cost: no token is shorter than a byte."""
        return self.max_tokens + prompt_bound(messages)


def prompt_bound(messages: Sequence[Message]) -> int:
    """An upper bound of the tokens of a prompt, with what a server puts around messages."""
    return 32 + sum(32 + len(message["content"].encode()) for message in messages)


class Asker:
    """Asks for answers, each at most once.

    Args:
      client: whom.
      connection: an open connection to it.
      ledger: where answers are kept, and looked up first.
      purse: what may be spent.
    """

    def __init__(self, client: ChatClient, connection: Connection, ledger: Ledger, purse: Purse):
        self._client, self._connection, self._ledger, self._purse = client, connection, ledger, purse

    @property
    def guided(self) -> bool:
        """Whether answers are limited to what may be chosen."""
        return self._client.guided

    async def answer(
        self,
        messages: Sequence[Message],
        *,
        dialogue: str,
        round: int,
        purpose: str,
        seed: int,
        choices: Sequence[str] = (),
    ) -> Answer:
        """The answer to a prompt, from the ledger if it is there.

        Raises:
          ConfigError: if the server refuses the request.
          RunError: if the server cannot be reached or fails too often, the budget is spent, or the ledger cannot be
            written.
          StoppedError: if the work was stopped before it was sent.
        """
        request = self._client.request(messages, seed, choices)
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        key = AnswerKey(dialogue, round, purpose, digest)
        if (kept := self._ledger.get(key)) is not None:
            return kept
        bound = prompt_bound(messages)

        @contextlib.asynccontextmanager
        async def guard() -> AsyncIterator[None]:
            tokens = self._client.most_tokens(messages)
            async with self._purse.reserved(tokens):
                try:
                    yield
                except FaultError as fault:
                    if fault.maybe_paid:
                        self._ledger.lose(key, fault.reason, tokens)
                    raise

        async def call(api: Any) -> Answer:
            make = _streamed if self._client.stream else _whole
            answer = await make(api, request, self._client, bound)
            self._ledger.add(key, answer)
            return answer

        return await self._connection.ask(call, guard)


async def _whole(api: Any, request: dict[str, Any], client: ChatClient, bound: int) -> Answer:
    response = await api.chat.completions.create(**request)
    _require_chat(response, client)
    if not response.choices:
        raise FaultError("an answer without choices", maybe_paid=True)
    choice = response.choices[0]
    text = getattr(choice.message, "content", None) or ""
    return _answer(text, response.usage, response.model, choice.finish_reason, client, bound)


async def _streamed(api: Any, request: dict[str, Any], client: ChatClient, bound: int) -> Answer:
    pieces: list[str] = []
    usage = model = finish = None
    chunks = await api.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    async with chunks:
        async for chunk in chunks:
            _require_chat(chunk, client)
            usage, model = chunk.usage or usage, chunk.model or model
            for choice in chunk.choices[:1]:
                pieces.append(getattr(choice.delta, "content", None) or "")
                finish = choice.finish_reason or finish
    if finish is None:
        raise FaultError("an answer that breaks off", maybe_paid=True)
    return _answer("".join(pieces), usage, model, finish, client, bound)


def _require_chat(response: Any, client: ChatClient) -> None:
    """Raises an error if something else came back: a page, as from an address that is no endpoint, or a failure.

    Routers tell failures of whom they ask in an answer that looks like a success.
    """
    if not isinstance(getattr(response, "choices", None), list):
        if failure := getattr(response, "error", None):
            raise FaultError(f"an answer that is an error ({one_line(failure)[:60]})", maybe_paid=True)
        got = one_line(response)[:60]
        hint = "a base_url that ends in /v1"
        raise ConfigError(f"got {got!r} from {client.base_url}, need the answer of a chat endpoint; try {hint}")


def _answer(text: str, usage: Any, model: Any, finish: Any, client: ChatClient, bound: int) -> Answer:
    """With upper bounds of the tokens where the server does not count them."""
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else None for count in counts)
    if completion is None:
        completion = min(client.max_tokens, len(text.encode()) + 1)
    return Answer(text, bound if prompt is None else prompt, completion, str(model or ""), str(finish or ""))
