"""The code of README.md and of the pages of the site runs, or says why it is not run."""

import contextlib
import functools
import importlib
import importlib.util
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import rmft_jax
from pages import BLOCKS, ROOT, TUTORIALS, Block
from rmft_jax.cli import COMMANDS, common
from rmft_jax.config import ConfigError
from rmft_jax.running.storage import RunDirectory
from rmft_jax.sweeps.spec import Sweep
from tutorials import OVERRIDE, TRAINING, TRANSFORMER, as_before, laid_out, quick, rmft, small

# Others run these: `test_recipes.py`, `test_docs_tutorials.py`.
ELSEWHERE = {"docs/how-to/own-parts.md", *(path.relative_to(ROOT).as_posix() for path in TUTORIALS)}
RUN = [block for block in BLOCKS if block.excuse is None]
SIZES = {
    r"num_scenarios=\d+": "num_scenarios=8",
    r"horizon=\d+": "horizon=5",
    r"iterate_chunk\(state, \d+\)": "iterate_chunk(state, 2)",
}


def page_of(block: Block) -> str:
    return block.place.rpartition(":")[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with runs that have begun, of the names that the pages give them."""
    path = laid_out(tmp_path_factory.mktemp("pages"))
    shutil.copytree(ROOT / "experiments", path / "experiments", ignore=lambda *_: {"results", "__pycache__"})
    for name in ("quickstart", "mab"):
        RunDirectory.create(path / "runs" / name, rmft_jax.get_preset(name), name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Such a folder with results, all tiny, and a sweep."""
    path = laid_out(tmp_path_factory.mktemp("results"))
    (path / "experiments").mkdir()
    spec = 'preset = "quickstart"\nbaselines = ["thompson"]\n[override]\n' + OVERRIDE.replace("horizon = 5\n", "")
    spec += "[grid]\nhorizon = [15, 30]\nnum_arms = [2, 3]\nseed = [0, 1]\n"
    (path / "experiments" / "grid.toml").write_text(spec)
    with pytest.MonkeyPatch.context() as patch, quick("thompson", "ucb1", "epsilon_greedy"):
        patch.chdir(path)
        assert rmft("train", "quickstart", "--out", "runs/quickstart", *TRAINING, *TRANSFORMER) == 0
        assert rmft("sweep", "experiments/grid.toml", "--out", "runs/grid") == 0
        for name in ("mab", "mab-plain"):
            shutil.copytree("runs/quickstart", f"runs/{name}")
    return path


@pytest.fixture
def with_results(results, tmp_path, monkeypatch) -> None:
    """In a copy of that folder, because pages change what is there."""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_pages_have_blocks_and_only_of_known_languages():
    assert len(RUN) > 40
    assert {block.language for block in BLOCKS} <= {"python", "sh", "bash", "toml", "math", "text", ""}


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.excuse is not None], ids=lambda block: block.place
)
def test_what_is_not_run_has_a_reason(block):
    assert len(block.excuse.split()) >= 3


def run_python(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for block in RUN:
        if page_of(block) == page and block.language == "python":
            code = block.code
            for size, smaller in SIZES.items():
                code = re.sub(size, smaller, code)
            exec(compile(code, block.place, "exec"), names)
    return names


# They train by themselves; all others read results.
TRAINS = ["README.md", "docs/get-started.md"]


@pytest.mark.parametrize("page", TRAINS)
def test_python_runs_at_small_sizes(page, place, monkeypatch):
    few = functools.partial(rmft_jax.make_baselines, among=("thompson", "best_arm"))
    monkeypatch.setattr(rmft_jax, "make_baselines", few)
    names = run_python(page)
    assert set(names["evaluation"]["agent"].values) == {"rmft", "thompson", "best_arm"}
    if page == "README.md":
        assert {path.name for path in place.glob("regret.*")} == {"regret.png", "regret.pdf", "regret.csv"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted({page_of(block) for block in RUN if block.language == "python"} - ELSEWHERE - {*TRAINS})
)
def test_python_that_reads_results_runs(page, with_results):
    run_python(page)


@pytest.mark.parametrize("block", [block for block in RUN if block.language == "toml"], ids=lambda block: block.place)
def test_sweeps_are_the_one_that_is_there(block):
    assert Sweep.from_dict(tomllib.loads(block.code)) == Sweep.from_toml(ROOT / "experiments" / "grid.toml")


class AcceptedError(Exception):
    """A command whose words are in order; it would begin now."""


def started_from(source: str, cell: str | None) -> rmft_jax.RunConfig:
    """The settings of whose weights are taken up, by the name that the pages give it."""
    if cell is not None:
        with as_before():
            return Sweep.from_toml(Path("experiments/grid.toml")).expand()[int(cell)].config
    of_package = source.startswith("pretrained:")
    return rmft_jax.load_policy(source).config if of_package else RunDirectory.open(Path(source)).read_config()[0]


def shapes_of(config: rmft_jax.RunConfig) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(config.rmft.init_params, jax.random.key(0)))


