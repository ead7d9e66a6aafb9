import re
import tomllib
from pathlib import Path

import pytest

from rmft_jax.method.presets import PRESETS
from rmft_jax.sweeps.spec import Sweep

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
THEORY = (ROOT / "theory" / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()


def test_the_python_example_runs_at_a_smaller_size(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    small = {
        "horizon=30": "horizon=5",
        "num_scenarios=512": "num_scenarios=8",
        "num_scenarios=2000": "num_scenarios=20",
    }
    for old, new in small.items():
        assert old in example
        example = example.replace(old, new)
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "iteration 100: regret" in out
    assert re.search(r"^rmft +\d", out, re.MULTILINE)
    assert re.search(r"^best_arm +0.00", out, re.MULTILINE)


def test_the_sweep_shown_is_the_one_that_is_there():
    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert Sweep.from_dict(tomllib.loads(shown)) == Sweep.from_toml(ROOT / "experiments" / "grid.toml")


def test_the_example_is_short():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 22


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`(?:\./)?((?:rmft_jax|experiments|theory)/[\w./]+)`", README)))
)
def test_named_files_exist(path):
    assert (ROOT / path).exists()


def test_nothing_is_left_open():
    for text in (README, THEORY, RESULTS, *(description for description, _ in PRESETS.values())):
        assert not re.search(r"@@|@[A-Z]+@|TODO", text)


def test_pictures_exist():
    for text, root in ((README, ROOT), (THEORY, ROOT / "theory")):
        for path in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (root / path).is_file()
