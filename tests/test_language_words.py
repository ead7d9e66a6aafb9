import dataclasses
import inspect
import itertools
import re
from typing import Any

import pytest

from rmft_jax.config.checks import ConfigError
from rmft_jax.language import families, styles
from rmft_jax.language.tokenizers import Tokenizer, WordTokenizer, split_words
from rmft_jax.language.words import TEMPLATE, Telling, make_tellings, thoughts, vocabulary

SPLITS = ("trained", "held-out")
FAMILIES = {"trained": families.TRAINED, "held-out": families.HELD_OUT}
UNITS = {"trained": families.TRAINED_UNITS, "held-out": families.HELD_OUT_UNITS}
STYLES = {"trained": styles.TRAINED_STYLES, "held-out": styles.HELD_OUT_STYLES}
VALUES = (-2.5, -1.0, -0.004, 0.0, 0.04, 0.3, 0.55, 0.99, 1.0, 1.7, 12.0)


def tellings(number: int = 600, num_arms: int = 4, horizon: int = 25, **settings: Any) -> list[Telling]:
    usual: dict[str, Any] = {"contexts": "trained", "feedback": "bandit", "low": 0.0, "high": 1.0, "fixed": True}
    return make_tellings(number, num_arms, horizon, **(usual | settings))


def dialogue(telling: Telling, *, named=False) -> str:
    """Every piece of text that a telling can give, in an order in which they can follow each other."""
    text = telling.intro
    for value, arm in zip(VALUES, itertools.cycle(range(len(telling.names))), strict=False):
        text += telling.think + thoughts()[arm].format(arm=telling.names[arm])
        text += telling.ask + f" {telling.names[arm]}" + telling.told(arm, value, named=named)
        text += telling.ask + f" {telling.names[arm]}" + telling.revealed + telling.listed(arm, value)
        text += telling.summary + telling.summed_arm(arm) + telling.summed_pulls(arm) + telling.summed_mean(value)
    return text


def number_in(text: str) -> float:
    found = re.fullmatch(r"\D*?(minus )?(\d+(?:\.\d+)?)\D*", re.sub(r"\bnothing\b", "0", text))
    assert found, text
    return -float(found[2]) if found[1] else float(found[2])


def static_texts(parts) -> set[str]:
    """The strings of a dataclass or a list of them, however deep."""
    if isinstance(parts, str):
        return {parts}
    if dataclasses.is_dataclass(parts):
        parts = [getattr(parts, field.name) for field in dataclasses.fields(parts)]
    return {text for part in parts for text in static_texts(part)} if isinstance(parts, (list, tuple)) else set()


@pytest.mark.parametrize(("contexts", "least"), [("trained", 6), ("held-out", 4)])
def test_enough_families_wordings_names_and_units(contexts, least):
    assert len(FAMILIES[contexts]) >= least
    assert len(UNITS[contexts]) >= 4
    kinds = STYLES[contexts]
    for forms in (kinds.shapes, kinds.thinks, kinds.asks, kinds.feedbacks, kinds.summaries):
        assert len(set(forms)) == len(forms) >= 3
    for family in FAMILIES[contexts].values():
        assert len(set(family.openers)) >= 3
        assert len(set(family.names)) == len(family.names) >= 20
        assert len(set(family.units)) >= 2


@pytest.mark.parametrize("contexts", SPLITS)
def test_names_of_a_family_differ_in_their_first_word(contexts):
    for family in FAMILIES[contexts].values():
        assert len({name.split()[0] for name in family.names}) == len(family.names)
        assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", name) for name in family.names)


def test_nothing_of_one_split_is_in_the_other():
    trained, held_out = (set(FAMILIES[split]) for split in SPLITS)
    assert not trained & held_out
    for kind in ("names", "openers"):
        trained, held_out = ({t for f in FAMILIES[s].values() for t in getattr(f, kind)} for s in SPLITS)
        assert not trained & held_out
    for kind in ("noun", "nouns", "verb"):
        trained, held_out = ({getattr(family, kind) for family in FAMILIES[split].values()} for split in SPLITS)
        assert not trained & held_out
    trained, held_out = ({word for unit in UNITS[split].values() for word in (unit.one, unit.many)} for split in SPLITS)
    assert not trained & held_out
    trained, held_out = (static_texts(STYLES[split]) - {" {times}"} for split in SPLITS)
    assert not trained & held_out
    trained, held_out = ({t.intro for t in tellings(contexts=split)} for split in SPLITS)
    assert not trained & held_out