def accepting(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parse_alone(*words: Any, **options: Any) -> Any:
        arguments = parse(*words, **options)
        if isinstance(config := getattr(arguments, "config", None), rmft_jax.RunConfig):
            config.validate()
            if source := getattr(arguments, "start", None):
                assert shapes_of(config) == shapes_of(started_from(source, arguments.from_cell)), source
        raise AcceptedError

    return parse_alone


def check_rmft(words: list[str]) -> None:
    if not words:
        return
    if words[0] == "sweep":
        with as_before():
            Sweep.from_toml(Path(words[1]))
    with pytest.MonkeyPatch.context() as patch:
        for name in {"api", *(name for name, _ in COMMANDS.values())}:
            module = importlib.import_module(f"rmft_jax.cli.{name}")
            if hasattr(module, "parse"):
                patch.setattr(module, "parse", accepting(common.parse))
        with contextlib.suppress(AcceptedError):
            assert rmft(*words) == 0, words


def check_module(words: list[str]) -> None:
    """A script that exists, and reads the options it is given."""
    found = importlib.util.find_spec(words[0])
    assert found is not None
    assert found.origin is not None, words
    text = Path(found.origin).read_text(encoding="utf-8")
    text += "".join(path.read_text(encoding="utf-8") for path in Path(found.origin).parent.glob("common.py"))
    for word in words[1:]:
        if word.startswith("--"):
            assert word[2:].replace("-", "_") in text or word in text, words


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ",".join(re.findall(r"\[(.*?)\]", " ".join(words))).split(","):
        assert not name or name in extras, words


def check_make(words: list[str]) -> None:
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in words), words


CHECKS = {"rmft": check_rmft, "python -m": check_module, "pip install": check_pip, "make": check_make}
# Of other programs, whose words are their own.
OTHERS = {"source", "pre-commit"}


SHELL = [block for block in RUN if block.language in ("sh", "bash")]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_commands_are_accepted(block, place):
    """Their names, options and values, not more: nothing is trained."""
    for words in block.commands:
        line = " ".join(words).replace(".venv-aot/bin/", "").replace(".venv/bin/", "")
        line = line.removeprefix("PYTHONPATH=. ")
        check = next((check for head, check in CHECKS.items() if f"{line} ".startswith(f"{head} ")), None)
        if check is None:
            assert line.split()[0] in OTHERS | {"pytest"}, f"{block.place}: {line}; try <!-- not run: REASON -->"
        else:
            check(words[next(head.count(" ") for head in CHECKS if line.startswith(head)) + 1 :])


def test_a_wrong_command_is_found(place):
    with pytest.raises(AssertionError):
        check_rmft(["train", "mab", "--out", "runs/x", "--horizons", "5"])
    with pytest.raises(AssertionError):
        check_rmft(["train", "mab", "--out", "runs/x", "--k", "99"])
    for source in (["--from", "runs/quickstart"], ["--from", "runs/grid", "--from-cell", "3"]):
        with pytest.raises(AssertionError, match="runs/"):
            check_rmft(["train", "mab", "--out", "runs/x", *source])
    with pytest.raises(ConfigError, match="preset"):
        Sweep.from_dict({"preset": "nowhere"}).expand()
    with pytest.raises(AssertionError):
        check_pip(["install", ".[nothing]"])
    with pytest.raises(AssertionError):
        check_module(["experiments.pretrain", "--nonsense"])


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page_of(block) for block in SHELL if "docs/" in block.place}))
def test_commands_run_at_small_sizes(page, with_results):
    with quick():
        for block in SHELL:
            for words in block.commands if page_of(block) == page else []:
                head, *rest = words
                if head.endswith("rmft") and not any(word.startswith(("text-", "runs/text-")) for word in rest):
                    run_small(rest)


def run_small(words: list[str]) -> None:
    of_package = any(word.startswith("pretrained:") for word in words)  # Whose weights say the size of the network.
    words = [*words, *TRAINING] if of_package and words[0] == "train" else small(words)
    if words[0] == "evaluate" and words[1].startswith("pretrained:"):
        words = [*words, "--num-scenarios", "16"]
    if "wandb" in words and importlib.util.find_spec("wandb") is None:
        return  # An extra that tests do without.
    words = [word for word in words if word != "--watch"]  # Which ends with Ctrl-C only.
    # A dry run has no directory; what goes on in one needs it.
    if words[0] in ("train", "sweep") and "--out" in words and not {"--resume", "--overwrite"} & set(words):
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    assert rmft(*words) == 0, words
