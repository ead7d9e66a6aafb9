"""Bandit problems in words: many tellings of one problem, and the pieces of text that a dialogue is made of."""

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal

from rmft_jax.config.checks import require, require_count, require_number, require_seed
from rmft_jax.language.families import HELD_OUT, HELD_OUT_UNITS, TRAINED, TRAINED_UNITS, Family, Unit
from rmft_jax.language.styles import HELD_OUT_STYLES, TEMPLATE, THOUGHTS, TRAINED_STYLES, Feedback, Styles, Summary
from rmft_jax.language.tokenizers import split_words

__all__ = ["TEMPLATE", "Telling", "make_tellings", "thoughts", "vocabulary"]

Contexts = Literal["trained", "held-out"]
_FAMILIES = {"trained": TRAINED, "held-out": HELD_OUT}
_UNITS = {"trained": TRAINED_UNITS, "held-out": HELD_OUT_UNITS}
_STYLES = {"trained": TRAINED_STYLES, "held-out": HELD_OUT_STYLES}


@dataclass(frozen=True)
class Telling:
    """One way to tell a problem with K arms and T rounds in words.

    A dialogue is `intro`, then in each round `think` and a thought (where there is reasoning), `ask`, a space and
    the name of an arm, and what comes back.

    Attributes:
      family: what it is about.
      names: K names of arms, as they are answered, without the space before them. They differ in their first words.
      labels: the same names, with a noun where that reads better.
      intro: rules of the game; ends without white space.
      think: asks for a thought; starts with a line break.
      ask: asks for an answer; starts with a line break.
      feedback: forms of what comes back.
      past: forms of a summarized past.
      unit: how rewards are written.
      low: lowest usual reward.
      high: highest usual reward.
    """

    family: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    intro: str
    think: str
    ask: str
    feedback: Feedback
    past: Summary
    unit: Unit
    low: float
    high: float

    @property
    def revealed(self) -> str:
        """Starts the list of all rewards, where there is full information."""
        return self.feedback.revealed

    @property
    def summary(self) -> str:
        """Starts a summarized past."""
        return self.past.start

    def amount(self, value: float) -> str:
        """A reward in the unit of this telling, such as "0.7 points", or "nothing"; a higher one never reads lower."""
        number = self._number(value, self.unit.decimals)
        if number == "0":
            return "nothing"
        return f"{number} {self.unit.one if number == '1' else self.unit.many}"

    def told(self, arm: int, value: float, *, named: bool) -> str:
        """What comes back with bandit feedback.

        Args:
          arm: index of the arm that was taken.
          value: its reward.
          named: whether to say which arm it was, for answers that may name none.
        """
        form = self.feedback.named if named else self.feedback.short
        return form.format(label=self.labels[arm], amount=self.amount(value))

    def listed(self, arm: int, value: float) -> str:
        """One arm and its reward, in the list that `revealed` starts."""
        return self.feedback.listed.format(name=self.names[arm], amount=self.amount(value))

    def summed_arm(self, arm: int) -> str:
        """Starts the line of an arm in a summarized past."""
        return self.past.arm.format(name=self.names[arm])

    def summed_pulls(self, pulls: int) -> str:
        """How often the arm of the line was taken."""
        return self.past.pulls.format(times="1 time" if pulls == 1 else f"{pulls} times")

    def summed_mean(self, value: float) -> str:
        """Mean reward of the arm of the line; to be left out where it was never taken."""
        return self.past.mean.format(number=self._number(value, self.unit.mean_decimals))

    def _number(self, value: float, decimals: int) -> str:
        decimals += self.unit.more_decimals(self.low, self.high)
        text = f"{abs(self.unit.scaled(value, self.low, self.high)):.{decimals}f}"
        whole, _, part = text.partition(".")
        # Whole numbers are short in every unit: a dialogue is paid for by the token.
        part = part if self.unit.padded and part.strip("0") else part.rstrip("0")
        text = f"{whole}.{part}" if part else whole
        negative = self.unit.scaled(value, self.low, self.high) < 0 and text.strip("0.") != ""
        return f"minus {text}" if negative else text


def _forms(family: Family, styles: Styles) -> list[tuple[int, ...]]:
    """Every choice of opener, shape, think, ask, feedback, summary and unit, as indices."""
    kinds = (
        family.openers,
        styles.shapes,
        styles.thinks,
        styles.asks,
        styles.feedbacks,
        styles.summaries,
        family.units,
    )
    return list(itertools.product(*(range(len(kind)) for kind in kinds)))


