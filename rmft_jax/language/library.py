"""Tellings of a problem as tables of tokens, made before anything is compiled, so that a rollout needs no host.

Axis letters: `S` tellings, `K` arms, `V` levels of a reward, `J` thoughts. Rows of tokens are as long as the longest
one; -1 stands where a row holds nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rmft_jax.config import pytree
from rmft_jax.config.checks import require
from rmft_jax.language.tokenizers import Tokenizer, text_ends
from rmft_jax.language.words import TEMPLATE, Contexts, Telling, make_tellings, thoughts
from rmft_jax.problems import Environment, Problem

EMPTY = -1
_LEVELS = 101
Row = Int[Array, "N"]


@pytree
class Library:
    """Everything that is said in S tellings of one problem.

    ends: `[E]` of all tokens that the model may write, which end a line or the text.
    low, high: `[]` the rewards of the first and the last level.
    intro: `[S, I]` rules of the game.
    think, ask: `[S, C]`, `[S, A]` what asks for a thought, and for an answer; both end at the last place of the row.
    answers: `[S, K, N]` the arms' names.
    told: `[S, K, V, W]` what comes back: one arm and its reward. Under full information a row for every arm is told.
    revealed: `[S, W']` what starts that list.
    summary: `[S, Z]` what starts a summarized past; None where it is told in full.
    summed_arm, summed_pulls, summed_mean: `[S, K, Z]`, `[S, T + 1, Z]`, `[S, V, Z]` its lines.
    thoughts: `[S, J, K, R]` thoughts of other players, each ended by the token that ends thoughts, as room allows; the
      last one is the template. None where nobody thinks.
    """

    ends: Bool[Array, "E"]
    low: Float[Array, ""]
    high: Float[Array, ""]
    intro: Int[Array, "S I"]
    think: Int[Array, "S C"]
    ask: Int[Array, "S A"]
    answers: Int[Array, "S K N"]
    told: Int[Array, "S K V W"]
    revealed: Int[Array, "S X"] | None = None
    summary: Int[Array, "S Z"] | None = None
    summed_arm: Int[Array, "S K Za"] | None = None
    summed_pulls: Int[Array, "S P Zp"] | None = None
    summed_mean: Int[Array, "S V Zm"] | None = None
    thoughts: Int[Array, "S J K R"] | None = None

    @property
    def num_tellings(self) -> int:
        """S."""
        return self.intro.shape[0]

    @property
    def num_arms(self) -> int:
        """K."""
        return self.answers.shape[1]

    def level(self, reward: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
        """The level that is told of a reward: the nearest one."""
        number = self.told.shape[2]
        place = (reward - self.low) / (self.high - self.low) * (number - 1)
        return jnp.clip(jnp.round(place), 0, number - 1).astype(jnp.int32)

    def outcome(self, telling: Int[Array, ""], action: Int[Array, ""], reward: Float[Array, "..."]) -> Row:
        """`[W]` what is told after a round: the reward of the arm played, or, where `reward` has one for each, all."""
        told, level = self.told[telling], self.level(reward)
        if self.revealed is None:
            return told[action, level]
        return jnp.concatenate([self.revealed[telling], *(told[arm, level[arm]] for arm in range(self.num_arms))])

    def past(self, telling: Int[Array, ""], pulls: Int[Array, "K"], sums: Float[Array, "K"]) -> Row:
        """`[Z]` a summarized past: how often the reward of each arm was seen, and its mean."""
        assert self.summary is not None
        assert self.summed_arm is not None
        assert self.summed_pulls is not None
        assert self.summed_mean is not None
        means = self.summed_mean[telling][self.level(sums / jnp.maximum(pulls, 1))]
        means = jnp.where((pulls > 0)[:, None], means, EMPTY)
        lines = jnp.concatenate([self.summed_arm[telling], self.summed_pulls[telling][pulls], means], axis=1)
        return jnp.concatenate([self.summary[telling], lines.reshape(-1)])


def counted(
    pulls: Int[Array, "K"], sums: Float[Array, "K"], action: Int[Array, ""], reward: Float[Array, "..."]
) -> tuple[Int[Array, "K"], Float[Array, "K"]]:
    """How often each arm's reward was seen, and the sum of these rewards, after one more round."""
    seen = jnp.ones_like(pulls) if reward.ndim else jax.nn.one_hot(action, len(pulls), dtype=int)
    return pulls + seen, sums + seen * reward


def _are_zero_or_one(environment: Environment) -> bool:
    """Whether all rewards are 0 or 1: a law that a user's own `step` or `draw_rewards` need not follow."""
    kind: Any = type(environment)
    ours = all(method.__module__.startswith("rmft_jax.") for method in (kind.step, kind.draw_rewards))
    return ours and environment.noise == "bernoulli"


