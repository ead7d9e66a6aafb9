"""How a problem is told: forms of the introduction, of questions and of answers, and thoughts to begin with.

In every form `{...}` stands for what a telling fills in. No form of one split is a form of the other.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A form of the introduction.

    Attributes:
      text: the whole, with `{opener}`, `{nouns}`, `{names}` (or `{options}`), `{rounds}`, `{law}` and `{seen}`.
      fixed: `{law}` where the rewards of an arm keep their law.
      changing: `{law}` where they do not.
      bandit: `{seen}` where the reward of the chosen arm is told alone.
      full: `{seen}` where all rewards are told.
    """

    text: str
    fixed: str
    changing: str
    bandit: str
    full: str


@dataclass(frozen=True)
class Feedback:
    """Forms of what comes back after an answer.

    Attributes:
      short: reward of the answer, with `{amount}`.
      named: the same for answers that may name no arm, with `{label}` for the arm that was taken.
      revealed: start of the list of all rewards.
      listed: one arm of it, with `{name}` and `{amount}`.
    """

    short: str
    named: str
    revealed: str
    listed: str


@dataclass(frozen=True)
class Summary:
    """Forms of a summarized past.

    Attributes:
      start: its first line.
      arm: an arm, with `{name}`.
      pulls: how often it was taken, with `{times}`.
      mean: its mean reward, with `{number}`.
    """

    start: str
    arm: str
    pulls: str
    mean: str


@dataclass(frozen=True)
class Styles:
    """All forms of one split.

    Attributes:
      shapes: of the introduction.
      thinks: what asks for a thought.
      asks: what asks for an answer, with `{verb}` or `{noun}`.
      feedbacks: of what comes back.
      summaries: of a summarized past.
    """

    shapes: tuple[Shape, ...]
    thinks: tuple[str, ...]
    asks: tuple[str, ...]
    feedbacks: tuple[Feedback, ...]
    summaries: tuple[Summary, ...]


TRAINED_STYLES = Styles(
    shapes=(
        Shape(
            text="{opener} The {nouns} are {names}. {law} {seen} You have {rounds}. Get as much as you can.",
            fixed="None of them changes its average.",
            changing="Each can become better or worse with time.",
            bandit="You see only what your choice gave.",
            full="After your choice you see what each one gave.",
        ),
        Shape(
            text="{opener} There will be {rounds}. In each you choose {options}. {seen} {law} "
            "Most rewards are between {low} and {high}. The sum should be high.",
            fixed="The rules stay the same.",
            changing="The rules may change.",
            bandit="You learn the reward of this one alone.",
            full="You learn the rewards of all.",
        ),
        Shape(
            text="A game of {rounds}. {opener} Your {nouns}: {names}. {seen} {law} The total should be large.",
            fixed="What is good now stays good.",
            changing="What is good now can be bad later.",
            bandit="The others stay hidden.",
            full="Then nothing stays hidden.",
        ),
    ),
    thinks=("\nThought:", "\nI think:", "\nLet me see:"),
    asks=("\nI {verb}:", "\nMy {noun}:", "\nChoice:"),
    feedbacks=(
        Feedback(": {amount}", ". The {label} gave {amount}", ". Rewards:", " {name} {amount},"),
        Feedback(" gave {amount}", ": it was the {label} and gave {amount}", ". All gave:", " {name}: {amount},"),
        Feedback(
            ". You get {amount}", ". You took the {label} and get {amount}", ". You see:", " {name} has {amount},"
        ),
    ),
    summaries=(
        Summary("\nSo far:", "\n{name}:", " {times}", ", {number} on average"),
        Summary("\nWhat you know:", "\n{name} was taken", " {times}", " with a mean of {number}"),
        Summary("\nAll rounds until now:", "\n{name},", " {times}", ": about {number} each"),
    ),
)

HELD_OUT_STYLES = Styles(
    shapes=(
        Shape(
            text="{opener} You can take {options}. This goes on for {rounds}. {seen} {law} Earn as much as you can.",
            fixed="Averages never change.",
            changing="Averages can change at any time.",
            bandit="You are told only what your {noun} gave.",
            full="You are told what all of them gave.",
        ),
        Shape(
            text="There are {rounds}. {opener} These {nouns} wait for you: {names}. {law} {seen} "
            "Expect rewards from {low} to {high}. Their sum counts.",
            fixed="Every {noun} stays as good as it is.",
            changing="A good {noun} may become bad.",
            bandit="What the others had is never told.",
            full="What the others had is told too.",
        ),
        Shape(
            text="{opener} Choose one of {names} in each of {rounds}. {law} {seen} Your total should be high.",
            fixed="The game is the same from start to end.",
            changing="The game may change from round to round.",
            bandit="After each round you learn one reward.",
            full="After each round you learn every reward.",
        ),
    ),
    thinks=("\nMy thought:", "\nNow I think:", "\nLet me think:"),
    asks=("\nNow I {verb}:", "\nMy next {noun}:", "\nI choose:"),
    feedbacks=(
        Feedback(". It gave {amount}", ". It was the {label}, with {amount}", ". Each gave:", " {name} gave {amount},"),
        Feedback(" has {amount}", ". You got the {label}: {amount}", ". All rewards:", " {amount} for {name},"),
        Feedback(": you get {amount}", ": you get {amount} for the {label}", ". You learn:", " {name}, {amount};"),
    ),
    summaries=(
        Summary("\nUntil now:", "\nThe {name}:", " {times}", ", mean {number}"),
        Summary("\nThis is known:", "\nYou took {name}", " {times}", ", about {number} on average"),
        Summary("\nYour game so far:", "\nYou had {name}", " {times}", " and got about {number}"),
    ),
)

THOUGHTS = (
    " I will try {arm} once more.",
    " The {arm} was good, so I stay with it.",
    " The {arm} may have been only luck.",
    " I know little about {arm}. Let me try it.",
    " The best so far is {arm}.",
    " I am not sure about {arm}.",
    " One bad reward of {arm} is no reason to stop.",
    " The {arm} was bad again. Something else.",
    " I have a good feeling about {arm}.",
    " My grandmother likes {arm}.",
    " Never {arm} again.",
    " I should give {arm} a second chance.",
    " The {arm} has the most so far.",
    " Maybe {arm} has become better.",
    " The {arm} is safe, but not the best.",
    " I want to learn more about {arm}.",
    " Others may be better than {arm}.",
    " I dream of {arm}.",
    " The name {arm} sounds nice.",
    " Nobody expects {arm} now.",
    " I will stay with what works.",
    " Time to try something new.",
    " I have tried too few of them.",
    " There are many rounds left, so I can try more.",
    " Few rounds are left, so I take the best.",
    " Better safe than sorry.",
    " Who dares wins.",
    " All of them look the same to me.",
    " I do not know yet.",
    " The last one was fine. Again.",
    " The last one was bad. I change.",
    " I take the one that I know least.",
    " I take the one with the highest average.",
    " Any choice is as good as another.",
    " I will be careful.",
    " I feel lucky today.",
    " The first one is always the best.",
    " I take them in turn.",
    " I should not change too often.",
    " The moon is full, so anything can happen.",
    " I am hungry.",
    " What would a robot do.",
    " Two bad ones in a row. Enough.",
    " It is too early to be sure.",
    " By now I am sure.",
    " Things may have changed.",
    " I will not look back.",
    " Just a guess.",
)

TEMPLATE = " The best so far is {arm}, but others may be better when tried more. I choose well."