def make_tellings(
    number: int,
    num_arms: int,
    horizon: int,
    *,
    contexts: Contexts,
    feedback: Literal["bandit", "full"],
    low: float,
    high: float,
    fixed: bool,
    seed: int = 0,
) -> list[Telling]:
    """Different ways to tell a problem, spread evenly over all families of a split.

    Stories, forms, names and units of one split are not those of the other. Fewer tellings of the same seed are the
    first ones of more.

    Args:
      number: how many.
      num_arms: K.
      horizon: T, the number of rounds that is told.
      contexts: the split, "trained" or "held-out".
      feedback: whether the reward of the chosen arm is told, or all.
      low: lowest usual reward, where units start to count.
      high: highest usual reward.
      fixed: whether the rewards of an arm keep their law; else it is told that they may change.
      seed: draws families, forms and names.

    Raises:
      ConfigError: there are not that many names or tellings, or a setting makes no sense.
    """
    require(contexts in _FAMILIES, f"contexts={contexts!r}", "'trained' or 'held-out'", "contexts='trained'")
    families = _FAMILIES[contexts]
    require_count(number, "number", 1, 8)
    require_count(num_arms, "num_arms", 2, 5)
    require_count(horizon, "horizon", 1, 25)
    require_seed(seed)
    require(feedback in ("bandit", "full"), f"feedback={feedback!r}", "'bandit' or 'full'", "feedback='bandit'")
    require_number(low, "low", "", True, 0.0)
    require_number(high, "high", f"above low={low}", high > low, low + 1)
    names = min(len(family.names) for family in families.values())
    require(num_arms <= names, f"num_arms={num_arms}", f"at most {names}, as each has a name", f"num_arms={names}")
    rng = random.Random(f"{seed} {contexts}")
    order = rng.sample(sorted(families), len(families))
    forms = {}
    for key in order:
        every = _forms(families[key], _STYLES[contexts])
        forms[key] = rng.sample(every, len(every))
    most = len(order) * min(len(every) for every in forms.values())
    require(number <= most, f"number={number}", f"at most {most} different tellings", f"number={most}")
    made = []
    for index in range(number):
        key = order[index % len(order)]
        form = forms[key][index // len(order)]
        picked = tuple(rng.sample(families[key].names, num_arms))
        made.append(_tell(key, contexts, form, picked, horizon, feedback == "full", low, high, fixed))
    return made


def _tell(
    key: str,
    contexts: Contexts,
    form: tuple[int, ...],
    names: tuple[str, ...],
    horizon: int,
    full: bool,
    low: float,
    high: float,
    fixed: bool,
) -> Telling:
    """The telling of one choice of forms, as `_forms` gives them."""
    family, styles = _FAMILIES[contexts][key], _STYLES[contexts]
    opener, shape, think, ask, answer, past, unit = form
    telling = Telling(
        family=key,
        names=names,
        labels=tuple(f"{name} {family.noun}" if family.labelled else name for name in names),
        intro="",
        think=styles.thinks[think],
        ask=styles.asks[ask].format(verb=family.verb, noun=family.noun),
        feedback=styles.feedbacks[answer],
        past=styles.summaries[past],
        unit=_UNITS[contexts][family.units[unit]],
        low=low,
        high=high,
    )
    chosen = styles.shapes[shape]
    intro = chosen.text.format(
        opener=family.openers[opener].format(paid=telling.unit.paid),
        nouns=family.nouns,
        names=_listing(names, "and"),
        options=_listing(names, "or"),
        rounds="1 round" if horizon == 1 else f"{horizon} rounds",
        law=(chosen.fixed if fixed else chosen.changing).format(noun=family.noun),
        seen=(chosen.full if full else chosen.bandit).format(noun=family.noun),
        low=telling.amount(low),
        high=telling.amount(high),
    )
    return replace(telling, intro=intro)


def _listing(names: Sequence[str], last: str) -> str:
    """Names with commas, and a word before the last one."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def thoughts() -> tuple[str, ...]:
    """Short thoughts to begin with, sensible and silly, cautious and bold; some with `{arm}` for a name."""
    return THOUGHTS


def vocabulary() -> list[str]:
    """Every word, digit and mark that a telling, a thought or a number of either split can hold, and the line break.

    Sorted, each once: what `WordTokenizer` is made from.
    """
    words = {"\n", ".", ",", "and", "or", "minus", "nothing", "round", "rounds", "time", "times", *"0123456789"}
    for text in _texts([_FAMILIES, _UNITS, _STYLES, THOUGHTS, TEMPLATE]):
        words.update(split_words(re.sub(r"\{\w+\}", " ", text)))
    return sorted(words)


def _texts(part: object) -> Iterator[str]:
    """All strings that something is made of, but the keys of mappings."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        yield from _texts(list(part.values()))
    elif isinstance(part, (list, tuple)):
        yield from (text for other in part for text in _texts(other))
    elif is_dataclass(part):
        if isinstance(part, Family):
            part = replace(part, units=())  # keys of units
        yield from _texts([getattr(part, field.name) for field in fields(part)])