def make_library(
    problem: Problem,
    tokenizer: Tokenizer,
    *,
    contexts: Contexts,
    num_tellings: int,
    history: Literal["full", "summary"],
    free: int,
    reasoning: int,
    num_outputs: int | None = None,
) -> Library:
    """The tables of a problem, as NumPy arrays.

    Args:
      problem: which has concrete settings.
      tokenizer: of the model that reads them.
      contexts: whether tellings are those for training or those held out.
      num_tellings: S.
      history: whether each round is told, or how often and how well each arm was played.
      free: tokens of a free answer, after which what comes back names the arm, since the answer may not have; 0: arms
        are chosen.
      reasoning: places R for a thought; 0: nobody thinks.
      num_outputs: tokens that the model may write. None: those of the tokenizer.

    Raises:
      ConfigError: if there are not that many tellings or names, or names share their first token or are too long.
    """
    tellings = tellings_of(problem, contexts, num_tellings)
    low, high = tellings[0].low, tellings[0].high
    arms = range(problem.num_arms)
    # Means are told at the same levels as rewards.
    few = _are_zero_or_one(problem.environment) and history == "full"
    levels = [float(x) for x in np.linspace(low, high, 2 if few else _LEVELS)]
    full = problem.feedback == "full"

    def rows(texts: Callable[[Telling], Any], *, at_end: bool = False) -> np.ndarray:
        return padded([_encoded(tokenizer, texts(one)) for one in tellings], at_end=at_end)

    def told(one: Telling, arm: int, value: float) -> str:
        return one.listed(arm, value) if full else one.told(arm, value, named=free > 0)

    answers = rows(lambda one: [f" {name}" for name in one.names])
    if not free:
        _require_distinct(answers, tellings)
    got, need = f"answer_tokens={free}", f"room for the longest name, {answers.shape[-1]} tokens"
    require(not free or answers.shape[-1] <= free, got, need, f"answer_tokens={answers.shape[-1] + 1}")
    tables = {
        "ends": text_ends(tokenizer, num_outputs or tokenizer.vocab_size),
        "low": np.asarray(low, np.float32),
        "high": np.asarray(high, np.float32),
        "intro": padded([[*tokenizer.start, *_encoded(tokenizer, one.intro)] for one in tellings], at_end=True),
        "think": rows(lambda one: one.think, at_end=True),
        "ask": rows(lambda one: one.ask, at_end=True),
        "answers": answers,
        "told": rows(lambda one: [[told(one, arm, value) for value in levels] for arm in arms]),
    }
    if full:
        tables["revealed"] = rows(lambda one: one.revealed)
    if history == "summary":
        tables["summary"] = rows(lambda one: one.summary)
        tables["summed_arm"] = rows(lambda one: [one.summed_arm(arm) for arm in arms])
        tables["summed_pulls"] = rows(lambda one: [one.summed_pulls(n) for n in range(problem.horizon + 1)])
        tables["summed_mean"] = rows(lambda one: [one.summed_mean(value) for value in levels])
    if reasoning:
        tables["thoughts"] = _thought_table(tokenizer, tellings, reasoning, tables["ask"])
    return Library(**tables)


def tellings_of(problem: Problem, contexts: Contexts, number: int) -> list[Telling]:
    """Different ways to tell a problem, which has concrete settings.

    Raises:
      ConfigError: if there are not that many tellings or names.
    """
    environment = problem.environment
    low, high = environment.reward_range
    fixed = environment.bandit_regret == "pseudo"
    return make_tellings(
        number,
        problem.num_arms,
        problem.horizon,
        contexts=contexts,
        feedback=problem.feedback,
        low=float(low),
        high=float(high),
        fixed=fixed,
    )


def padded(rows: Any, *, at_end: bool = False) -> np.ndarray:
    """Nested lists of rows as one array, filled up with `EMPTY` to the longest; `at_end`: in front of them."""
    width = max(map(len, _rows_of(rows)), default=0)

    def fill(part: Any) -> Any:
        if part and isinstance(part[0], list):
            return [fill(inner) for inner in part]
        blank = [EMPTY] * (width - len(part))
        return blank + part if at_end else part + blank

    return np.asarray(fill(rows), np.int32)


def first_token(rows: np.ndarray) -> np.ndarray:
    """The first tokens of rows that end at their last places."""
    start = np.argmax(rows != EMPTY, axis=-1)
    return np.take_along_axis(rows, start[..., None], axis=-1)[..., 0]


def _rows_of(rows: Any) -> Iterable[list[int]]:
    if rows and isinstance(rows[0], list):
        for inner in rows:
            yield from _rows_of(inner)
    else:
        yield rows


def _encoded(tokenizer: Tokenizer, text: Any) -> Any:
    if isinstance(text, str):
        return list(tokenizer.encode(text))
    return [_encoded(tokenizer, inner) for inner in text]


def _thought_table(
    tokenizer: Tokenizer, tellings: Sequence[Telling], room: int, ask: np.ndarray
) -> Int[np.ndarray, "S J K R"]:
    texts = [*thoughts(), TEMPLATE]
    stop = first_token(ask)

    def row(telling: int, text: str, name: str) -> list[int]:
        tokens = list(tokenizer.encode(text.format(arm=name)))
        return [*tokens, int(stop[telling])][:room]

    table = [[[row(i, text, name) for name in one.names] for text in texts] for i, one in enumerate(tellings)]
    found = padded(table)
    blank = np.full((*found.shape[:-1], room - found.shape[-1]), EMPTY, np.int32)
    return np.concatenate([found, blank], axis=-1)


def _require_distinct(answers: np.ndarray, tellings: Sequence[Telling]) -> None:
    """Raises `ConfigError` where two names of a telling start with the same token."""
    for one, rows in zip(tellings, answers, strict=True):
        seen: dict[int, str] = {}
        for name, token in zip(one.names, rows[:, 0].tolist(), strict=True):
            got = f"the arms {seen.get(token)!r} and {name!r}, whose names start with the same token"
            require(token not in seen, got, "names that differ in the first", "answer='free', or another model")
            seen[token] = name
