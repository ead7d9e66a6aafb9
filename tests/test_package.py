import ast
import graphlib
import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import rmft_jax

SOURCE = Path(rmft_jax.__file__).parent
# Bottom-up: a file imports only from its own room and from those before it in this list.
ORDER = ["config", "problems", "agents", "statistics", "method", "running", "language", "sweeps", "plotting"]
ORDER += ["report", "cli"]

PUBLIC: list[str] = vars(rmft_jax)["__all__"]


def files() -> dict[str, Path]:
    """Every file of the rooms, by the name of its module."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found["rmft_jax"]  # It imports on first use, and stands above all rooms.
    return found


FILES = files()
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1]


def run_statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a file but what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (part for other in child.orelse for part in run_statements(other))
        else:
            yield child
            yield from run_statements(child)


def imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, str]]:
    """Module and name of everything that is imported; the name is empty where it is the module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def imported_files(nodes: Iterator[ast.AST]) -> set[str]:
    """Modules of the package that are imported, the submodule where a package's submodule is."""
    names = {f"{module}.{name}" if f"{module}.{name}" in FILES else module for module, name in imports(nodes)}
    return {name for name in names if name.split(".")[0] == "rmft_jax"}


def test_every_room_is_in_the_order():
    assert {room_of(name) for name in FILES} == set(ORDER)
    assert not [path.name for path in SOURCE.glob("*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("name", FILES)
def test_rooms_import_only_from_above(name):
    """Also where it is for the type checker alone."""
    above = ORDER[: ORDER.index(room_of(name)) + 1]
    assert not [other for other in imported_files(ast.walk(TREES[name])) if room_of(other) not in above]


def test_no_file_imports_itself_by_way_of_others():
    graph = {name: imported_files(run_statements(tree)) for name, tree in TREES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


PLAIN = [
    name for name in FILES if room_of(name) in ("statistics", "plotting") and name != "rmft_jax.statistics.diagnostics"
]


@pytest.mark.parametrize("name", PLAIN)
def test_what_only_reads_results_needs_no_jax(name):
    modules = {module.split(".")[0] for module, _ in imports(ast.walk(TREES[name]))}
    assert not modules & {"jax", "flax", "optax", "orbax", "chex"}


def test_public_names_resolve_and_are_listed():
    for name in PUBLIC:
        assert getattr(getattr(rmft_jax, name), "__name__", name) == name
    assert dir(rmft_jax) == sorted(PUBLIC)
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(rmft_jax, "nonsense")  # noqa: B009


def test_type_checkers_see_the_public_names():
    seen = [
        (alias.name, alias.asname)
        for node in ast.parse((SOURCE / "__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert all(name == shown for name, shown in seen)
    assert sorted(name for name, _ in seen) == sorted(PUBLIC)


@pytest.mark.parametrize("words", ["['--help']", "[]"])
def test_the_help_of_the_command_loads_nothing_large(words):
    program = f"from rmft_jax.cli import main; assert main({words}) == 0; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "usage: rmft" in done.stdout
    assert not set(done.stdout.split()) & {"jax", "flax", "optax", "xarray", "matplotlib", "tyro"}


def test_no_file_and_no_function_grows_too_long():
    for name, path in FILES.items():
        assert len(path.read_text().splitlines()) <= 400, path
        for node in ast.walk(TREES[name]):
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
