"""The experiment in words: what nobody can beat, and a small version of the script."""

import functools
import json

import pytest

from experiments.language import in_words
from experiments.language.in_words import least_regret


def least_by_search(gap, horizon):
    """Over all ways to play: the odds that the first arm is the better one are all that is known."""
    p = (1 + gap) / 2

    @functools.cache
    def least(odds, left):
        if left == 0:
            return 0.0
        first = p**odds / (p**odds + (1 - p) ** odds)  # The probability that the first arm is the better one.
        found = []
        for better, towards in ((first, 1), (1 - first, -1)):
            paid = better * p + (1 - better) * (1 - p)
            after = paid * least(odds + towards, left - 1) + (1 - paid) * least(odds - towards, left - 1)
            found.append(gap * (1 - better) + after)
        return min(found)

    return least(0, horizon)


@pytest.mark.parametrize("gap", [0.2, 0.8])
@pytest.mark.parametrize("horizon", [1, 2, 3, 6, 9])
def test_nobody_has_less_than_the_least_regret(gap, horizon):
    assert least_regret(gap, horizon) == pytest.approx(least_by_search(gap, horizon), rel=1e-12)


@pytest.mark.slow
def test_the_script_runs_and_keeps_parts_that_were_run_before(tmp_path, monkeypatch):
    for part in ("rmft", "random"):
        words = ["in_words", "toy", part, "--quick", "--seeds", "0", "1", "--runs", str(tmp_path)]
        monkeypatch.setattr("sys.argv", words)
        in_words.main()
    found = json.loads((tmp_path / "quick" / "in_words_toy.json").read_text())
    assert list(found) == ["rmft", "random"]
    assert set(found["rmft"]["places"]) == {*in_words.PLACES, *in_words.STARTS}
    assert (tmp_path / "quick" / "in_words_toy_rmft.txt").exists()
    monkeypatch.setattr("sys.argv", ["in_words", "toy", "nothing"])
    with pytest.raises(SystemExit, match="got 'nothing', need one of rmft"):
        in_words.main()