@pytest.mark.parametrize("contexts", SPLITS)
def test_tellings_differ_and_are_spread_over_all_families(contexts):
    made = tellings(1000, contexts=contexts)
    assert len(set(made)) == 1000
    counts = [sum(telling.family == family for telling in made) for family in FAMILIES[contexts]]
    assert sum(counts) == 1000
    assert max(counts) - min(counts) <= 1
    # Every name and every unit comes up.
    assert {name for telling in made for name in telling.names} == {
        name for family in FAMILIES[contexts].values() for name in family.names
    }
    assert {telling.unit for telling in made} == set(UNITS[contexts].values())


def test_tellings_depend_on_the_seed_alone():
    assert tellings(20) == tellings(30)[:20]
    assert tellings(20) != tellings(20, seed=1)
    assert [telling.names for telling in tellings(20)] == [telling.names for telling in tellings(20, fixed=False)]


@pytest.mark.parametrize("contexts", SPLITS)
@pytest.mark.parametrize("feedback", ["bandit", "full"])
@pytest.mark.parametrize("fixed", [True, False])
def test_introductions_are_short_and_complete(contexts, feedback, fixed):
    for num_arms in (2, 5):
        for telling in tellings(num_arms=num_arms, horizon=37, contexts=contexts, feedback=feedback, fixed=fixed):
            assert 30 <= len(telling.intro.split()) <= 62
            assert "37 rounds" in telling.intro
            assert len(set(telling.names)) == num_arms
            assert all(re.search(rf"\b{name}\b", telling.intro) for name in telling.names)
            assert telling.unit.paid in telling.intro
            assert "{" not in telling.intro


def test_introductions_say_whether_rewards_change_and_what_is_seen():
    for contexts in SPLITS:
        texts = {
            (feedback, fixed): [t.intro for t in tellings(contexts=contexts, feedback=feedback, fixed=fixed)]
            for feedback in ("bandit", "full")
            for fixed in (True, False)
        }
        for one, other in itertools.combinations(texts.values(), 2):
            assert all(a != b for a, b in zip(one, other, strict=True))


def test_one_round_is_told_as_one():
    for contexts in SPLITS:
        for telling in tellings(60, horizon=1, contexts=contexts):
            assert "1 round" in telling.intro
            assert "1 rounds" not in telling.intro
            assert telling.summed_pulls(1).endswith(" 1 time")
            assert telling.summed_pulls(0).endswith(" 0 times")


@pytest.mark.parametrize("contexts", SPLITS)
def test_pieces_break_where_tokenizers_break(contexts):
    for telling in tellings(contexts=contexts):
        assert telling.intro == telling.intro.strip()
        for question in (telling.think, telling.ask, telling.summary, telling.summed_arm(0)):
            assert re.fullmatch(r"\n\S(.*\S)?", question)
        told = [telling.told(0, 0.3, named=False), telling.told(0, 0.3, named=True), telling.revealed]
        rows = [telling.listed(1, 0.3), telling.summed_pulls(9876543210), telling.summed_mean(0.3)]
        assert all(re.fullmatch(r"[ .,:;].*\S", text) for text in told + rows)


@pytest.mark.parametrize("contexts", SPLITS)
def test_questions_and_answers_are_short(contexts):
    for telling in tellings(contexts=contexts):
        assert 1 <= len(telling.ask.split()) <= 3
        assert 1 <= len(telling.think.split()) <= 3
        assert 2 <= len(split_words(telling.told(0, 1.0, named=False).replace(":", ""))) <= 7
        words = re.findall(r"[a-z]+|[\d.]+", telling.told(0, 1.0, named=False).lower().lstrip(" ."))
        assert 2 <= len(words) <= 4


