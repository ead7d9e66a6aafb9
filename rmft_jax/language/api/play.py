"""A chat model plays decision problems in words: many dialogues at once, the environments stepped on this machine."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import require, require_count
from rmft_jax.language.api.budget import Budget, Purse
from rmft_jax.language.api.client import Asker, ChatClient, Message
from rmft_jax.language.api.connection import all_of, finished
from rmft_jax.language.api.host import Play, stacked
from rmft_jax.language.api.ledger import Answer, Ledger, Totals
from rmft_jax.language.api.messages import Script, Wording, named_arm, said
from rmft_jax.language.words import Telling
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.numerics import pinned
from rmft_jax.problems import Problem
from rmft_jax.problems.types import Trajectory
from rmft_jax.running.files import RunError

_ALL_CUT = 20
"""Answers that were cut off, one after the other, before anything else is paid for."""


@dataclasses.dataclass(frozen=True)
class Played:
    """What a model played and said.

    The dialogues lie scenario by scenario, those of one scenario side by side: N of them, or N * L with L rollouts.

    trajectory: what was played, with one batch axis for the dialogues. The policy of a round is the arm that was
      named; where none was, every arm alike, from which one was drawn.
    dialogues: the messages of each; the last one is the last answer.
    invalid: answers of each that named no arm.
    cut: those of them that `max_tokens` had cut off, so that it is not known what they would have named.
    totals: what the ledger holds now, in all.
    """

    trajectory: Trajectory
    dialogues: list[list[Message]]
    invalid: Int[np.ndarray, "N"]
    cut: Int[np.ndarray, "N"]
    totals: Totals

    @property
    def num_invalid(self) -> int:
        """Answers that named no arm, in all dialogues."""
        return int(self.invalid.sum())


@dataclasses.dataclass
class _Dialogue:
    """One model in one problem."""

    name: str
    play: Play
    script: Script
    messages: list[Message] = dataclasses.field(default_factory=list)
    invalid: int = 0
    cut: int = 0

    async def run(self, asker: Asker, rounds: int, purpose: str, answered: Callable[[bool], None]) -> None:
        """All rounds."""
        names = self.script.telling.names
        self.messages = self.script.opening()
        for round in range(rounds):
            if (question := self.script.after_thought()) is not None:
                await self._said(asker, round, purpose)
                self.messages.append(question)
            answer = await self._said(asker, round, purpose, names)
            # Of an answer that was going to say more, such as one that thinks, nothing is taken for what it decides.
            cut = answer.finish == "length" and self.script.wording == "chat" and not asker.guided
            arm = None if cut else named_arm(answer.text, names)
            self.invalid += arm is None
            self.cut += cut
            played, rewards = self.play.step(round, arm)
            if round + 1 < rounds:
                self.messages.append(self.script.following(played, rewards[: len(names)], named=arm is not None))
            answered(cut)

    async def _said(self, asker: Asker, round: int, purpose: str, choices: Sequence[str] = ()) -> Answer:
        """What the model says next, which is a message from then on."""
        place: dict[str, Any] = {"dialogue": self.name, "round": round, "purpose": purpose}
        answer = await asker.answer(self.messages, seed=self.play.seeds[round], choices=choices, **place)
        self.messages.append(said(answer.text))
        return answer


@pinned()
def play_problems(
    client: ChatClient,
    problem: Problem,
    key: ScalarKey,
    num_scenarios: int,
    tellings: Sequence[Telling],
    *,
    ledger: Ledger,
    budget: Budget | None = None,
    reasoning: bool = False,
    wording: Wording = "chat",
    first_scenario: int = 0,
    num_rollouts: int = 1,
    shared_reward_noise: bool = False,
    purpose: str = "play",
    progress: Callable[[int, int], None] | None = None,
) -> Played:
    """Lets a chat model play scenarios that are told in words.

    The same key gives the problems and the reward noise that `method.evaluation.play_scenarios` gives to agents of the
    package (and, with several rollouts, those of `method.rollout.rollout_scenarios` with `RolloutKeys.create(key)`),
    as far as they do not react to play. Every answer is kept in the ledger as it comes; where the same is run again
    with the same ledger, what is there is not asked again.

    Args:
      client: whom to ask, and how.
      problem: the distribution over scenarios, and how long it is played.
      key: fixes scenarios, reward noise, and the seeds that are sent along.
      num_scenarios: N.
      tellings: the words, each for as many arms as the problem has; scenario n is told in number n, and over again.
      ledger: an open one.
      budget: what it may hold in all; None: no limit.
      reasoning: whether the model is told to think before it answers.
      wording: `bare` for models that know the text of tellings and need no instructions.
      first_scenario: number of the first scenario.
      num_rollouts: L dialogues about each scenario.
      shared_reward_noise: whether these see the same reward noise.
      purpose: what the answers are kept under; another one pays anew.
      progress: told after every answer how many there are, and how many there will be.

    Raises:
      ConfigError: if the problem cannot be told in these words, a setting cannot work, or the server refuses it.
      RunError: if the server cannot be reached or fails too often, all of the first answers are cut off, or the ledger
        cannot be written.
      BudgetSpentError: before the budget is passed.
    """
    _require_playable(problem, tellings, num_scenarios, num_rollouts)
    at_once = reasoning and wording == "chat"
    got = "guided=True with reasoning=True and wording='chat'"
    require(not (client.guided and at_once), got, "answers that are names alone", "guided=False")
    rounds, keys = int(problem.rounds), RolloutKeys.create(key)
    dialogues = [
        _Dialogue(
            f"scenario {scenario}, rollout {rollout}",
            Play(problem, keys, scenario, rollout, shared_reward_noise=shared_reward_noise),
            Script(tellings[scenario % len(tellings)], problem.feedback == "full", reasoning, wording),
        )
        for scenario in range(first_scenario, first_scenario + num_scenarios)
        for rollout in range(num_rollouts)
    ]
    answered = _Counter(len(dialogues) * rounds, client.max_tokens, progress).add
    options = {"rounds": rounds, "purpose": purpose, "answered": answered}
    finished(lambda: _talk(client, ledger, budget, dialogues, options))
    plays, messages = zip(*((one.play, one.messages) for one in dialogues), strict=True)
    invalid, cut = (np.asarray([getattr(one, name) for one in dialogues]) for name in ("invalid", "cut"))
    return Played(stacked(list(plays)), list(messages), invalid, cut, ledger.totals)


async def _talk(
    client: ChatClient,
    ledger: Ledger,
    budget: Budget | None,
    dialogues: list[_Dialogue],
    options: dict[str, Any],
) -> None:
    """Runs all dialogues over one connection."""
    # What JAX is told holds for a thread, and this may be another one.
    with pinned():
        async with client.connection() as connection:
            asker = Asker(client, connection, ledger, Purse(ledger, budget))
            # Those that have begun go on first: an early end leaves few unfinished.
            seats = asyncio.Semaphore(client.concurrency)

            async def seated(dialogue: _Dialogue) -> None:
                async with seats:
                    connection.check()
                    await dialogue.run(asker, **options)

            await all_of([seated(dialogue) for dialogue in dialogues], connection)


class _Counter:
    def __init__(self, total: int, most: int, progress: Callable[[int, int], None] | None):
        self._done, self._cut, self._total, self._most, self._progress = 0, 0, total, most, progress

    def add(self, cut: bool) -> None:
        self._done += 1
        self._cut += cut
        if self._cut == self._done == _ALL_CUT:
            got = f"the first {_ALL_CUT} answers cut off at max_tokens={self._most}"
            raise RunError(f"got {got}, need whole ones; try a larger max_tokens, as for models that think")
        if self._progress is not None:
            self._progress(self._done, self._total)


def _require_playable(problem: Problem, tellings: Sequence[Telling], num_scenarios: int, num_rollouts: int) -> None:
    """Raises `ConfigError` unless the problem can be told in these words, so many times."""
    require_count(num_scenarios, "num_scenarios", 1, 10)
    require_count(num_rollouts, "num_rollouts", 1, 4)
    require(not problem.points, "a problem that is played in a ball", "one with arms", "a problem without a radius")
    require(bool(tellings), "no tellings", "one or more", "make_tellings(1, ...)")
    arms = int(jnp.sum(problem.arm_mask))
    for telling in tellings:
        names = len(telling.names)
        hint = f"make_tellings(..., num_arms={arms})"
        require(names == arms, f"a telling of {names} arms", f"the problem's {arms}", hint)
