import ast
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import rmft_jax

SOURCE = Path(rmft_jax.__file__).parent
# Bottom-up: a module imports only from those above it in this list.
ORDER = [
    "config", "presets", "storage", "sweeps", "bootstrap", "growth", "report", "estimates", "tables", "plotting",
    "progress", "types", "devices", "processes", "interruption", "environments", "agents", "regret", "rollout",
    "selection", "advantages", "objectives", "diagnostics", "fine_tuning", "rmft", "evaluation", "benchmark",
    "checkpoints", "pretrained", "training", "engine", "cli",
]  # fmt: skip
WITHOUT_JAX = ORDER[: ORDER.index("progress") + 1]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rmft_jax":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def files() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(SOURCE).parts[0].removesuffix(".py"), path)
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    ]


def test_every_room_is_in_the_order():
    assert {room for room, _ in files()} == set(ORDER)


@pytest.mark.parametrize(("room", "path"), files(), ids=lambda value: str(getattr(value, "name", value)))
def test_rooms_import_only_from_above(room, path):
    below = set(ORDER[ORDER.index(room) + 1 :])
    assert not imported_rooms(path) & below


@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_rooms_without_jax_do_not_import_it(room):
    names = set()
    for path in [path for name, path in files() if name == room]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        assert imported_rooms(path) <= set(WITHOUT_JAX)
    assert names
    assert not names & {"jax", "flax", "optax", "orbax", "chex"}


def test_public_names_resolve_and_are_listed():
    for name in rmft_jax.__all__:
        assert getattr(rmft_jax, name).__name__ == name
    assert set(rmft_jax.__all__) == set(rmft_jax._MODULE_OF)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rmft_jax.nonsense


def test_no_file_and_no_function_grows_too_long():
    for _, path in files():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 75, f"{path}: {node.name}"


def test_the_lock_pins_every_dependency():
    root = Path(__file__).parent.parent
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {requirement.split(">=")[0] for requirement in wanted} <= pinned
    assert importlib.metadata.version("rmft-jax") == project["version"]