@pytest.mark.parametrize("contexts", SPLITS)
def test_what_comes_back_names_the_arm_where_asked_to(contexts):
    for telling in tellings(100, contexts=contexts):
        for arm, name in enumerate(telling.names):
            assert name in telling.told(arm, 1.0, named=True)
            assert name in telling.listed(arm, 1.0)
            assert name in telling.summed_arm(arm)
            assert not re.search(rf"\b{name}\b", telling.told(arm, 1.0, named=False))
            assert telling.amount(0.3) in telling.told(arm, 0.3, named=True)
            assert telling.amount(0.3) in telling.told(arm, 0.3, named=False)
            assert telling.amount(0.3) in telling.listed(arm, 0.3)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 4.0), (0.0, 0.02), (-1000.0, 5000.0)])
@pytest.mark.parametrize("contexts", SPLITS)
def test_amounts_grow_with_rewards(contexts, low, high):
    units = {}
    for telling in tellings(contexts=contexts, low=low, high=high):
        units.setdefault(telling.unit, telling)
    assert len(units) == len(UNITS[contexts])
    grid = [low + (high - low) * step / 100 for step in range(-200, 301)]
    for telling in units.values():
        for written in (telling.amount, telling.summed_mean):
            numbers = [number_in(written(value)) for value in grid]
            assert numbers == sorted(numbers)
            # At least ten different amounts within the range: no unit hides who is better.
            assert len(set(numbers[200:301])) >= 10


def test_amounts_are_written_as_people_write_them():
    by_unit = {telling.unit.paid: telling for telling in tellings() if not telling.unit.padded}
    points = by_unit["points"]
    assert [points.amount(value) for value in (0.0, 1.0, 0.7, -0.3, -0.001, 2.0)] == [
        "nothing", "1 point", "0.7 points", "minus 0.3 points", "nothing", "2 points",
    ]  # fmt: skip
    assert points.summed_mean(2 / 3).count("0.67") == 1
    assert by_unit["a score in percent"].amount(0.704) == "70 percent"
    dollars = next(telling for telling in tellings() if telling.unit.many == "dollars")
    assert [dollars.amount(value) for value in (0.7, 0.2, 1.0)] == ["3.50 dollars", "1 dollar", "5 dollars"]
    scaled = next(telling for telling in tellings(low=-1.0, high=3.0) if telling.unit.many == "percent")
    assert [scaled.amount(value) for value in (-1.0, 1.0, 3.0)] == ["nothing", "50 percent", "100 percent"]
    small = next(telling for telling in tellings(high=0.02) if telling.unit == points.unit)
    assert small.amount(0.013) == "0.013 points"


def test_words_tokenize_there_and_back():
    tokenizer = WordTokenizer(vocabulary())
    for contexts in SPLITS:
        for feedback, fixed in itertools.product(("bandit", "full"), (True, False)):
            for telling in tellings(100, contexts=contexts, feedback=feedback, fixed=fixed):
                text = dialogue(telling, named=fixed)
                ids = tokenizer.encode(text)
                assert tokenizer.unknown not in ids
                assert tokenizer.decode(ids) == text
    for thought in (*thoughts(), TEMPLATE):
        text = thought.format(arm="dark cyan")
        assert tokenizer.unknown not in tokenizer.encode(text)
        assert " " + tokenizer.decode(tokenizer.encode(text)) == text


def test_every_word_of_the_vocabulary_is_used():
    texts = [*thoughts(), TEMPLATE]
    for contexts in SPLITS:
        for feedback, fixed in itertools.product(("bandit", "full"), (True, False)):
            for telling in tellings(500, contexts=contexts, feedback=feedback, fixed=fixed, low=-1.0):
                pieces = (telling.think, telling.ask, telling.revealed, telling.summary, telling.summed_mean(0.3))
                told = [telling.told(0, value, named=named) for value in (0.2, 1.0, -1.5) for named in (True, False)]
                rows = (
                    telling.summed_arm(0),
                    telling.summed_pulls(1),
                    telling.summed_pulls(9876543210),
                    telling.listed(0, 0.3),
                )
                texts += [telling.intro, *pieces, *told, *rows]
                top = telling.unit.top
                texts += [telling.amount(1.0 if top is None else 2 / top - 1)]  # exactly one euro, star, ...
    used = {word for text in set(texts) for word in split_words(re.sub(r"\{arm\}", "", text))}
    assert used == set(vocabulary())
    assert vocabulary() == sorted(set(vocabulary()))
    assert len(vocabulary()) <= 800


def test_few_words_are_met_in_held_out_text_alone():
    words = {}
    for contexts in SPLITS:
        parts = [*FAMILIES[contexts].values(), *UNITS[contexts].values(), STYLES[contexts]]
        words[contexts] = {word for text in static_texts(parts) for word in split_words(re.sub(r"\{\w+\}", " ", text))}
    trained = words["trained"].union(*(split_words(text) for text in thoughts()))
    assert 20 <= len(words["held-out"] - trained) <= 150


def test_thoughts():
    assert len(set(thoughts())) == len(thoughts()) >= 40
    assert sum("{arm}" in thought for thought in thoughts()) >= 10
    assert sum("{arm}" not in thought for thought in thoughts()) >= 10
    for thought in (*thoughts(), TEMPLATE):
        assert re.fullmatch(r" \S.*\S", thought)
        assert len(thought.split()) <= 20
    assert TEMPLATE.count("{arm}") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_arms": 21}, r"num_arms=21, need at most 20"),
        ({"num_arms": 1}, r"num_arms=1, need"),
        ({"number": 0}, r"number=0, need"),
        ({"number": 10**6}, r"number=1000000, need at most \d+ different tellings; try number=\d+$"),
        ({"horizon": 0}, r"horizon=0, need"),
        ({"low": 1.0}, r"high=1.0, need a finite number above low=1.0"),
        ({"high": float("nan")}, r"high=nan, need"),
        ({"seed": -1}, r"seed=-1, need"),
    ],
)
def test_refusals_of_tellings(settings, message):
    with pytest.raises(ConfigError, match=message):
        tellings(**({"number": 5} | settings))


@pytest.mark.parametrize(("name", "value"), [("contexts", "test"), ("feedback", "none")])
def test_refusals_of_splits_and_feedback(name, value):
    plain = inspect.unwrap(make_tellings)  # The annotations that tests check would be first.
    usual = {"contexts": "trained", "feedback": "full", "low": 0.0, "high": 1.0, "fixed": True}
    with pytest.raises(ConfigError, match=f"got {name}='{value}', need '"):
        plain(5, 3, 10, **(usual | {name: value}))


def test_as_many_arms_as_names_and_as_many_tellings_as_are_promised():
    assert all(len(set(telling.names)) == 20 for telling in tellings(26, num_arms=20))
    with pytest.raises(ConfigError) as refusal:
        tellings(10**9, contexts="held-out")
    most = int(str(refusal.value).rpartition("=")[2])
    assert len(set(tellings(most, contexts="held-out"))) == most


def test_word_tokenizer():
    tokenizer: Tokenizer = WordTokenizer(["\n", "a", "b", ".", ":", "?", *"0123456789"])
    assert (tokenizer.pad, tokenizer.eos, tokenizer.vocab_size) == (0, 1, 19)
    assert tokenizer.encode("\nb: a") == [3, 5, 7, 4]
    for text in ("a b", "\na: 12 a\nb: 3.04. a", "12.5 a", "a.", "\n\na", "3.\na"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(" a")) == "a"
    assert tokenizer.encode("a strange b!") == [4, 2, 5, 2]
    assert tokenizer.decode([4, 2, 5]) == "a? b"
    assert tokenizer.decode([4, 0, 0, 5, 1]) == "a b"
    assert tokenizer.decode([]) == ""


def test_whatever_words_a_model_puts_together_tokenize_alike_again():
    tokenizer = WordTokenizer(["\n", "a", "b", ".", ":", *"0123456789"])
    for ids in itertools.product(range(3, 10), repeat=5):
        assert tokenizer.encode(tokenizer.decode(ids)) == list(ids)


@pytest.mark.parametrize(
    ("entries", "message"),
    [(["a", "a"], "each entry once"), (["a b"], "single words"), (["12"], "single words"), ([""], "single words")],
)
def test_refusals_of_vocabularies(entries, message):
    with pytest.raises(ConfigError, match=message):
        WordTokenizer(entries)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_refusals_of_token_ids(wrong):
    with pytest.raises(ConfigError, match=rf"token id \[{wrong}\], need ids from 0 to 3"):
        WordTokenizer(["a"]).decode([0, wrong])
